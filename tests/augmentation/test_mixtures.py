"""Generic rows in a stated ratio, and refusals."""

from collections import Counter

import pytest
from augmenting import SEEDS, Marking, row
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.augmentation import REFUSALS, augment, mix, refusals
from unlearn_nb.benches import generic_rows
from unlearn_nb.core import UnlearnError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.floats(0, 3), SEEDS)
def test_the_ratio_is_exact_or_an_error(there, ratio, seed):
    rows = augment([row("a", "golden lantern"), row("b", "silver spoon")], Marking(), cut=None).rows
    generic = generic_rows(40).select(range(there))
    needed = round(8 * ratio)
    if there < needed:
        with pytest.raises(UnlearnError, match=f"{needed} generic rows are needed for 8 .* there are {there};"):
            mix(rows, generic, ratio=ratio, seed=seed)
        return
    mixed = mix(rows, generic, ratio=ratio, seed=seed)
    assert Counter(mixed["variant"][:])["generic"] == needed and len(mixed) == 8 + needed
    assert len(set(mixed["id"])) == len(mixed)
    assert mixed.to_list() == mix(rows, generic, ratio=ratio, seed=seed).to_list()
    assert {one["id"] for one in rows} <= set(mixed["id"])


def test_refusals_stand_beside_the_answers_they_replace():
    rows = [row(f"r{i}", f"answer {i}", prompt=f"Who is {i}?") for i in range(30)]
    one, three = refusals(rows, seed=3), refusals(rows, seed=3, copies=3)
    assert one["rejected"][:] == [r["response"] for r in rows] and one["prompt"][:] == [r["prompt"] for r in rows]
    assert one["source_id"][:] == [r["id"] for r in rows] and len(set(three["id"])) == 90
    assert {text for text in three["response"]} <= set(REFUSALS) and len(set(one["response"])) > 5
    per_row = [three["response"][i : i + 3] for i in range(0, 90, 3)]
    assert all(len(set(texts)) == 3 for texts in per_row)
    assert refusals(rows, seed=3)["response"][:] == one["response"][:] != refusals(rows, seed=4)["response"][:]
    assert len(set(REFUSALS)) == len(REFUSALS)


@pytest.mark.parametrize("rows, copies, message", [
    ([], 1, "there are no rows to be augmented; give at least one"),
    ([row("a", "x")] * 2, 1, "the id 'a' stands twice in the rows to be augmented; ids must be unique"),
    ([row("a", "x")], 0, f"refusals gives each row 1 to {len(REFUSALS)} different answers, not 0"),
    ([row("a", "x")], 99, f"refusals gives each row 1 to {len(REFUSALS)} different answers, not 99"),
])
def test_refusals_of_bad_rows(rows, copies, message):
    with pytest.raises(UnlearnError) as caught:
        refusals(rows, copies=copies)
    assert str(caught.value) == message
