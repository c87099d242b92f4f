"""Scores: distance, what can be compared, and files that keep every text."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import WordLevel
from toys import VOCAB, make_tokenizer, semeval_table, tiny
from toys import rows as toy_rows

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    SUITES,
    Edits,
    Relearn,
    Scores,
    SemEval,
    evaluate,
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


# ---- strict JSON


@settings(deadline=None)  # it waits for the disk
@given(st.lists(st.sampled_from([0.5, np.inf, -np.inf, np.nan]), min_size=1, max_size=4))
def test_infinity_and_nan_survive_saving(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("scores")
    rows = semeval_table().head(len(values)).assign(nll=values)
    ci = pd.DataFrame({"metric": [f"m{i}" for i in range(len(values))], "value": values, "low": 0.0, "high": values})
    Scores(rows, ci, {"suite": "semeval", "note": values}).save(folder)
    text = (folder / "scores.json").read_text() + (folder / "rows.jsonl").read_text()
    assert "Infinity" not in text and "NaN" not in text
    again = Scores.load(folder)
    pd.testing.assert_frame_equal(again.ci, ci)
    np.testing.assert_array_equal(again.rows["nll"], values)


# ---- what comparable scores share

EMPTY = pd.DataFrame({"metric": [], "value": []})


@pytest.mark.parametrize("name", ["semeval", "tofu", "membership", "edits", "relearn"])
def test_every_option_that_is_not_free_is_compared(name):
    suite = SUITES[name]()
    meta = {"suite": name, **suite.options()}
    for key in suite.options():
        one, other = Scores(EMPTY, EMPTY, meta), Scores(EMPTY, EMPTY, meta | {key: "other"})
        if key in suite.free:
            one.require_alike(other)
        else:
            with pytest.raises(UnlearnError, match=f"can't compare scores of {key} "):
                one.require_alike(other)
    assert {"semeval": "max_new_tokens", "tofu": "max_new_tokens", "membership": "k", "edits": "max_new_tokens",
            "relearn": "max_new_tokens"}[name] in suite.compared()  # fmt: skip


@pytest.mark.parametrize("key", ["template", "max_length", "tokens", "scoring"])
def test_distance_refuses_what_was_read_otherwise(key):
    with pytest.raises(UnlearnError, match=f"can't compare scores of {key} "):
        scores().distance(scores(**{key: "other"}))


def asked(**change):
    return [row | {"id": f"r{i}", "subject": f"s{i}", "task": "t", "kind": "qa"} | change
            for i, row in enumerate(toy_rows(4, seed=0))]  # fmt: skip


def evaluated(rows, suite=Edits(max_new_tokens=3), tokenizer=None, **options):
    return evaluate(tiny(), tokenizer or make_tokenizer(), rows, suite=suite, bootstrap=0, **options)


def test_a_model_is_not_compared_with_itself_where_it_was_asked_otherwise():
    first = evaluated(asked())
    assert first.oracle_distance(evaluated(asked())) == 0
    assert first.meta["dtype"] == "float32" and first.meta["max_new_tokens"] == 3
    turned = make_tokenizer()  # the same texts as other tokens
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": VOCAB + 2 - i for i in range(3, VOCAB)}
    turned.backend_tokenizer.model = WordLevel(words, unk_token="<unk>")
    unlike = {
        "max_new_tokens": evaluated(asked(), Edits(max_new_tokens=2)),
        "max_length": evaluated(asked(), max_length=16),
        "fingerprint": evaluated(asked(candidates=[])),  # everything that a row holds counts
        "tokens": evaluated(asked(), tokenizer=turned),
    }
    for key, other in unlike.items():
        with pytest.raises(UnlearnError, match=f"can't compare scores of {key} "):
            first.distance(other)


def test_wrong_answers_are_part_of_what_is_asked():
    """Truth ratios over other wrong answers are other numbers, with the same prompts and responses."""
    rows = [row | {"split": split} for row, split in zip(asked(), ("forget", "forget", "retain", "retain"))]
    one, other = (evaluated([row | {"perturbed_responses": wrong} for row in rows], suite="tofu(max_new_tokens=2)")
                  for wrong in (["w5"], ["w6 w7"]))  # fmt: skip
    with pytest.raises(UnlearnError, match="can't compare scores of fingerprint"):
        one.distance(other)


def test_answers_made_elsewhere_have_no_reader():
    rows = [row | {"split": "forget"} for row in asked()]
    suite = Relearn(match="exact", generations=[row["response"] for row in rows])
    meta = evaluate(None, None, [*rows[:2], *(row | {"split": "retain"} for row in rows[2:])], suite=suite).meta
    assert meta["model"] is meta["dtype"] is meta["tokens"] is None


def test_notes_say_where_rows_were_not_enough():
    rows = semeval_table(people=2)
    note = Scores(rows, summarise(rows, bootstrap=20), {"suite": "semeval", "bootstrap": 20}).table()["note"]
    assert "not enough rows for an interval" in set(note)
    quiet = Scores(rows, summarise(rows, bootstrap=0), {"suite": "semeval", "bootstrap": 0}).table()["note"]
    assert set(quiet) == {""}
