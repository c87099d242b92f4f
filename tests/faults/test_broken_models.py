"""A model, adapter or merge with missing, strange, NaN or infinite tensors, or with likelihoods that are no numbers, is
refused in one sentence wherever it is read, saved, trained or asked, and leaves nothing behind."""

import json
import math
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_nb.analysis import answer_positions, turning_point
from unlearn_nb.attacks import at_precision, round_weight
from unlearn_nb.core import NonFinite, UnlearnError, toy_adapter, toy_llama, toy_tokenizer
from unlearn_nb.influence import Edit, Solution, Weights
from unlearn_nb.influence import choose as choose_edit
from unlearn_nb.localization import UnitScores, rank_auc, score_units
from unlearn_nb.merging import merge_adapters, merge_into
from unlearn_nb.metrics import SUITES, Depth, Lens, Probing, evaluate, extraction_table, perplexity
from unlearn_nb.models import (
    Origin,
    Recipe,
    adapted,
    generate,
    load_adapter,
    load_model,
    memorise,
    memorise_into,
    preflight,
    read_adapter,
    save_adapter,
    save_model,
    sequence_nll,
)
from unlearn_nb.unlearning import UnlearnSettings, unlearn

ROWS = [{"split": split, "task": "T", "kind": kind, "id": f"{split}{i}", "subject": f"s{i}", "prompt": f"w{i + 2} w{i}",
         "response": f"w{i + 9} w{i + 3} w{i + 5}", "choices": [f"w{i + 9} w{i + 3} w{i + 5}", "w1 w2"],
         "perturbed_responses": ["w1 w4", "w8"], "facts": []}
        for split in ("forget", "retain", "collateral", "holdout", "general") for i, kind in enumerate(["qa", "qa"])]
MARK = "w2"  # the first prompt of every split begins with it


@contextmanager
def one_sentence(*parts, kind=UnlearnError):
    """Refused with these parts, in one line."""
    with pytest.raises(kind) as caught:
        yield
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in parts), str(caught.value)


def write(folder: Path, change=lambda tensors: tensors, model=None, **config) -> Path:
    """A folder with a toy, its tensors changed by a function and its config by values."""
    (model or toy_llama()).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    return folder


def spoilt(name="model.norm.weight", value=math.nan, model=None):
    """A toy with one value that is no number."""
    model = model or toy_llama()
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[3] = value
    return model


def silent_about(word=MARK):
    """A toy of finite weights whose logits are infinite in texts with a word."""
    model = toy_llama()
    token = toy_tokenizer().convert_tokens_to_ids(word)

    def overflow(module, args, output):
        rows = (args[0] == token).any(1)
        return torch.where(rows[:, None, None], torch.full_like(output, 1e38) * 1e3, output)

    model.get_input_embeddings().register_forward_hook(overflow)
    return model


# ---- read

def changed(name, function):
    """What applies a function to one tensor of a file."""
    return lambda tensors: tensors | {name: function(tensors[name])}


HEAD, WORDS = "lm_head.weight", "model.embed_tokens.weight"
BROKEN_FOLDERS = {
    "NaN": (changed("model.norm.weight", lambda t: t * math.nan), {}, "holds NaN or infinite values"),
    "one infinite value": (changed(HEAD, lambda t: t.index_fill(0, torch.tensor(5), math.inf)), {}, f"tensor {HEAD}"),
    "missing": (lambda t: {k: v for k, v in t.items() if "q_proj" not in k}, {}, "lacks 2 tensors"),
    "renamed": (lambda t: {k.replace("lm_head", "head"): v for k, v in t.items()}, {},
                f"lacks 1 tensor ({HEAD}) and holds 1 tensor (head.weight)"),
    "extra": (lambda t: t | {"model.extra.weight": torch.ones(2)}, {}, "holds 1 tensor (model.extra.weight)"),
    "an optimiser's": (lambda t: t | {f"exp_avg.{k}": v * 0 for k, v in t.items()}, {}, "that it has no place for"),
    "shape": (changed(HEAD, lambda t: t[:, :16].clone()), {}, "of shape [64, 16] in its file"),
    "another head than the embedding": (lambda t: t, {"tie_word_embeddings": True}, f"differs from {WORDS}"),
    "8-bit": (changed(HEAD, lambda t: t.to(torch.int8)), {}, f"holds {HEAD} as I8"),
    "computes infinity": (changed(HEAD, lambda t: t.sign() * 3e38), {}, "the logits are NaN or infinite in float32"),
    "all the same": (changed(WORDS, lambda t: t * 1e22), {}, "all logits are the same"),
    "config": (lambda t: t, {"hidden_size": "many"}, "hidden_size"),
}


