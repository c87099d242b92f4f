"""Rounding against PyTorch's own, and weights restored bit for bit."""

import pytest
import torch
from attacking import IDS, SIZES, llama, same, state
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from unlearn_nb.attacks import CODES, LEVELS, PRECISIONS, at_precision, changed_codes, round_weight, rounded_parameters
from unlearn_nb.core import UnlearnError


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=32)).eval()


def lora(tied=True, **options):
    torch.manual_seed(1)
    config = LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False, **options)
    return get_peft_model(llama(tied), config).eval()


MODELS = {
    "llama": llama,
    "llama, untied": lambda: llama(False),
    "gpt2": gpt2,
    "bfloat16": lambda: llama().to(torch.bfloat16),
    "lora": lora,
    "dora": lambda: lora(use_dora=True),
    "lora with head": lambda: lora(False, modules_to_save=["lm_head"]),
    "bfloat16 lora": lambda: lora().to(torch.bfloat16),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_come_back_bit_for_bit(name, precision):
    model = MODELS[name]()
    with torch.no_grad():
        next(model.parameters()).view(-1)[:2] = torch.tensor([-0.0, 0.0])
    before, logits = state(model), model(IDS).logits
    with at_precision(model, precision) as rounded:
        assert rounded is model
        changed = model(IDS).logits
    assert same(before, state(model)) and torch.equal(model(IDS).logits, logits)
    exact = [("bfloat16", "bfloat16"), ("bfloat16", "bfloat16 lora"), ("float16", "bfloat16")]
    assert torch.equal(changed, logits) == (precision == "float32" or (precision, name) in exact)


@pytest.mark.parametrize("precision", ["bfloat16", "int4"])
def test_weights_come_back_after_an_error(precision):
    model = lora()
    before = state(model)
    with pytest.raises(ZeroDivisionError), at_precision(model, precision):
        1 / 0
    assert same(before, state(model)) and not any(getattr(m, "merged", False) for m in model.modules())


def test_uses_nest():
    model = llama()
    before = state(model)
    with at_precision(model, "bfloat16"):
        half = state(model)
        with at_precision(model, "int4"):
            assert not same(half, state(model))
        assert same(half, state(model))
    assert same(before, state(model))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_float_types_equal_a_model_loaded_in_that_type(precision):
    model, loaded = llama(), llama().to(getattr(torch, precision))
    with at_precision(model, precision):
        for (name, weight), (_, other) in zip(model.named_parameters(), loaded.named_parameters()):
            assert torch.equal(weight, other.float()), name


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8", "int4", "nf4"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_an_adapter_is_rounded_as_merged(precision, options):
    model, merged = lora(**options), lora(**options).merge_and_unload()
    with at_precision(model, precision), at_precision(merged, precision):
        assert torch.equal(model(IDS).logits, merged(IDS).logits)


def test_an_adapter_merged_or_switched_off_by_the_caller_stays_so():
    model = lora()
    with model.disable_adapter(), at_precision(model, "int8"):
        off = model(IDS).logits
    base = llama()
    with at_precision(base, "int8"):
        torch.testing.assert_close(off, base(IDS).logits)
    model.merge_adapter()
    before = state(model)
    with at_precision(model, "int8"):
        pass
    assert same(before, state(model)) and all(m.merged for m in model.modules() if hasattr(m, "merged"))


def test_every_linear_layer_is_rounded_and_nothing_else():
    """A head that is tied to the embedding is a layer of its own meanwhile: the embedding stays as it is."""
    for model in (llama(False), llama(True), gpt2()):
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        before |= {"lm_head.weight": model.get_output_embeddings().weight.clone()}
        with at_precision(model, "int4"):
            inside = dict(model.named_parameters())
            moved = {name for name, weight in inside.items() if not torch.equal(weight, before[name])}
            assert moved == {name for name, _, _ in rounded_parameters(model, "int4")}
        kinds = ("proj.weight", "c_attn.weight", "c_fc.weight", "lm_head.weight")
        assert moved == {name for name in before if name.endswith(kinds)} and set(inside) == set(before)


def test_a_transposed_layer_is_rounded_by_output():
    model = gpt2()
    layer = model.transformer.h[0].mlp.c_fc
    before = layer.weight.detach().clone()  # [in, out]
    with at_precision(model, "int8"):
        assert torch.equal(layer.weight, round_weight(before.T, "int8").T)
        assert not torch.equal(layer.weight, round_weight(before, "int8"))


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_layer_can_be_left_out(tied):
    for model in (llama(tied), lora(tied)):
        head = model.get_output_embeddings().weight.detach().clone()
        with at_precision(model, "int4", head=False):
            assert torch.equal(model.get_output_embeddings().weight, head)
        with at_precision(model, "int4"):
            assert not torch.equal(model.get_output_embeddings().weight, head)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 150), st.sampled_from(list(LEVELS)), st.integers(1, 70), st.integers(0, 10**6),
       st.sampled_from([1e-30, 1e-4, 1.0, 1e30]))
