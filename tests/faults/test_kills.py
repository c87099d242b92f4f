"""kill -9 at random moments of a study: the next run ends with an undisturbed run's numbers, and nothing is left over.

`make test` kills each study twice, in a run that has all stages but two; `make faults` does it twenty times, in one
chain of runs that begins with nothing.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from killing import WHO, Victim, finished_stages, moments, timeline

from unlearn_nb.runs import list_runs

KILLS = int(os.environ.get("UNLEARN_NB_KILLS", "0"))  # so many in a run from its beginning
# otherwise these of twenty; the two studies that take longest are killed once
FEW = {"merging": (10, 19), "relearn": (8,), "localization": (10, 19), "eraser": (8,), "forget": (12, 19)}


@pytest.fixture
def place():
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as folder:
        yield Path(folder)


def models_of(place: Path) -> Path:
    """A cache of this run's own, with the small models that are trained once."""
    for folder in Path(os.environ["UNLEARN_NB_CACHE"]).glob("tiny-*"):
        shutil.copytree(folder, place / "cache" / folder.name)
    return place / "cache"


def steady(value):
    """Metrics without what no two runs have in common: seconds and memory."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if not re.search("second|memory", key)}
    return [steady(item) for item in value] if isinstance(value, list) else value


def metrics(run: Path):
    return steady(json.loads((run / "metrics.json").read_text()))


def names(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*")}


def begin(victim: Victim, finished: Path, gone: set[str]) -> None:
    """Give a run all stages of a finished one but those that are `gone`."""
    shutil.copytree(finished / "stages", victim.folder / "stages", ignore=lambda _, found: gone & set(found))


@pytest.mark.parametrize("study", FEW)
def test_a_run_killed_at_random_moments_ends_with_the_same_numbers(study, undisturbed, arguments_of, place):
    finished = undisturbed(study)
    victim, (stages, end) = Victim(study, place, models_of(place), arguments_of(study, [])), timeline(finished)
    cached, due = names(place / "cache"), moments(study, KILLS or 20, end)
    if not KILLS:
        due = [due[number] for number in FEW[study]]
        hit = [next((stage for stage in stages if moment < stage.ended), stages[-1]) for moment in due]
        begin(victim, finished, {stage.folder for stage in hit})

    built = finished_stages(victim.folder)
    for number, moment in enumerate(due):
        who = WHO[number % len(WHO)]
        tries = (victim.kill_at(moment, stages, who, hurry) for hurry in (1, 0.5, 0.25, 0.1))
        where = next(filter(None, tries), "")
        print(f"{study}: kill {number + 1}, of {who}, {moment / end:.0%} of the way: {where}", flush=True)
        assert where, "each try came after the run's end"
        for seen in list_runs(victim.out):  # none, if not even the folder was made
            assert seen.state in ("interrupted", "failed") or metrics(victim.folder) == metrics(finished), seen.state
        now = finished_stages(victim.folder)
        assert {name: now.get(name) for name in built} == built, "finished stages are not built again"
        built = now

    with victim.start() as program:
        program.wait()
    assert program.returncode == 0, victim.said()
    assert metrics(victim.folder) == metrics(finished)
    now = finished_stages(victim.folder)
    assert {name: now.get(name) for name in built} == built, "finished stages are not built again"
    assert names(victim.folder) == names(finished), "a killed run's folder holds what an undisturbed one's does"
    kept = {name for name in names(place / "cache") if not name.startswith("courses")}  # how long its stages took
    assert victim.leftovers() == [] and kept == cached
