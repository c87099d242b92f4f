"""Take out each handling of a fault, one at a time, and see that its tests fail: python tools/take_out.py [KIND ...]

tests/faults/handlings/KIND.yaml lists handlings: `what` it handles, the `file` below unlearn_nb/, its `code` (a piece
that stands there once), what to put `instead`, and the `tests` (arguments of pytest) of which one must fail then.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HANDLINGS = ROOT / "tests" / "faults" / "handlings"
MOST = 120  # seconds for the tests of one handling, which take some


def fails(handling: dict, copy: Path) -> bool:
    """Whether the tests fail, or never end, once the handling is gone."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "unlearn_nb", copy / "unlearn_nb", ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "unlearn_nb" / handling["file"]
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(handling["code"], handling["instead"]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(handling["tests"])]
    # the copy is found before the tree in which pytest runs
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=MOST)
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {handling['tests']}:\n{done.stdout[-2000:]}")
    return done.returncode == 1


def handlings(kind: str) -> list[dict]:
    return yaml.safe_load((HANDLINGS / f"{kind}.yaml").read_text(encoding="utf-8"))


def check(kinds: list[str]) -> None:
    """Refuses, before any test runs, pieces of code that don't stand in their file exactly once."""
    found = [
        f"{kind}.yaml, {each['what']}: {each['file']} holds this piece {times} times:\n{each['code']}"
        for kind in kinds
        for each in handlings(kind)
        if (times := (ROOT / "unlearn_nb" / each["file"]).read_text(encoding="utf-8").count(each["code"])) != 1
    ]
    if found:
        raise SystemExit("\n".join(found))


def main() -> None:
    everything = sorted(path.stem for path in HANDLINGS.glob("*.yaml"))
    check(everything)
    kinds = sys.argv[1:] or everything
    unnoticed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            for handling in handlings(kind):
                noticed = fails(handling, Path(folder) / "copy")
                count, unnoticed = count + 1, unnoticed + (not noticed)
                print("noticed  " if noticed else "UNNOTICED", kind, "-", handling["what"], flush=True)
    print(f"{count - unnoticed} of {count} handlings are missed when they are taken out")
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main()
