"""Small files of rows that the tests of benches share."""

import json
from pathlib import Path

import pytest

from unlearn_nb.benches import load_bench
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
