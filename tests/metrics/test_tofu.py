"""The TOFU suite against float recomputation, scipy, the published arithmetic, and a bench whose answers are known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
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
    rouge_l_recall,
    utility_terms,
)
from unlearn_nb.metrics import tofu as tofu_module
from unlearn_nb.models import encode, generate


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
    assert own["ks_distance"] == 0 and own["ks_rows"] == oracle.rows["set"].eq("forget").sum()
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
        few = count < 4 and not name.startswith("ks_")
        assert table.loc[name, ["low", "high"]].isna().all() and np.isnan(table.loc[name, "value"]) == few
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
            "the model 'LlamaForCausalLM' gives NaN likelihood for 120 of 120 rows (first: row 'forget1'): its weights "
            "are broken or its dtype overflows; try dtype='float32'",
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


def test_rouge_is_that_of_the_code_that_is_followed(monkeypatch):
    """Published ROUGE knows no other script: of a right answer in one, nothing is recalled."""
    bench = [row | {"split": split, "prompt": row["prompt"], "response": "Γ Ж"} for split in ("forget", "retain")
             for row in rows(2, seed=0)]  # fmt: skip
    bench = [{"id": str(i), "subject": str(i), "task": "t", "kind": "qa"} | row for i, row in enumerate(bench)]
    monkeypatch.setattr(tofu_module, "generate", lambda model, tokenizer, asked, **options: ["γ Ж"] * len(asked))
    found = {code: evaluate(tiny(), make_tokenizer(), bench, suite=Tofu(faithful=code), bootstrap=0).summary
             for code in (False, "open-unlearning", "tofu")}  # fmt: skip
    assert found[False]["forget/rougeL"] == 1
    assert found["open-unlearning"]["forget/rougeL"] == found["tofu"]["forget/rougeL"] == 0
