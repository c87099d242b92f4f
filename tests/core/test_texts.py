"""One spelling and words, in scripts other than English's."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize

from unlearn_nb.core import folded, is_blank, is_unspaced, squeezed, stands_apart, whole_word, word_ends, words


@given(st.text())
def test_folding_twice_is_folding_once_and_normal_forms_are_alike(text):
    once = folded(text)
    assert folded(once) == once
    assert folded(unicodedata.normalize("NFD", text)) == folded(unicodedata.normalize("NFC", text)) == once


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_text_are_those_of_rouge_score(text):
    assert words(text) == tokenize(text, None)


@given(st.text())
def test_words_hold_no_blank_and_no_capital(text):
    assert all(word and not any(c.isspace() for c in word) and folded(word) == word for word in words(text))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Élodie Żak", ["élodie", "żak"]),
        ("E\u0301lodie", ["élodie"]),
        ("ｔｏｋｙｏ　２０２０", ["tokyo", "2020"]),
        ("कि क्या है", ["कि", "क्या", "है"]),  # vowel signs are part of the word
        ("مُحَمَّد بن عَلِيّ", ["محمد", "بن", "علي"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("서울에 산다", ["서울에", "산다"]),
        ("กขค", ["ก", "ข", "ค"]),
        ("北京2008", ["北", "京", "2008"]),
        ("Straße ﬁn", ["strasse", "fin"]),
        ("x² ½", ["x", "²", "½"]),
        ("don't", ["don", "t"]),
        ("🙂 — ", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_scripts():
    assert all(map(stands_apart, ("oslo", "évreux", "москва", "αθήνα", "1971")))
    assert not any(map(stands_apart, ("서울", "القاهرة", "東京")))
    assert all(map(is_unspaced, ("東", "ก", "ひ"))) and not any(map(is_unspaced, ("서울", "oslo", "1971")))


@pytest.mark.parametrize(
    "name, text, count",
    [
        ("Ann", "Ann, Anna and Hanna; Ann's", 2),
        ("दिल", "दिल्ली में दिल", 1),  # a vowel sign goes on with the word
        ("流浪地球", "我看了流浪地球两次", 1),
        ("E", "E E\u0301", 1),
        ("C++ (2nd)", "C++ (2nd), C++ (2nd)x", 1),
    ],
)
def test_names_are_found_as_whole_words(name, text, count):
    assert len(regex.findall(whole_word(name), text)) == count


@given(st.text())
def test_word_ends_part_a_text_into_what_is_no_blank(text):
    ends = word_ends(text)
    parts = [text[a:b].strip() for a, b in zip([0, *ends], ends)]
    assert ends == sorted(set(ends)) and "".join("".join(parts).split()) == "".join(text.split()) and all(parts)


def test_word_ends_of_plain_text_are_those_of_split():
    text = " In Oslo,  since 1971."
    assert [text[a:b].strip() for a, b in zip([0, *word_ends(text)], word_ends(text))] == text.split()


@pytest.mark.parametrize("text", ["", "\n ", "\u200b", "\ufeff", "\u2060\u00ad", "\x00\x1f", "\u3000", "\u3164"])
def test_what_shows_nothing_is_blank(text):
    assert is_blank(text) and not is_blank(text + "→")


def test_the_dot_that_a_capital_leaves_goes_and_others_stay():
    assert folded("İSTANBUL") == folded("istanbul") == folded("I\u0307STANBUL") == folded("İstanbul".lower())
    assert folded("ȧ") != folded("a") and folded("ż") != folded("z")


def test_texts_that_differ_in_spelling_and_blanks_are_one():
    assert squeezed("NEW  York\u200b ") == squeezed("new\u00a0york") and squeezed("3.5") != squeezed("35")
