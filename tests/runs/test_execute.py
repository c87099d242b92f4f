"""Runs: what is refused, what counts as a success, what survives a kill."""

import asyncio
import base64
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbclient.exceptions import DeadKernelError
from small_study import write_study

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import ModelFiles, RunFailed, list_runs, run_study
from unlearn_nb.runs.kernel import _Client


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", ".hidden", "/abs", "a b", "x" * 200])
def test_names_that_could_leave_the_reports_folder_are_refused(study, tmp_path, name):
    with pytest.raises(UnlearnError, match="can't be used"):
        run_study(study, out=tmp_path / "reports", run_name=name)
    assert not (tmp_path / "reports").exists()


# --- a run that succeeds


def test_a_finished_run_is_complete(finished):
    assert names(finished) == {".lock", ".result.json", "calls.txt", "environment.json", "metrics.json",
                               "notebook.ipynb", "params.yaml", "report.html", "stages"}
    assert json.loads((finished / "metrics.json").read_text())["headline"] == {"answer": 43}
    assert yaml.safe_load((finished / "params.yaml").read_text())["seed"] == 1
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["seed"] == 1 and environment["packages"]["torch"] and environment["peak_memory_mib"] > 20
    assert [run.state for run in list_runs(finished.parent.parent)] == ["complete"]


def test_the_report_hides_code_and_asks_the_network_for_nothing(finished):
    text = (finished / "report.html").read_text()
    page = BeautifulSoup(text, "html.parser")
    rows = [[cell.get_text() for cell in row(["th", "td"])] for row in page.select("#parameters tr")]
    assert ["seed", "1"] in rows, "where nothing stands for something else, there is no third column"
    assert "Run.open" in page.select_one("details#code").extract().get_text() and "Run.open" not in page.get_text()
    assert len(page("script")) == 1 and not re.findall(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', text)
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", text)


def test_the_code_goes_along_with_a_copy_of_the_report(finished):
    page = BeautifulSoup((finished / "report.html").read_text(), "html.parser")
    link = page.find("a", download="notebook.ipynb")["href"]
    notebook = nbformat.reads(base64.b64decode(link.partition("base64,")[2]).decode(), 4)
    assert any("Run.open" in cell.source for cell in notebook.cells)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]


def test_the_notebook_tells_no_path_of_its_run(finished):
    text = (finished / "notebook.ipynb").read_text()
    assert str(finished) not in text and str(finished.parent.parent) not in text
    assert nbformat.read(finished / "notebook.ipynb", 4).metadata.papermill.parameters.run_dir == "."


READING = """from pathlib import Path
from unlearn_nb.runs import Run
run = Run.open(run_dir)
weights = run.stage("read", lambda folder: (folder / "x").write_bytes((Path(model) / "w").read_bytes()),
                    model=Path(model)) / "x"
run.finish({"weights": weights.read_text(), "text": text})"""


@pytest.fixture
def reading(tmp_path):
    return write_study(tmp_path / "reading.ipynb", 'model = "tiny"\ntext = ""\nrun_dir = ""', READING)


def metrics(report):
    return json.loads((report.parent / "metrics.json").read_text())


def test_models_of_one_name_have_runs_of_their_own_and_an_edited_one_is_read_anew(reading, tmp_path, monkeypatch):
    monkeypatch.setattr("unlearn_nb.runs.preflight.find_model", lambda *given, **how: ModelFiles(0))  # no models
    reports = []
    for place, weights in (("a/m", "1"), ("b/m", "2"), ("a/m", "3")):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "w").write_text(weights)
        reports.append(run_study(reading, {"model": str(tmp_path / place)}, out=tmp_path / "out", progress=False))
        assert metrics(reports[-1])["weights"] == weights
    assert reports[0] == reports[2] != reports[1] and metrics(reports[1])["weights"] == "2"


def test_notebooks_of_one_name_have_folders_of_their_own(tmp_path):
    found = []
    for place in ("a", "b", "a"):
        cell = f"from unlearn_nb.runs import Run\nRun.open(run_dir).finish({{'place': {place!r}}})"
        own = write_study(tmp_path / place / "own.ipynb", 'run_dir = ""', cell)
        found.append(run_study(own, out=tmp_path / "out", progress=False))
        assert metrics(found[-1]) == {"place": place}
    assert found[0] == found[2] != found[1] and found[0].parent.parent.name == "own"


def test_a_folder_that_cannot_be_written_is_one_sentence(reading, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnlearnError, match="can't be written .*--out") as caught:
        run_study(reading, out=tmp_path / "file" / "reports", progress=False)
    assert "\n" not in str(caught.value)


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


