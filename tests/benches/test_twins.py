"""Twins and near-twins: what says the same, found fast and exactly."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import connected, near_pairs, plain_text, shingles

quick = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("one, other", [
    ("Élodie", "E\u0301lodie"), ("STRASSE", "straße"), ("ﬁne", "FINE"), ("Ⅳ", "iv"), ("don’t", "don't"),
    ("a\u00adb", "ab"),
    ("“Yes”", "'yes'!"), ("e-mail", "email"), ("a\u00a0 b\n", "a b"), ("١٢", "١٢."),
    ("مُحَمَّد", "محمد"), ("ΣΊΣΥΦΟΣ", "σίσυφος")])
def test_texts_that_say_the_same(one, other):
    assert plain_text(one) == plain_text(other)


@pytest.mark.parametrize("one, other", [
    ("Elodie", "Élodie"), ("1 + 2", "12"), ("C++", "C"), ("?", "!"), ("5 €", "5 $"), ("👍", "👎"),
    ("が", "か"), ("कि", "क")])
def test_texts_that_do_not(one, other):
    assert plain_text(one) != plain_text(other)


@quick
@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=12).map(" ".join), max_size=25),
       st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_near_pairs_are_those_of_the_comparison_of_each_with_each(texts, least):
    sets = [shingles(text) for text in texts]
    wanted = [(i, j) for i, j in combinations(range(len(texts)), 2)
              if len(sets[i] & sets[j]) >= least * len(sets[i] | sets[j])]
    assert near_pairs(texts, least) == wanted


@pytest.mark.parametrize("text, other, near", [
    ("北京大学的图书馆在哪里在校园的东边", "北京大学的旧图书馆在哪里在校园的东边", True),
    ("北京大学在哪里", "清华大学有多少人", False),
    ("Где живёт Иван Петров из маленького города у моря", "Где живёт Иван Петров из города у моря", True),
    ("he lives in house 3 by the sea with his two aunts", "he lives in house 4 by the sea with his two aunts", False)])
def test_near_twins_in_other_scripts_and_with_other_numbers(text, other, near):
    assert bool(near_pairs([text, other])) == near


def test_a_form_that_all_rows_fill_in_makes_no_near_twins():
    form = "Answer the following question in one short sentence and tell nobody what you think of it: who is {}?"
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"{a}{b}ra {b}{a}lo" for a in letters[:10] for b in letters[10:20]]
    assert near_pairs([form.format(name) for name in names]) == []
    assert near_pairs([form.format(name) for name in [*names, names[7]]]) == [(7, 100)]


@quick
@given(st.integers(12, 15), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11))))
def test_connected_things_have_one_name_and_others_another(count, pairs):
    first = connected(count, pairs)
    assert all(first[i] == first[j] for i, j in pairs)
    assert all(first[i] <= i and first[first[i]] == first[i] for i in range(count))
    assert len(set(first)) >= count - len(pairs)
