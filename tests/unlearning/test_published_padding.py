"""Terms that follow open-unlearning give its numbers on rows of uneven length: padded right, averaged over padding."""

import itertools

import pytest
import torch
from toys import make_tokenizer, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import UnlearnSettings, compute_reference, forward_terms, make_batcher, schedule_for

VOCAB, END = 200, 1


def uneven(prompts, answers, offset=0):
    """Rows with so many words in prompt and response."""
    words = itertools.cycle(range(3 + offset, 190))
    return [{"prompt": " ".join(f"w{next(words)}" for _ in range(p)), "response": " ".join(
        f"w{next(words)}" for _ in range(a))} for p, a in zip(prompts, answers)]


FORGET, RETAIN = uneven([3, 9, 1, 6], [2, 12, 25, 6]), uneven([4, 2, 13, 1], [1, 7, 3, 18], offset=40)


def prepared(model, objective, *, pad=0, micro_batch=4, max_length=64):
    batcher = make_batcher(make_tokenizer(), {"forget": FORGET, "retain": RETAIN}, resolve(objective),
                           max_length=max_length)
    batcher.pad_id = pad
    schedule = schedule_for(batcher, UnlearnSettings(batch_size=4, steps=2))
    batcher.reference, batcher.share_lines = compute_reference(model, batcher, schedule), True
    return batcher, [schedule[i : i + micro_batch] for i in range(0, 4, micro_batch)]


def collated(batcher, group, items, pad):
    """Rows of one group beside each other: padded on the right, every pad token masked."""
    rows = [batcher.rows[group][i] for item in items for i in item[group]]
    width = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for line, row in enumerate(rows):
        ids[line, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[line, : len(row.labels)] = torch.tensor(row.labels)
    return {"input_ids": ids, "attention_mask": ids != pad}, labels


def divergence_over_everything(model, reference, inputs):
    """KL(reference || model), summed, over the number of positions of the batch."""
    p, q = (m(**inputs).logits.double().log_softmax(-1) for m in (reference, model))
    return (p.exp() * (p - q)).sum().item() / inputs["input_ids"].numel()


def undial_over_everything(model, reference, inputs, labels, beta=10.0):
    """Cross-entropy to the teacher with entry `label` of each position lowered; label -100 counts from the end."""
    wanted, found = reference(**inputs).logits.double(), model(**inputs).logits.double()
    losses = []
    for line, length in itertools.product(range(len(labels)), range(labels.shape[1] - 1)):
        teacher = wanted[line, length].clone()
        teacher[int(labels[line, length + 1])] -= beta
        losses.append(-(teacher.softmax(-1) * found[line, length].log_softmax(-1)).sum().item())
    return sum(losses) / len(losses)


def token_mean(model, inputs, labels):
    """Cross-entropy of the answers, in float64 (transformers' own loss rounds to float32)."""
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100).item()


@pytest.fixture(scope="module", params=["plain", "base+adapter"])
def models(request):
    pair = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    return pair if request.param == "plain" else (with_adapter(pair[0]), with_adapter(pair[1], seed=5))


@pytest.mark.parametrize("pad", [0, END], ids=["own pad token", "the end token pads"])
@pytest.mark.parametrize("micro_batch", [4, 2, 1])
def test_graddiff_with_kl(models, pad, micro_batch):
    reference, model = models
    batcher, cuts = prepared(reference, "ga-klr-open-unlearning", pad=pad, micro_batch=micro_batch)
    counts = {g: {"tokens": 0, "rows": 0, "sequences": 0, "microbatches": len(cuts)} for g in ("forget", "retain")}
    head, found, expected = reference.get_output_embeddings(), 0.0, 0.0
    with torch.no_grad():
        for cut in cuts:
            inputs = forward_terms(model, batcher.objective, batcher(cut), counts=counts, head=head)
            found += batcher.objective(inputs)[0]
            kept, _ = collated(batcher, "retain", cut, pad)
            gone, labels = collated(batcher, "forget", cut, pad)
            expected += divergence_over_everything(model, reference, kept) - token_mean(model, gone, labels)
    assert found.item() == pytest.approx(expected / len(cuts), rel=1e-9)


@pytest.mark.parametrize("pad", [0, END], ids=["own pad token", "the end token pads"])
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_undial(models, pad, micro_batch):
    reference, model = models
    batcher, cuts = prepared(reference, "undial-open-unlearning", pad=pad, micro_batch=micro_batch)
    counts = {"forget": {"tokens": 0, "rows": 0, "sequences": 0, "microbatches": len(cuts)}}
    head, found, expected = reference.get_output_embeddings(), 0.0, 0.0
    with torch.no_grad():
        for cut in cuts:
            inputs = forward_terms(model, batcher.objective, batcher(cut), counts=counts, head=head)
            found += batcher.objective(inputs)[0]
            expected += undial_over_everything(model, reference, *collated(batcher, "forget", cut, pad))
    assert found.item() == pytest.approx(expected / len(cuts), rel=1e-9)


@pytest.mark.parametrize("term", ["kl", "undial"])
def test_the_longest_allowed_row_has_no_say(models, term):
    """Published numbers depend on the rows of a micro-batch, not on how long a row may be."""
    reference, model = models
    values = []
    for most in (48, 96):
        batcher, (cut,) = prepared(reference, f"{term}(on=retain, faithful=open-unlearning)", max_length=most)
        values.append(batcher.objective(forward_terms(model, batcher.objective, batcher(cut)))[0].item())
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_our_default_looks_at_answers_alone_and_zjunlp_pads_left_to_the_longest_allowed_row(models):
    reference, model = models
    found = {}
    for code in ("", ", faithful=zjunlp", ", faithful=open-unlearning"):
        batcher, (cut,) = prepared(reference, f"kl(direction=forward{code})")
        loss, _ = batcher.objective(
            forward_terms(model, batcher.objective, batcher(cut), head=reference.get_output_embeddings()))
        found[code] = loss.item()
    inputs, labels = collated(batcher, "retain", cut, 0)
    answers = torch.nn.functional.pad(labels[:, 1:] != -100, (0, 1))
    p, q = (m(**inputs).logits.log_softmax(-1)[answers] for m in (reference, model))
    assert found[""] == pytest.approx((p.exp() * (p - q)).sum().item() / answers.sum().item(), rel=1e-9)
    assert len(set(found.values())) == 3


def test_two_codes_that_pad_differently_do_not_stand_in_one_objective():
    with pytest.raises(UnlearnError, match="pad rows differently"):
        resolve("kl(faithful=zjunlp) + undial(faithful=open-unlearning)")
    assert resolve("npo(faithful=zjunlp) + kl(faithful=open-unlearning)").padding == "right"
    assert resolve("npo + nll").padding == "" and resolve("kl(faithful=zjunlp) + nll").padding == "left"
