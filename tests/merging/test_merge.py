"""Merging: parity with peft, parity with dense computations written here, identities, messages."""
import math
from dataclasses import replace

import peft.tuners.lora.model as peft_lora
import pytest
import torch
from adapter_toys import assert_same_tensors, dense, llama, relative, write_adapter
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import (
    MERGE_METHODS,
    adapter_inner,
    adapter_norm,
    merge_adapters,
    merge_into,
    merges_updates_only,
)
from unlearn_nb.models import Adapter, read_adapter

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
methods = pytest.mark.parametrize("method", list(MERGE_METHODS))


def peft_merge(paths, weights, method, density, layers=2, seed=None, monkeypatch=None) -> tuple[dict, PeftModel]:
    names = [f"a{i}" for i in range(len(paths))]
    model = PeftModel.from_pretrained(llama(layers), paths[0], adapter_name=names[0])
    for name, path in zip(names[1:], paths[1:]):
        model.load_adapter(path, name)
    if seed is not None:  # peft draws the new adapter's initialisation before it prunes
        freeze = peft_lora._freeze_adapter
        monkeypatch.setattr(peft_lora, "_freeze_adapter", lambda *a: (freeze(*a), torch.manual_seed(seed)))
    model.add_weighted_adapter(names, weights, "merged", combination_type=method, density=density)
    return get_peft_model_state_dict(model, adapter_name="merged", save_embedding_layers=False), model


def entrywise_ties(deltas: list[Tensor], weights: list[float], density: float) -> Tensor:
    """TIES of dense updates, in Python, one entry at a time."""
    trimmed = []
    for delta in deltas:
        flat = delta.flatten().tolist()
        largest = sorted(range(len(flat)), key=lambda i: -abs(flat[i]))[: int(density * len(flat))]
        trimmed.append([flat[i] if i in keep else 0.0 for keep in [set(largest)] for i in range(len(flat))])
    merged = []
    for values in zip(*trimmed):
        votes = [weight / sum(weights) * value for weight, value in zip(weights, values)]
        sign = 1 if sum(votes) >= 0 else -1
        agreeing = [(vote, weight / sum(weights)) for vote, weight in zip(votes, weights) if vote * sign > 0]
        merged.append(sum(vote for vote, _ in agreeing) / sum(w for _, w in agreeing) if agreeing else 0.0)
    return torch.tensor(merged, dtype=torch.float64).view_as(deltas[0])


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.3, 1.7], [1.0, -0.5], [0.2, 0.5, 1.1], [1.0, 1.0, 1.0]])
@pytest.mark.parametrize("method", ["ties", "linear", "magnitude_prune"])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8, 1.0])
def test_faithful_equals_peft(folder, method, weights, density):
    paths = [folder / name for name in ("one", "two", "three")[: len(weights)]]
    ours = merge_adapters(paths, method=method, weights=weights, density=density, faithful="peft")
    assert_same_tensors(ours.tensors, peft_merge(paths, weights, method, density)[0])


@pytest.mark.parametrize("density", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("count", [2, 3])
def test_faithful_dare_equals_peft_under_the_same_generator_state(folder, monkeypatch, method, density, count):
    paths, weights = [folder / name for name in ("one", "two", "three")[:count]], [0.4, 0.6, 0.9][:count]
    ours = merge_adapters(paths, method=method, weights=weights, density=density, seed=5, faithful="peft")
    theirs = peft_merge(paths, weights, method, density, seed=5, monkeypatch=monkeypatch)[0]
    assert_same_tensors(ours.tensors, theirs)


def test_faithful_dare_equals_peft_with_more_than_ten_layers(tmp_path, monkeypatch):
    paths = [write_adapter(tmp_path / name, seed, layers=11, r=2) for seed, name in enumerate(("one", "two"))]
    ours = merge_adapters(paths, method="dare_ties", density=0.5, seed=1, faithful="peft")
    theirs = peft_merge(paths, [1.0, 1.0], "dare_ties", 0.5, layers=11, seed=1, monkeypatch=monkeypatch)[0]
    assert_same_tensors(ours.tensors, theirs)


@pytest.mark.parametrize("names", [["one"], ["rs_one"], ["rs_one", "rs_two"]])
def test_faithful_saved_adapter_behaves_as_pefts(folder, tmp_path, names):
    """One adapter alone (peft: always linear), and rsLoRA, whose flag peft keeps: the wrong scale is included."""
    paths, weights = [folder / name for name in names], [0.5, 0.5][: len(names)]
    tensors, theirs = peft_merge(paths, weights, "ties", 0.7)
    ours = merge_adapters(paths, tmp_path / "merged", weights=weights, density=0.7, faithful="peft")
    assert_same_tensors(ours.tensors, tensors)
    theirs.set_adapter("merged")
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "merged").eval()
    inputs = torch.arange(10)[None]
    assert torch.equal(theirs.eval()(inputs).logits, loaded(inputs).logits)


