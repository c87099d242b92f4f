"""Merges by singular vectors and in the core: against dense formulas, and the same for all ways to write an adapter."""

from dataclasses import replace

import pytest
import torch
from adapter_toys import dense, relative, write_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import combine, core_bases, iso_c, iso_cts, merge_adapters, negmerge, tsv
from unlearn_nb.models import read_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SPECTRAL = ["tsv", "tsv(share=1.0)", "iso_c", "iso_cts", "iso_cts(share=0.5)", "knots"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three adapters, the last of another rank."""
    folder = tmp_path_factory.mktemp("spectral")
    paths = [write_adapter(folder / f"a{seed}", seed, r=rank) for seed, rank in ((1, 4), (2, 4), (3, 6))]
    return [read_adapter(path) for path in paths]


def turned(adapter, seed):
    """The same updates, written with other factors (B M, M^-1 A)."""
    generator, tensors = torch.Generator().manual_seed(seed), dict(adapter.tensors)
    for module in adapter.modules:
        B, A = adapter.factors(module)
        M = torch.linalg.qr(torch.randn(len(A), len(A), generator=generator))[0] @ torch.diag(
            0.5 + torch.rand(len(A), generator=generator))
        name = f"base_model.model.{module}.lora_{{}}.weight"
        tensors |= {name.format("B"): B @ M, name.format("A"): torch.linalg.inv(M) @ A}
    return replace(adapter, tensors=tensors)


def deltas(merged):
    return {module: dense(merged, module) for module in merged.modules}


def far(one, other):
    one, other = deltas(one), deltas(other)
    return max(relative(one[module], other[module]) for module in one)


@pytest.mark.parametrize("method", SPECTRAL)
def test_the_merge_in_small_bases_is_the_dense_one(three, method):
    merged = merge_adapters(three, method=method, space="delta", density=0.6)
    weights = [1 / 3] * 3
    for module in merged.modules[:3]:
        wanted = combine([dense(adapter, module) for adapter in three], weights, method, density=0.6)
        assert relative(dense(merged, module), wanted) < 2e-4
    assert merged.error < 1e-5 and merged.report["rank"].max() <= 14


@pytest.mark.parametrize("space, method", [*(("delta", name) for name in SPECTRAL), ("delta", "negmerge"),
                                           ("core", "linear"), ("core", "ties"), ("core", "magnitude_prune"),
                                           ("core", "negmerge"), ("core", "tsv")])
def test_factors_and_order_do_not_matter(three, space, method):
    options = dict(method=method, space=space, density=0.6, rank="dense")
    merged = merge_adapters(three, weights=[1, 2, 3], **options)
    assert far(merge_adapters([turned(adapter, i) for i, adapter in enumerate(three)], weights=[1, 2, 3], **options),
               merged) < 2e-3
    assert far(merge_adapters(three[::-1], weights=[3, 2, 1], **options), merged) < 2e-3


def test_linear_in_the_core_is_linear(three):
    one, other = (merge_adapters(three, method="linear", space=space, weights=[1, -0.5, 2], rank=14)
                  for space in ("core", "delta"))
    assert far(one, other) < 1e-5


@pytest.mark.parametrize("method", ["tsv", "knots", "negmerge", "ties"])
def test_one_task_stays_itself(three, method):
    space = "core" if method == "ties" else "delta"
    assert far(merge_adapters(three[:1], method=method, space=space), three[0]) < 1e-5


@pytest.mark.parametrize("method", ["iso_c", "iso_cts"])
def test_one_task_gets_a_flat_spectrum_in_its_own_directions(three, method):
    merged = merge_adapters(three[:1], method=method, space="delta")
    module = merged.modules[0]
    found, own = torch.linalg.svd(dense(merged, module)), torch.linalg.svd(dense(three[0], module))
    torch.testing.assert_close(found.S[:4], own.S[:4].mean().expand(4), rtol=1e-4, atol=0)
    assert found.S[4:].max() < 1e-5 * found.S[0]
    for side, other in ((found.U[:, :4], own.U[:, :4]), (found.Vh[:4].T, own.Vh[:4].T)):
        torch.testing.assert_close(side @ side.T, other @ other.T, rtol=0, atol=1e-5)


def test_equal_weights_mean_the_sum(three):
    """Whatever they are; unequal ones weigh the summands."""
    module = three[0].modules[0]
    stack = [dense(adapter, module) for adapter in three]
    norms = [combine(stack, weights, "tsv(share=1.0)").norm() for weights in ([1.0] * 3, [1 / 3] * 3, [0.2] * 3)]
    assert torch.allclose(norms[0], norms[1], rtol=1e-5) and torch.allclose(norms[0], norms[2], rtol=1e-5)
    alone = combine(stack, [1.0, 0, 0], "tsv(share=1.0)")
    assert relative(alone, 3 * stack[0]) < 1e-6


def test_tsv_and_iso_as_published_look_at_all_of_the_matrix(three):
    """1/T of min(m, n) cuts nothing of a LoRA; a flat spectrum is one of null directions, too."""
    module = three[0].modules[0]
    stack = torch.stack([dense(adapter, module) for adapter in three[:2]])
    half, small = torch.tensor([0.5, 0.5]), min(stack.shape[1:])
    total = torch.linalg.svdvals(stack.sum(0))
    assert torch.linalg.matrix_rank(tsv(stack, half, faithful=True), rtol=1e-6) == 8 > torch.linalg.matrix_rank(
        tsv(stack, half), rtol=1e-6)
    assert torch.allclose(torch.linalg.svdvals(iso_c(stack, half, faithful=True)), (total.sum() / small).expand(small))
    ours = torch.linalg.svdvals(iso_c(stack, half))
    assert torch.allclose(ours[:8], (total.sum() / 8).expand(8)) and ours[8:].max() < 1e-9
    assert torch.isfinite(iso_cts(stack, half, faithful=True)).all()


def test_iso_cts_keeps_the_common_part_apart_from_the_tasks():
    """A direction that both tasks have is common; what each has of its own comes from what is left off it."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64))[0] for n in (10, 8))
    tasks = torch.stack([5 * torch.outer(left[:, 0], right[:, 0]) + torch.outer(left[:, i], right[:, i])
                         for i in (1, 2)])
    merged = iso_cts(tasks, torch.ones(2), share=0.4)  # of rank 3: one common, one of each task
    torch.testing.assert_close(merged, (10 + 1 + 1) / 3 * left @ right.T)


def test_negmerge_keeps_agreed_signs_of_updates(three):
    stack = [dense(adapter, three[0].modules[0]) for adapter in three]
    agreed = torch.stack(stack).sign().sum(0).abs() == 3
    wanted = torch.stack(stack).mean(0) * agreed
    assert torch.allclose(combine(stack, [1 / 3] * 3, "negmerge"), wanted) and 0.1 < agreed.double().mean() < 0.5
    merged = merge_adapters(three, method="negmerge", space="delta", rank="dense", scale=-2.0)
    assert relative(dense(merged, three[0].modules[0]), -2 * wanted) < 1e-5
    assert not negmerge(torch.tensor([[[1.0]], [[0.0]]]), torch.ones(2)).any()  # a zero is no agreement


def test_core_bases_of_nothing_and_of_dependent_updates(three):
    B, A = three[0].update(three[0].modules[0])
    left, right = core_bases([(B, A), (2 * B, A)])
    assert left.shape[1] == right.shape[0] == 4
    left, right = core_bases([(torch.zeros(5, 2), torch.zeros(2, 3))])
    assert left.shape == (5, 1) and right.shape == (1, 3)


@pytest.mark.parametrize("method", ["tsv", "iso_c", "iso_cts", "knots", "negmerge", "slerp"])
def test_methods_of_updates_are_refused_on_factors(three, method):
    with pytest.raises(UnlearnError, match=f"{method} merges whole updates"):
        merge_adapters(three[:2], method=method)


@pytest.mark.parametrize("method, message", [("tsv(share=0)", r"in \(0, 1\], not 0"), ("iso_cts(share=2)", "not 2"),
                                             ("tsv(faithful=x)", "doesn't say whose code")])
def test_bad_options_are_refused(three, method, message):
    with pytest.raises(UnlearnError, match=message):
        merge_adapters(three[:2], method=method, space="delta")
