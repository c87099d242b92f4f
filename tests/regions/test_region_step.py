"""Training inside a region: what is outside keeps its bits."""

import copy

import pandas as pd
import pytest
import torch
from forked import run_as_two_processes
from peft import PeftModel
from regional import HARSH, changed, full_masks
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
from unlearn_nb.regions import SLICES, Region, RegionStep, plain_name
from unlearn_nb.unlearning import (
    UnlearnSettings,
    compute_reference,
    make_batcher,
    make_trainer,
    schedule_for,
    whole_model,
)


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
    run_as_two_processes(script, tmp_path / "two")
    model = tiny()
    region = Region.random(model, 0.25, seed=1)
    one = run(model, make_tokenizer(), tmp_path / "one", **HARSH | dict(batch_size=4, steps=2), region=region).frame
    two = pd.read_csv(tmp_path / "two" / "history.csv")
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"), rtol=1e-4, atol=1e-6)
