"""A folder with something in it, and processes that are killed while they write."""

import os
import signal
from pathlib import Path

MADE = {"model.safetensors": "0123456789" * 40, "part/scores.json": '{"accuracy": 0.25}',
        "part/rows.jsonl": "1\n2\n3\n"}


def fill(folder: Path) -> None:
    for name, text in MADE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "empty").mkdir()


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in MADE}


def killed_at(step: int, work) -> bool:
    """Do `work` in a process that kills itself after `step` calls that open, rename or flush; whether it did."""
    child = os.fork()
    if child == 0:
        left = iter(range(step))
        for name in ("fsync", "rename", "replace", "open"):
            def call(*arguments, do=getattr(os, name), **options):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*arguments, **options)
            setattr(os, name, call)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
