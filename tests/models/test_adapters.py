"""Adapter folders: scaling as peft has it, and damage told in one sentence."""
import math
import shutil
from pathlib import Path

import pytest
import torch
from adapter_toys import llama, write_adapter
from peft import PeftModel
from safetensors.torch import load_file, save_file

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import read_adapter

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "one", 0).parent


def test_scaling_follows_pefts_patterns(tmp_path):
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}
    write_adapter(tmp_path / "a", 0, r=4, lora_alpha=8, **patterns)
    adapter = read_adapter(tmp_path / "a")
    model = PeftModel.from_pretrained(llama(), tmp_path / "a").get_base_model()
    for module in adapter.modules:
        assert adapter.scaling(module) == model.get_submodule(module).scaling["default"]
    assert len({adapter.scaling(module) for module in adapter.modules}) == 3


def test_damaged_folders_get_one_sentence(folder, tmp_path):
    def copy(name):
        return Path(shutil.copytree(folder / "one", tmp_path / name))

    (copy("no_config") / "adapter_config.json").unlink()
    (copy("no_tensors") / "adapter_model.safetensors").unlink()
    (copy("cut_config") / "adapter_config.json").write_text('{"r": 8')
    (copy("cut_tensors") / "adapter_model.safetensors").write_bytes(b"\x10")
    tensors = load_file(copy("nan") / "adapter_model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * math.nan}, tmp_path / "nan" / "adapter_model.safetensors")
    copy("half")
    del tensors[name]
    save_file(tensors, tmp_path / "half" / "adapter_model.safetensors")
    for case, message in {"no_config": "has no adapter_config.json", "no_tensors": "has no adapter_model.safetensors",
                          "cut_config": "damaged", "cut_tensors": "damaged", "nan": "NaN or infinite",
                          "half": "only one factor"}.items():
        with pytest.raises(UnlearnError, match=message) as caught:
            read_adapter(tmp_path / case)
        assert case in str(caught.value) and "\n" not in str(caught.value)
