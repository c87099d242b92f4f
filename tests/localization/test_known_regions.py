"""Scores against a known region: exact AUC, precision, recall, and injection masks, by first principles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toys import FORGET, SIZES, make_tokenizer, small, tiny, weights_of
from toys import run as train

from unlearn_nb.core import UnlearnError
from unlearn_nb.localization import (
    UnitScores,
    change_auc,
    injection_regions,
    localization_auc,
    localize,
    precision_recall,
    precision_recall_at,
    rank_auc,
    score_units,
)
from unlearn_nb.regions import Region

SCORED = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0, 1e30]), st.booleans()), min_size=2, max_size=40
)


@given(SCORED)
@settings(max_examples=60, deadline=None)
def test_auc_is_exact_with_ties(pairs):
    scores, truth = torch.tensor([s for s, _ in pairs]), torch.tensor([t for _, t in pairs])
    if truth.all() or not truth.any():
        return
    wins = [(a > b) + 0.5 * (a == b) for a in scores[truth].tolist() for b in scores[~truth].tolist()]
    assert rank_auc(scores, truth) == pytest.approx(float(np.mean(wins)), abs=1e-15)
    finite = scores.clamp(max=9.0)
    assert rank_auc(finite, truth) == pytest.approx(roc_auc_score(truth.numpy(), finite.numpy()), abs=1e-12)


@given(SCORED)
@settings(max_examples=60, deadline=None)
def test_auc_of_reversed_scores_is_its_complement(pairs):
    scores, truth = torch.tensor([s for s, _ in pairs]), torch.tensor([t for _, t in pairs])
    if truth.any() and not truth.all():
        assert rank_auc(-scores, truth) == pytest.approx(1 - rank_auc(scores, truth), abs=1e-15)


def test_a_constant_score_has_auc_one_half():
    model = tiny()
    for unit in ("value_vector", "weight"):
        truth = Region.random(model, 0.2, unit=unit)
        values = {n: torch.zeros(m.shape) for n, m in truth.masks.items()}
        assert localization_auc(UnitScores(values, truth.shapes), truth) == 0.5


def test_a_random_score_is_near_one_half():
    model = small("llama", **SIZES | dict(intermediate_size=2000))
    scores = score_units(model, make_tokenizer(), FORGET, method="random")
    assert abs(localization_auc(scores, Region.random(model, 0.1, seed=3)) - 0.5) < 0.05


@pytest.mark.parametrize("unit", ["value_vector", "weight"])
def test_the_true_injection_has_auc_one(tmp_path, unit):
    """Rows learned by a region through the real trainer: the change of the weights, as a score, names the region."""
    model = tiny()
    truth, origin = Region.random(model, 0.1, unit=unit, seed=2), weights_of(model)
    train(
        model,
        make_tokenizer(),
        tmp_path / "out",
        "nll(on=forget)",
        region=truth,
        method="full",
        steps=5,
        lr=1e-2,
        batch_size=8,
    )
    injected = {n: (p.detach() - origin[n]).abs() for n, p in model.named_parameters() if n in truth.masks}
    if unit == "value_vector":
        injected = {n: v.norm(dim=0, keepdim=True) for n, v in injected.items()}
    scores = UnitScores(injected, truth.shapes)
    assert localization_auc(scores, truth) == 1.0
    assert precision_recall_at(scores, truth) == {"precision": 1.0, "recall": 1.0, "iou": 1.0}
    wrong = Region.random(model, 0.1, unit=unit, seed=2, exclude=truth)
    assert localization_auc(scores, wrong) < 0.5


def test_tensors_that_hold_one_class_are_left_out():
    model = tiny()
    truth = Region.random(model, 0.2, unit="weight", seed=2)
    name, other = list(truth.masks)[:2]
    values = {n: torch.rand(m.shape, generator=torch.Generator().manual_seed(0)) for n, m in truth.masks.items()}
    full = Region(truth.masks | {name: torch.ones(1, 1, dtype=torch.bool)}, truth.shapes)
    less = Region({n: m for n, m in truth.masks.items() if n != name}, truth.shapes)
    scores = UnitScores(values, truth.shapes)
    assert localization_auc(scores, full) == localization_auc(scores, less) != localization_auc(scores, truth)
    assert precision_recall_at(scores, full) == precision_recall_at(scores, less)


def test_a_coarse_truth_serves_fine_scores():
    model = tiny()
    columns = Region.random(model, 0.2, seed=2)
    fine = {n: m.expand(columns.shapes[n]).float() for n, m in columns.masks.items()}
    assert localization_auc(UnitScores(fine, columns.shapes), columns) == 1.0


@pytest.mark.parametrize("skip", [0, 1])
def test_injection_regions_are_disjoint_and_of_their_size(skip):
    model = tiny()
    regions = injection_regions(model, groups=4, share=0.06, seed=1, skip_last=skip)
    total = sum(p.numel() for p in model.parameters())
    for i, region in enumerate(regions):
        assert abs(region.n_weights / total - 0.06) < 0.006
        assert all((region & other).n_weights == 0 for other in regions[:i])
        assert not any(s in n for n in region.masks for s in ("norm", "embed", "lm_head"))
        assert any(".layers.1." in n for n in region.masks) == (skip == 0)
    again = injection_regions(model, groups=4, share=0.06, seed=1, skip_last=skip)
    assert again == regions and injection_regions(model, groups=4, share=0.06, seed=2, skip_last=skip) != regions


def test_precision_and_recall_are_counts_of_weights():
    shape = {"w": (2, 4)}
    found = Region({"w": torch.tensor([[True, True, False, False]])}, shape)
    truth = Region({"w": torch.tensor([[False, True, False, False], [True, True, False, True]])}, shape)
    assert precision_recall(found, truth) == {"precision": 3 / 4, "recall": 3 / 4, "iou": 3 / 5}
    scores = UnitScores({"w": torch.tensor([[4.0, 3.0, 2.0, 1.0]])}, shape)
    columns = Region({"w": torch.tensor([[True, False, False, True]])}, shape)
    assert precision_recall_at(scores, columns) == {"precision": 0.5, "recall": 0.5, "iou": 1 / 3}
    assert precision_recall_at(scores, columns, share=0.25) == {"precision": 1.0, "recall": 0.5, "iou": 0.5}
    assert localize(scores, 0.25).n_weights == 2


def columns_of(model):
    return Region.random(model, 0.2)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda m: rank_auc(torch.tensor([1.0, float("nan")]), torch.tensor([True, False])),
            "1 of 2 scores are NaN or infinite: an AUC needs numbers",
        ),
        (
            lambda m: rank_auc(torch.ones(2), torch.zeros(2, dtype=torch.bool)),
            "an AUC needs units inside and outside the truth, and here all are outside",
        ),
        (
            lambda m: localization_auc(
                score_units(m, make_tokenizer(), FORGET, method="random"), Region.whole(m, "norm")
            ),
            "no scored weight has units both inside and outside the truth: give scores and truth of one model",
        ),
        (
            lambda m: localization_auc(
                score_units(m, make_tokenizer(), FORGET, method="random"), Region.random(m, 0.2, unit="weight")
            ),
            "the truth marks parts of the units that were scored in model.layers.0.mlp.down_proj.weight: "
            "score single weights",
        ),
        (
            lambda m: localization_auc(
                score_units(m, make_tokenizer(), FORGET, method="random"),
                columns_of(small("llama", **SIZES | dict(intermediate_size=64))),
            ),
            "the truth is of another model: model.layers.0.mlp.down_proj.weight is [32, 64] there and [32, 48] where "
            "it was scored",
        ),
        (
            lambda m: change_auc(columns_of(small("gpt2", **SIZES)), m, m),
            "the region does not fit: it names transformer.h.0.mlp.c_proj.weight "
            "[128, 32], which is no weight here: build it from this model",
        ),
        (
            lambda m: injection_regions(m, groups=20),
            "20 groups of 0.05 of all weights don't fit: 17,408 of 30,368 weights are eligible, room for 11 of them",
        ),
        (
            lambda m: injection_regions(m, share=1.5),
            "a share must lie above 0 and be at most 1, not 1.5: give e.g. 0.1",
        ),
        (
            lambda m: precision_recall(columns_of(m), Region({}, {})),
            "precision and recall need two regions that are not empty",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call(tiny())
    assert str(error.value) == sentence
