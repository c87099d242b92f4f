"""Sweeps on Ray: a worker and a head that are killed, with the results of a sweep on this machine."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_study import write_study

from unlearn_nb.runs import make_sweep, read_grid, read_run, run_here, run_on_ray

pytest.importorskip("ray")

PARAMETERS = 'seed = 0\nlr = 1e-3\nwait = 0.0\nrun_dir = ""'
WORK = '''import time
from unlearn_nb.runs import Run
run = Run.open(run_dir)
time.sleep(wait)
run.finish({"headline": {"answer": 42 + seed, "rate": 3 * lr}})'''
# a head for this machine only, with nothing in the home folder and nothing told to anybody
ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token",
         "RAY_AUTH_TOKEN": "ab" * 32, "RAY_raylet_start_wait_time_s": "120"}

TRIES = 6


class Head:
    """The head of a cluster of one machine, which can be killed and started again at the same port."""

    def __init__(self, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.log = folder, folder / "head.log"

    def start(self) -> "Head":
        """Start it, in several tries: its raylet ends where its agents are not there in 15 seconds."""
        for _ in range(TRIES):
            self._begin()
            while self.process.poll() is None:
                if b"runtime started" in self.log.read_bytes():
                    return self
                if any(one.status() == psutil.STATUS_ZOMBIE for one in psutil.Process(self.process.pid).children()):
                    break
                time.sleep(0.2)
            self.kill()
        pytest.skip(f"this machine starts no Ray in {TRIES} tries: {self.log.read_text()[-300:]}")

    def _begin(self) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={self.port}",
                   "--num-cpus=2", "--include-dashboard=false", "--no-monitor", "--node-ip-address=127.0.0.1",
                   "--block", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
                   f"--temp-dir={self.folder}", "--object-store-memory=100000000"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **ALONE}, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill the head and all that it has started, at once."""
        if self.process.poll() is None:
            head = psutil.Process(self.process.pid)
            head.suspend()  # it would start nothing anew, but clean up
            for one in [*head.children(recursive=True), head]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes that make a run now."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in below if any("run_apart" in word for word in one.cmdline())]


@pytest.fixture
def head(tmp_path, monkeypatch):
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    folder = Path("/tmp") / f"ray-{os.getpid()}-{time.time_ns() % 10**6}"  # Ray's sockets need a short path
    folder.mkdir()
    started = Head(folder)
    try:
        started.start()
        yield started
    finally:
        started.kill()
        shutil.rmtree(folder, ignore_errors=True)


def answers_of(runs) -> dict:
    return {run.name: (read_run(run.folder).state, read_run(run.folder).numbers) for run in runs}


@pytest.mark.parametrize("killed", ["worker", "head"])
def test_eight_runs_outlive_a_killed_worker_and_a_killed_head(killed, head, tmp_path):
    write_study(tmp_path / "small.ipynb", PARAMETERS, WORK)
    (tmp_path / "eight.yaml").write_text(f"study: {tmp_path / 'small.ipynb'}\nset: {{wait: 1}}\n"
                                         "vary: {seed: [0, 1, 2, 3], lr: [1e-3, 0.1]}\n")
    grid, said = read_grid(tmp_path / "eight.yaml"), []

    def told(run, outcome):
        said.append((run.name, outcome.state))
        if len(said) == 3 and killed == "head":
            head.kill()
            head.start()
        elif len(said) == 3:
            until = time.monotonic() + 60
            while not (workers := head.workers()) and time.monotonic() < until:
                time.sleep(0.05)
            os.kill(workers[0].pid, signal.SIGKILL)

    def on_ray(runs):
        return run_on_ray(grid, runs, address=f"127.0.0.1:{head.port}", jobs=None, logs=tmp_path / "logs", told=told)

    runs, outcomes = make_sweep(grid, tmp_path / "ray", on_ray)
    found = answers_of(runs)
    assert len(found) == 8 and {state for state, _ in found.values()} == {"complete"}
    assert {outcome.state for outcome in outcomes.values()} == {"complete"}
    assert killed == "head" or [state for _, state in said].count("killed") == 1
    runs, _ = make_sweep(grid, tmp_path / "here", lambda runs: run_here(
        grid, runs, jobs=2, logs=tmp_path / "logs", told=lambda *_: None))
    assert answers_of(runs) == found
