"""Runs: what is refused, what counts as a success, what survives a kill."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import PARAMETERS, write_study

from unlearn_nb.core import UnlearnError, checked_name
from unlearn_nb.runs import (
    Parameter,
    Run,
    RunFailed,
    check_parameters,
    default_run_name,
    find_studies,
    find_study,
    list_runs,
    run_study,
    study_parameters,
    take_lock,
    write_index,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "small.ipynb")


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory) -> Path:
    """The folder of a run that succeeded."""
    return run_study(study, {"seed": 1}, out=tmp_path_factory.mktemp("reports"), run_name="good", progress=False).parent


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- parameters


@pytest.mark.parametrize("given_value, passed", [("3", 3.0), ("1e-4", 1e-4), (2, 2.0), (0.5, 0.5)])
def test_a_float_parameter_takes_numbers(study, given_value, passed):
    value = check_parameters(study, {"lr": given_value})["lr"]
    assert value == passed and type(value) is float


def test_text_parameters_are_not_read_as_yaml(study):
    assert check_parameters(study, {"fault": "1.5", "model": "true"}) == {"fault": "1.5", "model": "true"}


@pytest.mark.parametrize("wrong, part", [
    ({"sed": 1}, "did you mean 'seed'"), ({"seed": "1.5"}, "whole number"), ({"seed": True}, "whole number"),
    ({"seed": "[1"}, "whole number"),
    ({"lr": "fast"}, "a number"), ({"lr": float("inf")}, "a number"), ({"lr": True}, "a number"),
    ({"fault": 3}, "text"), ({"budget": "quik"}, "did you mean 'quick'"), ({"device": "gpu"}, "cpu, mps, cuda"),
    ({"run_dir": "/tmp/x"}, "--out"), ({"bench": "lume:no/such/folder"}, "does not exist"),
])
def test_wrong_parameters_are_refused_before_anything_runs(study, tmp_path, wrong, part):
    with pytest.raises(UnlearnError, match=part) as caught:
        run_study(study, wrong, out=tmp_path / "reports")
    assert "\n" not in str(caught.value) and not (tmp_path / "reports").exists()


@pytest.mark.parametrize("cell, part", [
    ("seed = 1 + seed", "literal"), ("seed = 0", "no run_dir"), ("import os\nrun_dir = ''", "literal"),
])
def test_parameters_cells_that_cant_be_read(tmp_path, cell, part):
    with pytest.raises(UnlearnError, match=part):
        study_parameters(write_study(tmp_path / "bad.ipynb", cell))


@pytest.mark.parametrize("count", [0, 2])
def test_a_study_has_exactly_one_parameters_cell(tmp_path, count):
    path = write_study(tmp_path / "bad.ipynb", PARAMETERS, PARAMETERS)
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells[1:]:
        cell.metadata["tags"] = ["parameters"] if count else []
    nbformat.write(notebook, path)
    with pytest.raises(UnlearnError, match=f"has {count} cells tagged"):
        run_study(path, out=tmp_path / "reports")


def test_things_that_are_no_study(tmp_path):
    (tmp_path / "text.ipynb").write_text("no notebook")
    for study, part in [(tmp_path / "text.ipynb", "read as a notebook"), ("mergin", "unknown study"),
                        ("gone.ipynb", "does not exist")]:
        with pytest.raises(UnlearnError, match=part):
            study_parameters(find_study(study))


def test_studies_are_found_in_further_folders(study, monkeypatch):
    assert find_studies([study.parent])["small"] == study.resolve()
    monkeypatch.setenv("UNLEARN_NB_STUDIES", str(study.parent))
    assert find_study("small") == study.resolve()


def test_paths_are_meant_from_the_callers_folder(study, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "caller").mkdir()
    monkeypatch.chdir(tmp_path / "caller")
    values = check_parameters(study, {"bench": "lume:../data", "model": "../data"})
    assert values == {"bench": f"lume:{(tmp_path / 'data').resolve()}", "model": str((tmp_path / "data").resolve())}
    assert check_parameters(study, {"bench": "tofu", "model": "org/model"}) == {"bench": "tofu", "model": "org/model"}


@settings(deadline=None)
@given(model=st.text(), bench=st.text(), knob=st.text(), seed=st.integers())
def test_a_default_run_name_never_leaves_its_folder(model, bench, knob, seed):
    parameters = {name: Parameter("", str, "") for name in ("model", "bench", "knob")} | {"seed": Parameter(0, int, "")}
    name = default_run_name(parameters, {"model": model, "bench": bench, "knob": knob, "seed": seed})
    assert checked_name(name) == name and "/" not in name and not name.startswith(".")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", ".hidden", "/abs", "a b", "x" * 200])
def test_names_that_could_leave_the_reports_folder_are_refused(study, tmp_path, name):
    with pytest.raises(UnlearnError, match="can't be used"):
        run_study(study, out=tmp_path / "reports", run_name=name)
    assert not (tmp_path / "reports").exists()


# --- a run that succeeds


def test_a_finished_run_is_complete(finished):
    assert names(finished) == {".lock", "calls.txt", "environment.json", "metrics.json", "notebook.ipynb",
                               "params.yaml", "report.html", "stages"}
    assert json.loads((finished / "metrics.json").read_text())["headline"] == {"answer": 43}
    assert yaml.safe_load((finished / "params.yaml").read_text())["seed"] == 1
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["seed"] == 1 and environment["packages"]["torch"] and environment["peak_memory_mib"] > 20
    assert [run.state for run in list_runs(finished.parent.parent)] == ["complete"]


def test_the_report_hides_code_and_asks_the_network_for_nothing(finished):
    page = (finished / "report.html").read_text()
    assert '<table id="parameters">' in page and "<th>seed</th><td>1</td>" in page
    assert "Run.open" not in page and re.search(r'<a download[^>]* href="notebook.ipynb"', page)
    assert "<script" not in page and not re.findall(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', page)
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", page)


def test_the_notebook_tells_no_path_of_its_run(finished):
    text = (finished / "notebook.ipynb").read_text()
    assert str(finished) not in text and str(finished.parent.parent) not in text
    assert nbformat.read(finished / "notebook.ipynb", 4).metadata.papermill.parameters.run_dir == "."


def test_same_seed_same_metrics(study, finished, tmp_path):
    again = run_study(study, {"seed": "1"}, out=tmp_path, progress=False).parent
    assert again.name == "tiny-biographies-smoke-s1"
    assert (again / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_the_kernel_is_this_interpreter_whatever_is_registered(tmp_path, monkeypatch):
    """A registered ``python3`` kernel of another environment must not be taken."""
    spec = {"argv": ["/bin/false"], "display_name": "elsewhere", "language": "python"}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    last = "import sys\nfrom unlearn_nb.runs import Run\nRun.open(run_dir).finish({'python': sys.executable})"
    study = write_study(tmp_path / "odd {name}.ipynb", 'run_dir = ""', last)
    report = run_study(study, out=tmp_path / "reports", progress=False)
    assert json.loads((report.parent / "metrics.json").read_text())["python"] == sys.executable


# --- faults


@pytest.mark.parametrize("fault, sentence", [
    ("exit", "ended at code cell 3 without a result"), ("exit late", "ended at code cell 4"),
    ("no result", "without a result"), ("kill", "kernel died in code cell 3"),
    ("raise", "code cell 3: ZeroDivisionError"), ("raise late", "code cell 4: ZeroDivisionError"),
    ("refuse", r"^the forget set is empty; give rows$"),
])
def test_a_fault_leaves_nothing_that_looks_complete(study, finished, fault, sentence):
    """The run's folder held a success before; only its stages may stay."""
    folder = finished.parent / "faulty"
    if not folder.exists():
        run_study(study, out=finished.parent.parent, run_name="faulty", progress=False)
        assert {"metrics.json", "report.html"} <= names(folder)
    with pytest.raises(RunFailed, match=sentence) as caught:
        run_study(study, {"fault": fault}, out=finished.parent.parent, run_name="faulty", progress=False)
    assert "\n" not in str(caught.value)
    assert not names(folder) & {"metrics.json", "report.html", ".finished.json"}
    assert str(caught.value).split(":")[-1].strip() in (folder / "error.txt").read_text()
    assert nbformat.read(folder / "notebook.ipynb", 4).cells
    assert (folder / "calls.txt").read_text() == "first\nsecond\n", "finished stages are not built again"
    assert {run.name: run.state for run in list_runs(finished.parent.parent)}["faulty"] == "failed"


