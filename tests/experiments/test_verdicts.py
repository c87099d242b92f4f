"""Verdicts are computed: other numbers, another sentence."""

import math

import pandas as pd
import pytest

from unlearn_nb.experiments import (
    damage_claims,
    distance_number,
    erasing_claims,
    erasing_summary,
    failing,
    localization_summary,
    scores_summary,
)

COLUMNS = {"forgotten": "-recited", "retained": "kept", "collateral": "others"}


def scores(seeds=(0,), **values):
    """A table of scores: `kept=0.9` of the model "ours"; the oracle has recited 0.05, kept 1 and others 1."""
    oracle = {"recited": 0.05, "kept": 1.0, "others": 1.0}
    rows = [{"seed": seed, "model": model, "metric": metric, "value": value, "low": value - 0.02, "high": value + 0.02}
            for seed in seeds for model, given in (("ours", values), ("oracle", oracle))
            for metric, value in given.items()]
    return pd.DataFrame(rows)


def claims(table):
    asked = pd.DataFrame({"seed": [0, 0], "model": ["ours", "oracle"], "others": table})
    return damage_claims(asked, "ours", ["others"])


@pytest.mark.parametrize("values, said, fails", [
    ({"recited": 0.06, "kept": 1.0, "others": 0.99}, "Ours has forgotten (0.94, oracle 0.95) and keeps what it was to "
     "retain (1.00, oracle 1.00) and leaves others unharmed (0.99, oracle 1.00).", 0),
    ({"recited": 0.06, "kept": 1.0, "others": 0.2}, "Ours has forgotten (0.94, oracle 0.95) and keeps what it was to "
     "retain (1.00, oracle 1.00), but damages rows that stand in neither set (0.20, oracle 1.00).", 2),
    ({"recited": 0.7, "kept": 0.5, "others": 1.0}, "Ours leaves others unharmed (1.00, oracle 1.00), but has not "
     "forgotten (0.30, oracle 0.95) and keeps only part of what it was to retain (0.50, oracle "
     "1.00).", 2),
])
def test_other_scores_make_another_sentence(values, said, fails):
    found = scores_summary(scores(**values), "Ours", "ours", columns=COLUMNS, found=claims([values["others"], 1.0]),
                           distances=[0.1])
    assert found.verdict == said and len(found.fails) == fails
    names = [number.name for number in found.numbers]
    assert names == ["forgotten", "retained", "collateral", "distance to the oracle"]
    assert found.numbers[0].value == pytest.approx(1 - values["recited"]) and found.numbers[0].interval


@pytest.mark.parametrize("missing, gone", [({"oracle": "the oracle knows the forget rows"}, 3),
                                           ({"target": "the target does not know the forget rows"}, 0)])
def test_what_can_not_be_relied_on_is_said_first_and_withheld(missing, gone):
    found = scores_summary(scores(recited=0.06, kept=1.0, others=0.2), "Ours", "ours", columns=COLUMNS,
                           found=claims([0.2, 1.0]), distances=[0.1], missing=missing)
    reason = next(iter(missing.values()))
    assert found.verdict.startswith(reason.capitalize()) and found.fails[0].startswith(reason.capitalize())
    assert found.numbers[gone].value is None and reason in found.numbers[gone].note
    assert found.numbers[3].value is None, "no distance to an oracle that is none, nor from a target that knows nothing"
    assert "oracle 1.00" not in found.verdict


def test_forgetting_is_withheld_however_it_was_measured():
    """A target that never knew the rows has nothing to forget, read as 1 - recited or as a share forgotten."""
    missing = {"target": "the target does not know the forget rows"}
    found = scores_summary(scores(share=1.0, kept=1.0), "Ours", "ours", columns=COLUMNS | {"forgotten": "share"},
                           found=claims([1.0, 1.0]), missing=missing)
    assert found.numbers[0].value is None and found.numbers[0].note == missing["target"]
    assert "has forgotten" not in found.verdict


@pytest.mark.parametrize("others, said, fails", [
    (0.3, "Ours keeps what it was to retain (0.85, target 0.86) and leaves others unharmed (0.30, target 0.30), but "
     "has not forgotten (0.30).", 0), (0.9, "damages rows that stand in neither set (0.30, target 0.90).", 1)])
def test_without_an_oracle_what_was_to_stay_is_read_beside_the_target(others, said, fails):
    table = scores(recited=0.7, kept=0.85, others=0.3).query("model == 'ours'")
    before = pd.DataFrame({"seed": 0, "model": "target", "metric": ["recited", "kept", "others"],
                           "value": [1.0, 0.86, others], "low": 0.0, "high": 1.0})
    found = scores_summary(pd.concat([table, before]), "Ours", "ours", columns=COLUMNS, found=claims([1.0, 1.0]),
                           missing={"oracle": "no oracle"})
    assert found.verdict.endswith(said) and len(found.fails) == fails
    assert not fails or found.fails[0] == "Collateral is not within 0.05 of the target's: 0.300 against 0.900."


