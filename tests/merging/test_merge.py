"""Merging: parity with peft, parity with dense computations written here, identities, scale, files and messages."""
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import peft.tuners.lora.model as peft_lora
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import (
    MERGE_METHODS,
    adapter_inner,
    adapter_norm,
    balanced,
    combine,
    delta_inner,
    delta_norm,
    dense_svd,
    factor_svd,
    keep_largest,
    keep_random,
    match_scale,
    merge_adapters,
    merge_into,
    rank_for,
    stack_factors,
)
from unlearn_nb.models import read_adapter

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)
methods = pytest.mark.parametrize("method", list(MERGE_METHODS))


def llama(layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=layers, vocab_size=64,
                                        num_attention_heads=4, num_key_value_heads=2)).eval()


def write_adapter(folder: Path, seed: int, base: str = "base-model", layers: int = 2, model=None, **lora) -> Path:
    """A peft folder with random factors."""
    options = {"target_modules": "all-linear", "r": 8, "lora_alpha": 16} | lora
    model = get_peft_model(model or llama(layers), LoraConfig(**options))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three adapters of one base, two with rsLoRA, and one with another rank."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two", "three")):
        write_adapter(root / name, seed, lora_alpha=8 * (seed + 1))
    for seed, name in enumerate(("rs_one", "rs_two")):
        write_adapter(root / name, seed, use_rslora=True)
    write_adapter(root / "rank4", 9, r=4)
    return root


def dense(adapter, module: str) -> Tensor:
    B, A = read_adapter(adapter).update(module)
    return B.double() @ A.double()


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# ---------------------------------------------------------------- parity with peft

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


def assert_same_tensors(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.3, 1.7], [1.0, -0.5], [0.2, 0.5, 1.1], [1.0, 1.0, 1.0]])
@pytest.mark.parametrize("method", ["ties", "linear", "magnitude_prune"])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8, 1.0])
def test_faithful_equals_peft(folder, method, weights, density):
    paths = [folder / name for name in ("one", "two", "three")[: len(weights)]]
    ours = merge_adapters(paths, method=method, weights=weights, density=density, faithful=True)
    assert_same_tensors(ours.tensors, peft_merge(paths, weights, method, density)[0])


@pytest.mark.parametrize("density", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("count", [2, 3])
def test_faithful_dare_equals_peft_under_the_same_generator_state(folder, monkeypatch, method, density, count):
    paths, weights = [folder / name for name in ("one", "two", "three")[:count]], [0.4, 0.6, 0.9][:count]
    ours = merge_adapters(paths, method=method, weights=weights, density=density, seed=5, faithful=True)
    theirs = peft_merge(paths, weights, method, density, seed=5, monkeypatch=monkeypatch)[0]
    assert_same_tensors(ours.tensors, theirs)


def test_faithful_dare_equals_peft_with_more_than_ten_layers(tmp_path, monkeypatch):
    paths = [write_adapter(tmp_path / name, seed, layers=11, r=2) for seed, name in enumerate(("one", "two"))]
    ours = merge_adapters(paths, method="dare_ties", density=0.5, seed=1, faithful=True)
    theirs = peft_merge(paths, [1.0, 1.0], "dare_ties", 0.5, layers=11, seed=1, monkeypatch=monkeypatch)[0]
    assert_same_tensors(ours.tensors, theirs)


@pytest.mark.parametrize("names", [["one"], ["rs_one"], ["rs_one", "rs_two"]])
def test_faithful_saved_adapter_behaves_as_pefts(folder, tmp_path, names):
    """One adapter alone (peft: always linear), and rsLoRA, whose flag peft keeps: the wrong scale is included."""
    paths, weights = [folder / name for name in names], [0.5, 0.5][: len(names)]
    tensors, theirs = peft_merge(paths, weights, "ties", 0.7)
    ours = merge_adapters(paths, tmp_path / "merged", weights=weights, density=0.7, faithful=True)
    assert_same_tensors(ours.tensors, tensors)
    theirs.set_adapter("merged")
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "merged").eval()
    inputs = torch.arange(10)[None]
    assert torch.equal(theirs.eval()(inputs).logits, loaded(inputs).logits)


def test_faithful_keeps_pefts_rslora_error(folder):
    faithful = merge_adapters([folder / "rs_one"] * 2, weights=[1.0, 1.0], method="ties", faithful=True)
    assert math.isclose(adapter_norm(faithful) / adapter_norm(folder / "rs_one"), math.sqrt(8), rel_tol=1e-5)
    assert math.isclose(faithful.norm, adapter_norm(faithful), rel_tol=1e-6)