def test_a_killed_runner_goes_on_after_its_last_finished_stage(study, tmp_path):
    program = [sys.executable, "-c", "from unlearn_nb.cli import main; main()"]
    command = [*program, "run", str(study), "-p", "fault", "hang", "--name", "x"]
    folder = tmp_path / "reports" / "small" / "x"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
        deadline = time.monotonic() + 60
        while not (folder / "hung").exists():
            assert time.monotonic() < deadline and runner.poll() is None
            time.sleep(0.05)
        busy = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert busy.returncode and "being executed by another process" in busy.stderr
        assert list_runs(tmp_path / "reports")[0].state == "running"
        runner.send_signal(signal.SIGKILL)
    assert list((folder / "stages").glob(".second-*.tmp")) and not (folder / "metrics.json").exists()
    assert list_runs(tmp_path / "reports")[0].state == "interrupted"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "reports/small/x/report.html", done.stderr
    assert (folder / "calls.txt").read_text() == "first\nsecond\nsecond\n"
    assert not list((folder / "stages").glob("*.tmp"))


def test_two_processes_cant_hold_one_lock(tmp_path):
    first = take_lock(tmp_path / "lock")
    assert first is not None and take_lock(tmp_path / "lock") is None
    first.release()
    second = take_lock(tmp_path / "lock")
    assert second is not None
    second.release()