def test_rounding_error_is_at_most_half_a_level(rows, columns, precision, group, seed, size):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    rounded = round_weight(weight, precision, group=group)
    assert rounded.shape == weight.shape and torch.isfinite(rounded).all() and not rounded[0].any()
    width = group if precision == "int4" else columns
    for start in range(0, columns, width):
        block, new = weight[:, start : start + width], rounded[:, start : start + width]
        scale = block.abs().amax(1, keepdim=True) / LEVELS[precision]
        assert ((new - block).abs() <= 0.5001 * scale).all()
        assert all(len(row.unique()) <= 2 * LEVELS[precision] + 1 for row in new)
    torch.testing.assert_close(round_weight(rounded, precision, group=group), rounded, rtol=1e-5, atol=0)


@pytest.mark.parametrize("precision,group", [("int8", 64), ("int4", 32)])
def test_rounding_agrees_with_pytorch(precision, group):
    torch.manual_seed(3)
    weight = torch.randn(40, 96)
    blocks = weight if precision == "int8" else weight.reshape(-1, group)
    top, zero = LEVELS[precision], torch.zeros(len(blocks), dtype=torch.int32)
    scale = blocks.abs().amax(1) / top
    expected = torch.fake_quantize_per_channel_affine(blocks, scale, zero, 0, -top, top).reshape(weight.shape)
    torch.testing.assert_close(round_weight(weight, precision, group=group), expected, atol=1e-6, rtol=0)


def test_a_zero_weight_and_smallest_numbers_survive():
    assert not round_weight(torch.zeros(3, 5), "int4").any()
    assert torch.isfinite(round_weight(torch.full((2, 4), 1e-45), "int8")).all()


def test_what_can_not_be_rounded_is_refused():
    model = llama()
    with pytest.raises(UnlearnError, match="did you mean 'bfloat16'"), at_precision(model, "bfloat"):
        pass
    before = state(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    large = state(model)
    with pytest.raises(UnlearnError, match=r"layers.1.mlp.up_proj.weight doesn't fit into float16.*1e\+06"):
        with at_precision(model, "float16"):
            pass
    assert same(large, state(model)) and not same(before, large)
    stored = llama(False)
    stored.lm_head.weight = torch.nn.Parameter(torch.ones(97, 32, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UnlearnError, match="lm_head.weight is torch.uint8 already"), at_precision(stored, "int8"):
        pass
    experts = MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=4, num_local_experts=2))
    with pytest.raises(UnlearnError, match="experts.*is no matrix"), at_precision(experts, "int8"):
        pass
    with at_precision(experts, "bfloat16"):
        pass


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("make", [llama, gpt2], ids=["llama", "gpt2"])
def test_rounding_a_tied_output_layer_leaves_the_embedding_alone(make, precision):
    model, apart = make(), make()
    apart.lm_head.weight = torch.nn.Parameter(apart.lm_head.weight.detach().clone())
    embedding = model.get_input_embeddings().weight.detach().clone()
    with at_precision(model, precision), at_precision(apart, precision):
        assert torch.equal(model.get_input_embeddings().weight, embedding)
        assert torch.equal(model(IDS).logits, apart(IDS).logits)
    assert model.lm_head.weight is model.get_input_embeddings().weight and model.config.tie_word_embeddings


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_an_adapter_on_a_tied_output_layer_is_rounded_as_merged_into_it_alone(precision):
    def on_the_head(tied):
        torch.manual_seed(1)
        model = llama(tied)
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
        return get_peft_model(model, LoraConfig(target_modules=["lm_head"], r=4, init_lora_weights=False)).eval()

    torch.manual_seed(2)
    model, apart = on_the_head(True), on_the_head(False)
    apart.load_state_dict({k: v for k, v in model.state_dict().items()})
    before = state(model)
    with at_precision(model, precision), at_precision(apart, precision):
        assert torch.equal(model(IDS).logits, apart(IDS).logits)
    assert same(before, state(model))


