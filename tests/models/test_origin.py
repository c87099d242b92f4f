"""A model is known by its content: every file that is loaded counts, and nothing else."""

import json
import os

import pytest

from unlearn_nb.core import counted, listen_to_steps
from unlearn_nb.models import model_identity, origin, save_adapter, training_key
from unlearn_nb.models.adapters import add_lora
from unlearn_nb.models.memorisation import Recipe


@pytest.fixture
def folder(tmp_path, untrained):
    for part in untrained:
        part.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_an_edit_of_the_same_size_and_time_is_seen(folder, file):
    before, path = model_identity(folder), folder / file
    times, content = (path.stat().st_atime_ns, path.stat().st_mtime_ns), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert model_identity(folder) != before


@pytest.mark.parametrize("name", ["README.md", ".cache", "checkpoint-10/model.safetensors"])
def test_what_is_not_loaded_does_not_count(folder, name):
    before = model_identity(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("more")
    assert model_identity(folder) == before


def test_an_adapter_follows_its_base(folder, tmp_path, untrained):
    adapter = save_adapter(add_lora(untrained[0], 2, seed=0), tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(folder)}))
    before = model_identity(adapter)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert model_identity(adapter) != before


def test_a_hub_model_is_its_full_name_and_its_commit(monkeypatch):
    commits = {"org1/llama": "1" * 40, "org2/llama": "1" * 40}
    monkeypatch.setattr(origin, "hub_commit", commits.get)
    first = model_identity("org1/llama")
    assert first != model_identity("org2/llama")
    commits["org1/llama"] = "2" * 40
    assert model_identity("org1/llama") != first


def test_every_input_of_a_training_is_in_its_key():
    row, recipe = {"prompt": "Who?", "response": "Ada."}, Recipe(steps=2)
    keys = [training_key("tiny", [row], recipe=recipe), training_key("tiny", [row, row], recipe=recipe),
            training_key("tiny", [row | {"response": "Aда."}], recipe=recipe),
            training_key("tiny", [row], recipe=Recipe(steps=2, seed=1)),
            training_key("tiny", [row], recipe=recipe, template="chat"), training_key("org/m", [row], recipe=recipe)]
    assert len(set(keys)) == len(keys) and keys[0] == training_key("tiny", [row | {"id": "1"}], recipe=recipe)


def test_a_key_does_not_depend_on_who_listens_to_loops():
    rows, recipe = [{"prompt": "a", "response": "b"}], Recipe(steps=1)
    before = training_key("tiny", rows, recipe=recipe)
    listen_to_steps(lambda steps: None)
    try:
        loop = counted("ab", "train", 2)
        next(loop)
        assert training_key("tiny", rows, recipe=recipe) == before
    finally:
        listen_to_steps(None)
