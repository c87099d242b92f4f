"""Models that are attacked, and their weights bit by bit."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.arange(2, 14)[None]
SIZES = dict(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)


def llama(tied=True):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


def bits(tensor):
    """A copy that also tells -0.0 from 0.0."""
    return tensor.detach().clone().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def state(model):
    return {name: bits(tensor) for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
