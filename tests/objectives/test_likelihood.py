"""NLL, GA, KL and NPO against an independent float64 recomputation (plain Python loops), gradcheck, limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import log_softmax

from unlearn_nb.objectives import (
    GA,
    KL,
    NLL,
    NPO,
    TermInputs,
    inputs,
    token_logps,
)

VOCAB = 11


def make(lengths, seed=0, dtype=torch.float64, positions=17):
    """Random logits for rows with `lengths` answer tokens each."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    logits, ref = (3 * torch.randn(total, VOCAB, generator=generator, dtype=torch.float64) for _ in range(2))
    wide = [3 * torch.randn(positions, VOCAB, generator=generator, dtype=torch.float64) for _ in range(2)]
    targets = torch.randint(VOCAB, (total,), generator=generator)
    rows = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)], dtype=torch.long)
    return [t.to(dtype) for t in (logits, ref, *wide)], targets, rows


def inputs_from(tensors, targets, rows, n_rows, counts=None):
    logits, ref, wide, wide_ref = tensors
    return TermInputs(
        token_logps(logits, targets),
        rows,
        n_rows,
        token_logps(ref, targets),
        logits,
        ref,
        wide,
        wide_ref,
        counts=counts,
    )


def test_npo_per_token_is_the_published_form_at_one_row_a_micro_batch():
    tensors, targets, rows = make([4], seed=3)
    inputs = inputs_from(tensors, targets, rows, 1)
    assert NPO(per="tokens")(inputs) == NPO(faithful="zjunlp")(inputs) != NPO()(inputs)


SAMPLES = [
    GA(),
    GA(per="sequences"),
    GA(faithful="zjunlp"),
    GA(faithful="open-unlearning"),
    NLL(),
    NLL(per="sequences"),
    NLL(faithful="zjunlp"),
    NPO(),
    NPO(beta=2.5),
    NPO(per="tokens"),
    NPO(faithful="zjunlp"),
    NPO(faithful="open-unlearning"),
    KL(),
    KL(direction="forward"),
    KL(faithful="zjunlp"),
    KL(faithful="open-unlearning"),
]


def divergence(first, second):
    a, b = log_softmax(first), log_softmax(second)
    return math.fsum(math.exp(x) * (x - y) for x, y in zip(a, b))


def expected(term, tensors, targets, lengths):
    """The same term written out in floats."""
    logits, ref, wide, wide_ref = (t.double().tolist() for t in tensors)
    if isinstance(term, KL):
        if term.faithful:
            return sum(divergence(q, p) for p, q in zip(wide, wide_ref)) / len(wide)
        values = [divergence(p, q) if term.direction == "reverse" else divergence(q, p) for p, q in zip(logits, ref)]
        return sum(values) / len(values) if values else 0.0
    logps = [log_softmax(row)[t] for row, t in zip(logits, targets.tolist())]
    ref_logps = [log_softmax(row)[t] for row, t in zip(ref, targets.tolist())]
    ends = np.cumsum([0, *lengths])
    if isinstance(term, NPO) and term.faithful == "open-unlearning" and not sum(lengths):
        return 2 / term.beta * math.log(2)
    sequences = [(sum(logps[a:b]), sum(ref_logps[a:b])) for a, b in zip(ends, ends[1:]) if b > a]
    if not sequences:
        return 0.0
    if isinstance(term, NPO):

        def curve(gap):
            return 2 / term.beta * math.log1p(math.exp(term.beta * gap))

        if term.faithful == "zjunlp":
            return curve((sum(logps) - sum(ref_logps)) / len(logps))
        if term.faithful:  # a row without an answer token counts, too
            empty = len(lengths) - len(sequences)
            return (sum(curve(new - old) for new, old in sequences) + empty * curve(0)) / len(lengths)
        lengths = [n if term.per == "tokens" else 1 for n in lengths if n]
        return sum(curve((new - old) / n) for (new, old), n in zip(sequences, lengths)) / len(sequences)
    sign = -1 if isinstance(term, NLL) and not isinstance(term, GA) else 1
    return sign * sum(logps) / (len(sequences) if term.per == "sequences" and not term.faithful else len(logps))


