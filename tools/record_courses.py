"""Writes the courses of a study's last whole runs, one a budget, into the package.

`python tools/record_courses.py STUDY WHAT`

WHAT says what was run ("tiny on biographies"); the record of the same budget and the same WHAT is replaced. A first
run on another machine is told by these courses, so this one should do nothing else meanwhile.
"""

import json
import sys
from pathlib import Path

from unlearn_nb.core import cache_dir, to_json

RECORDED = Path(__file__).parent.parent / "unlearn_nb" / "runs" / "recorded"


def record(study: str, what: str) -> None:
    """Add the newest whole course of each budget in the cache to those of the package."""
    file = RECORDED / f"{study}.json"
    kept = json.loads((cache_dir() / "courses" / f"{study}.json").read_text(encoding="utf-8"))
    new = {course["budget"]: course | {"key": "", "what": what} for course in kept if course["whole"]}
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    others = [course for course in known if course["budget"] not in new or course["what"] != what]
    file.parent.mkdir(exist_ok=True)
    file.write_text(to_json([*others, *new.values()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(*sys.argv[1:])
