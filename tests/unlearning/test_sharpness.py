"""Sharpness: equals plain training in the limit, equals the formula, and puts every bit back."""

import pytest
import torch
from toys import FORGET, RETAIN, run, same, state, tiny
from transformers import TrainerCallback

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.regions import Region
from unlearn_nb.unlearning import UnlearnSettings, forward_terms, make_batcher, make_trainer, schedule_for

RHO = "sharpness(rho={})".format


class Kept(TrainerCallback):
    """The gradient of the first step, and the weights there."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = [p.grad.clone() for p in model.parameters()]
        self.weights = [p.detach().clone() for p in model.parameters()]


def first_step(tokenizer, folder, objective, **changes):
    """Gradient of a step of full training, and model, batch and weights that it was taken of."""
    settings = UnlearnSettings(**dict(steps=1, batch_size=4, max_grad_norm=0.0, method="full", lr=1e-3) | changes)
    model, kept = tiny(), Kept()
    before = [p.detach().clone() for p in model.parameters()]
    batcher = make_batcher(tokenizer, {"forget": FORGET, "retain": RETAIN}, resolve(objective))
    schedule = schedule_for(batcher, settings)
    trainer = make_trainer(model, batcher, settings=settings, schedule=schedule, folder=folder, callbacks=[kept],
                           progress=False)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, kept.weights))  # bit by bit, after the moves
    return kept.gradients, batcher(schedule), trainer.records[0]


@pytest.mark.parametrize("cut", [dict(batch_size=4), dict(batch_size=1, accumulation=4)])
def test_the_gradient_is_that_of_the_formula(tokenizer, tmp_path, cut):
    objective, rho = resolve("ga + 2*nll"), 0.3
    got, batch, record = first_step(tokenizer, tmp_path, "ga + 2*nll", step=RHO(rho), **cut)
    model = tiny()
    weights = list(model.parameters())

    def gradients(group):
        terms = forward_terms(model, objective, batch)
        loss = sum(w * term(terms[group]) for w, term in objective.parts if term.on == group)
        return torch.autograd.grad(loss, weights, materialize_grads=True), loss.item()

    (forget, value), (retain, other) = gradients("forget"), gradients("retain")
    norm = sum(float(g.square().sum()) for g in forget) ** 0.5
    with torch.no_grad():
        for weight, gradient in zip(weights, forget):
            weight += rho * gradient / norm
    moved, _ = gradients("forget")
    for g, m, r, f in zip(got, moved, retain, forget):
        assert torch.allclose(g, m + r, rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(m, f, rtol=1e-2, atol=1e-4) for m, f in zip(moved, forget))
    assert record["loss"] == pytest.approx(value + other, rel=1e-4)  # recorded where the weights are


@pytest.mark.parametrize("objective", ["zjuklab-over", "npo + nll", "rmu(layer=0) + embed_diff(layer=0)"])
def test_a_vanishing_move_is_plain_training(tokenizer, tmp_path, objective):
    plain, moved = (run(tiny(), tokenizer, tmp_path / name, objective, accumulation=2, batch_size=2, step=step).frame
                    for name, step in (("plain", ""), ("moved", RHO(1e-12))))
    columns = [c for c in plain if c != "seconds"]
    assert moved[columns].to_numpy() == pytest.approx(plain[columns].to_numpy(), rel=1e-3, abs=1e-5)


def test_the_preset_moves_and_the_given_model_stays(tokenizer, tmp_path):
    model = tiny()
    before = state(model)
    sharp = run(model, tokenizer, tmp_path / "sharp", "npo-sam", steps=4).frame
    plain = run(model, tokenizer, tmp_path / "plain", "npo + nll", steps=4).frame
    assert same(before, state(model)) and sharp.npo[0] == plain.npo[0] and sharp.npo[3] != plain.npo[3]


def test_what_can_not_be_moved_is_refused(tokenizer, tmp_path):
    with pytest.raises(UnlearnError, match="trains slices of some"):
        run(tiny(), tokenizer, tmp_path / "a", "npo + nll", step=RHO(0.1), method="full",
            region=Region.random(tiny(), 0.5))
    with pytest.raises(UnlearnError, match="sharpness looks at the terms on augmented rows"):
        run(tiny(), tokenizer, tmp_path / "b", "npo + nll", step="sharpness(on=augmented)")
    whole = Region.whole(tiny(), "layers.1")
    run(tiny(), tokenizer, tmp_path / "c", "npo + nll", step=RHO(0.1), method="full", region=whole)
