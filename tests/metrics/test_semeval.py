"""SemEval's metrics against plain re-computations, and the suite on a made-up model."""

import re
import sys
import types
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from toys import make_tokenizer, semeval_table, tiny

from unlearn_nb.core import NonFinite, UnlearnError
from unlearn_nb.metrics import (
    SemEval,
    cell_members,
    choice_credit,
    evaluate,
    intervals,
    mia_score,
    mmlu_accuracy,
)
from unlearn_nb.metrics import semeval as metrics
from unlearn_nb.models import sequence_nll


@pytest.mark.parametrize("auc, score", [(0.5, 1), (0, 0), (1, 0), (0.25, 0.5), (0.818, 0.364), (0.501, 0.998)])
def test_mia_score(auc, score):
    assert mia_score(auc) == pytest.approx(score)


def test_choice_credit_shares_ties():
    assert choice_credit([1, 2], ["a", "b"], "a") == 1 and choice_credit([2, 1], ["a", "b"], "a") == 0
    assert choice_credit([1, 1, 2], ["a", "b", "c"], "b") == 0.5
    assert choice_credit([1, 1, 2], ["a", "b", "c"], "c") == 0


def summarise(rows, suite=SemEval(), **options):
    return intervals(rows, suite.summarise, **options)


def values(rows, **options):
    return summarise(rows, bootstrap=0, **options).set_index("metric")["value"].to_dict()


def plain_summary(rows):
    """The suite again, with loops."""
    out, inverted = {}, []
    for split in ("forget", "retain"):
        for task in ("Task1", "Task2"):
            for measure, kind, column in (
                ("regurgitation", "completion", "rougeL"),
                ("knowledge", "qa", "exact_match"),
            ):
                chosen = rows[(rows["split"] == split) & (rows["task"] == task) & (rows["kind"] == kind)]
                out[f"{split}/{task}/{measure}"] = sum(chosen[column]) / len(chosen)
                inverted.append(
                    1 - out[f"{split}/{task}/{measure}"] if split == "forget" else out[f"{split}/{task}/{measure}"]
                )
    out["task_aggregate"] = len(inverted) / sum(1 / x for x in inverted)
    pairs = [(m, n) for m in rows.loc[rows["member"] == 1, "nll"] for n in rows.loc[rows["member"] == 0, "nll"]]
    out["mia_auc"] = sum((m < n) + 0.5 * (m == n) for m, n in pairs) / len(pairs)
    out["mia_score"] = 1 - 2 * abs(out["mia_auc"] - 0.5)
    out["utility"] = rows["correct"].mean()
    out["final"] = (out["task_aggregate"] + out["mia_score"] + out["utility"]) / 3
    return out


@pytest.mark.parametrize("seed", range(3))
def test_summary_equals_plain_recomputation(seed):
    rows = semeval_table(seed)
    got, expected = values(rows), plain_summary(rows)
    assert {k: got[k] for k in expected} == pytest.approx(expected)
    collateral = rows[(rows["split"] == "collateral")]
    assert got["collateral_knowledge"] == pytest.approx(collateral[collateral["kind"] == "qa"]["exact_match"].mean())
    assert got["repetition"] == pytest.approx(rows["repetitive"].mean())


def test_weights_count_rows():
    """A row with weight 2 is the row twice."""
    rows, rng = semeval_table(1), np.random.default_rng(0)
    counts = rng.integers(1, 4, len(rows))
    weighted = {k: v[0] for k, v in SemEval().summarise(rows, counts[None].astype(float)).items()}
    assert weighted == pytest.approx(values(rows.loc[np.repeat(rows.index, counts)].reset_index(drop=True)))


def test_task_aggregate_is_zero_when_a_cell_is_lost_or_fully_remembered():
    rows = semeval_table()
    rows.loc[(rows["split"] == "forget") & (rows["task"] == "Task1") & (rows["kind"] == "qa"), "exact_match"] = 1.0
    assert values(rows)["task_aggregate"] == 0
    perfect = semeval_table()
    forget, retain = perfect["split"] == "forget", perfect["split"] == "retain"
    perfect.loc[forget, ["rougeL", "exact_match"]] = 0.0
    perfect.loc[retain, ["rougeL", "exact_match"]] = 1.0
    assert values(perfect)["task_aggregate"] == 1


def test_bench_with_questions_only_has_a_regurgitation_cell_from_them():
    rows = semeval_table(completions=False)
    assert set(cell_members(rows)) == {
        f"{s}/{t}/{m}" for s in ("forget", "retain") for t in ("Task1", "Task2") for m in ("regurgitation", "knowledge")
    }
    mine = rows[(rows["split"] == "forget") & (rows["task"] == "Task1")]
    assert values(rows)["forget/Task1/regurgitation"] == pytest.approx(mine["rougeL"].mean())


