"""Cached folders and stages are used again only while they are what was made; else they are made anew, and say so."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from artefacts import MADE, contents, fill

from unlearn_nb.core import UnlearnError, build_folder, damage, folders, make_folder
from unlearn_nb.runs import Run, rebuilt_stages

pytestmark = pytest.mark.usefixtures("own_cache")


def flip(file: Path) -> None:
    """One bit, with size and time of modification as before."""
    data, times = bytearray(file.read_bytes()), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    data[17] ^= 1
    with file.open("r+b") as handle:
        handle.write(data)
    os.utime(file, ns=times)


def replace(folder: Path, other: Path | None) -> None:
    shutil.rmtree(folder)
    if other is not None:
        folder.symlink_to(other)


def neighbour(folder: Path) -> None:
    """Another folder, sealed as well, in the place of this one."""
    other = folder.with_name("other")
    make_folder(other, lambda new: (new / "x").write_text("x"))
    shutil.rmtree(folder)
    other.rename(folder)


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def edit_manifest(folder: Path) -> None:
    """Another hash of the right length, and nothing else."""
    said = json.loads((folder / ".manifest.json").read_text())
    said["files"]["model.safetensors"][1] = "0" * 64
    (folder / ".manifest.json").write_text(json.dumps(said))


WAYS = {
    "cut": (lambda folder: os.truncate(folder / "model.safetensors", 10), "model.safetensors has 10 bytes instead"),
    "a flipped bit": (lambda folder: flip(folder / "model.safetensors"), "model.safetensors has changed"),
    "a score by hand": (lambda folder: (folder / "part/scores.json").write_text('{"accuracy": 0.75}'), "has changed"),
    "cut rows": (lambda folder: (folder / "part/rows.jsonl").write_text("1\n2\n"), "part/rows.jsonl has 4 bytes"),
    "emptied": (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "it has no manifest"),
    "a file missing": (lambda folder: (folder / "part/rows.jsonl").unlink(), "part/rows.jsonl is missing"),
    "a folder missing": (lambda folder: (folder / "empty").rmdir(), "empty is missing"),
    "a file added": (lambda folder: (folder / "part/more.jsonl").write_text(""), "part/more.jsonl was added"),
    "a stray .tmp": (lambda folder: (folder / ".x.12345678.tmp").write_text(""), ".x.12345678.tmp was added"),
    "no manifest": (lambda folder: (folder / ".manifest.json").unlink(), "it has no manifest"),
    "a garbled manifest": (lambda folder: (folder / ".manifest.json").write_bytes(b"\xff{"), "its manifest is garbled"),
    "an old manifest": (lambda folder: (folder / ".manifest.json").write_text("[1]"), "its manifest is garbled"),
    "a neighbour": (neighbour, "its manifest belongs to other"),
    "a file as folder": (lambda folder: [replace(folder, None), folder.write_text("")], "it is no folder"),
    "a dangling link": (lambda folder: replace(folder, folder.with_name("gone")), "it is no folder"),
    "a link to itself": (lambda folder: replace(folder, folder), "it is no folder"),
    "a file that links to itself": (lambda folder: loop(folder / "model.safetensors"), "Too many levels"),
    "an edited manifest": (lambda folder: edit_manifest(folder), "model.safetensors has changed"),
    "a swapped file": (lambda folder: [(folder / "model.safetensors").write_text("9876543210" * 40)], "has changed"),
    "a folder as file": (lambda folder: [(folder / "model.safetensors").unlink(),
                                         (folder / "model.safetensors").mkdir()], "should be a file"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_cached_folder_is_set_aside_and_made_anew(tmp_path, capsys, way):
    spoil, said = WAYS[way]
    folder = build_folder(tmp_path / "model", fill)
    assert build_folder(folder, lambda new: pytest.fail("built again")) == folder and not capsys.readouterr().err
    spoil(folder)
    assert contents(build_folder(folder, fill)) == MADE and not damage(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder) in line and said in line and "it is now model.damaged" in line
    assert {path.name for path in tmp_path.iterdir()} - {"other"} == {"model", "model.damaged"}


def spoilt_stage(run: Run, way: str) -> Path:
    stage = run.stage("train", fill)
    spoil, _ = WAYS.get(way) or (lambda folder: (folder / ".stage.json").write_text("{no JSON"), "")
    spoil(stage)
    return stage


@pytest.mark.parametrize("way", [*WAYS, ".stage.json without JSON"])
def test_a_damaged_stage_is_made_anew_and_the_record_of_the_run_says_so(tmp_path, way):
    stage = spoilt_stage(Run.open(tmp_path), way)
    run = Run.open(tmp_path)
    assert run.stage("train", fill) == stage and contents(stage) == MADE
    said = WAYS.get(way, (None, ".stage.json has 8 bytes instead"))[1]
    assert list(rebuilt_stages(tmp_path)) == ["train"] and said in rebuilt_stages(tmp_path)["train"]
    run.finish({})
    assert said in json.loads((tmp_path / ".finished.json").read_text())["damaged_stages"]["train"]


def test_one_damaged_folder_is_kept_for_each_place(tmp_path):
    for text in ("first", "second"):
        (build_folder(tmp_path / "model", fill) / "part/rows.jsonl").write_text(text)
    build_folder(tmp_path / "model", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.damaged"]
    assert (tmp_path / "model.damaged/part/rows.jsonl").read_text() == "second"


def test_a_file_that_cannot_be_read_is_damage(tmp_path, monkeypatch):
    folder, hashed = build_folder(tmp_path / "model", fill), folders.file_hash

    def refused(path: Path) -> str:
        if path == folder / "model.safetensors":
            raise PermissionError(errno.EACCES, "Permission denied")
        return hashed(path)

    monkeypatch.setattr(folders, "file_hash", refused)
    assert damage(folder) == "it can't be read: Permission denied"


def test_what_is_damaged_and_cannot_be_moved_is_told_in_a_sentence(tmp_path, monkeypatch):
    (build_folder(tmp_path / "model", fill) / "part/rows.jsonl").unlink()

    def refused(path: Path, place: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folders, "move", refused)
    with pytest.raises(UnlearnError, match=r"\(part/rows.jsonl is missing\) and can't be replaced \(Read-only"):
        build_folder(tmp_path / "model", fill)


def test_a_folder_on_a_read_only_disk_is_used(tmp_path, monkeypatch):
    folder = build_folder(tmp_path / "model", fill)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("written"))
    assert build_folder(folder, fill) == folder


@pytest.mark.parametrize("what", ["a file", "a link to nothing"])
@pytest.mark.parametrize("where", ["stages", "stages/.lock"])
def test_nothing_in_the_way_of_the_stages_needs_a_person(tmp_path, where, what):
    place = tmp_path / where
    place.parent.mkdir(exist_ok=True)
    place.symlink_to("nowhere") if what != "a file" else place.mkdir() if ".lock" in where else place.write_text("x")
    assert contents(Run.open(tmp_path).stage("train", fill)) == MADE


def test_a_lock_in_the_shape_of_a_folder_does_not_stop_a_builder(tmp_path):
    (tmp_path / ".model.lock").mkdir()
    assert contents(build_folder(tmp_path / "model", fill)) == MADE
