"""Pieces side by side: the same results, one error in a sentence, no process left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from unlearn_nb.core import UnlearnError, listen_to_steps
from unlearn_nb.runs import Run, end_workers, side_by_side

PIECES = '''
import os, sys, time
from pathlib import Path

from unlearn_nb.core import UnlearnError, build_folder, counted


def stage(run, number):
    folder = run.stage(f"piece-{number}", lambda folder: (folder / "n").write_text(str(number**2)), number=number)
    return int((folder / "n").read_text())


def shared(cache):
    def build(folder):
        with open(Path(cache) / "built", "a") as file:
            file.write("once ")
    time.sleep(0.2)
    return build_folder(Path(cache) / "shared", build).name


def matrix(seed):
    import torch

    torch.manual_seed(seed)
    a = torch.randn(300, 300)
    return (a @ a).sum(0), torch.get_num_threads()


def says(text):
    print(text)
    print(text, file=sys.stderr)


def counts():
    for _ in counted(range(3), "learn", 3):
        time.sleep(0.6)


def fails():
    raise UnlearnError("rows.jsonl, line 3: no answer; write one")


def waits(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(300)
'''


@pytest.fixture
def pieces(tmp_path, monkeypatch):
    """A module of pieces that another process finds as well."""
    (tmp_path / "some_pieces.py").write_text(PIECES)
    monkeypatch.syspath_prepend(tmp_path)
    import some_pieces

    yield some_pieces
    end_workers()
    del sys.modules["some_pieces"]


def test_stages_results_sentences_and_steps_are_those_of_one_process(pieces, tmp_path, capfd):
    told, run = [], Run.open(tmp_path / "run")
    listen_to_steps(told.append)
    work = [*(partial(pieces.stage, run, number) for number in (2, 3, 3)), *[partial(pieces.shared, tmp_path)] * 2,
            partial(pieces.says, "hear"), pieces.counts, partial(pieces.matrix, 1)]
    beside = side_by_side(work, jobs=2)
    listen_to_steps(None)
    assert beside[:5] == [4, 9, 9, "shared", "shared"] and (tmp_path / "built").read_text() == "once "
    assert told and {steps.what for steps in told} == {"learn 1"}
    said = capfd.readouterr()
    assert "hear" in said.out and "hear" in said.err and said.err.count("stage piece-3: built") == 1
    alone = side_by_side(work, jobs=1)
    assert alone[:5] == beside[:5] and alone[7][0].equal(beside[7][0]) and alone[7][1] == beside[7][1] == 1
    assert said.err.count("built") == 2 and "built" not in capfd.readouterr().err


def test_an_error_is_one_sentence_and_ends_the_others(pieces, tmp_path):
    with pytest.raises(UnlearnError, match="^rows.jsonl, line 3: no answer; write one$") as failure:
        side_by_side([partial(pieces.waits, tmp_path), pieces.fails], jobs=2)
    assert "in fails" in str(failure.value.__cause__) and not multiprocessing.active_children()
    assert side_by_side([partial(len, "abc"), partial(len, "")], jobs=2) == [3, 0]  # others are started


def test_a_process_that_is_killed_is_told_and_what_can_not_be_sent_is_refused(pieces):
    with pytest.raises(UnlearnError, match=r"has ended \(exit code -9;.*jobs=1"):
        side_by_side([partial(os.kill, 0, 0), partial(signal.raise_signal, signal.SIGKILL)], jobs=2)
    with pytest.raises(UnlearnError, match="can't be sent"):
        side_by_side([lambda: 1] * 2, jobs=2)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(pieces, tmp_path, sent):
    """Started by a script without a guard, which no process runs a second time."""
    script = tmp_path / "script.py"
    script.write_text("from functools import partial\nimport some_pieces\nfrom unlearn_nb.runs import side_by_side\n"
                      f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
                      f"side_by_side([partial(some_pieces.waits, {str(tmp_path)!r})] * 2, jobs=2)\n")
    started = subprocess.Popen([sys.executable, script], cwd=tmp_path, stderr=subprocess.DEVNULL,
                               env=os.environ | {"PYTHONPATH": str(tmp_path)})
    try:
        while len(found := [int(file.name) for file in tmp_path.iterdir() if file.name.isdecimal()]) < 2:
            assert started.poll() is None
            time.sleep(0.05)
        os.kill(started.pid, sent)
        started.wait()
    finally:
        started.kill()
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in found):
        time.sleep(0.05)
    assert Path(tmp_path / "runs").read_text() == "x"
