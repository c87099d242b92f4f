"""Prompt attacks: prompts changed and nothing else, and the table of all attacks."""

from copy import deepcopy

import pytest
from attacking import IDS, llama, same, state
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.attacks import ATTACKS, at_precision, change_rows, jailbreak, paraphrase, prefix, under_attack
from unlearn_nb.benches import as_dataset
from unlearn_nb.core import UnlearnError

ROW = {
    "id": "x1",
    "prompt": "Where was {Ada} born?",
    "response": "in Old Kessel, in 1931",
    "subject": "Ada",
    "task": "T",
    "kind": "qa",
    "part": "test",
    "paraphrased_prompts": ["Ada was born where?", "What is Ada's birthplace?"],
    "perturbed_responses": ["in Ulm"],
    "facts": [
        {"slot": "town", "value": "old kessel"},
        {"slot": "year", "value": "1931"},
        {"slot": "date", "value": "1931-02-03"},
    ],
}
WORD = {**ROW, "id": "x2", "response": "Kessel"}


PROMPTS = [name for name in ATTACKS if not isinstance(ATTACKS[name], type)]  # the others are attacks on more than rows


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_attack_keeps_ids_and_types(name):
    rows = [ROW, WORD]
    untouched = deepcopy(rows)
    changed = ATTACKS[name](rows)
    assert [row["id"] for row in changed] == ["x1", "x2"] and rows == untouched
    assert all(row.keys() == ROW.keys() for row in changed) and changed[0]["prompt"] != ROW["prompt"]
    table = as_dataset(rows)
    attacked = ATTACKS[name](table)
    assert isinstance(attacked, Dataset) and attacked.features == table.features
    for column in ("prompt", "response", "facts", "perturbed_responses"):
        assert list(attacked[column]) == [row[column] for row in changed]
    assert ATTACKS[name](table.select([])).features == table.features


def test_role_play_wraps_the_prompt_and_leaves_it_last():
    (changed,) = jailbreak([ROW])
    assert changed["prompt"].endswith(" " + ROW["prompt"]) and changed["prompt"].count(ROW["prompt"]) == 1
    assert {**changed, "prompt": ROW["prompt"]} == ROW


def test_paraphrases_are_taken_by_number_and_a_missing_one_is_named():
    assert [paraphrase([ROW], which=which)[0]["prompt"] for which in (0, 1)] == ROW["paraphrased_prompts"]
    with pytest.raises(UnlearnError, match="row 'x2' has 2 paraphrased_prompts, number 2"):
        paraphrase([WORD], which=2)
    with pytest.raises(UnlearnError, match="row number 2 has 0"):
        paraphrase([ROW, {"prompt": "?", "response": "!"}])


def test_a_prefix_moves_words_and_drops_what_it_gave_away():
    (changed,) = prefix([ROW], share=0.6)
    assert (changed["prompt"], changed["response"]) == (ROW["prompt"] + " in Old Kessel,", "in 1931")
    assert [fact["slot"] for fact in changed["facts"]] == ["year", "date"] and changed["perturbed_responses"] == []
    assert prefix([WORD]) == [WORD]
    for share in (0, 1, -0.5):
        with pytest.raises(UnlearnError, match="between 0 and 1"):
            prefix([ROW], share=share)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab.", min_size=1), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_a_prefix_loses_no_word(words, share):
    row = {"prompt": "p", "response": " ".join(words)}
    (changed,) = prefix([row], share=share)
    assert f"{changed['prompt']} {changed['response']}" == f"p {row['response']}" and changed["response"]
    given_words = len(changed["prompt"].split()) - 1
    assert given_words == (max(1, int(share * len(words))) if len(words) > 1 else 0)


def measure(model, rows):
    return {"logit": model(IDS).logits[0, -1, 3].item(), "length": len(rows[0]["prompt"]), "zero": 0.0}


def test_the_table_has_a_row_an_attack_and_metric():
    model = llama()
    before = state(model)
    table = under_attack(model, [ROW], measure, precisions=("float16", "int4"), prompts=("jailbreak", "prefix"))
    assert list(table["attack"].unique()) == ["none", "float16", "int4", "jailbreak", "prefix"]
    assert list(table["kind"].unique()) == ["none", "precision", "prompt"] and len(table) == 15
    assert same(before, state(model))
    cells = table.set_index(["attack", "metric"])
    plain = measure(model, [ROW])
    with at_precision(model, "int4"):
        rounded = measure(model, [ROW])
    assert cells.loc[("int4", "logit"), "value"] == rounded["logit"]
    assert cells.loc[("int4", "logit"), "change"] == pytest.approx(rounded["logit"] - plain["logit"])
    assert cells.loc[("int4", "logit"), "relative"] == pytest.approx(rounded["logit"] / plain["logit"] - 1)
    assert cells.loc[("jailbreak", "length"), "value"] == len(jailbreak([ROW])[0]["prompt"])
    assert cells.loc[("jailbreak", "logit"), "change"] == 0
    assert cells["relative"].xs("zero", level="metric").isna().all()


