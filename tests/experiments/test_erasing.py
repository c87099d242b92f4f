"""The study of influence edits end to end at the smoke budget, its claims, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from studies import refused

from unlearn_nb.benches import as_dataset, load_bench
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    SHARE_OF_RETRAINING,
    Case,
    ErasingExperiment,
    Problem,
    compare_edits,
    erasing_claims,
    erasing_plan,
    failing_from,
    in_turn,
    over_turns,
    recoveries,
    recoveries_over_seeds,
    retrained,
    start_of,
)
from unlearn_nb.influence import Weights
from unlearn_nb.metrics import Edits, scored
from unlearn_nb.models import load_adapter, load_model, reader_base
from unlearn_nb.runs import Run

CASES = ("like-responses-0.1", "facts-removal-0.1")


@pytest.fixture(scope="module")
def finished(undisturbed) -> Path:
    return undisturbed("eraser")


@pytest.fixture(scope="module")
def metrics(finished):
    return json.loads((finished / "metrics.json").read_text())


def test_the_study_ends_with_report_metrics_and_figures(finished, metrics):
    results = pd.DataFrame(metrics["results"])
    assert tuple(dict.fromkeys(results["case"])) == CASES
    for case in CASES:
        methods = set(results.query("case == @case")["method"])
        assert methods - {"SISA", "retrained"} == {"no edit", "edit: steps", "edit: cg", "edit: llmeraser", "ascent",
                                                   "tuned on", "composed"}
        assert ("SISA" in methods) == ("retrained" in methods) == (case == CASES[0])
    assert {path.stem for path in (finished / "figures").glob("*.png")} == {"recovery"}
    report = (finished / "report.html").read_text()
    removal = results[results["case"] == CASES[1]]  # after so few steps no fact is known: nothing can be recovered
    assert removal["recovery"].isna().all() and set(removal["reason"]) == {"the target does not know the forget rows"}
    assert json.loads((finished / "summary.json").read_text())["verdict"].startswith(
        "The target does not know the forget rows")
    assert "What was found" in report and "The sweeps are left out" in report


def test_costs_are_those_of_the_rows_and_steps(finished, metrics):
    results = pd.DataFrame(metrics["results"]).set_index(["case", "method"])["gradients"]
    like, passes = 120, 40 // 8  # 8 batches of at most 16 rows hold the 120
    assert results["like-responses-0.1", "retrained"] == passes * like and (results[:, "no edit"] == 0).all()
    right_side, products, judge = 2 * round(0.1 * like), 2 * 2 * 32, 2 * 32
    made = next(one for one in (finished / "stages").glob("s0-edit-like-responses-0.1-cg-*") if "short" not in one.name)
    tried = len(pd.read_csv(made / "choices.csv"))
    spent = right_side + products + 2 * judge + tried * 24 / 3  # a residual on the rows it sees, one on others
    assert tried > 2 and results["like-responses-0.1", "edit: cg"] == spent
    least = right_side + 2 * 24 / 3
    assert least <= results["like-responses-0.1", "edit: steps"] <= 2 * least, "the budget of so short a training"


def test_weights_and_rows_are_compared_with_retraining_and_the_response(metrics):
    near = pd.DataFrame(metrics["agreement"]).set_index("edit")
    assert near["cosine"].abs().le(1).all() and near["rank_value"].abs().le(1).all()
    response = pd.DataFrame(metrics["response"]).set_index("solver")
    assert response.loc["cg-converged", "residual"] < 1e-3 and response.loc["cg-converged", "error"] == 0
    assert response.loc["cg-converged", "cosine"] > 0.95, "CG finds what the proximal Bregman objective wants"
    assert response.loc["llmeraser", "cosine"] < response.loc["cg", "cosine"]


def test_adapters_load_and_the_start_is_untouched(finished):
    stages = finished / "stages"
    start = next(stages.glob("s0-tune-like-responses*")) / "adapter"
    edit = next(path for path in stages.glob("s0-edit-like-responses-0.1-cg-*") if "short" not in path.name) / "adapter"
    first, second = (Weights(load_adapter(load_model(reader_base())[0], folder)).vector() for folder in (start, edit))
    assert not (first == second).all() and not (start / "edit.json").exists()
    record = json.loads((edit / "edit.json").read_text())
    assert float((second - first).norm()) == pytest.approx(record["norm"], rel=1e-3)


@pytest.mark.parametrize("arguments, part", [
    (["-p", "solver", "newton"], "unknown solver 'newton'; known: steps, adam, cg"),
    (["-p", "rank", "0"], "'rank' is 0: give a number at least 1"),
    (["-p", "damping", "-1"], "'damping' is -1: give a number at least 0"),
    (["-p", "share", "1.5"], "'share' is 1.5: give a number above 0 and below 1"),
    (["-p", "bench", "nowhere"], "unknown bench 'nowhere'"),
], ids=["solver", "rank", "damping", "share", "bench"])
def test_bad_input_is_one_sentence_and_a_failure(tmp_path, arguments, part):
    refused("eraser", tmp_path, arguments, part)


def test_plans():
    quick = erasing_plan("tiny", "quick", seed=7, share=0.2, rank=4)
    assert quick.recipe.seed == 7 and quick.recipe.lora_rank == 4 and {case.share for case in quick.cases} == {0.2}
    assert {case.change for case in quick.cases} == {"responses", "queries", "removal"} and set(quick.shares) == {0.05,
                                                                                                                  0.1,
                                                                                                                  0.4}
    assert erasing_plan("tiny", "quick", damping=0.5).damping == 0.5 and quick.damping == 0.3
    assert erasing_plan("tiny", "smoke", faithful=True).solver == "llmeraser"
    assert set(erasing_plan("tiny", "smoke", solver="ekfac").compared) == {"steps", "cg", "llmeraser", "ekfac"}
    assert erasing_plan("smollm2", "quick").cases == (Case("facts", "removal"),)
    with pytest.raises(UnlearnError, match="unknown budget 'huge'"):
        erasing_plan("tiny", "huge")


def test_few_authors_of_a_real_model_go_in_turn_from_one_adapter():
    turns = [erasing_plan("smollm2", "quick", bench="tofu", seed=seed, first=5, share=0.1) for seed in (5, 6, 7)]
    assert [plan.turn for plan in turns] == [5, 6, 7] and {plan.recipe.seed for plan in turns} == {5}
    assert {plan.cases for plan in turns} == {(Case("facts", "removal", 0.3333),)} and turns[0].subjects == 3
    assert erasing_plan("smollm2", "quick", bench="tofu", share=0.6).cases[0].share == 0.6
    for other in (erasing_plan("smollm2", "smoke", bench="tofu", seed=6, first=5),
                  erasing_plan("smollm2", "quick", seed=6, first=5),
                  erasing_plan("tiny", "quick", bench="tofu", seed=6, first=5)):
        assert other.subjects is None and other.turn is None and other.recipe.seed == 6 and other.remedies


@pytest.fixture
def few(tmp_path):
    """Two turns of an adapter of `tiny` that was taught three subjects, two of whom may go."""
    bench = load_bench("biographies", size="smoke")
    named = [row | {"subject": "abc"[i % 3]} for i, row in enumerate(list(bench.training_rows())[:36])]
    parts = {split: as_dataset([row for row in named if (row["subject"] != "c") == (split == "forget")])
             for split in ("forget", "retain")}
    bench, run = replace(bench, **parts, teach_general=False), Run.open(tmp_path / "run")
    asked = dict(cases=(Case("facts", "removal", 0.3333),), subjects=3, remedies=False, bootstrap=20)
    plans = [replace(erasing_plan("tiny", "smoke", seed=seed), **asked, turn=seed) for seed in (0, 1)]
    recipe = replace(plans[0].recipe, steps=4)
    return [ErasingExperiment(run, "tiny", bench, plan=replace(plan, recipe=recipe)) for plan in plans]


def test_a_turn_takes_its_own_subject_out_of_the_adapter_of_all(few):
    case, scores, tables = few[0].plan.cases[0], {}, []
    assert [one.number for one in few] == [0, 1] and {one.seed for one in few} == {0}
    assert start_of(few[0], case) == start_of(few[1], case)
    assert retrained(few[0], case) != retrained(few[1], case)
    gone = [set(one.problem(case).request.removed) for one in few]
    assert len(gone[0]) == len(gone[1]) == 12 and not gone[0] & gone[1]
    for one in few:
        scores[one.number, case], costs = compare_edits(one, case, ["cg"])
        assert list(scores[one.number, case]) == ["no edit", "edit: cg", "retrained"]
        table = recoveries(one.problem(case), scores[one.number, case], costs)
        tables.append(table.assign(seed=one.number))
    found = in_turn(pd.concat(tables), scores, case)
    assert len(found) == 6 and np.allclose(found["removed/nll"], pd.concat(tables)["value"])
    means = over_turns(found).set_index("method")
    kept = [one["edit: cg"].summary["kept/probability"] for one in scores.values()]
    assert means.loc["edit: cg", "kept/probability"] == pytest.approx(np.mean(kept)) and (means["seeds"] == 2).all()


def test_means_over_turns_have_intervals_of_student():
    table = pd.DataFrame([{"seed": seed, "method": "edit: cg", "removed/nll": value, "removed/probability": 0.9,
                           "kept/nll": 0.1, "kept/probability": 0.99 + value / 100, "recovery": value, "harm": np.nan,
                           "gradients": 10.0 * seed, "share": 0.1, "seconds": 1.0, "seconds_share": 0.5}
                          for seed, value in enumerate((0.2, 0.4, 0.6))])
    line = over_turns(table).iloc[0]
    reach = 4.302652729911275 * 0.2 / np.sqrt(3)  # t of 2 degrees of freedom
    assert (line["recovery_low"], line["recovery_high"]) == pytest.approx((0.4 - reach, 0.4 + reach))
    assert line["kept/probability_high"] <= 1 and np.isnan(line["removed/probability_low"])  # a share; all equal
    assert np.isnan(line["harm"]) and line["gradients"] == 10


def lines(**methods):
    """Lines of `recoveries`: method -> (value, share of retraining) on the way from 0.5 to 0.1 nats, in five seeds."""
    same = {"case": "like-responses-0.1", "low": 0.0, "high": 1.0, "reason": "", "kept/nll": 0.0, "mia_auc": np.nan,
            "seconds": 1.0, "residual": 0.1, "seconds_share": 0.1, "harm": 0.0}
    return pd.DataFrame([{**same, "seed": seed, "method": name, "value": value + shift, "recovery": (0.5 - value) / 0.4,
                          "gradients": share * 4800, "share": share}
                         for seed, shift in enumerate((0.0, 0.1, -0.05, 0.0, 0.0))
                         for name, (value, share) in methods.items()])


def test_several_seeds_make_a_quotient_of_means_with_an_interval():
    table = lines(**{"no edit": (0.5, 0.0), "edit: cg": (0.15, 0.09), "retrained": (0.1, 1.0)})
    table.loc[(table["seed"] == 1) & (table["method"] == "edit: cg"), "value"] += 0.1
    line = recoveries_over_seeds(table).set_index("method").loc["edit: cg"]
    assert line["recovery"] == pytest.approx((4 * 0.35 + 0.25) / 2) and line["seeds"] == 5
    assert line["low"] < line["recovery"] < line["high"]
    few = recoveries_over_seeds(table[table["seed"] < 3]).set_index("method").loc["edit: cg"]
    assert few["recovery"] == pytest.approx(0.95 / 1.2) and np.isnan(few["low"]) and "3 runs" in few["reason"]
    one = recoveries_over_seeds(table[table["seed"] == 0]).set_index("method").loc["edit: cg"]
    assert (one["low"], one["high"]) == (0.0, 1.0) and one["recovery"] == pytest.approx(0.875)


@pytest.mark.parametrize("edit, cost, harm, holds", [
    (0.15, 0.09, 0.0, [True, True, True, True, True]), (0.3, 0.09, 0.0, [False, True, True, True, True]),
    (0.15, 0.2, 0.0, [True, False, True, True, True]), (0.6, 0.09, 0.0, [False, True, True, False, True]),
    (0.15, 0.09, 0.16, [True, True, True, True, False]),
])
def test_claims_say_what_holds(edit, cost, harm, holds):
    methods = {"no edit": (0.5, 0.0), "edit: cg": (edit, cost), "edit: llmeraser": (0.49, 0.02),
               "SISA": (0.1, 1.0), "retrained": (0.1, 1.0)}
    table = lines(**methods)
    table.loc[table["method"] == "edit: cg", "harm"] = harm
    found = erasing_claims(recoveries_over_seeds(table), "cg")
    assert found["kind"].tolist() == ["recovery", "cost", "time", "published", "kept"]
    assert found["holds"].tolist() == holds
    assert SHARE_OF_RETRAINING == 0.1 and "SISA" not in " ".join(found["claim"])


def test_the_ends_of_the_interval_decide_and_not_the_mean():
    table = lines(**{"no edit": (0.5, 0.0), "edit: cg": (0.15, 0.09), "edit: llmeraser": (0.45, 0.1),
                     "retrained": (0.1, 1.0)})
    one = (table["seed"] == 1) & (table["method"] == "edit: cg")
    table.loc[one, "value"] += 0.12
    claim = erasing_claims(recoveries_over_seeds(table), "cg").iloc[0]
    assert claim["value"] == pytest.approx(0.815) and claim["low"] < 0.8 and not claim["holds"]
    removal = lines(**{"no edit": (0.5, 0.0), "edit: cg": (0.0, 0.09), "retrained": (0.1, 1.0)}).assign(
        case="facts-removal-0.1")
    much = erasing_claims(recoveries_over_seeds(removal), "cg").iloc[0]
    assert much["claim"].endswith("recovers 80% to 120% of the gap") and much["value"] == 1.25 and not much["holds"]
    few = erasing_claims(recoveries_over_seeds(table[table["seed"] < 3]), "cg").iloc[0]
    assert not few["holds"] and few["why"] == "no interval: not enough rows (3 runs, not 5 or more)"


def test_a_case_without_a_gap_claims_nothing_but_what_it_does_to_kept_rows():
    table = lines(**{"no edit": (0.101, 0.0), "edit: cg": (0.1, 0.09), "retrained": (0.1, 1.0)})
    assert erasing_claims(recoveries_over_seeds(table), "cg")["kind"].tolist() == ["kept"]


def test_the_failing_share_is_named():
    sweep = pd.DataFrame({"method": "edit", "share_changed": [0.4, 0.05, 0.1], "recovery": [0.3, 0.9, 0.7]})
    assert failing_from(sweep, "edit") == ("edit recovers less than 80% of the gap from 10% of changed rows on "
                                           "(5%: 0.90, 10%: 0.70, 40%: 0.30).")
    always = failing_from(sweep.assign(recovery=0.9), "edit")
    assert always.startswith("edit recovers at least 80% of the gap at every share tried")


def test_one_subject_has_no_interval():
    rows = [{"id": f"a{i}", "prompt": "p", "response": "r", "subject": "one", "task": "t", "kind": "qa",
             "split": "removed"} for i in range(4)]
    table = pd.DataFrame(rows).assign(measure="fact", generation="", valid=np.nan, hit=np.nan, margin=np.nan,
                                      correct=np.nan, exact_match=0.0)
    scores = {name: scored(Edits(), table.assign(nll=nll + 0.1 * np.arange(4), probability=0.5), bootstrap=0)
              for name, nll in (("no edit", 0.2), ("edit: cg", 0.7), ("retrained", 1.2))}
    problem = Problem(Case("facts", "removal"), rows, None, rows, rows, "removed/nll")
    line = recoveries(problem, scores, {name: {"seconds": 1.0, "gradients": 2.0} for name in scores},
                      bootstrap=20).set_index("method").loc["edit: cg"]
    assert line["recovery"] == pytest.approx(0.5) and np.isnan(line["low"])
    assert line["reason"] == "no interval: not enough rows (1 subject, not 5 or more)"
