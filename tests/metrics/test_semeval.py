"""Metrics against hand-made cases, other libraries, and plain re-computations."""

import json
import re
import sys
import time
import types
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sklearn.metrics import roc_auc_score

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Scores,
    SemEval,
    bootstrap_weights,
    cell_members,
    choice_credit,
    compare_table,
    evaluate,
    exact_match,
    harmonic_mean,
    intervals,
    is_repetitive,
    mia_auc,
    mia_score,
    mmlu_accuracy,
    rouge_l_recall,
    to_html,
)
from unlearn_nb.metrics import semeval as metrics

unit = st.floats(0, 1)


# ---------------------------------------------------------------- single scores


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


@pytest.mark.parametrize("auc, score", [(0.5, 1), (0, 0), (1, 0), (0.25, 0.5), (0.818, 0.364), (0.501, 0.998)])
def test_mia_score(auc, score):
    assert mia_score(auc) == pytest.approx(score)


words = st.lists(st.sampled_from("the runner runs running Ann's 12 house houses über -".split()), max_size=8).map(
    " ".join
)


@given(words, words)
def test_rouge_equals_rouge_score(prediction, reference):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    assert rouge_l_recall(prediction, reference) == scorer.score(reference, prediction)["rougeL"].recall


def test_rouge_is_recall_of_the_reference():
    assert rouge_l_recall("a b c d e f g h", "b d") == 1  # rambling is not punished
    assert rouge_l_recall("b", "b d") == 0.5
    assert rouge_l_recall("d b", "b d") == 0.5  # a subsequence keeps its order
    assert rouge_l_recall("runs", "running") == 1  # stemmed


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("Paris", "paris", 1),
        ("  Paris\n", "PARIS ", 1),
        ("Paris.", "Paris", 0),
        ("in Paris", "Paris", 0),
        ("", "", 1),
    ],
)
def test_exact_match(prediction, reference, expected):
    assert exact_match(prediction, reference) == expected


@pytest.mark.parametrize(
    "text",
    [
        "6 6 6 6",
        "6666666666666",
        "666 666 666 666",
        "no, no, no, no!",
        "............",
        ". . . .",
        "a b a b a b a b",
        "in the town of in the town of in the town of",
        "haha" * 4,
        "x y z w " * 5,
        "one two three four five six seven eight nine ten " * 3,
    ],
)
def test_collapse_is_found(text):
    assert is_repetitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6",
        "6 6 6",
        "900112233",
        "(555) 555-5555",
        "555-555-5555",
        "11-11-11",
        "1.1.1",
        "1999-11-11",
        "She was born in 1971 in Oslo and died in Oslo.",
        "that that that",
        "anna.berg@mail.example",
        "12 12 Elm Street, Apartment 12",
        "New York, New York",
        "He had had four dogs, four cats, four birds, four mice and four fish.",
    ],
)
def test_ordinary_text_is_no_collapse(text):
    assert not is_repetitive(text)


def test_choice_credit_shares_ties():
    assert choice_credit([1, 2], ["a", "b"], "a") == 1 and choice_credit([2, 1], ["a", "b"], "a") == 0
    assert choice_credit([1, 1, 2], ["a", "b", "c"], "b") == 0.5
    assert choice_credit([1, 1, 2], ["a", "b", "c"], "c") == 0


# ---------------------------------------------------------------- summary and bootstrap


def table(seed=0, people=5, tasks=("Task1", "Task2"), completions=True, holdout=True, general=6, questions=2):
    """Random rows with every column that a suite reads."""
    rng, rows = np.random.default_rng(seed), []
    for split in ("forget", "retain", "collateral") + (("holdout",) if holdout else ()):
        for task in tasks:
            for person in range(people):
                for kind in ["completion"] * completions + ["qa"] * questions:
                    rows.append(
                        {
                            "split": split,
                            "task": task,
                            "kind": kind,
                            "subject": f"{split}{task}{person}",
                            "rougeL": rng.uniform(0.05, 0.95),
                            "exact_match": float(rng.random() < 0.6),
                            "repetitive": float(rng.random() < 0.2),
                            "generation": "text",
                            "nll": round(rng.normal(2, 1), 1),
                            "correct": np.nan,
                            "member": {"forget": 1.0, "holdout": 0.0}.get(split, np.nan),
                        }
                    )
    for i in range(general):
        rows.append(
            {
                "split": "general",
                "task": "general",
                "kind": "qa",
                "subject": f"g{i}",
                "generation": "b",
                "correct": float(i % 3 > 0),
                "member": np.nan,
            }
        )
    return pd.DataFrame(rows).assign(id=lambda t: [f"r{i}" for i in range(len(t))], prompt="p", response="r")


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
    rows = table(seed)
    got, expected = values(rows), plain_summary(rows)
    assert {k: got[k] for k in expected} == pytest.approx(expected)
    collateral = rows[(rows["split"] == "collateral")]
    assert got["collateral_knowledge"] == pytest.approx(collateral[collateral["kind"] == "qa"]["exact_match"].mean())
    assert got["repetition"] == pytest.approx(rows["repetitive"].mean())


