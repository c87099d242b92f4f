"""A model or adapter saved over another: after a kill one of the two is there, with its own configuration."""

import json

from artefacts import killed_at
from safetensors.torch import load_file

from unlearn_nb.core import sweep, toy_adapter, toy_llama
from unlearn_nb.models import Origin, save_adapter, save_model


def test_saving_a_model_is_killed(tmp_path):
    """The old model or the new one, with its own configuration; never the weights of one in the shape of the other."""
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
    toy_llama().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    (tmp_path / "model" / "notes.md").write_text("mine")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    save_model(toy_llama(), tmp_path / "model", origin=Origin("toy"))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {name for name in names if "safetensors" in name} == {"model.safetensors"} and "notes.md" in names
