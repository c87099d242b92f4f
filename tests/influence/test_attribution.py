"""Scores of training rows: blocks, units and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys import data, gpt2, lora, make_tokenizer

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import Attribution, AttributionSettings, CrossEntropy, TensorTask, scores
from unlearn_nb.models import RowsLoss

ROWS, QUERIES = data(7), data(3, seed=5)


def found(**options):
    loss = RowsLoss(options.pop("over", "rows"), max_length=48)
    settings = AttributionSettings(loss=loss, **{key: options.pop(key) for key in ("memory_mb", "max_tokens")
                                                 if key in options})
    return scores(lora(gpt2()), make_tokenizer(), ROWS, queries=QUERIES, settings=settings, **options)


@pytest.mark.parametrize("method", ["dot", "cosine", "ekfac", "woodbury", "datainf"])
def test_blocks_of_queries_and_chunks_of_rows_change_nothing(method):
    wanted = found(method=method).values
    small = found(method=method, memory_mb=0.01, max_tokens=30).values
    assert np.allclose(small, wanted, rtol=1e-6, atol=1e-9 * abs(wanted).max())


def test_a_large_damping_makes_every_solver_a_gradient_step():
    wanted = found(method="dot(rate=1e-6)").values
    for solver in ("ekfac", "woodbury", "cg(max_products=3)"):
        assert np.allclose(found(method=solver, damping=1e6).values, wanted, rtol=1e-4)


def test_a_mean_over_tokens_gives_long_rows_their_share():
    rows, tokens = (found(method="dot", over=over).values for over in ("rows", "tokens"))
    counts = np.array([len(row["response"].split()) + 1 for row in ROWS])  # and the end of the text
    assert np.allclose(tokens, rows * counts / counts.mean(), rtol=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "ekfack"}, "unknown attribution method"), ({"method": "dot(length=2)"}, "length"),
    ({"method": "random", "damping": 0.1}, "has no damping"), ({"method": "ekfac", "damping": -1.0}, "damping")])
def test_what_is_unfit_is_refused(options, message):
    with pytest.raises(UnlearnError, match=message):
        found(**options)


def test_a_row_without_response_is_named():
    with pytest.raises(UnlearnError, match="training rows: row 1 has no 'response'"):
        scores(lora(gpt2()), make_tokenizer(), [ROWS[0], {"prompt": "w5"}], queries=QUERIES)


def test_saved_scores_are_the_same_and_their_card_shows_no_markup(tmp_path):
    one = found(method="dot")
    again = Attribution.load(one.save(tmp_path / "scores"))
    assert (again.values == one.values).all() and again.table().equals(one.table()) and again.facts == one.facts
    bad = Attribution(np.eye(2), ["<script>", "q"], ["a", "b"], method="dot")
    assert "<script>" not in bad._repr_html_() and "&lt;script&gt;" in bad._repr_html_()


PARITY = json.loads(Path(__file__).with_name("attribution_parity.json").read_text(encoding="utf-8"))["problems"]
OURS = {"kronfluence ekfac": ("ekfac", "empirical-fisher"), "dattri datainf": ("datainf", "empirical-fisher"),
        "dattri explicit": ("cg(max_products=60, tol=1e-12)", "hessian")}


def labelled(inputs, classes):
    return [{"prompt": torch.tensor(x, dtype=torch.float64), "response": torch.tensor(y)}
            for x, y in zip(inputs, classes)]


@pytest.mark.parametrize(("problem", "theirs", "damping"), [
    (problem, theirs, damping) for problem, made in PARITY.items() for theirs, table in made["scores"].items()
    for damping in table])
def test_scores_are_those_of_other_libraries(problem, theirs, damping):
    """kronfluence's and dattri's numbers (tools/attribution_parity.py) are n times ours: they don't divide by it."""
    made, (method, curvature) = PARITY[problem], OURS[theirs]
    layers = [nn.Linear(*reversed(torch.tensor(w).shape), bias=False) for w in made["weights"]]
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1]).double()
    for layer, weight in zip(layers, made["weights"]):
        layer.weight.data = torch.tensor(weight, dtype=torch.float64)
    settings = AttributionSettings(task=TensorTask(CrossEntropy), curvature=curvature)
    ours = scores(model, None, labelled(*made["rows"]), queries=labelled(*made["queries"]), method=method,
                  damping=float(damping), settings=settings).values
    wanted = np.array(made["scores"][theirs][damping]) / len(made["rows"][0])
    assert abs(ours - wanted).max() < 1e-3 * abs(wanted).max()