def test_weights_count_rows():
    """A row with weight 2 is the row twice."""
    rows, rng = table(1), np.random.default_rng(0)
    counts = rng.integers(1, 4, len(rows))
    weighted = {k: v[0] for k, v in SemEval().summarise(rows, counts[None].astype(float)).items()}
    assert weighted == pytest.approx(values(rows.loc[np.repeat(rows.index, counts)].reset_index(drop=True)))


def test_task_aggregate_is_zero_when_a_cell_is_lost_or_fully_remembered():
    rows = table()
    rows.loc[(rows["split"] == "forget") & (rows["task"] == "Task1") & (rows["kind"] == "qa"), "exact_match"] = 1.0
    assert values(rows)["task_aggregate"] == 0
    perfect = table()
    forget, retain = perfect["split"] == "forget", perfect["split"] == "retain"
    perfect.loc[forget, ["rougeL", "exact_match"]] = 0.0
    perfect.loc[retain, ["rougeL", "exact_match"]] = 1.0
    assert values(perfect)["task_aggregate"] == 1


def test_bench_with_questions_only_has_a_regurgitation_cell_from_them():
    rows = table(completions=False)
    assert set(cell_members(rows)) == {
        f"{s}/{t}/{m}" for s in ("forget", "retain") for t in ("Task1", "Task2") for m in ("regurgitation", "knowledge")
    }
    mine = rows[(rows["split"] == "forget") & (rows["task"] == "Task1")]
    assert values(rows)["forget/Task1/regurgitation"] == pytest.approx(mine["rougeL"].mean())


def test_missing_cells_are_left_out():
    rows = table()
    rows = rows[~((rows["task"] == "Task2") & (rows["kind"] == "qa"))]
    assert len(cell_members(rows)) == 6 and "forget/Task2/knowledge" not in values(rows)


def test_without_holdout_final_covers_what_exists():
    got = values(table(holdout=False))
    assert np.isnan(got["mia_auc"]) and np.isnan(got["mia_score"])
    assert got["final"] == pytest.approx((got["task_aggregate"] + got["utility"]) / 2)
    got = values(table(holdout=False, general=0))
    assert np.isnan(got["utility"]) and got["final"] == pytest.approx(got["task_aggregate"])


def test_bootstrap_draws_whole_subjects_within_strata():
    rows = table()
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
    rows = table(people=10, tasks=("Task1", "Task2", "Task3"), questions=3, general=40)
    assert 380 <= len(rows) <= 540
    start = time.perf_counter()
    first = summarise(rows, bootstrap=1000, seed=5)
    seconds = time.perf_counter() - start
    print(f"1000 resamples of {len(first)} metrics over {len(rows)} rows: {seconds:.2f} s")
    pd.testing.assert_frame_equal(first, summarise(rows, bootstrap=1000, seed=5))


def test_measured_utility_replaces_the_general_rows():
    ci = summarise(table(), SemEval(measured=(0.48, 0.01)), bootstrap=500).set_index("metric")
    low, high = ci.loc["utility", ["low", "high"]]
    assert ci.loc["utility", "value"] == 0.48 and 0.455 < low < 0.47 and 0.49 < high < 0.505


# ---------------------------------------------------------------- Scores


def scores(seed=0, **meta):
    rows = table(seed)
    return Scores(rows, summarise(rows, bootstrap=50), {"suite": "semeval", "part": "test", "bench": "b", **meta})


def test_distance_to_itself_is_zero():
    mine = scores()
    assert mine.oracle_distance(mine) == 0 and (mine.distance(mine)["difference"] == 0).all()


def test_distance_is_the_mean_over_cells_and_auc():
    mine, oracle = scores(0), scores(1)
    keys = [*mine.cells, "mia_auc"]
    assert len(keys) == 9
    expected = np.mean([abs(mine.summary[k] - oracle.summary[k]) for k in keys])
    assert mine.oracle_distance(oracle) == pytest.approx(expected) and expected > 0
    assert mine.oracle_distance(oracle) == pytest.approx(oracle.oracle_distance(mine))


@pytest.mark.parametrize("key", ["part", "bench", "suite", "fingerprint", "utility_kind"])
def test_distance_refuses_what_is_not_comparable(key):
    with pytest.raises(UnlearnError, match=key):
        scores().distance(scores(**{key: "other"}))


