"""Regions as sets, found in many architectures, and trained: what lies outside keeps its bits."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from toys import (
    FORGET,
    RETAIN,
    SIZES,
    make_tokenizer,
    run,
    small,
    tiny,
    weights_of,
    with_adapter,
)
from transformers import AutoModelForCausalLM

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.regions import SLICES, UNITS, Region, RegionStep, down_projections, plain_name, unit_weights
from unlearn_nb.unlearning import (
    UnlearnSettings,
    compute_reference,
    make_batcher,
    make_trainer,
    schedule_for,
    whole_model,
)

HARSH = dict(method="full", lr=2e-2, steps=3, batch_size=2, accumulation=2, weight_decay=0.3, max_grad_norm=0.5)
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


def full_masks(region):
    """The same region, written down weight by weight."""
    return Region({n: m.expand(region.shapes[n]).clone() for n, m in region.masks.items()}, region.shapes)


def changed(before, model):
    return {name: before[name] != p.detach() for name, p in model.named_parameters()}


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


SHAPE = (3, 4)
masks = st.sampled_from([(1, 1), (1, 4), (3, 1), (3, 4)]).flatmap(
    lambda shape: st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda bits: torch.tensor(bits).reshape(shape)
    )
)
regions = st.dictionaries(st.sampled_from("ab"), masks).map(lambda m: Region(m, dict.fromkeys(m, SHAPE)))


def members(region):
    return {(n, *map(int, at)) for n, m in region.masks.items() for at in m.expand(SHAPE).nonzero()}


@given(regions, regions)
@settings(deadline=None)
def test_regions_are_sets_of_weights(one, two):
    a, b = members(one), members(two)
    assert members(one | two) == a | b and members(one & two) == a & b and members(one - two) == a - b
    assert (one == two) == (a == b) and one.n_weights == len(a)
    assert one.overlap(two) == (len(a & b) / len(a | b) if a | b else 1.0)
    assert (one - two) | (one & two) == one and one == full_masks(one)


@given(region=regions)
@settings(max_examples=25, deadline=None)
def test_a_saved_region_is_the_same(region, tmp_path_factory):
    path = region.save(tmp_path_factory.mktemp("region") / "r.safetensors")
    assert Region.load(path) == region and {n: m.shape for n, m in Region.load(path).masks.items()} == {
        n: m.shape for n, m in region.masks.items()
    }


def test_files_that_are_no_regions_are_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "text").write_text("region")
    for name in ("model.safetensors", "text", "missing"):
        with pytest.raises(
            UnlearnError, match=r"can't be read as a region \(\w+\): give a file that Region.save wrote$"
        ):
            Region.load(tmp_path / name)


@pytest.mark.parametrize("unit, units", [("value_vector", 96), ("weight", 17408), ("tensor", 14)])
def test_random_regions_have_their_size_and_stay_apart(unit, units):
    model = tiny()
    one = Region.random(model, 0.25, unit, seed=1)
    two = Region.random(model, 0.25, unit, seed=1, exclude=one)
    assert one.n_units == two.n_units == round(0.25 * units) and one.overlap(two) == 0.0
    assert one == Region.random(model, 0.25, unit, seed=1) and one != Region.random(model, 0.25, unit, seed=2)
    assert Region.random(model, 1.0, unit) == Region.every(model, unit)


def test_every_value_vector_is_as_likely_as_another():
    model, counts = tiny(), torch.zeros(2, 48)
    for seed in range(400):
        counts += torch.stack(
            [
                m[0].float() if m.shape == (1, 48) else torch.zeros(48)
                for m in (Region.random(model, 0.25, seed=seed) | Region({}, {})).masks.values()
            ]
        )
    spread = (counts - 100) / (400 * 0.25 * 0.75) ** 0.5  # standard deviations of a binomial
    assert spread.abs().max() < 4.5 and 0.7 < spread.std() < 1.3


def test_a_column_with_one_weight_taken_is_not_free():
    model = tiny()
    name = next(iter(down_projections(model)))
    mask = torch.zeros(32, 48, dtype=torch.bool)
    mask[3, 7] = True
    one = Region({name: mask}, {name: (32, 48)})
    beside = Region.random(model, 95 / 96, exclude=one)
    assert beside == Region.every(model) - Region({name: mask.any(0, keepdim=True)}, {name: (32, 48)})


def mixed(model):
    """Columns, rows, single weights, a vector and a whole tensor at once."""
    shapes = {n: p.shape for n, p in model.named_parameters()}
    rows, some = (
        torch.zeros(32, 1, dtype=torch.bool),
        torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.1,
    )
    rows[::5] = True
    masks = {
        "model.layers.0.self_attn.q_proj.weight": rows,
        "model.layers.1.self_attn.k_proj.weight": some,
        "model.norm.weight": torch.arange(32) < 4,
        "model.embed_tokens.weight": torch.ones(1, 1, dtype=torch.bool),
    }
    return Region(masks, {n: shapes[n] for n in masks}) | Region.random(model, 0.25, seed=1)


KINDS = {
    "columns": lambda model: Region.random(model, 0.25, seed=1),
    "weights": lambda model: Region.random(model, 0.1, unit="weight", seed=1),
    "tensors": lambda model: Region.random(model, 0.3, unit="tensor", seed=1),
    "mixed": mixed,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_outside_the_region_nothing_changes(tmp_path, kind, precision):
    """Decay, momentum, accumulation and clipping; in float32 everything inside moves."""
    model = tiny(dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    region, before = KINDS[kind](model), weights_of(model)
    before = {name: weight.float() for name, weight in before.items()}  # half precision is trained in float32
    history = run(
        model,
        make_tokenizer(),
        tmp_path / "out",
        "npo + nll",
        region=region,
        dtype="bfloat16" if precision == "autocast" else "float32",
        **HARSH,
    )
    region.check_outside(before, model)
    inside = [c[region.masks[n].expand_as(c)] for n, c in changed(before, model).items() if n in region.masks]
    assert torch.cat(inside).float().mean() > 0.99
    assert torch.isfinite(torch.tensor(history.frame.loss.to_numpy())).all()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    region.check_outside(before, saved)
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), model.parameters()))
    assert Region.load(tmp_path / "out" / "region.safetensors") == region


def test_the_check_sees_a_single_bit(tmp_path):
    model = tiny()
    region, before = Region.random(model, 0.25), weights_of(model)
    model.model.norm.weight.data[0] = -0.0
    before["model.norm.weight"][0] = 0.0
    with pytest.raises(UnlearnError) as error:
        region.check_outside(before, model)
    assert str(error.value) == (
        "1 weights outside the region changed, the first in model.norm.weight: what trained them did "
        "not keep to the region"
    )


def test_without_write_back_and_restore_the_check_would_fail(tmp_path, monkeypatch):
    """The test above can fail: frozen gradients alone do not hold single weights under decay."""
    model = tiny()
    region, before = KINDS["weights"](model), weights_of(model)
    monkeypatch.setattr(RegionStep, "on_optimizer_step", lambda *args, **kwargs: None)
    run(model, make_tokenizer(), tmp_path / "out", "nll", region=region, **HARSH)
    with pytest.raises(UnlearnError, match="weights outside the region changed"):
        region.check_outside(before, model)


def trainer_for(model, tmp_path, region, objective="ga + nll", **changes):
    """A real trainer, not yet trained, on a model whose weights all count."""
    options = UnlearnSettings(**HARSH | dict(max_length=24) | changes)
    data = {"forget": FORGET, "retain": RETAIN}
    batcher = make_batcher(make_tokenizer(), data, resolve(objective), max_length=options.max_length)
    schedule = schedule_for(batcher, options)
    batcher.reference = compute_reference(model, batcher, schedule)
    with whole_model(model, None):
        return make_trainer(
            model, batcher, settings=options, schedule=schedule, folder=tmp_path, progress=False, region=region
        )


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_slices_train_as_masks_do(tmp_path, name):
    """The same columns as slices, and written down as single weights, which takes the path of masks."""
    make = tiny if name == "llama" else lambda: small("gpt2", **SIZES)
    results = []
    for form in (lambda r: r, full_masks):
        model = make().double()
        trainer = trainer_for(model, tmp_path, form(Region.random(model, 0.25, seed=1)))
        trainer.train()
        trainer.masked.detach()
        results.append((model, trainer))
    (sliced, one), (masked, two) = results
    assert one.masked._slices and not one.masked.weights and two.masked.weights and not two.masked._slices
    for a, b in zip(sliced.parameters(), masked.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    keys = ("loss", "grad_norm")
    assert [[r[k] for k in keys] for r in one.records] == [
        pytest.approx([r[k] for k in keys], rel=1e-9) for r in two.records
    ]


def test_the_optimiser_holds_the_slice_alone(tmp_path):
    model = tiny()
    region = Region.random(model, 0.25, seed=1)
    trainer = trainer_for(model, tmp_path, region)
    trainer.train()
    held = [s["exp_avg"].numel() for s in trainer.optimizer.state.values()]
    assert sum(held) == region.n_weights == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(g["weight_decay"] == 0.3 for g in trainer.optimizer.param_groups if g["params"])


def test_the_norm_that_is_clipped_is_the_region_s(tmp_path):
    norms = {}
    for kind in ("columns", "weights"):
        model = tiny()
        region = KINDS[kind](model)
        trainer = trainer_for(copy.deepcopy(model), tmp_path, region, steps=1)
        trainer.train()
        free = trainer_for(model, tmp_path, None, steps=1, max_grad_norm=0.0, lr=1e-9)
        seen = {}
        free.add_callback(Keep(seen))
        free.train()
        squares = sum((seen[n][m.expand_as(seen[n])] ** 2).sum() for n, m in region.masks.items())
        norms[kind] = trainer.records[0]["grad_norm"], free.records[0]["grad_norm"]
        assert trainer.records[0]["grad_norm"] == pytest.approx(squares.sqrt().item(), rel=1e-5)
        assert 0.5 < trainer.records[0]["grad_norm"] < free.records[0]["grad_norm"]


class Keep(__import__("transformers").TrainerCallback):
    """The gradient of a step."""

    def __init__(self, seen):
        self.seen = seen

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen |= {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("autocast", [False, True])
def test_the_forward_pass_in_training_is_that_of_the_ordinary_model(autocast):
    model, ids = tiny(), torch.arange(3, 40)[None]
    step = RegionStep(Region.random(model, 0.5, seed=1), model)
    for *_, piece in step._slices:
        piece.data.normal_()
    step.on_optimizer_step(None, None, None)
    plain = tiny()
    plain.load_state_dict(model.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(model(ids).logits, plain(ids).logits)
    model.load_state_dict(plain.state_dict())
    step.detach()
    assert not any(SLICES in n for n, _ in model.named_parameters()) and not hasattr(model, SLICES)


def test_a_snapshot_is_an_ordinary_model_and_the_given_model_is_left_in_order(tmp_path):
    model, region, seen = tiny(), Region.random(tiny(), 0.25, seed=1), {}
    model.lm_head.weight.requires_grad_(False)
    run(
        model,
        make_tokenizer(),
        tmp_path / "out",
        region=region,
        snapshots=[0, 2],
        method="full",
        on_step=lambda step, live: seen.update({step: weights_of(live)}),
    )
    plain = set(tiny().state_dict())
    for step in (0, 2):
        file = tmp_path / "out" / "snapshots" / f"step-{step}" / "model.safetensors"
        saved = load_file(file)
        assert set(saved) == plain and (step == 0 or all(torch.equal(v, seen[2][n]) for n, v in saved.items()))
    region.check_outside(tiny(), load_file(tmp_path / "out" / "snapshots" / "step-2" / "model.safetensors"))
    assert set(model.state_dict()) == plain and not model.training
    assert [p.requires_grad for p in model.parameters()] == [p is not model.lm_head.weight for p in model.parameters()]
    assert not any(layer._forward_hooks for layer in model.modules())


def test_after_a_failure_the_model_is_ordinary_again(tmp_path):
    model = tiny()
    with pytest.raises(ZeroDivisionError):
        run(
            model,
            make_tokenizer(),
            tmp_path / "out",
            region=Region.random(model, 0.25),
            method="full",
            on_step=lambda step, live: 1 / 0,
        )
    assert set(model.state_dict()) == set(tiny().state_dict()) and not any(m._forward_hooks for m in model.modules())
    assert not hasattr(model, SLICES) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("second", [False, True])
def test_a_region_of_lora_tensors(tmp_path, second):
    """B of layer 1 and some rows of one A train; all other tensors of the adapter stay where it began."""
    model = with_adapter(tiny()) if second else tiny()
    whole = Region.whole(with_adapter(tiny()), r"layers\.1\..*lora_B")  # its rank is 3
    some = "model.layers.0.mlp.up_proj.lora_A.weight"
    region = whole | Region({some: torch.tensor([[True], [False], [True]])}, {some: (3, 32)})
    options = dict(region=region, lora_r=3, lr=2e-2, weight_decay=0.3, snapshots=[0])
    out = run(model, make_tokenizer(), tmp_path / "out", "ga + nll", **options).path
    start, end = (load_file(f / "adapter_model.safetensors") for f in (out / "snapshots" / "step-0", out))
    start, end = ({plain_name(n): t for n, t in w.items()} for w in (start, end))
    region.check_outside(start, end)
    moved = {n for n in end if not torch.equal(start[n], end[n])}
    assert moved == set(region.masks)
    assert isinstance(PeftModel.from_pretrained(tiny(), out), PeftModel)


@pytest.mark.parametrize(
    "region, changes, sentence",
    [
        (lambda: Region({}, {}), {}, "the region is empty: give one with at least one unit"),
        (
            lambda: Region.random(tiny(), 0.1),
            dict(mask="sure"),
            "settings.mask is 'sure' and a region is given: choose one of the two",
        ),
        (
            lambda: Region.random(small("gpt2", **SIZES), 0.1),
            {},
            "the region does not fit: it names transformer.h.0.mlp.c_proj.weight "
            "[128, 32], which is no weight here: build it from this model",
        ),
        (
            lambda: Region.random(small("llama", **SIZES | dict(intermediate_size=64)), 0.1),
            {},
            "the region does not fit: it names "
            "model.layers.0.mlp.down_proj.weight [32, 64], which is [32, 48] here: build it from this model",
        ),
        (
            lambda: Region.random(tiny(), 0.1),
            dict(method="lora"),
            "method='lora' trains LoRA tensors, and the region names "
            "model.layers.0.mlp.down_proj.weight: use method='full', or a region of LoRA tensors",
        ),
        (
            lambda: Region.whole(with_adapter(tiny()), "lora_A"),
            dict(method="lora", lora_r=4),
            "the region does not fit: it names "
            "model.layers.0.self_attn.q_proj.lora_A.weight [3, 32], which is [4, 32] here: build it from this model",
        ),
    ],
)
def test_regions_that_can_not_be_trained(tmp_path, region, changes, sentence):
    model = tiny()
    before = weights_of(model)
    with pytest.raises(UnlearnError) as error:
        run(model, make_tokenizer(), tmp_path / "out", "nll", region=region(), **dict(method="full") | changes)
    assert str(error.value) == sentence
    assert (
        not list(tmp_path.iterdir())
        and set(weights_of(model)) == set(before)
        and all(p.requires_grad for p in model.parameters())
    )


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda m: Region.random(m, 0), "a share must lie above 0 and be at most 1, not 0: give e.g. 0.1"),
        (lambda m: Region.random(m, 1.01), "a share must lie above 0 and be at most 1, not 1.01: give e.g. 0.1"),
        (lambda m: Region.random(m, "10%"), "a share must lie above 0 and be at most 1, not '10%': give e.g. 0.1"),
        (lambda m: Region.random(m, 0.001), "a share of 0.001 of 96 value vectors is none: give at least 0.01"),
        (
            lambda m: Region.random(m, 0.6, exclude=Region.random(m, 0.5)),
            "58 units are wanted and 48 are left after what is excluded: give a smaller share",
        ),
        (
            lambda m: Region.random(m, 0.1, unit="value vector"),
            "unknown unit 'value vector'; did you mean 'value_vector'?",
        ),
        (
            lambda m: Region.whole(m, "experts"),
            "no parameter of LlamaForCausalLM has a name that matches 'experts': the first is "
            "model.embed_tokens.weight",
        ),
        (
            lambda m: Region.every(m).share(Region.random(m, 0.5)),
            "a share is taken of a region that contains this one: give e.g. Region.every(model)",
        ),
        (
            lambda m: Region.every(m) | Region.every(small("llama", **SIZES | dict(intermediate_size=64))),
            "these regions are of different "
            "models: model.layers.0.mlp.down_proj.weight is [32, 48] in one and [32, 64] in the other",
        ),
        (
            lambda m: Region.every(m).check_outside(m, small("gpt2", **SIZES)),
            "the weights before and after differ in name, shape or type: give the same model twice",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call(tiny())
    assert str(error.value) == sentence


def test_two_processes_train_a_region_as_one_does(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import pathlib, sys\nimport toys as t\nfrom unlearn_nb.regions import Region\n"
        "model = t.tiny()\nregion = Region.random(model, 0.25, seed=1)\n"
        f"changes = {HARSH | dict(batch_size=2, steps=2)}\n"
        "t.run(model, t.make_tokenizer(), pathlib.Path(sys.argv[1]), region=region, **changes)\n"
        "region.check_outside(t.tiny(), model)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        str(tmp_path / "two"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, timeout=300)
    model = tiny()
    region = Region.random(model, 0.25, seed=1)
    one = run(model, make_tokenizer(), tmp_path / "one", **HARSH | dict(batch_size=4, steps=2), region=region).frame
    two = pd.read_csv(tmp_path / "two" / "history.csv")
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"), rtol=1e-4, atol=1e-6)
