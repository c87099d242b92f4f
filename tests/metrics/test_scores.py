"""Scores: distance, what can be compared, and files that keep every text."""

import json

import numpy as np
import pandas as pd
import pytest
from toys import semeval_table

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Scores,
    SemEval,
    intervals,
)


def summarise(rows, suite=SemEval(), **options):
    return intervals(rows, suite.summarise, **options)


def scores(seed=0, **meta):
    rows = semeval_table(seed)
    return Scores(rows, summarise(rows, bootstrap=50), {"suite": "semeval", "part": "test", "bench": "b", **meta})


def test_distance_to_itself_is_zero():
    mine = scores()
    assert mine.oracle_distance(mine) == 0 and (mine.distance(mine)["difference"] == 0).all()


def test_distance_is_the_mean_over_cells_and_auc():
    mine, oracle = scores(0), scores(1)
    keys = [*mine.cells, "mia_auc"]
    assert len(keys) == 9
    expected = np.mean([abs(mine.summary[k] - oracle.summary[k]) for k in keys])
    assert mine.oracle_distance(oracle) == pytest.approx(expected) and expected > 0
    assert mine.oracle_distance(oracle) == pytest.approx(oracle.oracle_distance(mine))


@pytest.mark.parametrize("key", ["part", "bench", "suite", "fingerprint", "utility_kind"])
def test_distance_refuses_what_is_not_comparable(key):
    with pytest.raises(UnlearnError, match=key):
        scores().distance(scores(**{key: "other"}))


def test_table_says_what_is_better():
    better = scores().table().set_index("metric")["better"]
    assert better["forget/Task1/knowledge"] == "lower" and better["retain/Task1/knowledge"] == "higher"
    assert better["mia_auc"] == "0.5" and better["repetition"] == "lower" and better["collateral_knowledge"] == "higher"


NASTY = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    'quote " comma , \r\n tab \t',
    "NA",
    "null",
    "",
    "\x00\x1b[31m",
    "$x^2$ \\frac",
    "日本語 \u202e",
    "line\u2028separator",
    "1e5",
]


def test_save_and_load_keep_every_text(tmp_path):
    mine = scores(note=["<b>", None])
    mine.rows["generation"] = [NASTY[i % len(NASTY)] for i in range(len(mine.rows))]
    mine.rows["prompt"] = mine.rows["generation"]
    again = Scores.load(mine.save(tmp_path / "deep" / "scores"))
    assert again.rows["generation"].tolist() == mine.rows["generation"].tolist()
    pd.testing.assert_frame_equal(again.rows, mine.rows, check_dtype=False)
    pd.testing.assert_frame_equal(again.ci, mine.ci)
    assert again.meta == mine.meta and again.oracle_distance(mine) == 0
    text = (tmp_path / "deep" / "scores" / "scores.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_same_scores_give_the_same_files(tmp_path):
    scores().save(tmp_path / "a")
    scores().save(tmp_path / "b")
    for name in ("scores.json", "rows.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["rows.jsonl", "scores.json"]


def test_load_from_nowhere(tmp_path):
    with pytest.raises(UnlearnError, match="no scores.json"):
        Scores.load(tmp_path)
