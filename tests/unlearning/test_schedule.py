"""Which rows come together."""

from unlearn_nb.unlearning import make_schedule


def test_rejected_rows_go_with_their_pairs_and_retain_rows_do_not():
    schedule = make_schedule({"augmented": 5, "rejected": 5, "retain": 7}, 10, retain_per_forget=1.5, seed=3)
    assert all(item["augmented"] == item["rejected"] for item in schedule)
    assert sum(len(item["retain"]) for item in schedule) == 15