def test_published_linear_of_equal_adapters_is_four_times_the_mean(folder):
    paths = [folder / "one"] * 2
    size = {method: adapter_norm(merge_adapters(paths, method=method, faithful=True)) for method in ("linear", "ties")}
    assert math.isclose(size["linear"], 4 * size["ties"], rel_tol=1e-5)


# ---------------------------------------------------------------- identity

@methods
@pytest.mark.parametrize("space", ["factors", "delta"])
@pytest.mark.parametrize("name", ["three", "rs_one"])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.2, 3.1], [2.0, -0.5], [0.0, 1.0], [1.0, 2.0, 4.0], [7.0]])
def test_merging_with_itself_is_the_identity(folder, method, space, name, weights):
    merged = merge_adapters([folder / name] * len(weights), method=method, space=space, weights=weights)
    for module in merged.modules:
        assert relative(dense(merged, module), dense(folder / name, module)) < 2e-6
    assert merged.error < 1e-5
    assert merged.config["lora_alpha"] == merged.config["r"] and not merged.config["use_rslora"]


def test_identity_of_the_loaded_model(folder, tmp_path):
    merge_adapters([folder / "rs_one"] * 2, tmp_path / "same", method="ties")
    inputs = torch.arange(10)[None]
    before = PeftModel.from_pretrained(llama(), folder / "rs_one").eval()(inputs).logits
    after = PeftModel.from_pretrained(llama(), tmp_path / "same").eval()(inputs).logits
    assert torch.allclose(before, after, atol=1e-5) and not torch.allclose(before, llama()(inputs).logits, atol=1e-2)


# ---------------------------------------------------------------- updates: parity with dense TIES, entry by entry

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


# ---------------------------------------------------------------- properties of the pieces

def random_stack(seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 9, generator=generator) for _ in range(count)]


weight_lists = st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4)


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


# ---------------------------------------------------------------- low-rank algebra

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


def test_scaling_follows_pefts_patterns(tmp_path):
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}
    write_adapter(tmp_path / "a", 0, r=4, lora_alpha=8, **patterns)
    adapter = read_adapter(tmp_path / "a")
    model = PeftModel.from_pretrained(llama(), tmp_path / "a").get_base_model()
    for module in adapter.modules:
        assert adapter.scaling(module) == model.get_submodule(module).scaling["default"]
    assert len({adapter.scaling(module) for module in adapter.modules}) == 3


# ---------------------------------------------------------------- scale, files, models

@methods
@pytest.mark.parametrize("space", ["factors", "delta"])
def test_matched_scale_and_scale(folder, method, space):
    paths = [folder / "one", folder / "two"]
    merged = merge_adapters(paths, method=method, space=space, density=0.5)
    matched = match_scale(merged, 3.0)
    assert math.isclose(adapter_norm(matched), 3.0, rel_tol=1e-5) and math.isclose(matched.norm, 3.0, rel_tol=1e-5)
    assert math.isclose(matched.error, merged.error, rel_tol=1e-9)
    again = merge_adapters(paths, method=method, space=space, density=0.5, scale=matched.recipe.scale)
    assert math.isclose(adapter_norm(again), 3.0, rel_tol=1e-5)
    negative = merge_adapters(paths, method=method, space=space, density=0.5, scale=-1.0)
    assert math.isclose(adapter_inner(negative, merged), -merged.norm**2, rel_tol=1e-5)


