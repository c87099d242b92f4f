"""A rerun that fails, is stopped or killed leaves the earlier result, and one that succeeds replaces all of it."""

import errno
import os
from pathlib import Path

import pytest
from small_study import write_study

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import RunFailed, begin_try, complete, found, list_runs, read_run, run_study, settle

PARTS = ("metrics.json", "params.yaml", "report.html", "figures/a.svg")


def fill(place: Path, text: str, *more: str) -> None:
    (place / "figures").mkdir()
    for name in (*PARTS, *more):
        (place / name).write_text(f'{{"made": "{text}"}}')


def made(folder: Path) -> set[str]:
    """Which result a reader finds: the texts of all parts."""
    return {found(folder, name.split("/")[0]).joinpath(*name.split("/")[1:]).read_text()[10:-2] for name in PARTS}


class Killed(BaseException):
    """The process ends here."""


def kill_after(monkeypatch, steps: int) -> None:
    """Let the process end before its step number `steps` that changes a name in a folder."""
    left = iter(range(steps))
    for name in ("rename", "replace", "unlink", "rmdir"):
        def step(*arguments, act=getattr(os, name), **options):
            if next(left, None) is None:
                raise Killed
            return act(*arguments, **options)
        monkeypatch.setattr(os, name, step)


@pytest.fixture
def rerun(tmp_path):
    """A folder with an old result, and a new one beside it that is ready but not yet complete."""
    fill(begin_try(tmp_path), "old", "old.csv")
    complete(tmp_path)
    settle(tmp_path)
    fill(begin_try(tmp_path), "new", "new.csv")
    return tmp_path


@pytest.mark.parametrize("steps", range(17))
def test_a_kill_while_results_change_leaves_the_old_or_the_new_one(rerun, steps):
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, steps)
        try:
            complete(rerun)
            settle(rerun)
        except Killed:
            pass
    seen = made(rerun)
    assert len(seen) == 1
    assert read_run(rerun).metrics == read_run(rerun).params == {"made": seen.copy().pop()}
    assert read_run(rerun).note == ("last try interrupted" if seen == {"old"} else "")
    settle(rerun)  # what the next execution does first
    assert made(rerun) == {text for text in seen} and {(rerun / name).read_text()[10:-2] for name in PARTS} == seen
    assert (rerun / "new.csv").exists() == (seen == {"new"}) != (rerun / "old.csv").exists()


def test_a_list_of_results_from_elsewhere_moves_and_removes_nothing_outside(rerun):
    (rerun.parent / "mine.txt").write_text("mine")
    (rerun / "stages").mkdir()
    (rerun / ".result.json").write_text('["../mine.txt", "stages", "/etc/passwd", ".lock", 3, {}]')
    complete(rerun)
    settle(rerun)
    assert (rerun.parent / "mine.txt").read_text() == "mine" and (rerun / "stages").is_dir() and made(rerun) == {"new"}


@pytest.mark.parametrize("damage", ["{", "7", "", "\udcff"])
def test_a_damaged_list_is_no_result(rerun, damage):
    (rerun / "last-try" / ".result.json").write_bytes(os.fsencode(damage))
    assert made(rerun) == {"old"}
    begin_try(rerun)
    assert made(rerun) == {"old"} and not list((rerun / "last-try").iterdir())


# --- whole runs: each test is one execution, of which the cells are `last`


LAST = """import json, os
from pathlib import Path
from unlearn_nb.runs import Run
run = Run.open(run_dir)
run.finish({"answer": 42})
Path("table.csv").write_text("late")"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder of reports with one finished run, called x."""
    folder = tmp_path_factory.mktemp("reruns")
    run_study(write_study(folder / "s.ipynb", 'run_dir = ""', LAST), out=folder / "out", run_name="x", progress=False)
    return folder / "out"


def standing(out: Path) -> dict[str, bytes]:
    folder = out / "s" / "x"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def again(out: Path) -> None:
    run_study(out.parent / "s.ipynb", out=out, run_name="x", progress=False)


def test_what_the_notebook_writes_beside_belongs_to_the_result(out):
    assert standing(out)["table.csv"] == b"late" and not (out / "s" / "x" / "last-try").exists()


@pytest.mark.parametrize("part", ["report_html", "describe_environment", "complete"])
def test_a_full_disk_at_any_step_of_a_rerun_leaves_the_result(out, part, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    if part != "describe_environment":  # no need to execute it
        monkeypatch.setattr("unlearn_nb.runs.kernel.run_notebook", finished_notebook)
    before = standing(out)
    monkeypatch.setattr(f"unlearn_nb.runs.execute.{part}", full)
    with pytest.raises(RunFailed, match="the disk is full: free some space.*; the report of the earlier run.*stands$"):
        again(out)
    assert standing(out) == before and list_runs(out)[0].state == "complete"
    assert list_runs(out)[0].note.startswith("last try failed: study 's' failed")


def finished_notebook(path, folder, values, *, progress, cell_timeout=None, shown=None):
    """As if all cells had been executed."""
    import nbformat

    from unlearn_nb.runs import Run

    Run.open(folder).finish({"answer": 43})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# S")], metadata={"papermill": {}})


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_rerun_that_is_stopped_leaves_the_result(out, stop, monkeypatch):
    def stopped(*arguments, **options):
        raise stop

    before = standing(out)
    monkeypatch.setattr("unlearn_nb.runs.kernel.run_notebook", stopped)
    with pytest.raises(type(stop)):
        again(out)
    assert standing(out) == before and list_runs(out)[0].note == "last try interrupted"


def test_a_rerun_that_succeeds_replaces_all_of_it(out, monkeypatch):
    monkeypatch.setattr("unlearn_nb.runs.kernel.run_notebook", finished_notebook)
    again(out)
    info = list_runs(out)[0]
    assert (info.state, info.note, info.metrics) == ("complete", "", {"answer": 43})
    assert "table.csv" not in standing(out) and not (out / "s" / "x" / "last-try").exists()


def test_an_older_kernel_cant_pass_its_result_off_as_this_ones(out, monkeypatch):
    """It opened its run before, so it writes the token of then."""
    def late(path, folder, values, *, progress, cell_timeout=None, shown=None):
        (folder / ".token").write_text("older")
        notebook = finished_notebook(path, folder, values, progress=progress)
        return notebook

    monkeypatch.setattr("unlearn_nb.runs.kernel.run_notebook", late)
    with pytest.raises(UnlearnError, match="without a result"):
        again(out)
