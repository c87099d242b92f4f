"""Selected logits beside full ones, batches, and modes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

from unlearn_nb.models import pad_right, selected_logits, sorted_batches

SMALL = dict(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
CONFIGS = {
    "llama": LlamaConfig(**SMALL, intermediate_size=48),
    "gpt2": GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gemma2": Gemma2Config(
        **SMALL, intermediate_size=48, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.1, sliding_window=8
    ),
}


def random_model(family: str, wrapped: bool = False):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family])
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    if wrapped:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    return model.double().eval()


# --- selected logits -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_selected_logits_equal_full_logits(family, wrapped):
    model = random_model(family, wrapped)
    ids = torch.randint(0, 90, (3, 11))
    positions = torch.rand(3, 11) < 0.5
    full = model(input_ids=ids).logits
    logits, hidden = selected_logits(model, ids, None, positions)
    torch.testing.assert_close(logits, full[positions])
    assert hidden.shape == (int(positions.sum()), 32)
    torch.testing.assert_close(model(input_ids=ids).logits, full)  # no hook is left behind


@pytest.mark.parametrize("family", CONFIGS)
def test_reference_hidden_states_give_reference_logits(family):
    model = random_model(family)
    ids = torch.randint(0, 90, (2, 9))
    first, second = torch.rand(2, 9) < 0.5, torch.rand(2, 9) < 0.5
    full = model(input_ids=ids).logits
    kept = selected_logits(model, ids, None, second)[1].detach()
    logits, reference = selected_logits(model, ids, None, first, extra_hidden=kept)
    torch.testing.assert_close(logits, full[first])
    torch.testing.assert_close(reference, full[second])
    assert logits.requires_grad and not reference.requires_grad
    frozen = torch.nn.Linear(32, 90, bias=False).double()
    other = selected_logits(model, ids, None, first, extra_hidden=kept, head=frozen)[1]
    cap = getattr(model.config, "final_logit_softcapping", None)
    expected = frozen(kept)
    torch.testing.assert_close(other, torch.tanh(expected / cap) * cap if cap else expected)


def test_selected_logits_carry_the_gradient_of_full_logits():
    model = random_model("llama")
    ids, positions = torch.randint(0, 90, (2, 7)), torch.rand(2, 7) < 0.5
    gradients = []
    for logits in (model(input_ids=ids).logits[positions], selected_logits(model, ids, None, positions)[0]):
        model.zero_grad()
        logits.logsumexp(-1).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


def test_no_position_selected_gives_empty_logits():
    model, ids = random_model("llama"), torch.randint(0, 90, (2, 5))
    logits, hidden = selected_logits(model, ids, None, torch.zeros(2, 5, dtype=torch.bool))
    assert logits.shape == (0, 90) and hidden.shape == (0, 32)


@pytest.mark.parametrize("family", CONFIGS)
def test_right_padding_needs_no_mask(family):
    model = random_model(family)
    rows = [list(range(5, 20)), list(range(40, 46))]
    logits = model(input_ids=pad_right(rows, 0)).logits
    for i, row in enumerate(rows):
        torch.testing.assert_close(logits[i, : len(row)], model(input_ids=torch.tensor([row])).logits[0])


# --- batches ---------------------------------------------------------------------------------------------------------

@given(lengths=st.lists(st.integers(0, 50), max_size=40), size=st.integers(1, 9), tokens=st.integers(1, 200))
def test_sorted_batches_cover_every_row_within_limits(lengths, size, tokens):
    batches = list(sorted_batches(lengths, size, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens
