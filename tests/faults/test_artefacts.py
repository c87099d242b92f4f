"""Artefacts are used again only while they are what was made: what is damaged is set aside, made anew, and told."""

import errno
import io
import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from unlearn_nb.augmentation import writers
from unlearn_nb.core import (
    UnlearnError,
    build_folder,
    damage,
    file_hash,
    filled,
    folders,
    identity,
    make_folder,
    read_record,
    sweep,
    whole,
    write_record,
)
from unlearn_nb.metrics import Scores
from unlearn_nb.runs import Run, rebuilt_stages


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of the test's own, which remembers the hashes of files of any size."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(folder))
    monkeypatch.setattr(identity, "LARGE", 0)
    return folder


MADE = {"model.safetensors": "0123456789" * 40, "part/scores.json": '{"accuracy": 0.25}',
        "part/rows.jsonl": "1\n2\n3\n"}


def fill(folder: Path) -> None:
    for name, text in MADE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "empty").mkdir()


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in MADE}


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


# ---- answers and results

def answers(path: Path) -> writers._Answers:
    kept = writers._Answers(path)
    for i in range(50):
        kept.store(f"key {i}", f"answer {i} " * 40, (1, 1))
    kept.database.close()
    return path


def garbled(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place:place + 64] = b"\xa5" * 64
    file.write_bytes(data)


@pytest.mark.parametrize("spoil", [
    lambda path: os.truncate(path, path.stat().st_size // 2), lambda path: os.truncate(path, 50),
    lambda path: garbled(path, 0), lambda path: garbled(path, 4096), lambda path: path.write_text("no database" * 100),
], ids=["half", "50 bytes", "header", "page", "text"])
def test_a_damaged_answer_cache_is_set_aside_with_its_journal_and_begun_anew(tmp_path, capsys, spoil):
    path = answers(tmp_path / "answers.db")
    spoil(path)
    (tmp_path / "answers.db-journal").write_bytes(b"")
    kept = writers._Answers(path)
    kept.store("new", "answer", (1, 1))
    assert kept.read("new") == "answer" and "it is now answers.db.damaged" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} >= {"answers.db", "answers.db.damaged"}
    kept.database.close()
    assert writers._Answers(path).read("new") == "answer" and not capsys.readouterr().err


@pytest.mark.parametrize("piece", [b"answer 7 ", b"key 7"], ids=["answer", "key"])
@pytest.mark.parametrize("bit", [0x01, 0x80], ids=["another letter", "no text"])
def test_a_flipped_bit_in_an_answer_is_asked_anew_and_said_once(tmp_path, capsys, piece, bit):
    path = answers(tmp_path / "answers.db")
    data = path.read_bytes()
    flipped = bytes([piece[0] ^ bit]) + piece[1:]
    path.write_bytes(data.replace(piece, flipped))
    kept = writers._Answers(path)
    assert kept.read("key 7") is None and kept.read("key 7") is None and "key 7" not in kept.tokens
    assert kept.read("key 8") in ("answer 8 " * 40, None)  # a wrong key may hide its neighbours in the index
    said = capsys.readouterr().err.count("such answers are asked for anew")
    assert said == 1 if piece.startswith(b"answer") else said <= 1
    kept.store("key 7", "new", (1, 1))
    assert kept.read("key 7") == "new"


def test_an_answer_of_another_question_is_asked_anew(tmp_path):
    path = answers(tmp_path / "answers.db")
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM answers WHERE key = 'key 8'")
        database.execute("UPDATE answers SET key = 'key 8' WHERE key = 'key 7'")
    assert writers._Answers(path).read("key 8") is None


def test_a_cache_without_checksums_is_set_aside(tmp_path, capsys):
    with sqlite3.connect(tmp_path / "answers.db") as database:
        database.execute("CREATE TABLE answers (key TEXT, answer TEXT, prompt_tokens INT, completion_tokens INT)")
    database.close()
    kept = writers._Answers(tmp_path / "answers.db")
    assert kept.read("key") is None and "made by an earlier version" in capsys.readouterr().err
    assert (tmp_path / "answers.db.damaged").is_file()


