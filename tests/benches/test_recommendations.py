"""Invented readers: what the prompt says decides the answer, labels are balanced, parts share nobody."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import (
    CATALOGUE,
    GENRES,
    RECOMMENDATION_PARTS,
    TASKS,
    Recommendations,
    genre_of,
    load_recommendations,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import encode, tiny_tokenizer


def genres(titles):
    return {genre_of(title) for title in titles}


def all_rows(books):
    return [row for part in RECOMMENDATION_PARTS for row in getattr(books, part)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_prompt_decides_the_answer(seed):
    for row in all_rows(load_recommendations("smoke", seed)):
        if row["task"] == "next":
            fitting = [title for title in row["candidates"] if genre_of(title) in genres(row["history"])]
            assert fitting == [row["response"]] and not set(row["candidates"]) & set(row["history"])
        else:
            asked = row["prompt"].rpartition(" | ")[2].removesuffix("?")
            assert asked not in row["history"] + row["disliked"]
            assert not genres(row["history"]) & genres(row["disliked"])
            assert genre_of(asked) in genres(row["history"] if row["response"] == "Yes" else row["disliked"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_every_title_of_the_lists_stands_once_in_the_prompt(seed):
    for row in all_rows(load_recommendations("smoke", seed)):
        titles = row["history"] + row.get("candidates", []) + row.get("disliked", [])
        assert len(set(titles)) == len(titles)
        at = [row["prompt"].index(title) for title in titles]
        assert at == sorted(at) and all(row["prompt"].count(title) == 1 for title in titles)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(seed):
    assert load_recommendations("smoke", seed) == load_recommendations("smoke", seed)
    assert load_recommendations("smoke", seed) != load_recommendations("smoke", seed + 1)


@pytest.mark.parametrize("size, candidates", [("smoke", 5), ("quick", 5), ("full", 20)])
def test_sizes(size, candidates):
    books = load_recommendations(size)
    users = [{row["subject"] for row in getattr(books, part)} for part in RECOMMENDATION_PARTS]
    assert sum(map(len, users)) == len(set.union(*users)), "parts share no user"
    rows = all_rows(books)
    assert len({row["id"] for row in rows}) == len(rows)
    for part in RECOMMENDATION_PARTS:
        labels = [row["response"] for row in getattr(books.only("like"), part)]
        assert labels.count("Yes") == labels.count("No") == len(labels) / 2 > 0
    for row in rows:
        assert row["kind"] == "qa" and row["task"] in TASKS
        assert row["response"] not in row["perturbed_responses"]
        wrong = set(row["candidates"] if row["task"] == "next" else ("Yes", "No")) - {row["response"]}
        assert set(row["perturbed_responses"]) == wrong
    assert {len(row["candidates"]) for row in rows if row["task"] == "next"} == {candidates}
    places = [row["candidates"].index(row["response"]) for row in books.only("next").train]
    assert len(set(places)) == candidates, "the right title stands anywhere"


def test_prompts_are_short_in_the_small_models_tokens():
    tokenizer = tiny_tokenizer()
    rows = all_rows(load_recommendations("smoke"))
    lengths = [len(encode(tokenizer, row["prompt"], row["response"])[0]) for row in rows]
    assert max(lengths) <= 90


def test_only_keeps_one_task_in_all_parts():
    books = load_recommendations("smoke")
    both = [books.only(task) for task in TASKS]
    for part in RECOMMENDATION_PARTS:
        assert sum(len(getattr(one, part)) for one in both) == len(getattr(books, part))
        assert all({row["task"] for row in getattr(one, part)} == {task} for one, task in zip(both, TASKS))
    assert isinstance(both[0], Recommendations)


def test_no_word_gives_two_genres_away():
    owner = {}
    for genre, pair in GENRES.items():
        for word in " ".join(pair).split():
            assert owner.setdefault(word, genre) == genre
    assert all(len(set(titles)) == len(titles) for titles in CATALOGUE.values())


@pytest.mark.parametrize("call, sentence", [
    (lambda: load_recommendations("smok"), "unknown size 'smok'; did you mean 'smoke'?"),
    (lambda: load_recommendations("smoke").only("nxt"), "unknown task 'nxt'; did you mean 'next'?"),
    (lambda: genre_of("Gone Home"), "the title 'Gone Home' is not in the catalogue; take one of 'midnight storm', ..."),
])
def test_bad_input_is_told_in_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call()
    assert str(error.value) == sentence
