"""Models of one's own in the studies of localization and erasing: what they are is said first, and what hangs on it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    ErasingExperiment,
    LocalizationExperiment,
    conclusion,
    erasing_claims,
    erasing_plan,
    erasing_summary,
    erasing_truth,
    grades,
    localization_claims,
    localization_plan,
    localization_summary,
    locate,
    missing_place,
    own_plan,
    recoveries,
    relying_on,
    removal_of,
    start_of,
    starting_point,
    unlearn_in,
)
from unlearn_nb.metrics import Edits, curve_scores, scored
from unlearn_nb.models import Given, add_lora, load_model, save_adapter
from unlearn_nb.runs import Run

ORACLE, TARGET, HOLDOUT = ("the oracle knows the forget rows", "the target does not know the forget rows",
                           "the holdout was trained on")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def trained_holdout(smoke_bench):
    """The bench with half of the retain people, whom the target was taught, in the place of the holdout."""
    people = sorted(set(smoke_bench.retain["subject"]))[::2]
    inside = np.array([subject in people for subject in smoke_bench.retain["subject"]])
    return replace(smoke_bench, holdout=smoke_bench.retain.select(np.flatnonzero(inside)),
                   retain=smoke_bench.retain.select(np.flatnonzero(~inside)))


# --- localization


@pytest.fixture(scope="module")
def localize(folder, smoke_bench):
    """A seed of the localization study with one checkpoint, on models as they are given."""
    run = Run.open(folder / "localization")

    def experiment(target="", oracle="", bench=smoke_bench):
        plan = localization_plan("tiny", "smoke", injects=not target)
        plan = replace(plan, checkpoints=(2,), settings=replace(plan.settings, steps=2), rows=8,
                       injection=replace(plan.injection, steps=2))
        given = Given(str(target), str(oracle))
        return LocalizationExperiment(run, given.target or "tiny", bench, plan=plan, given=given)

    return experiment


@pytest.fixture(scope="module")
def own_target(localize, smoke_prepared):
    return localize(smoke_prepared.target, "none")


def test_a_target_of_ones_own_is_unlearned_in_localizers_regions(own_target, smoke_prepared):
    """Nothing is injected; the localizers' regions have no grades, for nobody knows the true one."""
    assert own_target.prepared.target == smoke_prepared.target and own_target.truth.missing == {"oracle": "no oracle"}
    with pytest.raises(UnlearnError, match="there is no oracle region: nothing was injected"):
        own_target.region("oracle")
    regions = {(0, name): locate(own_target, name) for name in ("random", "activations")}
    assert grades(regions)[["auc", "precision", "recall", "iou"]].isna().all(axis=None)
    located = pd.concat([unlearn_in(own_target, place, "npo") for place in regions.values()])
    assert set(located["region"]) == {"random", "activations"} and located["step"].tolist() == [0, 2, 0, 2]
    assert located["log_quality"].isna().all() and located.groupby("region")["other/fs"].last().notna().all()
    missing = missing_place(own_target.truth.missing, own_target.given)
    found = localization_claims([], pd.DataFrame(), pd.DataFrame(), missing=missing)
    assert found["why"].str.startswith("nothing was injected").all() and not found["holds"].any()
    said = localization_summary(located, curve_scores(located), pd.DataFrame(), found=found, missing=missing,
                                place="activations")
    assert "where localizers take it to lie" in said.verdict and "in the other format" in said.numbers[0].note
    assert "; region of activations; random region" in said.numbers[0].note
    assert said.numbers[3].value is None and said.numbers[3].note == "no oracle"


def test_an_adapter_as_target_is_merged_first(localize, folder, smoke_prepared):
    made = adapter(folder / "merged", smoke_prepared.target)
    merged = localize(made, "none").prepared.target
    one, other = (dict(load_model(str(where))[0].named_parameters()) for where in (merged, smoke_prepared.target))
    assert merged != made and all((one[name] == other[name]).all() for name in other)


def test_an_oracle_that_knows_the_rows_tests_no_region(localize, smoke_prepared):
    """What is injected into a model that knows it already lies elsewhere as well: the comparison is not told."""
    experiment = localize(oracle=smoke_prepared.target)
    assert experiment.truth.missing["oracle"] == ORACLE and str(experiment.truth).startswith(ORACLE.capitalize())
    assert np.isnan(starting_point(experiment)["log_quality"].item())
    missing = missing_place(experiment.truth.missing)
    gaps = pd.DataFrame({"objective": ["npo"], "metric": ["aues"], "region": ["oracle"], "difference": [0.5],
                         "low": [0.4], "high": [0.6], "detectable": [0.1], "n": [5]})
    found = localization_claims([1.0], gaps, gaps[:0], missing=missing)
    assert found["why"].iloc[1].startswith(ORACLE) and np.isnan(found["value"].iloc[1])
    text = conclusion(gaps, missing)
    assert "0." not in text and text.endswith("so that they lie elsewhere as well.")
    ends = pd.DataFrame({"step": [0, 9] * 2, "seed": 0, "objective": "npo", "region": ["oracle"] * 2 + ["random"] * 2,
                         "fs": 0.8, "rs": 0.9, "log_quality": -3.0})
    said = localization_summary(ends, ends, gaps, found=found, missing=missing)
    assert said.verdict == ("The oracle knows the forget rows: what depends on it is not available. Whether knowing "
                            "the region helps is not available.")
    assert said.numbers[3].value is None


