"""Merge methods as functions of tensors: order, scale, density, identity."""
import functools
import math

import pytest
import torch
from adapter_toys import dense
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import (
    MERGE_METHODS,
    SparseConsensus,
    breadcrumbs,
    combine,
    della,
    disjoint_mean,
    is_linear,
    keep_by_rank,
    keep_largest,
    keep_middle,
    keep_random,
    merge_adapters,
    weighted_sum,
)

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)
weight_lists = st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4)
ANY_COUNT = [name for name in MERGE_METHODS if name not in ("slerp", "iso_c", "iso_cts", "tsv")]


def random_stack(seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 9, generator=generator) for _ in range(count)]


@quick
@given(seeds, weight_lists, st.sampled_from(["linear", "ties", "magnitude_prune", "breadcrumbs", "breadcrumbs_ties"]),
       st.floats(0.1, 1.0), st.randoms())
def test_order_of_the_adapters_does_not_matter(seed, weights, method, density, shuffler):
    tensors = random_stack(seed, len(weights))
    order = list(range(len(weights)))
    shuffler.shuffle(order)
    merged = combine(tensors, weights, method, density=density)
    shuffled = combine([tensors[i] for i in order], [weights[i] for i in order], method, density=density)
    assert torch.allclose(merged, shuffled, atol=1e-5)


@quick
@given(seeds, weight_lists, st.sampled_from(ANY_COUNT), st.floats(0.1, 1.0),
       st.sampled_from([0.25, 2.0, 64.0]))
def test_merging_is_scale_equivariant(seed, weights, method, density, factor):
    tensors = random_stack(seed, len(weights))
    merged, scaled = (combine(ts, weights, method, density=density, generator=torch.Generator().manual_seed(seed))
                      for ts in (tensors, [factor * tensor for tensor in tensors]))
    assert torch.allclose(scaled, factor * merged, rtol=1e-5, atol=1e-6)


@quick
@given(seeds, weight_lists, st.sampled_from([("magnitude_prune", "linear"), ("dare_linear", "linear"),
                                            ("dare_ties", "ties"), ("della", "ties"), ("della_linear", "linear"),
                                            ("breadcrumbs", "linear"), ("breadcrumbs_ties", "ties")]))
def test_density_one_does_not_trim(seed, weights, pair):
    tensors = random_stack(seed, len(weights))
    assert torch.equal(combine(tensors, weights, pair[0]), combine(tensors, weights, pair[1]))


@quick
@given(seeds, weight_lists, st.sampled_from(ANY_COUNT))
def test_equal_tensors_stay_themselves(seed, weights, method):
    tensor = random_stack(seed, 1)[0]
    shares = [weight / sum(weights) for weight in weights]
    assert torch.allclose(combine([tensor] * len(weights), shares, method), tensor, atol=1e-5)


@quick
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_trim_equals_topk_even_where_entries_are_equal(values, density):
    tensor = torch.tensor(values)
    if int(density * len(values)) == 0:
        with pytest.raises(UnlearnError, match="keeps none of the"):
            keep_largest(tensor, density)
        return
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


# ---------------------------------------------------------------- DELLA, breadcrumbs, SLERP

def test_della_keeps_the_expectation_and_large_entries_more_often():
    tensor = torch.tensor([[0.5, -3.0, 1.0, 2.0, -0.1], [5.0, 4.0, -3.0, 2.0, 1.0]])
    generator, draws = torch.Generator().manual_seed(0), 4000
    drawn = torch.stack([keep_by_rank(tensor, 0.5, generator, epsilon=0.4) for _ in range(draws)])
    assert torch.allclose(drawn.mean(0), tensor, atol=0.15)
    wanted = torch.tensor([[0.3, 0.9, 0.5, 0.7, 0.1], [0.9, 0.7, 0.5, 0.3, 0.1]])
    assert torch.allclose((drawn != 0).float().mean(0), wanted, atol=0.03)
    kept = drawn[drawn != 0] / tensor.expand_as(drawn)[drawn != 0]
    assert torch.allclose(kept, 1 / wanted.expand_as(drawn)[drawn != 0], rtol=1e-5)


@quick
@given(seeds, st.floats(0.2, 0.95))
def test_della_without_a_window_is_dare(seed, density):
    tensor = random_stack(seed, 1)[0]
    della, dare = (keep(tensor, density, torch.Generator().manual_seed(seed))
                   for keep in (functools.partial(keep_by_rank, epsilon=0.0), keep_random))
    assert torch.allclose(della, dare)


