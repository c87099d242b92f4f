"""Low-rank algebra against dense computations."""
import math

import pytest
import torch
from adapter_toys import dense
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.merging import (
    adapter_inner,
    adapter_norm,
    balanced,
    combine,
    delta_inner,
    delta_norm,
    dense_svd,
    factor_svd,
    rank_for,
    stack_factors,
)
from unlearn_nb.models import read_adapter

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 7), st.floats(-2, 2))
def test_low_rank_algebra_equals_dense(seed, rank, other_rank, weight):
    generator = torch.Generator().manual_seed(seed)
    pairs = [(torch.randn(9, r, generator=generator), torch.randn(r, 6, generator=generator))
             for r in (rank, other_rank)]
    first, second = (B.double() @ A.double() for B, A in pairs)
    assert math.isclose(delta_inner(*pairs), (first * second).sum(), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(delta_norm(*pairs[0]), first.norm(), rel_tol=1e-9)
    B, A = stack_factors(pairs, [1.0, weight])
    total = first + weight * second
    assert torch.allclose(B.double() @ A.double(), total, atol=1e-5)
    U, S, Vh = factor_svd(B, A)
    exact = torch.linalg.svdvals(total)
    assert torch.allclose(S[:6], exact[: len(S)], atol=1e-5) and torch.allclose((U * S) @ Vh, total, atol=1e-5)
    tol = 0.3
    kept = rank_for(exact, tol)
    assert exact[kept:].norm() <= tol * exact.norm() < exact[kept - 1:].norm()
    left, right = balanced(U, S, Vh, rank=kept)
    assert math.isclose(left.norm(), right.norm(), rel_tol=1e-6)


def test_subspace_iteration_is_near_the_best_truncation():
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(300, 16, generator=generator) @ torch.randn(16, 400, generator=generator) for _ in range(2)]
    delta = combine(deltas, [0.5, 0.5], "ties", density=0.6)
    U, S, Vh = dense_svd(delta, 8)
    assert len(S) == 40  # the iterative route was taken
    best = torch.linalg.svdvals(delta)[8:].norm()
    assert torch.dist((U[:, :8] * S[:8]) @ Vh[:8], delta) < 1.001 * best
    assert torch.equal(S, dense_svd(delta, 8)[1])


def test_angle_between_adapters_equals_the_dense_angle(folder):
    one, two = read_adapter(folder / "one"), read_adapter(folder / "rs_two")
    flat = [torch.cat([dense(adapter, module).flatten() for module in one.modules]) for adapter in (one, two)]
    assert math.isclose(adapter_inner(one, two), flat[0] @ flat[1], rel_tol=1e-4)
    assert math.isclose(adapter_norm(folder / "one"), flat[0].norm(), rel_tol=1e-6)
