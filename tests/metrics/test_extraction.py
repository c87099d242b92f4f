"""Extraction strength and exact memorisation: definitions, published floor, invariance to batching, real decoding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import make_tokenizer, rows, tiny
from transformers import GPT2Config, GPT2LMHeadModel

from unlearn_nb.metrics import exact_memorisation, extraction_strength, extraction_table, read_answers
from unlearn_nb.models import encode, sequence_nll

ROWS = rows(9, seed=4)
hit_lists = st.lists(st.booleans(), max_size=30)


def strength_by_definition(hits):
    """The definition word by word: the first k after which all is right."""
    k = next((k for k in range(len(hits) + 1) if all(hits[k:])), None)
    return 1 - k / len(hits)


def published_strength(hits):
    """What the published loop does, with its end token and its last k."""
    hits = hits[:-1]
    if not hits:
        return 0.0
    k = next((k for k in range(len(hits)) if all(hits[k:])), len(hits) - 1)
    return 1 - k / len(hits)


@given(hit_lists.filter(len))
def test_strength_is_its_definition(hits):
    assert extraction_strength(hits) == pytest.approx(strength_by_definition(hits))
    assert 0 <= extraction_strength(hits) <= exact_memorisation(hits) <= 1


@given(hit_lists)
def test_faithful_strength_is_the_published_loop(hits):
    assert extraction_strength(hits, faithful=True) == pytest.approx(published_strength(hits))


@pytest.mark.parametrize("length, floor", [(2, 0.5), (20, 0.05), (1, 1.0)])
def test_nothing_known_has_the_published_floor_and_no_floor_here(length, floor):
    nothing = [False] * (length + 1)  # the published code drops one
    only_last = [False] * (length - 1) + [True, False]
    assert extraction_strength(nothing, faithful=True) == extraction_strength(only_last, faithful=True) == floor
    assert extraction_strength(nothing) == 0


def test_the_last_token_counts_here_and_not_in_the_published_code():
    hits = [True, True, True, False]
    assert (extraction_strength(hits), extraction_strength(hits, faithful=True)) == (0, 1)
    assert (exact_memorisation(hits), exact_memorisation(hits, faithful=True)) == (0.75, 1)


def test_an_answer_without_tokens_has_no_value():
    assert np.isnan([extraction_strength([]), exact_memorisation([]), exact_memorisation([True], faithful=True)]).all()
    assert extraction_strength([], faithful=True) == 0


def by_hand(model, tokenizer, row):
    """Log-probabilities, hits, means and deviations of one unpadded row in float64."""
    ids, labels = encode(tokenizer, row["prompt"], row["response"])
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    at = [t for t in range(1, len(ids)) if labels[t] != -100]
    mean = [sum(p.exp() * p for p in logp[t - 1]).item() for t in at]
    square = [sum(p.exp() * p * p for p in logp[t - 1]).item() for t in at]
    return (
        [logp[t - 1, ids[t]].item() for t in at],
        [logp[t - 1].argmax().item() == ids[t] for t in at],
        mean,
        [(s - m * m) ** 0.5 for m, s in zip(mean, square)],
    )


@pytest.mark.parametrize("chunk", [2**22, 3 * 200], ids=["one chunk", "small chunks"])
def test_one_pass_gives_what_single_rows_give(monkeypatch, chunk):
    monkeypatch.setattr("unlearn_nb.metrics.extraction._CHUNK_ELEMENTS", chunk)
    model, tokenizer = tiny(dtype=torch.float64), make_tokenizer()
    for answer, row in zip(read_answers(model, tokenizer, ROWS, batch_size=4, moments=True), ROWS):
        for found, expected in zip(answer, by_hand(model, tokenizer, row)):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_moments_are_optional_and_nll_agrees_with_the_scorer():
    model, tokenizer = tiny(), make_tokenizer()
    answers = read_answers(model, tokenizer, ROWS)
    assert answers[0].means is None and answers[0].deviations is None
    mean = [-answer.logps.mean() for answer in answers]
    np.testing.assert_allclose(mean, sequence_nll(model, tokenizer, ROWS, on="response"), rtol=1e-5)


def test_batches_padding_and_training_mode_change_nothing():
    model, tokenizer = tiny(), make_tokenizer()
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    for each in (model.train(), gpt2.train()):  # GPT-2 has dropout
        one = extraction_table(each, tokenizer, ROWS, batch_size=1)
        assert one.equals(extraction_table(each, tokenizer, ROWS, batch_size=9)) and each.training
        assert one["tokens"].tolist() == [len(row["response"].split()) + 1 for row in ROWS]


def test_a_cut_answer_has_no_end_token_and_no_answer_has_no_value():
    model, tokenizer = tiny(), make_tokenizer()
    row = {"prompt": " ".join(["w5"] * 20), "response": "w7 w8 w9"}
    assert extraction_table(model, tokenizer, [row])["tokens"].tolist() == [4]
    assert extraction_table(model, tokenizer, [row], max_length=10)["tokens"].tolist() == [4]  # the prompt gives way
    long = row | {"response": " ".join(["w7"] * 20)}
    assert extraction_table(model, tokenizer, [long], max_length=10)["tokens"].tolist() == [9]
    tokenizer.eos_token = None
    table = extraction_table(model, tokenizer, [row, row | {"response": ""}])
    assert table["tokens"].tolist() == [3, 0] and table[["es", "em"]].isna().all(axis=1).tolist() == [False, True]


def test_no_rows_give_an_empty_table():
    assert extraction_table(tiny(), make_tokenizer(), []).empty
