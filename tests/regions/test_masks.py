"""SURE and MemFlex inside the real trainer: what a mask leaves out stays bit for bit, whatever the optimiser does."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import FORGET, RETAIN, make_tokenizer, run, small, tiny, with_adapter
from transformers import TrainerCallback

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import TermInputs, resolve
from unlearn_nb.regions import MASKS, MaskedStep, MemFlex, Sure, group_loss, row_norms
from unlearn_nb.unlearning import UnlearnSettings, compute_reference, make_batcher, make_trainer, schedule_for

STEPS = dict(lr=2e-2, steps=4, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=24, weight_decay=0.3)


class Watch(TrainerCallback):
    """Weights before and after each optimiser step, and what the mask chose for it."""

    def __init__(self):
        self.steps, self.trainer = [], None

    def weights(self):
        return {name: p.detach().clone() for name, p in self.trainer.masked.weights.items()}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.before = self.weights()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append((self.before, self.weights(), dict(self.trainer.masked.chosen)))


def watched(tmp_path, objective, mask, **cut):
    settings = UnlearnSettings(**STEPS | dict(batch_size=2, accumulation=2, mask=mask) | cut)
    model = with_adapter(tiny())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    data = {"forget": FORGET, "retain": RETAIN}
    batcher = make_batcher(make_tokenizer(), data, resolve(objective), max_length=settings.max_length)
    watch, schedule = Watch(), schedule_for(batcher, settings)
    batcher.reference = compute_reference(model, batcher, schedule)
    trainer = make_trainer(
        model, batcher, settings=settings, schedule=schedule, folder=tmp_path, callbacks=[watch], progress=False
    )
    watch.trainer = trainer
    trainer.train()
    return watch.steps, trainer


@pytest.mark.parametrize(
    "mask",
    [
        "sure(percentile=80)",
        "sure(percentile=60, per=tensors)",
        "sure(percentile=80, every_step=False)",
        "memflex(cosine=0.2, magnitude=1e-4)",
    ],
)
def test_only_what_the_mask_chose_changes_despite_decay_momentum_and_accumulation(tmp_path, mask):
    steps, _ = watched(tmp_path, "ga + nll", mask)
    assert len(steps) == 4
    for before, after, chosen in steps:
        shares = [m.float().mean().item() for m in chosen.values()]
        assert 0 < sum(shares) < len(shares)
        for name, was in before.items():
            changed = after[name] != was
            assert not (changed & ~chosen[name]).any(), name
            assert changed[chosen[name].expand_as(changed)].float().mean() > 0.9 if chosen[name].any() else True


def test_without_the_restore_decay_would_move_masked_weights(tmp_path, monkeypatch):
    """The test above can fail: zeroed gradients alone do not hold the weights."""
    monkeypatch.setattr(MaskedStep, "on_optimizer_step", lambda *args, **kwargs: None)
    steps, _ = watched(tmp_path, "ga + nll", "sure(percentile=80)")
    before, after, chosen = steps[-1]
    assert any(((after[name] != before[name]) & ~chosen[name]).any() for name in before)


def test_the_choice_does_not_depend_on_how_the_batch_is_cut(tmp_path):
    cuts = [dict(batch_size=4, accumulation=1), dict(batch_size=1, accumulation=4)]
    (whole, _), (cut, _) = (watched(tmp_path, "ga + nll", "sure(percentile=80)", steps=1, **c) for c in cuts)
    assert all(torch.equal(whole[0][2][name], cut[0][2][name]) for name in whole[0][2])


def test_sure_does_not_depend_on_the_retain_terms_or_on_weights(tmp_path):
    (one, _), (two, _) = (watched(tmp_path, o, "sure(percentile=80)", steps=1) for o in ("ga + nll", "0.1*ga + 3*kl"))
    assert all(torch.equal(one[0][2][name], two[0][2][name]) for name in one[0][2])


def test_a_static_mask_stays_and_a_dynamic_one_moves(tmp_path):
    static, _ = watched(tmp_path, "ga + nll", "sure(percentile=80, every_step=False)")
    assert all(torch.equal(static[0][2][name], static[-1][2][name]) for name in static[0][2])
    dynamic, _ = watched(tmp_path, "ga + nll", "sure(percentile=80)")
    assert any(not torch.equal(dynamic[0][2][name], dynamic[-1][2][name]) for name in dynamic[0][2])


def test_a_row_is_an_output_whatever_the_layer_stores(tmp_path):
    """GPT-2 stores [in, out]: SURE chooses its columns, as it chooses the rows of the same matrix in a linear layer."""
    model = small("gpt2")
    weight = model.transformer.h[0].mlp.c_fc.weight
    step, gradients = MaskedStep(Sure(percentile=90), model), {}
    for name, p in step.weights.items():
        gradients[name] = torch.zeros_like(p)
    name = next(n for n, p in step.weights.items() if p is weight)
    gradients[name][:, 7] = 1.0  # all that output 7 is made of
    step._gradients = {"forget": gradients}
    step.before_step(SimpleNamespace(num_processes=1))
    chosen = step.chosen[name].expand_as(weight)
    assert chosen[:, 7].all() and step.chosen[name].shape == (1, weight.shape[1])
    assert Sure(percentile=90)({"forget": {"w": gradients[name].T}})["w"][7].all()


def test_rows_of_stacked_experts_are_those_of_each_expert():
    gradient = torch.arange(24.0).reshape(2, 3, 4)
    assert row_norms(gradient).tolist() == [row.norm().item() for row in gradient.reshape(6, 4)]
    chosen = Sure(percentile=90)({"forget": {"experts": gradient, "b": torch.zeros(2)}})["experts"]
    assert chosen.shape == (2, 3, 1) and chosen.flatten().tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("text, part", [
    ("sure(faithful=tofu)", "faithful='tofu' doesn't say whose code to follow: write faithful='zjunlp'"),
    ("memflex(faithful=open-unlearning)", "write faithful='zjunlp'"),
    ("sure(percentile=high)", "percentile must be a number"), ("sure(percentile=True)", "percentile must be a number"),
    ("memflex(cosine=2)", "cosine must be a number in [-1, 1]"), ("memflex(magnitude=-1)", "magnitude must be"),
    ("sure(every_step=2)", "every_step is True or False"), ("sure(per=columns)", "per is 'rows' or 'tensors'"),
])
def test_masks_refuse(text, part):
    with pytest.raises(UnlearnError) as error:
        MASKS.read(text)
    assert part in str(error.value)
    assert MASKS.read("sure(faithful=True)") == Sure(faithful="zjunlp") and MemFlex(faithful=False).faithful == ""


def test_faithful_masks_have_no_effect(tmp_path):
    masked, _ = watched(tmp_path / "a", "ga + nll", "sure(faithful=True)")
    plain = run(tiny(), make_tokenizer(), tmp_path / "b", "ga + nll").frame
    also = run(tiny(), make_tokenizer(), tmp_path / "c", "ga + nll", mask="memflex(faithful=True)").frame
    assert all((after[name] != before[name]).any() for before, after, _ in masked for name in before)
    assert plain["loss"].tolist() == also["loss"].tolist()


def test_clipping_sees_the_masked_gradient_only(tmp_path):
    _, loose = watched(tmp_path, "ga + nll", "sure(percentile=95)", steps=1)
    _, whole = watched(tmp_path, "ga + nll", "sure(percentile=0)", steps=1)
    assert loose.records[0]["grad_norm"] < whole.records[0]["grad_norm"]


def test_ascent_counts_as_cross_entropy():
    inputs = {"forget": TermInputs(torch.tensor([-1.0, -3.0]), torch.tensor([0, 1]), 2)}
    assert group_loss(resolve("0.4*ga + 2*nll"), inputs, "forget") == 2.0
    with pytest.raises(UnlearnError, match="no term on retain rows"):
        group_loss(resolve("ga"), inputs, "retain")


@given(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=30), st.floats(0, 99))
def test_sure_keeps_the_rows_at_or_above_the_percentile(values, percentile):
    gradient = torch.tensor(values)[:, None] * torch.tensor([[0.6, 0.8]])
    chosen = Sure(percentile=percentile)({"forget": {"w": gradient}})["w"].flatten()
    norms = row_norms(gradient)
    assert chosen.any() and (not (~chosen).any() or norms[~chosen].max() < norms[chosen].min())
    assert math.ceil((1 - percentile / 100) * (len(values) - 1)) <= chosen.sum()


def test_memflex_needs_both_direction_and_size():
    grads = {"forget": {"w": torch.full((2, 2), 1e-3)}, "retain": {"w": -torch.ones(2, 2)}}
    assert MemFlex()(grads)["w"].all()
    assert not MemFlex(magnitude=2e-3)(grads)["w"].any()
    assert not MemFlex()({**grads, "retain": {"w": torch.ones(2, 2)}})["w"].any()


@pytest.mark.parametrize(
    "text, part",
    [
        ("shure", "did you mean 'sure'"),
        ("sure(percent=3)", "percentile"),
        ("sure(percentile=101)", "[0, 100]"),
        ("sure(per=columns)", "'rows' or 'tensors'"),
        ("sure, memflex", "unknown mask"),
        ("sure(", "can't read the mask"),
    ],
)
def test_bad_masks_are_refused_in_one_sentence(text, part):
    with pytest.raises(UnlearnError) as error:
        UnlearnSettings(mask=text)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_masks_round_trip():
    assert list(MASKS) == ["collapse", "memflex", "sure"]
    for name in MASKS:
        assert MASKS.read(name) == MASKS[name]()
