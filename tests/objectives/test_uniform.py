"""Margin and maximal entropy: against plain float loops, where they vanish, and the published positions."""

import math

import pytest
import torch
from toys import log_softmax, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import Margin, MaxEnt, TermInputs, inputs, resolve
from unlearn_nb.unlearning import UnlearnSettings, forward_terms, make_batcher, schedule_for

VOCAB = 40


def some(seed=0, rows=(0, 0, 1, 2, 2, 2), scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(len(rows), VOCAB, generator=generator, dtype=torch.float64)
    return TermInputs(None, rows=torch.tensor(rows), n_rows=max(rows) + 1, logits=logits,
                      targets=torch.randint(VOCAB, (len(rows),), generator=generator))


def test_both_equal_plain_loops():
    given = some()
    table = given.logits.tolist()
    assert math.isclose(float(Margin()(given)), sum((max(r) - sum(r) / VOCAB) ** 2 for r in table) / 6, rel_tol=1e-12)
    uniform = sum(-sum(log_softmax(r)) / VOCAB - math.log(VOCAB) for r in table) / 6
    assert math.isclose(float(MaxEnt()(given)), uniform, rel_tol=1e-10)


@pytest.mark.parametrize("term", [Margin(), MaxEnt()])
def test_flat_logits_are_the_minimum_and_a_constant_changes_nothing(term):
    flat = some(scale=0.0)
    flat.logits = (flat.logits + 3.0).requires_grad_()
    (slope,) = torch.autograd.grad(value := term(flat), flat.logits)
    assert abs(float(value)) < 1e-12 and float(slope.abs().max()) < 1e-12
    given = some()
    before = float(term(given))
    assert before > 0
    given.logits = given.logits + torch.arange(6)[:, None] * 10.0
    assert math.isclose(float(term(given)), before, rel_tol=1e-10)


@pytest.mark.parametrize("term", [Margin(), MaxEnt()])
def test_chunks_change_nothing(term, monkeypatch):
    given = some()
    given.logits.requires_grad_()
    one = torch.autograd.grad(term(given), given.logits)[0]
    monkeypatch.setattr(inputs, "_CHUNK_ELEMENTS", VOCAB)
    assert torch.allclose(one, torch.autograd.grad(term(given), given.logits)[0], atol=1e-15)


@pytest.mark.parametrize("text", ["margin", "maxent"])
def test_micro_batches_add_up(text):
    term, whole = resolve(text).parts[0][1], some()
    pieces = []
    for start, stop in ((0, 3), (3, 6)):
        part = TermInputs(None, rows=whole.rows[start:stop] - whole.rows[start], n_rows=2,
                          logits=whole.logits[start:stop], counts=whole.counts | {"microbatches": 2})
        pieces.append(float(term(part)))
    assert math.isclose(sum(pieces), float(term(whole)), rel_tol=1e-12)


def test_published_margin_reads_the_positions_of_the_answer_tokens(tokenizer):
    """By the published lines: labels unshifted against the logits, rows padded right, a mean a micro-batch."""
    data = {"forget": [{"prompt": "w5 w6", "response": "w7 w8 w9"}, {"prompt": "w5", "response": "w11"}],
            "retain": [{"prompt": "w5", "response": "w11"}]}
    model, objective = tiny(), resolve("margin(faithful=open-unlearning)")
    batcher = make_batcher(tokenizer, data, objective)
    batch = batcher([{"forget": [0]}, {"forget": [1]}])
    with torch.no_grad():
        (value,) = objective(forward_terms(model, objective, batch))[1].values()
        right = resolve("margin")(forward_terms(model, resolve("margin"), batch))[0]
        sums, count, shifted = 0.0, 0, 0.0
        for row in batcher.rows["forget"]:
            logits = model(torch.tensor([row.input_ids])).logits[0]
            gaps = (logits.max(-1)[0] - logits.mean(-1)) ** 2
            mask = torch.tensor(row.labels) != -100
            sums, count = sums + float((gaps * mask).sum()), count + int(mask.sum())
            shifted += float(gaps[:-1][mask[1:]].sum())
    assert math.isclose(float(value), sums / count, rel_tol=1e-5)
    assert math.isclose(float(right), shifted / count, rel_tol=1e-5) and abs(shifted - sums) > 1e-3
    assert len(schedule_for(batcher, UnlearnSettings(steps=2, batch_size=1))) == 2


def test_maxent_follows_no_code():
    with pytest.raises(UnlearnError, match="faithful"):
        resolve("maxent(faithful=open-unlearning)")
