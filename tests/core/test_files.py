"""Files: whole or absent under exceptions, kills, threads and processes; JSON, hashes and names."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import string
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.core import (
    UnlearnError,
    build_folder,
    cache_dir,
    checked_name,
    content_hash,
    make_folder,
    plain,
    private_folder,
    read_packaged,
    slug,
    to_json,
    to_jsonl,
    whole,
    write_atomic,
)

SPAWN = multiprocessing.get_context("spawn")


def put(path, kind, text):
    """A file, or a folder of two files."""
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "a.txt").write_text(text)
        (path / "b.txt").write_text(text)


def read(path):
    return path.read_text() if path.is_file() else {file.name: file.read_text() for file in path.iterdir()}


def content(kind, text):
    return text if kind == "file" else {"a.txt": text, "b.txt": text}


KINDS = ["file", "folder"]


@pytest.mark.parametrize("new_kind", KINDS)
@pytest.mark.parametrize("old_kind", [None, *KINDS, "empty folder", "link to a folder", "link to nothing"])
def test_whole_takes_the_place_of_anything(tmp_path, old_kind, new_kind):
    path, elsewhere = tmp_path / "in" / "it", tmp_path / "elsewhere"
    path.parent.mkdir()
    if old_kind in KINDS:
        put(path, old_kind, "old")
    elif old_kind == "empty folder":
        path.mkdir()
    elif old_kind:
        if old_kind == "link to a folder":
            put(elsewhere, "folder", "old")
        path.symlink_to(elsewhere)
    with whole(path) as new:
        put(new, new_kind, "new")
    assert read(path) == content(new_kind, "new") and not path.is_symlink()
    assert [file.name for file in path.parent.iterdir()] == ["it"], "nothing is left beside"
    assert old_kind != "link to a folder" or read(elsewhere) == content("folder", "old"), "what a link points to stays"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("new_kind", [None, *KINDS])
@pytest.mark.parametrize("old_kind", [None, *KINDS])
def test_whole_under_an_exception_keeps_what_there_was(tmp_path, old_kind, new_kind, error):
    path = tmp_path / "it"
    if old_kind:
        put(path, old_kind, "old")
    with pytest.raises(error), whole(path) as new:
        if new_kind:
            put(new, new_kind, "new")
        raise error
    assert [file.name for file in tmp_path.iterdir()] == (["it"] if old_kind else [])
    assert not old_kind or read(path) == content(old_kind, "old")


@pytest.mark.parametrize("old_kind", KINDS)
def test_whole_without_anything_written_keeps_what_there_was(tmp_path, old_kind):
    put(tmp_path / "it", old_kind, "old")
    with pytest.raises(FileNotFoundError, match="nothing was written"), whole(tmp_path / "it"):
        pass
    assert read(tmp_path / "it") == content(old_kind, "old")


def test_a_failing_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    put(tmp_path / "it", "folder", "old")
    with pytest.raises(PermissionError), whole(tmp_path / "it") as new:
        put(new, "folder", "new")
        monkeypatch.setattr(type(new), "replace", lambda self, other: (_ for _ in ()).throw(PermissionError("no")))
    assert read(tmp_path / "it") == content("folder", "old") and len(list(tmp_path.iterdir())) == 1


def test_what_moved_aside_goes_though_another_one_moves_the_new_folder_at_once(tmp_path, monkeypatch):
    put(tmp_path / "it", "folder", "old")
    replace = Path.replace

    def replace_and_lose(self, other):
        replace(self, other)
        other.rename(tmp_path / "with another writer")

    with whole(tmp_path / "it") as new:
        put(new, "folder", "new")
        monkeypatch.setattr(type(new), "replace", replace_and_lose)
    assert [file.name for file in tmp_path.iterdir()] == ["with another writer"]


def write_often(path, kind, text):
    for _ in range(60):
        with whole(path) as new:
            put(new, kind, text * 2000)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_that_write_the_same_leave_one_of_both(tmp_path, kind):
    writers = [SPAWN.Process(target=write_often, args=(tmp_path / "it", kind, text)) for text in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(OSError):  # a folder moves aside for a moment
            found = (tmp_path / "it").read_text() if kind == "file" else (tmp_path / "it" / "b.txt").read_text()
            assert found in ("a" * 2000, "b" * 2000), "never half of one, never a mixture"
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert read(tmp_path / "it") in (content(kind, "a" * 2000), content(kind, "b" * 2000))
    assert [file.name for file in tmp_path.iterdir()] == ["it"]


def test_a_killed_writer_leaves_the_old_file_and_a_hidden_rest(tmp_path):
    write_atomic(tmp_path / "it", "old")
    code = ("import sys, time; from unlearn_nb.core import whole\n"
            "with whole(sys.argv[1]) as new:\n    new.write_text('half'); print('in', flush=True); time.sleep(600)")
    writer = subprocess.Popen([sys.executable, "-c", code, tmp_path / "it"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "in\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / "it").read_text() == "old"
    rest = [file.name for file in tmp_path.iterdir() if file.name != "it"]
    assert len(rest) == 1 and rest[0].startswith(".it.") and rest[0].endswith(".tmp")


@settings(deadline=None)  # it waits for the disk
@given(st.text())
def test_text_comes_back(tmp_path_factory, text):
    path = write_atomic(tmp_path_factory.mktemp("text") / "it", text)
    assert path.read_bytes().decode() == text


# ---- folders that are made once

def build_slowly(folder):
    with open(folder.parent / "built.log", "a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    (folder / "made.txt").write_text("made")


def ask(folder):
    assert (build_folder(folder, build_slowly) / "made.txt").read_text() == "made"


def test_two_processes_build_a_folder_once(tmp_path):
    askers = [SPAWN.Process(target=ask, args=(tmp_path / "model",)) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert [asker.exitcode for asker in askers] == [0, 0]
    assert len((tmp_path / "built.log").read_text().splitlines()) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["built.log", "model"]


def test_threads_build_a_folder_once(tmp_path):
    threads = [threading.Thread(target=ask, args=(tmp_path / "model",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / "built.log").read_text().splitlines()) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["built.log", "model"]


def test_after_a_builder_that_failed_the_next_one_builds(tmp_path):
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space"):
        build_folder(tmp_path / "deep" / "model", fail)
    assert not list((tmp_path / "deep").glob("model*"))
    ask(tmp_path / "deep" / "model")
    assert not list((tmp_path / "deep").glob("*.tmp"))


def build_for_ever(folder):
    (folder.parent / "begun").touch()
    time.sleep(600)


def test_after_a_builder_that_was_killed_the_next_one_builds(tmp_path):
    builder = SPAWN.Process(target=build_folder, args=(tmp_path / "model", build_for_ever))
    builder.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    builder.kill()
    builder.join()
    assert not (tmp_path / "model").exists()
    ask(tmp_path / "model")


def test_a_folder_that_is_there_is_not_built(tmp_path):
    make_folder(tmp_path / "model", lambda folder: None)
    assert build_folder(str(tmp_path / "model"), lambda folder: 1 / 0) == tmp_path / "model"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


# ---- JSON, hashes, names

SCALARS = st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(VALUES)
def test_plain_values_come_back_from_json(value):
    assert json.loads(to_json(plain(value))) == plain(value)
    assert plain(plain(value)) == plain(value)


@given(VALUES)
def test_what_is_written_is_strict_json(value):
    def refuse(name):
        pytest.fail(f"{name} is not JSON")

    for infinity in (False, True):
        assert json.loads(to_json(value, infinity=infinity), parse_constant=refuse) == plain(value, infinity=infinity)
        lines = to_jsonl([value, value], infinity=infinity).split("\n")
        assert [json.loads(line, parse_constant=refuse) for line in lines[:-1]] == [plain(value, infinity=infinity)] * 2


def test_infinity_can_be_kept_as_a_text_that_float_reads():
    kept = plain({"a": [math.inf, -math.inf, math.nan], "b": np.float32(-np.inf)}, infinity=True)
    assert kept == {"a": ["inf", "-inf", None], "b": "-inf"} and float(kept["b"]) == -math.inf
    assert plain(math.inf) is None


def test_plain_takes_numbers_of_other_libraries():
    value = {1: np.float32(0.5), "t": torch.tensor([[1, 2]]), "n": (np.nan, math.inf, torch.tensor(-math.inf)),
             "b": np.bool_(True)}
    assert plain(value) == {"1": 0.5, "t": [[1, 2]], "n": [None, None, None], "b": True}
    assert type(plain(np.int64(3))) is int and type(plain(torch.tensor(3.0))) is float


@given(st.dictionaries(st.text(), st.integers()), st.integers(4, 64))
def test_equal_content_has_equal_hashes_in_any_order(value, length):
    turned = dict(reversed(value.items()))
    assert content_hash(value, length=length) == content_hash(turned, length=length)
    assert len(content_hash(value, length=length)) == length and content_hash(value) != content_hash(value, 0)
    assert to_json(value) == to_json(turned)


@given(st.text())
def test_slugs_are_names(text):
    name = slug(text)
    assert slug(name) == name and set(name) <= set(string.ascii_letters + string.digits + "._=-")
    if 0 < len(name) <= 120:
        assert checked_name(name) == name


def test_half_of_a_character_is_written_as_its_number(tmp_path):
    """Python's `json` reads it back as it was."""
    value = {"text": "ü 中 \ud83d", "name": "\udcff"}
    written = write_atomic(tmp_path / "it.json", to_json(value)).read_bytes()
    assert json.loads(written) == value and b"\\ud83d" in written and "中".encode() in written


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".a", "a.", "a b", "a\n", "ä", "a" * 121, "CON", "nul",
                                  "com1.txt", "a:b", "a ", r"C:\models"])
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(UnlearnError, match="can't be used; take letters"):
        checked_name(name)


