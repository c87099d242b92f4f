"""Direct supervision: the distance by first principles, the right region's solution, and what stays as it was."""

import copy

import pytest
import torch
from toys import FORGET, RETAIN, SIZES, make_tokenizer, small, tiny, weights_of

from unlearn_nb.core import UnlearnError
from unlearn_nb.localization import match_mlps, mlp_distance, mlp_outputs
from unlearn_nb.regions import Region, down_projections


def disturbed(model, region, scale=0.1):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in changed.named_parameters():
            if name in region.masks:
                p += scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)) * region.masks[name]
    return changed


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_outputs_are_those_of_the_down_projections(name):
    model, ids = small(name, **SIZES), torch.arange(3, 11)[None]
    seen = {}
    handles = [
        unit.layer.register_forward_hook(lambda m, a, output, key=key: seen.update({key: (a[0], output)}))
        for key, unit in down_projections(model).items()
    ]
    with torch.no_grad(), mlp_outputs(model) as outputs:
        model(ids)
    for handle in handles:
        handle.remove()
    assert outputs.keys() == seen.keys() == down_projections(model).keys()
    for key, (x, output) in seen.items():
        torch.testing.assert_close(outputs[key], output)
        torch.testing.assert_close(down_projections(model)[key].layer(x), output)
    with torch.no_grad():
        outputs.clear()
        model(ids)
    assert not outputs, "the hooks are gone"


def test_distance_by_hand():
    a, b = (
        {"one": torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), "two": torch.tensor([[[s, 0.0], [0.0, 0.0]]])}
        for s in (0.0, 3.0)
    )
    b["one"] = torch.zeros(1, 2, 2)
    assert mlp_distance(a, b, torch.tensor([[True, False]])).item() == 1 + 4 + 9  # padding does not count
    assert mlp_distance(a, b, torch.tensor([[True, True]])).item() == (5 + 162) / 2 + 9 / 2


def test_the_first_distance_is_that_of_the_batch(tmp_path):
    """One batch holds all rows, so its padded distance must be the mean over the tokens of single rows."""
    from unlearn_nb.models import encode_rows

    teacher, tokenizer = tiny(), make_tokenizer()
    model = disturbed(teacher, Region.random(teacher, 0.3, seed=1))
    total, tokens = 0.0, 0
    for row in encode_rows(tokenizer, FORGET + RETAIN):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad(), mlp_outputs(teacher) as wanted:
            teacher(ids)
        with torch.no_grad(), mlp_outputs(model) as outputs:
            model(ids)
        total += sum((outputs[n] - wanted[n]).square().sum().item() for n in outputs)
        tokens += ids.shape[1]
    region = Region.random(teacher, 0.3, seed=1)
    found = match_mlps(
        model,
        teacher,
        tokenizer,
        rows=FORGET + RETAIN,
        region=region,
        lr=1e-3,
        steps=1,
        batch_size=len(FORGET + RETAIN),
    )
    assert found[0] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize("unit", ["value_vector", "weight"])
def test_a_region_is_led_to_the_teacher_and_nothing_else_moves(unit):
    teacher, tokenizer = tiny(), make_tokenizer()
    region = Region.random(teacher, 0.3, unit=unit, seed=1)
    model = disturbed(teacher, region)
    before, was, seen = weights_of(model), weights_of(teacher), []
    distances = match_mlps(
        model,
        teacher,
        tokenizer,
        rows=FORGET + RETAIN,
        region=region,
        lr=1e-2,
        steps=60,
        batch_size=4,
        on_step=lambda s, m: seen.append(s),
    )
    region.check_outside(before, model)
    region.check_outside(was, teacher)
    assert all(torch.equal(p, was[n]) for n, p in teacher.named_parameters())
    assert distances[-1] < 0.2 * distances[0] and seen == list(range(1, 61))
    assert not model.training and all(p.requires_grad is False or p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_weights():
    teacher, tokenizer = tiny(), make_tokenizer()
    region = Region.random(teacher, 0.3, seed=1)
    runs = []
    for seed in (0, 0, 1):
        model = disturbed(teacher, region)
        match_mlps(
            model, teacher, tokenizer, rows=FORGET + RETAIN, region=region, lr=1e-2, steps=3, batch_size=2, seed=seed
        )
        runs.append(weights_of(model))
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])
    assert any(not torch.equal(runs[0][n], runs[2][n]) for n in runs[0])


def test_bad_input_gets_one_sentence():
    teacher, tokenizer = tiny(), make_tokenizer()
    region = Region.random(teacher, 0.3, seed=1)
    with pytest.raises(UnlearnError, match="^direct supervision needs two models of one architecture"):
        match_mlps(small("llama", **SIZES), teacher, tokenizer, rows=FORGET, region=region, lr=1e-2, steps=1)
    with pytest.raises(UnlearnError, match="^the region is empty"):
        match_mlps(tiny(), teacher, tokenizer, rows=FORGET, region=region - region, lr=1e-2, steps=1)
    with pytest.raises(UnlearnError, match="there are no training rows"):
        match_mlps(tiny(), teacher, tokenizer, rows=[], region=region, lr=1e-2, steps=1)
