"""A damaged run is shown as unreadable, hides no other, and changes nothing about a run that has finished."""

import os
import resource
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_study import write_study

from unlearn_nb.cli import main
from unlearn_nb.runs import begin_try, list_runs, read_run, run_study, settle, write_index

LETTERS = "abcdefghijklm"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip(LETTERS, LETTERS[1:]))


def put(name: str, data: bytes | str):
    """A damage: `name` with other content."""
    return lambda run: (run / name).write_bytes(data.encode() if isinstance(data, str) else data)


def folder_instead(run: Path) -> None:
    (run / "params.yaml").unlink()
    (run / "params.yaml").mkdir()


def loop_instead(run: Path) -> None:
    (run / "metrics.json").unlink()
    (run / "metrics.json").symlink_to("metrics.json")


def pipe_instead(run: Path) -> None:
    (run / "environment.json").unlink(missing_ok=True)
    os.mkfifo(run / "environment.json")


def huge(run: Path) -> None:
    with open(run / "metrics.json", "r+b") as file:
        file.truncate(5_000_000_000)  # sparse: it takes no place


DAMAGES = {
    "a cut JSON file": (put("metrics.json", '{"answer": 4'), "metrics.json can't be read"),
    "NaN": (put("metrics.json", '{"answer": NaN}'), "NaN is no number of JSON"),
    "a list": (put("params.yaml", "- 1\n- 2\n"), "params.yaml holds no names and values"),
    "aliases that stand for gigabytes": (put("params.yaml", BOMB), "it has aliases"),
    "YAML that would run code": (put("params.yaml", "a: !!python/object/apply:os.system ['true']"), "constructor"),
    "nesting without end": (put("environment.json", "[" * 100_000), "nested too deeply"),
    "brackets without end": (put("params.yaml", "[" * 100_000), "params.yaml can't be read"),
    "no UTF-8": (put("environment.json", b'{"started": "\xff\xfe"}'), "environment.json is not UTF-8"),
    "a folder called like a file": (folder_instead, "params.yaml is a folder"),
    "a link to itself": (loop_instead, "symbolic links"),
    "a pipe that nobody fills": (pipe_instead, "environment.json is a device"),
    "gigabytes": (huge, "metrics.json has 5000000000 bytes"),
    "no metrics": (lambda run: (run / "metrics.json").unlink(), "metrics.json is missing"),
    "a number of 5000 digits": (put("metrics.json", '{"answer": ' + "9" * 5000 + "}"), "5000 digits"),
}


