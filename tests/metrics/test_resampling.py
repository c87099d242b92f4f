"""Harmonic mean, AUC and the bootstrap: by hand, against scikit-learn, and their coverage."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toys import semeval_table

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    SemEval,
    bootstrap_weights,
    harmonic_mean,
    intervals,
    mia_auc,
)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([1, 1, 1], 1),
        ([0.5], 0.5),
        ([0.25, 1.0], 0.4),
        ([0.2, 0.3, 0.6], 0.3),
        ([0.9, 0.0], 0),
        ([0.0, 0.0], 0),
    ],
)
def test_harmonic_mean_by_hand(values, expected):
    assert harmonic_mean(values) == pytest.approx(expected)


def test_harmonic_mean_axis_nan_and_negative():
    assert harmonic_mean([[1, 0.5], [0, 1]]).tolist() == pytest.approx([2 / 3, 0])
    assert np.isnan(harmonic_mean([0.5, np.nan]))
    with pytest.raises(UnlearnError, match="negative"):
        harmonic_mean([0.5, -0.1])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
def test_harmonic_mean_lies_between_least_and_arithmetic_mean(values):
    assert min(values) - 1e-12 <= harmonic_mean(values) <= np.mean(values) + 1e-12


few_values = st.lists(st.integers(0, 5), min_size=1, max_size=15)  # few distinct values: many ties


@given(few_values, few_values)
def test_auc_equals_sklearn_with_ties(member, nonmember):
    labels = [1] * len(member) + [0] * len(nonmember)
    assert mia_auc(member, nonmember) == pytest.approx(roc_auc_score(labels, -np.array(member + nonmember, float)))


def test_auc_by_hand_and_empty():
    assert mia_auc([1.0], [2.0]) == 1 and mia_auc([2.0], [1.0]) == 0 and mia_auc([1.0], [1.0]) == 0.5
    assert np.isnan(mia_auc([1.0], [])) and np.isnan(mia_auc([], [1.0]))


def summarise(rows, suite=SemEval(), **options):
    return intervals(rows, suite.summarise, **options)


def values(rows, **options):
    return summarise(rows, bootstrap=0, **options).set_index("metric")["value"].to_dict()


def test_bootstrap_draws_whole_subjects_within_strata():
    rows = semeval_table()
    weights = bootstrap_weights(rows, 50, seed=3)
    for (split, task), group in rows.groupby(["split", "task"]):
        by_subject = pd.DataFrame(weights[:, group.index].T).groupby(group["subject"].to_numpy())
        assert (by_subject.max() == by_subject.min()).all(axis=None)  # the rows of a subject go together
        assert (by_subject.first().sum() == group["subject"].nunique()).all()  # as many subjects as there are
    assert (weights == bootstrap_weights(rows, 50, seed=3)).all()
    assert (weights != bootstrap_weights(rows, 50, seed=4)).any()


def test_intervals_contain_the_value_and_cover_the_truth():
    """95 % intervals of a cell cover the true mean in about 95 of 100 data sets, rows tied within subjects."""
    covered, naive, runs = 0, 0, 120
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        subject = np.repeat(np.arange(40), 4)
        rows = pd.DataFrame(
            {
                "split": "retain",
                "task": "T",
                "kind": "qa",
                "subject": subject.astype(str),
                "member": np.nan,
                "exact_match": (rng.random(40) < 0.6)[subject].astype(float),
                "rougeL": 1.0,
                "nll": np.nan,
                "correct": np.nan,
                "repetitive": 0.0,
                "generation": "x",
            }
        )
        ci = summarise(rows, bootstrap=300, seed=seed).set_index("metric").loc["retain/T/knowledge"]
        covered += ci["low"] <= 0.6 <= ci["high"]
        assert ci["low"] <= ci["value"] <= ci["high"]
        half = 1.96 * np.sqrt(0.24 / 160)  # as if the 160 rows were independent
        naive += abs(ci["value"] - 0.6) <= half
    assert 0.88 <= covered / runs <= 0.99
    assert naive / runs < 0.8  # what ignoring the subjects would give


def test_bootstrap_is_fast_and_repeatable():
    rows = semeval_table(people=10, tasks=("Task1", "Task2", "Task3"), questions=3, general=40)
    assert 380 <= len(rows) <= 540
    start = time.perf_counter()
    first = summarise(rows, bootstrap=1000, seed=5)
    seconds = time.perf_counter() - start
    print(f"1000 resamples of {len(first)} metrics over {len(rows)} rows: {seconds:.2f} s")
    pd.testing.assert_frame_equal(first, summarise(rows, bootstrap=1000, seed=5))
