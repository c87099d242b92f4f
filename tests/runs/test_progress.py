"""How far a run is: stages, an end that comes true, plain lines, seconds over all starts."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from small_study import write_study

from unlearn_nb.runs import (
    Course,
    Event,
    RunFailed,
    Starts,
    course_of,
    course_so_far,
    first_uses,
    foresight,
    keep_course,
    known_courses,
    outlook,
    recorded_courses,
    run_study,
)


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
        bare, told = (told_wrong(recorded(now, steps=steps), recorded(then, steps=steps), 2 / 3)[1]
                      for steps in (False, True))
        assert bare > told + 0.15


def foreseen(name: str, share: float, courses: list[Course]) -> tuple[float, float, bool]:
    """As `told_wrong`, by the likeliest of these courses; and whether it is said to be a guess."""
    events, end = recorded(name)
    at = share * end
    look = foresight(courses, first_uses(event for event in events if event.at <= at), started=0, now=at)
    return abs(at + look.left - end) / end, abs(at + look.left - end) / (end - at), look.guess


@pytest.mark.parametrize("name, study, budget", [("first", "forget", "quick"), ("merging-seed-11", "merging", "smoke")])
def test_a_first_ever_run_is_foreseen_by_the_recorded_course_of_its_study(name, study, budget, tmp_path, monkeypatch):
    """Of another seed or other rows, under another load: a guess before a third, within three tenths from there on.

    The merging run is told from where its models were taught.
    """
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    courses = known_courses(study, {"budget": budget, "model": "not seen before"})
    assert courses == [course for course in recorded_courses(study) if course.budget == budget]
    assert foreseen(name, 0.1, courses)[2]
    for share in (1 / 3, 2 / 5):
        assert max(foreseen(name, share, courses)[:2]) < 0.3, share
    assert name != "first" or not foreseen(name, 1 / 2, courses)[2]


def test_a_run_after_a_stopped_one_is_foreseen_by_what_that_one_left(tmp_path, monkeypatch):
    """SmolLM2 on real rows: with the course of a small model only, a pace of scores stood for that of the training."""
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    small, params = recorded_courses("forget")[1], {"budget": "quick", "model": "smollm2"}
    assert small.what.startswith("a small chat model")
    assert foreseen("smollm2", 1 / 3, [small])[1] > 0.3 and foreseen("smollm2", 1 / 2, [small])[2], "and it says so"
    events, _ = recorded("smollm2-stopped")
    keep_course("forget", params, course_so_far(small.pieces, events, 0), whole=False)
    stopped = known_courses("forget", params)
    assert not stopped[0].whole and list(stopped[0].pieces)[:4] == [">probe", "probe", ">know-before", "know-before"]
    for share in (0.2, 1 / 3, 1 / 2):
        assert max(foreseen("smollm2", share, [stopped[0], small])[:2]) < 0.3, share
    keep_course("forget", params, small.pieces)
    keep_course("forget", params, {"end": 1.0}, whole=False)
    assert known_courses("forget", params)[0].pieces.keys() == small.pieces.keys(), "a whole one stays"


def test_stages_of_one_name_are_told_apart():
    """The eraser study scores fourteen answers under one name; the second is not the first once more."""
    events, end = played({"s0-teach": 50, "s0-more": 20})
    scores = [Event("s0-score", state, end + 10 * i + (state == "built") * 8, 8 * (state == "built"), key=str(i))
              for i in range(9) for state in ("begun", "built")]
    course = course_of(events + scores, 0, end + 95)
    assert sum(course.values()) == pytest.approx(end + 95) and "s#0-score#9" in course
    look = outlook(course, (events + scores)[:-8], started=0, now=end + 50)
    assert look.left == pytest.approx(45) and look.done == 7 and look.total == 11


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
loops = {"one": lambda: tqdm(range(5)), "two": lambda: counted(range(9), "wait", 9)}
for name in loops:
    run.stage(f"s{seed}-{name}", lambda folder: [time.sleep(0.4) for _ in loops[name]()], which=name, seed=seed)
run.finish({})"""
    study = write_study(tmp_path / "waits.ipynb", 'seed = 0\nbudget = "smoke"\nrun_dir = ""', work)
    said = []
    for seed in (1, 2):
        with redirect_stderr(io.StringIO()) as stderr:
            report = run_study(study, {"seed": seed}, out=tmp_path / "out")
        said.append(stderr.getvalue())
    assert "no earlier run of this study" in said[0], said[0]
    assert "of about 2 stages done, now s2-two (wait " in said[1]
    assert "no earlier run" not in said[1] and not any(sign in "".join(said) for sign in ("%|", "\r", "\x1b"))
    course = known_courses("waits", {"seed": 9, "budget": "smoke"})[0].pieces
    assert list(course) == [">s#0-one", "s#0-one", ">s#0-two", "s#0-two\twait 1", "s#0-two", "end"]
    assert course["s#0-one"] >= 2 and course["s#0-two\twait 1"] > course["s#0-two"]
    facts = json.loads((report.parent / "environment.json").read_text())
    assert facts["starts"] == 1 and facts["seconds_total"] == facts["seconds"] >= 4
    again = json.loads((run_study(study, {"seed": 2}, out=tmp_path / "out", progress=False).parent
                        / "environment.json").read_text())
    assert again["starts"] == 2 and again["seconds_total"] == pytest.approx(again["seconds"] + facts["seconds"], abs=2)


def test_a_run_that_fails_leaves_the_course_so_far(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))
    work = """from unlearn_nb.runs import Run
run = Run.open(run_dir)
for name in ("one", "two"):
    run.stage(name, lambda folder: (folder / "x").write_text(str(1 / (name != fails))), which=name, fails=fails)
run.finish({})"""
    study = write_study(tmp_path / "breaks.ipynb", 'fails = "two"\nbudget = "smoke"\nrun_dir = ""', work)
    whole = {">one": 1.0, "one": 3.0, ">two": 1.0, "two": 4.0, "end": 1.0}
    keep_course("breaks", {"budget": "smoke", "fails": "none"}, whole)
    with pytest.raises(RunFailed):
        run_study(study, {}, out=tmp_path / "out", progress=False)
    left = known_courses("breaks", {"budget": "smoke", "fails": "two"})[0]
    assert not left.whole and list(left.pieces) == [">one", "one", ">two", "two", "end"] and left.pieces["one"] < 3


def test_seconds_of_a_start_that_was_killed_count(tmp_path):
    killed = Starts(tmp_path)
    killed.seconds = 12.0
    killed.save()
    assert Starts(tmp_path).facts(3) == {"seconds": 3, "seconds_total": 15.0, "starts": 2}
    Path(tmp_path, "stages", ".starts.json").write_text("{")
    assert Starts(tmp_path).facts(3) == {"seconds": 3, "seconds_total": 3, "starts": 1}
