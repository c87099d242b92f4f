"""Loading: names, sizes, and benches of one's own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_files import fails

from unlearn_nb.benches import BENCHES, PARTS, Format, load_bench
from unlearn_nb.core import UnlearnError

QUICK = {"forget": 10, "retain": 24, "collateral": 6, "holdout": 40}


def test_biographies_splits_and_parts(quick_bench):
    for split, count in QUICK.items():
        assert len(set(quick_bench.split(split)["subject"])) == 3 * count
        frames = [quick_bench.split(split, part).to_pandas() for part in PARTS]
        assert sum(map(len, frames)) == len(quick_bench.split(split))
        assert not set(frames[0].subject) & set(frames[1].subject)
        for frame in frames:
            assert len(set(zip(frame.task, frame.kind))) == 6
            assert set(frame.groupby("task").subject.nunique()) == {QUICK[split] // 2}
    assert {len(quick_bench.split("general", part)) for part in PARTS} == {50}


@pytest.mark.parametrize("spec, parts", [
    ("biografies", ("unknown bench 'biografies'", "did you mean 'biographies'")),
    ("jsonl", ("jsonl needs a folder",)),
    ("biographies:here", ("biographies takes none",)),
    ("tofu:", ("no folder is named after the colon",)),
    ("biographies: ", ("no folder is named after the colon",)),
    ("lume:no/such/folder", ("no/such/folder is not a folder", "forget.jsonl"))])
def test_bad_spec(spec, parts):
    fails(spec, *parts)


@pytest.mark.parametrize("seed", [-1, 2.5, True, "0", None])
def test_bad_seed(seed):
    with pytest.raises(UnlearnError, match="the seed of a bench is .* whole number from 0"):
        load_bench("biographies", size="smoke", seed=seed)


def test_bad_size():
    fails("biographies", "unknown size 'quik'; did you mean 'quick'", size="quik")


def test_a_bench_of_ones_own_is_added_in_one_place(quick_bench):
    asked = []
    try:
        @BENCHES.register(name="mine")
        def mine(path, *, size, seed):
            asked.append((path, size, seed))
            return replace(quick_bench, name="mine")

        assert load_bench("mine").name == "mine" and load_bench("mine:~/here", size="smoke", seed=3).forget
        assert asked == [(None, "quick", 0), (Path.home() / "here", "smoke", 3)]
        fails("mime", "unknown bench 'mime'; did you mean 'mine'?")
    finally:
        BENCHES.unregister("mine")


def test_a_format_of_ones_own_is_a_bench(tmp_path):
    def letters(tables, seed):
        return {split: [row | {"id": f"{split}{i}", "subject": f"{split}{i}", "task": "letters", "kind": "qa"}
                        for i, row in enumerate(table.rows)] for split, table in tables.items()}

    form = Format(name="letters", template="chat", files={"forget": "f.json", "retain": "r.json"}, rows=letters,
                  columns={"prompt": "prompt", "response": "response"})
    for file, word in (("f.json", "a"), ("r.json", "b")):
        (tmp_path / file).write_text(json.dumps([{"prompt": f"{word} {i}?", "response": word} for i in range(9)]))
    try:
        BENCHES.register(form)
        bench = load_bench(f"letters:{tmp_path}", size="full")
        assert (bench.name, bench.template, len(bench.forget)) == ("letters", "chat", 9)
        fails("letters", "letters needs a folder (letters:PATH)")
    finally:
        BENCHES.unregister("letters")