def test_table_says_what_is_better():
    better = scores().table().set_index("metric")["better"]
    assert better["forget/Task1/knowledge"] == "lower" and better["retain/Task1/knowledge"] == "higher"
    assert better["mia_auc"] == "0.5" and better["repetition"] == "lower" and better["collateral_knowledge"] == "higher"


NASTY = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    'quote " comma , \r\n tab \t',
    "NA",
    "null",
    "",
    "\x00\x1b[31m",
    "$x^2$ \\frac",
    "日本語 \u202e",
    "line\u2028separator",
    "1e5",
]


def test_save_and_load_keep_every_text(tmp_path):
    mine = scores(note=["<b>", None])
    mine.rows["generation"] = [NASTY[i % len(NASTY)] for i in range(len(mine.rows))]
    mine.rows["prompt"] = mine.rows["generation"]
    again = Scores.load(mine.save(tmp_path / "deep" / "scores"))
    assert again.rows["generation"].tolist() == mine.rows["generation"].tolist()
    pd.testing.assert_frame_equal(again.rows, mine.rows, check_dtype=False)
    pd.testing.assert_frame_equal(again.ci, mine.ci)
    assert again.meta == mine.meta and again.oracle_distance(mine) == 0
    text = (tmp_path / "deep" / "scores" / "scores.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_same_scores_give_the_same_files(tmp_path):
    scores().save(tmp_path / "a")
    scores().save(tmp_path / "b")
    for name in ("scores.json", "rows.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["rows.jsonl", "scores.json"]


def test_load_from_nowhere(tmp_path):
    with pytest.raises(UnlearnError, match="no scores.json"):
        Scores.load(tmp_path)


# ---------------------------------------------------------------- tables


def test_compare_table():
    shown = compare_table({"one": scores(0), "two": scores(1)}, ["final", "mia_auc"])
    assert list(shown.columns) == ["one", "two"] and list(shown.index) == ["final", "mia_auc"]
    assert re.fullmatch(r"\d\.\d{3} \[\d\.\d\d, \d\.\d\d\]", shown.loc["final", "one"])
    bare = compare_table({"one": scores(0)}, ci=False)
    assert bare.loc["final", "one"] == scores(0).summary["final"]
    with pytest.raises(UnlearnError, match="did you mean 'mia_auc'"):
        compare_table({"one": scores(0)}, ["mia_acu"])


def test_compare_table_of_different_metrics():
    rows = table(holdout=False)
    poor = Scores(rows, summarise(rows, bootstrap=0), {})
    shown = compare_table({"poor": poor, "rich": scores()}, ["mia_auc", "final"])
    assert shown.loc["mia_auc", "poor"] == "n/a" and "[" not in shown.loc["final", "poor"]


@given(st.text(max_size=40))
@settings(max_examples=50)
def test_html_escapes_any_text(text):
    page = to_html(pd.DataFrame({text + "c": [text]}, index=pd.Index([text], name=text)))
    body = page.split("<table>")[1].split("</table>")[0]
    tags = set(re.findall(r"<[^>]*>", body))
    assert tags <= {
        "<thead>",
        "</thead>",
        "<tbody>",
        "</tbody>",
        "<tr>",
        "</tr>",
        "<th>",
        "</th>",
        "<td>",
        "</td>",
        "<span>",
        "</span>",
    }
    assert "$" not in body


def test_html_shows_a_script_as_text_and_long_text_whole():
    long = "word " * 200
    page = to_html(pd.DataFrame({"<script>": ["<script>alert('x')</script>", long], "score": [0.123456, np.nan]}))
    assert "<script>" not in page and page.count("&lt;script&gt;") == 2
    assert long in page and "0.123" in page and "0.1234" not in page and "n/a" in page
    assert "overflow-wrap" in page and "tex2jax_ignore" in page


# ---------------------------------------------------------------- evaluate, with a made-up model


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

    def generate(model, tokenizer, rows, template="plain", max_new_tokens=None, batch_size=64, progress=False):
        calls["generate"].append([row["id"] for row in rows])
        return ["6 6 6 6 6" if row["id"].startswith("forget") else row["response"] for row in rows]

    def sequence_nll(model, tokenizer, rows, on="text", template="plain", batch_size=64):
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
    monkeypatch.setattr(metrics, "sequence_nll", lambda model, tokenizer, rows, **options: np.full(len(rows), np.nan))
    with pytest.raises(UnlearnError, match="NaN likelihood for 6 of 6 texts"):
        evaluate(None, None, fake_bench(), part="test")


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
