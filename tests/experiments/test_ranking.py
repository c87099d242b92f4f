"""Rankings: paired differences, ties, and sentences that follow the numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import paired_gap, per_subject, ranked, ranking_in_words


def people(shifts, seeds=2, count=12, noise=0.02, seed=0):
    """One value a subject: people differ by up to 1, contestants by `shifts`."""
    random = np.random.default_rng(seed)
    base = pd.DataFrame({"seed": np.repeat(np.arange(seeds), count),
                         "subject": [f"p{i}" for i in range(seeds * count)]})
    level = random.uniform(0, 1, len(base))
    return pd.concat([base.assign(contestant=name, value=level + shift + random.normal(0, noise, len(base)))
                      for name, shift in shifts.items()], ignore_index=True)


def test_the_interval_is_of_paired_differences():
    table = people({"A": 0.0, "B": 0.1})
    gap = paired_gap(table, "B", "A")
    assert gap.low < 0.1 < gap.high and gap.high - gap.low < 0.2 and gap.told_apart
    spread = table.query("contestant == 'A'")["value"].std()
    assert gap.high - gap.low < spread  # people's differences have cancelled
    assert (gap.subjects, gap.seeds) == (24, 2)


def test_with_several_seeds_the_interval_is_the_wider_of_two():
    """Between seeds the difference changes sign, within a seed it does not vary: subjects alone would be sure."""
    table = people({"A": 0.0, "B": 0.0}, noise=0.0)
    mine = table["contestant"] == "B"
    table.loc[mine & (table["seed"] == 0), "value"] += 0.3
    table.loc[mine & (table["seed"] == 1), "value"] += 0.1
    gap = paired_gap(table, "B", "A")
    assert gap.value == pytest.approx(0.2) and not gap.told_apart


def test_few_subjects_have_no_interval_and_nobody_is_told_apart():
    gap = paired_gap(people({"A": 0.0, "B": 5.0}, seeds=1, count=4), "B", "A")
    assert np.isnan(gap.low) and not gap.told_apart


def test_equal_contestants_are_tied_and_the_sentence_says_so():
    table = people({"A": 0.0, "B": 0.3})
    twin = table[table["contestant"] == "B"].assign(contestant="C")
    found = ranked(pd.concat([table, twin]))
    assert found["contestant"].tolist() == ["B", "C", "A"] and found["tied"].tolist() == [True, True, False]
    said = ranking_in_words(found, "retained")
    assert "can't be told apart from C" in said and "A is behind by" in said


def test_other_numbers_give_another_sentence():
    one, other = (ranking_in_words(ranked(people(shifts)), "forgotten")
                  for shifts in ({"A": 0.0, "B": 0.5}, {"A": 0.5, "B": 0.0}))
    assert "B is first" in one and "A is first" in other and "told apart" not in one + other


@given(st.integers(0, 50))
def test_lower_is_better_turns_the_order_round_and_not_the_gap(seed):
    table = people({"A": 0.0, "B": 0.2, "C": 0.5}, seed=seed)
    up, down = ranked(table), ranked(table, "lower")
    assert up["contestant"].tolist() == down["contestant"].tolist()[::-1]
    assert (up["behind"] >= 0).all() and (down["behind"] >= 0).all()
    assert up["behind"].iloc[-1] == pytest.approx(down["behind"].iloc[-1])
    assert (up["low"] <= up["behind"]).all() and (up["behind"] <= up["high"]).all()


def test_rows_without_a_value_and_subjects_that_one_was_not_asked_about():
    rows = pd.DataFrame({"contestant": ["A", "A", "B"], "seed": 0, "subject": ["x", "x", "x"],
                         "es": [0.2, np.nan, 1.0]})
    assert per_subject(rows, "es")["value"].tolist() == [0.2, 1.0]
    with pytest.raises(UnlearnError, match="B was not asked about every subject"):
        paired_gap(people({"A": 0.0, "B": 0.1}).iloc[:-1], "A", "B")
    with pytest.raises(UnlearnError, match="'higher' or 'lower'"):
        ranked(people({"A": 0.0}), "up")
