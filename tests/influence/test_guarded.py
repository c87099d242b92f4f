"""Edits that spare kept rows, on linear models where both are exact: the action suppressed, the budget spent."""

import pytest
import torch
from torch import nn

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import EditSettings, Request, TensorTask, erase, whitened, within_divergence

N, D = 24, 3
TASK = TensorTask()


@pytest.fixture
def edited():
    generator = torch.Generator().manual_seed(0)
    X, y = (torch.randn(N, k, generator=generator, dtype=torch.float64) for k in (D, 1))
    model = nn.Linear(D, 1, bias=False).double()
    rows = [{"id": f"z{i}", "prompt": x, "response": t} for i, (x, t) in enumerate(zip(X, y))]
    edit = erase(model, None, rows, request=Request.remove(["z0", "z1"]), solver="cg",
                 settings=EditSettings(task=TASK))
    return edit, rows[2:], X[2:]


@pytest.mark.parametrize("strength", [0.0, 0.5, 20.0])
def test_whitening_is_the_minimiser_of_change_and_action(edited, strength):
    edit, kept, X = edited
    moment = X.T @ X / len(X)
    unit = moment / moment.diagonal().mean()
    wanted = torch.linalg.solve(torch.eye(D, dtype=X.dtype) + strength * unit, edit.delta)
    found = whitened(edit, None, kept, strength=strength, task=TASK)
    assert torch.allclose(found.delta, wanted) and not found.applied
    assert found.gradients == edit.gradients + len(kept) / 3


def test_whitening_leaves_what_kept_rows_never_put_in():
    model = nn.Linear(D, 1, bias=False).double()
    rows = [{"id": f"z{i}", "prompt": torch.eye(D, dtype=torch.float64)[i % 2], "response": torch.ones(1).double()}
            for i in range(6)] + [{"id": "odd", "prompt": torch.eye(D, dtype=torch.float64)[2],
                                   "response": torch.ones(1).double()}]
    edit = erase(model, None, rows, request=Request.remove(["odd", "z0"]), solver="cg",
                 settings=EditSettings(task=TASK), damping=1.0)
    found = whitened(edit, None, rows[1:6], strength=1e6, task=TASK)
    assert found.delta[2] == edit.delta[2] != 0 and found.delta[:2].norm() < 1e-5 * edit.delta[:2].norm()


@pytest.mark.parametrize("nats", [1e-4, 0.3])
def test_a_budget_is_spent_on_kept_rows(edited, nats):
    edit, kept, X = edited
    found = within_divergence(edit, None, kept, nats=nats, task=TASK)
    moved = 0.5 * (X @ found.delta).square().mean()  # of unit Gaussians whose means move so far
    assert float(moved) == pytest.approx(nats)
    assert torch.cosine_similarity(found.delta, edit.delta, dim=0) > 1 - 1e-12


def test_bad_input_is_told(edited):
    edit, kept, _ = edited
    for attempt, part in ((lambda: whitened(edit, None, [], task=TASK), "no kept row is given"),
                          (lambda: whitened(edit, None, kept, strength=-1.0, task=TASK), "strength must be"),
                          (lambda: within_divergence(edit, None, kept, nats=0.0, task=TASK), "nats must be"),
                          (lambda: within_divergence(edit.scale(0.0), None, kept, nats=1.0, task=TASK), "no output")):
        with pytest.raises(UnlearnError, match=part):
            attempt()
    edit.apply()
    with pytest.raises(UnlearnError, match="undo it first"):
        whitened(edit, None, kept, task=TASK)
