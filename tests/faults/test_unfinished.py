"""Writing that is cut short, by a full disk or a kill: the old or the new is there, whole, and never a mixture."""

import errno
import os
from itertools import accumulate
from pathlib import Path

import pytest
from artefacts import MADE, contents, fill, killed_at
from full_disk import EACH, full_disk

from unlearn_nb.core import build_folder, damage, filled, folders, sweep, whole

pytestmark = pytest.mark.usefixtures("own_cache")

ENDS = list(accumulate(EACH + len(text) for text in MADE.values()))  # bytes on the disk after each file
LEVELS = [0, ENDS[0] - 1, ENDS[0], ENDS[0] + 1, ENDS[1] + EACH + 1, ENDS[2] - 1, ENDS[2], ENDS[2] + EACH + 100]


@pytest.mark.parametrize("room", LEVELS)
def test_a_full_disk_leaves_nothing_and_the_next_builder_is_right(tmp_path, monkeypatch, room):
    monkeypatch.setenv("FULL_DISK", f"{room} {tmp_path}")
    with full_disk(), pytest.raises(OSError, match="No space left"):
        build_folder(tmp_path / "model", fill)
    assert list(tmp_path.iterdir()) == []
    assert contents(build_folder(tmp_path / "model", fill)) == MADE


def test_a_disk_that_refuses_to_keep_what_it_took_leaves_the_old(tmp_path, monkeypatch):
    (tmp_path / "scores.json").write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), whole(tmp_path / "scores.json") as new:
        new.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    assert (tmp_path / "scores.json").read_text() == "old"


def test_a_kill_at_any_moment_of_building_and_sealing_is_made_good(tmp_path):
    kills = 0
    while killed_at(kills, lambda: build_folder(tmp_path / str(kills) / "model", fill)):
        place = tmp_path / str(kills)
        folders.sweep_built.cache_clear()
        assert not (place / "model").exists() or not damage(place / "model"), f"killed at {kills}"
        assert contents(build_folder(place / "model", fill)) == MADE
        assert [path.name for path in place.iterdir()] == ["model"], f"killed at {kills}"
        kills += 1
    assert kills > 15


def test_a_kill_between_two_renames_brings_the_old_result_back(tmp_path):
    def rewrite() -> None:
        with whole(tmp_path / "it") as new:
            new.mkdir()
            (new / "text").write_text("new")

    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "text").write_text("old")
    kills, gone = 0, 0
    while killed_at(kills, rewrite):
        gone += not (tmp_path / "it").exists()
        sweep(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["it"]
        assert (tmp_path / "it" / "text").read_text() in ("old", "new")
        (tmp_path / "it" / "text").write_text("old")
        kills += 1
    assert gone


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_leaves_no_mixture_of_two_models(tmp_path, monkeypatch, links):
    """Weights of one training and the configuration of another would load, and be wrong."""
    folder = tmp_path / "model"

    def save(text: str) -> None:
        with filled(folder) as new:
            (new / "weights").write_text(text)
            (new / "config").write_text(text)

    def no_link(*_, **__) -> None:
        raise OSError(errno.EPERM, "this file system has no second names")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    save("old")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine").write_text("mine")
    kills = 0
    while killed_at(kills, lambda: save("new")):
        sweep(tmp_path)
        found = {name: (folder / name).read_text() for name in ("weights", "config", "notes/mine")}
        assert found["weights"] == found["config"] and found["notes/mine"] == "mine"
        kills += 1
    assert kills and (folder / "weights").read_text() == "new" and (folder / "notes" / "mine").read_text() == "mine"


@pytest.mark.parametrize("why", ["it is worked in", "its parent is read-only", "it is a link"])
def test_a_folder_that_cannot_be_exchanged_is_filled_as_it_is(tmp_path, monkeypatch, why):
    folder = tmp_path / "place" / "model"
    folder.mkdir(parents=True)
    for name in ("weights", "weights-1", "config", "notes"):
        (folder / name).write_text("old")
    number, given = folder.stat().st_ino, folder
    if why == "it is worked in":
        monkeypatch.chdir(folder)
        given = Path(".")
    elif why == "it is a link":
        (tmp_path / "link").symlink_to(folder)
        given = tmp_path / "link"
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder.parent)
    with pytest.raises(RuntimeError), filled(given, replacing=["weights*"]) as new:
        (new / "weights").write_text("half")
        raise RuntimeError
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("weights", "weights-1", "config", "notes"), "old")
    with filled(given, replacing=["weights*"]) as new:
        (new / "weights").write_text("new")
        (new / "config").write_text("new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "weights": "new", "config": "new", "notes": "old"}
    assert given.is_symlink() == (why == "it is a link") and (folder.stat().st_ino == number or why == "it is a link")
