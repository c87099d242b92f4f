"""What weights are made of: value vectors, those of experts among them, single weights, tensors."""

import pytest
import torch
from regional import HARSH, changed
from toys import (
    SIZES,
    make_tokenizer,
    run,
    small,
    tiny,
    weights_of,
    with_adapter,
)

from unlearn_nb.core import UnlearnError
from unlearn_nb.regions import UNITS, Region, down_projections, plain_name, unit_weights

MLPS = {
    "llama": "mlp.down_proj",
    "gpt2": "mlp.c_proj",
    "olmo2": "mlp.down_proj",
    "olmo3": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "qwen3": "mlp.down_proj",
    "gemma2": "mlp.down_proj",
    "gemma3_text": "mlp.down_proj",
    "phi": "mlp.fc2",
    "phi3": "mlp.down_proj",
    "mistral": "mlp.down_proj",
    "opt": "fc2",
    "gpt_neox": "mlp.dense_4h_to_h",
    "bloom": "mlp.dense_4h_to_h",
    "gptj": "mlp.fc_out",
    "starcoder2": "mlp.c_proj",
    "mpt": "ffn.down_proj",
    "recurrent_gemma": "mlp_block.down_proj",
    "jamba": "feed_forward.down_proj",
}


@pytest.mark.parametrize("name", MLPS)
def test_value_vectors_are_found_in(name):
    more = {"num_experts": 1} if name == "jamba" else {"head_dim": 8} if name.startswith("gemma") else {}
    model = small(name, **SIZES | more)
    found = down_projections(model)
    assert len(found) == 2 and all(n.endswith(f".{MLPS[name]}.weight") for n in found)
    named = dict(model.named_parameters())
    for key, unit in found.items():
        assert unit.weight is named[key] and unit.weight.shape[unit.shape.index(1)] == 32
        assert unit.shape.index(1) == (1 if name == "gpt2" else 0)
    assert Region.every(model).n_weights == sum(u.weight.numel() for u in found.values())


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "opt", "gemma2"])
def test_a_value_vector_is_what_its_coefficient_multiplies(name):
    """Raising v_j by e changes the layer's output by m_j * e, and by nothing where m_j is 0."""
    model = small(name, **SIZES | {"head_dim": 8} if name.startswith("gemma") else SIZES)
    unit = next(iter(down_projections(model).values()))
    seen = []
    handle = unit.layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    j, e, ids = 5, torch.linspace(-1, 1, 32), torch.arange(3, 11)[None]
    with torch.no_grad():
        model(ids)
        unit.weight.data.select(1 if unit.shape[0] == 1 else 0, j).add_(e)
        model(ids)
    handle.remove()
    (x, was), (again, now) = seen
    torch.testing.assert_close(x, again)
    torch.testing.assert_close(now - was, x[..., j, None] * e, rtol=1e-4, atol=1e-5)


def test_models_without_value_vectors_are_told_so():
    with pytest.raises(UnlearnError) as error:
        Region.random(small("mamba", **SIZES), 0.1)
    assert "MambaForCausalLM has no MLP down-projection" in str(error.value)
    assert "whole tensors" in str(error.value) and "\n" not in str(error.value)


def test_experts_stacked_in_an_unknown_way_are_told_so():
    model = small("mixtral", **MIXED)
    del model.model.layers[0].mlp.experts.gate_up_proj
    with pytest.raises(UnlearnError, match="stacks the matrices of several experts in a way that is not known"):
        down_projections(model)
    assert "model.layers.0.mlp.experts.down_proj" in unit_weights(model, "tensor")


MIXED = SIZES | dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=4,
                     moe_intermediate_size=12, shared_expert_intermediate_size=20, n_routed_experts=4, n_group=1,
                     topk_group=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4)


