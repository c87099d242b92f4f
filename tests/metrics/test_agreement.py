"""Agreement of weights and of effects, and costs, against numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    cost_table,
    delta_agreement,
    delta_table,
    rank_agreement,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3).filter(lambda x: abs(x) > 0.01))
def test_delta_agreement_against_numpy(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=12), rng.normal(size=12)
    found = delta_agreement(
        {"a": torch.tensor(x[:8]).reshape(2, 4), "b": torch.tensor(x[8:])},
        {"b": torch.tensor(y[8:]), "a": torch.tensor(y[:8]).reshape(2, 4)},
    )
    assert found["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found["relative_error"] == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y))
    same = delta_agreement(torch.tensor(scale * y), torch.tensor(y))
    assert same["cosine"] == pytest.approx(np.sign(scale)) and same["norm_ratio"] == pytest.approx(abs(scale))
    assert same["relative_error"] == pytest.approx(abs(scale - 1), abs=1e-7)


def test_delta_table_has_every_pair():
    table = delta_table({"a": torch.ones(2), "zero": torch.zeros(2)}, {"r": torch.ones(2), "s": -torch.ones(2)})
    assert table[["edit", "reference"]].apply(tuple, axis=1).tolist() == [
        ("a", "r"),
        ("a", "s"),
        ("zero", "r"),
        ("zero", "s"),
    ]
    assert table["cosine"].tolist()[:2] == pytest.approx([1, -1]) and table["relative_error"].tolist() == pytest.approx(
        [0, 2, 1, 1]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_rank_agreement_against_scipy(seed, ties):
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    if ties:
        left, right = left.round(), right.round()
    wanted = np.mean([spearmanr(left[:, k], right[:, k])[0] for k in range(3)])
    found = rank_agreement(left, right, bootstrap=20)
    assert found["value"] == pytest.approx(wanted) and found["low"] <= found["high"] and found["subsets"] == 12
    assert rank_agreement(left[:, 0], right[:, 0], bootstrap=5)["value"] == pytest.approx(
        spearmanr(left[:, 0], right[:, 0])[0]
    )


def test_costs():
    table = cost_table({"edited": (10, 300), "retrained": (500, 3000)}).set_index("method")
    assert table.loc["edited"].tolist() == [10, 300, 50, 10] and table.loc["retrained"].tolist() == [500, 3000, 1, 1]


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: delta_agreement(torch.ones(2), torch.ones(3)),
            "delta_agreement: delta and reference differ in the names or shapes of their weights; "
            "take both from the same adapter",
        ),
        (
            lambda: rank_agreement([1, 2], [1, 2]),
            "rank_agreement: predicted [2] and actual [2] must have the same shape, "
            "[subsets] or [subsets, queries], with 3 subsets or more",
        ),
        (lambda: cost_table({"edited": (1, 2)}, "edit"), "unknown reference 'edit'; did you mean 'edited'?"),
        (
            lambda: cost_table({"retrained": (1, -2)}),
            "cost_table: a cost is negative; give seconds and gradient equivalents of 0 or more",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call()
    assert str(error.value) == sentence


def test_few_subsets_have_a_correlation_and_no_interval():
    found = rank_agreement([1, 2, 3, 4], [1, 2, 3, 4])
    assert found["value"] == pytest.approx(1) and np.isnan(found["low"]) and np.isnan(found["high"])
