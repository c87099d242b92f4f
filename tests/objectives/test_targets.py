"""SimNPO, WGA, SatImp, UNDIAL, CE-U, RMU: against plain float loops, and published bugs by their numbers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import log_softmax

from unlearn_nb.objectives import (
    CEU,
    GA,
    RMU,
    UNDIAL,
    WGA,
    EmbedDiff,
    SatImp,
    SimNPO,
    TermInputs,
    control_vector,
    inputs,
    token_logps,
)

OPEN = "open-unlearning"
VOCAB, WIDTH = 120, 6  # the published UNDIAL needs more than 100 entries

NEW = [
    SimNPO(),
    SimNPO(beta=0.7, delta=0.5),
    WGA(),
    WGA(beta=0.3),
    SatImp(),
    SatImp(beta1=0.5, beta2=2.0),
    UNDIAL(),
    UNDIAL(beta=1.5),
    CEU(),
    CEU(skip_first=False),
    RMU(layer=1),
    RMU(layer=1, steering=5.0, seed=3),
    EmbedDiff(layer=1),
]


def make(lengths, seed=0, dtype=torch.float64, width=9):
    """Random tensors for rows with `lengths` answer tokens, each row `width` positions long."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)

    def normal(*shape):
        return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    targets = torch.randint(VOCAB, (total,), generator=generator)
    all_targets = torch.full((len(lengths), width), -100)
    for row, (start, end) in enumerate(pairwise(np.cumsum([0, *lengths]).tolist())):
        all_targets[row, width - 1 - (end - start) : width - 1] = targets[start:end]
    where = all_targets.flatten() != -100
    wide, wide_ref = normal(len(where), VOCAB), normal(len(where), VOCAB)
    return {
        "logits": wide[where],
        "ref_logits": wide_ref[where],
        "all_logits": wide,
        "all_ref_logits": wide_ref,
        "hidden": normal(total, WIDTH),
        "ref_hidden": normal(total, WIDTH),
        "targets": targets,
        "all_targets": all_targets.flatten(),
        "lengths": lengths,
    }


def inputs_of(t, counts=None, **changed):
    t = t | changed
    rows = torch.tensor([i for i, n in enumerate(t["lengths"]) for _ in range(n)], dtype=torch.long)
    return TermInputs(
        token_logps(t["logits"], t["targets"]),
        rows,
        len(t["lengths"]),
        logits=t["logits"],
        ref_logits=t["ref_logits"],
        all_logits=t["all_logits"],
        all_ref_logits=t["all_ref_logits"],
        targets=t["targets"],
        all_targets=t["all_targets"],
        hidden={1: t["hidden"]},
        ref_hidden={1: t["ref_hidden"]},
        counts=counts,
    )


def cross_entropy(target_logits, logits):
    return -math.fsum(math.exp(q) * p for q, p in zip(log_softmax(target_logits), log_softmax(logits)) if q > -math.inf)


def lowered(logits, target, beta):
    return [z - beta * (v == target) for v, z in enumerate(logits)]


def without(logits, target):
    return [-1e30 if v == target else z for v, z in enumerate(logits)]


def token_losses(term, t):
    """The loss of every answer token, written out in floats; CE-U and SimNPO apart."""
    logits, ref, targets = t["logits"].double().tolist(), t["ref_logits"].double().tolist(), t["targets"].tolist()
    logps = [log_softmax(z)[y] for z, y in zip(logits, targets)]
    if isinstance(term, WGA):
        return [math.exp(logp) ** term.beta * logp for logp in logps]
    if isinstance(term, SatImp):
        return [math.exp(p) ** term.beta1 * (1 - math.exp(p)) ** term.beta2 * p for p in logps]
    if isinstance(term, UNDIAL):
        return [cross_entropy(lowered(r, y, term.beta), z) for z, r, y in zip(logits, ref, targets)]
    hidden = t["hidden"].double().tolist()
    target = t["ref_hidden"].double().tolist()
    if isinstance(term, RMU):
        target = [[term.steering * x for x in control_vector(WIDTH, term.seed).tolist()]] * len(hidden)
    return [sum((a - b) ** 2 for a, b in zip(h, g)) / WIDTH for h, g in zip(hidden, target)]


def expected(term, t):
    ends = np.cumsum([0, *t["lengths"]]).tolist()
    rows = [range(a, b) for a, b in pairwise(ends) if b > a]
    if not rows:
        return 0.0
    if isinstance(term, SimNPO):
        logps = [log_softmax(z)[y] for z, y in zip(t["logits"].double().tolist(), t["targets"].tolist())]
        nll = [-sum(logps[i] for i in row) / len(row) for row in rows]
        return sum(2 / term.beta * math.log1p(math.exp(-term.beta * (x - term.delta))) for x in nll) / len(nll)
    if isinstance(term, CEU):
        kept = [i for row in rows for i in list(row)[term.skip_first :]]
        z, y = t["logits"].double().tolist(), t["targets"].tolist()
        return sum(cross_entropy(without(z[i], y[i]), z[i]) for i in kept) / max(len(kept), 1)
    losses = token_losses(term, t)
    if isinstance(term, (RMU, EmbedDiff)):  # each row counts once
        return sum(sum(losses[i] for i in row) / len(row) for row in rows) / len(rows)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("term", NEW, ids=str)
@settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 10_000))
def test_equals_float64_recomputation(term, lengths, seed):
    t = make(lengths, seed)
    assert term(inputs_of(t)).item() == pytest.approx(expected(term, t), rel=1e-9, abs=1e-9)


FAITHFUL = [
    SimNPO(faithful=OPEN),
    WGA(faithful=OPEN),
    SatImp(faithful=OPEN),
    CEU(faithful=OPEN),
    UNDIAL(faithful=OPEN),
    RMU(layer=1, faithful=OPEN),
    EmbedDiff(layer=1, faithful=OPEN),
]


@pytest.mark.parametrize("term", NEW + FAITHFUL, ids=str)
@pytest.mark.parametrize("lengths", [[3, 0, 4], [1], [0], [0, 0], [1, 1, 1]], ids=str)
def test_float32_with_empty_and_one_token_answers(term, lengths):
    t = make(lengths, seed=1, dtype=torch.float32)
    names = ["logits", "all_logits", "hidden"]
    value = term(inputs_of(t, **{name: t[name].requires_grad_() for name in names}))
    assert value.dtype == torch.float32 and value.isfinite()
    if not term.faithful:
        assert value.item() == pytest.approx(expected(term, t), rel=1e-5, abs=1e-5)
    grads = torch.autograd.grad(value, [t[name] for name in names], allow_unused=True)
    assert any(g is not None for g in grads) and all(g.isfinite().all() for g in grads if g is not None)


@pytest.mark.parametrize("chunk", [2**22, 3 * VOCAB], ids=["one chunk", "checkpointed chunks"])
@pytest.mark.parametrize("term", [*NEW[:2], UNDIAL(), UNDIAL(faithful=OPEN), *NEW[-3:], *FAITHFUL[-2:]], ids=str)
def test_gradcheck(monkeypatch, term, chunk):
    monkeypatch.setattr(inputs, "_CHUNK_ELEMENTS", chunk)
    t = make([2, 0, 3], seed=2, width=4)

    def loss(*tensors):
        return term(inputs_of(t, **dict(zip(("logits", "all_logits", "hidden"), tensors))))

    tensors = [t[name].requires_grad_() for name in ("logits", "all_logits", "hidden")]
    assert torch.autograd.gradcheck(loss, tensors, fast_mode=True)


@pytest.mark.parametrize("term", [*NEW[2:6], WGA(faithful=OPEN), SatImp(faithful=OPEN)], ids=str)
def test_the_weights_of_an_ascent_are_constants_for_the_gradient(term):
    t = make([2, 4], seed=3)
    logits = t["logits"].requires_grad_()
    inputs = inputs_of(t)
    (found,) = torch.autograd.grad(term(inputs), logits, retain_graph=True)
    p = inputs.token_logps.detach().exp()
    weights = p**term.beta if isinstance(term, WGA) else p**term.beta1 * (1 - p) ** term.beta2
    (by_hand,) = torch.autograd.grad((weights * inputs.token_logps).sum() / 6, logits)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("skip", [False, True])
def test_the_target_of_ceu_is_a_constant_for_the_gradient(skip):
    t = make([2, 1, 3], seed=4)
    logits = t["logits"].requires_grad_()
    (found,) = torch.autograd.grad(CEU(skip_first=skip)(inputs_of(t)), logits)
    target = logits.detach().scatter(1, t["targets"][:, None], -math.inf).softmax(-1)
    by_hand = (logits.detach().softmax(-1) - target) / (3 if skip else 6)
    if skip:
        by_hand[[0, 2, 3]] = 0  # the first token of each answer
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("term", NEW, ids=str)
def test_micro_batches_sum_to_the_whole(term):
    lengths = [3, 1, 6, 0, 2]
    t = make(lengths, seed=5)
    whole = inputs_of(t)
    owner = whole.rows
    total = 0.0
    for chosen in ([0, 1, 2], [3, 4]):
        keep = torch.isin(owner, torch.tensor(chosen))
        part = {name: t[name][keep] for name in ("logits", "ref_logits", "hidden", "ref_hidden", "targets")}
        total += term(inputs_of(t | part, whole.counts, lengths=[lengths[i] for i in chosen]))
    assert total.item() == pytest.approx(term(whole).item(), rel=1e-12)


