"""Models side by side, and tables that show any text as text."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import semeval_table

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Scores,
    SemEval,
    compare_table,
    intervals,
    to_html,
)


def summarise(rows, suite=SemEval(), **options):
    return intervals(rows, suite.summarise, **options)


def scores(seed=0, **meta):
    rows = semeval_table(seed)
    return Scores(rows, summarise(rows, bootstrap=50), {"suite": "semeval", "part": "test", "bench": "b", **meta})


def test_compare_table():
    shown = compare_table({"one": scores(0), "two": scores(1)}, ["final", "mia_auc"])
    assert list(shown.columns) == ["one", "two"] and list(shown.index) == ["final", "mia_auc"]
    assert re.fullmatch(r"\d\.\d{3} \[\d\.\d\d, \d\.\d\d\]", shown.loc["final", "one"])
    bare = compare_table({"one": scores(0)}, ci=False)
    assert bare.loc["final", "one"] == scores(0).summary["final"]
    with pytest.raises(UnlearnError, match="did you mean 'mia_auc'"):
        compare_table({"one": scores(0)}, ["mia_acu"])


def test_compare_table_of_different_metrics():
    rows = semeval_table(holdout=False)
    poor = Scores(rows, summarise(rows, bootstrap=0), {})
    shown = compare_table({"poor": poor, "rich": scores()}, ["mia_auc", "final"])
    assert shown.loc["mia_auc", "poor"] == "n/a" and "[" not in shown.loc["final", "poor"]


@given(st.text(max_size=40))
@settings(max_examples=50)
def test_html_escapes_any_text(text):
    page = to_html(pd.DataFrame({text + "c": [text]}, index=pd.Index([text], name=text)))
    body = page.split("<table>")[1].split("</table>")[0]
    tags = set(re.findall(r"<[^>]*>", body))
    assert tags <= {
        "<thead>",
        "</thead>",
        "<tbody>",
        "</tbody>",
        "<tr>",
        "</tr>",
        "<th>",
        "</th>",
        "<td>",
        "</td>",
        "<span>",
        "</span>",
    }
    assert "$" not in body


def test_html_shows_a_script_as_text_and_long_text_whole():
    long = "word " * 200
    page = to_html(pd.DataFrame({"<script>": ["<script>alert('x')</script>", long], "score": [0.123456, np.nan]}))
    assert "<script>" not in page and page.count("&lt;script&gt;") == 2
    assert long in page and "0.123" in page and "0.1234" not in page and "n/a" in page
    assert "overflow-wrap" in page and "tex2jax_ignore" in page


@pytest.mark.parametrize("text, shown", [
    ("x" * 2**21, "(2095152 more characters)"), ("\x1b[2J\r\u202eevil\ntwo", "\\x1b[2J\\r\\u202eevil\ntwo<")])
def test_cells_from_anywhere_are_bounded_and_seen(text, shown):
    page = to_html(pd.DataFrame({text: [text]}, index=pd.Index([text])))
    assert page.count(shown) == 3 and len(page) < 10_000 and not set("\x1b\r\u202e") & set(page)


def test_scores_that_were_measured_unlike_do_not_stand_side_by_side():
    with pytest.raises(UnlearnError, match="can't compare scores of part 'test' with part 'validation'"):
        compare_table({"one": scores(0), "two": scores(0, part="validation")})


def test_too_few_rows_are_said_in_the_place_of_an_interval():
    rows = semeval_table(people=2)
    few = Scores(rows, summarise(rows, bootstrap=20), {"suite": "semeval", "bootstrap": 20})
    assert compare_table({"few": few}).loc["final", "few"].endswith(" (not enough rows for an interval)")