EXPERTS = {  # value vectors of an expert, their dim in the stack, dense value vectors
    "mixtral": (48, 2, 0), "qwen2_moe": (12, 2, 40), "qwen3_moe": (12, 2, 0), "olmoe": (48, 2, 0),
    "gpt_oss": (48, 1, 0), "phimoe": (48, 2, 0), "granitemoe": (48, 2, 0), "deepseek_v3": (12, 2, 24),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_value_vectors_of_experts_are_found_in(name):
    more = {"head_dim": 8} if name in ("gpt_oss", "qwen3_moe") else {}
    model = small(name, **MIXED | {"intermediate_size": 48} | more | (
        {"first_k_dense_replace": 0} if name == "deepseek_v3" else {}))
    found, (size, dim, dense) = down_projections(model), EXPERTS[name]
    stacks = {key: unit for key, unit in found.items() if unit.weight.dim() == 3}
    assert len(stacks) == 2 and all(key.endswith("experts.down_proj") for key in stacks)
    for unit in stacks.values():
        assert unit.shape == tuple(size if d == dim else 4 if d == 0 else 1 for d in range(3))
        assert unit.weight.shape[3 - dim] == 32  # a value vector is as wide as the model
    others = sum(torch.Size(u.shape).numel() for u in found.values() if u.weight.dim() == 2)
    assert Region.every(model).n_units == 2 * 4 * size + others and others == dense


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_a_value_vector_of_an_expert_moves_the_output_along_itself(name):
    model = small(name, **MIXED | {"head_dim": 8, "num_experts_per_tok": 4})
    model.set_experts_implementation("eager")
    model.double()
    key, unit = next(iter(down_projections(model).items()))
    seen, e = [], torch.linspace(-1, 1, 32, dtype=torch.float64)
    unit.layer.register_forward_hook(lambda module, args, output: seen.append(output))
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        model(ids)
        unit.weight[2].select(0 if unit.shape[1] > 1 else 1, 5).add_(e)
        model(ids)
    moved = seen[1] - seen[0]
    along = moved @ e / (e @ e)
    assert along.abs().max() > 1e-4
    torch.testing.assert_close(moved, along[..., None] * e, rtol=1e-6, atol=1e-9)


def test_experts_are_among_the_weights_and_tensors_of_a_mixture():
    model = small("mixtral", **MIXED)
    every = Region.every(model, "tensor")
    outside = {n for n, _ in model.named_parameters() if n not in every.masks}
    assert all("embed" in n or "lm_head" in n or "norm" in n or n.endswith("gate.weight") for n in outside)
    assert every == Region.every(model, "weight")
    assert unit_weights(model, "tensor")["model.layers.1.mlp.experts.gate_up_proj"].shape == (4, 1, 1)
    one = Region.random(model, 0.2, unit="tensor", seed=1)
    masks = [m for n, m in one.masks.items() if "experts" in n]
    assert any(0 < m.sum() < 4 for m in masks)  # an expert, not all of them


@pytest.mark.parametrize("unit", UNITS)
def test_a_region_of_experts_is_all_that_training_changes(tmp_path, unit):
    model = small("mixtral", **MIXED)
    region, before = Region.random(model, 0.3, unit=unit, seed=3), weights_of(model)
    run(model, make_tokenizer(), tmp_path / "out", "ga + nll", **HARSH, region=region)
    region.check_outside(before, model)
    moved = changed(before, model)
    assert all((moved[name] & region.masks[name]).any() for name in region.masks if "experts" in name)


def test_units_of_a_model():
    model = tiny()
    assert {u: Region.every(model, u).n_units for u in UNITS} == {"value_vector": 96, "tensor": 14, "weight": 17408}
    assert Region.every(model, "weight") == Region.every(model, "tensor")
    target = with_adapter(tiny())
    assert set(unit_weights(target, "tensor")) == {plain_name(n) for n, p in target.named_parameters() if "lora_" in n}
    assert Region.whole(target, "lora_B").n_units == 14
    with pytest.raises(
        UnlearnError, match=r"^a value vector is a part of a plain model: merge the adapter into it first"
    ):
        Region.random(target, 0.1)
