"""Corruption: exactly as many rows as asked, each really changed, the rest untouched, and the clean texts at hand."""

import copy

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import corrupt_queries, corrupt_responses, genre_of, load_recommendations
from unlearn_nb.benches.corruption import _shared_out
from unlearn_nb.core import UnlearnError

BOOKS = load_recommendations("smoke")
CASES = [(corrupt_responses, "response"), (corrupt_queries, "prompt")]


def rows_of(smoke_bench, name):
    return smoke_bench.training_rows().to_list() if name == "people" else BOOKS.only(name).train


@pytest.mark.parametrize("change, column", CASES)
@pytest.mark.parametrize("name", ["people", "next", "like"])
@settings(max_examples=12, deadline=None)
@given(share=st.floats(0.02, 0.98), seed=st.integers(0, 1000))
def test_the_promises(smoke_bench, name, change, column, share, seed):
    rows = rows_of(smoke_bench, name)
    before = copy.deepcopy(rows)
    found = change(rows, share, seed)
    assert rows == before, "the rows given stay as they are"
    assert [row["id"] for row in found.rows] == [row["id"] for row in rows]
    assert len(found.ids) == len(set(found.ids)) == round(share * len(rows))
    assert found.ids == tuple(row["id"] for row in rows if row["id"] in found.clean)
    for old, new in zip(rows, found.rows):
        if old["id"] not in found.clean:
            assert new == old
            continue
        assert new[column].strip().lower() != old[column].strip().lower()
        assert found.clean[old["id"]] == old[column]
        assert {key for key in old if new[key] != old[key]} <= {column, "history"}
    assert change(rows, share, seed) == found


@pytest.mark.parametrize("change, column", CASES)
def test_other_seeds_choose_other_rows(change, column):
    rows = BOOKS.only("next").train
    assert len({change(rows, 0.2, seed).ids for seed in range(5)}) == 5


def test_responses_and_queries_of_one_seed_are_chosen_apart():
    rows = BOOKS.only("next").train
    assert corrupt_responses(rows, 0.2).ids != corrupt_queries(rows, 0.2).ids


