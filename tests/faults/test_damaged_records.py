"""Results that were cut or edited are refused, and remembered hashes are believed only while they hold."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from artefacts import fill

from unlearn_nb.core import (
    UnlearnError,
    build_folder,
    damage,
    file_hash,
    identity,
    make_folder,
    read_record,
    write_record,
)
from unlearn_nb.metrics import Scores

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


@pytest.mark.parametrize("text", ["", "0", "f" * 64, "f" * 64 + " " + "0" * 12, "\xff"])
def test_a_hash_entry_that_was_cut_or_garbled_is_not_believed(tmp_path, own_cache, monkeypatch, text):
    monkeypatch.setattr(identity, "SETTLED", -10**18)
    (tmp_path / "file").write_text("content")
    found = file_hash(tmp_path / "file")
    (entry,) = (own_cache / "hashes").iterdir()
    entry.write_text(text, encoding="latin-1")
    assert file_hash(tmp_path / "file") == found and entry.read_text().startswith(found)


def test_an_entry_in_the_shape_of_a_folder_is_replaced(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(identity, "SETTLED", -10**18)
    (tmp_path / "file").write_text("content")
    found = file_hash(tmp_path / "file")
    (entry,) = (own_cache / "hashes").iterdir()
    entry.unlink()
    entry.mkdir()
    assert file_hash(tmp_path / "file") == found and entry.is_file()


def test_what_was_sealed_is_not_read_again_by_its_next_user(tmp_path, monkeypatch, own_cache):
    folder = build_folder(tmp_path / "model", fill)
    os.utime(folder / "part/rows.jsonl")  # its times have changed, so it is read; the others are not
    read = []
    monkeypatch.setattr(identity, "_read_hash", lambda path, do=identity._read_hash: read.append(path) or do(path))
    assert not damage(folder) and read == [folder / "part/rows.jsonl"]


def test_a_hash_is_kept_only_where_a_later_write_would_show(tmp_path, monkeypatch, own_cache):
    """A file system may count whole seconds: the manifest is then as old as the files."""
    stat = Path.stat

    def coarse(path: Path, **options) -> os.stat_result:
        found = list(stat(path, **options).__reduce__()[1][0])
        return os.stat_result(found, {"st_mtime_ns": 10**9, "st_ctime_ns": 10**9})

    monkeypatch.setattr(Path, "stat", coarse)
    make_folder(tmp_path / "model", fill)
    assert not (own_cache / "hashes").exists()