@pytest.mark.parametrize("shape", [(7,), (3, 1), (1, 40), (2, 3, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_della_of_any_shape_and_type(shape, dtype):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    kept = keep_by_rank(tensor, 0.6, torch.Generator().manual_seed(1))
    assert kept.shape == tensor.shape and kept.dtype == dtype and bool((kept.sign() * tensor.sign() >= 0).all())


@quick
@given(seeds, st.floats(0.05, 0.99), st.floats(0, 0.6))
def test_breadcrumbs_keep_the_middle(seed, density, gamma):
    tensor = random_stack(seed, 1)[0]
    kept = keep_middle(tensor, density, gamma=gamma)
    count, size = int(density * tensor.numel()), tensor.abs()
    outliers = min(int(gamma * tensor.numel()), tensor.numel() - count)
    assert int((kept != 0).sum()) == count and torch.equal(kept[kept != 0], tensor[kept != 0])
    wanted = size.flatten().sort(descending=True).values[outliers:outliers + count]
    assert torch.equal(size[kept != 0].sort(descending=True).values, wanted)


def test_breadcrumbs_of_a_tensor_with_less_than_one_outlier_are_the_largest():
    tensor = random_stack(0, 1)[0]  # mergekit keeps nothing here
    assert torch.equal(keep_middle(tensor, 0.5), keep_largest(tensor, 0.5))
    by_election = combine([tensor, -0.1 * tensor], [0.5, 0.5], "breadcrumbs_ties(gamma=0.1)", density=0.5)
    assert torch.allclose(by_election, keep_middle(tensor, 0.5, gamma=0.1))
    assert torch.allclose(combine([tensor, -0.1 * tensor], [0.5, 0.5], "breadcrumbs(gamma=0.1)", density=0.5),
                          0.45 * keep_middle(tensor, 0.5, gamma=0.1))


@quick
@given(seeds, st.floats(0.0, 1.0))
def test_slerp_walks_an_arc_at_even_speed(seed, t):
    first, second = (tensor / tensor.norm() for tensor in random_stack(seed, 2))
    turned = combine([first, second], [1 - t, t], "slerp")
    angle = torch.acos((first * second).sum())
    assert torch.isclose(turned.norm(), torch.tensor(1.0), atol=1e-5)
    assert torch.isclose(torch.acos((first * turned).sum().clamp(-1, 1)), t * angle, atol=2e-3)
    assert torch.allclose(turned, combine([second, first], [t, 1 - t], "slerp"), atol=1e-5)


def test_slerp_of_parallel_opposite_or_zero_updates_is_the_chord():
    tensor = random_stack(0, 1)[0]
    for other in (3 * tensor, -tensor, 0 * tensor):
        assert torch.allclose(combine([tensor, other], [3.0, 1.0], "slerp"), 0.75 * tensor + 0.25 * other, atol=1e-6)
    assert torch.equal(combine([tensor, -tensor], [1.0, 0.0], "slerp"), tensor)


def test_slerp_of_adapters_turns_their_updates(folder):
    paths = [folder / "one", folder / "two"]
    merged = merge_adapters(paths, method="slerp", space="delta", weights=[1.0, 3.0], rank="dense")
    for module in merged.modules[:4]:
        first, second = (dense(path, module).double() for path in paths)
        angle = math.acos(float((first * second).sum() / first.norm() / second.norm()))
        wanted = (math.sin(angle / 4) * first + math.sin(3 * angle / 4) * second) / math.sin(angle)
        assert torch.allclose(dense(merged, module).double(), wanted, atol=1e-5)
    for options, message in [({}, "use space='delta'"),
                             ({"space": "delta", "weights": [2.0, -1.0]}, "weights of 0 or more")]:
        with pytest.raises(UnlearnError, match=message):
            merge_adapters(paths, method="slerp", **options)
    with pytest.raises(UnlearnError, match="was given 3 with the weights"):
        merge_adapters([*paths, folder / "three"], method="slerp", space="delta")


@pytest.mark.parametrize("method", ["ties", "magnitude_prune", "dare_linear", "dare_ties", "della", "della_linear",
                                    "breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("space", ["factors", "delta"])
def test_a_density_that_keeps_nothing_is_refused(folder, tmp_path, method, space):
    with pytest.raises(UnlearnError, match="The density 1e-05 keeps none of the .* raise it to 1/"):
        merge_adapters([folder / "one", folder / "two"], tmp_path / "out", method=method, space=space, density=1e-5)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method, message", [
    ("della(epsilon=0.6)", "probabilities from -0.1 to 1.1"), ("della_linear(epsilon=-0.1)", "choose epsilon"),
    ("breadcrumbs(gamma=1)", "gamma is 1, but it must lie in"), ("breadcrumbs_ties(gama=0.1)", "did you mean 'gamma'")])
def test_options_of_the_new_methods_are_checked(folder, method, message):
    with pytest.raises(UnlearnError, match=message):
        merge_adapters([folder / "one", folder / "two"], method=method, density=0.5)


@pytest.mark.parametrize("density", [0.5, 1.0])
@pytest.mark.parametrize("option", [{"epsilon": math.nan}, {"epsilon": True}, {"gamma": math.nan}, {"gamma": "0.1"}])
def test_options_that_are_no_numbers_are_refused_at_every_density(option, density):
    method = della if "epsilon" in option else breadcrumbs
    with pytest.raises(UnlearnError, match=f"^{next(iter(option))} is "):
        method(torch.ones(2, 3, 4), torch.ones(2), density, **option)


@pytest.mark.parametrize("density", [0, -1, 1.5, math.nan, True, "half"])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(UnlearnError, match=r"must lie in \(0, 1\]"):
        combine([torch.ones(2, 2)] * 2, [0.5, 0.5], "ties", density=density)


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
                      "ties": [False, False], "dare_ties": [False, False],
                      "breadcrumbs": [False, False], "breadcrumbs_ties": [False, False], "della": [False, False],
                      "della_linear": [False, False], "slerp": [False, False],
                      **dict.fromkeys(["tsv", "iso_c", "iso_cts", "knots", "negmerge"], [False, False])}


def test_bad_methods_get_one_sentence(folder, own_method):
    paths = [folder / "one", folder / "two"]
    for options, message in [({"method": "signed_size", "faithful": "peft"}, "peft, which has no merge method"),
                             ({"method": "signed_size(powr=2)"}, "did you mean 'power'"),
                             ({"method": "ties(density=0.5)"}, "ties takes no arguments"),
                             ({"method": lambda stack, weights, density, generator: stack}, "it must keep it")]:
        with pytest.raises(UnlearnError, match=message):
            merge_adapters(paths, **options)
    with pytest.raises(UnlearnError, match="already a merge method 'ties'"):
        MERGE_METHODS.register(SparseConsensus(None, disjoint_mean), name="ties")