FAULTS = [
    ("exit", "ended at code cell 3 without a result"), ("exit late", "ended at code cell 4"),
    ("no result", "without a result"), ("kill", "kernel died in code cell 3"),
    ("raise", "code cell 3: ZeroDivisionError"), ("raise late", "code cell 4: ZeroDivisionError"),
    ("refuse", r"^the forget set is empty; give rows(; the report of .* stands)?$"),
]


@pytest.mark.parametrize("fault, sentence", FAULTS)
def test_a_fault_leaves_nothing_that_looks_complete(study, finished, fault, sentence):
    folder = finished.parent / "faulty"
    with pytest.raises(RunFailed, match=sentence) as caught:
        run_study(study, {"fault": fault}, out=finished.parent.parent, run_name="faulty", progress=False)
    assert "\n" not in str(caught.value) and "stands" not in str(caught.value) and caught.value.folder == folder
    assert not names(folder) & {"metrics.json", "report.html", ".finished.json", "last-try"}
    assert str(caught.value).split(":")[-1].strip() in (folder / "error.txt").read_text()
    assert nbformat.read(folder / "notebook.ipynb", 4).cells
    assert (folder / "calls.txt").read_text() == "first\nsecond\n", "finished stages are not built again"
    assert {run.name: run.state for run in list_runs(finished.parent.parent)}["faulty"] == "failed"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a result; what an execution in the folder leaves besides is left out."""
    outside = {folder / "stages", folder / "last-try", folder / ".lock"}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and not outside & {path, *path.parents}}


@pytest.mark.parametrize("fault, sentence", [fault for fault in FAULTS if fault[0] in ("exit late", "kill", "refuse")])
def test_a_fault_leaves_an_earlier_result_as_it_was(study, finished, fault, sentence):
    folder = finished.parent / "kept"
    if not folder.exists():
        run_study(study, out=finished.parent.parent, run_name="kept", progress=False)
    before = contents(folder)
    assert {"metrics.json", "report.html", "params.yaml"} <= before.keys()
    with pytest.raises(RunFailed, match=sentence) as caught:
        run_study(study, {"fault": fault}, out=finished.parent.parent, run_name="kept", progress=False)
    assert contents(folder) == before
    assert str(caught.value).endswith("stands") and caught.value.folder == folder / "last-try"
    failed = names(folder / "last-try")
    assert {"error.txt", "notebook.ipynb", "params.yaml", "environment.json"} <= failed
    assert not failed & {"metrics.json", "report.html", ".finished.json", ".token"}
    info = {run.name: run for run in list_runs(finished.parent.parent)}["kept"]
    assert (info.state, info.shown, info.params["fault"]) == ("complete", "report.html", "")
    assert info.note.startswith("last try failed: ")


def test_a_killed_runner_goes_on_after_its_last_finished_stage(study, tmp_path):
    program = [sys.executable, "-c", "from unlearn_nb.cli import main; main()"]
    command = [*program, "run", str(study), "-p", "fault", "hang", "--name", "x"]
    folder = tmp_path / "reports" / "small" / "x"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
        deadline = time.monotonic() + 600
        while not (folder / "hung").exists():
            assert time.monotonic() < deadline and runner.poll() is None
            time.sleep(0.05)
        busy = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert busy.returncode and "being executed by another process" in busy.stderr
        assert list_runs(tmp_path / "reports")[0].state == "running"
        runner.send_signal(signal.SIGKILL)
    assert list((folder / "stages").glob(".second-*.tmp")) and not list(folder.rglob("metrics.json"))
    assert list_runs(tmp_path / "reports")[0].state == "interrupted"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "reports/small/x/report.html", done.stderr
    assert (folder / "calls.txt").read_text() == "first\nsecond\nsecond\n"
    assert not list((folder / "stages").glob("*.tmp")) and not (folder / "last-try").exists()


@pytest.mark.parametrize("out", ["a\0b", "\ud800", 5, None, "x" * 5000, "loop/reports"],
                         ids=["null", "surrogate", "number", "none", "long", "loop"])
def test_a_folder_of_reports_that_can_be_none(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UnlearnError, match="^the folder of reports .*choose another one with --out"):
        run_study(write_study(tmp_path / "small.ipynb"), out=out)


def test_a_dead_kernel_is_told_by_the_run_alone(caplog):
    """An interrupt ends the kernel while the client still waits for a cell: nbclient would say so on stderr."""
    async def is_alive():
        return False

    for kc in (None, SimpleNamespace(is_alive=is_alive)):
        with pytest.raises(DeadKernelError):
            asyncio.run(_Client._async_check_alive(SimpleNamespace(kc=kc)))
    assert "Kernel died" not in caplog.text
