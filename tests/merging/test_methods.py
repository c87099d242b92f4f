"""Merge methods as functions of tensors: order, scale, density, identity."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import (
    MERGE_METHODS,
    SparseConsensus,
    combine,
    disjoint_mean,
    is_linear,
    keep_largest,
    keep_random,
    merge_adapters,
    weighted_sum,
)

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)
weight_lists = st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4)


def random_stack(seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 9, generator=generator) for _ in range(count)]


@quick
@given(seeds, weight_lists, st.sampled_from(["linear", "ties", "magnitude_prune"]), st.floats(0.1, 1.0), st.randoms())
def test_order_of_the_adapters_does_not_matter(seed, weights, method, density, shuffler):
    tensors = random_stack(seed, len(weights))
    order = list(range(len(weights)))
    shuffler.shuffle(order)
    merged = combine(tensors, weights, method, density=density)
    shuffled = combine([tensors[i] for i in order], [weights[i] for i in order], method, density=density)
    assert torch.allclose(merged, shuffled, atol=1e-5)


@quick
@given(seeds, weight_lists, st.sampled_from(list(MERGE_METHODS)), st.floats(0.1, 1.0),
       st.sampled_from([0.25, 2.0, 64.0]))
def test_merging_is_scale_equivariant(seed, weights, method, density, factor):
    tensors = random_stack(seed, len(weights))
    merged, scaled = (combine(ts, weights, method, density=density, generator=torch.Generator().manual_seed(seed))
                      for ts in (tensors, [factor * tensor for tensor in tensors]))
    assert torch.allclose(scaled, factor * merged, rtol=1e-5, atol=1e-6)


@quick
@given(seeds, weight_lists, st.sampled_from([("magnitude_prune", "linear"), ("dare_linear", "linear"),
                                            ("dare_ties", "ties")]))
def test_density_one_does_not_trim(seed, weights, pair):
    tensors = random_stack(seed, len(weights))
    assert torch.equal(combine(tensors, weights, pair[0]), combine(tensors, weights, pair[1]))


@quick
@given(seeds, weight_lists, st.sampled_from(list(MERGE_METHODS)))
def test_equal_tensors_stay_themselves(seed, weights, method):
    tensor = random_stack(seed, 1)[0]
    shares = [weight / sum(weights) for weight in weights]
    assert torch.allclose(combine([tensor] * len(weights), shares, method), tensor, atol=1e-5)


@quick
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_trim_equals_topk_even_where_entries_are_equal(values, density):
    tensor = torch.tensor(values)
    kept = tensor.abs().topk(int(density * len(values))).indices
    wanted = tensor if density == 1 else tensor * torch.zeros(len(values)).index_fill_(0, kept, 1.0)
    assert torch.equal(keep_largest(tensor, density), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trim_in_half_precision(dtype):
    tensor = torch.randn(31, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    trimmed = keep_largest(tensor, 0.4)
    assert trimmed.dtype == dtype and int((trimmed != 0).sum()) == int(0.4 * tensor.numel())
    assert trimmed[trimmed != 0].abs().min() >= tensor[trimmed == 0].abs().max()


def test_random_pruning_keeps_the_expectation_and_repeats():
    tensor = torch.ones(200_000)
    first, again, other = (keep_random(tensor, 0.3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert abs(float(first.mean()) - 1) < 0.02 and abs(float((first != 0).float().mean()) - 0.3) < 0.01


# ---------------------------------------------------------------- methods of one's own

@pytest.fixture
def own_method(monkeypatch):
    """A method that is registered for one test only."""
    monkeypatch.setattr(MERGE_METHODS, "_entries", dict(MERGE_METHODS._entries))

    @MERGE_METHODS.register(name="signed_size")
    def signed_size(stack, weights, *, density, generator, power=1.0):
        size = weighted_sum(stack.abs() ** power, weights) ** (1 / power)
        return weighted_sum(stack, weights).sign() * size

    return signed_size


@pytest.mark.parametrize("space", ["factors", "delta"])
def test_a_method_of_ones_own_is_found_by_name_with_its_options(folder, own_method, space):
    paths = [folder / "one", folder / "two"]
    by_name = merge_adapters(paths, method="signed_size(power=2)", space=space)
    assert by_name.recipe.method == by_name.recipe.method_name == "signed_size(power=2)"
    other, same = (merge_adapters(paths, method=method, space=space) for method in ("signed_size", own_method))
    assert all(torch.equal(tensor, same.tensors[name]) for name, tensor in other.tensors.items())
    assert not all(torch.equal(tensor, by_name.tensors[name]) for name, tensor in other.tensors.items())
    assert same.recipe.method_name == "signed_size" and not is_linear("signed_size", 1.0)


def test_a_pair_of_ones_own_that_is_linear_is_exact_on_low_rank(folder, monkeypatch):
    monkeypatch.setattr(MERGE_METHODS, "_entries", dict(MERGE_METHODS._entries))
    MERGE_METHODS.register(SparseConsensus(None, weighted_sum, linear=True), name="mean")
    paths = [folder / "one", folder / "two"]
    mean, linear = (merge_adapters(paths, method=method, space="delta", rank=16) for method in ("mean", "linear"))
    assert mean.error < 1e-12 and all(torch.equal(mean.tensors[name], linear.tensors[name]) for name in mean.tensors)


def test_what_is_linear_at_which_density():
    linear = {name: [is_linear(name, density) for density in (0.5, 1.0)] for name in MERGE_METHODS}
    assert linear == {"linear": [True, True], "magnitude_prune": [False, True], "dare_linear": [False, True],
                      "ties": [False, False], "dare_ties": [False, False]}


def test_bad_methods_get_one_sentence(folder, own_method):
    paths = [folder / "one", folder / "two"]
    for options, message in [({"method": "signed_size", "faithful": True}, "peft, which has no merge method"),
                             ({"method": "signed_size(powr=2)"}, "did you mean 'power'"),
                             ({"method": "ties(density=0.5)"}, "ties takes no arguments"),
                             ({"method": lambda stack, weights, density, generator: stack}, "it must keep it")]:
        with pytest.raises(UnlearnError, match=message):
            merge_adapters(paths, **options)
    with pytest.raises(UnlearnError, match="already a merge method 'ties'"):
        MERGE_METHODS.register(SparseConsensus(None, disjoint_mean), name="ties")
