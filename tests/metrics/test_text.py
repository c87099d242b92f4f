"""ROUGE against its package, exact match, and what counts as collapse."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from unlearn_nb.core import UnlearnError, folded, is_blank
from unlearn_nb.metrics import (
    ROUGE_CODES,
    exact_match,
    is_repetitive,
    rouge_1_f1,
    rouge_1_recall,
    rouge_l_f1,
    rouge_l_recall,
    word_tokens,
)

words = st.lists(st.sampled_from("the runner runs running Ann's 12 house houses über -".split()), max_size=8).map(
    " ".join
)


FOUR = {
    ("rouge1", "recall"): rouge_1_recall,
    ("rouge1", "fmeasure"): rouge_1_f1,
    ("rougeL", "recall"): rouge_l_recall,
    ("rougeL", "fmeasure"): rouge_l_f1,
}


@pytest.mark.parametrize("code", ROUGE_CODES)
@given(prediction=words | st.text(), reference=words | st.text())
def test_published_rouge_equals_rouge_score(code, prediction, reference):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=ROUGE_CODES[code])
    expected = scorer.score(reference, prediction)
    for (kind, part), ours in FOUR.items():
        assert ours(prediction, reference, faithful=code) == getattr(expected[kind], part)


@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)))
def test_rouge_equals_rouge_score_on_ascii_text_with_words(prediction, reference):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    prediction, reference = f"she runs {prediction}", f"he ran {reference}"
    expected = scorer.score(reference, prediction)
    for (kind, part), ours in FOUR.items():
        assert ours(prediction, reference) == getattr(expected[kind], part)


@given(st.text())
def test_a_text_recalls_itself_in_any_script(text):
    for ours in FOUR.values():
        assert ours(text, text) == pytest.approx(1) or is_blank(text)


def test_a_blank_reference_has_no_rouge():
    for ours in FOUR.values():
        assert math.isnan(ours("", "")) and math.isnan(ours("said", " \n")) and ours("", "said") == 0
        assert ours("", "", faithful="zjunlp") == 0


def test_whose_rouge_must_be_said():
    with pytest.raises(UnlearnError, match="whose code"):
        rouge_l_recall("a", "a", faithful=True)


@pytest.mark.parametrize(
    "prediction, reference, expected",
    [
        ("Amélie naquit à Orléans", "Élodie naquit à Évreux", 1 / 2),
        ("она живёт в Москве", "Она живет в Москве", 3 / 4),  # ё and е are two letters
        ("เชียงใหม่", "เชียงราย", 4 / 7),  # characters, as Thai writes no blanks
        ("東京大学", "京都大学", 3 / 4),
        ("ＡＢＣ company", "abc company", 1),
        ("القاهرة", "القَاهِرَة", 1),
        ("ኣስመራ", "ከረን", 0),
        ("🙂", "🙂 🙂", 1 / 2),
    ],
)
def test_rouge_counts_words_of_every_script(prediction, reference, expected):
    assert rouge_l_recall(prediction, reference) == pytest.approx(expected)


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
        ("E\u0301lodie", "Élodie", 1),
        ("ＯＳＬＯ", "Oslo", 1),
        ("STRASSE", "Straße", 1),
        ("مُحَمَّد", "محمد", 1),
        ("10²", "102", 0),
        ("Elodie", "Élodie", 0),
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
        "मैं मैं मैं मैं",
        "住在城市里面的" * 3,
        "สวัสดี" * 4,
        "000000000000",
        "5 666 666 666 666",
        "1,000,000 " * 4,
        "0.3333333333333333 " * 4,
        "1.1.1.1.1.1.1",
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
        "1,000,000,000",
        "12.000.000.000.000",
        "1 000 000 000 000",
        "a population of 1000000000000",
        "0.3333333333333333",
        "6,666666666666667",
        "10.10.10.10 and 100.100.100.100",
        "1,000,000, 2,000,000, 3,000,000 or 4,000,000",
        "1999-11-11",
        "She was born in 1971 in Oslo and died in Oslo.",
        "that that that",
        "anna.berg@mail.example",
        "12 12 Elm Street, Apartment 12",
        "New York, New York",
        "哈哈哈哈",
        "她出生于一九七一年，在北京大学学习，后来在北京工作。",
        "เธอเกิดที่กรุงเทพมหานครและทำงานที่เชียงใหม่",
        "He had had four dogs, four cats, four birds, four mice and four fish.",
    ],
)
def test_ordinary_text_is_no_collapse(text):
    assert not is_repetitive(text)


def test_published_exact_match_only_strips_and_lowers():
    assert exact_match(" OSLO", "Oslo", faithful="semeval") == 1
    assert exact_match("E\u0301lodie", "Élodie", faithful="semeval") == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        ("  \n\t", []),
        ("He left. She came!", ["he", "left", ".", "she", "came", "!"]),
        ("It's 3.5 km, isn't it?", ["it", "'s", "3.5", "km", ",", "is", "n't", "it", "?"]),
        ('He said "no." Then left', ["he", "said", "``", "no", ".", "''", "then", "left"]),
        ("Dr. A. Neva of the U.S. army", ["dr.", "a.", "neva", "of", "the", "u.s.", "army"]),
    ],
)
@pytest.mark.parametrize("faithful", [False, "zjunlp"])
def test_words_and_marks(text, expected, faithful):
    assert word_tokens(text, faithful) == expected


@given(st.text(max_size=60))
def test_words_and_marks_are_lower_case_and_never_empty(text):
    found = word_tokens(text, faithful="zjunlp")
    assert all(token and token == token.lower() for token in found) and bool(found) == bool(text.strip())
    ours = word_tokens(text)
    assert all(token and token == folded(token) for token in ours) and bool(ours) == bool(folded(text).strip())


@pytest.mark.parametrize(
    "text, count, published",
    [("她在北京大学读书。", 9, 1), ("เธออยู่", 5, 1), ("東京へ行く iPhone手机", 8, 2), ("Живёт в Москве.", 4, 4)],
)
def test_a_script_without_blanks_has_a_word_a_character(text, count, published):
    """Else a Chinese text of any length is one word: the least Brunet's index there is, whatever it says."""
    assert len(word_tokens(text)) == count and len(word_tokens(text, faithful=True)) == published