@pytest.mark.parametrize("said", ["disk I/O error", "database or disk is full", "database is locked"])
def test_what_the_file_system_refuses_an_answer_cache_is_a_sentence(tmp_path, monkeypatch, said):
    """As SQLite says it where there are no locks, no room, or somebody else who keeps the lock."""
    class Refusing:
        def execute(self, *_):
            raise sqlite3.OperationalError(said)

        def close(self):
            pass

    kept = writers._Answers(tmp_path / "answers.db")
    kept.database.close()
    kept.database = Refusing()
    calls = [lambda: kept.read("key"), lambda: kept.store("key", "answer", (1, 1)),
             lambda: writers._Answers(tmp_path / "answers.db")]
    monkeypatch.setattr(writers.sqlite3, "connect", lambda *_, **__: Refusing())
    for call in calls:
        with pytest.raises(UnlearnError, match=f"answers.db can't be used \\({said}\\); .* has locks$"):
            call()


def test_a_database_of_something_else_is_refused_and_stays(tmp_path):
    with sqlite3.connect(tmp_path / "notes.db") as database:
        database.execute("CREATE TABLE answers (question TEXT)")
    with pytest.raises(UnlearnError, match="notes.db can't be used"):
        writers._Answers(tmp_path / "notes.db")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.db"]


RESULT = {"ci": [{"metric": "a", "value": 0.25}], "columns": ["x"]}


@pytest.mark.parametrize("file, text", [
    ("rows.jsonl", "1\n"), ("rows.jsonl", "1\n3\n"), ("rows.jsonl", None), ("scores.json", "{"), ("scores.json", "[]"),
    ("scores.json", json.dumps(RESULT)), ("scores.json", None),
])
def test_a_result_that_was_cut_or_edited_is_refused(tmp_path, file, text):
    rows, scores = tmp_path / "rows.jsonl", tmp_path / "scores.json"
    rows.write_text("1\n2\n")
    write_record(scores, RESULT, rows)
    assert read_record(scores, rows) == RESULT
    (tmp_path / file).unlink() if text is None else (tmp_path / file).write_text(text)
    with pytest.raises(UnlearnError, match="scores.json or rows.jsonl is damaged"):
        read_record(scores, rows)


def test_a_score_edited_by_hand_is_not_loaded(tmp_path):
    rows = pd.DataFrame({"id": ["a", "b"], "rouge": [0.25, 0.5]})
    ci = pd.DataFrame({"metric": ["rouge"], "value": [0.375], "low": [np.nan], "high": [np.inf]})
    Scores(rows, ci, {"suite": "semeval"}).save(tmp_path)
    assert Scores.load(tmp_path).summary == {"rouge": 0.375}
    text = (tmp_path / "scores.json").read_text()
    (tmp_path / "scores.json").write_text(text.replace("0.375", "0.975"))
    with pytest.raises(UnlearnError, match="damaged, or not what was saved together"):
        Scores.load(tmp_path)


# ---- remembered hashes

@pytest.mark.parametrize("text", ["", "0", "f" * 64, "f" * 64 + " " + "0" * 12, "\xff"])
def test_a_hash_entry_that_was_cut_or_garbled_is_not_believed(tmp_path, cache, monkeypatch, text):
    monkeypatch.setattr(identity, "SETTLED", -10**18)
    (tmp_path / "file").write_text("content")
    found = file_hash(tmp_path / "file")
    (entry,) = (cache / "hashes").iterdir()
    entry.write_text(text, encoding="latin-1")
    assert file_hash(tmp_path / "file") == found and entry.read_text().startswith(found)


