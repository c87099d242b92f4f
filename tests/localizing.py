"""Models, losses and gradients by plain loops that tests of localizers compare with."""

import torch
from hypothesis import strategies as st
from toys import FORGET, RETAIN, SIZES, make_tokenizer, rows, small, tiny

from unlearn_nb.localization import (
    LOCALIZERS,
    score_units,
)
from unlearn_nb.models import encode_rows

OTHERS = rows(6, seed=5)


EVERY = [(name, unit) for name in LOCALIZERS for unit in LOCALIZERS[name].units if unit != "tensor"]


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


def same(scores, expected):
    assert set(scores.values) == set(expected)
    for name, values in scores.values.items():
        size = expected[name].abs().max().item()  # Llama's norms compute in float32, whatever the model's type
        torch.testing.assert_close(values, expected[name].float(), rtol=1e-4, atol=1e-5 * size)


values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, -2.0, 3.25]), min_size=2, max_size=30)


def double(name="llama"):
    return (tiny() if name == "llama" else small(name, **SIZES)).double()