def test_several_seeds_have_an_interval_over_seeds():
    table = scores((0, 1), recited=0.1, kept=1.0, others=1.0)
    table.loc[(table["model"] == "ours") & (table["seed"] == 1) & (table["metric"] == "recited"), "value"] = 0.2
    found = scores_summary(table, "Ours", "ours", columns=COLUMNS, found=claims([1.0, 1.0]), distances=[0.1, 0.2])
    assert found.numbers[0].value == pytest.approx(0.85) and found.numbers[0].low < 0.8
    two = distance_number([0.1, 0.2])
    assert two.low == 0 and "t interval over 2 seeds, cut at the end of the measure: 2 seeds tell little" in two.note
    assert distance_number([]).value is None and distance_number([math.nan]).note == "no oracle"


def erased(kept):
    rows = [("a", "edit: cg", 0.9, kept, 0.1), ("a", "retrained", 1.0, 0.3, 1.0),
            ("b", "edit: cg", 0.5, 0.3, 0.1), ("b", "retrained", 1.0, 0.3, 1.0)]
    table = pd.DataFrame(rows, columns=["case", "method", "recovery", "kept/nll", "share"])
    table = table.assign(low=table["recovery"] - 0.05, high=table["recovery"] + 0.05, harm=table["kept/nll"] - 0.3,
                         harm_low=math.nan, harm_high=math.nan, seconds_share=0.1, seeds=5, reason="")
    return table, erasing_claims(table, "cg")


def test_an_edit_that_spoils_kept_rows_is_said_to():
    good, bad = (erasing_summary(table, "cg", found) for table, found in map(erased, (0.31, 2.3)))
    assert "in 1 of 2 cases" in good.verdict and "leaves the kept rows alone" in good.verdict
    assert len(good.fails) == 1 and "B: the edit by cg recovers at least 80%" in good.fails[0]
    assert "damages the kept rows in 1 (most in a: 2.00 nats" in bad.verdict and len(bad.fails) == 2


def test_whether_the_region_helps_follows_from_the_intervals():
    points = pd.DataFrame({"step": [0, 9] * 4, "seed": [0, 0, 0, 0, 1, 1, 1, 1], "objective": "npo", "fs": 0.8,
                           "region": ["oracle", "oracle", "random", "random"] * 2, "rs": [0.1, 0.9] * 4,
                           "log_quality": -3.0})
    gaps = pd.DataFrame({"low": [-0.1, -0.2], "high": [0.1, 0.2], "n": [5, 5]})
    none = localization_summary(points, points, gaps, found=claims([1.0, 1.0]))
    some = localization_summary(points, points, gaps.assign(low=[0.05, -0.2]), found=claims([1.0, 1.0]))
    assert "brings no advantage and does no harm (" in none.verdict
    assert "helps in 1 of 2 comparisons and hurts in none (" in some.verdict
    assert none.numbers[1].value == 0.9 and "random region 0.900" in none.numbers[1].note
    assert none.numbers[2].value is None, "others were not measured"
    assert none.numbers[3].value == 3 and not none.fails
    untaught = localization_summary(points, points, gaps, found=claims([1.0, 1.0]), missing={
        "target": "the target does not know the forget rows", "oracle": "no oracle"})
    assert untaught.verdict.startswith("The target does not know the forget rows: what depends on it is not available.")
    assert untaught.verdict.endswith("Whether knowing the region helps is not available.")
    assert untaught.fails == ("The target does not know the forget rows: what depends on it is not available.",)
    assert [number.value is None for number in untaught.numbers] == [True, False, True, True]
    no_oracle = localization_summary(points, points, gaps, found=claims([1.0, 1.0]), missing={"oracle": "no oracle"})
    assert no_oracle.numbers[3].note == "no oracle" and not no_oracle.fails
    harmed = points.assign(**{"collateral/es": [0.9, 0.4] * 4})
    assert "harms others (-0.50" in localization_summary(harmed, points, gaps, found=claims([1.0, 1.0])).verdict
    assert failing(claims([0.2, 1.0]))[0].startswith("Ours damages nobody else")


def test_every_number_says_what_was_measured():
    """In the glossary's words, whichever metric it is; of the distance: over how many, and what is not in it."""
    columns = {"forgotten": "-forget_regurgitation", "retained": "retain/krr", "collateral": "collateral_knowledge"}
    table = scores(**{metric.lstrip("-"): 0.1 for metric in columns.values()})
    found = scores_summary(table, "Ours", "ours", columns=columns, found=claims([1.0, 1.0]), distances=[0.1],
                           counted=["forget/a/knowledge", "retain/a/knowledge", "mia_auc"])
    notes = [number.note for number in found.numbers]
    assert notes[0].startswith("1 - regurgitation score (mean ROUGE-L recall of completions")
    assert notes[1].startswith("knowledge retention rate (share of retain rows whose answer")
    assert notes[2].startswith("knowledge score (share of questions that the model answers exactly); ")
    assert "over 2 scores of forget and retain rows and" in notes[3]
    assert "; collateral and general rows are not in it; 0: no difference in these; one seed" in notes[3]
    assert "collateral" not in distance_number([0.1], counted=["forget/es", "collateral/es"]).note.split("; ")[1]
    table, found = erased(0.31)
    edit = erasing_summary(table, "cg", found)
    assert edit.numbers[0].note.startswith("recovered share of the gap (")
    assert edit.numbers[1].note.startswith("negative log-likelihood (") and "kept rows are not" in edit.numbers[3].note