def test_limits():
    inputs = inputs_of(make([3, 5, 2], seed=6))
    assert WGA(beta=0)(inputs) == GA()(inputs) == SatImp(beta1=0, beta2=0)(inputs)
    assert SatImp(beta1=0.7, beta2=0)(inputs) == WGA(beta=0.7)(inputs)
    t = make([3, 5, 2], seed=6)
    t["ref_logits"] = t["logits"].requires_grad_().detach()
    (pull,) = torch.autograd.grad(UNDIAL(beta=1e-9)(inputs_of(t)), t["logits"])
    assert pull.abs().max() < 1e-9
    (push,) = torch.autograd.grad(UNDIAL(beta=50)(inputs_of(t)), t["logits"])
    (ceu,) = torch.autograd.grad(CEU(skip_first=False)(inputs_of(t)), t["logits"])
    torch.testing.assert_close(push, ceu)  # at the reference, a strong UNDIAL and CE-U want the same


@pytest.mark.parametrize(
    "term", [SimNPO(faithful=OPEN), WGA(faithful=OPEN), SatImp(faithful=OPEN), CEU(faithful=OPEN)], ids=str
)
def test_faithful_is_the_mean_of_micro_batch_means(term):
    t = make([2, 6], seed=7)
    right = type(term)()
    assert term(inputs_of(t)).item() == pytest.approx(right(inputs_of(t)).item())
    counts = {"tokens": 100, "rows": 50, "sequences": 50, "microbatches": 4}
    assert term(inputs_of(t, counts)).item() == pytest.approx(right(inputs_of(t)).item() / 4)


def rmu_example(per_token, lengths):
    rows = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)])
    errors = torch.tensor(per_token, dtype=torch.float64)[rows]
    return TermInputs(
        None, rows, len(lengths), hidden={7: errors.sqrt()[:, None]}, ref_hidden={7: torch.zeros(len(rows), 1)}
    )


def test_the_published_rmu_is_a_square_matrix():
    inputs = rmu_example([6.0, 10.0, 10.0], [2, 3, 6])
    assert EmbedDiff(faithful=OPEN)(inputs).item() == pytest.approx(11.33, abs=0.005)
    assert EmbedDiff()(inputs).item() == pytest.approx(26 / 3)  # the paper: mean of the rows' means
    even = rmu_example([6.0, 10.0, 10.0], [4, 4, 4])
    assert EmbedDiff(faithful=OPEN)(even).item() == pytest.approx(EmbedDiff()(even).item())


def test_the_published_undial_averages_over_prompt_and_padding_and_lowers_one_entry():
    lengths, width, beta = [2, 3], 9, 10.0
    t = make(lengths, seed=8, width=width)
    z = t["all_logits"].tolist()
    ref, targets = t["all_ref_logits"].tolist(), t["all_targets"].tolist()
    losses = [
        cross_entropy(lowered(ref[i], y if y >= 0 else VOCAB - 100, beta), z[i])
        for i, y in enumerate(targets)
        if i % width != width - 1
    ]
    value = UNDIAL(faithful=OPEN)(inputs_of(t))
    assert len(losses) == 16 and value.item() == pytest.approx(sum(losses) / 16)
    t["all_ref_logits"] = t["all_logits"].requires_grad_().detach()
    (push,) = torch.autograd.grad(UNDIAL(faithful=OPEN)(inputs_of(t)), t["all_logits"])
    push = push.view(2, width, VOCAB)
    assert (push[0, :6].argmax(-1) == VOCAB - 100).all() and (
        push[0, :6, VOCAB - 100] > 0
    ).all()  # a prompt: trained away
    assert (push[:, -1] == 0).all()


def test_a_long_row_weighs_as_much_as_a_short_one_in_rmu():
    """Rows of 2, 12, 25 and 6 tokens: the paper's mean over rows, and the published square matrix."""
    lengths = [2, 12, 25, 6]
    t = make(lengths, seed=11, width=30)
    for term in (RMU(layer=1), EmbedDiff(layer=1)):
        losses = np.array(token_losses(term, t))
        rows = np.split(losses, np.cumsum(lengths)[:-1])
        published = type(term)(layer=1, faithful=OPEN)(inputs_of(t)).item()
        assert term(inputs_of(t)).item() == pytest.approx(np.mean([row.mean() for row in rows]))
        assert published == pytest.approx(np.mean([[row.sum() / n for row in rows] for n in lengths]))
        assert abs(term(inputs_of(t)).item() - losses.mean()) > 1e-3 and published > 2 * losses.mean()


def test_rows_of_rmu_count_over_all_micro_batches():
    lengths = [2, 12, 25, 6]
    t = make(lengths, seed=12, width=30)
    counts = inputs_of(t).counts
    ends, total, names = np.cumsum([0, *lengths]), 0.0, ("logits", "ref_logits", "hidden", "ref_hidden", "targets")
    for first, last in ((0, 1), (1, 4)):
        part = {key: t[key][ends[first] : ends[last]] for key in names}
        total += EmbedDiff(layer=1)(inputs_of(t | part | {"lengths": lengths[first:last]}, counts)).item()
    assert total == pytest.approx(EmbedDiff(layer=1)(inputs_of(t)).item()) and EmbedDiff().unit == "sequences"
