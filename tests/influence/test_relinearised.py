"""Edits by steps: how far they come, what they never do, requests in sequence, files, and bad arguments."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn
from toys import data, gpt2, lora, make_tokenizer

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import (
    METRICS,
    EditSettings,
    LanguageTask,
    Request,
    TensorTask,
    TrainingLoss,
    Weights,
    erase,
    row_losses,
)
from unlearn_nb.models import RowsLoss

N = 60


@pytest.fixture(scope="module")
def ridge():
    """A linear model fitted to rows of which six are wrong: rows, the model's weights, the request, retraining's."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    y = X.sum(1, keepdim=True) + 0.1 * torch.randn(N, 1, generator=generator, dtype=torch.float64)
    wrong = y.clone()
    wrong[:6] += 3
    rows = [{"id": f"z{i}", "prompt": x, "response": t} for i, (x, t) in enumerate(zip(X, wrong))]
    fit = torch.linalg.lstsq(X, wrong).solution.T.contiguous()
    return rows, fit, Request.correct([f"z{i}" for i in range(6)], list(y[:6])), torch.linalg.lstsq(X, y).solution.T


def edit_ridge(ridge, **options):
    rows, fit, request, _ = ridge
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data = fit.clone()
    loss = TrainingLoss(model, TensorTask())

    def objective(edited):
        return float(row_losses(loss, request.apply(rows)).mean())

    asked = {"objective": objective, "budget": 1e6, "control_rows": 54} | options
    return model, erase(model, None, rows, request=request, settings=EditSettings(task=TensorTask()), **asked)


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"sign"}))  # signs do not turn with the gradient
def test_enough_steps_reach_retraining(ridge, metric):
    _, fit, _, retrained = ridge
    model, edit = edit_ridge(ridge, metric=metric)
    left = (fit + edit.delta - retrained).norm() / (fit - retrained).norm()
    assert left < (0.35 if metric == "ekfac" else 0.05)  # ekfac's curvature is that of labels drawn once
    assert torch.equal(model.weight, fit)
    assert edit.how["metric"] == metric and edit.how["ended"] == "no longer gaining"


def test_one_step_falls_short_and_more_steps_never_validate_worse(ridge):
    _, fit, _, retrained = ridge
    far = [(fit + edit_ridge(ridge, steps=steps)[1].delta - retrained).norm() for steps in (0, 1, 3, 9)]
    assert far[0] == (fit - retrained).norm() and far[0] > far[1] > far[2] > far[3]
    table = edit_ridge(ridge)[1].choices
    taken = table[table["taken"]]
    assert taken["objective"].is_monotonic_decreasing and taken["step"].tolist() == list(range(1, len(taken) + 1))
    assert set(taken["control"]) == {False, True}


def test_without_control_rows_the_frozen_gradient_never_ends(ridge):
    """The validated number still falls, so what stops the walk is validation alone."""
    _, fit, _, retrained = ridge
    _, edit = edit_ridge(ridge, control_rows=0)
    assert not edit.choices["control"].any()
    assert (fit + edit.delta - retrained).norm() < (fit - retrained).norm()


def test_the_budget_is_kept_and_too_small_a_one_is_refused(ridge):
    rows, _, request, _ = ridge
    model, _ = edit_ridge(ridge, steps=0)
    options = dict(request=request, settings=EditSettings(task=TensorTask()))
    for budget in (120, 300):
        edit = erase(model, None, rows, budget=budget, **options)
        assert 60 < edit.gradients <= budget and edit.how["judged by"] == "46 rows, of the training rows"
        assert edit.gradients >= edit.choices["gradients"].iloc[-1]
    with pytest.raises(UnlearnError, match="the budget of 20 gradient-equivalents is spent by the request's gradients "
                                           r"\(12\) and two readings"):
        erase(model, None, rows, budget=20, **options)


@pytest.fixture(scope="module")
def model():
    return lora(gpt2(), r=1)


