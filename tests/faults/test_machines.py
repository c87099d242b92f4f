"""A small study on machines of many kinds: without locks, sockets, a home, or the letters that it prints."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from small_study import PARAMETERS, STAGES, write_study

from unlearn_nb.core import UnlearnError, locks, private_folder
from unlearn_nb.runs import find_studies, kernel, run_study

DOUBLES = Path(__file__).parent / "doubles"
OUTSIDE = '''import os
print("ü 中", "a name \\udcff", "half a character \\ud83d")
with open("place.json", "w", encoding="utf-8") as place:
    place.write(os.environ["UNLEARN_NB_CACHE"])
run.stage("outside", lambda folder: None, text="中\\ud83d")
run.finish({"headline": {"answer": 42}, "text": "ü 中 \\udcff \\ud83d"})'''


@pytest.fixture
def machine(tmp_path):
    """A command `unlearn-nb run` on a machine: with a folder for temporary files, and a study, of its own."""
    (tmp_path / "tmp").mkdir()
    write_study(tmp_path / "small.ipynb")
    write_study(tmp_path / "outside.ipynb", PARAMETERS, STAGES, OUTSIDE)

    def command(study, *options, **environment):
        env = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(DOUBLES) + os.pathsep
                            + os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1"} | environment
        arguments = [sys.executable, "-c", "from unlearn_nb.cli import main; main()", "run", study, "--name", "first",
                     *options]
        return subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return command


def left(tmp_path):
    return [path.name for path in (tmp_path / "tmp").iterdir()]


def metrics(tmp_path, study):
    return json.loads((tmp_path / "reports" / study / "first" / "metrics.json").read_text(encoding="utf-8"))


def test_without_locks_sockets_a_home_or_utf_8(tmp_path, machine):
    """Everything at once: a run completes, says what stood in for what, and leaves nothing."""
    poor = {"POOR_MACHINE": "locks sockets", "POOR_ENCODING": "euc_jp", "PYTHONIOENCODING": "euc_jp",
            "HOME": "/proc/nope", "UNLEARN_NB_CACHE": "", "XDG_CACHE_HOME": ""}
    process = machine("outside.ipynb", **poor)
    said, errors = process.communicate()
    assert process.returncode == 0, errors.decode("euc_jp", "replace")
    assert said.split() == [b"reports/outside/first/report.html"]
    assert metrics(tmp_path, "outside")["text"] == "ü 中 \udcff \ud83d"
    assert "ü 中" in (tmp_path / "reports" / "outside" / "first" / "report.html").read_text(encoding="utf-8")
    errors = errors.decode("euc_jp", "replace")  # the byte of a name stands there as it is
    for sentence in ("has no locks", "the cache folder /proc/nope/.cache/unlearn_nb can't be used",
                     "the home folder /proc/nope can't be written"):
        assert sentence in errors
    assert errors.count("a temporary one stands in") == 2 and "Traceback" not in errors
    assert left(tmp_path) == [] and not list(tmp_path.rglob("*.owner"))


def test_in_an_ascii_locale_beside_names_that_are_no_text(tmp_path, machine):
    """A run completes, and a relative cache is one place wherever the notebook works."""
    odd = os.fsdecode(b"sm\xc3\xa4ll \xff")
    (tmp_path / odd).mkdir()
    write_study(tmp_path / odd / "outside.ipynb", PARAMETERS, STAGES, OUTSIDE)
    process = machine(f"{odd}/outside.ipynb", "--out", f"{odd}/reports", LC_ALL="C", PYTHONCOERCECLOCALE="0",
                      PYTHONUTF8="0", UNLEARN_NB_CACHE="near")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert said.endswith(b"/reports/outside/first/report.html\n")  # click writes ? for what ASCII lacks
    place = (tmp_path / odd / "reports" / "outside" / "first" / "place.json").read_text(encoding="utf-8")
    assert place == str(tmp_path / "near") and Path(place).is_dir()


def test_after_a_kill_without_locks_the_next_run_goes_on_and_sweeps(tmp_path, machine):
    process = machine("small.ipynb", "-p", "fault", "hang", POOR_MACHINE="locks")
    folder = tmp_path / "reports" / "small" / "first"
    while not (folder / "hung").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert (folder / ".lock.owner").exists() and len(left(tmp_path)) == 1, "what a kill leaves"
    for member in family:
        member.kill()
    process.communicate()
    psutil.wait_procs(family)
    again = machine("small.ipynb", "-p", "fault", "hang", POOR_MACHINE="locks")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert metrics(tmp_path, "small")["headline"] == {"answer": 42}
    calls = (folder / "calls.txt").read_text(encoding="utf-8").split()
    assert calls == ["first", "second", "second"], "the finished stage is reused"
    assert left(tmp_path) == [] and not list(tmp_path.rglob("*.owner"))


def test_a_cache_that_cant_be_made_is_one_sentence(tmp_path, machine):
    process = machine("small.ipynb", UNLEARN_NB_CACHE=str(tmp_path / "small.ipynb" / "cache"))
    _, errors = process.communicate()
    assert process.returncode == 1
    last = errors.decode().strip().splitlines()[-1]
    assert "UNLEARN_NB_CACHE names the folder" in last and "can't be made (Not a directory)" in last


def test_no_temporary_folder_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    locks.private_folder_of.cache_clear()
    with pytest.raises(UnlearnError, match="no temporary folder can be written .* TMPDIR"):
        private_folder()
    locks.private_folder_of.cache_clear()


def test_a_socket_has_a_short_path_or_a_port_is_taken(tmp_path, monkeypatch):
    short = private_folder()
    assert kernel.has_sockets(short) and not kernel.has_sockets(tmp_path / ("long" * 30))
    monkeypatch.delattr("socket.AF_UNIX")
    assert not kernel.has_sockets(short)
    manager = kernel.ThisPython()
    assert (manager.transport, manager.ip) == ("tcp", "127.0.0.1")


def test_a_run_whose_name_differs_in_capitals_only_is_refused_where_folders_are_the_same(tmp_path, monkeypatch):
    """The double: a file system that lists the folder of `run-1` as `Run-1`."""
    study = write_study(tmp_path / "small.ipynb")
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: (
        place.with_name("Run-1") if place.name == "run-1" else place for place in real(path)))
    with pytest.raises(UnlearnError, match="'run-1' would take the place of 'Run-1'"):
        run_study(study, out=tmp_path / "reports", run_name="run-1", progress=False)


def test_a_study_is_read_in_any_locale():
    """The studies of the package hold letters that are not ASCII."""
    code = ("from unlearn_nb.runs import find_studies, read_study\n"
            "print(sum(len(read_study(path).cells) for path in find_studies().values()))")
    env = os.environ | {"PYTHONPATH": str(DOUBLES) + os.pathsep + os.environ.get("PYTHONPATH", ""),
                        "POOR_ENCODING": "ascii"}
    said = subprocess.check_output([sys.executable, "-c", code], env=env, encoding="ascii")
    assert int(said) == sum(len(nbformat.read(path, 4).cells) for path in find_studies().values())
