"""The metagradient against finite differences of whole trainings of an adapter, in float64."""

import numpy as np
import pytest
import torch
from toys import data, gpt2, lora, make_tokenizer

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import LanguageTask, query_losses, smoothness, unroll, unrolled_scores
from unlearn_nb.models import Recipe, RowsLoss

ROWS, QUERIES = data(6), data(3, seed=5)


def training(over, optimiser="adamw(eps_root=1e-6)", steps=7, batch_size=4):
    recipe = Recipe(steps=steps, batch_size=batch_size, lr=5e-3, loss_over=over, loss_on="response", max_length=48)
    return unroll(lora(gpt2()), make_tokenizer(), ROWS, recipe=recipe, optimiser=optimiser, clip=0.5)


@pytest.mark.parametrize("over", ["tokens", "rows"])
def test_a_row_with_another_weight_moves_the_losses_as_the_metagradient_says(over):
    one = training(over)
    found = unrolled_scores(one, QUERIES, block=2).values
    h = 1e-4 * torch.eye(len(ROWS), dtype=torch.float64)
    ends = [[query_losses(one, QUERIES, one.train(1 + sign * step)) for sign in (-1, 1)] for step in h]
    wanted = np.stack([(less - more) / 2e-4 for less, more in ends], axis=1)
    assert abs(found - wanted).max() < 1e-5 * abs(wanted).max()


def test_what_is_kept_on_the_way_back_changes_nothing(monkeypatch):
    one = training("rows", steps=9)
    found = unrolled_scores(one, QUERIES).values
    for every in (1, 4, 9):
        monkeypatch.setattr(type(one), "every", every)
        assert np.allclose(unrolled_scores(one, QUERIES).values, found, rtol=1e-9, atol=1e-15)


def test_a_batch_of_which_nothing_is_left_makes_no_step():
    one, none = training("tokens", batch_size=2), torch.zeros(len(ROWS))
    assert torch.equal(one.train(none), one.start)
    alone = none.clone()
    alone[2] = 1.0
    used = sum(2 in batch for batch in one.batches)
    assert 0 < used < len(one.batches) and not torch.equal(one.train(alone), one.start)
    assert (unrolled_scores(one, QUERIES).values != 0).any()


def test_the_model_is_as_before_even_where_a_training_fails():
    one = training("rows")
    model = one.loss.model
    before = {name: p.clone() for name, p in model.named_parameters()}
    smoothness(one)
    unrolled_scores(one, QUERIES[:1])
    with torch.no_grad():
        one.start[0] = float("nan")
    with pytest.raises(UnlearnError, match="diverges"):
        one.train()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_no_queries_and_no_rows_are_refused():
    with pytest.raises(UnlearnError, match="no queries"):
        unrolled_scores(training("rows"), [])
    with pytest.raises(UnlearnError, match="no training rows"):
        unroll(lora(gpt2()), make_tokenizer(), [], recipe=Recipe(steps=1))


def test_queries_are_measured_over_their_own_tokens():
    one = training("tokens")
    task = LanguageTask(make_tokenizer(), RowsLoss("rows", max_length=48))
    batch = task.batch(task.encode(QUERIES))
    with torch.no_grad():
        z, _ = one.loss.outputs(batch)
    wanted = one.loss.row_values(z, batch)
    assert np.allclose(query_losses(one, QUERIES, one.start), wanted.numpy(), rtol=1e-9)
