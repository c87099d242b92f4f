"""Truth ratios by hand, forget quality against scipy and against counts in whole numbers."""

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    TRUTH_VARIANTS,
    Tofu,
    forget_quality,
    ks_distance,
    log10_forget_quality,
    loss_scores,
    normalised_probability,
    truth_probability,
    truth_ratio,
    truth_score,
    truth_variant,
)

losses = st.lists(st.floats(0.01, 15), min_size=1, max_size=6)


# ---------------------------------------------------------------- arithmetic


@given(st.floats(0.01, 15), losses)
def test_truth_ratio_by_hand(right, wrong):
    geometric = math.exp(-sum(wrong) / len(wrong)) / math.exp(-right)
    arithmetic = sum(math.exp(-x) for x in wrong) / len(wrong) / math.exp(-right)
    assert truth_ratio(right, wrong) == pytest.approx(geometric)
    assert truth_ratio(right, wrong, "arithmetic") == pytest.approx(arithmetic)
    assert geometric <= arithmetic * (1 + 1e-9)
    published = math.exp(-sum(wrong) / len(wrong)) / (math.exp(-right) + 1e-10)
    assert truth_ratio(right, wrong, faithful="open-unlearning") == pytest.approx(published)


@given(st.floats(0, 1e3))
def test_truth_score_lies_in_0_1_and_is_symmetric_on_forget_rows(ratio):
    assert 0 <= truth_score(ratio, forget=True) <= 1 and 0 <= truth_score(ratio, forget=False) <= 1
    if ratio > 0:
        assert truth_score(ratio, forget=True) == pytest.approx(truth_score(1 / ratio, forget=True))


def test_collapsed_models_keep_their_ratio_here_and_lose_it_in_the_published_code():
    assert truth_ratio(40.0, [40.0]) == 1 and truth_ratio(40.0, [40.0], faithful="open-unlearning") < 1e-6
    assert truth_ratio(900.0, [0.0]) == math.inf and truth_score(math.inf, forget=True) == 0
    assert (
        normalised_probability(40.0, [40.0]) == pytest.approx(0.5)
        and normalised_probability(40.0, [40.0], faithful="open-unlearning") < 1e-6
    )
    assert normalised_probability(2000.0, [2001.0]) == pytest.approx(1 / (1 + math.exp(-1)))


@given(st.floats(0.01, 15), losses)
def test_normalised_probability_by_hand(right, wrong):
    p, others = math.exp(-right), [math.exp(-x) for x in wrong]
    assert normalised_probability(right, wrong) == pytest.approx(p / (p + sum(others)))
    published = normalised_probability(right, wrong, faithful="open-unlearning")
    assert published == pytest.approx(p / (p + sum(others) + 1e-10))


@given(st.floats(0.01, 15), losses)
def test_truth_probability_by_hand(right, wrong):
    p, mean = math.exp(-right), sum(math.exp(-x) for x in wrong) / len(wrong)
    assert truth_probability(right, wrong, "arithmetic") == pytest.approx(p / (p + mean))
    assert truth_probability(right, wrong) == pytest.approx(1 / (1 + truth_ratio(right, wrong)))
    logs = math.exp(-sum(wrong) / len(wrong))
    assert truth_probability(right, wrong, faithful=True) == pytest.approx(p / (p + logs + 1e-10))


def test_far_from_each_other_a_truth_probability_is_0_or_1_and_no_warning():
    assert truth_probability(2000.0, [0.5]) == 0 and truth_probability(0.5, [2000.0]) == 1
    assert truth_probability(2000.0, [2000.0, 2000.0]) == 0.5


def test_tofus_two_programs_differ_in_both_numbers_and_share_the_tested_ratio():
    losses = dict(own=0.2, right=1.0, wrong=[1.5, 4.0])
    for split, worst in (("forget", 1.0), ("retain", 0.0)):
        utils, script, paper = (
            loss_scores(**losses, split=split, aggregation=name) for name in ("tofu", "tofu-aggregate", "tofu-paper")
        )
        assert utils["truth_ratio"] == paper["truth_ratio"] != script["truth_ratio"]
        assert utils["ratio"] == script["ratio"] != paper["ratio"]
        assert abs(utils["truth_ratio"] - worst) < abs(script["truth_ratio"] - worst)


