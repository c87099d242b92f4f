"""The documentation: every notebook and module has its place in it, and dead links are found."""

import importlib.util
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


def sources(pages):
    """All sources of a navigation, in its order."""
    for page in pages:
        for source in page.values() if isinstance(page, dict) else [page]:
            yield from sources(source) if isinstance(source, list) else [source]


def test_every_notebook_and_package_is_in_the_navigation_once_and_in_order(build):
    listed = list(sources(build.navigation()))
    notebooks = {str(path.relative_to(ROOT / "nbs")) for path in (ROOT / "nbs").rglob("*.ipynb")
                 if ".ipynb_checkpoints" not in path.parts}
    assert {source for source in listed if source.endswith(".ipynb")} == notebooks
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


def test_formulas_are_drawn_and_code_and_prices_stay(build):
    text = build.with_formulas("an $x^2$ and `$y$`, for $5 or $6; $$\\frac1n$$")
    fence = "```python\n# of `x`\n```"
    assert build.with_formulas(f"# A `title`\n\n{fence}") == f"# A title\n\n{fence}"
    assert "<msup>" in text and "<mfrac>" in text and "`$y$`" in text and "$5 or $6" in text


def test_dead_links_and_what_comes_from_elsewhere_are_found(build, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a> <a href="b.html#gone">b</a> <a href="c.html">c</a>'
                                     '<script src="https://cdn.example/x.js"></script> <a href="https://example.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="here">b</p><img src="data:image/png;base64,AA"><a href="#">top</a>')
    assert build.dead_links(tmp_path) == [
        "a.html: b.html#gone has no such place", "a.html: c.html is not there",
        "a.html: script is fetched from https://cdn.example/x.js"]


def test_nothing_of_the_settings_asks_another_host():
    settings = yaml.safe_load((ROOT / "tools" / "docs" / "mkdocs.yaml").read_text())
    assert settings["strict"] and settings["theme"]["font"] is False and "analytics" not in settings["extra"]
    assert "https:" not in (ROOT / "tools" / "docs" / "mkdocs.yaml").read_text()
