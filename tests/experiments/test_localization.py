"""The localization study end to end at the smoke budget, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from studies import refused
from toys import SIZES, small, weights_of

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    LocalizationExperiment,
    conclusion,
    inject_groups,
    localization_claims,
    localization_plan,
    measures,
    unlearn_group,
)
from unlearn_nb.metrics import compare, curve_scores
from unlearn_nb.models import load_model
from unlearn_nb.regions import Region
from unlearn_nb.runs import Run


@pytest.fixture(scope="module")
def finished(undisturbed) -> Path:
    return undisturbed("localization")


@pytest.fixture(scope="module")
def metrics(finished) -> dict:
    return json.loads((finished / "metrics.json").read_text())


def stage(finished: Path, name: str) -> Path:
    (found,) = (finished / "stages").glob(f"{name}-*")
    return found


def test_the_study_ends_with_report_metrics_and_figures(finished, metrics):
    assert {figure.stem for figure in (finished / "figures").glob("*.png")} == {"curves", "paired", "overlap",
                                                                                "precision"}
    assert metrics["conclusion"].partition(".")[0] in (finished / "report.html").read_text()
    assert metrics["conclusion"].startswith("The oracle region is better in ")
    assert set(metrics["headline"]) == {f"npo/{region}/{metric}" for region in ("oracle", "random")
                                        for metric in ("aues", "mu95")}


def test_outside_the_injection_s_region_the_model_is_the_retain_only_one(finished, smoke_prepared):
    injected = stage(finished, "s0-inject")
    region = Region.load(injected / "region.safetensors")
    before, after = (weights_of(load_model(str(folder))[0]) for folder in (smoke_prepared.oracle, injected))
    region.check_outside(before, after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(region.masks) and region.share(Region.every(load_model(str(injected))[0])) == pytest.approx(0.2,
                                                                                                                    abs=1e-3)


def test_the_tables_follow_from_the_curves(finished, metrics):
    """AUES, MU95 and the comparison, once more from the files that the runs left."""
    start = pd.read_csv(stage(finished, "s0-measure-target") / "points.csv")
    curves = {region: pd.concat([start, pd.read_csv(stage(finished, f"s0-npo-in-{region}-0.2") / "points.csv")])
              for region in ("oracle", "random")}
    for region, curve in curves.items():
        (line,) = (row for row in metrics["scores"] if row["seed"] == 0 and row["region"] == region)
        area, last = 0.0, 0.0
        for level in sorted(curve["rs"]):
            area += (level - last) * curve.loc[curve["rs"] >= level, "fs"].max()
            last = level
        assert line["aues"] == pytest.approx(area, abs=1e-9)
        kept = curve[curve["utility"] >= 0.95 * curve["utility"].iloc[0]]
        assert line["mu95"] == pytest.approx(kept["log_quality"].max(), abs=1e-6)
        assert line["fs"] > start["fs"].item()
    (row,) = (row for row in metrics["comparison"] if row["metric"] == "aues")
    pairs = pd.DataFrame(metrics["scores"]).pivot(index="seed", columns="region", values="aues")
    assert row["difference"] == pytest.approx((pairs["oracle"] - pairs["random"]).mean()) and row["n"] == 2


def test_the_measures_of_the_retain_only_model(metrics):
    """It is its own reference: forget quality 1; and it has hardly a forget answer by heart."""
    own = [row for row in metrics["starts"] if row["model"] == "retain-only"]
    assert all(row["quality"] == 1 and row["forget/em"] < 0.5 and row["rs"] > 0.95 for row in own)


def test_localizers_are_graded_and_unlearned_in(metrics):
    found = pd.DataFrame(metrics["localizers"])
    assert set(found["region"]) == {"random", "activations"} and found["auc"].between(0, 1).all()
    assert found["precision"].to_numpy() == pytest.approx(found["recall"].to_numpy())


@pytest.mark.parametrize("arguments, part", [
    (["-p", "share", "0"], "'share' is 0: give a number above 0 and at most 0.5"),
    (["-p", "share", "0.6"], "'share' is 0.6: give a number above 0 and at most 0.5"),
    (["-p", "objectives", "npo,wag"], "did you mean 'wga'"),
], ids=["no share", "no room", "unknown objective"])
def test_bad_input_is_one_sentence_and_a_failure(tmp_path, smoke_prepared, arguments, part):
    refused("localization", tmp_path, arguments, part)


@pytest.mark.parametrize("change, part", [
    ({"share": 1.5}, "above 0 and be at most 1"), ({"share": -0.1}, "above 0 and be at most 1"),
    ({"share": True}, "above 0"),
    ({"closure": "left"}, "unknown closure 'left'"), ({"objectives": "npo,"}, None),
    ({"budget": "huge"}, "unknown budget 'huge'")])
def test_plans_are_checked(change, part):
    arguments = {"model": "tiny", "budget": "quick"} | change
    if part is None:
        assert list(localization_plan(**arguments).methods) == ["npo"]
        return
    with pytest.raises(UnlearnError) as error:
        localization_plan(**arguments)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_value_vectors_is_told_before_anything_is_trained(tmp_path, smoke_bench, monkeypatch):
    small("mamba", **SIZES | dict(vocab_size=2048)).save_pretrained(tmp_path / "model")
    load_model("tiny")[1].save_pretrained(tmp_path / "model")
    monkeypatch.setattr("unlearn_nb.experiments.localization.prepare_one",
                        lambda *_: pytest.fail("a model was trained"))
    name = str(tmp_path / "model")
    experiment = LocalizationExperiment(Run.open(tmp_path / "run"), name, smoke_bench, localization_plan(name, "smoke"))
    with pytest.raises(UnlearnError, match="no MLP down-projection"):
        experiment.prepared  # noqa: B018


def test_budgets():
    full, quick = localization_plan("tiny", "full"), localization_plan("tiny", "quick")
    assert list(full.methods) == ["wga", "npo", "dpo", "rmu"] == list(full.located) and list(quick.methods) == ["wga",
                                                                                                                "npo"]
    assert quick.seeds == 5 and localization_plan("smollm2", "quick").seeds == 1
    assert localization_plan("tiny", "quick", faithful=True).injected == "nll(on=forget)"
    hub = localization_plan("smollm2", "quick", share=0.1)
    assert list(hub.methods) == ["npo"] and list(hub.localizers) == ["random", "activations", "memflex", "wagle"]


def answers(es, ratio, probability=0.5):
    rows = [(name, probability, r, 0.5, e, e) for name in ("forget", "retain", "collateral", "general") for e,
            r in zip(es, ratio)]
    return pd.DataFrame(rows, columns=["set", "probability", "ratio", "truth_ratio", "es", "em"])


def test_measures_by_hand():
    ratios = [0.1, 0.2, 0.3, 0.4]  # four rows a side are the fewest with a forget quality
    table, oracle = answers([1.0, 0.5] * 2, ratios), answers([0.0] * 4, ratios)
    found = measures(table, oracle)
    assert found["fs"] == 0.25 and found["rs"] == 0.75 and found["quality"] == 1 and found["log_quality"] == 0
    assert found["utility"] == pytest.approx(0.5)
    assert measures(answers([1.0, 0.5] * 2, ratios, probability=0.0), oracle)["utility"] == 0
    few = measures(answers([1.0, 0.5], [0.1, 0.2]), answers([0.0, 0.0], [0.1, 0.2]))
    assert np.isnan([few["quality"], few["log_quality"]]).all()


def curve(region, seed, fs, quality):
    rows = [(step, 0.9 - 0.1 * step, fs * step, 0.8, quality, np.log10(quality)) for step in range(3)]
    table = pd.DataFrame(rows, columns=["step", "rs", "fs", "utility", "quality", "log_quality"])
    return table.assign(seed=seed, objective="npo", region=region, share=0.2)


def test_claims_follow_the_interval():
    """Five seeds in which the oracle region is clearly better in AUES and no different in MU95."""
    noise = [0.0, 0.01, -0.01, 0.005, -0.005]
    quality = lambda s, region: 1e-5 if (s + (region == "oracle")) % 2 else 1e-4
    points = pd.concat([curve(region, s, level + n * (region == "oracle"), quality(s, region))
                        for s, n in enumerate(noise) for region, level in (("oracle", 0.45), ("random", 0.3))])
    comparison = compare(curve_scores(points), "oracle")
    found = localization_claims([0.99, 0.9], comparison, comparison[:0])
    assert found["holds"].tolist() == [False, False, True]
    assert found["value"][1] == pytest.approx(comparison["difference"][0]) and comparison["p"][0] == 0.0625
    text = conclusion(comparison)
    assert "better in 1 of 2 comparisons (NPO in AUES)" in text and "holds here in part" in text
    assert "does not hold here." in conclusion(comparison[:1])
    assert "advantage, holds here." in conclusion(comparison[1:])
    assert "One seed" in conclusion(comparison[:0])


def test_masks_end_to_end(tmp_path, smoke_bench, smoke_prepared):
    """Two masks, a short run: only they move by injection, and OracleGrad names its mask while free methods do not."""
    plan = localization_plan("tiny", "smoke")
    experiment = LocalizationExperiment(Run.open(tmp_path), "tiny", smoke_bench,
                                        replace(plan, injection=replace(plan.injection, steps=2)))
    masks = replace(localization_plan("tiny", "quick").masks, rounds=2, steps=6, unlearning_steps=4)
    folder = inject_groups(experiment, masks)
    regions = [Region.load(folder / f"mask-{g}.safetensors") for g in range(2)]
    assert (regions[0] & regions[1]).n_weights == 0
    before, after = (load_model(str(f))[0] for f in (smoke_prepared.oracle, folder / "model"))
    (regions[0] | regions[1]).check_outside(before, after)
    with pytest.raises(UnlearnError, match="outside the region changed"):
        regions[0].check_outside(before, after)
    free, inside = (unlearn_group(experiment, folder, name, masks).set_index("score")["auc"]
                    for name in ("npo", "oraclegrad"))
    assert inside["magnitude"] > 0.99 and free["magnitude"] < 0.9
