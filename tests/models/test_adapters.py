"""LoRA adapters: fresh factors, folders that peft reads, and what does not belong to a model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from adapter_toys import llama, write_adapter
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from toys import gpt2, lora, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import adapted, add_lora, check_adapter, load_adapter, read_adapter, save_adapter

IDS = torch.arange(3, 12)[None]


def factors(model, name="default"):
    return {key: p.detach().clone() for key, p in model.named_parameters() if f".{name}." in key}


def test_fresh_factors_change_nothing_and_depend_on_their_seed_only():
    before = tiny()(input_ids=IDS).logits
    first, again, other = (add_lora(tiny(), 3, alpha=6, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first.eval()(input_ids=IDS).logits, before)
    assert all(torch.equal(factors(first)[key], value) for key, value in factors(again).items())
    assert any(not torch.equal(factors(first)[key], value) for key, value in factors(other).items())
    state = torch.get_rng_state()
    add_lora(first, 2, name="second", seed=9)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("lm_head" in key for key in factors(first))


def test_a_saved_adapter_is_read_as_it_was(tmp_path):
    model = add_lora(with_adapter(tiny()), 2, name="second", rslora=True, seed=4)
    for name in ("default", "second"):
        save_adapter(model, tmp_path / name, name)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["adapter_config.json",
                                                                             "adapter_model.safetensors",
                                                                             "origin.json"]
    first, second = (read_adapter(tmp_path / name) for name in ("default", "second"))
    module = first.modules[0]
    assert first.scaling(module) == 2 and second.scaling(module) == pytest.approx(2 / 2**0.5)
    B, A = first.update(module)
    layer = model.base_model.model.get_submodule(module)
    torch.testing.assert_close(B @ A, layer.get_delta_weight("default"))
    assert first.modules == second.modules and first.fingerprint != second.fingerprint
    assert read_adapter(tmp_path / "default").fingerprint == first.fingerprint


def test_a_loaded_adapter_says_the_same_and_can_be_trained(tmp_path):
    model = with_adapter(tiny())
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny(), tmp_path)
    torch.testing.assert_close(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not loaded.training and all(p.requires_grad for key, p in loaded.named_parameters() if "lora_" in key)


def test_virtual_prompts_load_too(tmp_path):
    model = get_peft_model(tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    model.save_pretrained(tmp_path)
    loaded = load_adapter(tiny(), tmp_path)
    torch.testing.assert_close(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not loaded.training


def test_an_adapter_for_the_time_of_a_block(tmp_path):
    save_adapter(with_adapter(tiny()), tmp_path)
    base = tiny()
    before, names = base(input_ids=IDS).logits, list(base.state_dict())
    with pytest.raises(RuntimeError, match="inside"), adapted(base, tmp_path) as model:
        assert isinstance(model, PeftModel) and not torch.allclose(model(input_ids=IDS).logits, before)
        raise RuntimeError("inside")
    assert list(base.state_dict()) == names and torch.equal(base(input_ids=IDS).logits, before)
    with adapted(base, None) as model:
        assert model is base


def test_an_adapter_of_another_model_is_refused_and_the_base_untouched(tmp_path):
    lora(gpt2(width=16)).save_pretrained(tmp_path / "wide")
    lora(gpt2(layers=2)).save_pretrained(tmp_path / "deep")
    with_adapter(tiny()).save_pretrained(tmp_path / "llama")
    base = gpt2()
    names = list(base.state_dict())
    for folder, part in (("wide", "is [2, 16] there and [2, 8] here"), ("deep", "there and absent here"),
                         ("llama", "does not belong to this model"), ("nowhere", "nowhere is no adapter folder")):
        with pytest.raises(UnlearnError) as error:
            load_adapter(base, tmp_path / folder)
        assert part in str(error.value) and "\n" not in str(error.value)
        assert list(base.state_dict()) == names
    check_adapter(gpt2(width=16), tmp_path / "wide")


@pytest.mark.parametrize("change, part", [
    (dict(use_dora=True), "is a DORA adapter"), (dict(peft_type="IA3"), "is a IA3 adapter"),
    (dict(init_lora_weights="pissa_niter_4"), "initialised with pissa"),
])
def test_what_is_no_plain_lora_is_refused(tmp_path, change, part):
    save_adapter(with_adapter(tiny()), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(UnlearnError, match=part):
        read_adapter(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "one", 0).parent


def test_scaling_follows_pefts_patterns(tmp_path):
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}
    write_adapter(tmp_path / "a", 0, r=4, lora_alpha=8, **patterns)
    adapter = read_adapter(tmp_path / "a")
    model = PeftModel.from_pretrained(llama(), tmp_path / "a").get_base_model()
    for module in adapter.modules:
        assert adapter.scaling(module) == model.get_submodule(module).scaling["default"]
    assert len({adapter.scaling(module) for module in adapter.modules}) == 3


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
