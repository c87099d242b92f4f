"""What the caller has set as torch's default type changes no number: what is drawn or made fresh is float32."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from toys import make_tokenizer, run, same, state, tiny

from unlearn_nb.influence import CrossEntropy
from unlearn_nb.localization import RandomUnits, injection_regions
from unlearn_nb.models import add_lora, load_adapter, tiny_model, tiny_tokenizer


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def alike(request):
    """Two calls give the same tensors, one of them under another default type."""
    def check(make):
        plain = make()
        torch.set_default_dtype(request.param)
        try:
            other = make()
        finally:
            torch.set_default_dtype(torch.float32)
        assert len(plain) and same(plain, other)
        assert all(one.dtype == other[name].dtype for name, one in plain.items())

    return check


def test_fresh_weights(alike):
    alike(lambda: state(tiny_model(tiny_tokenizer(), seed=3)))
    base = state(tiny())

    def adapter():
        model = tiny()
        model.load_state_dict(base)
        return {name: value for name, value in state(add_lora(model.float(), 2, seed=4)).items() if "lora" in name}

    alike(adapter)


@pytest.mark.parametrize("objective", ["0.4*npo + 0.4*kl + 0.2*nll", "rmu(layer=0) + embed_diff(layer=0)"])
def test_a_training_and_its_adapter(alike, tmp_path, objective):
    model, tokenizer, places = tiny(), make_tokenizer(), iter([tmp_path / "one", tmp_path / "two"])

    def trained():
        place = next(places)
        run(model, tokenizer, place, objective)
        file = next(place.rglob("adapter_model.safetensors"))
        loaded = load_adapter(model, file.parent)
        found = {name: value for name, value in state(loaded).items() if "lora" in name}
        loaded.unload()
        return load_file(file) | found

    alike(trained)


def test_draws(alike):
    z, model = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), tiny()
    units = SimpleNamespace(units={"w": SimpleNamespace(shape=(7,))})
    alike(lambda: {"sample": CrossEntropy.sample(z, torch.Generator().manual_seed(1))})
    alike(lambda: RandomUnits()(units))
    alike(lambda: {f"{i} {name}": mask for i, one in enumerate(injection_regions(model, groups=2, share=0.05))
                   for name, mask in one.masks.items()})
