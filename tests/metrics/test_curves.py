"""AUES, MU95 and paired comparison: hand-made cases, brute force, and figures from tables of power."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct, permutation_test, t, ttest_rel

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    aues,
    compare,
    compare_paired,
    curve_scores,
    detectable_gap,
    frontier,
    mu95,
    paired_power,
    sign_flip_p,
)

POINTS = st.lists(
    st.tuples(st.sampled_from(np.linspace(0, 1, 21)), st.sampled_from(np.linspace(0, 1, 21))), min_size=1, max_size=12
)


@pytest.mark.parametrize(
    "points, flat, origin",
    [
        ([(0.8, 0.5)], 0.40, 0.20),
        ([(0.8, 0.2), (0.5, 0.9)], 0.5 * 0.9 + 0.3 * 0.2, 0.25 * 0.9 + 0.3 * 0.2),
        ([(0.5, 0.9), (0.8, 0.2), (0.4, 0.9), (0.5, 0.1)], 0.51, 0.285),  # the last two are beaten
        ([(1.0, 1.0)], 1.0, 0.5),
        ([(0.0, 1.0)], 0.0, 0.0),
        ([(0.9, 0.0)], 0.0, 0.0),
        ([(0.9, 0.3), (0.0, 1.0)], 0.27, 0.27),  # left of RS = 0 there is nothing to close
    ],
)
def test_areas_by_hand(points, flat, origin):
    rs, fs = zip(*points)
    assert aues(rs, fs) == pytest.approx(flat, abs=1e-12) and aues(rs, fs, "origin") == pytest.approx(origin, abs=1e-12)


@given(POINTS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_area_is_the_integral_of_the_best_forgetting_at_each_retention(points, random):
    rs, fs = zip(*points)
    grid = (np.arange(2000) + 0.5) / 2000
    best = [max((f for r, f in points if r >= level), default=0.0) for level in grid]
    area = aues(rs, fs)
    assert area == pytest.approx(np.mean(best), abs=1e-9)
    assert 0 <= aues(rs, fs, "origin") <= area <= 1
    shuffled = random.sample(points, len(points))
    assert aues(*zip(*shuffled)) == area


@given(POINTS, POINTS)
@settings(deadline=None)
def test_more_checkpoints_never_take_area_away(points, more):
    assert aues(*zip(*points)) <= aues(*zip(*points, *more)) + 1e-12


@given(POINTS)
@settings(deadline=None)
def test_the_frontier_is_what_nothing_beats(points):
    curve = frontier(*zip(*points))
    assert (np.diff(curve[:, 0]) > 0).all() and (np.diff(curve[:, 1]) < 0).all()
    for r, f in points:
        assert ((curve[:, 0] >= r) & (curve[:, 1] >= f)).any()


def test_mu95_by_hand():
    utility, quality = [0.60, 0.59, 0.571, 0.569, 0.2], [1e-16, 1e-12, 1e-9, 0.1, 0.9]
    assert mu95(utility, quality) == pytest.approx(-9)  # 0.95 * 0.60 = 0.57
    assert mu95(utility, quality, share=0.9) == -1.0
    assert mu95(utility, quality, reference=0.2) == pytest.approx(math.log10(0.9))
    assert math.isnan(mu95(utility[3:], quality[3:], reference=0.6))
    assert mu95([1.0], [0.0]) == -300.0 and mu95([1.0], [0.0], log_quality=[-335.2]) == -335.2
    assert math.isnan(mu95([1.0, 1.0], [math.nan, 0.5])) and mu95([1.0, 0.5], [0.5, math.nan]) == math.log10(0.5)


def test_one_pair_has_no_p_value():
    assert math.isnan(sign_flip_p([3.0])) and math.isnan(sign_flip_p([])) and sign_flip_p([1.0, 1.0]) == 0.5


DIFFERENCES = st.lists(st.integers(-6, 6), min_size=2, max_size=9)


@given(DIFFERENCES)
@settings(deadline=None)
def test_the_p_value_counts_sign_patterns(values):
    values = [v / 10 for v in values]
    observed = abs(sum(values))
    patterns = [
        abs(sum(s * v for s, v in zip(signs, values))) >= observed - 1e-9
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    assert sign_flip_p(values) == pytest.approx(np.mean(patterns), abs=1e-12)


@given(st.lists(st.floats(-1, 1).filter(lambda v: abs(v) > 1e-3), min_size=3, max_size=8), st.floats(0.1, 100))
@settings(max_examples=40, deadline=None)
def test_the_p_value_has_no_scale_no_direction_and_scipy_s_value(values, scale):
    p = sign_flip_p(values)
    assert sign_flip_p([-scale * v for v in values]) == p >= 2.0 ** (1 - len(values))
    other = permutation_test(
        (np.array(values), np.zeros(len(values))),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        vectorized=True,
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert p == pytest.approx(other.pvalue, abs=1e-12)


def test_twenty_pairs_are_exact_and_more_are_sampled():
    values = np.random.default_rng(0).normal(0.3, 1, 24)
    exact = sign_flip_p(values[:20])
    assert exact * 2**20 == round(exact * 2**20)
    assert abs(sign_flip_p(values) - ttest_rel(values, np.zeros(24)).pvalue) < 0.01
    assert sign_flip_p(values) == sign_flip_p(values) and sign_flip_p(np.ones(30)) == pytest.approx(1 / 100_001)


@pytest.mark.parametrize("effect, n", [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_power_agrees_with_published_tables(effect, n):
    """The smallest number of pairs that gives 80 % power at 0.05, two-sided."""
    assert paired_power(effect, 1.0, n) >= 0.8 > paired_power(effect, 1.0, n - 1)
    assert detectable_gap(1.0, n) <= effect < detectable_gap(1.0, n - 1)


@pytest.mark.parametrize("n", [2, 3, 5, 30, 199])
@pytest.mark.parametrize("gap", [0.05, 0.3, 0.7, 1.5])
def test_power_is_that_of_the_noncentral_t(n, gap):
    bound, shift = t.ppf(0.975, n - 1), gap * math.sqrt(n)
    expected = nct.sf(bound, n - 1, shift) + nct.cdf(-bound, n - 1, shift)
    assert math.isnan(expected) or paired_power(gap, 1.0, n) == pytest.approx(expected, abs=1e-9)
    assert 0.05 < paired_power(gap, 1.0, n) < 1 + 1e-9


def test_power_agrees_with_simulation():
    rng, n = np.random.default_rng(0), 5
    gap = detectable_gap(2.0, n)
    draws = rng.normal(gap, 2.0, (40_000, n))
    power = (ttest_rel(draws, np.zeros_like(draws), axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.01)
    assert paired_power(0.0, 1.0, n) == pytest.approx(0.05, abs=1e-9)


@given(st.floats(0.01, 10), st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_the_detectable_gap_scales_and_shrinks(sd, n):
    assert detectable_gap(sd, n) == pytest.approx(sd * detectable_gap(1.0, n), rel=1e-6)
    assert detectable_gap(sd, n + 1) < detectable_gap(sd, n) < detectable_gap(sd, n, power=0.9)


def test_a_comparison_by_hand():
    result = compare_paired([3.0, 5.0, 4.0, 8.0], [1.0, 4.0, 5.0, 4.0])  # differences 2, 1, -1, 4
    sd = math.sqrt(((2 - 1.5) ** 2 + 0.5**2 + 2.5**2 + 2.5**2) / 3)
    assert (result.n, result.mean, result.mean_abs) == (4, 1.5, 2.0)
    assert result.sd == pytest.approx(sd) and result.effect == pytest.approx(1.5 / sd)
    assert (
        result.p == 6 / 16 and result.least_p == 0.125
    )  # of the sixteen sums 8, 6, 6 and their opposites are as far from 0
    assert result.detectable == pytest.approx(detectable_gap(sd, 4))


def test_differences_that_do_not_vary():
    result = compare_paired([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert result.sd == 0 and math.isnan(result.effect) and result.p == 0.25 and result.detectable == 0
    assert math.isnan(result.low) and math.isnan(result.high)  # nothing is known of the spread
    assert compare_paired([1.0, 2.0], [1.0, 2.0]).p == 1.0


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: aues([0.5, 0.6], [0.5]), "AUES needs one RS and one FS a checkpoint, not 2 and 1"),
        (lambda: aues([], []), "AUES needs one RS and one FS a checkpoint, not 0 and 0"),
        (lambda: aues([0.5], [1.2]), "FS is an extraction strength (or 1 minus one) and lies in [0, 1], not at 1.2"),
        (
            lambda: aues([math.nan], [0.2]),
            "RS is an extraction strength (or 1 minus one) and lies in [0, 1], not at nan",
        ),
        (lambda: aues([0.5], [0.5], "flatt"), "unknown closure 'flatt'; did you mean 'flat'?"),
        (lambda: mu95([0.5], [-9.0]), "forget quality is a p-value in [0, 1]: give it as it is, not its logarithm"),
        (lambda: mu95([], []), "MU95 needs one utility and one quality a checkpoint, not 0 and 0"),
        (lambda: compare_paired([1.0], [2.0]), "a paired comparison needs at least 2 pairs, not 1: run more seeds"),
        (
            lambda: compare_paired([1.0, 2.0], [2.0]),
            "a paired comparison needs one value of each kind a seed, not 2 and 1",
        ),
        (
            lambda: compare_paired([1.0, math.nan], [2.0, 1.0]),
            "a paired comparison needs finite values: leave out the seeds that have none, on both sides",
        ),
        (
            lambda: detectable_gap(1.0, 5, power=0.01),
            "power must lie above alpha and both in (0, 1), not 0.01 and 0.05",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call()
    assert str(error.value) == sentence


def checkpoints(region, seed, fs, quality=1e-8):
    rows = [(step, 0.9 - 0.1 * step, fs * step, 0.8 - 0.03 * step, quality * 10**step) for step in range(3)]
    table = pd.DataFrame(rows, columns=["step", "rs", "fs", "utility", "quality"])
    return table.assign(log_quality=np.log10(table["quality"]), seed=seed, objective="npo", region=region, share=0.1)


def test_curves_become_scores_by_the_same_functions():
    points = pd.concat(
        [checkpoints(region, seed, 0.3 + 0.02 * seed) for region in ("oracle", "random") for seed in range(2)]
    )
    scores = curve_scores(points, "origin")
    assert len(scores) == 4
    for row in scores.itertuples():
        curve = points.query("region == @row.region and seed == @row.seed")
        assert row.aues == row.aues_origin == aues(curve["rs"], curve["fs"], "origin") < row.aues_flat
        assert (
            row.mu95 == mu95(curve["utility"], curve["quality"]) == -7
        )  # the last one has lost more than 5 % of the utility
        assert row.fs == curve["fs"].iloc[-1] and row.rs == pytest.approx(0.7)


def test_a_comparison_pairs_the_seeds_and_its_interval_is_that_of_the_t_test():
    own, other = {1: 0.31, 2: 0.35, 3: 0.33, 4: 0.40}, {4: 0.30, 3: 0.30, 2: 0.31, 1: 0.32}  # in another order
    points = pd.concat(
        [
            checkpoints(region, s, fs)
            for region, values in (("wagle", own), ("random", other))
            for s, fs in values.items()
        ]
    )
    scores = curve_scores(points)
    row = compare(scores, "wagle").set_index("metric").loc["aues"]
    wide = scores.pivot(index="seed", columns="region", values="aues")
    test = ttest_rel(wide["wagle"], wide["random"])
    interval = test.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["difference"] == pytest.approx((wide["wagle"] - wide["random"]).mean()) and row["n"] == 4
    assert row["absolute"] == pytest.approx((wide["wagle"] - wide["random"]).abs().mean())
    assert row["p"] == sign_flip_p(wide["wagle"] - wide["random"])
    back = compare(scores, "random", "wagle").set_index("metric").loc["aues"]
    assert back["difference"] == pytest.approx(-row["difference"]) and back["low"] == pytest.approx(-row["high"])
