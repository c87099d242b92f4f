"""Updates added to a model's weights, against peft's own merge."""
import pytest
import torch
from adapter_toys import assert_same_tensors, llama, write_adapter
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import merge_into

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]


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


def test_merge_into_another_model_changes_nothing(folder):
    other = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, vocab_size=64,
                                         num_attention_heads=4, num_key_value_heads=2))
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    with pytest.raises(UnlearnError, match="give its base model"):
        merge_into(other, folder / "one")  # the attention fits, the MLP does not
    with pytest.raises(UnlearnError, match="no module model.layers.1"):
        merge_into(llama(layers=1), folder / "one")
    assert_same_tensors(dict(other.state_dict()), before)
