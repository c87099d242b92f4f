"""Sweeps on one machine: a sweep that is killed, and a search that learns."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from small_study import write_study

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import Outcome, make_sweep, on_ray, read_grid, read_run

PARAMETERS = 'seed = 0\nlr = 0.1\nrun_dir = ""'
WORK = """import time
from pathlib import Path
from unlearn_nb.runs import Run
run = Run.open(run_dir)
while Path(WAIT).exists(): time.sleep(0.05)
run.finish({"headline": {"answer": 42 + seed}})"""
PROGRAM = """import sys
from unlearn_nb.cli import main
main(["sweep", "grid.yaml", "--jobs", "1"])"""


def test_a_killed_sweep_ends_its_run_and_the_next_one_makes_it(tmp_path):
    wait = tmp_path / "wait"
    wait.touch()
    write_study(tmp_path / "small.ipynb", PARAMETERS, WORK.replace("WAIT", repr(str(wait))))
    (tmp_path / "grid.yaml").write_text("study: small.ipynb\nvary: {seed: [3]}\n")
    place = tmp_path / "reports" / "small" / "s3"
    first = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path)
    while not (place / "last-try" / "notebook.ipynb").is_file():
        assert first.poll() is None
        time.sleep(0.05)
    below = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive, "the run ends with its sweep"
    wait.unlink()
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_run(place).numbers == {"headline.answer": 45} and "complete: s3" in done.stderr


@pytest.fixture
def grid(tmp_path):
    """A grid whose runs are made by `made`, in no time."""
    write_study(tmp_path / "small.ipynb", PARAMETERS, WORK)
    (tmp_path / "g.yaml").write_text(f"study: {tmp_path / 'small.ipynb'}\nsearch: optuna\nruns: 10\nmetric: score\n"
                                     "vary: {lr: {low: 0.001, high: 1.0, log: true}}\nbest: min\n")
    return read_grid(tmp_path / "g.yaml")


def made(runs):
    for run in runs:
        run.folder.mkdir(parents=True)
        params = {"seed": 0, "lr": 0.1} | run.params
        (run.folder / "params.yaml").write_text("".join(f"{key}: {value}\n" for key, value in params.items()))
        (run.folder / "metrics.json").write_text(f'{{"score": {abs(params["lr"] - 0.05)}}}')
        (run.folder / "report.html").write_text("")
    return {run.name: Outcome("complete") for run in runs}


def test_a_search_that_learns_comes_to_where_it_was(grid, tmp_path):
    pytest.importorskip("optuna")
    runs, outcomes = make_sweep(grid, tmp_path / "r", made)
    assert len(outcomes) == len(runs) > 5
    same, outcomes = make_sweep(grid, tmp_path / "r", made)
    assert same == runs and not outcomes


def test_what_is_not_installed_is_named(grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnlearnError, match=r"pip install unlearn_nb\[optuna\]"):
        make_sweep(grid, tmp_path / "r", made)
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnlearnError, match=r"pip install unlearn_nb\[ray\]"):
        on_ray.run_on_ray(grid, [], address="", jobs=None, logs=tmp_path, told=print)


def test_on_ray_a_lost_worker_costs_a_try_and_a_lost_head_none(tmp_path, monkeypatch):
    """With a stand-in for Ray; `test_on_ray.py` kills the real one."""
    stand_in = Path(__file__).parent / "stand_in"
    monkeypatch.syspath_prepend(stand_in)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")]))
    write_study(tmp_path / "small.ipynb", PARAMETERS, WORK)
    (tmp_path / "g.yaml").write_text(f"study: {tmp_path / 'small.ipynb'}\nvary: {{seed: [1, 2, 3, 4]}}\n")
    grid, logs, said = read_grid(tmp_path / "g.yaml"), tmp_path / "logs", []
    head = socket.create_server(("127.0.0.1", 0))
    port = head.getsockname()[1]

    def told(run, outcome):
        said.append((run.name, outcome.state))
        if said[-1] == ("s2", "complete"):
            (logs / "hang").touch()
            head.close()
            threading.Timer(4, comes_back).start()

    def comes_back():
        nonlocal head
        (logs / "hang").unlink()
        head = socket.create_server(("127.0.0.1", port))

    runs, outcomes = make_sweep(grid, tmp_path / "r", lambda runs: on_ray.run_on_ray(
        grid, runs, address=f"127.0.0.1:{port}", jobs=1, logs=logs, told=told))
    assert [read_run(run.folder).numbers for run in runs] == [{"score": seed} for seed in (1, 2, 3, 4)]
    assert said[:3] == [("s1", "killed"), ("s1", "complete"), ("s2", "complete")]
    assert outcomes["s1"].tries == 2 and {one.state for one in outcomes.values()} == {"complete"}
    assert sorted(said[3:]) == [("s3", "complete"), ("s4", "complete")]
    head.close()
