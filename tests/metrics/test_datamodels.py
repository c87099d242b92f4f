"""The linear datamodeling score against scipy, and what its interval is over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import datamodel_scores, half_subsets, lds_table


def problem(seed, queries=7, rows=12, subsets=9):
    rng = np.random.default_rng(seed)
    values = rng.integers(-64, 65, size=(queries, rows)) / 16  # sums are exact, so that ties are ties in any order
    kept = half_subsets(rows, subsets, seed)
    return values, kept, (~kept).astype(float) @ values.T + rng.normal(size=(subsets, queries))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_each_query_has_spearmans_correlation_of_foretold_and_measured_losses(seed):
    values, kept, losses = problem(seed)
    foretold = [[values[q][~line].sum() for line in kept] for q in range(len(values))]
    wanted = [spearmanr(one, losses[:, q]).statistic for q, one in enumerate(foretold)]
    assert np.allclose(datamodel_scores(values, kept, losses), wanted)


def test_halves_are_halves_and_depend_on_the_seed_alone():
    kept = half_subsets(11, 30, seed=4)
    assert (kept.sum(1) == 5).all() and (kept == half_subsets(11, 30, seed=4)).all()
    assert (kept != half_subsets(11, 30, seed=5)).any() and 0.3 < kept.mean(0).min() < kept.mean(0).max() < 0.7


def test_a_queries_constant_side_counts_neither_way_and_the_table_says_how_many_are_left():
    values, kept, losses = problem(0)
    losses[:, 2] = 1.0
    line = lds_table({"own": values}, kept, losses).iloc[0]
    each = datamodel_scores(values, kept, losses)
    assert np.isnan(each[2]) and line["queries"] == 6 and line["lds"] == pytest.approx(np.nanmean(each))


def test_the_difference_to_a_method_is_taken_query_by_query():
    values, kept, losses = problem(1)
    table = lds_table({"own": values, "same": 2 * values, "turned": -values}, kept, losses, beside="own")
    table = table.set_index("method")
    assert table.loc["same", ["ahead", "ahead_low", "ahead_high"]].eq(0).all()
    assert table.loc["turned", "ahead_high"] < 0 and table.loc["turned", "lds"] == -table.loc["own", "lds"]


@pytest.mark.parametrize("change", ["subset", "query", "nan"])
def test_what_does_not_fit_is_refused(change):
    values, kept, losses = problem(2)
    losses = {"subset": losses[1:], "query": losses[:, 1:], "nan": losses * np.nan}[change]
    with pytest.raises(UnlearnError, match="don't fit|not finite"):
        datamodel_scores(values, kept, losses)
