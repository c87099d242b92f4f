"""ROUGE against its package, exact match, and what counts as collapse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from unlearn_nb.metrics import (
    exact_match,
    is_repetitive,
    rouge_l_recall,
)

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
