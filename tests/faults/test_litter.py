"""What ended processes left unfinished is cleared by those that come after; the work of the living is not touched."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from unlearn_nb.core import build_folder, files, folders, sweep, sweep_built, take_lock, whole
from unlearn_nb.runs import Run

WORKS = """import os, sys
from unlearn_nb.core import whole
with whole(sys.argv[1]) as new:
    new.mkdir()
    (new / "half").write_text("half")
    print(new.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(folder))
    yield folder
    sweep_built.cache_clear()


@pytest.fixture
def at_work(tmp_path):
    """A process in the middle of writing the folder `model`, and the name of what it has begun."""
    command = [sys.executable, "-c", WORKS, tmp_path / "model"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_the_work_of_a_living_process_stays_and_that_of_a_killed_one_goes(at_work, tmp_path):
    process, begun = at_work
    old = time.time() - 10**7
    os.utime(begun, (old, old))  # as a copy has that keeps the times of its source
    sweep(tmp_path)
    assert (begun / "half").exists()
    process.send_signal(signal.SIGKILL)
    while process.returncode is None and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    sweep(tmp_path)  # nobody has asked yet how the process ended
    assert not begun.exists()


def ended() -> int:
    """The number of a process that is over."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def begun(place: Path, *, machine: str | None = None, pid: int | None = None, end: str = "tmp") -> Path:
    """What a process leaves that is killed while it writes to `place`."""
    left = place.with_name(f".{place.name}.{machine or files._machine()}-{pid or ended()}-0a1b2c.{end}")
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    return left


def test_the_next_process_that_writes_into_a_folder_clears_it(tmp_path):
    left = begun(tmp_path / "deep" / "model")
    with whole(tmp_path / "deep" / "other.txt") as new:
        new.write_text("x")
    assert not left.exists() and [path.name for path in (tmp_path / "deep").iterdir()] == ["other.txt"]


def test_a_number_given_to_a_later_process_is_no_sign_of_life(tmp_path, monkeypatch):
    left = begun(tmp_path / "model", pid=os.getpid())
    sweep(tmp_path)
    assert left.exists()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time() + 60)
    sweep(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("machine", ["ffffff", None])
def test_the_work_of_another_machine_stays_for_thirty_days(tmp_path, monkeypatch, machine):
    left = begun(tmp_path / "model", machine="ffffff")
    if machine is None:  # an earlier version named nobody
        left = left.rename(tmp_path / ".model.0a1b2c3d.tmp")
    sweep(tmp_path)
    assert left.exists()
    monkeypatch.setattr(files, "KEPT", 0)
    sweep(tmp_path)
    assert not left.exists()


def test_what_had_moved_aside_goes_back_where_nothing_took_its_place(tmp_path):
    old, new = begun(tmp_path / "model", end="old.tmp"), begun(tmp_path / "model", pid=ended())
    sweep(tmp_path)
    assert (tmp_path / "model" / "half").exists() and not old.exists() and not new.exists()
    begun(tmp_path / "model", end="old.tmp")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_files_of_others_are_not_ours_to_clear(tmp_path):
    for name in (".notes.tmp", "model.tmp", ".tmp", ".model.old.tmp"):
        (tmp_path / name).write_text("mine")
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", [".train.tmp", ".train-0123.0a1b2c3d.tmp", ".train.ffffff-1-0a1b2c.tmp"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_run_that_is_opened_clears_its_stages(tmp_path, name, kind):
    (tmp_path / "stages").mkdir()
    left = tmp_path / "stages" / name
    left.write_text("x") if kind == "file" else left.mkdir() if kind == "folder" else left.symlink_to("nowhere")
    run = Run.open(tmp_path)
    assert [path.name for path in (run.folder / "stages").iterdir()] == [".lock"]


def test_a_run_that_is_opened_clears_the_cache_of_dead_builders_and_leaves_the_living(tmp_path, cache):
    dead, alive = begun(cache / "tiny"), begun(cache / "other", pid=os.getpid())
    (cache / ".tiny.lock").touch()
    held = take_lock(cache / ".other.lock")
    Run.open(tmp_path)
    assert {path.name for path in cache.iterdir()} == {alive.name, ".other.lock"} and not dead.exists()
    held.release()


def test_a_builder_clears_what_was_left_for_names_that_nobody_asks_for_again(tmp_path):
    begun(tmp_path / "cache" / "of-earlier-code")
    (tmp_path / "cache" / ".of-earlier-code.lock").touch()
    build_folder(tmp_path / "cache" / "model", lambda folder: None)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["model"]


def test_a_builder_that_fails_leaves_no_lock(tmp_path):
    with pytest.raises(ZeroDivisionError):
        build_folder(tmp_path / "model", lambda folder: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_cleared_stops_nobody(tmp_path, monkeypatch):
    begun(tmp_path / "model")

    def refused(path: Path, **_) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(shutil, "rmtree", refused)
    with whole(tmp_path / "other.txt") as new:
        new.write_text("x")
    assert (tmp_path / "other.txt").read_text() == "x"
    assert folders.damage(tmp_path / "model")
