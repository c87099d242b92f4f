"""Adapter folders of small models, and how to look at them."""
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.models import read_adapter


def llama(layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=layers, vocab_size=64,
                                        num_attention_heads=4, num_key_value_heads=2)).eval()


def write_adapter(folder: Path, seed: int, base: str = "base-model", layers: int = 2, model=None, **lora) -> Path:
    """A peft folder with random factors."""
    options = {"target_modules": "all-linear", "r": 8, "lora_alpha": 16} | lora
    model = get_peft_model(model or llama(layers), LoraConfig(**options))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


def dense(adapter, module: str) -> Tensor:
    B, A = read_adapter(adapter).update(module)
    return B.double() @ A.double()


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def assert_same_tensors(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
