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
