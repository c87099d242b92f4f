"""Localizers by first principles: loops over single rows, closed forms, finite differences; choice of a region."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from toys import FORGET, RETAIN, SIZES, make_tokenizer, rows, small, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.localization import (
    LOCALIZERS,
    Intervention,
    Material,
    MemFlexUnits,
    UnitScores,
    Wagle,
    localize,
    match_mlps,
    noised,
    objective_gradient,
    score_units,
)
from unlearn_nb.models import Row, encode_rows
from unlearn_nb.objectives import resolve
from unlearn_nb.regions import Region, unit_weights
from unlearn_nb.unlearning import UnlearnSettings, unlearn

OTHERS = rows(6, seed=5)
EVERY = [(name, unit) for name in LOCALIZERS for unit in LOCALIZERS[name].units if unit != "tensor"]


def double(name="llama"):
    return (tiny() if name == "llama" else small(name, **SIZES)).double()


def answer_loss(model, row):
    """Mean negative log-likelihood an answer token of one unpadded row: the model called as anyone would."""
    at = [t for t, label in enumerate(row.labels) if label != -100]
    logits = model(torch.tensor([row.input_ids])).logits[0, [t - 1 for t in at]]
    return -logits.log_softmax(-1)[range(len(at)), [row.labels[t] for t in at]].mean()


def row_gradients(model, data, names):
    """The gradient of each row, one at a time."""
    found = []
    for row in encode_rows(make_tokenizer(), data):
        weights = [dict(model.named_parameters())[n] for n in names]
        found.append(dict(zip(names, torch.autograd.grad(answer_loss(model, row), weights))))
    return found


def mean_gradient(model, data, names):
    each = row_gradients(model, data, names)
    return {n: sum(g[n] for g in each) / len(each) for n in names}


def run(model, method, unit="value_vector", **changes):
    return score_units(
        model,
        make_tokenizer(),
        FORGET,
        retain=RETAIN,
        method=method,
        unit=unit,
        **{"more": {"neutral": OTHERS}} | changes,
    )


def by_unit(values, model, unit):
    if unit == "weight":
        return values
    return {n: v.mean(0, keepdim=True) if v.shape[0] == 32 else v.mean(1, keepdim=True) for n, v in values.items()}


def same(scores, expected):
    assert set(scores.values) == set(expected)
    for name, values in scores.values.items():
        size = expected[name].abs().max().item()  # Llama's norms compute in float32, whatever the model's type
        torch.testing.assert_close(values, expected[name].float(), rtol=1e-4, atol=1e-5 * size)


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


# ---- MemFlex


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


# ---- intervention


@pytest.mark.parametrize("unit", ["value_vector", "tensor"])
def test_interventions_predict_what_the_step_does(unit):
    """Finite differences: move one unit against the objective's gradient and see how the answer losses change."""
    model = double("gpt2")
    model = with_adapter(model).double() if unit == "tensor" else model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    units = unit_weights(model, unit)
    material = Material(
        model,
        {
            g: encode_rows(make_tokenizer(), d)
            for g, d in (("forget", FORGET), ("retain", RETAIN), ("protected", OTHERS), ("neutral", rows(5, 9)))
        },
        units,
        batch_size=3,
    )
    model.requires_grad_(False)
    for u in units.values():
        u.weight.requires_grad_(True)
    method = Intervention(objective="0.5*npo + kl + 0.3*nll")
    scores, step = method(material), objective_gradient(material, resolve(method.objective))

    def losses():
        with torch.no_grad():
            return {
                g: torch.stack([answer_loss(model, row) for row in data]).mean() for g, data in material.rows.items()
            }

    eta = 1e-4
    name = list(units)[1]
    mask = torch.zeros(units[name].shape, dtype=torch.bool)
    mask.view(-1)[3 if unit == "value_vector" else 0] = True
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            units[name].weight.sub_(sign * eta * step[name] * mask)
            ends.append(losses())
            units[name].weight.add_(sign * eta * step[name] * mask)
    effects = {g: float((ends[0][g] - ends[1][g]) / (2 * eta)) for g in ends[0]}
    neutral = material.mean_gradient("neutral")
    each = torch.cat(
        [(neutral[n] * step[n]).sum(1 if unit == "value_vector" else (0, 1)).abs().flatten() for n in units]
    )
    expected = (effects["forget"] - max(effects["retain"], effects["protected"], 0)) / (
        abs(effects["neutral"]) + 0.1 * float(each.mean())
    )
    assert scores[name][mask].item() == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_step_is_the_gradient_of_the_whole_objective():
    """Over all rows at once, however many a batch holds."""
    model = double("gpt2")
    names = list(unit_weights(model))
    steps = []
    for size in (2, 50):
        material = Material(
            model,
            {g: encode_rows(make_tokenizer(), d) for g, d in (("forget", FORGET), ("retain", RETAIN))},
            unit_weights(model),
            batch_size=size,
        )
        steps.append(objective_gradient(material, resolve("ga(per=sequences) + 2*nll(per=sequences)")))
    summed = {
        g: [
            {n: v * count for n, v in grads.items()}
            for grads, count in zip(
                row_gradients(model, d, names),
                [sum(x != -100 for x in r.labels) for r in encode_rows(make_tokenizer(), d)],
            )
        ]
        for g, d in (("forget", FORGET), ("retain", RETAIN))
    }
    for n in names:
        expected = -sum(g[n] for g in summed["forget"]) / 8 + 2 * sum(g[n] for g in summed["retain"]) / 10
        for step in steps:
            torch.testing.assert_close(step[n], expected, rtol=1e-6, atol=1e-10)


def test_protected_rows_can_only_lower_an_intervention_s_score():
    model = double()
    free = score_units(model, make_tokenizer(), FORGET, retain=RETAIN, method="intervention")
    guarded = score_units(
        model, make_tokenizer(), FORGET, retain=RETAIN, method="intervention", more={"protected": OTHERS}
    )
    assert all((guarded.values[n] <= free.values[n] + 1e-12).all() for n in free.values)
    assert any((guarded.values[n] < free.values[n]).any() for n in free.values)


# ---- choosing


values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, -2.0, 3.25]), min_size=2, max_size=30)


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


# --- one small random model of each architecture ----------------------------------------------------------------------

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
