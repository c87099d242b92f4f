"""Biographies: the generator's promises."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

import unlearn_nb
from unlearn_nb.benches import SLOTS, SPLITS, general_facts, make_biographies
from unlearn_nb.benches.biographies import _swap
from unlearn_nb.core import UnlearnError

SMALL = {"forget": 2, "retain": 2, "collateral": 1, "holdout": 2}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_same_seed_same_rows_other_seed_other_rows(seed):
    rows = make_biographies(SMALL, seed)
    assert rows == make_biographies(SMALL, seed)
    assert rows != make_biographies(SMALL, seed + 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_people_and_facts_are_unique(seed):
    splits = make_biographies(SMALL, seed)
    subjects = [{row["subject"] for row in rows} for rows in splits.values()]
    assert [len(names) for names in subjects] == [3 * count for count in SMALL.values()]
    assert len(set.union(*subjects)) == sum(map(len, subjects))
    rows = [row for rows in splits.values() for row in rows]
    assert len({row["id"] for row in rows}) == len(rows)
    answers = [row["response"] for row in rows if row["kind"] == "qa"]
    assert len(set(answers)) == len(answers)
    assert not set(answers) & {wrong for row in rows if row["kind"] == "qa" for wrong in row["perturbed_responses"]}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
@example(906)  # a wrong laboratory is named after the right town
@example(1351)  # a wrong name holds the right one
@example(1484)  # a wrong day of the month ends like the right one
def test_rows_keep_their_promises(seed):
    for row in (row for rows in make_biographies(SMALL, seed).values() for row in rows):
        prompts = [row["prompt"], *row["paraphrased_prompts"]]
        assert len(set(prompts)) == len(prompts) >= 3
        assert all(row["subject"] in prompt for prompt in prompts)
        assert len({row["response"], *row["perturbed_responses"]}) == 4
        assert "{" not in "".join(prompts) + row["response"]
        for fact in row["facts"]:
            assert fact["value"].lower() in row["response"].lower()
            assert not any(fact["value"].lower() in wrong.lower() for wrong in row["perturbed_responses"])
        if row["kind"] == "qa":
            assert 1 <= len(row["response"].split()) <= 4
        else:
            assert 9 <= len(row["response"].split()) <= 20 and 11 <= len(row["prompt"].split()) <= 24
            assert row["subject"] not in row["response"]


def test_a_value_inside_another_is_swapped_on_its_own():
    text = "Shared one Kirkholm Rosette with rivals. Later she grew up around Kirkholm."
    assert _swap(text, {"Kirkholm": "Holburn", "Kirkholm Rosette": "Kirkgate Order"}) == (
        "Shared one Kirkgate Order with rivals. Later she grew up around Holburn.")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_a_person_has_three_documents_that_share_no_opening(seed):
    documents = {}
    for row in (row for rows in make_biographies(SMALL, seed).values() for row in rows if row["kind"] == "completion"):
        documents.setdefault(row["subject"], []).append(row)
    for rows in documents.values():
        prompts = [prompt for row in rows for prompt in (row["prompt"], *row["paraphrased_prompts"])]
        assert len(rows) == 3 == len({row["response"] for row in rows}) and len(set(prompts)) == len(prompts) == 9


def test_records_write_numbers_and_dates_otherwise():
    rows = make_biographies({"forget": 12})["forget"]
    answers = {(row["subject"], row["facts"][0]["slot"]): row["response"] for row in rows if row["kind"] == "qa"}
    for row in (row for row in rows if row["task"] == "Task2" and row["kind"] == "completion"):
        stated = {fact["slot"] for fact in row["facts"]}
        assert len(stated) == 3 and stated <= {"birth_date", "ssn", "phone", "email", "address"}
        for slot in stated - {"email"}:
            assert answers[row["subject"], slot] not in row["response"]


@pytest.mark.parametrize("seed", range(3))
def test_another_persons_text_scores_low(seed):
    """ROUGE-L recall between people of one task, the stand-in for an oracle: at most 0.25 on average."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rows = make_biographies({"forget": 14}, seed)["forget"]
    for task in SLOTS:
        texts = [(r["subject"], r["response"]) for r in rows if (r["task"], r["kind"]) == (task, "completion")]
        recalls = [scorer.score(a, b)["rougeL"].recall for one, a in texts for other, b in texts if one != other]
        assert sum(recalls) / len(recalls) <= 0.25


def test_no_answer_is_common(quick_bench):
    by_slot = {}
    for row in [row for split in SPLITS[:4] for row in quick_bench.split(split) if row["kind"] == "qa"]:
        by_slot.setdefault(row["facts"][0]["slot"], []).append(row["response"].lower())
    assert len(by_slot) == sum(len(slots) for slots in SLOTS.values())
    for slot, answers in by_slot.items():
        top = Counter(answers).most_common(1)[0][1]
        assert (top - 1) / (len(answers) - 1) <= 0.02, slot


def test_every_slot_has_at_least_60_values():
    for slots in SLOTS.values():
        for name, slot in slots.items():
            rng = Random(0)
            assert len({slot.draw(rng) for _ in range(400)}) >= 60, name
            assert len(slot.questions) >= 4 and len(slot.clauses) >= 8, name


def test_too_many_people_are_refused():
    with pytest.raises(UnlearnError, match="600 people"):
        make_biographies({"forget": 201})


def test_same_rows_in_another_process():
    """Nothing may depend on the hash seed of the process."""
    code = ("import json; from unlearn_nb.benches import make_biographies, general_facts; "
            "print(json.dumps([make_biographies({'forget': 2}, 3), general_facts(3)]))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(unlearn_nb.__file__).parents[1])}).stdout
    assert json.loads(out) == [make_biographies({"forget": 2}, 3), general_facts(3)]
