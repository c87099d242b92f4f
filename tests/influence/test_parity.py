"""Scores of a small problem against those of kronfluence and dattri (numbers written by tools/parity.py)."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from unlearn_nb.influence import CrossEntropy, Curvature, TensorTask, TrainingLoss, solve

THEIRS = json.loads((Path(__file__).parent / "parity.json").read_text())


@pytest.fixture(scope="module")
def problem():
    """The loss, the training rows and the gradients of the queries."""
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    model.load_state_dict({name: torch.tensor(value).double() for name, value in THEIRS["weights"].items()})
    x, y = torch.tensor(THEIRS["x"], dtype=torch.float64), THEIRS["y"]
    rows = [{"prompt": one, "response": label} for one, label in zip(x, y)]
    loss, n = TrainingLoss(model, TensorTask(CrossEntropy)), THEIRS["rows"]
    return loss, rows[:n], torch.stack([loss.gradient([row]) for row in rows[n:]])


@pytest.mark.parametrize(
    "name, solver, kind",
    [
        ("ekfac", "ekfac", "empirical-fisher"),
        ("datainf", "datainf", "empirical-fisher"),
        ("explicit", "cg(tol=1e-10)", "hessian"),
    ],
)
def test_scores_are_those_of_other_libraries(problem, name, solver, kind):
    loss, rows, queries = problem
    theirs = torch.tensor(THEIRS["scores"][name], dtype=torch.float64)
    found = solve(solver, Curvature(loss, rows, kind), queries, damping=THEIRS["damping"][name])
    ours = found.x @ torch.stack([loss.gradient([row]) for row in rows]).T
    error = float((ours - theirs).norm() / theirs.norm())
    print(f"{name}, {THEIRS['by'][name]}: relative error {error:.1e}")
    assert error < 1e-3