@pytest.mark.parametrize("term", SAMPLES, ids=str)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 10_000))
def test_equals_float64_recomputation(term, lengths, seed):
    tensors, targets, rows = make(lengths, seed)
    value = term(inputs_from(tensors, targets, rows, len(lengths)))
    assert math.isclose(value.item(), expected(term, tensors, targets, lengths), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("term", SAMPLES, ids=str)
@pytest.mark.parametrize("lengths", [[3, 0, 4], [1], [0], [0, 0], [1, 1, 1]], ids=str)
def test_float32_to_1e6_with_empty_one_token_and_all_masked_answers(term, lengths):
    tensors, targets, rows = make(lengths, seed=1, dtype=torch.float32)
    tensors = [t.requires_grad_() for t in tensors]
    value = term(inputs_from(tensors, targets, rows, len(lengths)))
    assert math.isclose(value.item(), expected(term, tensors, targets, lengths), rel_tol=1e-6, abs_tol=1e-6)
    grads = torch.autograd.grad(value, [tensors[0], tensors[2]], allow_unused=True)
    assert any(g is not None for g in grads)
    assert all(g.isfinite().all() for g in grads if g is not None)
    if sum(lengths) == 0 and term != NPO(faithful="open-unlearning") and not isinstance(term, KL):
        assert value.item() == 0.0


@pytest.mark.parametrize("chunk", [2**22, 3 * VOCAB], ids=["one chunk", "checkpointed chunks"])
@pytest.mark.parametrize("term", SAMPLES, ids=str)
@pytest.mark.parametrize("lengths", [[3, 0, 4], [1], [0]], ids=str)
def test_gradcheck(monkeypatch, term, lengths, chunk):
    monkeypatch.setattr(inputs, "_CHUNK_ELEMENTS", chunk)
    tensors, targets, rows = make(lengths, seed=2, positions=5)

    def loss(logits, wide):
        return term(inputs_from((logits, tensors[1], wide, tensors[3]), targets, rows, len(lengths)))

    assert torch.autograd.gradcheck(loss, (tensors[0].requires_grad_(), tensors[2].requires_grad_()))


def test_chunks_change_nothing(monkeypatch):
    tensors, targets, rows = make([5, 8, 4], seed=3)
    whole = [term(inputs_from(tensors, targets, rows, 3)).item() for term in SAMPLES]
    monkeypatch.setattr(inputs, "_CHUNK_ELEMENTS", 2 * VOCAB)
    assert [term(inputs_from(tensors, targets, rows, 3)).item() for term in SAMPLES] == pytest.approx(whole, abs=1e-12)


def test_bfloat16_logits_are_raised_to_float32():
    tensors, targets, rows = make([3, 2], dtype=torch.bfloat16)
    for term in SAMPLES:
        value = term(inputs_from(tensors, targets, rows, 2))
        assert value.dtype == torch.float32
        assert math.isclose(value.item(), expected(term, tensors, targets, [3, 2]), rel_tol=1e-5, abs_tol=1e-5)


@pytest.mark.parametrize("beta, tolerance", [(1e-2, 0.2), (1e-4, 2e-3), (1e-6, 2e-5)])
def test_npo_gradient_approaches_ga_as_beta_vanishes(beta, tolerance):
    tensors, targets, rows = make([3, 5, 1], seed=4)
    logits = tensors[0].requires_grad_()
    inputs = inputs_from((logits, *tensors[1:]), targets, rows, 3)
    (npo,) = torch.autograd.grad(NPO(beta=beta)(inputs), logits, retain_graph=True)
    (ga,) = torch.autograd.grad(GA(per="sequences")(inputs), logits)
    assert (npo - ga).abs().max() <= tolerance * ga.abs().max()
    assert (npo - ga).abs().max() > 0.01 * tolerance * ga.abs().max() or beta < 1e-5  # converges, is not equal


@pytest.mark.parametrize("term", [t for t in SAMPLES if t.unit != "microbatch"], ids=str)
def test_micro_batches_sum_to_the_whole(term):
    lengths = [3, 1, 6, 2]
    tensors, targets, rows = make(lengths, seed=5)
    whole = inputs_from(tensors, targets, rows, 4)
    total = 0.0
    for chosen in ([0, 1, 2], [3]):
        keep = torch.isin(rows, torch.tensor(chosen))
        cut = [tensors[0][keep], tensors[1][keep], *tensors[2:]]
        total += term(inputs_from(cut, targets[keep], rows[keep] - chosen[0], len(chosen), whole.counts))
    assert math.isclose(total, term(whole), rel_tol=1e-12)