@pytest.fixture
def runs(tmp_path):
    """Three runs in one folder of reports: two that are fine, and between them one to be damaged."""
    for name in ("a", "m", "z"):
        (tmp_path / "s" / name).mkdir(parents=True)
        for file, text in {"params.yaml": "seed: 0", "metrics.json": '{"answer": 42}', "report.html": "..."}.items():
            (tmp_path / "s" / name / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_neighbour_is_unreadable_and_hides_nobody(runs, damage):
    harm, reason = DAMAGES[damage]
    harm(runs / "s" / "m")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {run.name: run for run in list_runs(runs)}
    assert {name: run.state for name, run in found.items()} == {"a": "complete", "m": "unreadable", "z": "complete"}
    assert reason in found["m"].note and "\n" not in found["m"].note and len(found["m"].note) < 700
    assert found["m"].shown == "report.html"
    page = write_index(runs).read_text()
    assert page.count("<td>complete</td>") == 2 and page.count("<td>unreadable</td>") == 1 and len(page) < 30_000
    for arguments, part in [(["list"], "unreadable ("), (["show", "z"], "42"), (["show", "m"], "s/m: unreadable")]:
        result = CliRunner().invoke(main, [*arguments, "--out", str(runs)])
        assert result.exit_code == 0 and part in result.stdout
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize("headline", ["[1]", "7", '"good"', "true", "null", '{"a": true, "b": [1], "c": null}', "{}"])
def test_a_headline_of_any_kind_is_shown(runs, headline):
    (runs / "s" / "m" / "metrics.json").write_text(f'{{"headline": {headline}, "answer": 42}}')
    assert read_run(runs / "s" / "m").state == "complete" and write_index(runs).is_file()
    if "{" not in headline or headline == "{}":
        assert "answer 42" in read_run(runs / "s" / "m").headline_text.split(", ")


def test_numbers_that_no_float_holds_are_shown(runs):
    (runs / "s" / "m" / "metrics.json").write_text(f'{{"answer": 1{"0" * 400}}}')
    assert read_run(runs / "s" / "m").headline_text == "answer a whole number of hundreds of digits"


def test_names_of_runs_can_be_anything(runs):
    names = ["<b>x", "a?b#c%41", "javascript:alert(1)", "n\nn\x1b[2J", os.fsdecode(b"\xff")]
    for name in names:
        (runs / "s" / "a").rename(runs / "s" / name)
        shutil.copytree(runs / "s" / name, runs / "s" / "a")
    page = write_index(runs).read_text()
    assert "<b>" not in page and 'href="s/a%3Fb%23c%2541/report.html"' in page and 'href="s/%FF/report.html"' in page
    listed = CliRunner().invoke(main, ["list", "--out", str(runs)])
    assert listed.exit_code == 0 and "\x1b" not in listed.stdout and listed.stdout.count("complete") == 8


def test_an_error_text_of_any_size_and_kind_is_not_read_whole(runs):
    (runs / "s" / "m" / "report.html").unlink()
    with open(runs / "s" / "m" / "error.txt", "wb") as file:
        file.write(b"boom \xff\n")
        file.truncate(3_000_000_000)
    run = read_run(runs / "s" / "m")
    assert run.state == "failed" and run.error.startswith("boom \ufffd\n") and len(run.error) < 100_000


def test_a_run_that_vanishes_is_no_error(runs, monkeypatch):
    shutil.rmtree(runs / "s" / "m")
    assert [run.name for run in list_runs(runs)] == ["a", "z"]
    assert read_run(runs / "s" / "m").state == "interrupted"

    def vanish(path):
        shutil.rmtree(runs / "s" / "a", ignore_errors=True)
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("unlearn_nb.runs.overview.read_mapping", vanish)
    assert {run.state for run in list_runs(runs)} == {"unreadable"}


def test_a_run_whose_reading_fails_in_any_way_is_unreadable(runs, monkeypatch):
    def fail(path):
        raise MemoryError

    monkeypatch.setattr("unlearn_nb.runs.overview.read_mapping", fail)
    assert [(run.name, run.state, run.note) for run in list_runs(runs)] == [
        (name, "unreadable", "MemoryError") for name in ("a", "m", "z")]


def test_deep_yaml_is_refused_before_it_is_read_to_its_end(runs):
    (runs / "s" / "m" / "params.yaml").write_text("[" * 60 + "]" * 60)
    assert "it is nested more than 40 deep" in read_run(runs / "s" / "m").note


def test_nothing_is_written_into_a_run_that_is_looked_at(runs):
    (runs / "s" / "m" / "report.html").unlink()
    before = sorted(runs.rglob("*"))
    assert [run.state for run in list_runs(runs)] == ["complete", "interrupted", "complete"]
    assert sorted(runs.rglob("*")) == before


def test_a_list_that_cant_be_written_changes_no_finished_run(tmp_path, monkeypatch, capsys):
    study = write_study(tmp_path / "s.ipynb", 'run_dir = ""', "from unlearn_nb.runs import Run",
                        "Run.open(run_dir).finish({'answer': 1})")
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    (tmp_path / "out" / "index.html" / "mine.txt").write_text("kept")
    result = CliRunner().invoke(main, ["run", str(study), "--out", str(tmp_path / "out"), "--name", "x"])
    assert result.exit_code == 0 and result.stdout == f"{tmp_path}/out/s/x/report.html\n"
    assert "the list of all runs" in result.stderr and "is a folder" in result.stderr
    assert (tmp_path / "out" / "index.html" / "mine.txt").read_text() == "kept"
    monkeypatch.setattr("unlearn_nb.runs.execute.write_index", lambda out: 1 / 0)
    assert run_study(study, out=tmp_path / "out", run_name="x", progress=False).is_file()
    assert "was not written: division by zero" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "last-try"])
@pytest.mark.parametrize("what", ["a pipe", "brackets", "gigabytes", "a folder"])
def test_a_strangers_list_of_a_result_stops_nobody(runs, place, what):
    path = runs / "s" / "m" / place / ".result.json"
    path.parent.mkdir(exist_ok=True)
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.write_text("[" * 100_000)
        os.truncate(path, 5_000_000_000 if what == "gigabytes" else 100_000)
    assert [run.state for run in list_runs(runs)] == ["complete"] * 3
    settle(runs / "s" / "m")
    assert begin_try(runs / "s" / "m").is_dir() and read_run(runs / "s" / "m").metrics == {"answer": 42}
