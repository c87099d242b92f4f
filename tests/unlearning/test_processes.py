"""The environment, the caller and the type of the weights have no say in a training; epochs are passes."""

import copy
import os

import pytest
import torch
from toys import FORGET, RETAIN, make_tokenizer, rows, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import UnlearnSettings, make_batcher, schedule_for, unlearn, world

QUICK = dict(lr=1e-3, steps=3, batch_size=3, lora_r=4, lora_dropout=0.0, max_length=24)


def losses(model, tmp_path, name, objective="npo+nll", **changes):
    found = unlearn(model, make_tokenizer(), FORGET, RETAIN, objective, settings=UnlearnSettings(**QUICK | changes),
                    out=tmp_path / name, progress=False)
    return found.frame["loss"].tolist()


@pytest.mark.parametrize("name, value", [
    ("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_MIXED_PRECISION", "fp8"),
    ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"), ("ACCELERATE_DYNAMO_BACKEND", "eager"),
    ("ACCELERATE_USE_FSDP", "true"),
])
def test_accelerates_variables_change_nothing(tmp_path, monkeypatch, name, value):
    plain = losses(tiny(), tmp_path, "plain")
    monkeypatch.setenv(name, value)
    assert losses(tiny(), tmp_path, "set") == plain and os.environ[name] == value


def test_an_autocast_and_a_no_grad_of_the_caller_change_nothing(tmp_path):
    plain = losses(tiny(), tmp_path, "plain")
    with torch.autocast("cpu", torch.bfloat16):
        assert losses(tiny(), tmp_path, "autocast") == plain
    with torch.no_grad():
        assert losses(tiny(), tmp_path, "no grad") == plain


def test_mpi_and_broken_torchrun_variables_are_refused(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UnlearnError, match="OMPI_COMM_WORLD_SIZE=2 in the environment"):
        world()
    for name, value in dict(RANK="0", WORLD_SIZE="x", LOCAL_RANK="0", MASTER_ADDR="a", MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnlearnError, match="WORLD_SIZE=x"):
        world()


def test_a_mask_sees_through_reentrant_checkpoints(tmp_path):
    moved = []
    for reentrant in (None, True):
        model = tiny()
        if reentrant:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        before = copy.deepcopy(list(model.parameters()))
        losses(model, tmp_path, f"out {reentrant}", method="full", mask="sure", weight_decay=0.0)
        moved.append([int((a != b).sum()) for a, b in zip(model.parameters(), before)])
    assert moved[0] == moved[1]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_in_bfloat16_learns_as_one_in_float32(tmp_path, method):
    small = tiny().to(torch.bfloat16)
    wide = copy.deepcopy(small).float()
    low, high = (losses(model, tmp_path, name, lr=1e-4, method=method)
                 for name, model in (("low", small), ("high", wide)))
    assert low[0] - low[-1] == pytest.approx(high[0] - high[-1], rel=0.1)
    assert small.dtype == (torch.float32 if method == "full" else torch.bfloat16)


@pytest.mark.parametrize("method, held", [("full", torch.float32), ("lora", torch.float32), ("lora", torch.bfloat16)])
def test_every_step_computes_with_the_weights_of_the_step_before(tmp_path, method, held):
    """An autocast around a training keeps the weights that it has cast once: the losses would stand still."""
    model = tiny().to(held)
    options = dict(lr=1e-2, method=method, steps=6)
    low = losses(model, tmp_path, "low", dtype="bfloat16", **options)
    high = losses(copy.deepcopy(tiny()), tmp_path, "high", **options)
    assert abs(high[-1] - high[0]) > 0.1 * abs(high[0])
    assert low == pytest.approx(high, rel=0.05)


def test_an_adapter_on_float16_is_refused(tmp_path):
    with pytest.raises(UnlearnError, match="held in float16"):
        losses(tiny().half(), tmp_path, "half")


@pytest.mark.parametrize("n, batch, accumulation, epochs", [(3, 16, 1, 1), (1, 1, 4, 3), (5, 2, 2, 2.5), (7, 2, 1, 3)])
def test_epochs_are_passes_and_no_row_comes_twice_in_one(n, batch, accumulation, epochs):
    data = rows(n, seed=0)
    settings = UnlearnSettings(epochs=epochs, batch_size=batch, accumulation=accumulation)
    batcher = make_batcher(make_tokenizer(), {"forget": data, "retain": data}, resolve("ga + nll"))
    read = [i for item in schedule_for(batcher, settings) for i in item["forget"]]
    assert len(read) == round(epochs * n)
    assert all(sorted(read[k : k + n]) == list(range(n)) for k in range(0, int(epochs) * n, n))


def test_a_step_whose_last_micro_batch_is_empty_is_a_smaller_step(tmp_path):
    frames = []
    for batch in (1, 4):
        settings = UnlearnSettings(**QUICK | dict(steps=None, epochs=1, batch_size=batch, accumulation=4 // batch))
        frames.append(unlearn(tiny(), make_tokenizer(), FORGET[:3], RETAIN, "npo+nll", settings=settings,
                              out=tmp_path / str(batch), progress=False).frame)
    assert frames[0]["loss"].tolist() == pytest.approx(frames[1]["loss"].tolist(), rel=1e-4)


@pytest.mark.parametrize("wrong", [dict(seed=-1), dict(steps=2.5), dict(steps=True), dict(lr=float("inf")),
                                   dict(weight_decay=float("nan")), dict(max_grad_norm=-1.0), dict(rslora=1)])
def test_settings_that_can_not_be_are_refused(wrong):
    with pytest.raises(UnlearnError, match=f"unlearning settings: {next(iter(wrong))} must be"):
        UnlearnSettings(**wrong)
