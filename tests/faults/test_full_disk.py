"""A disk that fills up during a run: one sentence, nothing that is taken for a result, and the next run is right."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from forked import forked_kernels
from full_disk import full_disk, used
from small_study import PARAMETERS, write_study

from unlearn_nb.cli import main
from unlearn_nb.core import damage
from unlearn_nb.runs import list_runs

TESTS = Path(__file__).resolve().parent.parent
STAGES = f"""import sys
sys.path.insert(0, {str(TESTS)!r})
from full_disk import full_disk
from unlearn_nb.runs import Run
full_disk()
run = Run.open(run_dir)
folders = []
for number in range(4):
    def build(folder):
        before = int((folders[-1] / "value.txt").read_text()) if folders else 0
        (folder / "value.txt").write_text(str(before + number))
        (folder / "weights.bin").write_bytes(bytes(100_000))
    folders.append(run.stage(f"part {{number}}", build, number=number, before=folders[-1:]))"""
RESULT = """run.finish({"answer": int((folders[-1] / "value.txt").read_text())})"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study") / "filling.ipynb", PARAMETERS, STAGES, RESULT)


def execute(study: Path, disk: Path, room: int | str):
    """Run the study on a disk with as much room; back comes what the command says."""
    with full_disk(), forked_kernels(disk.with_name("kernel.txt")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FULL_DISK", f"{room} {disk}")
        return CliRunner().invoke(main, ["run", str(study), "--out", str(disk / "reports"), "--name", "x"])


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    """The folder of a run that had room, and how much that is."""
    disk = tmp_path_factory.mktemp("room") / "disk"
    disk.mkdir()
    assert execute(study, disk, "any").exit_code == 0
    return disk / "reports" / "filling" / "x", used(disk)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("level", range(8))
def test_a_disk_that_fills_up_during_a_run(study, undisturbed, tmp_path, level):
    finished, needed = undisturbed
    disk = tmp_path / "disk"
    disk.mkdir()
    failed = execute(study, disk, needed * level // 8)
    folder = disk / "reports" / "filling" / "x"
    (error,) = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert failed.exit_code == 1 and "the disk is full: free some space" in error and "reports" in error
    assert "Traceback" not in failed.stderr and not failed.stdout
    assert not (folder / "metrics.json").exists() and not (folder / "report.html").exists()
    assert all(run.state in ("failed", "interrupted") for run in list_runs(disk / "reports"))
    stages = list((folder / "stages").glob("[!.]*"))
    assert not any(map(damage, stages)), "a stage that is there is whole"
    times = {stage.name: (stage / "value.txt").stat().st_mtime_ns for stage in stages}
    with_room = execute(study, disk, "any")
    assert with_room.exit_code == 0 and "damaged" not in with_room.stderr
    assert json.loads((folder / "metrics.json").read_text()) == {"answer": 6} and names(folder) == names(finished)
    assert times.items() <= {stage.name: (stage / "value.txt").stat().st_mtime_ns
                             for stage in (folder / "stages").glob("[!.]*")}.items(), "finished stages are used"
    shutil.rmtree(disk)