def test_a_target_that_does_not_know_and_a_holdout_that_was_trained_on(localize, smoke_prepared, trained_holdout):
    ignorant = localize(smoke_prepared.oracle, "none").truth
    assert ignorant.missing["target"] == TARGET and str(ignorant).startswith(TARGET.capitalize())
    truth = localize(smoke_prepared.target, "none", trained_holdout).truth
    assert truth.missing["holdout"] == HOLDOUT and truth.warning.startswith(HOLDOUT.capitalize())


# --- erasing


def adapter(place, base):
    """An adapter that changes nothing, so that it knows what its base knows."""
    return save_adapter(add_lora(load_model(str(base))[0], 2, seed=0), place)


@pytest.fixture(scope="module")
def erase(folder, smoke_bench):
    """A seed of the erasing study on adapters that change nothing, of bases that know the rows or don't."""
    run = Run.open(folder / "erasing")

    def experiment(base, oracle="none", bench=smoke_bench):
        target = folder / base.name
        if not target.exists():
            adapter(target, base)
        plan = own_plan(erasing_plan(str(base), "smoke"), bench)
        return ErasingExperiment(run, str(base), bench, plan=plan, given=Given(str(target), str(oracle or target)))

    return experiment


def test_an_adapter_of_ones_own_forgets_all_forget_rows(erase, smoke_bench, smoke_prepared):
    experiment = erase(smoke_prepared.target)
    truth = erasing_truth(experiment)
    assert truth.missing == {"oracle": "no oracle"} and relying_on(experiment, truth) is experiment
    case = removal_of(experiment.plan)
    assert experiment.plan.cases == (case,) and set(experiment.problem(case).request.removed) == set(
        smoke_bench.forget["id"])
    assert (start_of(experiment, case) / "adapter" / "adapter_config.json").is_file()


def test_an_oracle_that_knows_what_is_to_go(erase, smoke_prepared):
    truth = erasing_truth(erase(smoke_prepared.target, oracle=""))
    assert truth.missing == {"oracle": ORACLE} and truth.sentences[0].startswith(ORACLE.capitalize())


def test_an_adapter_that_does_not_know_what_is_to_go(erase, smoke_prepared):
    truth = erasing_truth(erase(smoke_prepared.oracle))
    assert truth.missing["target"] == TARGET and truth.warning.startswith(TARGET.capitalize())


def test_no_choice_rests_on_a_holdout_that_was_trained_on(erase, smoke_prepared, trained_holdout):
    experiment = erase(smoke_prepared.target, bench=trained_holdout)
    truth = erasing_truth(experiment)
    assert truth.missing["holdout"] == HOLDOUT
    problem = relying_on(experiment, truth).problem(removal_of(experiment.plan))
    for rows in (problem.judged, problem.validation):
        assert {row["split"] for row in rows} == {"removed", "kept", "other"}


def erased(**nll):
    """Scores by method, made up: NLL of removed rows; kept ones at 0.1, unseen ones at 2."""
    rows = [{"id": f"{split}{i}", "prompt": "p", "response": "r", "subject": f"{split}{i}", "task": "t", "kind": "qa",
             "split": split, "measure": "fact", "generation": ""}
            for split in ("removed", "kept", "holdout") for i in range(6)]
    table = pd.DataFrame(rows).assign(valid=np.nan, hit=np.nan, margin=np.nan, correct=np.nan, exact_match=0.0)
    level = {"kept": 0.1, "holdout": 2.0}
    values = {name: table["split"].map(level | {"removed": one}) + 0.01 * (table.index % 6)
              for name, one in nll.items()}
    return {name.replace("_", " ").replace("edit ", "edit: "): scored(Edits(), table.assign(
        nll=value, probability=np.exp(-value)), bootstrap=50) for name, value in values.items()}


@pytest.mark.parametrize("missing, gone", [({"oracle": ORACLE}, "the oracle knows"), ({"oracle": "no oracle"}, ""),
                                           ({"target": TARGET}, "the target does not"),
                                           ({"holdout": HOLDOUT}, "the holdout was")])
def test_nothing_relative_to_what_can_not_be_relied_on_is_told(missing, gone):
    """Neither in the table, nor in the claims, nor in the verdict and its numbers."""
    scores = erased(no_edit=0.1, edit_cg=1.5, retrained=1.8)
    scores = scores if missing.get("oracle") != "no oracle" else {k: v for k, v in scores.items() if k != "retrained"}
    problem = type("Problem", (), {"case": removal_of(erasing_plan("tiny", "smoke")), "metric": "removed/nll"})
    costs = {name: {"seconds": 1.0, "gradients": 9.0} for name in ("no edit", "edit: cg", "retrained")}
    results = recoveries(problem, scores, costs, bootstrap=20, missing=missing).assign(seeds=1)
    found = erasing_claims(results, "cg", missing)
    said = erasing_summary(results, "cg", found, missing=missing, answers=scores)
    assert said.verdict.startswith(f"{gone.capitalize()}" if gone else "What the edit by cg recovers is not available")
    if "holdout" in missing:
        assert results["mia_auc"].isna().all() and said.numbers[0].value == pytest.approx(0.82, abs=0.02)
        return
    assert results["recovery"].isna().all() and "retrained" not in set(results["method"])
    assert found["why"].iloc[0] == next(iter(missing.values())) and np.isnan(found["value"].iloc[0])
    assert said.numbers[3].value is None and (said.numbers[0].value is None) == ("target" in missing)
    if "oracle" in missing:
        assert said.numbers[0].value == pytest.approx(1 - np.exp(-1.5), abs=0.02)
        assert "before 0.1" in said.numbers[0].note and "unseen rows 0.8" in said.numbers[0].note
