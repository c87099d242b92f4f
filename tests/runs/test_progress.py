"""How far a run is: stages, an end that comes true, plain lines, seconds over all starts."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from small_study import write_study

from unlearn_nb.runs import Event, Starts, course_of, outlook, read_course, run_study


def played(lengths: dict[str, float], gap: float = 2.0, *, before: float = 0.0) -> tuple[list[Event], float]:
    """The events of a run whose stages take so long (below 0: took, and are reused), and when it ends."""
    now, events = before, []
    for name, seconds in lengths.items():
        now += gap
        events += [Event(name, "begun", now)] if seconds > 0 else []
        now += max(seconds, 0)
        events.append(Event(name, "built" if seconds > 0 else "reused", now, abs(seconds)))
    return events, now + gap


STAGES = {"s0-teach": 60, "s0-train-a": 30, "s0-train-b": 30, "s0-score": 10, "s0-merge": 5, "s0-report": 8}


@pytest.mark.parametrize("pace", [0.3, 1, 4])
@pytest.mark.parametrize("reused", [0, 2])
def test_the_end_that_is_told_after_a_third_comes_true(pace, reused):
    events, end = played(STAGES)
    course = course_of(events, 0, end)
    names = list(STAGES)
    lengths = {name.replace("s0", "s4"): pace * (-seconds if i < reused else seconds) for i, (name, seconds) in
               enumerate(STAGES.items())}
    events, end = played(lengths, gap=2 * pace)
    there = [name.replace("s0", "s4") for name in names[:reused]]
    for share in (0.4, 0.6, 0.8):
        now = share * end
        look = outlook(course, [event for event in events if event.at <= now], started=0, now=now, there=there)
        told = now + look.left
        assert abs(told - end) < 0.3 * end and look.total == len(STAGES), (share, told, end)


RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))


def recorded(name: str, *, pace: float = 1.0, steps: bool = True) -> tuple[list[Event], float]:
    """A run of the study forget as it went on a busy machine, and how long it took; told with its steps, or without."""
    events = [Event(stage, state, pace * at, pace * seconds, *loop) for stage, state, at, seconds, *loop
              in RECORDED[name]["events"]]
    return [event for event in events if steps or event.state != "steps"], pace * RECORDED[name]["seconds"]


def told_wrong(now: tuple[list[Event], float], then: tuple[list[Event], float], share: float) -> tuple[float, float]:
    """By what share of it the whole time, and the time left, of the run `now` are told wrong, where `then` is known."""
    (events, end), at = now, share * now[1]
    look = outlook(course_of(then[0], 0, then[1]), [event for event in events if event.at <= at], started=0, now=at)
    return abs(at + look.left - end) / end, abs(at + look.left - end) / (end - at)


@pytest.mark.parametrize("pace", [0.7, 1, 2.5])
@pytest.mark.parametrize("now, then", [("first", "second"), ("second", "first")])
def test_the_end_of_recorded_runs_is_told_within_three_tenths_after_a_third(now, then, pace):
    """Of the whole time and of what is left, in another pace, too; without its steps a long stage tells nothing."""
    for share in (1 / 3, 1 / 2, 2 / 3):
        assert max(told_wrong(recorded(now, pace=pace), recorded(then), share)) < 0.3, share
    if pace == 1:
        assert told_wrong(recorded(now, steps=False), recorded(then, steps=False), 2 / 3)[1] > 0.3


def test_stages_that_the_course_does_not_know_do_no_harm():
    events, end = played(STAGES)
    other = [event for event in events if event.stage != "s0-train-b"] + [Event("s0-new", "begun", end)]
    look = outlook(course_of(events, 0, end), other, started=0, now=end)
    assert look.stage == "s0-new" and look.left >= 0 and look.total == len(STAGES) + 1


def test_a_run_leaves_its_course_and_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unlearn_nb.runs.progress.EVERY", 1)
    work = """import sys, time
from tqdm import tqdm
from unlearn_nb.core import counted
from unlearn_nb.runs import Run
run = Run.open(run_dir)
loops = {"one": lambda: tqdm(range(5)), "two": lambda: counted(range(5), "wait", 5)}
for name in loops:
    run.stage(f"s{seed}-{name}", lambda folder: [time.sleep(0.4) for _ in loops[name]()], which=name, seed=seed)
run.finish({})"""
    study = write_study(tmp_path / "waits.ipynb", 'seed = 0\nbudget = "smoke"\nrun_dir = ""', work)
    said = []
    for seed in (1, 2):
        with redirect_stderr(io.StringIO()) as stderr:
            report = run_study(study, {"seed": seed}, out=tmp_path / "out")
        said.append(stderr.getvalue())
    assert "no earlier run of this study" in said[0] and "of about 2 stages done, now s2-two (wait " in said[1]
    assert "no earlier run" not in said[1] and not any(sign in "".join(said) for sign in ("%|", "\r", "\x1b"))
    course = read_course("waits", {"seed": 9, "budget": "smoke"})
    assert list(course) == [">s#0-one", "s#0-one", ">s#0-two", "s#0-two\twait 1", "s#0-two", "end"]
    assert course["s#0-one"] >= 2 and course["s#0-two\twait 1"] > course["s#0-two"]
    facts = json.loads((report.parent / "environment.json").read_text())
    assert facts["starts"] == 1 and facts["seconds_total"] == facts["seconds"] >= 4
    again = json.loads((run_study(study, {"seed": 2}, out=tmp_path / "out", progress=False).parent
                        / "environment.json").read_text())
    assert again["starts"] == 2 and again["seconds_total"] == pytest.approx(again["seconds"] + facts["seconds"], abs=2)


def test_seconds_of_a_start_that_was_killed_count(tmp_path):
    killed = Starts(tmp_path)
    killed.seconds = 12.0
    killed.save()
    assert Starts(tmp_path).facts(3) == {"seconds": 3, "seconds_total": 15.0, "starts": 2}
    Path(tmp_path, "stages", ".starts.json").write_text("{")
    assert Starts(tmp_path).facts(3) == {"seconds": 3, "seconds_total": 3, "starts": 1}