def test_faithful_keeps_pefts_rslora_error(folder):
    faithful = merge_adapters([folder / "rs_one"] * 2, weights=[1.0, 1.0], method="ties", faithful="peft")
    assert math.isclose(adapter_norm(faithful) / adapter_norm(folder / "rs_one"), math.sqrt(8), rel_tol=1e-5)
    assert math.isclose(faithful.norm, adapter_norm(faithful), rel_tol=1e-6)


def test_published_linear_of_equal_adapters_is_four_times_the_mean(folder):
    paths = [folder / "one"] * 2
    size = {method: adapter_norm(merge_adapters(paths, method=method, faithful="peft"))
            for method in ("linear", "ties")}
    assert math.isclose(size["linear"], 4 * size["ties"], rel_tol=1e-5)


@methods
@pytest.mark.parametrize("space", ["factors", "delta"])
@pytest.mark.parametrize("name", ["three", "rs_one"])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.2, 3.1], [2.0, -0.5], [0.0, 1.0], [1.0, 2.0, 4.0], [7.0]])
def test_merging_with_itself_is_the_identity(folder, method, space, name, weights):
    asked_for_two = method == "slerp" and (len(weights) != 2 or min(weights) < 0)
    if asked_for_two or space == "factors" and merges_updates_only(method):
        return  # refused, see test_methods and test_spectral
    if method in ("tsv", "iso_c", "iso_cts"):
        return  # fewer directions, or other sizes, are what these are for: see test_spectral
    merged = merge_adapters([folder / name] * len(weights), method=method, space=space, weights=weights)
    for module in merged.modules:
        assert relative(dense(merged, module), dense(folder / name, module)) < 2e-6
    assert merged.error < 1e-5
    assert merged.config["lora_alpha"] == merged.config["r"] and not merged.config["use_rslora"]


def test_a_negative_weight_on_factors_subtracts(folder):
    """Where adapters share A, exactly; where they share nothing, the second's part of the merge points against it."""
    one, two = (read_adapter(folder / name) for name in ("one", "two"))
    shared = replace(two, tensors={name: one.tensors[name] if ".lora_A." in name else tensor
                                   for name, tensor in two.tensors.items()})
    merged = merge_adapters([one, shared], method="linear", weights=[2, -1])
    for module in merged.modules:
        # "two" scales by 2, which factors share evenly, so that its part has the weight of its root
        scale = math.sqrt(two.scaling(module) / one.scaling(module))
        (B, A), (C, _) = one.update(module), shared.update(module)
        wanted = (2 * B.double() - C.double() / scale) @ (2 * A.double() + scale * A.double()) / 3
        assert relative(dense(merged, module), wanted) < 1e-5
    for name in ("linear", "ties", "breadcrumbs"):
        merged, before = (merge_adapters([one, shared], method=name, weights=[2, -w]) for w in (1, 1e-9))
        assert adapter_inner(merged, shared) < adapter_inner(before, shared)


@pytest.mark.parametrize("weights", [[2.0, -1.0], [-1.0, 3.0], [1.0, 1.0, -0.5]])
def test_a_negative_weight_has_the_same_sign_on_factors_as_on_updates(weights):
    """Adapters of rank 1 that share neither A nor B: each one's own part of the merge has the sign of its weight."""
    eye, count = torch.eye(len(weights)), len(weights)
    made = []
    for i in range(count):
        names = (f"base_model.model.layer.lora_{factor}.weight" for factor in "BA")
        factors = dict(zip(names, (eye[:, i:i + 1], eye[i:i + 1])))
        made.append(Adapter({"peft_type": "LORA", "r": 1, "lora_alpha": 1}, factors, str(i)))
    for space, rank in (("factors", None), ("delta", "dense")):
        own = dense(merge_adapters(made, method="linear", weights=weights, space=space, rank=rank), "layer").diagonal()
        assert own.sign().tolist() == [math.copysign(1, weight) for weight in weights]


def test_positive_weights_on_factors_merge_both_factors_alike(folder):
    paths, weights = [folder / "one", folder / "two"], [0.3, 1.7]
    merged = merge_adapters(paths, method="linear", weights=weights)
    for module in merged.modules:
        pairs = [(read_adapter(path).factors(module), math.sqrt(read_adapter(path).scaling(module))) for path in paths]
        for k, found in enumerate(merged.factors(module)):
            wanted = sum(weight / 2 * root * factors[k] for weight, (factors, root) in zip(weights, pairs))
            assert torch.allclose(found, wanted, atol=1e-6)


