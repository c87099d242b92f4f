"""Every localizer on every architecture, mixtures of experts among them."""

import pytest
import torch
from localizing import EVERY, row_gradients, run, same
from toys import FORGET, SIZES, make_tokenizer, small

from unlearn_nb.localization import (
    localize,
    match_mlps,
)
from unlearn_nb.models import encode_rows
from unlearn_nb.regions import Region, unit_weights

GROUPED = SIZES | dict(num_key_value_heads=2, head_dim=8)


ARCHITECTURES = {
    "llama": SIZES,
    "qwen2": SIZES | dict(num_key_value_heads=2),
    "qwen3": GROUPED,
    "gemma2": GROUPED | dict(sliding_window=8),
    "gemma3_text": GROUPED | dict(sliding_window=8),
    "phi3": SIZES | dict(pad_token_id=0),
    "olmo2": SIZES,
    "gpt2": SIZES,
    "opt": SIZES | dict(ffn_dim=48, word_embed_proj_dim=32),
    "gpt_neox": SIZES,
    "mistral": GROUPED | dict(sliding_window=8),
    "mixtral": SIZES | dict(num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=4),
    "qwen2_moe": SIZES | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12,
                              shared_expert_intermediate_size=20),
    "gpt_oss": GROUPED | dict(num_local_experts=4, num_experts_per_tok=2),
}


MIXTURES = ["mixtral", "qwen2_moe", "gpt_oss"]


def of(name):
    model = small(name, **ARCHITECTURES[name])
    if name in MIXTURES:
        model.set_experts_implementation("eager")  # grouped products have no float64
    return model.double()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_localizer_scores_every_unit_of(name):
    model = of(name)
    for method, unit in [*EVERY, ("gradient", "tensor"), ("memflex", "tensor"), ("wagle", "tensor")]:
        scores, batched = (run(model, method, unit, batch_size=b) for b in (1, 4))
        shapes = {n: u.shape for n, u in unit_weights(model, unit).items()}
        assert {n: tuple(v.shape) for n, v in scores.values.items()} == shapes
        assert localize(scores, 0.2).n_units == round(0.2 * sum(v.numel() for v in scores.values.values()))
        for n, values in scores.values.items():  # how rows are batched changes nothing
            size = values.abs().max().item()
            torch.testing.assert_close(batched.values[n], values, rtol=1e-3, atol=1e-4 * size)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("unit", ["value_vector", "weight"])
def test_fisher_of_experts_equals_loops_over_single_rows(name, unit):
    model = of(name)
    units = unit_weights(model, unit)
    each = row_gradients(model, FORGET, list(units))
    squares = {n: sum(g[n] ** 2 for g in each) / len(each) for n in units}
    dims = {n: [d for d, k in enumerate(u.shape) if k == 1 and u.weight.shape[d] > 1] for n, u in units.items()}
    same(run(model, "fisher", unit), {n: v.mean(dims[n], keepdim=True) if dims[n] else v for n, v in squares.items()})


@pytest.mark.parametrize("name", MIXTURES)
def test_activations_of_experts_are_what_their_output_is_made_of(name):
    """With one value vector left in a stack, the experts' output is its coefficient times the vector."""
    model = of(name)
    units = {n: u for n, u in unit_weights(model).items() if u.weight.dim() == 3}
    found = run(model, "activations")
    for key, unit in list(units.items())[:1]:
        saved, where = unit.weight.detach().clone(), 1 if unit.shape[1] == 1 else 2  # the dim of the vector
        for expert, j in ((0, 3), (2, 7)):
            expected, one = 0.0, torch.zeros_like(saved)
            one[expert].select(2 - where, j).copy_(saved[expert].select(2 - where, j))
            outputs = []
            handle = unit.layer.register_forward_hook(lambda m, args, out: outputs.append(out))
            block = next(b for b in model.modules() if getattr(b, "experts", None) is unit.layer)
            inputs = []
            catch = block.register_forward_pre_hook(lambda m, args, more: inputs.append(args), with_kwargs=True)
            for row in encode_rows(make_tokenizer(), FORGET):
                at = [t - 1 for t, label in enumerate(row.labels) if label != -100]
                with torch.no_grad():
                    del outputs[:], inputs[:]
                    model(torch.tensor([row.input_ids]))
                    unit.weight.data.copy_(one)
                    block(*inputs[0])
                    unit.weight.data.copy_(saved)
                    bias = getattr(unit.layer, "down_proj_bias", None)
                    assert bias is None or not bias.any()
                expected = expected + outputs[-1].reshape(len(row.input_ids), -1)[at].norm(dim=-1).mean() / len(FORGET)
            handle.remove(), catch.remove()
            place = (expert, 0, j) if where == 1 else (expert, j, 0)
            assert found.values[key][place].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "opt", *MIXTURES])
def test_direct_supervision_reaches_the_teacher_outputs_in(name):
    teacher, model = (small(name, **ARCHITECTURES[name]) for _ in range(2))
    region = Region.every(model)
    with torch.no_grad():
        for n in region.masks:
            dict(model.named_parameters())[n].add_(0.02 * torch.randn(region.shapes[n]))
    distances = match_mlps(model, teacher, make_tokenizer(), rows=FORGET, region=region, lr=3e-3, steps=20)
    assert distances[-1] < 0.5 * distances[0]
