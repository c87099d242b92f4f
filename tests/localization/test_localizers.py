"""Localizers by first principles: loops over single rows, closed forms, finite differences; choice of a region."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from localizing import EVERY, answer_loss, double, row_gradients, run, same, values
from peft import LoraConfig, get_peft_model
from toys import FORGET, RETAIN, SIZES, make_tokenizer, small, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.localization import (
    LOCALIZERS,
    MemFlexUnits,
    UnitScores,
    Wagle,
    localize,
    noised,
    score_units,
)
from unlearn_nb.models import Row, encode_rows
from unlearn_nb.regions import Region, unit_weights
from unlearn_nb.unlearning import UnlearnSettings, unlearn


def mean_gradient(model, data, names):
    each = row_gradients(model, data, names)
    return {n: sum(g[n] for g in each) / len(each) for n in names}


def by_unit(values, model, unit):
    if unit == "weight":
        return values
    return {n: v.mean(0, keepdim=True) if v.shape[0] == 32 else v.mean(1, keepdim=True) for n, v in values.items()}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("unit", ["value_vector", "weight"])
def test_gradient_scores_equal_loops_over_single_rows(name, unit):
    model = double(name)
    names = list(unit_weights(model, unit))
    each = row_gradients(model, FORGET, names)
    mean = {n: sum(g[n] for g in each) / 8 for n in names}
    squares = {n: sum(g[n] ** 2 for g in each) / 8 for n in names}
    same(
        run(model, "gradient", unit),
        {n: v.sqrt() for n, v in by_unit({n: g**2 for n, g in mean.items()}, model, unit).items()},
    )
    same(run(model, "fisher", unit), by_unit(squares, model, unit))
    assert max(v.max() for v in squares.values()) > 1e-4


def test_fisher_is_no_squared_mean():
    model = double()
    fisher, gradient = run(model, "fisher"), run(model, "gradient")
    assert all((fisher.values[n] >= gradient.values[n] ** 2 * 0.999).all() for n in fisher.values)  # Jensen
    assert any((fisher.values[n] > 2 * gradient.values[n] ** 2).any() for n in fisher.values)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_activations_equal_loops_over_answer_tokens(name):
    model = double(name)
    units = unit_weights(model)
    expected = {n: 0.0 for n in units}
    for row in encode_rows(make_tokenizer(), FORGET):
        seen = {}
        handles = [
            u.layer.register_forward_pre_hook(lambda m, args, n=n: seen.update({n: args[0]})) for n, u in units.items()
        ]
        with torch.no_grad():
            model(torch.tensor([row.input_ids]))
        for handle in handles:
            handle.remove()
        at = [t - 1 for t, label in enumerate(row.labels) if label != -100]
        for n, x in seen.items():
            expected[n] = expected[n] + x.reshape(len(row.input_ids), -1)[at].abs().mean(0) / 8
    for n, unit in units.items():
        norms = unit.weight.detach().norm(dim=0 if unit.shape[0] == 1 else 1)
        expected[n] = (expected[n] * norms).reshape(unit.shape)
    same(run(model, "activations"), expected)


@pytest.mark.parametrize("unit", ["value_vector", "weight"])
@pytest.mark.parametrize("gamma", [None, 0.3])
def test_wagle_is_its_formula(unit, gamma):
    model = double()
    names = list(unit_weights(model, unit))
    forget, retain = mean_gradient(model, FORGET, names), mean_gradient(model, RETAIN, names)
    theta = {n: dict(model.named_parameters())[n].detach() for n in names}
    scale = gamma
    if gamma is None:
        root = [math.sqrt(sum(float((v**2).sum()) for v in values.values())) for values in (retain, theta)]
        scale = root[0] / root[1]
    expected = {n: (theta[n] * forget[n] - retain[n] * forget[n] / scale).abs() for n in names}
    same(run(model, Wagle(gamma=gamma), unit), by_unit(expected, model, unit))


def test_published_wagle_depends_on_batches_and_ours_does_not():
    model = double()
    ours = [localize(run(model, "wagle", "weight", batch_size=b), 0.1) for b in (1, 8)]
    theirs = [localize(run(model, "wagle(faithful=True)", "weight", batch_size=b), 0.1) for b in (1, 8)]
    assert ours[0] == ours[1] and theirs[0] != theirs[1]
    names = list(unit_weights(model, "weight"))
    one = [{n: sum(g[n] for g in row_gradients(model, data, names)) for n in names} for data in (FORGET, RETAIN)]
    theta = dict(model.named_parameters())
    expected = {n: ((theta[n].detach() - one[1][n] / 1e-6) * one[0][n]).abs() for n in names}
    same(run(model, "wagle(faithful=True)", "weight", batch_size=1), expected)  # batches of one row: sums over rows


def test_published_wagle_is_the_product_of_the_gradients():
    """The parameter itself hardly counts at 1e-6; at the scale of our default it does."""
    model = double()
    names = list(unit_weights(model, "weight"))
    forget, retain = mean_gradient(model, FORGET, names), mean_gradient(model, RETAIN, names)
    shapes = {n: tuple(g.shape) for n, g in forget.items()}
    product = localize(UnitScores({n: (forget[n] * retain[n]).abs().float() for n in names}, shapes), 0.1)
    assert localize(run(model, "wagle(faithful=True)", "weight", batch_size=1), 0.1).overlap(product) > 0.99
    assert localize(run(model, "wagle", "weight"), 0.1).overlap(product) < 0.9


@pytest.mark.parametrize("method", ["activations", "memflex", "wagle", "gradient", "fisher", "intervention"])
def test_scores_do_not_depend_on_the_batch_size(method):
    model = double()
    one, many = run(model, method, batch_size=1), run(model, method, batch_size=7)
    for name in one.values:
        torch.testing.assert_close(one.values[name], many.values[name], rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("method, unit", EVERY)
@pytest.mark.parametrize("name, dtype", [("llama", torch.bfloat16), ("gpt2", torch.float32)])
def test_every_localizer_makes_a_region_and_leaves_the_model_alone(method, unit, name, dtype):
    model = (tiny() if name == "llama" else small("gpt2", **SIZES)).to(dtype).train()
    model.get_input_embeddings().weight.requires_grad_(False)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    flags = [p.requires_grad for p in model.parameters()]
    scores = run(model, method, unit)
    again = run(model, method, unit)
    assert all(torch.equal(v, again.values[n]) and v.dtype == torch.float32 for n, v in scores.values.items())
    region = localize(scores, 0.25)
    assert region.n_units == round(0.25 * Region.every(model, unit).n_units)
    region.check(model)
    assert model.training and flags == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    grads = [p.grad for p in model.parameters()]
    assert (grads[0] == 1).all() and all(g is None for g in grads[1:])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_after_a_failure_the_model_is_as_it_was():
    model = tiny().train()
    with pytest.raises(UnlearnError, match="intervention: the objective dpo reads augmented rows"):
        run(model, "intervention(objective=dpo)")
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_the_output_layer_runs_at_answers_only():
    model, seen = tiny(), []
    model.lm_head.register_forward_hook(lambda m, args, output: seen.append(output.shape[-2]))
    tokens = sum(label != -100 for row in encode_rows(make_tokenizer(), FORGET) for label in row.labels)
    run(model, "gradient")
    assert sum(seen) == tokens
    seen.clear()
    run(model, "activations")
    assert sum(seen) == 0


def test_dropout_is_off():
    model = small("gpt2", **SIZES, resid_pdrop=0.5, embd_pdrop=0.5).train()
    one, two = run(model, "gradient"), run(model.eval(), "gradient")
    assert all(torch.equal(one.values[n], two.values[n]) for n in one.values)


@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 99))
@settings(deadline=None)
def test_noise_replaces_half_of_the_answer_s_labels(length, prompt, seed):
    answer = list(range(10, 10 + length))
    row = Row([*range(3, 3 + prompt), *answer, 1], [-100] * prompt + [*answer, 1])
    new = noised(row, np.random.default_rng(seed), vocabulary=40, special=[0, 1, 2])
    changed = [i for i, (a, b) in enumerate(zip(row.labels, new.labels)) if a != b]
    assert len(changed) == max(1, length // 2) and new.input_ids == row.input_ids
    assert all(prompt <= i < prompt + length and new.labels[i] not in (0, 1, 2) for i in changed)
    published = noised(row, np.random.default_rng(seed), vocabulary=40, special=[0, 1, 2], faithful=True)
    changed = [i for i, (a, b) in enumerate(zip(row.labels, published.labels)) if a != b]
    assert len(changed) <= length // 2 and all(published.input_ids[i] == published.labels[i] for i in changed)


def test_published_noise_changes_fewer_than_half():
    row, counts = Row(list(range(10, 30)), list(range(10, 30))), []
    for seed in range(200):
        counts.append(
            sum(
                a != b
                for a, b in zip(
                    row.labels,
                    noised(row, np.random.default_rng(seed), vocabulary=500, special=[0], faithful=True).labels,
                )
            )
        )
    assert abs(np.mean(counts) - 20 * (1 - 0.95**10)) < 0.3  # distinct places among ten draws out of twenty


def test_a_row_without_an_answer_is_left_alone():
    row = Row([5, 6, 1], [-100, -100, 1])
    assert noised(row, np.random.default_rng(0), vocabulary=40, special=[0, 1]) == row


def test_memflex_is_its_formula(monkeypatch):
    model = double()
    monkeypatch.setattr(
        "unlearn_nb.localization.localizers.noised", lambda row, rng, **options: row
    )  # what is left: plain gradients
    names = list(unit_weights(model))
    forget, retain = mean_gradient(model, FORGET, names), mean_gradient(model, RETAIN, names)
    expected = {
        n: (forget[n].norm(dim=0) / 32**0.5 * (1 - torch.cosine_similarity(forget[n], retain[n], dim=0)))[None]
        for n in names
    }
    same(run(model, "memflex"), expected)
    rule = {
        n: (forget[n].abs().mean(0) * (torch.cosine_similarity(forget[n], retain[n], dim=0) < 0.2))[None] for n in names
    }
    same(run(model, "memflex(cosine=0.2, faithful=True)", batch_size=1), rule)
    assert 0 < sum(int((v > 0).sum()) for v in rule.values()) < 96


def test_published_memflex_locates_lora_tensors_by_its_thresholds():
    """Recomputed here from the noised rows: batches of one, sums divided by the number of noised rows."""
    model, memflex = with_adapter(tiny()).double(), MemFlexUnits(faithful=True, cosine=0.3)
    scores = run(model, memflex, "tensor", batch_size=1)
    units, grads = unit_weights(model, "tensor"), []
    for part, data in ((0, FORGET), (1, RETAIN)):
        rng, total, count = np.random.default_rng([0, part]), {n: 0.0 for n in units}, 0
        for row in encode_rows(make_tokenizer(), data):
            for _ in range(3):
                loss = answer_loss(
                    model, noised(row, rng, vocabulary=200, special=make_tokenizer().all_special_ids, faithful=True)
                )
                found = torch.autograd.grad(loss, [u.weight.requires_grad_(True) for u in units.values()])
                total, count = {n: total[n] + g for n, g in zip(units, found)}, count + 1
        grads.append({n: t / count for n, t in total.items()})
    sigma = sorted(float(g.abs().mean()) for g in grads[0].values())[10]
    located = {
        n
        for n in units
        if torch.cosine_similarity(grads[0][n].flatten(), grads[1][n].flatten(), dim=0) < 0.3
        and grads[0][n].abs().mean() > sigma * (1 + 1e-6)
    }
    region = scores.above(sigma * (1 + 1e-6))
    assert set(region.masks) == located and 0 < len(located) < 28 and region.n_units == len(located)


def test_of_a_fresh_adapter_only_B_can_be_located(tmp_path):
    """B = 0 makes the gradient of A vanish."""
    model = get_peft_model(tiny(), LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    for method in ("memflex", "memflex(faithful=True)", "gradient"):
        scores = run(model, method, "tensor")
        assert all((v == 0).all() for n, v in scores.values.items() if "lora_A" in n)
    region = localize(scores, 0.25)
    assert region.n_units == 7 and all("lora_B" in n for n in region.masks)
    settings = UnlearnSettings(lr=1e-2, steps=1, lora_r=3, batch_size=2, max_length=24)
    unlearn(
        tiny(), make_tokenizer(), FORGET, RETAIN, "ga + nll", settings=settings, out=tmp_path / "out",
        progress=False, region=region,
    )


@given(values, values, st.floats(0.05, 1.0))
@settings(deadline=None)
def test_the_highest_scores_are_chosen_and_ties_go_to_the_first(one, two, share):
    scores = UnitScores({"a": torch.tensor([one]), "b": torch.tensor([two])}, {"a": (3, len(one)), "b": (3, len(two))})
    both = one + two
    count = round(share * len(both))
    if not count:
        return
    region = localize(scores, share)
    order = sorted(range(len(both)), key=lambda i: (-both[i], i))[:count]
    flat = torch.cat(
        [region.masks.get(n, torch.zeros(1, len(v), dtype=torch.bool)).flatten() for n, v in (("a", one), ("b", two))]
    )
    assert flat.nonzero().flatten().tolist() == sorted(order)
    for n, v in (("a", one), ("b", two)):
        if round(share * min(len(one), len(two))):
            assert int(localize(scores, share, per_layer=True).masks[n].sum()) == round(share * len(v))


def test_an_earlier_choice_is_part_of_a_larger_one():
    scores = run(double(), "wagle")
    assert localize(scores, 0.1) - localize(scores, 0.3) == Region({}, {})


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda m: run(m, "fischer"), "unknown localizer 'fischer'; did you mean 'fisher'?"),
        (lambda m: run(m, "memflex(copy=2)"), "unknown argument of memflex 'copy'; did you mean 'copies'?"),
        (
            lambda m: run(m, "wagle("),
            "can't read the localizer 'wagle(' near column 6: write e.g. activations(key=value)",
        ),
        (lambda m: run(m, "wagle(gamma=0)"), "wagle: gamma must be a number above 0, not 0"),
        (
            lambda m: run(m, "activations", "weight"),
            "activations has no scores for unit 'weight': choose 'value_vector'",
        ),
        (
            lambda m: run(m, "memflex", "neuron"),
            "memflex has no scores for unit 'neuron': choose 'value_vector' or 'tensor'",
        ),
        (
            lambda m: score_units(m, make_tokenizer(), FORGET, method="wagle"),
            "wagle reads retain rows: give them",
        ),
        (
            lambda m: score_units(m, make_tokenizer(), [], retain=RETAIN, method="fisher"),
            "there are no forget rows: give at least one",
        ),
        (
            lambda m: run(m, "intervention(objective=dpo)"),
            "intervention: the objective dpo reads augmented rows: give them in more={...}",
        ),
        (lambda m: localize(run(m, "random"), 2), "a share must lie above 0 and be at most 1, not 2: give e.g. 0.1"),
        (
            lambda m: localize(run(m, "random"), 0.01, per_layer=True),
            "a share of 0.01 of 48 units is none: give at least 0.021",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(UnlearnError) as error:
        call(tiny())
    assert str(error.value) == sentence


def test_scores_that_are_not_finite_are_refused():
    model = copy.deepcopy(tiny())
    model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(
        UnlearnError, match=r"^the scores of gradient are not finite in model\.layers\.0\.mlp\.down_proj\.weight: "
    ):
        run(model, "gradient")


def test_localizers_round_trip():
    assert all(LOCALIZERS.read(name) == LOCALIZERS[name]() for name in LOCALIZERS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", list(LOCALIZERS))
def test_gpu_agrees_with_cpu(method):
    cpu, gpu = run(tiny(), method), run(tiny().cuda(), method)
    for name in cpu.values:
        torch.testing.assert_close(cpu.values[name], gpu.values[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("text, part", [
    ("memflex(copies=0)", "copies is a whole number"), ("memflex(copies=1.5)", "copies is a whole number"),
    ("memflex(cosine=nan)", "cosine lies in [-1, 1]"), ("memflex(seed=-1)", "seed must be a whole number"),
    ("random(seed=0.5)", "seed must be a whole number"), ("wagle(gamma=True)", "gamma must be a number above 0"),
    ("intervention(epsilon=0)", "epsilon must be a number above 0"), ("intervention(objective=npoo)", "npoo"),
    ("memflex(faithful=wagle)", "write faithful='zjunlp'"), ("wagle(faithful=zjunlp)", "write faithful='wagle'"),
    ("gradient(faithful=True)", "gradient takes no arguments"),
])
def test_localizers_refuse(text, part):
    with pytest.raises(UnlearnError) as error:
        LOCALIZERS.read(text)
    assert part in str(error.value)


def test_a_localizer_says_whose_code_it_follows():
    assert MemFlexUnits(faithful=True).faithful == "zjunlp" and Wagle(faithful=True) == Wagle(faithful="wagle")
    assert MemFlexUnits(faithful=False) == MemFlexUnits() and Wagle().faithful == ""
    assert LOCALIZERS.read("wagle(faithful=wagle)") == Wagle(faithful="wagle")
