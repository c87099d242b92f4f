"""An adapter on GPT-2 as peft writes it (layers stored [in, out], fan_in_fan_out) through all that is done with one."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from toys import data, make_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from unlearn_nb.attacks import at_precision
from unlearn_nb.influence import Request, erase
from unlearn_nb.merging import adapter_norm, merge_adapters, merge_into
from unlearn_nb.models import load_adapter, load_model, merged, read_adapter, sequence_nll

IDS = torch.arange(3, 15)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and an adapter on its attention and both projections called c_proj, saved by peft itself."""
    root = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    sizes = dict(vocab_size=200, n_positions=64, n_embd=24, n_layer=2, n_head=2)
    base = GPT2LMHeadModel(GPT2Config(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=1)).eval()
    base.save_pretrained(root / "base")
    make_tokenizer().save_pretrained(root / "base")
    config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.05, fan_in_fan_out=True, target_modules=["c_attn", "c_proj"],
                        task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(root / "adapter")
    file = root / "adapter" / "adapter_config.json"
    old = dict(init_lora_weights=True, corda_config=None, qalora_group_size=16,
               base_model_name_or_path=str(root / "base"))
    file.write_text(json.dumps(json.loads(file.read_text()) | old))
    return root


@pytest.fixture
def theirs(folders):
    base = GPT2LMHeadModel.from_pretrained(folders / "base")
    return PeftModel.from_pretrained(base, folders / "adapter").eval()


def test_it_loads_merges_and_scores_as_in_peft(folders, theirs):
    model, tokenizer = load_model(folders / "adapter")
    expected = logits(theirs)
    assert not torch.allclose(expected, logits(load_model(folders / "base")[0]), atol=1e-2)
    assert torch.equal(logits(model), expected)
    scores = [sequence_nll(one, tokenizer, data(4), on="response") for one in (model, theirs)]
    assert (scores[0] == scores[1]).all()
    merges = [merged(model), merge_into(load_model(folders / "base")[0], folders / "adapter"),
              merge_into(load_model(folders / "base")[0], merge_adapters([folders / "adapter"], method="linear")),
              merge_into(load_model(folders / "base")[0], merge_adapters(
                  [folders / "adapter"] * 2, method="ties", space="delta", rank="dense"))]
    for plain in merges:
        torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)


def test_its_updates_are_pefts(folders, theirs):
    adapter, total = read_adapter(folders / "adapter"), 0.0
    for module in adapter.modules:
        B, A = adapter.update(module)
        delta = theirs.base_model.model.get_submodule(module).get_delta_weight("default")  # [in, out]
        torch.testing.assert_close(B @ A, delta.T)
        total += float(delta.double().pow(2).sum())
    assert len(adapter.modules) == 6 and adapter_norm(adapter) == pytest.approx(total**0.5)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_it_is_rounded_as_merged(folders, theirs, precision):
    model, whole = load_model(folders / "adapter")[0], theirs.merge_and_unload()
    before = logits(model)
    with at_precision(model, precision), at_precision(whole, precision):
        assert torch.equal(logits(model), logits(whole)) and not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)


def test_it_is_edited_and_the_edit_loads(folders, tmp_path):
    model = load_adapter(load_model(folders / "base")[0], folders / "adapter")
    tokenizer, rows = make_tokenizer(), data(6)
    edit = erase(model, tokenizer, rows, request=Request.remove(["r0"]), solver="cg", damping=0.05)
    before = sequence_nll(model, tokenizer, rows[:1], on="response")[0]
    edit.apply()
    assert sequence_nll(model, tokenizer, rows[:1], on="response")[0] > before
    edited = logits(model)
    edit.save(tmp_path / "edited")
    torch.testing.assert_close(logits(load_model(tmp_path / "edited")[0]), edited)
    plain = merge_into(load_model(folders / "base")[0], tmp_path / "edited")
    torch.testing.assert_close(logits(plain), edited, atol=1e-5, rtol=1e-5)
