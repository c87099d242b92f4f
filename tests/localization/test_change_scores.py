"""LACUNA's scores of a change by unlearning, by first principles."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from toys import tiny, weights_of

from unlearn_nb.localization import change_auc
from unlearn_nb.regions import Region


def test_what_did_not_move_counts_half():
    model = tiny()
    truth = Region.random(model, 0.1, unit="weight", seed=2)
    after, moved = copy.deepcopy(model), 0
    with torch.no_grad():
        for name, p in after.named_parameters():
            if name in truth.masks:
                some = truth.masks[name] & (torch.rand(p.shape, generator=torch.Generator().manual_seed(7)) < 0.6)
                moved += int(some.sum())
                p += some * 0.5
    table = change_auc(truth, model, after)
    names = [n for n, m in truth.masks.items() if not m.all()]
    outside = sum(int((~truth.masks[n]).sum()) for n in names)
    f = moved / truth.n_weights
    assert table.set_index("score").auc["magnitude"] == pytest.approx((1 + f) / 2, abs=1e-12)
    assert 0.5 < f < 0.7 and outside > 1000


def scenario():
    model = tiny()
    truth = Region.random(model, 0.15, unit="weight", seed=2)

    def moved(start, seed, scale, region=None):
        generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(start)
        with torch.no_grad():
            for name, p in other.named_parameters():
                noise = scale * torch.randn(p.shape, generator=generator)
                p += noise * region.masks[name] if region and name in region.masks else noise * (0.3 if region else 1)
        return other

    before = moved(model, 1, 0.02, truth)
    return truth, model, before, moved(before, 2, 0.01, truth), (moved(model, 3, 0.02), moved(model, 4, 0.02))


def test_the_scores_of_a_change_are_their_formulas():
    truth, origin, before, after, twin = scenario()
    table = change_auc(truth, before, after, origin=origin, twin=twin).set_index("score")
    get = [{n: p.detach().double().numpy() for n, p in m.named_parameters()} for m in (origin, before, after, *twin)]
    names = list(truth.masks)
    d = {n: get[2][n] - get[1][n] for n in names}
    inj = {n: get[1][n] - get[0][n] for n in names}
    twins = {n: np.abs(get[4][n] - get[3][n]) for n in names}
    both = {n: np.abs(d[n]) - twins[n] for n in names}

    def over_groups(values):
        group = {n: ".".join(n.split(".")[:4]) for n in names}  # model.layers.0.mlp
        spread = {g: np.concatenate([values[n].ravel() for n in names if group[n] == g]).std() for g in group.values()}
        assert len(spread) == 4
        return {n: values[n] / spread[group[n]] for n in names}

    expected = {
        "magnitude": {n: np.abs(d[n]) for n in names},
        "magnitude/rank": {n: rankdata(np.abs(d[n])).reshape(d[n].shape) / d[n].size for n in names},
        "magnitude/std": over_groups({n: np.abs(d[n]) for n in names}),
        "magnitude/twin": {n: np.abs(d[n]) / twins[n].mean() for n in names},
        "reversal": {n: -inj[n] * d[n] for n in names},
        "reversal/share": {
            n: (np.abs(inj[n]) - np.abs(get[2][n] - get[0][n])) / (np.abs(inj[n]) + 1e-10) for n in names
        },
        "reversal/direction": {n: -d[n] * np.sign(inj[n]) / (np.abs(inj[n]) + 1e-10) for n in names},
        "contrast": both,
        "contrast/index": {n: both[n] / (np.abs(d[n]) + twins[n]) for n in names},
        "contrast/ratio": {n: np.abs(d[n]) / (twins[n] + 1e-10) for n in names},
        "contrast/std": over_groups(both),
    }
    assert list(table.index) == list(expected)
    label = np.concatenate([truth.masks[n].numpy().ravel() for n in names])
    for name, values in expected.items():
        pooled = np.concatenate([values[n].ravel() for n in names])
        assert table.auc[name] == pytest.approx(roc_auc_score(label, pooled), abs=3e-4), name
        top = np.argsort(-pooled, kind="stable")[: label.sum()]
        assert table.precision[name] == pytest.approx(label[top].mean(), abs=3e-3), name
    assert table.auc["magnitude"] > 0.7  # the truth moves three times as far
    np.testing.assert_allclose(table.precision, table.recall)
    np.testing.assert_allclose(table.iou, table.precision / (2 - table.precision))


def test_scores_appear_only_with_the_models_they_need():
    truth, origin, before, after, twin = scenario()
    whole = change_auc(truth, before, after, origin=origin, twin=twin)
    assert list(change_auc(truth, before, after).score) == ["magnitude", "magnitude/rank", "magnitude/std"]
    pd.testing.assert_frame_equal(
        change_auc(truth, before, after, twin=twin),
        whole[~whole.score.str.startswith("reversal")].reset_index(drop=True),
    )
    state = {n: p.detach() for n, p in after.named_parameters()}
    pd.testing.assert_frame_equal(change_auc(truth, weights_of(before), state), change_auc(truth, before, after))
