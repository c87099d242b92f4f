"""Errors: a near name is suggested, otherwise all are listed; another library's error gives its first line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError, first_line, refused, unknown

NAMES = st.lists(st.text("abcdefgXYZ_-", min_size=3, max_size=12), min_size=1, max_size=6, unique_by=str.lower)


@given(NAMES, st.data())
def test_a_known_name_in_other_capitals_is_suggested(known, data):
    name = data.draw(st.sampled_from(known))
    assert str(unknown("thing", name.swapcase(), known)).endswith(f"did you mean {name!r}?")


@given(st.text(), NAMES)
def test_the_sentence_names_what_was_given_and_a_known_name(given_name, known):
    sentence = str(unknown("thing", given_name, known))
    assert sentence.startswith(f"unknown thing {given_name!r}; ") and any(name in sentence for name in known)


def test_far_names_list_all_known_ones():
    assert str(unknown("split", 7, ("forget", "retain"))) == "unknown split 7; known: forget, retain"
    assert str(unknown("split", "x", iter(["forget"]))) == "unknown split 'x'; known: forget"
    assert str(unknown("bench", "x", [])) == "unknown bench 'x'; known: none"


def test_an_unlearn_error_is_a_value_error():
    assert issubclass(UnlearnError, ValueError)


@pytest.mark.parametrize("error, line", [
    (OSError("no route\nto host"), "no route"), (ValueError("\n\n late\n"), "late"), (MemoryError(), "MemoryError"),
    (KeyError("a"), "'a'")])
def test_first_line(error, line):
    assert first_line(error) == line


def test_refused_fails_where_nothing_is_refused(capsys):
    with refused("wrong", "row 3", hide="/some/where"):
        raise UnlearnError("row 3 of /some/where/x is wrong")
    assert capsys.readouterr().out == "row 3 of .../x is wrong\n"
    with pytest.raises(AssertionError, match="must be refused"), refused():
        pass
    with pytest.raises(AssertionError, match="'row 4' is not in: row 3"), refused("row 4"):
        raise UnlearnError("row 3")
    with pytest.raises(ValueError, match="other"), refused():
        raise ValueError("other")
