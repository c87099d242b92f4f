"""No link of the project is dead: texts, notebooks, reports. Outside addresses are judged by their form alone."""

import json
import re
from pathlib import Path

import links
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXTS = sorted(ROOT.glob("*.md"))
NOTEBOOKS = [path for path in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
REPORTS = [ROOT / "reports" / "index.html", *sorted((ROOT / "reports").glob("*/*/report.html"))]
OURS = re.compile(r"`((?:nbs|tests|tools|reports|benchmarks|unlearn_nb)/[\w./-]*[\w/])`")


@pytest.mark.parametrize("kind", [TEXTS, NOTEBOOKS, REPORTS], ids=["texts", "notebooks", "reports"])
def test_no_link_is_dead(kind):
    assert kind and not [dead for path in kind for dead in links.dead_links(path, ROOT)]


def test_files_that_texts_name_are_there():
    """`nbs/...` and the like in README.md, CONTRIBUTING.md, SECURITY.md; what a changelog names may be gone since."""
    named = [(path.name, found) for path in TEXTS if path.name != "CHANGELOG.md"
             for found in OURS.findall(path.read_text(encoding="utf-8"))
             if not re.search(r"NN|STUDY|/package/|NAME", found)]  # these stand for others
    assert len(named) > 30 and not [(where, name) for where, name in named if not (ROOT / name).exists()]


def test_what_is_dead_is_found(tmp_path):
    """Each kind of link, on each kind of page."""
    text = ("# One `title`, two\n\n[here](#one-title-two) [file](b.md) [place](b.md#there) <https://example.org/a_(b)> "
            "`[code](gone.md)`\n\n```\n[fenced](gone.md)\n```\n\n[x](https://example.org/a_(b)) "
            "![ok](data:image/png;base64,AA)\n\n[a](gone.md) [b](b.md#gone) [c](#gone) "
            "[d](http://example.org) [e](https://nowhere) "
            "<img src='gone.png'>\n\n[f]: gone.html\n")
    (tmp_path / "b.md").write_text("## There\n\n```\n# gone\n```\n")
    expected = ["gone.md is not there", "b.md#gone has no such place", "#gone has no such place",
                "http://example.org is no address of the form https://host/path",
                "https://nowhere is no address of the form https://host/path", "gone.html is not there",
                "gone.png is not there"]
    (tmp_path / "a.md").write_text(text)
    cell = {"cell_type": "markdown", "source": text.splitlines(keepends=True)}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell, {"cell_type": "code", "source": ["[x](gone.md)"]}]}))
    for name in ("a.md", "a.ipynb"):
        assert links.dead_links(tmp_path / name, tmp_path) == [f"{name}: {wrong}" for wrong in expected]
    (tmp_path / "a.html").write_text("<h1 id=top>a</h1><a href='#top'>a</a><a href='#end'>b</a>"
                                     "<a href='b.md#there'>c</a><img src='c.png'><a href=''>d</a><script src='http://cdn.example/x.js'></script>")
    assert links.dead_links(tmp_path / "a.html", tmp_path) == [
        "a.html: #end has no such place", "a.html: c.png is not there", "a.html:  is not there",
        "a.html: http://cdn.example/x.js is no address of the form https://host/path"]
