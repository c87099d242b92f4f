"""The Jensen-Shannon term: against float loops, its bounds, the places of a text's tokens, the published first code."""

import math

import pytest
import torch
from toys import log_softmax, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import JSD, TermInputs, inputs, resolve
from unlearn_nb.unlearning import UnlearnSettings, forward_terms, make_batcher, unlearn

VOCAB = 40
TEXT = "jsd(on=forget, to='w7 w9')"


def some(seed=0, rows=(0, 0, 1, 2, 2, 2), scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits, ref = scale * torch.randn(2, len(rows), VOCAB, generator=generator, dtype=torch.float64)
    return TermInputs(None, rows=torch.tensor(rows), n_rows=max(rows) + 1, logits=logits, ref_logits=ref)


def divergence(p, q):
    """Jensen-Shannon divergence of two lists of probabilities, by its definition."""
    middle = [(a + b) / 2 for a, b in zip(p, q)]
    return sum(a * math.log(a / m) for side in (p, q) for a, m in zip(side, middle) if a) / 2


def probabilities(row):
    return [math.exp(x) for x in log_softmax(row)]


def test_both_kinds_equal_plain_loops():
    given = some()
    rows = [probabilities(row) for row in given.logits.tolist()]
    refs = [probabilities(row) for row in given.ref_logits.tolist()]
    wanted = sum(divergence(p, q) for p, q in zip(rows, refs)) / 6
    assert math.isclose(float(JSD()(given)), wanted, rel_tol=1e-10)
    places = [7, 9, 7, 7, 9, 7]  # the text starts anew in each row, and goes round
    peaks = [[float(i == k) for i in range(VOCAB)] for k in places]
    wanted = sum(divergence(p, q) for p, q in zip(rows, peaks)) / 6
    assert math.isclose(float(JSD(on="forget", to="a b", tokens=(7, 9))(given)), wanted, rel_tol=1e-10)


@pytest.mark.parametrize("term", [JSD(), JSD(to="a b", tokens=(7, 9))])
def test_it_is_0_where_both_agree_and_log_2_where_they_share_nothing(term):
    given = some()
    given.logits = torch.full_like(given.logits, -400.0)
    given.logits[range(6), [7, 9, 7, 7, 9, 7]] = 400.0
    given.ref_logits = given.logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value := JSD()(given), given.ref_logits)
    assert abs(value.item()) < 1e-12 and torch.isfinite(slope).all()
    assert abs(float(term(given))) < 1e-12
    given.logits = given.logits.roll(1, -1).requires_grad_()
    (slope,) = torch.autograd.grad(value := term(given), given.logits)
    assert math.isclose(value.item(), math.log(2), rel_tol=1e-12) and torch.isfinite(slope).all()
    for seed in range(5):
        assert 0 < float(term(some(seed, scale=20.0))) <= math.log(2)


@pytest.mark.parametrize("term", [JSD(), JSD(to="a b", tokens=(7, 9))])
def test_chunks_and_micro_batches_add_up(term, monkeypatch):
    whole = some()
    whole.logits.requires_grad_()
    slope, pieces = torch.autograd.grad(term(whole), whole.logits)[0], []
    monkeypatch.setattr(inputs, "_CHUNK_ELEMENTS", VOCAB)
    assert torch.allclose(slope, torch.autograd.grad(term(whole), whole.logits)[0], atol=1e-15)
    for start, stop in ((0, 3), (3, 6)):
        part = TermInputs(None, rows=whole.rows[start:stop] - whole.rows[start], n_rows=2,
                          logits=whole.logits[start:stop], ref_logits=whole.ref_logits[start:stop],
                          counts=whole.counts | {"microbatches": 2})
        pieces.append(float(term(part)))
    assert math.isclose(sum(pieces), float(term(whole)), rel_tol=1e-12)


def published(model, reference, ids, tokens=None):
    """The lines of the first published code, on ids [B, L] padded right."""
    mask = (ids != 0).long()
    p = model(ids, attention_mask=mask).logits.softmax(-1)
    q = torch.zeros_like(p)
    if tokens is None:
        q = reference(ids, attention_mask=mask).logits.softmax(-1)
    else:
        q[..., tokens] = 1.0
    m = torch.clamp(0.5 * (p + q), min=1e-9)
    p, q = torch.clamp(p, min=1e-9), torch.clamp(q, min=1e-9)
    return 0.5 * ((p * (p.log() - m.log())).sum(-1).mean() + (q * (q.log() - m.log())).sum(-1).mean())


@torch.no_grad()
def test_the_published_first_code_reads_all_positions_and_sums_to_2(tokenizer):
    rows = [{"prompt": "w5 w6", "response": "w7 w8 w9"}, {"prompt": "w5", "response": "w11"}]
    objective = resolve("jsd(on=forget, to='w7 w9', faithful=nmndeep) + jsd(faithful=nmndeep)")
    batcher = make_batcher(tokenizer, {"forget": rows, "retain": rows}, objective)
    model, reference = tiny(), tiny(seed=1)
    batch = batcher([{"forget": [0, 1], "retain": [0, 1]}])
    ids = batch["input_ids"][:2]
    inputs_of = forward_terms(model, batcher.objective, batch)
    hidden = reference.model(ids, attention_mask=(ids != 0).long()).last_hidden_state.flatten(0, 1)
    inputs_of["retain"].all_ref_logits = reference.lm_head(hidden)
    forget, retain = batcher.objective(inputs_of)[1].values()
    assert (ids == 0).any() and len(inputs_of["forget"].all_logits) == ids.numel()  # padding counts
    assert math.isclose(float(forget), float(published(model, reference, ids, [7, 9])), rel_tol=1e-5)
    assert math.isclose(float(retain), float(published(model, reference, ids)), rel_tol=1e-4)


def test_training_makes_the_text_likely(tokenizer, tmp_path):
    rows = [{"prompt": f"w{i} w6", "response": "w17 w18 w19"} for i in range(20, 24)]
    model = tiny()

    def value():
        batcher = make_batcher(tokenizer, {"forget": rows}, resolve(TEXT))
        with torch.no_grad():
            terms = forward_terms(model, batcher.objective, batcher([{"forget": [0, 1, 2, 3]}]))
            return float(batcher.objective(terms)[0])

    before = value()
    settings = UnlearnSettings(method="full", lr=5e-3, steps=30, batch_size=4, max_length=16)
    history = unlearn(model, tokenizer, rows, rows, f"{TEXT} + 0.01*jsd", settings=settings, out=tmp_path / "out",
                      progress=False)
    assert value() < 0.7 * before and list(history.frame.filter(like="jsd")) == ["jsd_1", "jsd_2"]
    assert history.frame["jsd_1"].max() <= math.log(2) + 1e-6


def test_a_limit_on_it_knows_the_tokens_too(tokenizer):
    objective = resolve("ga + constraint(eps=0.1, term=\"jsd(on=forget, to='w7 w9')\")").for_tokenizer(tokenizer)
    assert objective.parts[1][1].inner.tokens == (7, 9) and str(objective) == str(resolve(str(objective)))


def test_what_can_not_be_written_is_refused(tokenizer):
    for text, message in [("jsd(to='No idea')", "no tokens for 'No idea'"), ("jsd(to=' ')", "no tokens for ' '")]:
        with pytest.raises(UnlearnError, match=message):
            resolve(text).for_tokenizer(tokenizer)
    with pytest.raises(UnlearnError, match="must be a text"):
        resolve("jsd(to=3)")
    with pytest.raises(UnlearnError, match="not known here"):
        JSD(to="w7")(some())