# --- stages


@dataclass(frozen=True)
class Settings:
    lr: float
    steps: tuple


class Rows:
    def __init__(self, fingerprint: str):
        self.fingerprint = fingerprint


def value(folder: Path) -> None:
    (folder / "value.txt").write_text("1")


def test_a_stage_is_keyed_by_what_goes_in(tmp_path):
    run = Run.open(tmp_path)
    (tmp_path / "file.txt").write_text("a")
    variants = [{}, {"lr": 1.0}, {"lr": 2.0}, {"rate": 1.0}, {"s": Settings(1.0, (1,))}, {"s": Settings(1.0, (2,))},
                {"rows": Rows("a")}, {"rows": Rows("b")}, {"file": tmp_path / "file.txt"},
                {"nested": {"a": [1, {"b": None}]}}, {"nested": {"a": [1, {"b": 0}]}}]
    folders = [run.stage("s", value, **inputs) for inputs in variants]
    assert len(set(folders)) == len(variants)
    assert folders == [run.stage("s", value, **inputs) for inputs in variants]
    (tmp_path / "file.txt").write_text("b")
    assert run.stage("s", value, file=tmp_path / "file.txt") not in folders


def test_a_stage_is_built_anew_when_its_code_changes(tmp_path):
    run = Run.open(tmp_path)
    builds = [lambda folder: (folder / "a").touch(), lambda folder: (folder / "b").touch(),
              lambda folder: [(folder / "a").touch() for _ in "x"]]
    assert len({run.stage("s", build) for build in builds}) == 3


def test_a_stage_that_takes_another_follows_it(tmp_path):
    run = Run.open(tmp_path)
    after = {run.stage("after", value, before=run.stage("before", value, seed=seed)) for seed in (0, 1, 0)}
    assert len(after) == 2


@pytest.mark.parametrize("wrong, part", [
    ({"x": object()}, "'x' has the type object"), ({"x": Path("no/such")}, "does not exist"),
])
def test_inputs_that_cant_be_hashed(tmp_path, wrong, part):
    with pytest.raises(UnlearnError, match=part):
        Run.open(tmp_path).stage("s", value, **wrong)


def test_a_dot_in_a_stages_name_keeps_stages_apart(tmp_path):
    run = Run.open(tmp_path)
    assert len({run.stage("lr=0.1", value), run.stage("lr=0.2", value)}) == 2


def test_a_figure_is_saved_twice_and_closed(tmp_path):
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    Run.open(tmp_path).figure(figure, "line")
    assert (tmp_path / "figures" / "line.png").read_bytes().startswith(b"\x89PNG")
    assert names(tmp_path / "figures") == {"line.png", "line.svg"} and not plt.fignum_exists(figure.number)
    with pytest.raises(UnlearnError):
        Run.open(tmp_path).figure(figure, "../line")


def test_the_index_escapes_and_lists_every_state(tmp_path):
    done = {"report.html": "", "metrics.json": '{"<b>x": 1.5}'}
    for name, files in {"done": done, "bad": {"error.txt": "boom"}, "cut": {}}.items():
        (tmp_path / "s" / name).mkdir(parents=True)
        for file, text in {"params.yaml": "seed: 0\n", **files}.items():
            (tmp_path / "s" / name / file).write_text(text)
    page = write_index(tmp_path).read_text()
    assert "&lt;b&gt;x 1.5" in page and "<b>" not in page
    assert all(f"<td>{state}</td>" in page for state in ("complete", "failed", "interrupted"))
    assert 'href="s/done/report.html"' in page and 'href="s/bad/error.txt"' in page
