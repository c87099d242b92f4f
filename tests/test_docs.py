"""The documentation: every notebook and module has its place in it, and dead links are found."""

import base64
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("latex2mathml")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def build():
    """The script that builds the site."""
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "tools" / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def notebooks(build):
    """The module beside it that makes pages of notebooks."""
    return sys.modules["notebooks"]


def sources(pages):
    """All sources of a navigation, in its order."""
    for page in pages:
        for source in page.values() if isinstance(page, dict) else [page]:
            yield from sources(source) if isinstance(source, list) else [source]


def test_every_notebook_and_package_is_in_the_navigation_once_and_in_order(build):
    listed = list(sources(build.navigation()))
    notebooks = {str(path.relative_to(ROOT / "nbs").with_suffix(".md")) for path in (ROOT / "nbs").rglob("*.ipynb")
                 if ".ipynb_checkpoints" not in path.parts}
    others = {source for source in listed if source.startswith("library/") or source.isupper() or source[0].isupper()}
    assert set(listed) - others - {"glossary.md"} == notebooks
    assert len(set(listed)) == len(listed)
    numbered = [source for source in listed if source[0].isdigit()]
    assert numbered == sorted(numbered)
    assert [source for source in listed if source.startswith("library/")] == [
        f"library/{folder.name[3:]}.md" for folder in sorted((ROOT / "nbs").glob("[0-9]*/"))]


def test_the_sources_hold_every_module_and_no_page_is_missing(build, tmp_path):
    build.write_sources(tmp_path)
    assert not [source for source in sources(build.navigation()) if not (tmp_path / source).is_file()]
    told = "".join(page.read_text() for page in (tmp_path / "library").iterdir())
    for module in (ROOT / "unlearn_nb").glob("*/[a-z]*.py"):
        assert f"::: unlearn_nb.{module.parent.name}.{module.stem}\n" in told


def test_formulas_are_drawn_and_code_and_prices_stay(notebooks):
    text = notebooks.with_formulas("an $x^2$ and `$y$`, for $5 or $6; $$\\frac1n$$ $a * b_* | [c]$")
    fence = "# A `title`\n\n```python\n# of `$x$`\n```"
    assert notebooks.with_formulas(fence) == fence
    assert "<msup>" in text and "<mfrac>" in text and "`$y$`" in text and "$5 or $6" in text
    assert not any(sign in text.partition("</math> <math")[2] for sign in "*|[]"), "Markdown reads none of a formula"


def test_a_notebook_becomes_a_page_with_its_outputs(notebooks, tmp_path):
    """Pictures are files, HTML is harmless, what went to stderr and hidden cells are left out, links lead to pages."""
    png = base64.b64encode(b"\x89PNG picture").decode()
    outputs = [{"output_type": "stream", "name": "stdout", "text": ["said ```\n"]},
               {"output_type": "stream", "name": "stderr", "text": ["warned"]},
               {"output_type": "display_data", "data": {"image/png": png, "text/plain": ["<Figure>"]}},
               {"output_type": "execute_result", "data": {"text/html": ["<b onclick=x()>", "fat</b><script>x"]}},
               {"output_type": "execute_result", "data": {"text/plain": ["42"]}}]
    cells = [{"cell_type": "markdown", "source": ["# T\n", "[n](../a/00_b.ipynb#c) [o](https://x.org/d.ipynb)\n",
                                                  "<details><summary>`s`</summary>\n\n| a |\n|---|\n\n</details>"]},
             {"cell_type": "code", "source": ["#| default_exp a.b"], "outputs": []},
             {"cell_type": "code", "source": ["#| hide\n", "import c"], "outputs": []},
             {"cell_type": "code", "source": ["#| export\n", "x = 1"], "outputs": outputs}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    page = notebooks.page_of(tmp_path / "n.ipynb", tmp_path)
    assert page == ('# T\n[n](../a/00_b.md#c) [o](https://x.org/d.ipynb)\n<details markdown><summary markdown="span">'
                    "`s`</summary>\n\n| a |\n|---|\n\n</details>\n\n"
                    "Module [`unlearn_nb.a.b`][unlearn_nb.a.b]\n{.module}\n\n```python\nx = 1\n```\n\n"
                    "````{.text .output}\nsaid ```\n````\n\n"
                    '![a figure](n-3-2.png){.figure}\n\n'
                    '<div class="output">\n<b>fat</b>\n</div>\n\n```{.text .output}\n42\n```\n')
    assert (tmp_path / "n-3-2.png").read_bytes() == b"\x89PNG picture"


def test_dead_links_and_what_comes_from_elsewhere_are_found(build, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a> <a href="b.html#gone">b</a> <a href="c.html">c</a>'
                                     '<script src="https://cdn.example/x.js"></script> <a href="https://example.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="here">b</p><img src="data:image/png;base64,AA"><a href="#">top</a>')
    assert build.dead_links(tmp_path) == [
        "a.html: b.html#gone has no such place", "a.html: c.html is not there",
        "a.html: script is fetched from https://cdn.example/x.js"]


def test_a_dead_link_ends_the_build(build, tmp_path):
    (tmp_path / "a.html").write_text('<a href="gone.html">b</a>')
    with pytest.raises(SystemExit, match="1 links of the documentation are dead:\na.html: gone.html is not there"):
        build.check_links(tmp_path)
    (tmp_path / "gone.html").touch()
    build.check_links(tmp_path)


def test_what_mkdocs_warns_of_ends_the_build(build, tmp_path):
    """A link to a page or to a place on it, which mkdocs finds before there are pages."""
    pytest.importorskip("mkdocs")
    (tmp_path / "source").mkdir()
    checks = yaml.safe_load((ROOT / "tools" / "docs" / "mkdocs.yaml").read_text())["validation"]
    settings = {"site_name": "x", "docs_dir": "source", "validation": checks, "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    for link in ("gone.md", "#gone"):
        (tmp_path / "source" / "index.md").write_text(f"# A\n\n[here](#a) [dead]({link})\n")
        with pytest.raises(SystemExit, match=link):
            build.make_site(tmp_path)
    (tmp_path / "source" / "index.md").write_text("# A\n\n[here](#a)\n")
    build.make_site(tmp_path)
    assert (tmp_path / "site" / "index.html").is_file()


def test_nothing_of_the_settings_asks_another_host():
    settings = yaml.safe_load((ROOT / "tools" / "docs" / "mkdocs.yaml").read_text())
    assert settings["strict"] and settings["theme"]["font"] is False and "analytics" not in settings["extra"]
    assert "https:" not in (ROOT / "tools" / "docs" / "mkdocs.yaml").read_text()