def test_the_cache_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    started = Path.cwd()
    monkeypatch.chdir(tmp_path)
    default = tmp_path / ".cache" / "unlearn_nb"
    for name, expected in [("~/there", tmp_path / "there"), ("", default), (" ", default), (str(tmp_path), tmp_path)]:
        monkeypatch.setenv("UNLEARN_NB_CACHE", name)
        assert cache_dir() == expected
    monkeypatch.setenv("UNLEARN_NB_CACHE", ".cache/near")
    assert cache_dir() == started / ".cache" / "near", "not in what the working directory has become"
    (started / ".cache" / "near").rmdir()


@pytest.mark.parametrize("caches, place", [("{}/xdg", "xdg/unlearn_nb"), ("relative", ".cache/unlearn_nb")])
def test_the_cache_follows_the_standard(monkeypatch, tmp_path, caches, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNLEARN_NB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", caches.format(tmp_path))
    assert cache_dir() == tmp_path / place


@pytest.mark.parametrize("home", ["/proc/nope", "{}/file"])
def test_a_temporary_cache_stands_in_for_a_home_that_cant_be_written(monkeypatch, tmp_path, capsys, home):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", home.format(tmp_path))
    monkeypatch.setenv("UNLEARN_NB_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == cache_dir() == private_folder() / "cache"
    assert capsys.readouterr().err.count("a temporary one stands in") == 1
    monkeypatch.setenv("UNLEARN_NB_CACHE", "~/mine")
    with pytest.raises(UnlearnError, match="UNLEARN_NB_CACHE names the folder '.*mine', which can't be made"):
        cache_dir()


def test_packaged_data_is_read_as_safe_yaml(tmp_path, monkeypatch):
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "words.yaml").write_text("words: [a, ü]\n", encoding="utf-8")
    (tmp_path / "some_package" / "wrong.yaml").write_text("!!python/object/apply:os.getcwd []")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_packaged("some_package", "words.yaml") == {"words": ["a", "ü"]}
    with pytest.raises(Exception, match="could not determine a constructor"):
        read_packaged("some_package", "wrong.yaml")
