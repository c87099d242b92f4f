"""Toy models: the same for the same seed, and no trace in the global random state."""

import subprocess
import sys

import pytest
import torch

from unlearn_nb.core import TOY_SIZES, toy_adapter, toy_llama, toy_tokenizer

IDS = torch.arange(3, 12)[None]


@pytest.mark.parametrize("seed", [0, 7])
def test_models_and_adapters_are_the_same_for_the_same_seed(seed):
    logits = [toy_adapter(toy_llama(seed), seed)(IDS).logits for _ in range(2)]
    assert torch.equal(*logits)
    assert not torch.equal(toy_llama(seed)(IDS).logits, toy_llama(seed + 1)(IDS).logits)
    assert not torch.allclose(logits[0], toy_llama(seed)(IDS).logits)


def test_the_global_random_state_stays():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    toy_adapter(toy_llama(5))
    assert torch.equal(torch.rand(2), wanted)


def test_sizes_can_be_given():
    model = toy_llama(hidden_size=16, num_hidden_layers=3)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (16, 3)
    assert model.config.vocab_size == TOY_SIZES["vocab_size"] == len(toy_tokenizer())
    assert toy_adapter(model, r=2, target_modules=["q_proj"]).peft_config["default"].r == 2


def test_words_come_back():
    tokenizer = toy_tokenizer(10)
    assert tokenizer.decode(tokenizer("w3 w9").input_ids) == "w3 w9" and len(tokenizer) == 13


def test_core_loads_neither_torch_nor_transformers():
    code = ("import sys, unlearn_nb.core as core; [getattr(core, name) for name in core.__all__]; "
            "print({'torch', 'transformers'} & {*sys.modules})")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
