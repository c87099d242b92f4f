"""The list of runs."""

from unlearn_nb.runs import write_index


def test_the_index_escapes_and_lists_every_state(tmp_path):
    done = {"report.html": "", "metrics.json": '{"<b>x": 1.5}'}
    for name, files in {"done": done, "bad": {"error.txt": "boom"}, "cut": {}}.items():
        (tmp_path / "s" / name).mkdir(parents=True)
        for file, text in {"params.yaml": "seed: 0\n", **files}.items():
            (tmp_path / "s" / name / file).write_text(text)
    page = write_index(tmp_path).read_text()
    assert "&lt;b&gt;x 1.5" in page and "<b>" not in page
    assert all(f"<td>{state}</td>" in page for state in ("complete", "failed", "interrupted"))
    assert 'href="s/done/report.html"' in page and 'href="s/bad/error.txt"' in page


def test_an_old_listing_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "index.html").write_text("an old list")
    page = write_index(tmp_path)
    assert "an old list" not in page.read_text() and [path.name for path in tmp_path.iterdir()] == ["index.html"]