def test_missing_cells_are_left_out():
    rows = semeval_table()
    rows = rows[~((rows["task"] == "Task2") & (rows["kind"] == "qa"))]
    assert len(cell_members(rows)) == 6 and "forget/Task2/knowledge" not in values(rows)


def test_without_holdout_final_covers_what_exists():
    got = values(semeval_table(holdout=False))
    assert np.isnan(got["mia_auc"]) and np.isnan(got["mia_score"])
    assert got["final"] == pytest.approx((got["task_aggregate"] + got["utility"]) / 2)
    got = values(semeval_table(holdout=False, general=0))
    assert np.isnan(got["utility"]) and got["final"] == pytest.approx(got["task_aggregate"])


def test_measured_utility_replaces_the_general_rows():
    ci = summarise(semeval_table(), SemEval(measured=(0.48, 0.01)), bootstrap=500).set_index("metric")
    low, high = ci.loc["utility", ["low", "high"]]
    assert ci.loc["utility", "value"] == 0.48 and 0.455 < low < 0.47 and 0.49 < high < 0.505


@dataclass
class FakeBench:
    """The part of `Bench` that evaluation reads."""

    rows: dict
    name: str = "fake"
    template: str = "plain"
    fingerprint: str = "f00"
    asked: list = field(default_factory=list)

    def split(self, name, part):
        self.asked.append((name, part))
        return [row for row in self.rows.get(name, []) if row["part"] == part]


def fake_bench(holdout=True, kinds=("completion", "qa"), general=True):
    def rows(split):
        return [
            {
                "id": f"{split}{i}{kind}{part}",
                "prompt": f"{split} {i}?",
                "response": f"answer {i} of {split}",
                "kind": kind,
                "subject": f"{split}{i}",
                "task": "T",
                "part": part,
                "facts": [],
                "choices": [],
            }
            for i in range(3)
            for kind in kinds
            for part in ("validation", "test")
        ]

    splits = {split: rows(split) for split in ("forget", "retain", "collateral")}
    if holdout:
        splits["holdout"] = rows("holdout")
    if general:
        splits["general"] = [
            {
                "id": f"g{i}{part}",
                "prompt": "capital?",
                "response": "Rome",
                "kind": "qa",
                "subject": f"g{i}",
                "task": "general",
                "part": part,
                "choices": ["Oslo", "Rome", "Bern", "Riga"],
            }
            for i in range(2)
            for part in ("validation", "test")
        ]
    return FakeBench(splits)


@pytest.fixture
def fake_model(monkeypatch):
    """A model that knows everything but forget rows; records the calls that are made."""
    calls = {"generate": [], "text": [], "response": []}

    def generate(model, tokenizer, rows, max_new_tokens=None, **options):
        calls["generate"].append([row["id"] for row in rows])
        return ["6 6 6 6 6" if row["id"].startswith("forget") else row["response"] for row in rows]

    def sequence_nll(model, tokenizer, rows, on="text", **options):
        calls[on].append([row["id"] for row in rows])
        if on == "text":
            return np.array([9.0 if row["id"].startswith("forget") else 3.0 for row in rows])
        return np.array([0.5 if row["response"] == "Rome" else 2.0 for row in rows])

    monkeypatch.setattr(metrics, "generate", generate)
    monkeypatch.setattr(metrics, "sequence_nll", sequence_nll)
    return calls


def test_evaluate_scores_an_over_forgetting_model(fake_model):
    bench = fake_bench()
    got = evaluate(None, None, bench, part="test", bootstrap=20)
    assert got.summary["forget/T/knowledge"] == 0 and got.summary["retain/T/knowledge"] == 1
    assert got.summary["mia_auc"] == 0 and got.summary["mia_score"] == 0 and got.summary["utility"] == 1
    assert got.summary["task_aggregate"] == 1 and got.summary["final"] == pytest.approx(2 / 3)
    assert got.summary["repetition"] == pytest.approx(1 / 3) and got.summary["collateral_knowledge"] == 1
    assert {part for _, part in bench.asked} == {"test"}  # no validation row was read
    assert (
        got.meta["utility_kind"] == "general_mc"
        and got.meta["n_cells"] == 4
        and got.meta["mia_documents"] == "completions"
    )
    assert got.rows["id"].str.endswith("test").all() and got.rows["id"].is_unique