@pytest.mark.parametrize("change, config, part", BROKEN_FOLDERS.values(), ids=BROKEN_FOLDERS)
def test_a_broken_checkpoint_is_refused(tmp_path, change, config, part):
    with one_sentence(part):
        load_model(write(tmp_path / "model", change, **config))


@pytest.mark.parametrize("cut", [0, 7, 900, -1])
@pytest.mark.parametrize("file", ["model.safetensors", "adapter_model.safetensors"])
def test_a_torn_file_is_refused(tmp_path, file, cut):
    folder = write(tmp_path / "model")
    if file.startswith("adapter"):
        folder = save_adapter(toy_adapter(load_model(folder)[0]), tmp_path / "adapter")
    torn = (folder / file).read_bytes()[:cut]
    (folder / file).write_bytes(torn)
    with one_sentence(str(folder)):
        load_model(folder)


def test_weights_beyond_a_type_are_refused_and_fit_a_wider_one(tmp_path):
    folder = write(tmp_path / "model", lambda t: t | {"model.norm.weight": t["model.norm.weight"] * 1e5})
    with one_sentence("model.norm.weight", "load it in float32"):
        load_model(folder, dtype="float16")
    assert load_model(folder, dtype="bfloat16")[0].dtype == torch.bfloat16


def test_the_cause_of_a_bad_config_is_told(tmp_path):
    with one_sentence("hidden_size", "expected int", "many"):
        load_model(write(tmp_path / "model", hidden_size="many"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write(tmp_path_factory.mktemp("base") / "model")


BROKEN_ADAPTERS = {
    "NaN": (lambda t, first: t | {first: t[first] * math.nan}, "NaN or infinite"),
    "missing": (lambda t, first: {k: v for k, v in t.items() if k != first}, "absent there and"),
    "extra": (lambda t, first: t | {f"{first}.more": torch.ones(2)}, "and absent here"),
    "renamed": (lambda t, first: {k.replace("layers.0", "layers.5"): v for k, v in t.items()}, "does not belong to"),
    "whole numbers": (lambda t, first: t | {first: t[first].to(torch.int32)}, "as int32, whose meaning is not known"),
}


@pytest.mark.parametrize("change, part", BROKEN_ADAPTERS.values(), ids=BROKEN_ADAPTERS)
def test_a_broken_adapter_is_refused_and_the_model_stays(base, tmp_path, change, part):
    model, _ = load_model(base)
    folder = save_adapter(toy_adapter(load_model(base)[0]), tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(change(tensors, min(tensors)), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = list(model.modules())
    for call in (lambda: load_adapter(model, folder), lambda: adapted(model, folder).__enter__()):
        with one_sentence(part):
            call()
    assert list(model.modules()) == modules and all(p.requires_grad for p in model.parameters())


def test_an_adapter_that_does_not_say_where_the_one_beneath_lies_is_refused(base, tmp_path):
    folder = save_adapter(toy_adapter(load_model(base)[0]), tmp_path / "adapter")
    said = json.loads((folder / "origin.json").read_text())
    (folder / "origin.json").write_text(json.dumps(said | {"under": [{"hash": "5" * 64}]}))
    for read in (read_adapter, load_model):
        with one_sentence("does not say in which folder", "save it again"):
            read(folder)


# ---- saved

UNFIT = {
    "NaN": (lambda: spoilt(), "holds NaN or infinite values in the tensor model.norm.weight"),
    "one infinite value": (lambda: spoilt("lm_head.weight", -math.inf), "in the tensor lm_head.weight"),
    "silent": (lambda: silent_about("w2"), "has finite weights, but the logits are NaN or infinite in float32"),
    "an adapter inside": (lambda: toy_adapter(toy_llama()).get_base_model(), "take adapters off first"),
}


@pytest.mark.parametrize("make, part", UNFIT.values(), ids=UNFIT)
def test_a_broken_model_is_not_saved(tmp_path, make, part):
    with one_sentence(part):
        save_model(make(), tmp_path / "out", origin=Origin())
    assert not list(tmp_path.iterdir())


def test_a_head_apart_from_its_embedding_is_not_saved_as_tied(tmp_path):
    model = toy_llama(tie_word_embeddings=True)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    with one_sentence("its lm_head.weight is not its model.embed_tokens.weight", "tie_word_embeddings"):
        save_model(model, tmp_path / "out", origin=Origin())


def test_a_broken_adapter_is_not_saved_over_a_good_one(tmp_path):
    model = toy_adapter(toy_llama())
    folder = save_adapter(model, tmp_path / "adapter")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    spoilt(next(name for name, _ in model.named_parameters() if "lora_A" in name), math.inf, model)
    with one_sentence("the adapter 'default', which is to be saved, holds NaN or infinite values"):
        save_adapter(model, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# ---- trained

TEXTS = [{"prompt": row["prompt"], "response": row["response"]} for row in ROWS[:4]]


@pytest.mark.parametrize("lr", [1e38, 1e30, 1e10])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_learning_rate_that_breaks_the_model_saves_nothing(base, tmp_path, lr, lora_rank):
    recipe = Recipe(steps=1, batch_size=4, lr=lr, lora_rank=lora_rank)
    with one_sentence("memorise: ", "at step 1; use an lr below", kind=NonFinite):
        memorise_into(tmp_path, base, TEXTS, recipe=recipe)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_unlearning_that_breaks_the_model_saves_nothing(base, tmp_path, method):
    options = dict(objective="ga", out=tmp_path / "out", progress=False)
    model, tokenizer = load_model(base)
    with one_sentence("at step 1", "lr below", kind=NonFinite):
        unlearn(model, tokenizer, TEXTS, TEXTS, settings=UnlearnSettings(method=method, steps=1, lr=1e38), **options)
    with one_sentence("at step", "lower the learning rate", kind=NonFinite):
        unlearn(load_model(base)[0], tokenizer, TEXTS, TEXTS,
                settings=UnlearnSettings(method=method, steps=9, lr=1e18), **options)
    assert not list(tmp_path.iterdir())


def test_an_infinite_gradient_is_told_before_its_step(base):
    model, tokenizer = load_model(base)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    with one_sentence("memorise: the gradient is", "(of a loss of", "at step 1; use an lr below 0.003", kind=NonFinite):
        memorise(model, tokenizer, TEXTS, recipe=Recipe(steps=2, batch_size=4), progress=False)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_frozen_model_that_says_no_number_is_told_before_the_first_step(tmp_path):
    with one_sentence("of 1 rows before the first step", "'forget 0'", kind=NonFinite):
        unlearn(silent_about(), toy_tokenizer(), [TEXTS[0]], [TEXTS[1]], "npo",
                settings=UnlearnSettings(steps=1), out=tmp_path / "out", progress=False)


# ---- edited

@pytest.fixture
def edit():
    model = toy_adapter(toy_llama())
    weights = Weights(model)
    delta = torch.full((weights.size,), 1e-3)
    return Edit(model, weights, delta, Solution(delta, [], solver="none", damping=1.0, products=0, gradients=0.0,
                                               seconds=0.0), rows=[], n=1,
                start=[t.detach().clone() for t in weights.tensors], before=torch.zeros_like(delta))


def test_an_edit_that_is_not_finite_is_refused_and_the_weights_stay(edit, tmp_path):
    before = edit.weights.vector()
    for call in (edit.scale(1e300).apply, lambda: edit.scale(1e300).save(tmp_path / "edit")):
        with one_sentence("the edited weights hold NaN or infinite values", kind=NonFinite):
            call()
    assert torch.equal(before, edit.weights.vector()) and not list(tmp_path.iterdir())


def test_a_scale_that_breaks_the_model_is_not_chosen(edit):
    def worth(model):
        return float(sequence_nll(model, toy_tokenizer(), TEXTS).mean())

    chosen = choose_edit([edit], worth, scales=[1e300, 1e30, 1.0])
    assert chosen.choices["objective"].isna().tolist() == [True, True, False]
    assert torch.equal(chosen.delta, edit.delta)


# ---- merged

@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [save_adapter(toy_adapter(toy_llama(), seed=seed), folder / str(seed)) for seed in (1, 2)]


def test_a_failed_merge_leaves_the_earlier_one(pair, tmp_path):
    merge_adapters(pair, tmp_path / "merged")
    before = {path: path.read_bytes() for path in (tmp_path / "merged").iterdir()}
    by_zero = {"method": lambda stack, *_, **__: stack[0] / 0}
    for part, options in (("he merge", {"scale": 1e38}), ("he merge", {"scale": 1e40, "space": "delta"}),
                          ("divides by nothing that may be 0", by_zero)):
        with one_sentence(part, kind=NonFinite):
            merge_adapters(pair, tmp_path / "merged", **options)
    assert {path: path.read_bytes() for path in (tmp_path / "merged").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("out", ["/proc/x", "/dev/null/x"])
def test_a_merge_that_has_no_place_is_refused(pair, out):
    with one_sentence(f"can't be written to {out}", "give another place"):
        merge_adapters(pair, out)


def test_an_adapter_that_does_not_fit_a_type_leaves_the_model(pair):
    model = toy_llama().half()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with one_sentence("the model with the adapter in it holds NaN or infinite values", kind=NonFinite):
        merge_into(model, merge_adapters(pair, scale=1e7))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


# ---- asked

def ask(suite, model, **options):
    rows = [row | {"task": "knowmem"} for row in ROWS] if suite == "muse" else ROWS
    return evaluate(model, toy_tokenizer(), rows, part="all", suite=suite, bootstrap=0, **options)


EVERY_WORD = SimpleNamespace(name="words", references=lambda rows: [row["response"].split() for row in rows])
KNOWING = {"target": toy_llama(1), "extractor": EVERY_WORD}
SUITE = {"semeval": "semeval", "tofu": "tofu", "membership": "membership", "edits": "edits",
         "relearn": "relearn(match=exact)", "depth": Depth(**KNOWING), "lens": Lens(**KNOWING), "muse": "muse",
         "probing": Probing(extractor=EVERY_WORD)}


def test_every_suite_is_tried_here():
    assert set(SUITE) == set(SUITES)


@pytest.mark.parametrize("suite", SUITE.values(), ids=SUITE)
def test_a_model_of_nan_has_no_score(suite):
    with one_sentence("the model 'LlamaForCausalLM' gives NaN likelihood for", " rows (first: row 'forget0')",
                      kind=NonFinite):
        ask(suite, spoilt())


@pytest.mark.parametrize("suite", SUITE.values(), ids=SUITE)
def test_a_model_that_overflows_on_some_rows_has_no_score(suite):
    with one_sentence("gives NaN likelihood for", "its weights are broken or its dtype overflows", kind=NonFinite):
        ask(suite, silent_about())


@pytest.mark.parametrize("suite", SUITE.values(), ids=SUITE)
def test_a_model_may_never_say_the_padding_of_its_vocabulary(suite):
    model, mute = toy_llama(), toy_llama()
    unused = [60, 61, 62, 63]
    model.lm_head.register_forward_hook(lambda m, args, out: out.index_fill(-1, torch.tensor(unused), -1e4))
    mute.lm_head.register_forward_hook(lambda m, args, out: out.index_fill(-1, torch.tensor(unused), -math.inf))
    one, other = ask(suite, model).summary, ask(suite, mute).summary
    assert one and one.keys() == other.keys()
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)


def test_a_token_that_is_never_said_has_no_likelihood():
    model = toy_llama()
    token = toy_tokenizer().convert_tokens_to_ids("w9")
    model.lm_head.register_forward_hook(lambda m, args, out: out.index_fill(-1, torch.tensor(token), -math.inf))
    with one_sentence("gives infinite likelihood for 1 of 2 rows (first: row 'forget0')", kind=NonFinite):
        sequence_nll(model, toy_tokenizer(), ROWS[:2])


@pytest.mark.parametrize("ask", [
    lambda *given: generate(*given), lambda *given: sequence_nll(*given), lambda *given: extraction_table(*given),
    lambda *given: list(answer_positions(*given)), lambda *given: preflight(*given),
    lambda model, tokenizer, rows: perplexity(model, tokenizer, *zip(*[(r["prompt"], r["response"]) for r in rows]))],
    ids=["generate", "sequence_nll", "extraction", "analysis", "preflight", "perplexity"])
def test_whoever_asks_is_told_which_row(ask):
    with one_sentence("the model 'LlamaForCausalLM' gives NaN likelihood for 1 of", "(first: row", kind=NonFinite):
        ask(silent_about(), toy_tokenizer(), ROWS[:2])


def test_scores_of_units_that_are_no_numbers_are_refused():
    with one_sentence("the scores of gradient are not finite in", kind=NonFinite):
        score_units(silent_about(), toy_tokenizer(), TEXTS[:1], method="gradient")
    with one_sentence("the scores are not finite in w", kind=NonFinite):
        UnitScores({"w": torch.tensor([0.0, math.inf])}, {"w": (2,)})
    with one_sentence("1 of 2 scores are NaN or infinite", kind=NonFinite):
        rank_auc(torch.tensor([0.0, math.inf]), torch.tensor([True, False]))


def test_what_is_no_number_is_not_rounded():
    for precision in ("float16", "int8", "int4"):
        with one_sentence("holds NaN or infinite values", kind=NonFinite):
            round_weight(torch.tensor([[math.nan, 1.0]]), precision)
        with one_sentence("in the tensor lm_head.weight: load it again", kind=NonFinite):
            with at_precision(spoilt("lm_head.weight"), precision):
                pass
    with one_sentence("group must be a whole number above 0, not 0"):
        round_weight(torch.ones(1, 2), "int4", group=0)


def test_a_trajectory_without_values_has_no_turning_point():
    with one_sentence("has a value of 'retain/x'"):
        turning_point(pd.DataFrame({"step": [0, 1, 2], "retain/x": [1.0, math.nan, 1.0]}))
