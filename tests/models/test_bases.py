"""Bases are trained once a content, and named by it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from unlearn_nb.models import (
    PRETRAINING,
    Recipe,
    base_ingredients,
    bases,
    load_model,
    memorise,
    packed_base,
    pretraining_rows,
    reader_base,
    sequence_nll,
    tiny_base,
    trained_once,
)

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
    assert folder.name.startswith("tiny-reader-") and [start for start, *_ in built] == [tiny_base()]
    assert built[0][2].loss_on == "response"


def test_the_base_in_the_package_is_made_of_what_the_recipe_says():
    said = json.loads((packed_base() / "ingredients.json").read_text())["ingredients"]
    assert said == base_ingredients(), "rows, recipe or tokeniser changed: python tools/tiny_base.py --write"
    record = json.loads((packed_base() / "training.json").read_text())
    assert Recipe(**record["recipe"]) == PRETRAINING and len(record["losses"]) == PRETRAINING.steps
    assert record["rows"] == len(pretraining_rows())


def test_the_recipe_of_the_base_begins_as_it_did_and_the_weights_are_where_it_ended(tmp_path, monkeypatch):
    losses = json.loads((packed_base() / "training.json").read_text())["losses"]
    rates, rows, few = Recipe.rates, pretraining_rows(), 5
    monkeypatch.setattr(Recipe, "rates", lambda recipe, n_rows: rates(recipe, n_rows)[:few])
    model, tokenizer = load_model("tiny")
    begun = memorise(model, tokenizer, rows, recipe=PRETRAINING, progress=False)
    assert begun == pytest.approx(losses[:few], rel=1e-3)  # rounding differs between machines
    ended = sequence_nll(*load_model(tiny_base()), rows[::20]).mean()
    assert ended == pytest.approx(sum(losses[-20:]) / 20, rel=0.05)


def test_the_base_is_read_as_it_lies_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    folder = tiny_base()
    assert folder.parent == tmp_path and tiny_base() == folder
    model, tokenizer = load_model(folder)
    kept = load_file(packed_base() / "model.safetensors")
    assert model.dtype == torch.float32 and {weight.dtype for weight in kept.values()} == {torch.bfloat16}
    assert all(torch.equal(model.state_dict()[name], weight.float()) for name, weight in kept.items())
    assert tokenizer.get_vocab() == load_model("tiny")[1].get_vocab()


def test_a_base_is_a_model_folder_with_its_history(tmp_path, monkeypatch, untrained):
    tokenizer = untrained[1]
    tokenizer.save_pretrained(tmp_path / "start")
    untrained[0].save_pretrained(tmp_path / "start")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    folder = trained_once("demo", ROWS, recipe=BRIEF, start=tmp_path / "start")
    record = json.loads((folder / "training.json").read_text())
    assert len(record["losses"]) == 2 and record["rows"] == 2 and Recipe(**record["recipe"]) == BRIEF
    assert load_model(folder)[0].num_parameters() == untrained[0].num_parameters()
