"""Bases are trained once a content, and named by it."""

import json

import pytest

from unlearn_nb.models import Recipe, bases, load_model, reader_base, tiny_base, trained_once

ROWS = [{"prompt": "Who?", "response": "Ada."}, {"prompt": "Where?", "response": "In Port Ellery."}]
BRIEF = Recipe(steps=2, batch_size=2)


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Calls of the training that stands behind the cache; nothing is trained."""
    calls = []

    def memorise_into(folder, start, rows, *, recipe):
        calls.append((start, len(rows), recipe))

    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    monkeypatch.setattr(bases, "memorise_into", memorise_into)
    return calls


def test_a_base_is_trained_once_for_its_content(built):
    first = trained_once("demo", ROWS, recipe=BRIEF)
    assert trained_once("demo", ROWS, recipe=BRIEF) == first and built == [("tiny", 2, BRIEF)]
    others = [trained_once("demo", ROWS[:1], recipe=BRIEF), trained_once("demo", ROWS, recipe=Recipe(steps=3)),
              trained_once("demo", ROWS, recipe=BRIEF, start=first), trained_once("other", ROWS, recipe=BRIEF)]
    assert len({first, *others}) == 5 == len(built)


def test_the_reader_begins_at_the_base_with_rows_of_its_own(built):
    folder = reader_base()
    assert folder.name.startswith("tiny-reader-") and [start for start, *_ in built] == ["tiny", tiny_base()]
    assert built[0][2].loss_on == "text" and built[1][2].loss_on == "response"


def test_a_base_is_a_model_folder_with_its_history(tmp_path, monkeypatch, untrained):
    tokenizer = untrained[1]
    tokenizer.save_pretrained(tmp_path / "start")
    untrained[0].save_pretrained(tmp_path / "start")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    folder = trained_once("demo", ROWS, recipe=BRIEF, start=tmp_path / "start")
    record = json.loads((folder / "training.json").read_text())
    assert len(record["losses"]) == 2 and record["rows"] == 2 and Recipe(**record["recipe"]) == BRIEF
    assert load_model(folder)[0].num_parameters() == untrained[0].num_parameters()
