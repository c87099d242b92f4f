"""A cache of answers gives back what was stored: a damaged one is set aside, a damaged answer asked for anew."""

import os
import sqlite3
from pathlib import Path

import pytest

from unlearn_nb.augmentation import writers
from unlearn_nb.core import UnlearnError


def answers(path: Path) -> Path:
    """A cache of fifty answers."""
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
