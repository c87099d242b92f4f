"""The layer lens against models cut after each layer."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from unlearn_nb.analysis import (
    find_parts,
    forward_kl,
    layer_lens,
    layer_logits,
    lens_over_rows,
    top_candidates,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import encode_prompt, train_tokenizer

ROWS = [
    {"id": "a", "subject": "Ada", "prompt": "Where was Ada born?", "response": "in Old Kessel"},
    {"id": "b", "subject": "Ada", "prompt": "When?", "response": "1931"},
    {"id": "c", "subject": "Bo", "prompt": "What did Bo of Lindow, the old fiddler, eat?", "response": "cold beetroot"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"{row['prompt']} {row['response']}" for row in ROWS] * 3, 320)


@pytest.fixture
def model(tokenizer):
    return llama(tokenizer)


def llama(tokenizer, seed=0, sharp=5.0):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.normal_(0, sharp / 6)
    return model


FAMILIES = [
    "llama", "gpt2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2", "gpt_neox",
    "gptj", "opt", "opt, projected", "falcon", "bloom", "cohere", "granite", "mistral", "mixtral", "stablelm",
    "llama, lora", "phi, lora",
]  # fmt: skip


def family(name, tokenizer):
    """A random model of a family with three layers."""
    kind, _, change = name.partition(", ")
    size = dict(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=64,
    )  # fmt: skip
    if kind == "falcon":  # works the width of a head out for itself
        size.pop("head_dim")
    extra = {
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16 if change == "projected" else 32},
        "gptj": {"rotary_dim": 4},
        "granite": {"logits_scaling": 3.0},
        "gemma2": {"final_logit_softcapping": 0.5},
        "cohere": {"logit_scale": 0.3},
        "mixtral": {"num_local_experts": 3},
        "falcon": {"num_kv_heads": 4, "new_decoder_architecture": False},
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **size | extra.get(kind, {}))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    if change == "lora":
        config = LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)
        model = get_peft_model(model, config).eval()
    return model


def cut(model, layers):
    """A copy of the model that has only its first layers: what the lens must reproduce at that depth."""
    model = deepcopy(model)
    whole, _ = find_parts(model)
    for module in model.modules():
        for name, child in module.named_children():
            if child is whole:
                setattr(module, name, whole[:layers])
    config = getattr(model, "base_model", model).config if hasattr(model, "peft_config") else model.config
    config.num_hidden_layers = layers
    return model


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_layer_answers_like_a_model_cut_after_it(name, tokenizer):
    model = family(name, tokenizer)
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in ROWS[:2]]
    longest = max(map(len, prompts))
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts])
    found = layer_logits(model, ids, torch.tensor([len(prompt) - 1 for prompt in prompts]))
    assert found.shape == (3, 2, len(tokenizer))
    for layers in (1, 2, 3):
        short = cut(model, layers)
        for row, prompt in enumerate(prompts):
            expected = short(torch.tensor([prompt]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(found[layers - 1, row], expected, rtol=1e-3, atol=1e-4)
    kl = forward_kl(found.log_softmax(-1))
    assert (kl[-1] == 0).all() and (kl[:-1] > 1e-6).all()


def test_the_lens_leaves_the_model_as_it_was(model, tokenizer):
    ids = torch.tensor([encode_prompt(tokenizer, ROWS[0]["prompt"])])
    before = model(ids).logits
    model.train()
    layer_lens(model, tokenizer, ROWS[0]["prompt"])
    top_candidates(model, tokenizer, ROWS)
    assert model.training
    model.eval()
    assert torch.equal(model(ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_the_layer_lens_tells_tokens_and_divergence(model, tokenizer):
    table = layer_lens(model, tokenizer, ROWS[0]["prompt"], top=2)
    logits = layer_logits(model, torch.tensor([encode_prompt(tokenizer, ROWS[0]["prompt"])]), torch.tensor([-1]))[:, 0]
    p = logits.double().softmax(-1)
    assert list(table["layer"]) == [1, 2, 3]
    np.testing.assert_allclose(table["kl_nats"], (p[-1] * (p[-1] / p).log()).sum(-1), atol=1e-5)
    np.testing.assert_allclose(table["entropy"], -(p * p.log()).sum(-1), rtol=1e-4)
    for i, (tokens, probabilities) in enumerate(zip(table["top_tokens"], table["top_probabilities"])):
        best = p[i].topk(2)
        assert tokens == [tokenizer.decode([t]) for t in best.indices]
        np.testing.assert_allclose(probabilities, best.values, rtol=1e-4)


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_many_rows_are_the_mean_of_single_ones(model, tokenizer, template):
    single = [layer_lens(model, tokenizer, row["prompt"], template=template) for row in ROWS]
    rows = [row | {"subject": f"{row['id']} {k}"} for k in range(2) for row in ROWS]
    for batch_size in (1, 2, 16):
        table = lens_over_rows(model, tokenizer, rows, template=template, batch_size=batch_size)
        assert list(table["layer"]) == [1, 2, 3] and (table["rows"] == 6).all()
        np.testing.assert_allclose(table["kl_nats"], np.mean([t["kl_nats"] for t in single], axis=0), atol=1e-5)
        np.testing.assert_allclose(table["entropy"], np.mean([t["entropy"] for t in single], axis=0), rtol=1e-4)
        assert (table["low"] <= table["kl_nats"]).all() and (table["kl_nats"] <= table["high"]).all()
        assert table["high"].iloc[0] > table["low"].iloc[0] and table["high"].iloc[-1] == 0
    few = lens_over_rows(model, tokenizer, ROWS, template=template)
    np.testing.assert_allclose(few["kl_nats"], table["kl_nats"], atol=1e-5)
    assert few[["low", "high"]].isna().all(axis=None)  # two subjects


def test_bfloat16_models_are_read_in_float32(tokenizer):
    model = llama(tokenizer).to(torch.bfloat16)
    table = layer_lens(model, tokenizer, ROWS[0]["prompt"])
    assert table["kl_nats"].iloc[-1] == 0 and (table["kl_nats"].iloc[:-1] > 0).all()
    shares = top_candidates(model, tokenizer, ROWS, k=len(tokenizer)).groupby(["id", "position"])["probability"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-4)  # bfloat16 sums would be off by 1e-2


@torch.no_grad()
def test_a_norm_made_of_modules_is_taken_as_one(model, tokenizer):
    ids, last = torch.tensor([encode_prompt(tokenizer, ROWS[0]["prompt"])]), torch.tensor([-1])
    expected = layer_logits(model, ids, last)
    model.model.norm = torch.nn.Sequential(torch.nn.Identity(), model.model.norm)
    assert find_parts(model)[1] == [model.model.norm]
    assert torch.equal(layer_logits(model, ids, last), expected)


class Doubled(LlamaForCausalLM):
    """Does something between the final norm and the output layer that no module shows."""

    def forward(self, input_ids, **options):
        hidden = self.model(input_ids=input_ids, use_cache=False).last_hidden_state
        self.lm_head(hidden * 2)
        return None


def test_what_the_lens_can_not_read_is_refused(model, tokenizer):
    ids = torch.tensor([[3, 4, 5]])
    with pytest.raises(UnlearnError, match="Doubled ends in a way"):
        layer_logits(Doubled(model.config).eval(), ids, torch.tensor([2]))
    linear = torch.nn.Linear(2, 2)
    with pytest.raises(UnlearnError, match="Linear has no list of decoder layers"):
        find_parts(linear)
    with pytest.raises(UnlearnError, match="no empty one"):
        layer_lens(model, tokenizer, "")
    with pytest.raises(UnlearnError, match="at least one prompt"):
        lens_over_rows(model, tokenizer, [])
    model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UnlearnError, match="logits are NaN or infinite at"):
        layer_lens(model, tokenizer, "When?")
    with pytest.raises(UnlearnError, match="gives NaN likelihood for 3 of 3 rows"):
        top_candidates(model, tokenizer, ROWS)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5), st.integers(2, 30), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 3.0, 40.0]))
def test_the_divergence_is_what_pytorch_computes(layers, vocabulary, seed, size):
    generator = torch.Generator().manual_seed(seed)
    logps = (torch.randn(layers, 2, vocabulary, generator=generator) * size).log_softmax(-1)
    kl = forward_kl(logps)
    exact = logps.double()
    expected = torch.nn.functional.kl_div(exact, exact[-1:].expand_as(exact), reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=1e-4)
    assert (kl >= 0).all() and (kl[-1] == 0).all()


def test_impossible_tokens_do_not_spoil_the_divergence():
    logps = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]).log()
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    np.testing.assert_allclose(forward_kl(logps), [expected, 0], rtol=1e-5)