def test_an_entry_in_the_shape_of_a_folder_is_replaced(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(identity, "SETTLED", -10**18)
    (tmp_path / "file").write_text("content")
    found = file_hash(tmp_path / "file")
    (entry,) = (cache / "hashes").iterdir()
    entry.unlink()
    entry.mkdir()
    assert file_hash(tmp_path / "file") == found and entry.is_file()


def test_what_was_sealed_is_not_read_again_by_its_next_user(tmp_path, monkeypatch):
    folder = build_folder(tmp_path / "model", fill)
    os.utime(folder / "part/rows.jsonl")  # its times have changed, so it is read; the others are not
    read = []
    monkeypatch.setattr(identity, "_read_hash", lambda path, do=identity._read_hash: read.append(path) or do(path))
    assert not damage(folder) and read == [folder / "part/rows.jsonl"]


def test_a_hash_is_kept_only_where_a_later_write_would_show(tmp_path, monkeypatch, cache):
    """A file system may count whole seconds: the manifest is then as old as the files."""
    stat = Path.stat

    def coarse(path: Path, **options) -> os.stat_result:
        found = list(stat(path, **options).__reduce__()[1][0])
        return os.stat_result(found, {"st_mtime_ns": 10**9, "st_ctime_ns": 10**9})

    monkeypatch.setattr(Path, "stat", coarse)
    make_folder(tmp_path / "model", fill)
    assert not (cache / "hashes").exists()


# ---- a full disk, and kills

class Disk:
    """Writes of Python's files, counted; beyond `room` bytes the disk is full."""

    def __init__(self, room: int, monkeypatch):
        self.room, self.opened = room, io.open
        monkeypatch.setattr(io, "open", self.open)

    def open(self, *arguments, **options):
        file = self.opened(*arguments, **options)
        if file.writable():
            file.write = lambda data, write=file.write: self.write(data, write)
        return file

    def write(self, data: str, write) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(data)


SIZES = [len(text) for text in MADE.values()]
LEVELS = [0, SIZES[0] - 1, SIZES[0], SIZES[0] + 1, sum(SIZES[:2]) + 1, sum(SIZES) - 1, sum(SIZES), sum(SIZES) + 100]


@pytest.mark.parametrize("room", LEVELS)
def test_a_full_disk_leaves_nothing_and_the_next_builder_is_right(tmp_path, monkeypatch, room):
    with monkeypatch.context() as context, pytest.raises(OSError, match="No space left"):
        Disk(room, context)
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


def killed_at(step: int, work) -> bool:
    """Do `work` in a process that kills itself after `step` calls that open, rename or flush; whether it did."""
    child = os.fork()
    if child == 0:
        left = iter(range(step))
        for name in ("fsync", "rename", "replace", "open"):
            def call(*arguments, do=getattr(os, name), **options):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*arguments, **options)
            setattr(os, name, call)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


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


def test_saving_a_model_is_killed(tmp_path):
    """The old model or the new one, with its own configuration; never the weights of one in the shape of the other."""
    from unlearn_nb.core import toy_llama
    from unlearn_nb.models import Origin, save_model

    model, told = toy_llama(), []
    model.config.name_or_path = "toy"

    def save(number: int) -> None:
        model.config.rope_theta = number
        model.get_input_embeddings().weight.data[0, 0] = number
        save_model(model, tmp_path / "model", origin=Origin(f"org/{number}"))

    def found() -> tuple[int, int, str]:
        folder = tmp_path / "model"
        weights = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        theta = json.loads((folder / "config.json").read_text())["rope_theta"]
        return int(theta), int(weights[0, 0]), json.loads((folder / "origin.json").read_text())["base"]

    save(1)
    for step in range(0, 60, 3):
        if not killed_at(step, lambda: save(2)):
            break
        sweep(tmp_path)
        told.append(found())
    assert set(told) <= {(1, 1, "org/1"), (2, 2, "org/2")} and len(told) > 2


def test_saving_an_adapter_is_killed(tmp_path):
    from unlearn_nb.core import toy_adapter, toy_llama
    from unlearn_nb.models import save_adapter

    def save(number: int) -> None:
        model = toy_adapter(toy_llama())
        model.peft_config["default"].lora_alpha = number
        next(weight for name, weight in model.named_parameters() if "lora_A" in name).data[0, 0] = number
        save_adapter(model, tmp_path / "adapter")

    def found() -> tuple[int, int]:
        tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()
        alpha = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"]
        return int(alpha), int(max(tensor.max() for tensor in tensors))

    save(10), (tmp_path / "adapter" / "training.json").write_text("mine")
    told = []
    for step in range(60):
        if not killed_at(step, lambda: save(20)):
            break
        sweep(tmp_path)
        told.append(found())
        assert (tmp_path / "adapter" / "training.json").read_text() == "mine"
    assert set(told) <= {(10, 10), (20, 20)} and len(told) > 2


def test_the_parts_of_an_earlier_model_are_not_read_with_the_new_one(tmp_path):
    from unlearn_nb.core import toy_llama
    from unlearn_nb.models import Origin, save_model

    toy_llama().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    (tmp_path / "model" / "notes.md").write_text("mine")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    save_model(toy_llama(), tmp_path / "model", origin=Origin("toy"))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {name for name in names if "safetensors" in name} == {"model.safetensors"} and "notes.md" in names


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
