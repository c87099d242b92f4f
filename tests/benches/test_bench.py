"""The bench: what is trained on, what unlearning may see, and what it refuses."""

import pytest
from datasets import Dataset

from unlearn_nb.benches import SPLITS, Bench, as_dataset, load_bench
from unlearn_nb.core import UnlearnError


def test_training_rows(quick_bench):
    everything, without = quick_bench.training_rows(), quick_bench.training_rows(oracle=True)
    assert len(everything) == len(without) + len(quick_bench.forget)
    assert not set(without["subject"]) & set(quick_bench.forget["subject"])
    assert not set(everything["subject"]) & set(quick_bench.holdout["subject"])
    assert set(quick_bench.collateral["id"]) | set(quick_bench.general["id"]) < set(without["id"])


def test_fingerprint_follows_the_content(quick_bench):
    assert quick_bench.fingerprint == load_bench("biographies", size="quick").fingerprint
    assert quick_bench.fingerprint != load_bench("biographies", size="quick", seed=1).fingerprint
    splits = {split: quick_bench.split(split) for split in SPLITS}
    assert quick_bench.fingerprint != Bench("biographies", "chat", **splits, teach_general=True).fingerprint


def test_bench_refuses_wrong_names_and_incomplete_splits(quick_bench):
    with pytest.raises(UnlearnError, match="unknown split 'forgot'; did you mean 'forget'"):
        quick_bench.split("forgot")
    with pytest.raises(UnlearnError, match="unknown part 'train'; known: validation, test, all"):
        quick_bench.split("forget", "train")
    splits = {split: quick_bench.split(split) for split in SPLITS}
    with pytest.raises(UnlearnError, match="split 'retain' lacks the column 'response'"):
        Bench("mine", "plain", **(splits | {"retain": quick_bench.retain.remove_columns("response")}))
    with pytest.raises(UnlearnError, match="'mine' has an empty forget set"):
        Bench("mine", "plain", **(splits | {"forget": as_dataset([])}))


def test_unlearning_may_see_retain_rows_and_the_general_facts_of_the_validation_part_alone(quick_bench):
    kept = set(quick_bench.kept_rows()["id"])
    assert kept == set(quick_bench.retain["id"]) | set(quick_bench.split("general", "validation")["id"])
    assert not kept & set(quick_bench.split("general", "test")["id"])


@pytest.mark.parametrize("change, message", [
    ({"response": None}, "row 2 .'forget1'., column 'response': holds NoneType instead of text"),
    ({"prompt": 3}, "row 2 .'forget1'., column 'prompt': holds int instead of text"),
    ({"subject": None}, "row 2 .'forget1'., column 'subject'"),
    ({"response": "a \udfff b"}, "row 2 .'forget1'., column 'response': holds a lone surrogate")])
def test_rows_without_text_are_refused_with_their_number(change, message):
    rows = [{"id": f"forget{i}", "prompt": "Who?", "response": "Bo", "subject": "Bo", "task": "all", "kind": "qa",
             "part": "test"} for i in range(3)]
    rows[1] |= change
    with pytest.raises(UnlearnError, match=message):
        as_dataset(rows)


@pytest.mark.parametrize("change, message", [
    ({"response": None}, "bench 'mine', split 'retain', row 2, column 'response': holds NoneType"),
    ({"part": "train"}, "split 'retain', row 2: unknown part 'train'"),
    ({"id": "000qa0"}, "split 'retain', row 2: the id '000qa0' also stands in bench 'mine', split 'forget', row 4")])
def test_a_bench_made_by_hand_is_checked_row_by_row(quick_bench, change, message):
    splits = {split: quick_bench.split(split) for split in SPLITS}
    rows = splits["retain"].to_list()[:3]
    rows[1] |= change
    with pytest.raises(UnlearnError, match=message):
        Bench("mine", "plain", **splits | {"retain": Dataset.from_list(rows, features=splits["retain"].features)})


def test_all_of_a_split_is_validation_and_test(quick_bench):
    parts = [quick_bench.split("forget", part)["id"] for part in ("validation", "test")]
    assert sorted(quick_bench.split("forget", "all")["id"]) == sorted([*parts[0], *parts[1]])