def test_evaluate_makes_one_pass_of_each_kind(fake_model):
    evaluate(None, None, fake_bench(), part="validation", bootstrap=0)
    assert [len(calls) for calls in fake_model.values()] == [1, 1, 1]
    assert len(fake_model["generate"][0]) == 18 and len(fake_model["response"][0]) == 8
    assert sorted(fake_model["text"][0]) == sorted(
        f"{s}{i}completionvalidation" for s in ("forget", "holdout") for i in range(3)
    )


def test_evaluate_questions_only_and_without_holdout(fake_model):
    got = evaluate(None, None, fake_bench(kinds=("qa",)), part="test", bootstrap=0)
    assert got.meta["mia_documents"] == "all rows" and got.meta["regurgitation_from_questions"] == ["T"]
    assert got.meta["n_members"] == got.meta["n_nonmembers"] == 3
    got = evaluate(None, None, fake_bench(holdout=False, general=False), part="test", bootstrap=10)
    assert np.isnan(got.summary["mia_auc"]) and got.meta["final_over"] == ["task_aggregate"]
    assert got.meta["utility_kind"] == "none" and got.summary["final"] == got.summary["task_aggregate"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"part": None}, "part None"),
        ({"part": "train"}, "part 'train'"),
        ({"part": "test", "suite": "semevl"}, "did you mean 'semeval'"),
        ({"part": "test", "suite": "semeval(utility=mmul)"}, "did you mean 'mmlu'"),
    ],
)
def test_evaluate_refuses(fake_model, options, message):
    with pytest.raises(UnlearnError, match=re.escape(message)):
        evaluate(None, None, fake_bench(), **options)
    assert not any(fake_model.values())  # refused before any work


def test_evaluate_without_part_is_refused(fake_model):
    with pytest.raises(UnlearnError, match="choose hyper-parameters on 'validation', report on 'test'"):
        evaluate(None, None, fake_bench())
    assert not any(fake_model.values())


def test_evaluate_empty_part(fake_model):
    bench = fake_bench()
    bench.rows["forget"] = [row for row in bench.rows["forget"] if row["part"] == "test"]
    with pytest.raises(UnlearnError, match="no forget rows in part 'validation'"):
        evaluate(None, None, bench, part="validation")


def test_nan_likelihood_is_told(fake_model, monkeypatch):
    monkeypatch.setattr(metrics, "sequence_nll", sequence_nll)
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(NonFinite, match="the model .* gives NaN likelihood for 6 of 6 rows .first: row "):
        evaluate(model, make_tokenizer(), fake_bench(), part="test")


def test_mmlu_without_lm_eval(fake_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UnlearnError, match="needs lm-eval"):
        evaluate(None, None, fake_bench(), part="test", suite=SemEval("mmlu"))


def fake_harness(monkeypatch, simple_evaluate):
    package, wrapper = types.ModuleType("lm_eval"), types.ModuleType("lm_eval.models.huggingface")
    package.simple_evaluate, wrapper.HFLM = simple_evaluate, lambda pretrained, tokenizer: None
    for name, module in (
        ("lm_eval", package),
        ("lm_eval.models", types.ModuleType("m")),
        ("lm_eval.models.huggingface", wrapper),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def test_mmlu_through_the_harness(fake_model, monkeypatch):
    def simple_evaluate(model, tasks, num_fewshot, limit):
        assert tasks == ["mmlu"] and num_fewshot == 5
        return {"results": {"mmlu": {"acc,none": 0.48, "acc_stderr,none": 0.004}}}

    fake_harness(monkeypatch, simple_evaluate)
    got = evaluate(None, None, fake_bench(general=False), part="test", suite="semeval(utility=mmlu)", bootstrap=100)
    assert got.summary["utility"] == 0.48 and got.meta["utility_kind"] == "mmlu" and "utility" in got.meta["final_over"]


def test_mmlu_offline(monkeypatch):
    def simple_evaluate(**options):
        raise ConnectionError("Couldn't reach the hub\nlong trace")

    fake_harness(monkeypatch, simple_evaluate)
    with pytest.raises(UnlearnError, match=r"^could not load MMLU \(Couldn't reach the hub\): go online") as caught:
        mmlu_accuracy(None, None)
    assert "\n" not in str(caught.value)


def test_the_organisers_rules_are_named():
    suite = SemEval(faithful="semeval")
    assert suite.max_new_tokens == 256 and suite == SemEval(faithful=True) and SemEval().max_new_tokens is None
    with pytest.raises(UnlearnError, match="faithful='semeval'"):
        SemEval(faithful="zjunlp")
