"""Small files of rows that the tests of benches share."""

import json
from pathlib import Path

import pytest

from unlearn_nb.benches import SPLITS, Bench, load_bench
from unlearn_nb.core import UnlearnError


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def fails(spec: str, *parts: str, size: str = "quick") -> None:
    """The bench can't be loaded, for a reason told in one line that holds all `parts`."""
    with pytest.raises(UnlearnError) as caught:
        load_bench(spec, size=size)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, (part, message)


def check_apart(bench: Bench) -> None:
    """Non-members were trained on by nobody; collateral stands in neither forget nor retain; parts are whole."""
    trained = bench.training_rows()
    assert not set(bench.holdout["subject"]) & set(trained["subject"])
    assert not set(bench.collateral["subject"]) & (set(bench.forget["subject"]) | set(bench.retain["subject"]))
    parts = {}
    for row in (row for split in SPLITS for row in bench.split(split)):
        assert parts.setdefault(row["subject"], row["part"]) == row["part"]
