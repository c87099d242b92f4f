"""The TOFU suite against float recomputation, scipy, the published arithmetic, and a bench whose answers are known."""

import math
import time
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from toys import make_tokenizer, rows, tiny

from unlearn_nb.benches import SPLITS, Bench, as_dataset
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    AGGREGATIONS,
    Scores,
    Tofu,
    answer_table,
    bootstrap_weights,
    evaluate,
    extraction_table,
    forget_quality,
    intervals,
    log10_forget_quality,
    loss_scores,
    normalised_probability,
    rouge_l_recall,
    truth_probability,
    truth_ratio,
    truth_score,
    utility_terms,
)
from unlearn_nb.models import encode, generate

losses = st.lists(st.floats(0.01, 15), min_size=1, max_size=6)


def make_bench(general=("general",), perturbed=True, paraphrased=True, collateral=True):
    """Rows of random words; every answer has a paraphrase and three wrong ones unless told otherwise."""
    made = {}
    for seed, split in enumerate(SPLITS):
        wrong = [[other["response"] for other in rows(12, seed=10 * seed + k)] for k in range(1, 5)]
        made[split] = [
            row
            | {
                "id": f"{split}{i}",
                "subject": f"{split}{i // 2}",
                "kind": "qa",
                "part": ("validation", "test")[i % 2],
                "task": general[i // 2 % len(general)] if split == "general" else "t",
            }
            | ({"perturbed_responses": [w[i] for w in wrong[:3]]} if perturbed else {})
            | ({"paraphrased_responses": [wrong[3][i]]} if paraphrased and split != "general" else {})
            for i, row in enumerate(rows(12, seed=10 * seed))
        ]
    made["collateral"] = made["collateral"] if collateral else []
    return Bench("made", "plain", **{split: as_dataset(given) for split, given in made.items()})


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


# ---------------------------------------------------------------- rows


def nll(model, tokenizer, prompt, response):
    ids, labels = encode(tokenizer, prompt, response)
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -np.mean([logp[t - 1, ids[t]].item() for t in range(1, len(ids)) if labels[t] != -100])


@pytest.mark.parametrize(
    "aggregation, faithful",
    [(name, False) for name in AGGREGATIONS] + [("open-unlearning", "open-unlearning"), ("tofu", "tofu")],
)
def test_rows_from_first_principles(aggregation, faithful):
    model, tokenizer, bench = tiny(dtype=torch.float64), make_tokenizer(), make_bench()
    asked = [row | {"split": split} for split in ("forget", "retain", "general") for row in bench.split(split, "test")]
    table = answer_table(model, tokenizer, asked, aggregation=aggregation, faithful=faithful, batch_size=5)
    for row, (_, line) in zip(asked, table.iterrows()):
        own, *wrong = (
            nll(model, tokenizer, row["prompt"], text) for text in [row["response"], *row["perturbed_responses"]]
        )
        right = (
            nll(model, tokenizer, row["prompt"], row["paraphrased_responses"][0]) if row["split"] != "general" else own
        )
        logs, probabilities = math.exp(-sum(wrong) / 3), sum(math.exp(-x) for x in wrong) / 3
        more = 1e-10 * (faithful == "open-unlearning")
        averaged = probabilities if aggregation in ("tofu", "tofu-paper") else logs
        ratio = averaged / (math.exp(-right) + more)
        tested = (probabilities if aggregation == "tofu-paper" else logs) / (math.exp(-right) + more)
        probability, share = math.exp(-own), math.exp(-right) / (math.exp(-right) + averaged + more)
        if row["split"] == "general":
            probability /= math.exp(-own) + sum(math.exp(-x) for x in wrong) + more
        score = min(ratio, 1 / ratio) if row["split"] == "forget" else max(0, 1 - ratio)
        columns = ["probability", "ratio", "truth_ratio", "truth_probability"]
        assert line[columns].tolist() == pytest.approx([probability, tested, score, share])
        assert [line["nll"], line["right_nll"], *line["wrong_nlls"]] == pytest.approx([own, right, *wrong])
    expected = extraction_table(model, tokenizer, asked, faithful=faithful == "open-unlearning")
    pd.testing.assert_frame_equal(table[["es", "em"]], expected[["es", "em"]])


# ---------------------------------------------------------------- suite


@pytest.fixture(scope="module")
def evaluated():
    bench, tokenizer = make_bench(("real_authors", "world_facts")), make_tokenizer()
    oracle = evaluate(tiny(seed=1), tokenizer, bench, part="test", suite="tofu", bootstrap=30)
    return bench, oracle, evaluate(tiny(), tokenizer, bench, part="test", suite=Tofu(oracle), bootstrap=30)


def test_model_utility_is_the_harmonic_mean_of_nine(evaluated):
    bench, oracle, scores = evaluated
    terms = [
        f"{name}/{score}"
        for name in ("retain", "real_authors", "world_facts")
        for score in ("probability", "rougeL", "truth_ratio")
    ]
    assert scores.meta["utility_terms"] == terms
    values = np.array([scores.summary[term] for term in terms])
    assert scores.summary["model_utility"] == (0 if (values == 0).any() else pytest.approx(9 / (1 / values).sum()))
    frame = scores.rows
    for name in ("forget", "retain", "collateral", "real_authors", "world_facts"):
        here = frame[frame["set"] == name]
        for score in ("probability", "rougeL", "truth_ratio", "es", "em"):
            assert scores.summary[f"{name}/{score}"] == pytest.approx(here[score].mean())
    assert scores.summary["forget_quality"] == forget_quality(
        frame.loc[frame["set"] == "forget", "ratio"], oracle.rows.loc[oracle.rows["set"] == "forget", "ratio"]
    )


def test_utility_moves_with_each_of_its_terms_and_is_0_with_any(evaluated):
    table = evaluated[2].rows.assign(probability=0.5, rougeL=0.5, truth_ratio=0.5)
    ones = np.ones((1, len(table)))
    assert Tofu().summarise(table, ones)["model_utility"][0] == pytest.approx(0.5)
    for term in utility_terms(table):
        name, score = term.split("/")
        for value, expected in ((0.0, 0.0), (1.0, 9 / (8 / 0.5 + 1))):
            changed = table.copy()
            changed.loc[changed["set"] == name, score] = value
            assert Tofu().summarise(changed, ones)["model_utility"][0] == pytest.approx(expected)
    for name in ("forget", "collateral"):
        changed = table.copy()
        changed.loc[changed["set"] == name, ["probability", "rougeL", "truth_ratio"]] = 0
        assert Tofu().summarise(changed, ones)["model_utility"][0] == pytest.approx(0.5)


def test_generations_and_rouge_are_the_generators(evaluated):
    bench, _, scores = evaluated
    asked = [row for split in ("forget", "retain", "collateral", "general") for row in bench.split(split, "test")]
    assert scores.rows["generation"].tolist() == generate(tiny(), make_tokenizer(), asked)
    assert scores.rows["rougeL"].tolist() == [
        rouge_l_recall(text, row["response"]) for text, row in zip(scores.rows["generation"], asked)
    ]


def test_one_model_against_itself_has_quality_1_and_resamples_have_none(evaluated):
    _, oracle, _ = evaluated
    own = Tofu(oracle).summarise(oracle.rows, np.ones((1, len(oracle.rows))))
    assert own["forget_quality"] == 1 and own["log10_forget_quality"] == 0
    drawn = Tofu(oracle).summarise(oracle.rows, bootstrap_weights(oracle.rows, 20))
    assert np.isnan(drawn["forget_quality"]).all() and np.isnan(drawn["log10_forget_quality"]).all()
    assert drawn["retain/probability"].std() > 0


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_p_value_has_no_interval(count):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"split": "forget", "set": "forget", "task": "t", "subject": np.arange(count).astype(str)})
    rows = rows.assign(probability=0.1, rougeL=0.1, truth_ratio=0.5, es=0.1, em=0.1, ratio=rng.random(count))
    rows = pd.concat([rows, rows.assign(split="retain", set="retain")], ignore_index=True)
    oracle = Scores(rows.assign(ratio=rng.random(len(rows))), pd.DataFrame(), {"suite": "tofu"})
    table = intervals(rows, Tofu(oracle).summarise, bootstrap=50).set_index("metric")
    for name in Tofu.p_values:
        assert table.loc[name, ["low", "high"]].isna().all() and np.isnan(table.loc[name, "value"]) == (count < 4)
    assert table.loc["forget/probability", ["low", "high"]].isna().all() == (count < 5)