# ---------------------------------------------------------------- code books of 4 bits

NF4 = [-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0, 0.0795803, 0.1609302, 0.2461123,
       0.3379152, 0.4407098, 0.5626170, 0.7229568, 1]  # Dettmers et al. 2023, appendix E
FP4 = [0.0052083, 0.1666667, 0.25, 0.3333333, 0.5, 0.6666667, 1]


def test_the_levels_are_the_published_ones():
    assert len(CODES["nf4"]) == 16
    torch.testing.assert_close(torch.tensor(CODES["nf4"]), torch.tensor(NF4).float(), atol=1e-7, rtol=0)
    signed = [*(-level for level in FP4[::-1]), 0, *FP4]
    torch.testing.assert_close(torch.tensor(CODES["fp4"]), torch.tensor(signed).float(), atol=1e-7, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 150), st.sampled_from(list(CODES)), st.integers(1, 70), st.integers(0, 10**6),
       st.sampled_from([1e-30, 1e-4, 1.0, 1e30]))
def test_a_code_book_gives_the_nearest_level_of_every_block(rows, columns, precision, group, seed, size):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    rounded = round_weight(weight, precision, group=group)
    assert rounded.shape == weight.shape and torch.equal(round_weight(rounded, precision, group=group), rounded)
    levels = torch.tensor(CODES[precision])
    for block, new in zip(weight.flatten().split(group), rounded.flatten().split(group)):
        grid = levels * block.abs().max()
        best = (block[:, None] - grid).abs().min(1).values
        torch.testing.assert_close((new - block).abs(), best, rtol=1e-4, atol=1e-6 * float(grid.max()))
        assert new.abs().max() == block.abs().max()


@pytest.mark.parametrize("precision", CODES)
def test_points_of_the_grid_stay_exactly(precision):
    levels = torch.tensor(CODES[precision]).repeat(1, 5)[:, :64]
    weight = torch.cat([levels, 0.37 * levels, 3e-5 * levels.flip(1)])
    assert torch.equal(round_weight(weight, precision), weight)
    assert not round_weight(torch.zeros(3, 5), precision).any()


def test_nf4_loses_less_of_gaussian_weights_than_int4():
    """And FP4 more than NF4: at the same four bits and blocks of 64."""
    weight = torch.randn(64, 640, generator=torch.Generator().manual_seed(0))
    error = {name: float((round_weight(weight, name) - weight).norm()) for name in ("nf4", "int4", "fp4", "int8")}
    assert error["int8"] < error["nf4"] < 0.95 * error["int4"] and error["nf4"] < error["fp4"]


def test_a_code_book_reads_a_matrix_as_it_is_multiplied():
    """Of a layer that is stored [in, out] the blocks run along the inputs, as in the layer turned round."""
    layer = gpt2().transformer.h[0].mlp.c_fc
    turned = layer.weight.detach().T.contiguous()
    model = gpt2()
    with at_precision(model, "nf4"):
        assert torch.equal(model.transformer.h[0].mlp.c_fc.weight, round_weight(turned, "nf4").T)


@pytest.mark.parametrize("precision", [*LEVELS, *CODES])
def test_changed_codes_are_counted(precision):
    """One changed code among all; an untouched model and a mere change of scale have none; adapters are merged."""
    model, moved = llama(), llama()
    weight = moved.model.layers[0].self_attn.q_proj.weight
    place = int(weight[0].abs().argmin())
    with torch.no_grad():
        weight[0, place] = 0.6 * weight[0].abs().max()
    total = sum(p.numel() for p in llama(False).parameters() if p.ndim == 2) - model.model.embed_tokens.weight.numel()
    assert changed_codes(model, model, precision) == 0
    assert changed_codes(moved, model, precision) == pytest.approx(1 / total)
    with torch.no_grad():
        weight.copy_(model.model.layers[0].self_attn.q_proj.weight * 2)
    assert changed_codes(moved, model, precision) == 0
    adapted = lora()
    before = state(adapted)
    assert changed_codes(adapted, model, precision) == changed_codes(lora().merge_and_unload(), model, precision) > 0
    assert same(before, state(adapted))


def test_codes_of_unlike_models_and_of_float_types_are_refused():
    with pytest.raises(UnlearnError, match="bfloat16 has no codes to compare"):
        changed_codes(llama(), llama(), "bfloat16")
    with pytest.raises(UnlearnError, match="different weights"):
        changed_codes(llama(), gpt2(), "nf4")
