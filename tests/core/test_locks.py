"""Locks: one process at a time, with and without a file system that knows them; none outlives its owner."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from unlearn_nb.core import UnlearnError, build_folder, folders, locked, locks, take_lock

HOLD = """import sys, time
{double}
from unlearn_nb.core.locks import take_lock
held = take_lock(sys.argv[1])
print(held is not None, flush=True)
time.sleep(60)"""
DOUBLE = """import errno, fcntl
def flock(*_): raise OSError(errno.ENOTSUP, "no locks")
fcntl.flock = flock"""


def without_locks(monkeypatch, error):
    def flock(*_):
        raise error

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(locks, "_said", set())


@pytest.fixture(params=["ENOSYS", "ENOTSUP", "ENOLCK", "EINVAL", "NotImplementedError"])
def no_locks(request, monkeypatch):
    """A file system that knows no locks, and says so in one of several ways."""
    name = request.param
    without_locks(monkeypatch, OSError(getattr(errno, name), name) if hasattr(errno, name) else NotImplementedError())


@pytest.fixture
def lockless(monkeypatch):
    """The same, in the way of NFS."""
    without_locks(monkeypatch, OSError(errno.ENOLCK, "no locks"))


@pytest.fixture
def hurry(monkeypatch):
    """Owners are given up after a quarter of a second."""
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "LEASE", 0.25)


@pytest.fixture
def holder(tmp_path, request):
    """Another process that holds the lock `lock`."""
    double = DOUBLE if getattr(request, "param", True) else ""
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(double=double), tmp_path / "lock"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()


def test_two_processes_cant_hold_one_lock(tmp_path):
    first = take_lock(tmp_path / "lock")
    assert first is not None and take_lock(tmp_path / "lock") is None
    first.release()
    second = take_lock(tmp_path / "lock")
    assert second is not None
    second.release()


def test_a_lock_leaves_its_file_as_it_is(tmp_path):
    """A folder of an earlier version may hold text there."""
    (tmp_path / "lock").write_text("text")
    held = take_lock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == "text"
    held.release()
    assert (tmp_path / "lock").read_text() == "text"


def test_without_locks_of_the_system_one_process_holds_a_lock(tmp_path, no_locks, hurry, capsys):
    first = take_lock(tmp_path / "lock")
    second = take_lock(tmp_path / "other")
    assert first is not None and take_lock(tmp_path / "lock") is None
    first.release()
    take_lock(tmp_path / "lock").release()
    second.release()
    assert capsys.readouterr().err.count("has no locks") == 1, "it is said once"
    assert not list(tmp_path.glob("*.owner")), "nothing is left"


@pytest.mark.parametrize("holder", [True, False], indirect=True, ids=["no locks", "locks"])
def test_a_killed_owner_is_taken_over_at_once(tmp_path, holder, request):
    if (tmp_path / "lock.owner").exists():
        request.getfixturevalue("lockless")
    assert take_lock(tmp_path / "lock") is None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    take_lock(tmp_path / "lock", seconds=20).release()
    assert time.monotonic() - started < locks.LEASE / 2
    assert not (tmp_path / "lock.owner").exists()


@pytest.mark.parametrize("text", ["", "filelock/2\npid=", "{other host}"])
def test_a_file_that_nobody_touches_is_nobodys(tmp_path, lockless, hurry, text):
    """An owner killed before it wrote its name, while it wrote, or on another host."""
    other = f"filelock/2\npid=7\nhost=elsewhere\nmode=lease\ntoken=ab\nduration={locks.LEASE!r}\nstart=7\n"
    (tmp_path / "lock.owner").write_text(other if text == "{other host}" else text, encoding="utf-8")
    take_lock(tmp_path / "lock").release()
    assert not list(tmp_path.glob("*.owner*"))


def test_an_owner_that_lives_is_waited_for(tmp_path, lockless, hurry):
    held = take_lock(tmp_path / "lock")
    threading.Timer(0.8, held.release).start()  # more than three leases
    assert take_lock(tmp_path / "lock") is None
    take_lock(tmp_path / "lock", seconds=None).release()


def test_an_owner_that_stood_still_says_that_its_lock_is_lost(tmp_path, lockless, hurry, capsys):
    held = take_lock(tmp_path / "lock")
    (tmp_path / "lock.owner").unlink()
    for _ in range(100):
        if "stood still" in (said := capsys.readouterr().err):
            break
        time.sleep(0.05)
    assert "lock.owner is lost" in said
    held.release()


@pytest.mark.parametrize("code", ["EROFS", "EACCES"])
def test_a_read_only_folder_has_no_lock_and_says_so(tmp_path, monkeypatch, code):
    def refuse(path, *args, real=os.open, **kwargs):
        if str(path).endswith("lock"):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Read-only|denied"):
        take_lock(tmp_path / "lock", seconds=None)


def test_a_folder_is_built_once_without_locks(tmp_path, no_locks):
    calls = []

    def build(folder):
        calls.append(folder)
        time.sleep(0.1)

    threads = [threading.Thread(target=build_folder, args=(tmp_path / "made", build)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_block_waits_no_longer_than_it_was_told(tmp_path, lockless):
    with locked(tmp_path / "lock"):
        with pytest.raises(UnlearnError, match="has been locked by another process for 0 seconds"):
            with locked(tmp_path / "lock", seconds=0):
                pass
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    take_lock(tmp_path / "lock").release()


def test_a_sweep_that_comes_too_late_keeps_no_lock(tmp_path, lockless, monkeypatch):
    """Between its look at a lock and its removal, the lock's owner has removed it."""
    def late(path, real=folders.take_lock):
        lock = real(path)
        path.unlink(missing_ok=True)
        return lock

    (tmp_path / ".made.lock").touch()
    monkeypatch.setattr(folders, "take_lock", late)
    folders.sweep_built(tmp_path)
    assert not list(tmp_path.iterdir())