def language(model, request, **options):
    settings = EditSettings(max_length=48)
    return erase(model, make_tokenizer(), data(8), request=request, settings=settings, **options)


def test_a_sequence_goes_on_from_the_edit_before_and_undo_is_exact(model):
    start = [tensor.clone() for tensor in Weights(model).tensors]
    requests = [Request.correct(["r0"], ["w3 w4"]), Request.modify(["r2"], ["w7"]), Request.remove(["r4"]),
                Request.add([data(8)[4]]), Request.correct(["r5"], ["w9"])]
    edits, last = [], None
    for request in requests:
        last = language(model, request, after=last, steps=2)
        assert all(torch.equal(a, b) for a, b in zip(start, Weights(model).tensors)), "not applied yet"
        edits.append(last.apply())
        last.undo()
    for one, two in zip(edits, edits[1:]):
        assert torch.equal(two.before, one.total)
    assert {row["id"] for row in last.rows} == {f"r{i}" for i in range(8)} and last.n == 8
    last.apply()
    assert torch.allclose(Weights(model).vector(), Weights(model).join(start) + last.total)
    last.undo()
    assert all(torch.equal(a, b) for a, b in zip(start, Weights(model).tensors))
    with pytest.raises(UnlearnError, match="gone from it, among them 'r4'"):
        language(model, Request.remove(["r4"]), after=edits[2])


def test_a_correction_is_learned_and_the_saved_edit_loads_in_plain_peft(model, tmp_path):
    edit = language(model, Request.correct(["r0"], ["w3 w4 w5"]))
    table = edit.choices[edit.choices["taken"]]
    assert len(table) and table["objective"].is_monotonic_decreasing
    edit.save(tmp_path / "edited")
    record = json.loads((tmp_path / "edited" / "edit.json").read_text())
    assert record["how"]["metric"] in ("adam", "ekfac") and record["how"]["judged by"] == "8 rows, of the training rows"
    loaded = PeftModel.from_pretrained(gpt2(), tmp_path / "edited").double()
    edit.apply()
    found, wanted = (m(torch.arange(3, 9)[None]).logits for m in (loaded, model))
    edit.undo()
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_removal_never_lets_kept_rows_leave_their_level(model):
    edit = language(model, Request.remove(["r1", "r3"]))
    assert np.isfinite(edit.choices["objective"][edit.choices["taken"]]).all()
    task = LanguageTask(make_tokenizer(), RowsLoss(max_length=48))
    loss = TrainingLoss(model, task.over(task.encode(data(8))))
    kept = [row for row in data(8) if row["id"] not in ("r1", "r3")]
    before = row_losses(loss, kept).mean()
    edit.apply()
    after = row_losses(loss, kept).mean()
    edit.undo()
    assert after <= before + 0.1001


def test_a_request_for_nothing_changes_nothing_and_costs_nothing(model):
    edit = language(model, Request())
    assert not edit.delta.any() and edit.gradients == 0


@pytest.mark.parametrize("options, sentence", [
    ({"damping": 0.1}, "damping and scales belong to a solver: name one, such as solver='cg', or leave them out"),
    ({"solver": "cg", "steps": 3}, "steps belongs to the edit by steps, and a solver is one step"),
    ({"steps": -1}, "steps must be a whole number of at least 0, not -1"),
    ({"metric": "adma"}, "unknown metric 'adma'; did you mean 'adam'?"),
    ({"control_rows": -1}, "control_rows must be a whole number of at least 0, not -1"),
    ({"budget": 0}, "budget must be a number of gradient-equivalents above 0, not 0"),
    ({"objective": lambda edited: float("nan")}, "the objective is not finite before the edit"),
    ({"objective": lambda edited: 0.0, "validation": data(2)}, "validation rows and an objective are given"),
    ({"validation": data(1)}, "no validation row is one that the edited model should know"),
])
def test_bad_arguments_are_told_in_one_sentence(model, options, sentence):
    with pytest.raises(UnlearnError, match=sentence.replace("?", r"\?")):
        language(model, Request.remove(["r0"]), **options)
