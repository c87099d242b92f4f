"""A report as a reader sees it, in a headless Chromium."""

import html
import json
import re
import struct

import chromium
import pytest
from small_study import write_study

from unlearn_nb.runs import PAGE_POLICY, run_study, write_index

SCRIPT = "<script>document.title = 'hacked'</script>"

WORK = f'''import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display
from unlearn_nb.runs import Run

pd.set_option("display.max_columns", None, "display.max_colwidth", None)
run = Run.open(run_dir)
text = {SCRIPT!r}
display(pd.DataFrame({{"prompt": [text, "plain"], "answer": ["a" * 400, "word " * 200]}}))
display(pd.DataFrame([range(80)], columns=[f"column {{i}}" for i in range(80)]))
display(HTML(text + "<p id=unescaped>unescaped</p>"))
print("x" * 3000)
figure, axes = plt.subplots(figsize=(16, 4))
axes.plot([0, 1], [0, 1])
run.figure(figure, "wide")'''

MEASURE = """<script>addEventListener("load", () => {
  // a table may be wider than the box that it scrolls in
  const boxes = [...document.querySelectorAll("table, img, pre")].map(
    e => (e.closest(".scroll, .jp-OutputArea-output") ?? e).getBoundingClientRect());
  const seen = {
    title: document.title, width: innerWidth, page: document.documentElement.scrollWidth,
    right: Math.max(...boxes.map(b => b.right)), images: [...document.images].map(i => i.naturalWidth),
    cells: [...document.querySelectorAll("td")].map(e => e.innerText),
    tables: document.querySelectorAll("table").length, unescaped: document.querySelectorAll("#unescaped").length,
  };
  document.body.append(Object.assign(document.createElement("pre"), {id: "seen", innerText: JSON.stringify(seen)}));
});</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    chromium.find()
    folder = tmp_path_factory.mktemp("browser")
    study = write_study(folder / "page.ipynb", 'run_dir = ""\nnote = ""', WORK, 'run.finish({"answer": 42})')
    return run_study(study, {"note": SCRIPT}, out=folder / "reports", run_name="page", progress=False)


def measure(page, tmp_path) -> dict:
    """What a browser makes of a copy of ``page`` with a measuring script; only the copy may run scripts."""
    text = page.read_text()
    assert text.count(html.escape(PAGE_POLICY, quote=False)) == 1
    copy = page.with_name("copy.html")
    copy.write_text(re.sub(r"<meta [^>]*http-equiv[^>]*>", "", text).replace("</body>", MEASURE + "</body>"))
    dom = chromium.browse(copy.as_uri(), tmp_path / "profile", "--dump-dom")
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)[1]))


def test_figures_load_tables_fit_and_scripts_show_as_text(report, tmp_path):
    seen = measure(report, tmp_path)
    assert seen["title"] == "page/page"
    assert seen["images"] and all(width > 500 for width in seen["images"])
    assert seen["tables"] == 3 and seen["unescaped"] == 1
    assert seen["cells"].count(SCRIPT) == 2, "once among the parameters, once in the table"
    assert seen["right"] <= seen["width"] and seen["page"] <= seen["width"], "nothing is wider than the page"


def test_the_report_itself_shows_on_a_screen(report, tmp_path):
    """The page as delivered, policy and all: its screenshot has the window's size and is not blank."""
    shot = tmp_path / "shot.png"
    chromium.browse(report.as_uri(), tmp_path / "profile", f"--screenshot={shot}")
    data = shot.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1000, 1400) and len(data) > 20_000


def test_the_list_of_runs_shows(report, tmp_path):
    index = write_index(report.parent.parent.parent)
    seen = measure(index, tmp_path)
    assert "complete" in seen["cells"] and "answer 42" in seen["cells"] and seen["page"] <= seen["width"]