def test_intervals_hold_the_value_and_no_oracle_no_quality(evaluated):
    _, oracle, scores = evaluated
    quality = scores.ci["metric"].str.contains("quality")
    tested = scores.ci[quality]
    assert tested[["low", "high"]].isna().all(axis=None) and tested["value"].notna().all()
    ci = scores.ci[~quality & scores.ci["low"].notna()]
    assert {"forget", "retain"} <= set(ci["metric"].str.partition("/")[0])
    assert (ci["low"] <= ci["value"] + 1e-12).all() and (ci["value"] <= ci["high"] + 1e-12).all()
    assert "forget_quality" not in oracle.summary and not oracle.meta["oracle"] and scores.meta["oracle"]


def test_save_and_load(evaluated, tmp_path):
    scores = evaluated[2]
    again = Scores.load(scores.save(tmp_path))
    pd.testing.assert_frame_equal(again.rows, scores.rows)
    pd.testing.assert_frame_equal(again.ci, scores.ci)
    assert again.meta == scores.meta and again.oracle_distance(scores) == 0
    table = again.table().set_index("metric")["better"]
    assert table["forget/es"] == "lower" and table["retain/es"] == table["forget_quality"] == "higher"


@pytest.mark.parametrize(
    "options, sets, terms",
    [
        (dict(general=("general",)), ["collateral", "general", "retain"], 9),
        (dict(general=("general",), collateral=False), ["general", "retain"], 6),
        (dict(general=("world_facts",)), ["retain", "world_facts"], 6),
        (dict(perturbed=False), ["collateral", "general", "retain"], 5),  # no truth ratios, no normalised probability
    ],
)
def test_what_is_not_there_does_not_enter_and_meta_says_so(options, sets, terms):
    scores = evaluate(
        tiny(), make_tokenizer(), make_bench(**options), part="test", suite="tofu(max_new_tokens=3)", bootstrap=0
    )
    assert scores.meta["utility_sets"] == sets and len(scores.meta["utility_terms"]) == terms
    assert not math.isnan(scores.summary["model_utility"])
    assert ("forget/truth_ratio" in scores.summary) == options.get("perturbed", True)