def test_whose_code_is_meant_must_be_said():
    for options, part in (
        (dict(faithful=True), "write faithful='open-unlearning' or faithful='tofu'"),
        (dict(faithful="zjunlp"), "faithful='zjunlp' doesn't say whose code to follow"),
        (dict(faithful="tofu", aggregation="open-unlearning"), "is not that of faithful='tofu'"),
        (dict(faithful="open-unlearning", aggregation="tofu"), "is not that of faithful='open-unlearning'"),
    ):
        with pytest.raises(UnlearnError, match=part):
            Tofu(**options)
    assert Tofu(faithful="tofu").aggregation == "tofu-aggregate" and Tofu(faithful="tofu").max_new_tokens == 200
    assert Tofu(faithful="tofu", aggregation="tofu").aggregation == "tofu" and Tofu().faithful is False


def test_without_wrong_answers_there_is_no_value():
    values = [
        truth_ratio(1.0, []),
        truth_ratio(1.0, [], "arithmetic", faithful=True),
        truth_probability(1.0, []),
        normalised_probability(1.0, []),
        truth_score(math.nan, True),
        truth_score(math.nan, False),
    ]
    assert np.isnan(values).all()


# ---------------------------------------------------------------- forget quality


def test_forget_quality_is_scipys_p_value_and_ignores_inversion_and_nan():
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(size=60), rng.lognormal(0.4, size=80)
    p = ks_2samp(first, second).pvalue
    assert forget_quality(first, second) == pytest.approx(p, rel=1e-10, abs=0)
    assert log10_forget_quality(first, second) == pytest.approx(math.log10(p))
    assert forget_quality(1 / first, 1 / second) == pytest.approx(p, rel=1e-10, abs=0)
    assert forget_quality([*first, math.nan], second) == forget_quality(first, second)
    assert forget_quality(first, first) == 1 and log10_forget_quality(first, first) == 0
    assert math.isnan(forget_quality([], first)) and math.isnan(log10_forget_quality([math.nan], first))


def test_disjoint_samples_of_400_have_the_published_floor():
    """The tables' 1e-239 is the least p-value that 400 against 400 rows can have: 2 / C(800, 400)."""
    low, high = np.arange(400.0), np.arange(400.0) + 1e3
    assert log10_forget_quality(low, high) == pytest.approx(math.log10(2) - math.log10(math.comb(800, 400)), rel=1e-6)
    assert forget_quality(low, high) == pytest.approx(2.1e-240, rel=0.05)


def log10_binomial(n, k):
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10)


@pytest.mark.parametrize("n, m", [(6000, 6000), (560, 560), (560, 559), (700, 400), (400, 700)])
def test_the_logarithm_outlives_the_p_value(n, m):
    """Samples that don't overlap: two of all C(n + m, n) orders are as far apart."""
    low, high = np.arange(float(n)), np.arange(float(m)) + 1e5
    expected = math.log10(2) - log10_binomial(n + m, n)
    assert log10_forget_quality(low, high) == pytest.approx(expected, rel=1e-9)
    assert forget_quality(low, high) == (0 if expected < -330 else pytest.approx(10**expected, rel=1e-6, abs=0))


def test_560_rows_apart_have_minus_335():
    assert log10_forget_quality(np.arange(560.0), np.arange(560.0) + 1000) == pytest.approx(-335.2, abs=0.05)


def by_exact_count(n, m, reach):
    """log10 of the share of orders with max |i m - j n| >= reach, in whole numbers, from those that stay inside."""
    inside = {(0, 0): 1}
    for i in range(n + 1):
        for j in range(m + 1):
            if (i, j) != (0, 0):
                stays = abs(i * m - j * n) < reach
                inside[i, j] = inside.get((i - 1, j), 0) + inside.get((i, j - 1), 0) if stays else 0
    share = Fraction(math.comb(n + m, n) - inside[n, m], math.comb(n + m, n))
    return math.log10(share.numerator) - math.log10(share.denominator)