def test_saved_merge_reads_back_and_replaces_an_earlier_one(folder, tmp_path):
    out = tmp_path / "deep" / "merged"
    merge_adapters([folder / "one", folder / "two"], out, density=0.5)
    merged = merge_adapters([folder / "one", folder / "two"], out, density=0.8, seed=3)
    names = ["adapter_config.json", "adapter_model.safetensors", "merge.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    assert_same_tensors(load_file(out / "adapter_model.safetensors"), merged.tensors)
    recipe = json.loads((out / "merge.json").read_text())
    assert recipe["recipe"]["density"] == 0.8 and recipe["shares"] == [0.5, 0.5] and recipe["error"] == 0
    assert [source["name"] for source in recipe["adapters"]] == ["one", "two"]
    assert str(tmp_path) not in json.dumps(recipe)


def test_save_into_an_empty_folder_but_never_over_other_files(folder, tmp_path):
    merged = merge_adapters([folder / "one"], tmp_path)  # exists, empty
    assert (tmp_path / "merge.json").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UnlearnError, match="not a merge"):
        merged.save(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_failed_save_leaves_nothing(folder, tmp_path, monkeypatch):
    merged = merge_adapters([folder / "one"])

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("unlearn_nb.merging.merged.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        merged.save(tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_into_equals_pefts_own_merge(folder, tmp_path, dtype):
    theirs = PeftModel.from_pretrained(llama().to(dtype), folder / "rs_one").merge_and_unload()
    ours = merge_into(llama().to(dtype), folder / "rs_one")
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    for name, weight in ours.state_dict().items():
        assert weight.dtype == dtype
        assert torch.allclose(weight.float(), theirs.state_dict()[name].float(), atol=tolerance)
    ours.save_pretrained(tmp_path / "model")
    reloaded = LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=dtype)
    assert_same_tensors(dict(reloaded.state_dict()), dict(ours.state_dict()))


def test_merge_into_a_peft_model_adds_to_its_active_adapter(folder):
    both = merge_into(PeftModel.from_pretrained(llama(), folder / "one"), folder / "two")
    apart = merge_into(merge_into(llama(), folder / "one"), folder / "two")
    for name, weight in both.state_dict().items():
        assert torch.allclose(weight, apart.state_dict()[name], atol=1e-6)


def test_merge_into_layers_stored_transposed(tmp_path):
    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16)).eval()

    write_adapter(tmp_path / "gpt2", 0, model=gpt2(), target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    theirs = PeftModel.from_pretrained(gpt2(), tmp_path / "gpt2").merge_and_unload()
    ours = merge_into(gpt2(), tmp_path / "gpt2")
    for name, weight in ours.state_dict().items():
        assert torch.allclose(weight, theirs.state_dict()[name], atol=1e-6), name


# ---------------------------------------------------------------- one clear sentence

@pytest.mark.parametrize("options, message", [
    ({"density": 0.0}, r"must lie in \(0, 1\]"),
    ({"density": 1.01}, r"must lie in \(0, 1\]"),
    ({"density": math.nan}, r"must lie in \(0, 1\]"),
    ({"density": "0.5"}, r"must lie in \(0, 1\]"),
    ({"weights": [1.0, -1.0]}, "can't be normalised"),
    ({"weights": [-1.0, -1.0]}, "can't be normalised"),
    ({"weights": [1.0, math.nan]}, "must be finite"),
    ({"weights": [1.0, math.inf], "faithful": True}, "must be finite"),
    ({"weights": [1.0]}, "1 merging weights were given for 2 adapters"),
    ({"weights": []}, "0 merging weights were given for 2 adapters"),
    ({"method": "tie"}, "unknown merge method 'tie'; did you mean 'ties'"),
    ({"space": "deltas"}, "choose 'factors' or 'delta'"),
    ({"rank": 8}, "use space='delta'"),
    ({"rank": 0, "space": "delta"}, "positive integer, 'auto' or 'dense'"),
    ({"rank": True, "space": "delta"}, "positive integer, 'auto' or 'dense'"),
    ({"faithful": True, "space": "delta"}, "use space='factors'"),
    ({"scale": math.inf}, "must be finite"),
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
    refused("rank_pattern", [pattern, pattern], faithful=True)
    assert not (tmp_path / "out").exists()


def test_damaged_folders_get_one_sentence(folder, tmp_path):
    def copy(name):
        return Path(shutil.copytree(folder / "one", tmp_path / name))

    (copy("no_config") / "adapter_config.json").unlink()
    (copy("no_tensors") / "adapter_model.safetensors").unlink()
    (copy("cut_config") / "adapter_config.json").write_text('{"r": 8')
    (copy("cut_tensors") / "adapter_model.safetensors").write_bytes(b"\x10")
    tensors = load_file(copy("nan") / "adapter_model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * math.nan}, tmp_path / "nan" / "adapter_model.safetensors")
    copy("half")
    del tensors[name]
    save_file(tensors, tmp_path / "half" / "adapter_model.safetensors")
    for case, message in {"no_config": "has no adapter_config.json", "no_tensors": "has no adapter_model.safetensors",
                          "cut_config": "damaged", "cut_tensors": "damaged", "nan": "NaN or infinite",
                          "half": "only one factor"}.items():
        with pytest.raises(UnlearnError, match=message) as caught:
            read_adapter(tmp_path / case)
        assert case in str(caught.value) and "\n" not in str(caught.value)


def test_merge_into_another_model_changes_nothing(folder):
    other = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, vocab_size=64,
                                         num_attention_heads=4, num_key_value_heads=2))
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    with pytest.raises(UnlearnError, match="give its base model"):
        merge_into(other, folder / "one")  # the attention fits, the MLP does not
    with pytest.raises(UnlearnError, match="no module model.layers.1"):
        merge_into(llama(layers=1), folder / "one")
    assert_same_tensors(dict(other.state_dict()), before)


def test_a_zero_merge_cannot_be_scaled(folder):
    merged = merge_adapters([folder / "one"], scale=0.0)
    assert merged.norm == 0 and merged.error == 0
    with pytest.raises(UnlearnError, match="is zero"):
        match_scale(merged, 1.0)
    with pytest.raises(UnlearnError, match="positive number"):
        match_scale(replace(merged), 0.0)