def test_meta_tells_in_whose_words_the_right_answer_stood(evaluated):
    assert evaluated[2].meta["truth_ratio_words"] == {
        "forget": "paraphrased",
        "retain": "paraphrased",
        "collateral": "paraphrased",
        "real_authors": "own",
        "world_facts": "own",
    }


def test_the_published_floor_is_residual_memory_of_a_model_that_knows_nothing():
    bench, tokenizer = make_bench(), make_tokenizer()
    right, published = (
        evaluate(tiny(), tokenizer, bench, part="test", suite=Tofu(faithful=f, max_new_tokens=3), bootstrap=0)
        for f in (False, "open-unlearning")
    )
    lengths = [len(row["response"].split()) for row in bench.split("forget", "test")]  # the end token dropped
    assert right.summary["forget/es"] == 0
    assert (
        published.summary["forget/es"] == pytest.approx(np.mean([1 / n for n in lengths]))
        and published.meta["faithful"] == "open-unlearning"
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(part="train"), "part 'train' is unknown: choose hyper-parameters on 'validation', report on 'test'; "
         "'all' is both, for published protocols"),
        (dict(aggregation="tofoo"), "unknown aggregation 'tofoo'; did you mean 'tofu'?"),
        (
            dict(aggregation="tofu", oracle=True),
            "can't compare scores of aggregation 'tofu' with aggregation 'open-unlearning': evaluate both alike",
        ),
        (
            dict(part="validation", oracle=True),
            "can't compare scores of part 'validation' with part 'test': evaluate both alike",
        ),
        (
            dict(broken=True),
            "the model gives NaN likelihood for 24 of 24 answers (first: row 'forget1'): its weights are broken "
            "or its dtype overflows; try dtype='float32'",
        ),
    ],
)
def test_bad_input_gets_one_sentence(evaluated, change, message):
    bench, oracle, _ = evaluated
    model = tiny()
    if change.pop("broken", False):
        with torch.no_grad():
            model.lm_head.weight[0, 0] = float("nan")
    if change.pop("oracle", False):
        change["oracle"] = oracle
    with pytest.raises(UnlearnError) as caught:
        part = change.pop("part", "test")
        evaluate(model, make_tokenizer(), bench, part=part, suite=Tofu(**change), bootstrap=0)
    assert str(caught.value) == message
