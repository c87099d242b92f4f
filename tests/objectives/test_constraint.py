"""Constraints: the dual variable through real trainings, whatever the cut of a step, and as published."""

import math

import pytest
from toys import run, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import Constraint, Duals, resolve

PDU = "margin + constraint(eps={eps}, lr={lr}, start={start})"


def history(tokenizer, out, text, **changes):
    return run(tiny(), tokenizer, out, text, lora_dropout=0.0, **changes).frame


def test_the_multiplier_rises_by_what_exceeds_the_limit_and_falls_to_zero(tokenizer, tmp_path):
    violated = history(tokenizer, tmp_path / "a", PDU.format(eps=1, lr=0.5, start=2), steps=4)
    expected = 2.0
    for alpha, over in zip(violated.constraint_alpha, violated.constraint):
        assert over > 0 and math.isclose(alpha, expected, rel_tol=1e-6)
        expected += 0.5 * over
    slack = history(tokenizer, tmp_path / "b", PDU.format(eps=100, lr=0.5, start=2), steps=3)
    assert list(slack.constraint_alpha) == [2.0, 0.0, 0.0] and (slack.constraint < 0).all()
    assert math.isclose(slack.loss[1], slack.margin[1], rel_tol=1e-6)  # at 0, retention says nothing


def test_a_fixed_multiplier_is_a_weight(tokenizer, tmp_path):
    dual = history(tokenizer, tmp_path / "a", PDU.format(eps=1.5, lr=0, start=3))
    plain = history(tokenizer, tmp_path / "b", "margin + 3*nll")
    assert dual.margin.tolist() == pytest.approx(plain.margin.tolist(), rel=1e-6)
    assert (dual.constraint + 1.5).tolist() == pytest.approx(plain.nll.tolist(), rel=1e-5)
    assert (dual.loss + 3 * 1.5).tolist() == pytest.approx(plain.loss.tolist(), rel=1e-5)


def test_cutting_a_step_changes_nothing(tokenizer, tmp_path):
    text = PDU.format(eps=2, lr=1, start=1)
    one = history(tokenizer, tmp_path / "a", text, batch_size=4, accumulation=1)
    four = history(tokenizer, tmp_path / "b", text, batch_size=1, accumulation=4)
    for column in ("margin", "constraint", "constraint_alpha", "loss"):
        assert one[column].tolist() == pytest.approx(four[column].tolist(), rel=1e-4)


def test_published_accumulation_multiplies_the_dual_step(tokenizer, tmp_path):
    text = ("margin(faithful=True) + constraint(eps=1, term='nll(faithful=open-unlearning)', lr=1, start=1, "
            "faithful=open-unlearning)")
    one = history(tokenizer, tmp_path / "a", text, batch_size=4, accumulation=1, steps=2)
    four = history(tokenizer, tmp_path / "b", text, batch_size=1, accumulation=4, steps=2)
    first, second = one.constraint_alpha[0] - 1, four.constraint_alpha[0] - 1  # recorded after the step, as published
    assert 3 < second / first < 5


def test_a_step_without_such_rows_leaves_the_multiplier(tokenizer, tmp_path):
    frame = history(tokenizer, tmp_path / "a", PDU.format(eps=1, lr=0.5, start=2), steps=8, batch_size=1,
                    plan="chunked(size=8, retain=1)")
    assert (frame.constraint[::2] == 0).all() and (frame.constraint[1::2] > 0).all()
    assert frame.constraint_alpha[1] == 2.0 < frame.constraint_alpha[2] == frame.constraint_alpha[3]


def test_bad_constraints_are_refused():
    wrong = [({"eps": float("nan")}, "eps must be a number"), ({"eps": 1, "lr": -1}, "lr must be"),
             ({"eps": 1, "warmup": 2}, "warmup is a share"), ({"eps": 1, "term": "nll + kl"}, "constraint")]
    for arguments, words in wrong:
        with pytest.raises(UnlearnError, match=words):
            Constraint(**arguments)
    objective = resolve("margin + constraint(eps=1) + constraint(eps=1, term=kl)")
    assert set(Duals(objective, 3).record()) == {"constraint_1_alpha", "constraint_2_alpha"}
