"""Training order, learning rates and the training loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_nb.core import NonFinite, UnlearnError
from unlearn_nb.models import descend, linear_rates, shuffled_batches


def test_shuffled_batches_are_seeded_epochs():
    lengths = list(range(30))
    first = shuffled_batches(lengths, 4, seed=1)
    epochs = [[next(first) for _ in range(8)] for _ in range(2)]
    again = shuffled_batches(lengths, 4, seed=1)
    assert epochs[0] == [next(again) for _ in range(8)] and epochs[0] != epochs[1]
    assert all(sorted(sum(epoch, [])) == lengths for epoch in epochs)


@given(steps=st.integers(1, 60), rise=st.integers(0, 80))
def test_rates_rise_to_the_highest_and_fall_but_not_to_zero(steps, rise):
    rates = linear_rates(0.5, steps, rise)
    top = min(rise, steps) - 1 if rise else 0
    assert len(rates) == steps and min(rates) > 0 and max(rates) <= 0.5
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top + 1 :] == sorted(rates[top + 1 :], reverse=True)


def test_descent_equals_adamw_by_hand():
    start, target = torch.randn(5, generator=torch.Generator().manual_seed(0)), torch.arange(5.0)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    rates = linear_rates(0.1, 7, rise=2)
    losses = descend([ours], lambda step: (ours - target).square().sum(), rates, weight_decay=0.01)
    optimizer = torch.optim.AdamW([theirs], betas=(0.9, 0.95), weight_decay=0.01)
    for rate, loss in zip(rates, losses):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        value = (theirs - target).square().sum()
        assert loss == pytest.approx(value.item())
        value.backward()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_gradients_may_be_left_by_the_caller_and_changed_before_clipping():
    x, seen = torch.ones(2, requires_grad=True), []

    def loss_at(step):
        x.grad = torch.full((2,), 3.0)
        return 7.0

    def keep_first():
        x.grad[1] = 0

    losses = descend([x], loss_at, [0.1, 0.1], before_clip=keep_first, after_step=seen.append)
    assert losses == [7.0, 7.0] and seen == [0, 1] and x[1] == 1 and x[0] < 1


def test_a_loss_that_is_not_finite_ends_before_the_step():
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(UnlearnError, match="walk: the loss is inf at step 2; use an lr below 0.1"):
        descend([x], lambda step: x.sum() * (1 if step == 0 else float("inf")), [0.1, 0.05], what="walk")
    assert x.item() == pytest.approx(0.9)


def test_a_gradient_that_is_not_finite_ends_before_the_step():
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    with pytest.raises(NonFinite, match=r"walk: the gradient is inf \(of a loss of 2\) at step 1; use an lr below 0.1"):
        descend([x], lambda step: x.sqrt().sum(), [0.1], what="walk")
    assert x.tolist() == [0, 4]


def test_a_weight_that_is_not_finite_after_the_last_step_is_told():
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(NonFinite, match=r"walk: weights are NaN or infinite \(after a loss of 1\) at step 1"):
        descend([x], lambda step: x.sum(), [1e39], what="walk")