def test_another_code_than_peft_is_refused(folder):
    with pytest.raises(UnlearnError, match="faithful='mergekit' doesn't say whose code .* write faithful='peft'"):
        merge_adapters([folder / "one", folder / "two"], faithful="mergekit")


def test_true_still_means_peft_where_it_is_the_only_code(folder):
    paths = [folder / "one", folder / "two"]
    assert_same_tensors(merge_adapters(paths, faithful=True).tensors, merge_adapters(paths, faithful="peft").tensors)


def test_identity_of_the_loaded_model(folder, tmp_path):
    merge_adapters([folder / "rs_one"] * 2, tmp_path / "same", method="ties")
    inputs = torch.arange(10)[None]
    before = PeftModel.from_pretrained(llama(), folder / "rs_one").eval()(inputs).logits
    after = PeftModel.from_pretrained(llama(), tmp_path / "same").eval()(inputs).logits
    assert torch.allclose(before, after, atol=1e-5) and not torch.allclose(before, llama()(inputs).logits, atol=1e-2)


@pytest.mark.parametrize("names, weights", [(["one", "two"], [1.0, 1.0]), (["one", "three", "rank4"], [0.5, 2.0, 0.7])])
@pytest.mark.parametrize("density", [0.2, 0.8, 1.0])
def test_delta_ties_equals_dense_ties(folder, names, weights, density):
    paths = [folder / name for name in names]
    merged = merge_adapters(paths, method="ties", space="delta", weights=weights, density=density, rank="dense")
    for module in merged.modules[:7]:
        updates = [read_adapter(path).update(module) for path in paths]
        wanted = entrywise_ties([B.float() @ A.float() for B, A in updates], weights, density)
        assert relative(dense(merged, module), wanted) < 1e-6
        assert math.isclose(merged.report.loc[module, "norm"], wanted.norm(), rel_tol=1e-5)
    assert merged.error == 0


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_error_left_by_the_rank_is_the_best_possible_and_reported(folder, rank):
    paths = [folder / "one", folder / "two"]
    exact = merge_adapters(paths, method="ties", space="delta", density=0.7, rank="dense")
    merged = merge_adapters(paths, method="ties", space="delta", density=0.7, rank=rank)
    left = whole = 0.0
    for module in merged.modules:
        delta = dense(exact, module)
        best = torch.linalg.svdvals(delta)[rank:].norm() / delta.norm()
        assert math.isclose(merged.report.loc[module, "error"], best, rel_tol=1e-3)
        assert math.isclose(relative(dense(merged, module), delta), best, rel_tol=1e-3)
        left, whole = left + float((dense(merged, module) - delta).square().sum()), whole + float(delta.square().sum())
    assert math.isclose(merged.error, math.sqrt(left / whole), rel_tol=1e-3)
    assert f"{merged.error:.2%}" in repr(merged)


def test_linear_delta_is_the_exact_weighted_mean_at_the_sum_of_the_ranks(folder):
    paths, weights = [folder / "one", folder / "rs_two", folder / "rank4"], [1.0, 2.0, 1.0]
    for rank in (20, "dense"):
        merged = merge_adapters(paths, method="linear", space="delta", weights=weights, rank=rank)
        assert merged.error < 1e-12
        for module in merged.modules:
            wanted = sum(weight / 4 * dense(path, module) for weight, path in zip(weights, paths))
            assert relative(dense(merged, module), wanted) < 1e-6
    assert merge_adapters(paths, method="linear", space="delta").config["r"] == 8


def test_automatic_rank_is_the_smallest_within_the_tolerance_and_loads(folder, tmp_path):
    paths = [folder / "one", folder / "two"]
    merged = merge_adapters(paths, tmp_path / "auto", method="ties", space="delta", density=0.5, rank="auto", tol=0.2)
    exact = merge_adapters(paths, method="ties", space="delta", density=0.5, rank="dense")
    for module, row in merged.report.iterrows():
        singular = torch.linalg.svdvals(dense(exact, module))
        tail = [float(singular[r:].norm() / singular.norm()) for r in range(len(singular) + 1)]
        assert row["rank"] == next(r for r in range(len(tail)) if tail[r] <= 0.2)
        found = relative(dense(merged, module), dense(exact, module))
        assert math.isclose(found, tail[int(row["rank"])], rel_tol=1e-3, abs_tol=1e-6)
    assert merged.report["rank"].nunique() > 1  # so that the patterns are used
    inputs = torch.arange(10)[None]
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "auto").eval()
    assert torch.allclose(loaded(inputs).logits, merge_into(llama(), merged)(inputs).logits, atol=1e-4)
    assert math.isclose(adapter_norm(tmp_path / "auto"), merged.norm, rel_tol=1e-5)


