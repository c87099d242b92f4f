"""Adapters on models: only where they belong, with what they stand on, and merged without touching what is shared."""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from toys import FORGET, RETAIN, data, gpt2, make_tokenizer, peft, run, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import EditSettings, LanguageTask, Request, TrainingLoss, Weights, erase
from unlearn_nb.merging import merge_adapters, merge_into
from unlearn_nb.models import (
    Recipe,
    adapted,
    check_adapter,
    load_adapter,
    load_model,
    loss_of,
    memorise,
    memorise_into,
    merged,
    read_adapter,
    read_origin,
    save_adapter,
    untie,
    weights_hash,
)

IDS = torch.arange(3, 12)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def tuned(model, seed=5, **options):
    """`model` with an adapter that is not at its start."""
    torch.manual_seed(seed)
    settings = dict(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model, LoraConfig(**settings | options)).eval()


@pytest.fixture
def base(tmp_path):
    """A folder of a base with its tokenizer."""
    tiny().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def change_config(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensors(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


# --- what it stands on


def test_a_stack_is_saved_whole_and_can_be_moved(tmp_path, base):
    first = tuned(load_model(base)[0])
    save_adapter(first, tmp_path / "one")
    model, tokenizer = load_model(tmp_path / "one")
    out = tmp_path / "two"
    run(model, tokenizer, out, "nll", steps=2, snapshots=[1])
    before = logits(first)
    assert [lower["folder"] for lower in read_origin(out).under] == ["under/0"]
    shutil.rmtree(tmp_path / "one")
    shutil.move(out, tmp_path / "moved")
    for folder in (tmp_path / "moved", tmp_path / "moved" / "snapshots" / "step-1"):
        loaded, _ = load_model(folder)
        assert len(loaded.active_adapters) == 2 and not torch.allclose(logits(loaded), before)
        top = PeftModel.from_pretrained(load_model(base)[0], folder).eval()
        assert not torch.allclose(logits(loaded), logits(top))  # the upper one alone is another model
        torch.testing.assert_close(logits(merged(load_model(folder)[0])), logits(loaded), atol=1e-5, rtol=1e-5)
        plain = merge_into(load_model(base)[0], folder)
        torch.testing.assert_close(logits(plain), logits(loaded), atol=1e-5, rtol=1e-5)
    third = tmp_path / "three"
    run(load_model(tmp_path / "moved")[0], tokenizer, third, "nll", steps=1)
    assert len(load_model(third)[0].active_adapters) == 3


def test_a_stack_goes_onto_its_own_adapters_only(tmp_path, base):
    save_adapter(tuned(load_model(base)[0]), tmp_path / "one")
    save_adapter(tuned(load_model(base)[0], seed=6), tmp_path / "other")
    model, tokenizer = load_model(tmp_path / "one")
    run(model, tokenizer, tmp_path / "two", "nll", steps=2)
    whole = logits(load_model(tmp_path / "two")[0])
    with adapted(load_model(tmp_path / "one")[0], tmp_path / "two") as both:
        torch.testing.assert_close(logits(both), whole)
    assert list(both.active_adapters) == ["default"] and list(both.peft_config) == ["default"]
    torch.testing.assert_close(logits(merge_into(load_model(tmp_path / "one")[0], tmp_path / "two")), whole,
                               atol=1e-5, rtol=1e-5)
    with pytest.raises(UnlearnError, match="was trained on top of 1 other"):
        load_adapter(load_model(tmp_path / "other")[0], tmp_path / "two")
    with pytest.raises(UnlearnError, match="was trained on top of other adapters"):
        merge_into(load_model(tmp_path / "other")[0], tmp_path / "two")
    with pytest.raises(UnlearnError, match="were trained on top of different adapters"):
        merge_adapters([tmp_path / "one", tmp_path / "two"])
    change_tensors(tmp_path / "two" / "under" / "0", lambda tensors: {k: 2 * t for k, t in tensors.items()})
    for load in (load_model, read_adapter):
        with pytest.raises(UnlearnError, match="which is not there or has changed"):
            load(tmp_path / "two")


def test_a_merge_of_stacks_stands_on_what_they_stood_on(tmp_path, base):
    save_adapter(tuned(load_model(base)[0]), tmp_path / "one")
    for seed in (1, 2):
        model, tokenizer = load_model(tmp_path / "one")
        run(model, tokenizer, tmp_path / f"two{seed}", "nll", steps=2, seed=seed)
    folders = [tmp_path / "two1", tmp_path / "two2"]
    merge_adapters(folders, tmp_path / "both", method="linear", space="delta", rank="dense")
    first, second, both = (merge_into(load_model(base)[0], tmp_path / name) for name in ("two1", "two2", "both"))
    for name, weight in both.named_parameters():
        mean = (first.get_parameter(name) + second.get_parameter(name)) / 2
        torch.testing.assert_close(weight, mean, atol=1e-5, rtol=1e-5)
    loaded, _ = load_model(tmp_path / "both")
    assert len(loaded.active_adapters) == 2 and read_origin(tmp_path / "both").base == str(base)
    torch.testing.assert_close(logits(loaded), logits(both), atol=1e-5, rtol=1e-5)


def test_another_base_is_refused_wherever_an_adapter_is_put_on_it(tmp_path, base):
    save_adapter(tuned(load_model(base)[0]), tmp_path / "a")
    other = tiny(seed=1)

    def on_a_while():
        with adapted(other, tmp_path / "a"):
            pass

    for load in (lambda: load_adapter(other, tmp_path / "a"), on_a_while, lambda: merge_into(other, tmp_path / "a"),
                 lambda: check_adapter(other, tmp_path / "a")):
        before = logits(other)
        with pytest.raises(UnlearnError, match="the adapter a stands on .*base with the weights bfloat16-") as error:
            load()
        assert "\n" not in str(error.value) and torch.equal(logits(other), before)
    other.save_pretrained(base)  # the folder that the adapter names has other weights now
    with pytest.raises(UnlearnError, match="the adapter a stands on"):
        load_model(tmp_path / "a")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_type_that_a_base_is_loaded_in_is_not_another_base(tmp_path, base, dtype):
    save_adapter(tuned(load_model(base)[0]), tmp_path / "a")
    model, _ = load_model(tmp_path / "a", dtype=dtype)
    assert model.dtype == getattr(torch, dtype)


def test_readmes_adapter_of_tiny_loads_and_one_of_a_changed_tiny_is_refused(tmp_path):
    model, tokenizer = load_model("tiny")
    run(model, tokenizer, tmp_path / "a", "npo+nll", steps=1, forget=FORGET[:2], retain=RETAIN[:2])
    loaded, _ = load_model(tmp_path / "a")
    assert read_origin(tmp_path / "a").base == "tiny" and isinstance(loaded, PeftModel)
    memorise(model, tokenizer, FORGET[:2], recipe=Recipe(steps=1), progress=False)
    run(model, tokenizer, tmp_path / "b", "npo+nll", steps=1, forget=FORGET[:2], retain=RETAIN[:2])
    with pytest.raises(UnlearnError, match="the adapter b stands on tiny with the weights"):
        load_model(tmp_path / "b")


def test_models_that_are_written_say_what_they_were_made_from(tmp_path, base):
    save_adapter(tuned(load_model(base)[0]), tmp_path / "a")
    before = weights_hash(load_model(base)[0])
    model, tokenizer = load_model(base)
    run(model, tokenizer, tmp_path / "full", "nll", steps=1, method="full")
    memorise_into(tmp_path / "taught", tmp_path / "a", FORGET, recipe=Recipe(steps=1))
    for name, under in (("full", 0), ("taught", 1)):
        origin = read_origin(tmp_path / name)
        assert origin.base == str(base) and origin.weights == before and len(origin.under) == under
        assert weights_hash(load_model(tmp_path / name)[0]) != before
    whole = load_model(base)[0]
    edit = erase(whole, tokenizer, data(4), request=Request.remove(["r0"]), solver="cg", damping=0.1,
                 settings=EditSettings(names=["model.layers.1.mlp.up_proj.weight"]))
    edit.save(tmp_path / "edited")
    assert read_origin(tmp_path / "edited").weights == before == weights_hash(whole)
    edit.apply().save(tmp_path / "again")
    assert read_origin(tmp_path / "again") == read_origin(tmp_path / "edited") and weights_hash(whole) != before
    assert weights_hash(type(whole).from_pretrained(tmp_path / "again")) == weights_hash(whole)


# --- what belongs to a model


@pytest.mark.parametrize("change, part", [
    (dict(alora_invocation_tokens=[5, 6]), "alora_invocation_tokens"), (dict(layer_replication=[[0, 2]]), "layer_rep"),
    (dict(use_qalora=True), "use_qalora"), (dict(kasa_config={"x": 1}), "kasa_config"),
    (dict(megatron_config={"x": 1}), "megatron_config"), (dict(of_a_later_version=True), "of_a_later_version"),
    (dict(init_lora_weights="mica"), "initialised with mica"), (dict(peft_type="XLORA"), "is a XLORA adapter"),
    (dict(peft_type=None), "is a None adapter"),
])
def test_unknown_kinds_are_refused_at_every_load(tmp_path, change, part):
    save_adapter(with_adapter(tiny()), tmp_path / "a")
    change_config(tmp_path / "a", **change)
    for load in (lambda: load_adapter(tiny(), tmp_path / "a"), lambda: read_adapter(tmp_path / "a"),
                 lambda: merge_into(tiny(), tmp_path / "a"), lambda: merge_adapters([tmp_path / "a"])):
        with pytest.raises(UnlearnError, match=part):
            load()


def test_activated_lora_on_a_model_is_not_merged():
    model = tuned(tiny(), alora_invocation_tokens=[4, 5])
    with pytest.raises(UnlearnError, match=r"alora_invocation_tokens=\[4, 5\], whose effect is not known"):
        merged(model)


@pytest.mark.parametrize("change", [
    lambda t: {k: v for k, v in t.items() if "layers.1" not in k},
    lambda t: {k: v for k, v in t.items() if "q_proj" not in k},
    lambda t: {k.replace("layers.0", "h.0"): v for k, v in t.items()},
    lambda t: t | {"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 32),
                   "base_model.model.lm_head.lora_B.weight": torch.zeros(200, 3)},
    lambda t: {k: v[:1] if "lora_A" in k else v[:, :1].contiguous() for k, v in t.items()},
    lambda t: {k: v / 0 for k, v in t.items()},
])
def test_tensors_that_are_not_those_of_the_config_are_refused_everywhere(tmp_path, change):
    save_adapter(with_adapter(tiny()), tmp_path / "a")
    change_tensors(tmp_path / "a", change)
    base = tiny()
    before = logits(base)
    for load in (load_adapter, merge_into):
        with pytest.raises(UnlearnError) as error:
            load(base, tmp_path / "a")
        assert "\n" not in str(error.value) and torch.equal(logits(base), before)


def test_the_embedding_that_peft_stores_beside_an_adapter_on_it_is_let_in_as_long_as_it_is_the_bases(tmp_path):
    model = tuned(tiny(), target_modules=["lm_head", "q_proj"])
    model.save_pretrained(tmp_path / "a")
    assert len(load_file(tmp_path / "a" / "adapter_model.safetensors")) > 6
    torch.testing.assert_close(logits(load_adapter(tiny(), tmp_path / "a")), logits(model))
    with pytest.raises(UnlearnError, match="does not belong to this model"):
        load_adapter(tiny(seed=1), tmp_path / "a")


@pytest.mark.parametrize("config", [
    LoraConfig(use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM"), IA3Config(task_type="CAUSAL_LM"),
    LoraConfig(modules_to_save=["lm_head"], target_modules=["q_proj"], task_type="CAUSAL_LM"),
    PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
])
def test_other_kinds_that_peft_runs_load_and_merge_or_say_why_not(tmp_path, config):
    model = peft(tiny(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny(), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model))
    if config.is_prompt_learning:
        with pytest.raises(UnlearnError, match="virtual tokens, which can't be merged"):
            merged(loaded)
    else:
        torch.testing.assert_close(logits(merged(loaded)), logits(model), atol=1e-4, rtol=1e-4)


# --- merged state


def test_a_merged_adapter_is_edited_nowhere(tmp_path):
    model = with_adapter(tiny())
    model.merge_adapter()
    tokenizer, out = make_tokenizer(), tmp_path / "out"
    for edit in (lambda: run(model, tokenizer, out), lambda: save_adapter(model, out), lambda: merged(model),
                 lambda: Weights(model), lambda: TrainingLoss(model, LanguageTask(tokenizer)),
                 lambda: memorise(model, tokenizer, FORGET, recipe=Recipe(steps=1), progress=False)):
        with pytest.raises(UnlearnError, match="the adapter 'default' is merged into"):
            edit()
    assert not out.exists()
    model.unmerge_adapter()
    with model.disable_adapter(), pytest.raises(UnlearnError, match="are switched off"):
        merged(model)


def test_an_adapter_that_transformers_has_put_inside_is_not_taken_for_a_plain_model():
    model = tiny()
    model.add_adapter(LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    with pytest.raises(UnlearnError, match="q_proj has an adapter, but the model is no PeftModel"):
        merged(model)


# --- shared weights


@pytest.mark.parametrize("make", [lambda: tiny(tied=True), lambda: gpt2(tied=True)], ids=["llama", "gpt2"])
@pytest.mark.parametrize("targets", [["head"], ["embedding"], ["head", "embedding"], ["head", "inside"], ["inside"]])
def test_merging_next_to_shared_weights_gives_pefts_logits(tmp_path, make, targets):
    names = {"head": "lm_head", "embedding": "embed_tokens|wte", "inside": "up_proj|c_fc"}
    model = tuned(make(), target_modules=rf".*\.?({'|'.join(names[target] for target in targets)})")
    expected = logits(model)
    plain = merged(model)
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)
    assert plain.config.tie_word_embeddings == (targets == ["inside"])
    plain.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    again, _ = load_model(tmp_path, dtype=str(plain.dtype).removeprefix("torch."))
    torch.testing.assert_close(logits(again), expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_folder_on_a_tied_head_merges_into_the_head_only(tmp_path):
    model = tuned(tiny(tied=True), target_modules=["lm_head", "up_proj"])
    save_adapter(model, tmp_path / "a")
    for adapter in (tmp_path / "a", merge_adapters([tmp_path / "a"], method="linear")):
        plain = merge_into(tiny(tied=True), adapter)
        torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=1e-5)
        assert torch.equal(plain.model.embed_tokens.weight, tiny(tied=True).model.embed_tokens.weight)


def test_untying_is_undone():
    model = tiny(tied=True)
    undo = untie(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    undo()
    assert torch.equal(logits(model), logits(tiny(tied=True))) and model.config.tie_word_embeddings
    assert untie(tiny())() is None


def test_weights_shared_by_other_layers_are_not_merged_into():
    model = tiny()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(UnlearnError, match="up_proj shares its weight with another layer"):
        merged(tuned(model))


@pytest.mark.parametrize("options", [{"modules_to_save": ["norm"]}, {"modules_to_save": ["lm_head"]},
                                     {"trainable_token_indices": [5, 6]}], ids=str)
def test_the_base_is_given_back_bit_for_bit_after_adapters_that_bring_whole_tensors(tmp_path, options):
    model = tuned(tiny(), **options)
    save_adapter(model, tmp_path / "a")
    base = tiny()
    before, children = logits(base), list(base.modules())
    with adapted(base, tmp_path / "a") as on:
        assert torch.equal(logits(on), logits(model)) and weights_hash(on) == weights_hash(tiny())
    assert torch.equal(logits(base), before) and all(a is b for a, b in zip(base.modules(), children, strict=True))


@pytest.mark.parametrize("kind", ["all", "lora_only"])
def test_biases_in_the_place_of_the_bases_own_are_refused(tmp_path, kind):
    config = LoraConfig(r=2, target_modules=["c_attn"], bias=kind, fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(gpt2(), config).save_pretrained(tmp_path)
    with pytest.raises(UnlearnError, match="overwrites biases of the base itself"):
        load_adapter(gpt2(), tmp_path)


@pytest.mark.parametrize("kind", ["all", "lora_only"])
def test_an_adapter_with_biases_of_the_base_is_not_saved_and_its_base_has_no_hash(tmp_path, kind):
    config = LoraConfig(r=2, target_modules=["c_attn"], bias=kind, fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(gpt2(), config)
    for call in (lambda: save_adapter(model, tmp_path / "a"), lambda: weights_hash(model)):
        with pytest.raises(UnlearnError, match="overwrites biases of the base itself"):
            call()
    assert not (tmp_path / "a").exists()
    on_llama = get_peft_model(tiny(), LoraConfig(r=2, target_modules="all-linear", bias=kind, task_type="CAUSAL_LM"))
    assert weights_hash(on_llama) == weights_hash(tiny()) and save_adapter(on_llama, tmp_path / "b").is_dir()


def traces(model):
    """What an adapter that is put on and taken off must not change."""
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    return flags, [(module, module.training) for module in model.modules()], loss_of(model)


@pytest.mark.parametrize("kind", [LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
                                  PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")],
                         ids=["lora", "prompt"])
@pytest.mark.parametrize("stacked", [False, True])
def test_an_adapter_put_on_for_a_while_leaves_no_trace(tmp_path, kind, stacked):
    save_adapter(get_peft_model(tiny(), kind), tmp_path / "a")
    (tmp_path / "a" / "training.json").write_text(json.dumps({"loss": {"over": "rows", "on": "text"}}))
    model = tuned(tiny()) if stacked and kind.peft_type == "LORA" else tiny()
    model.train()
    model.get_input_embeddings().weight.requires_grad_(False)
    model.get_output_embeddings().eval()
    before = traces(model)
    with adapted(model, tmp_path / "a") as on:
        assert not on.training and loss_of(on).over == "rows"
    assert traces(model) == before
    with pytest.raises(ZeroDivisionError), adapted(model, tmp_path / "a"):
        raise ZeroDivisionError
    assert traces(model) == before


def test_a_bias_for_a_layer_that_has_none_is_not_merged():
    with pytest.raises(UnlearnError, match="can't be merged"):
        merged(tuned(tiny(), lora_bias=True))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_factors_of_other_types_than_floats_are_refused(tmp_path, dtype):
    save_adapter(tuned(tiny()), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    for read in (read_adapter, lambda folder: load_adapter(tiny(), folder)):
        with pytest.raises(UnlearnError, match="whose meaning is not known here"):
            read(tmp_path)


@pytest.mark.parametrize("file, text, part", [
    ("adapter_config.json", "[]", "no JSON object"),
    ("adapter_config.json", '{"lora_alpha": NaN}', "NaN is no number of JSON"),
    ("adapter_config.json", '{"target_modules": "("}', "does not belong to this model: missing"),
    ("origin.json", '{"weights": 5}', "weights is 5"),
    ("origin.json", '{"under": "zz"}', "under is 'zz'"),
    ("origin.json", '{"under": [7]}', r"under is \[7\]"),
])
def test_damaged_files_beside_an_adapter_are_refused_in_one_sentence(tmp_path, file, text, part):
    save_adapter(tuned(tiny()), tmp_path)
    known = json.loads((tmp_path / file).read_text())
    changed = json.loads(text)
    (tmp_path / file).write_text(json.dumps(known | changed) if isinstance(changed, dict) else text)
    with pytest.raises(UnlearnError, match=part):
        load_adapter(tiny(), tmp_path)
