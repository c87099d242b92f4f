"""Entailment from facts and from models."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import fact_row

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    FactEntailment,
    ModelEntailment,
    load_nli,
    states,
    swapped_value,
)

MEAL = fact_row("Which dish was served to Tama Lundberg?", "beetroot muffins", ["beetroot muffins"], ["lentil custard"])

PERSON = fact_row(
    "For the census Tama Lundberg wrote:",
    "Rings at (145) 375-2822; born Dec 24, 1967. Lives at 4 Moss Lane (Brookby).",
    ["(145) 375-2822", "Dec 24, 1967", "4 Moss Lane (Brookby)"],
    ["Rings at (036) 536-7489; born Jan 2, 1950. Lives at 9 Fern Road (Oakdale)."], kind="completion",
)  # fmt: skip


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
    row = fact_row("Numbers?", "Home 1112223333, work 4445556666 and so on.", ["1112223333", "4445556666"])
    texts = ["1112223333", "1112223333 and 7778889999", "4445556666, 1112223333"]
    assert FactEntailment().labels([row] * 3, texts) == ["neutral", "contradiction", "entailment"]


def test_entailment_without_facts():
    short = fact_row("Which town?", "Oslo")
    long = fact_row("Tell me.", "She moved to Oslo in 1971 and worked there as a nurse.")
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


STUDY = fact_row("她在哪里读书？", "她1967年在北京大学读书。", ["北京大学"], ["她1967年在清华大学读书。"])
CITY = fact_row("Где живёт Елена?", "в Москве", [], [])


@pytest.mark.parametrize(
    "row, text, label",
    [
        (STUDY, "北京大学", "entailment"),
        (STUDY, "她后来在北京大学任教。", "entailment"),
        (STUDY, "她在清华大学读书。", "contradiction"),
        (STUDY, "她喜欢大海。", "neutral"),
        (STUDY, "", "neutral"),
        (CITY, "Елена живёт в МОСКВЕ.", "entailment"),
        (fact_row("Who?", "E\u0301lodie", ["E\u0301lodie"]), "It is Élodie.", "entailment"),
        (fact_row("เธออยู่ที่ไหน", "กรุงเทพมหานคร", ["กรุงเทพมหานคร"]), "เธออยู่ในกรุงเทพมหานครมานาน", "entailment"),
        (fact_row("متى؟", "١٩٦٧", ["١٩٦٧"]), "In 1967.", "entailment"),
        (fact_row("在哪里？", "上海市浦东新区", []), "上海市浦东新区", "entailment"),  # seven signs
    ],
)
def test_entailment_from_facts_in_any_script(row, text, label):
    assert FactEntailment().labels([row], [text]) == [label]


def test_a_swapped_value_is_found_where_no_blanks_stand():
    assert swapped_value(STUDY["response"], STUDY["perturbed_responses"][0], "北京大学") == "清 华 大 学"
    assert states("她在清华大学读书。", "清华大学") and not states("她在清华大学读书。", "北京大学")