def test_dense_merge_is_an_adapter_that_loads(folder, tmp_path):
    paths = [folder / "one", folder / "two"]
    merged = merge_adapters(paths, tmp_path / "dense", space="delta", density=0.6, rank="dense")
    inputs = torch.arange(10)[None]
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "dense").eval()
    assert torch.allclose(loaded(inputs).logits, merge_into(llama(), merged)(inputs).logits, atol=1e-4)


def test_same_arguments_give_the_same_file(folder, tmp_path):
    options = dict(method="dare_ties", space="delta", density=0.4, rank=6, seed=11)
    paths = [folder / "one", folder / "two"]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for name in ("first", "second"):
        merge_adapters(paths, tmp_path / name, **options)
    assert torch.equal(state, torch.get_rng_state())
    for file in ("adapter_model.safetensors", "merge.json", "adapter_config.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    other = merge_adapters(paths, **options | {"seed": 12})
    first = read_adapter(tmp_path / "first")
    assert not torch.equal(other.factors(other.modules[0])[0], first.factors(first.modules[0])[0])


@pytest.mark.parametrize("options, message", [
    ({"density": 0.0}, r"must lie in \(0, 1\]"),
    ({"density": 1.01}, r"must lie in \(0, 1\]"),
    ({"density": math.nan}, r"must lie in \(0, 1\]"),
    ({"density": "0.5"}, r"must lie in \(0, 1\]"),
    ({"weights": [1.0, -1.0]}, "can't be normalised"),
    ({"weights": [-1.0, -1.0]}, "can't be normalised"),
    ({"weights": [1.0, math.nan]}, "must be finite"),
    ({"weights": [1.0, math.inf], "faithful": "peft"}, "must be finite"),
    ({"weights": [1.0]}, "1 merging weights were given for 2 adapters"),
    ({"weights": []}, "0 merging weights were given for 2 adapters"),
    ({"method": "tie"}, "unknown merge method 'tie'; did you mean 'ties'"),
    ({"space": "deltas"}, "choose 'factors', 'delta' or 'core'"),
    ({"rank": 8}, "use space='delta'"),
    ({"rank": 0, "space": "delta"}, "positive integer, 'auto' or 'dense'"),
    ({"rank": True, "space": "delta"}, "positive integer, 'auto' or 'dense'"),
    ({"faithful": "peft", "space": "delta"}, "use space='factors'"),
    ({"scale": math.inf}, "must be finite"),
    ({"seed": -1}, "must be a whole number from 0"),
    ({"seed": 2**70}, "from 0 to 2..64 - 1"),
    ({"seed": 2.5}, "must be a whole number from 0"),
    ({"tol": -0.1, "rank": "auto", "space": "delta"}, "must lie in"),
])
def test_bad_arguments_get_one_sentence(folder, tmp_path, options, message):
    with pytest.raises(UnlearnError, match=message) as caught:
        merge_adapters([folder / "one", folder / "two"], tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))
    assert not (tmp_path / "out").exists()


def test_bad_adapters_get_one_sentence(folder, tmp_path):
    def refused(message, paths, **options):
        with pytest.raises(UnlearnError, match=message) as caught:
            merge_adapters(paths, tmp_path / "out", **options)
        assert "\n" not in str(caught.value)

    one = folder / "one"
    refused("no adapter to merge", [])
    refused("no adapter folder .*nowhere", [one, tmp_path / "nowhere"])
    refused("ranks 8 and 4 in .*use space='delta'", [one, folder / "rank4"])
    refused("different base models", [one, write_adapter(tmp_path / "base", 0, base="another-base")])
    narrow = write_adapter(tmp_path / "narrow", 0, target_modules=["q_proj", "v_proj"])
    refused("different modules .*only in one", [one, narrow])
    refused("different modules", [one, narrow], space="delta")
    refused("is a DORA adapter", [write_adapter(tmp_path / "dora", 0, use_dora=True)])
    pattern = write_adapter(tmp_path / "pattern", 0, rank_pattern={"q_proj": 2})
    refused("rank_pattern", [pattern, pattern], faithful="peft")
    assert not (tmp_path / "out").exists()