def test_changes_can_refer_to_another_attack():
    table = under_attack(llama(), [ROW], measure, precisions=("float16", "int4"), prompts={"own": lambda rows: rows},
                         against="float16")
    assert (table.loc[table["attack"] == "float16", "change"] == 0).all() and "own" in set(table["attack"])
    assert (table.loc[(table["attack"] == "int4") & (table["metric"] == "logit"), "change"] != 0).all()


def test_a_prompt_attack_is_asked_for_with_its_options():
    names = ["prefix(share=0.6)", "paraphrase(which=1)"]
    lengths = lambda model, rows: {"prompt": len(rows[0]["prompt"]), "response": len(rows[0]["response"])}
    table = under_attack(llama(), [ROW], lengths, precisions=(), prompts=names, against="paraphrase(which=1)")
    assert list(table["attack"].unique()) == ["none", *names]
    for name, changed in zip(names, (prefix([ROW], share=0.6), paraphrase([ROW], which=1))):
        found = table[table["attack"] == name].set_index("metric")["value"]
        assert found.to_dict() == lengths(None, changed)
    assert (table.loc[table["attack"] == names[1], "change"] == 0).all()


def test_an_attack_of_ones_own_works_by_name():
    @ATTACKS.register
    def shout(rows, *, times=1):
        return change_rows(rows, lambda row: {"prompt": row["prompt"] + "!" * times})

    try:
        table = under_attack(llama(), [ROW], measure, precisions=(), prompts=["shout", "shout(times=3)"])
    finally:
        ATTACKS.unregister("shout")
    values = table[table["metric"] == "length"].set_index("attack")["change"]
    assert values.to_dict() == {"none": 0, "shout": 1, "shout(times=3)": 3}


@pytest.mark.parametrize(
    "options,message",
    [
        ({"precisions": ["int5"]}, "unknown precision 'int5'"),
        ({"prompts": ["jailbrake"]}, "did you mean 'jailbreak'"),
        ({"against": "int2"}, "unknown attack 'int2'"),
        ({"prompts": ["paraphrase"]}, "row 'x3' has 0"),
        ({"prompts": ["paraphrase(which=1)"]}, "row 'x3' has 0 paraphrased_prompts, number 1"),
        ({"prompts": ["prefix(share=2)"]}, "between 0 and 1"),
        ({"prompts": ["prefix(part=0.5)"]}, "unknown argument of prefix 'part'"),
        ({"prompts": ["prefix(0.5)"]}, "name the argument '0.5'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(options, message):
    def never(model, rows):
        raise AssertionError("measured")

    with pytest.raises(UnlearnError, match=message):
        under_attack(llama(), [{"id": "x3", "prompt": "?", "response": "!"}], never, **options)


@pytest.mark.parametrize(
    "response, share, given, rest",
    [
        ("她在北京大学读书。", 0.4, "她在北", "京大学读书。"),
        ("เธออยู่ที่บ้าน", 0.56, "เธออยู่", "ที่บ้าน"),  # a character keeps its marks
        ("iPhone手机很好", 0.25, "iPhone", "手机很好"),
        ("Élodie vit à Évreux", 0.5, "Élodie vit", "à Évreux"),
    ],
)
def test_a_prefix_where_no_blanks_stand_between_words(response, share, given, rest):
    (changed,) = prefix([{"prompt": "?", "response": response}], share=share)
    assert (changed["prompt"], changed["response"]) == (f"? {given}", rest)


def test_a_fact_that_was_given_away_is_dropped_in_any_spelling():
    facts = [{"slot": "name", "value": "E\u0301lodie"}, {"slot": "place", "value": "ÉVREUX"}]
    (changed,) = prefix([{"prompt": "?", "response": "Élodie vit à Évreux", "facts": facts}], share=0.5)
    assert [fact["slot"] for fact in changed["facts"]] == ["place"]


@pytest.mark.parametrize("which", [-1, True, 0.5, "0"])
def test_a_paraphrase_has_a_number_from_0_on(which):
    with pytest.raises(UnlearnError, match="give the number of a paraphrase, from 0 on"):
        paraphrase([ROW | {"paraphrased_prompts": ["a", "b"]}], which=which)
