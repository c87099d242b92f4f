"""Pages as a reader has them: large and small, light and dark, by keyboard, and without a request."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import chromium
import nbformat
import pytest
from bs4 import BeautifulSoup

from unlearn_nb.runs import Number, Summary, front_html, report_html, write_index, write_summary

REPORTS = Path(__file__).resolve().parents[2] / "reports"
PAGES = sorted(REPORTS.glob("*/*/report.html"))
SCREENS = [(1400, 900, False), (1400, 900, True), (400, 800, False), (400, 800, True)]
BESIDE = ["metrics.json", "params.yaml", "environment.json"]
BOTTOM = """Math.max(...[...document.querySelectorAll(
  ".verdict h1, .numbers > div, .one img, .adapter, .rest h2")].map(e => e.getBoundingClientRect().bottom))"""
CONTRAST = """(() => {
  const parts = color => color.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = color => { const [r, g, b] = parts(color); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = getComputedStyle(document.body).backgroundColor;
  return Math.min(...[...document.querySelectorAll("h1, p, a, dt, .note, .rest h2, summary")].map(e => {
    const two = [light(getComputedStyle(e).color), light(paper)].sort((a, b) => b - a);
    return (two[0] + 0.05) / (two[1] + 0.05);
  }));
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    page = chromium.Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.mark.parametrize("width, height, dark", SCREENS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.parent.name)
def test_the_answer_stands_on_the_first_screen(browser, page, width, height, dark):
    browser.open(page.as_uri(), width=width, height=height, dark=dark)
    assert browser.js("document.querySelectorAll('.numbers > div').length") == 4
    assert browser.js("document.querySelector('.one img').naturalWidth") > 300
    assert browser.js(BOTTOM) <= height and browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js(CONTRAST) >= 4.5 and browser.requests() == []
    paper = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == dark


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of four runs, of which one has failed."""
    out = tmp_path_factory.mktemp("listed")
    for study, name, seconds in (("merging", "b", 5), ("merging", "d", 7), ("relearn", "a", 30), ("relearn", "c", 4)):
        folder = out / study / name
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text("seed: 0\n")
        (folder / "environment.json").write_text(f'{{"seconds": {seconds}}}')
        if name == "c":
            (folder / "error.txt").write_text("boom")
            continue
        (folder / "report.html").touch()
        (folder / "metrics.json").write_text('{"x": 1}')
        write_summary(folder, Summary(f"Run {name} is kept.", (Number("x", 1.0),)))
    return write_index(out)


@pytest.mark.parametrize("width, height, dark", SCREENS)
def test_the_list_is_searched_and_sorted_by_keyboard(browser, listed, width, height, dark):
    browser.open(listed.as_uri(), width=width, height=height, dark=dark)
    shown = ("[...document.querySelectorAll('tr[data-study]')].filter(e => e.checkVisibility())"
             ".map(e => e.cells[1].innerText)")
    assert browser.js(shown) == ["b", "d", "a"], "what failed is folded"
    browser.type("/", *"boom c")
    assert browser.js(shown) == []
    browser.type("Escape", *"relearn")
    assert browser.js(shown) == ["a", "c"], "a search looks into what is folded"
    browser.type("Escape")
    for _ in range(20):
        browser.type("Tab")
        if browser.js("document.activeElement.innerText") == "seconds":
            break
    browser.type("Enter", "Enter")
    assert browser.js("document.querySelector('th[aria-sort]').ariaSort") == "descending"
    assert browser.js(shown) == ["a", "d", "b"] and browser.requests() == []
    assert browser.js("document.documentElement.scrollWidth") <= width


def test_what_came_out_is_read_whole_on_a_small_screen(browser, tmp_path):
    """No cell of the list reaches beyond the screen, however long the sentence is."""
    folder = tmp_path / "localization" / "tiny-biographies-quick-s0-density=0.5"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text("seed: 0\n")
    (folder / "report.html").touch()
    (folder / "metrics.json").write_text('{"x": 1}')
    write_summary(folder, Summary("Unlearning where the knowledge lies helps in 2 of 14 comparisons. " * 4))
    browser.open(write_index(tmp_path).as_uri(), width=400, height=800)
    assert browser.js("Math.max(...[...document.querySelectorAll('td, th')].filter(e => e.checkVisibility())"
                      ".map(e => e.getBoundingClientRect().right))") <= 400
    box = "document.querySelector('.runs')"
    assert browser.js(f"{box}.scrollWidth <= {box}.clientWidth && {box}.scrollHeight <= {box}.clientHeight")


VISIBLE = "[...document.links].filter(e => e.checkVisibility()).map(e => e.getAttribute('href'))"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.parent.name)
def test_the_code_comes_along_in_a_clone_and_in_a_copied_file(browser, page, tmp_path):
    """The notebook is saved by the link; in a copy no other link is left that leads beside it."""
    copied = Path(shutil.copyfile(page, tmp_path / "copied.html"))
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for place in (page, copied):
        browser.open(place.as_uri())
        browser.js("for (const folded of document.querySelectorAll('details')) folded.open = true")
        beside = [link for link in browser.js(VISIBLE) if not re.match("data:|#|https:", link)]
        assert beside == (["../../index.html", *BESIDE] if place == page else [])
        browser.js("document.querySelector('#code a[download]').click()")
        saved = tmp_path / "notebook.ipynb"
        browser.wait(lambda: saved.is_file() and saved.stat().st_size)
        cells = [cell.source for cell in nbformat.read(saved, as_version=4).cells if cell.cell_type == "code"]
        saved.unlink()
        assert [cell for cell in cells if cell.strip()] == browser.js(
            "[...document.querySelectorAll('#code pre')].map(e => e.textContent)")


@pytest.mark.parametrize("width, height, dark", SCREENS)
def test_the_committed_list_is_searched_and_sorted_by_keyboard(browser, width, height, dark):
    browser.open((REPORTS / "index.html").as_uri(), width=width, height=height, dark=dark)
    shown = ("[...document.querySelectorAll('tr[data-study]')].filter(e => e.checkVisibility())"
             ".map(e => e.cells[0].innerText)")
    studies = browser.js(shown)
    assert sorted(studies) == [page.parent.parent.name for page in PAGES]
    browser.type("/", *studies[-1])
    assert browser.js(shown) == studies[-1:]
    browser.type("Escape")
    for _ in range(5):  # where the list is wider than the screen, its box is a stop, too
        browser.type("Tab")
        if browser.js("document.activeElement.innerText") == "study":
            break
    browser.type("Enter", "Enter")
    assert browser.js(shown) == sorted(studies, reverse=True) and browser.requests() == []
    assert browser.js("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("page", [REPORTS / "index.html", *PAGES], ids=lambda page: page.parent.name)
def test_paper_is_white_and_cuts_nothing(browser, page):
    browser.open(page.as_uri(), dark=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.send("Emulation.setEmulatedMedia", media="print", features=[scheme])
    assert browser.js("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#fff"
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js(CONTRAST) >= 4.5
    assert browser.js("[...document.querySelectorAll('.scroll, .jp-OutputArea-output')].every("
                      "e => getComputedStyle(e).overflow === 'visible' && getComputedStyle(e).maxHeight === 'none')")
    browser.send("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.parent.name)
def test_print_shows_what_is_folded(browser, page):
    browser.open(page.as_uri())
    browser.js("addEventListener('afterprint', () => { window.was = 1 }); addEventListener('beforeprint', () => "
               "{ window.folded = document.querySelectorAll('details:not([open])').length })")
    browser.send("Page.printToPDF")
    assert browser.js("window.folded") == 0 and browser.js("document.querySelectorAll('details[open]').length") == 0


def test_a_script_in_a_row_does_not_run(browser, tmp_path):
    """Neither through the allow-list, nor where it comes as far as the page: the policy knows one script only."""
    hostile = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"
    new = nbformat.v4
    output = new.new_output("display_data", data={"text/html": f"<table><tr><td>{hostile}</td></tr></table>"})
    front = front_html(Summary(hostile, (Number(hostile, 1.0, note=hostile),), fails=[hostile], caption=hostile))
    text = report_html(new.new_notebook(cells=[new.new_markdown_cell(f"# {hostile}\n\n## {hostile}"),
                                               new.new_code_cell(hostile, outputs=[output])]), "a/b", front=front)
    page = tmp_path / "page.html"
    for written in (text, text.replace("<main>", f"<main>{hostile}")):
        page.write_text(written)
        browser.open(page.as_uri())
        assert browser.js("document.title") == "a/b" and browser.js("document.scripts.length") >= 1
        assert browser.js("document.querySelectorAll('th, td').length") >= 1


@pytest.mark.parametrize("page", [REPORTS / "index.html", *PAGES], ids=lambda page: page.parent.name)
def test_no_link_of_a_page_is_dead(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for link in soup("a", href=True):
        if not re.match(r"https?:|mailto:|data:", link["href"]):
            path, _, part = unquote(link["href"]).partition("#")
            assert (page.parent / path).exists() if path else soup.find(id=part), link["href"]
