"""What an intervention on a unit predicts, beside the step that is taken."""

import pytest
import torch
from localizing import OTHERS, answer_loss, double, row_gradients
from toys import FORGET, RETAIN, make_tokenizer, rows, with_adapter

from unlearn_nb.localization import (
    Intervention,
    Material,
    objective_gradient,
    score_units,
)
from unlearn_nb.models import encode_rows
from unlearn_nb.objectives import resolve
from unlearn_nb.regions import unit_weights


def material_of(unit):
    """A model without dropout, of which only units of that kind require gradients, and four groups of rows."""
    model = double("gpt2")
    model = with_adapter(model).double() if unit == "tensor" else model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    units = unit_weights(model, unit)
    texts = {"forget": FORGET, "retain": RETAIN, "protected": OTHERS, "neutral": rows(5, 9)}
    model.requires_grad_(False)
    for u in units.values():
        u.weight.requires_grad_(True)
    encoded = {group: encode_rows(make_tokenizer(), some) for group, some in texts.items()}
    return Material(model, encoded, units, batch_size=3)


def effects_of(material, weight, step, eta=1e-4):
    """Central differences: how the mean answer loss of each group changes along a step of one weight."""
    def losses():
        return {group: torch.stack([answer_loss(material.model, row) for row in some]).mean()
                for group, some in material.rows.items()}

    with torch.no_grad():
        weight.sub_(eta * step)
        after = losses()
        weight.add_(2 * eta * step)
        before = losses()
        weight.sub_(eta * step)
    return {group: float((after[group] - before[group]) / (2 * eta)) for group in after}


@pytest.mark.parametrize("unit", ["value_vector", "tensor"])
def test_interventions_predict_what_the_step_does(unit):
    """Finite differences: move one unit against the objective's gradient and see how the answer losses change."""
    material = material_of(unit)
    method = Intervention(objective="0.5*npo + kl + 0.3*nll")
    scores, step = method(material), objective_gradient(material, resolve(method.objective))
    name = list(material.units)[1]
    mask = torch.zeros(material.units[name].shape, dtype=torch.bool)
    mask.view(-1)[3 if unit == "value_vector" else 0] = True
    effects = effects_of(material, material.units[name].weight, step[name] * mask)
    neutral = material.mean_gradient("neutral")
    axes = 1 if unit == "value_vector" else (0, 1)
    each = torch.cat([(neutral[n] * step[n]).sum(axes).abs().flatten() for n in material.units])
    gain = effects["forget"] - max(effects["retain"], effects["protected"], 0)
    expected = gain / (abs(effects["neutral"]) + 0.1 * float(each.mean()))
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
