"""Dealing: whole subjects, evenly."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import deal_parts


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("AB")), min_size=1, max_size=40), st.integers(0, 99))
def test_parts_deal_whole_subjects_evenly(cells, seed):
    rows = [{"subject": f"{task}{subject}", "task": task, "kind": "qa"} for subject, task in cells]
    dealt = deal_parts({"forget": rows, "retain": rows[::2]}, seed)
    parts = {}
    for row in dealt["forget"] + dealt["retain"]:
        assert parts.setdefault(row["subject"], row["part"]) == row["part"]
    for task in "AB":
        counts = Counter(part for subject, part in parts.items() if subject[0] == task)
        assert 0 <= counts["test"] - counts["validation"] <= 1