def test_one_spelling_is_one_word():
    assert len(set(word_tokens("E\u0301vreux Évreux ÉVREUX"))) == 1
    assert len(set(word_tokens("E\u0301vreux Évreux", faithful="zjunlp"))) == 2


@pytest.mark.parametrize("prediction, reference, recall", [
    ("The answer is 🙂", "🙂", 1), ("It is ∞.", "∞", 1), ("Answer: →", "→", 1), ("ok ☕!", "☕", 1),
    ("It is 5", "∞", 0), ("🙂 and ☕", "🙂☕", 1), ("only 🙂", "🙂☕", 0.5), ("Well ... no", "...", 1),
    ("🙂", "The answer", 0),
    ("İstanbul", "istanbul", 1), ("It lies in istanbul", "İSTANBUL", 1)])
def test_symbols_count_where_the_reference_has_nothing_else(prediction, reference, recall):
    assert rouge_l_recall(prediction, reference) == rouge_1_recall(prediction, reference) == recall


def test_symbols_do_not_count_beside_words():
    assert rouge_l_f1("Tea ☕ please!", "tea, please 🙂") == 1


@pytest.mark.parametrize("reference", ["\u200b", "\ufeff", "\u2060\u00ad", "\x00"])
def test_a_reference_that_shows_nothing_has_no_rouge(reference):
    assert math.isnan(rouge_l_recall("x", reference)) and math.isnan(rouge_1_f1(reference, reference))
