"""Problems: what is changed, what is judged, what chooses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import load_bench, load_recommendations
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import Case, TaskRows, chooser, erasing_cases, in_parts, make_problem, part_of, reading_cost
from unlearn_nb.influence import Request, changed_rows

BOOKS, PEOPLE = load_recommendations("smoke").only("next"), load_bench("biographies", size="smoke")
NEXT = TaskRows(BOOKS.train, BOOKS.validation, BOOKS.test, BOOKS.test)
FORGET = set(PEOPLE.forget["id"])
FACTS = TaskRows([row | {"forget": row["id"] in FORGET} for row in PEOPLE.training_rows()], [], [],
                 list(PEOPLE.split("holdout")))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["responses", "queries"]), st.sampled_from([NEXT, FACTS]), st.floats(0.03, 0.6),
       st.integers(0, 50))
def test_a_corruption_is_undone_by_its_request_and_told_on_rows_that_do_not_choose(change, rows, share, seed):
    problem = make_problem(Case("any", change, share), rows, judged=15, chosen=8, seed=seed)
    old, new = changed_rows(problem.rows, problem.goal)
    assert len(old) == len(new) == round(share * len(rows.train)) and changed_rows(problem.goal, rows.train) == ([], [])
    judged, chosen = ({row["id"] for row in part} for part in (problem.judged, problem.validation))
    assert not judged & chosen and len(problem.reported) <= 15
    clean = {row["id"]: row["response"] for row in [*rows.train, *rows.test]}
    assert all(row["response"] == clean[row["id"]] for row in problem.reported)
    assert {row["split"] for row in problem.judged} == ({"test", "changed", "kept"} if rows is NEXT
                                                        else {"changed", "kept"})
    touched = {row["id"] for row in new}
    assert all((row["id"] in touched) == (row["split"] == "changed") for row in problem.judged
               if row["split"] != "test")


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_a_removal_takes_whole_people_of_the_forget_set(share):
    problem = make_problem(Case("facts", "removal", share), FACTS, judged=100, chosen=100, seed=3)
    gone = set(problem.request.removed)
    people = {row["subject"] for row in FACTS.train if row["id"] in gone}
    assert gone == {row["id"] for row in FACTS.train if row["subject"] in people} <= FORGET
    assert len(people) == 1 or len(gone) <= share * len(FACTS.train)
    assert {row["id"] for row in problem.judged + problem.validation if row["split"] == "removed"} == gone
    assert not gone & {row["id"] for row in problem.goal}


@pytest.mark.parametrize("share, together", [(0.01, 1), (1 / 3, 1), (0.67, 2)])
def test_subjects_go_in_turn(share, together):
    """As many seeds as subjects that may go, and each has gone as often as the others."""
    train = [row | {"subject": "abcd"[i % 4], "forget": i % 4 < 3} for i, row in enumerate(FACTS.train[:80])]
    rows = TaskRows(train, [], [], FACTS.holdout, in_turn=True)
    subject, gone = {row["id"]: row["subject"] for row in train}, []
    for seed in range(3, 6):
        problem = make_problem(Case("facts", "removal", share), rows, judged=9, chosen=9, seed=seed)
        people = {subject[name] for name in problem.request.removed}
        assert len(problem.request.removed) == 20 * len(people) and len(people) == together
        gone += people
    assert sorted(gone) == sorted("abc" * together)  # "d" is not marked
    again = make_problem(Case("facts", "removal", share), rows, judged=9, chosen=9, seed=0)
    assert {subject[name] for name in again.request.removed} == set("abc"[:together])


def test_the_objective_of_a_removal_wants_strangers_and_no_harm(monkeypatch):
    problem = make_problem(Case("facts", "removal", 0.1), FACTS, judged=10, chosen=10)
    split = np.array([row["split"] for row in problem.validation])
    nll = {"start": {"removed": 0.1, "kept": 0.2, "holdout": 3.0},
           "right": {"removed": 3.0, "kept": 0.2, "holdout": 3.0},
           "wrecked": {"removed": 9.0, "kept": 9.0, "holdout": 9.0}}
    told = lambda model, *_, **__: np.array([nll[model][name] for name in split])
    monkeypatch.setattr(erasing_cases, "sequence_nll", told)
    objective = chooser(problem, "start", None)
    assert objective("right") == 0
    assert objective("start") == pytest.approx(2.9) and objective("wrecked") == pytest.approx(8.8)
    assert reading_cost(problem, 6) == 2 * len(problem.validation)


def test_the_objective_of_a_correction_counts_kept_rows_as_much_as_those_that_tell(monkeypatch):
    problem = make_problem(Case("next", "responses"), NEXT, judged=10, chosen=10)
    splits = [row["split"] for row in problem.validation]
    assert splits.count("test") == 7 and splits.count("kept") == 3
    told = {"test": 1.0, "kept": 5.0}
    monkeypatch.setattr(erasing_cases, "sequence_nll", lambda *_, **__: np.array([told[split] for split in splits]))
    assert chooser(problem, None, None)(None) == 3.0


@pytest.mark.parametrize("case, of", [(Case("facts", "responses", 0.2), "changed"),
                                      (Case("facts", "removal", 0.2), "removed")])
def test_rows_that_do_not_choose_are_reported(case, of):
    problem = make_problem(case, FACTS, judged=1000, chosen=60)
    counts = {split: [sum(row["split"] == split for row in part) for part in (problem.validation, problem.judged)]
              for split in (of, "kept")}
    assert len(problem.validation) == 60 and 0 < counts[of][0] <= sum(counts[of]) / 3 < counts[of][1]
    assert sum(map(sum, counts.values())) + sum(row["split"] == "holdout" for row in problem.judged + problem.validation
                                                ) == len(FACTS.train) + len(FACTS.holdout) * (of == "removed")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9))
def test_parts_add_up_to_the_request(count):
    request = Request(("a", "b"), {"c": "x", "d": "y"}, {"d": "z", "e": "w", "f": "v"})
    whole, parts = Request(), in_parts(request, count)
    for part in parts:
        whole = whole + part
    assert (set(whole.removed), whole.prompts, whole.responses) == ({"a", "b"}, request.prompts, request.responses)
    assert len(parts) == min(count, 6)


def test_a_part_of_a_problem_has_its_share():
    problem = make_problem(Case("next", "responses", 0.2), NEXT, judged=10, chosen=10)
    rows, request = part_of(problem, 30)
    assert len(rows) == 30 and len(changed_rows(rows, request.apply(rows))[0]) == 6


@pytest.mark.parametrize("attempt, part", [
    (lambda: Case("next", "titles"), "unknown change 'titles'"),
    (lambda: Case("next", "responses", 0.0), "share is 0.0: give the share of rows"),
    (lambda: make_problem(Case("next", "responses", 0.001), NEXT, judged=5, chosen=5), "is no row; raise the share"),
    (lambda: make_problem(Case("facts", "removal", 0.1), TaskRows(FACTS.train, [], [], FACTS.holdout[:1]), judged=5,
                          chosen=5),
     "leaves 1 holdout rows"),
])
def test_bad_input_is_told_in_one_sentence(attempt, part):
    with pytest.raises(UnlearnError) as error:
        attempt()
    assert part in str(error.value) and "\n" not in str(error.value)
