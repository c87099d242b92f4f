"""The recovered gap: linear in the edit, paired over rows, and without interval where it is not sure."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unlearn_nb.metrics import (
    Edits,
    gap_recovery,
    recovery,
    scored,
    seed_recovery,
)


def test_recovery_is_linear_in_the_edit():
    assert recovery([0.5, 0.7, 0.9, 1.1], 0.5, 0.9).tolist() == pytest.approx([0, 0.5, 1, 1.5])
    assert recovery(3.0, 5.0, 1.0) == 0.5  # a loss falls
    assert np.isnan(recovery([1.0, 1.0], [0.5, 0.5], [0.51, 0.5], threshold=0.02)).all()


def made(shift):
    """Scores of the same 40 rows in which `nll` is shifted."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "split": "test",
            "task": "t",
            "kind": "qa",
            "id": range(40),
            "subject": range(40),
            "measure": "fact",
            "response": "x",
            "nll": rng.normal(3, 1, 40) + shift,
            "exact_match": 0.5,
        }
    )
    rows = rows.assign(probability=0.1, valid=np.nan, hit=np.nan, margin=np.nan, correct=np.nan)
    return scored(Edits(), rows, bootstrap=0)


def test_recovered_gap_with_paired_rows():
    """The rows' spread cancels: a shift by a third of the gap is a third in every resample."""
    table = gap_recovery(made(2.0), made(3.0), made(0.0), bootstrap=100).set_index("metric")
    assert table.loc["test/nll", ["recovery", "low", "high"]].tolist() == pytest.approx([1 / 3] * 3)
    assert table.loc["test/nll", "reason"] == ""
    assert table.loc["test/exact_match", "reason"] == "the gap 0 is not above 0.02"
    assert np.isnan(table.loc["test/exact_match", "recovery"])


def test_a_gap_that_is_not_sure_has_no_interval():
    rng = np.random.default_rng(0)
    retrained = made(0.0)
    retrained.rows["nll"] += rng.normal(0, 3, 40)  # the mean gap is of the size of its standard error
    retrained.rows["nll"] += 0.4 - retrained.rows["nll"].mean() + made(0.0).rows["nll"].mean()
    retrained.ci.loc[retrained.ci["metric"] == "test/nll", "value"] = retrained.rows["nll"].mean()
    line = gap_recovery(made(0.1), made(0.0), retrained, bootstrap=300).set_index("metric").loc["test/nll"]
    assert line["recovery"] == pytest.approx(0.25) and np.isnan(line["low"])
    assert line["reason"].startswith("no interval: ") and line["reason"].endswith("% of the resamples have no such gap")


def test_recovery_over_seeds_is_a_quotient_of_means():
    runs = pd.DataFrame(
        {
            "metric": ["a"] * 6 + ["b"],
            "corrupted": [0.0] * 6 + [0.1],
            "edited": [0.1, 0.3, 0.2] * 2 + [0.2],
            "retrained": [0.3, 0.6, 0.3] * 2 + [0.5],
        }
    )
    table = seed_recovery(runs).set_index("metric")
    assert table.loc["a", "recovery"] == pytest.approx(0.6 / 1.2)
    residuals = np.array([-0.05, 0.0, 0.05] * 2) / 0.4  # edited - corrupted - 0.5 * gap, in mean gaps
    reach = stats.t.ppf(0.975, 5) * residuals.std(ddof=1) / 6**0.5
    assert table.loc["a", ["low", "high"]].tolist() == pytest.approx([0.5 - reach, 0.5 + reach])
    assert table.loc["b", "recovery"] == pytest.approx(0.25)
    assert table.loc["b", "reason"] == "no interval: not enough rows (1 run, not 5 or more)"


def test_the_interval_over_seeds_covers_the_quotient_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        gap = 1 + 0.2 * rng.normal(size=5)
        runs = pd.DataFrame({"metric": "a", "corrupted": 0.0, "retrained": gap,
                             "edited": 0.8 * gap + 0.1 * rng.normal(size=5)})
        line = seed_recovery(runs).iloc[0]
        inside += line["low"] <= 0.8 <= line["high"]
    assert 0.91 < inside / 400 < 0.98


def test_runs_without_a_sure_gap_have_no_interval():
    runs = pd.DataFrame({"metric": "a", "corrupted": 0.0, "edited": 0.1, "retrained": [0.5, -0.3, 0.4, -0.2, 0.3]})
    line = seed_recovery(runs).iloc[0]
    assert np.isnan(line["low"]) and line["reason"].startswith("no interval: the gap is not sure (-0.3")


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_runs_have_a_recovery_and_no_interval(count):
    runs = pd.DataFrame({"metric": "a", "corrupted": 0.0, "edited": np.arange(1, 6) / 10, "retrained": 0.6})[:count]
    line = seed_recovery(runs).iloc[0]
    assert line["recovery"] == pytest.approx(runs["edited"].mean() / 0.6) and np.isnan(line["low"])
    assert line["reason"] == f"no interval: not enough rows ({count} runs, not 5 or more)"


def test_few_subjects_have_a_recovery_and_no_interval():
    def of_two(shift):
        scores = made(shift)
        return scored(Edits(), scores.rows.assign(subject=scores.rows["subject"] % 2), bootstrap=0)

    line = gap_recovery(of_two(2.0), of_two(3.0), of_two(0.0), bootstrap=50).set_index("metric").loc["test/nll"]
    assert line["recovery"] == pytest.approx(1 / 3) and np.isnan(line["high"])
    assert line["reason"] == "no interval: not enough rows (2 subjects, not 5 or more)"