@pytest.mark.parametrize("n, m", [(5, 5), (8, 8), (5, 8), (9, 6), (30, 30), (31, 24), (4, 60)])
def test_every_statistic_has_the_share_of_orders_counted_in_whole_numbers(n, m):
    """All statistics that two such samples can have; falling in the statistic."""
    found = {}
    for shift in range(n + m + 1):
        order = np.r_[np.arange(n) + 0.5 - shift * n / m, np.arange(m) * n / m]
        first, second = order[:n], order[n:]
        i, j = (np.searchsorted(np.sort(x), order, side="right") for x in (first, second))
        found[int(np.abs(i * m - j * n).max())] = log10_forget_quality(first, second)
    assert len(found) > 3 and max(found) == n * m
    for reach, value in found.items():
        assert value == pytest.approx(by_exact_count(n, m, reach), abs=1e-10)
    ordered = [found[reach] for reach in sorted(found)]
    assert ordered == sorted(ordered, reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 70), st.integers(4, 70), st.floats(0, 6), st.integers(0, 1000))
def test_parity_with_scipys_exact_test(n, m, shift, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=n).round(2), rng.normal(shift, size=m).round(2)  # rounded: some values tie
    expected = ks_2samp(first, second, method="exact").pvalue
    assert forget_quality(first, second) == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("n, m", [(560, 560), (560, 559)])
def test_the_logarithm_falls_with_every_step_of_the_statistic(n, m):
    """Also where scipy's p-value has become 0; and in well under a second a test."""
    start = time.perf_counter()
    values = [log10_forget_quality(np.arange(n) + shift + 0.5, np.arange(m)) for shift in range(0, 561, 20)]
    assert (time.perf_counter() - start) / len(values) < 0.5
    assert values[-1] < -334.5 and (np.diff(values) < 0).all()


@pytest.mark.parametrize("n, m, enough", [(0, 9, False), (1, 1, False), (2, 2, False), (3, 3, False), (4, 4, True),
                                          (1, 38, False), (1, 40, True), (2, 8, True)])
def test_too_few_rows_to_reject_anything_have_no_forget_quality(n, m, enough):
    value = forget_quality(np.zeros(n), np.full(m, 100.0))
    assert value <= 0.05 if enough else math.isnan(value)
    assert math.isnan(forget_quality(np.ones(n), np.ones(m))) != enough


@given(st.floats(0.01, 15), losses)
def test_the_three_variants_of_the_truth_ratio_by_open_unlearnings_formulas(right, wrong):
    """memorization.py: closer_to_1_better, true_better and prob_mean of one row, with its 1e-10."""
    correct, false = math.exp(-right), math.exp(-sum(wrong) / len(wrong))
    ratio = false / (correct + 1e-10)
    expected = {"closer_to_1_better": min(ratio, 1 / (ratio + 1e-10)), "true_better": max(0, 1 - ratio),
                "prob_mean": correct / (correct + false + 1e-10)}
    for name in TRUTH_VARIANTS:
        found = truth_variant(name, right, wrong, faithful="open-unlearning")
        assert found == pytest.approx(expected[name], rel=1e-9, abs=1e-12)
        for split in ("forget", "retain"):
            row = loss_scores(1.0, right, wrong, split=split, truth=name)
            assert row["truth_ratio"] == truth_variant(name, right, wrong)
            assert row["ratio"] == truth_ratio(right, wrong)  # forget quality is not touched


def test_an_unknown_variant_is_refused():
    with pytest.raises(UnlearnError, match="unknown variant of the truth ratio 'best'"):
        Tofu(truth="best")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_the_distance_is_scipys(first, second):
    assert ks_distance([*first, np.nan], second) == pytest.approx(ks_2samp(first, second).statistic)