@given(st.integers(0, 60), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_dealing_is_exact_and_off_by_less_than_a_row(count, sizes):
    count = min(count, sum(sizes))
    dealt = _shared_out(count, sizes)
    assert sum(dealt) == count
    assert all(abs(k - count * size / sum(sizes)) < 1 and k <= size for k, size in zip(dealt, sizes))


def test_flipping_is_balanced_and_other_answers_are_plausible(smoke_bench):
    flipped = corrupt_responses(BOOKS.only("like").train, 0.4)
    assert list(flipped.clean.values()).count("Yes") == list(flipped.clean.values()).count("No")
    for old, new in zip(BOOKS.only("next").train, corrupt_responses(BOOKS.only("next").train, 0.4).rows):
        assert new["response"] in old["candidates"]
    people = smoke_bench.training_rows().to_list()
    for old, new in zip(people, corrupt_responses(people, 0.4).rows):
        assert new["response"] in [old["response"], *old["perturbed_responses"]]


def test_strata_get_their_share(smoke_bench):
    rows = smoke_bench.training_rows().to_list()
    found = corrupt_responses(rows, 0.25)
    for task, kind in {(row["task"], row["kind"]) for row in rows}:
        ids = [row["id"] for row in rows if (row["task"], row["kind"]) == (task, kind)]
        assert abs(sum(i in found.clean for i in ids) - 0.25 * len(ids)) < 1


@pytest.mark.parametrize("task", ["next", "like"])
def test_one_item_of_the_history_goes_to_another_genre(task):
    rows = BOOKS.only(task).train
    found = corrupt_queries(rows, 0.5)
    for old, new in zip(rows, found.rows):
        swaps = [(a, b) for a, b in zip(old["history"], new["history"], strict=True) if a != b]
        assert len(swaps) == (old["id"] in found.clean)
        for gone, put in swaps:
            assert new["prompt"] == old["prompt"].replace(gone, put)
            assert genre_of(put) not in {genre_of(title) for title in old["history"]} and put not in old["prompt"]


def test_a_person_is_mistaken_for_another(smoke_bench):
    rows = [row for row in smoke_bench.training_rows().to_list() if row["task"] != "general"]
    names = {row["subject"] for row in rows}
    for old, new in zip(rows, corrupt_queries(rows, 0.5).rows):
        if new["prompt"] != old["prompt"]:
            put = [name for name in names if name in new["prompt"]]
            assert old["subject"] not in new["prompt"] and len(put) == 1
            assert new["prompt"] == old["prompt"].replace(old["subject"], put[0])


def test_facts_keep_making_sense(smoke_bench):
    """A capital's country is replaced by a country, not by an animal."""
    rows = [row for row in smoke_bench.training_rows().to_list() if row["task"] == "general"]
    for old, new in zip(rows, corrupt_queries(rows, 0.5).rows):
        other = next(row["subject"] for row in rows if row["prompt"] == new["prompt"])
        assert new["prompt"] == old["prompt"].replace(old["subject"], other)


def test_a_name_inside_a_longer_word_stays():
    rows = [PLAIN | {"id": str(i), "prompt": f"Is {name} as cold as tinder?", "response": str(i), "subject": name}
            for i, name in enumerate(["tin", "gold"])]
    changed = corrupt_queries(rows, 0.5)
    (row_id,) = changed.ids
    assert changed.rows[int(row_id)]["prompt"] == rows[1 - int(row_id)]["prompt"]


def test_rows_without_wrong_answers_get_those_of_their_task_and_kind():
    rows = [{"id": str(i), "prompt": "q", "response": f"{task}{i % 3}", "subject": "s", "task": task, "kind": "qa"}
            for i, task in enumerate("aaabbb")]
    found = corrupt_responses(Dataset.from_list(rows), 0.9)
    assert len(found.ids) == 5 and all(new["response"][0] == new["task"] for new in found.rows)


PLAIN = {"prompt": "Why?", "response": "So", "subject": "s", "task": "t", "kind": "qa"}


@pytest.mark.parametrize("call, sentence", [
    (lambda: corrupt_responses(BOOKS.train, 0), "corruption: share is 0; it must lie between 0 and 1, both excluded"),
    (lambda: corrupt_queries(BOOKS.train, 1.0), "corruption: share is 1.0; it must lie between 0 and 1, both excluded"),
    (lambda: corrupt_responses(BOOKS.train, float("nan")),
     "corruption: share is nan; it must lie between 0 and 1, both excluded"),
    (lambda: corrupt_responses(BOOKS.train[:4], 0.1),
     "corruption: a share of 0.1 of 4 rows is no row; raise the share or add rows"),
    (lambda: corrupt_responses([{**PLAIN, "id": "a"}] * 2, 0.5),
     "corruption: the id 'a' stands twice; changes are told by id, so make ids unique"),
    (lambda: corrupt_responses([{**PLAIN, "id": i} for i in "ab"], 0.9),
     "row 'a' can't get a wrong response: it has no perturbed_responses and no other t row says anything else; "
     "add perturbed_responses"),
    (lambda: corrupt_queries([{**PLAIN, "id": i} for i in "ab"], 0.9),
     "row 'a' can't get a noisy query: its prompt names nobody; leave it out or give it a history"),
    (lambda: corrupt_queries([{**PLAIN, "id": i, "prompt": "Who is s?"} for i in "ab"], 0.9),
     "row 'a' can't get a noisy query: no other t row names anybody else; leave it out or give it a history"),
    (lambda: corrupt_queries([{**BOOKS.train[0], "prompt": "lost"}, *BOOKS.train[4:]], 0.999),
     f"row {BOOKS.train[0]['id']!r} can't get a noisy query: its prompt lacks the title"),
    (lambda: corrupt_queries(BOOKS.train[:1], 0.9),
     f"row {BOOKS.train[0]['id']!r} can't get a noisy query: no row has a title of another genre; give more rows"),
])
def test_bad_input_is_told_in_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call()
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)
