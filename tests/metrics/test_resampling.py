"""Harmonic mean, AUC and the bootstrap: by hand, against scikit-learn, and their coverage."""

import math
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
    LEAST_N,
    SemEval,
    bootstrap_weights,
    evaluate,
    harmonic_mean,
    intervals,
    mia_auc,
    rank_agreement,
    subject_means,
    subjects_behind,
    weighted_auc,
    weighted_mean,
    weighted_median,
    without_value,
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


# ---- not enough rows


def people(count, split="forget", task="T", rows=3, seed=0):
    """`rows` rows of each of `count` people, with a random `score`."""
    names = np.repeat([f"{split} {task} {i}" for i in range(count)], rows)
    score = np.random.default_rng(seed).random(len(names))
    return pd.DataFrame({"split": split, "task": task, "subject": names, "score": score})


def means(rows, weights):
    """The mean of each split, of each task, and the AUC of both splits."""
    everyone = np.ones(len(rows), bool)
    out = {"all": weighted_mean(rows, everyone, "score", weights=weights)}
    for column in ("split", "task"):
        for name in rows[column].unique():
            out[name] = weighted_mean(rows, rows[column].eq(name).to_numpy(), "score", weights=weights)
    member = np.where(rows["split"] == "forget", 1.0, 0.0)
    return out | {"auc": weighted_auc(rows["score"], member, weights)}


def ends(table, name):
    return table.set_index("metric").loc[name, ["low", "high"]]


@pytest.mark.parametrize("count", [1, 2, LEAST_N - 1])
def test_few_subjects_have_a_value_and_no_interval(count):
    rows = pd.concat([people(count), people(30, "retain", "U")], ignore_index=True)
    table = intervals(rows, means, bootstrap=100)
    assert table["value"].notna().all()
    for name in ("forget", "T", "all", "auc"):
        assert ends(table, name).isna().all(), name
    for name in ("retain", "U"):
        assert ends(table, name).notna().all(), name


def test_enough_subjects_have_an_interval():
    rows = pd.concat([people(LEAST_N), people(LEAST_N, "retain", "U")], ignore_index=True)
    table = intervals(rows, means, bootstrap=100)
    assert (table["low"] < table["high"]).all()
    assert subjects_behind(rows, means) == dict.fromkeys(table["metric"], LEAST_N)


def test_one_small_task_is_enough_to_spoil_the_pool():
    """Ten people in one task and one in the other: the second has no spread that could be seen."""
    rows = pd.concat([people(10), people(1, task="U")], ignore_index=True)
    table = intervals(rows, means, bootstrap=100)
    assert ends(table, "forget").isna().all() and ends(table, "T").notna().all()


def test_subjects_count_by_the_rows_that_have_a_value():
    rows = people(20)
    rows.loc[rows["subject"].isin(rows["subject"].unique()[3:]), "score"] = np.nan
    assert subjects_behind(rows, means)["forget"] == 3
    assert ends(intervals(rows, means, bootstrap=100), "forget").isna().all()


def test_constant_values_are_counted_too():
    rows = people(20).assign(score=1.0)
    table = intervals(rows, means, bootstrap=100)
    assert subjects_behind(rows, means, chunk=7)["T"] == 20 and ends(table, "T").tolist() == [1, 1]


def test_rows_without_subject_are_subjects_of_their_own():
    rows = people(12, rows=1)
    nobody = rows.assign(subject=[None, np.nan] * 6)
    assert subjects_behind(nobody, means)["forget"] == 12
    np.testing.assert_array_equal(bootstrap_weights(nobody, 50), bootstrap_weights(rows, 50))


def test_every_semeval_metric_knows_what_it_stands_on():
    rows = semeval_table(people=6, tasks=("Task1", "Task2"), questions=2, general=9)
    first = rows["split"].eq("forget") & rows["task"].eq("Task1")
    few = rows[~(first & rows["subject"].isin(rows.loc[first, "subject"].unique()[2:]))]
    table = summarise(few, bootstrap=60).set_index("metric")
    gone = set(table.index[table["low"].isna()])
    assert gone == {"forget/Task1/regurgitation", "forget/Task1/knowledge", "task_aggregate", "mia_auc", "mia_score",
                    "final", "repetition", "forget_regurgitation", "forget_knowledge"}


def test_means_of_few_subjects_have_no_ends():
    values = np.random.default_rng(0).random((8, 2))
    assert np.isnan(subject_means(values, ["a"] * 8)[1:]).all()
    assert np.isnan(subject_means(values, list("aabbccdd"))[1:]).all()
    mean, low, high = subject_means(values, list("abcdefgh"))
    assert (low < mean).all() and (mean < high).all()


@given(st.lists(st.floats(0, 9) | st.just(np.nan), min_size=2, max_size=12), st.integers(1, 11))
def test_auc_leaves_out_what_has_no_value(values, at):
    values, member = np.array(values), np.arange(len(values)) < at
    kept = ~np.isnan(values)
    found = weighted_auc(values, member, np.ones((1, len(values))))
    np.testing.assert_array_equal(found, weighted_auc(values[kept], member[kept], np.ones((1, kept.sum()))))
    assert without_value(values, member) == (~kept).sum()


def test_auc_with_a_missing_member():
    assert mia_auc([1.0, np.nan, 1.0], [2.0, 2.0]) == 1 and mia_auc([np.nan, 3.0], [2.0, np.nan]) == 0
    assert np.isnan(mia_auc([np.nan], [2.0]))


def test_infinite_values_count_only_where_they_were_drawn():
    rows = pd.DataFrame({"x": [1.0, np.inf, 3.0]})
    found = weighted_mean(rows, np.ones(3, bool), "x", weights=np.array([[1, 0, 1], [1, 1, 1]]))
    assert found.tolist() == [2, np.inf]


def test_the_median_leaves_out_what_has_no_value():
    weights = np.ones((1, 3))
    assert weighted_median(np.array([np.nan, 1.0, 2.0]), weights) == 1.5
    assert np.isnan(weighted_median(np.array([np.nan] * 3), weights))


@pytest.mark.parametrize("name, value", [("bootstrap", -1), ("bootstrap", 2.5), ("bootstrap", True), ("bootstrap", "9"),
                                         ("level", 2), ("level", 0), ("level", math.nan), ("level", True), ("seed", -1),
                                         ("seed", 0.5)])
def test_resamples_that_nobody_can_draw_are_refused(name, value):
    rows = pd.DataFrame({"split": "s", "task": "T", "subject": list("abcdef"), "x": 1.0})

    def summary(rows, weights):
        return {"x": weighted_mean(rows, np.ones(6, bool), "x", weights=weights)}

    with pytest.raises(UnlearnError, match=f"^{name} must be a"):
        intervals(rows, summary, **{name: value})
    if name != "level":
        for call in (lambda **o: subject_means(np.ones((6, 1)), "abcdef", **o),
                     lambda **o: rank_agreement([1, 2, 3], [1, 2, 3], **o),
                     lambda **o: evaluate(None, None, [], suite="tofu", **o)):
            with pytest.raises(UnlearnError, match=f"^{name} must be a"):
                call(**{name: value})


def test_without_resamples_means_have_no_interval():
    mean, low, high = subject_means(np.ones((6, 1)), "abcdef", bootstrap=0)
    assert mean == 1 and np.isnan([low, high]).all()
