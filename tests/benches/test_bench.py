"""The bench: what is trained on, what unlearning may see, and what it refuses."""

import pytest

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
    with pytest.raises(UnlearnError, match="unknown part 'train'; known: validation, test"):
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
