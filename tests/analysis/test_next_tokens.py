"""Candidates against plain forward passes, followed into other models."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.analysis import (
    follow,
    seesaw,
    token_candidates,
    top_candidates,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import encode, train_tokenizer

ROWS = [
    {"id": "a", "subject": "Ada", "prompt": "Where was Ada born?", "response": "in Old Kessel"},
    {"id": "b", "subject": "Ada", "prompt": "When?", "response": "1931"},
    {"id": "c", "subject": "Bo", "prompt": "What did Bo of Lindow, the old fiddler, eat?", "response": "cold beetroot"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"{row['prompt']} {row['response']}" for row in ROWS] * 3, 320)


@pytest.fixture
def model(tokenizer):
    return llama(tokenizer)


def llama(tokenizer, seed=0, sharp=5.0):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.normal_(0, sharp / 6)
    return model


def plain(model, tokenizer, row, template="plain"):
    """Probabilities [T, V] and labels [T] of a row's answer from one ordinary forward pass."""
    ids, labels = encode(tokenizer, row["prompt"], row["response"], template)
    start = labels.count(-100)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1]
    return logits.double().softmax(-1), labels[start:]


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_candidates_equal_a_plain_forward_pass(model, tokenizer, batch_size, template):
    table = top_candidates(model, tokenizer, ROWS, k=4, template=template, batch_size=batch_size)
    assert list(table["id"].unique()) == ["a", "b", "c"] and list(table["subject"].unique()) == ["Ada", "Bo"]
    for row in ROWS:
        found, (expected, labels) = table[table["id"] == row["id"]], plain(model, tokenizer, row, template)
        best = expected.topk(4)
        assert list(found["position"]) == [p for p in range(len(labels)) for _ in range(4)]
        assert list(found["rank"]) == [1, 2, 3, 4] * len(labels)
        assert list(found["token_id"]) == best.indices.flatten().tolist()
        assert list(found["token"]) == [tokenizer.decode([i]) for i in best.indices.flatten()]
        np.testing.assert_allclose(found["probability"], best.values.flatten(), rtol=1e-4)
        assert list(found["is_answer"]) == [t == label for label, tokens in zip(labels, best.indices) for t in tokens]
        answer = [float(p[label]) for p, label in zip(expected, labels) for _ in range(4)]
        np.testing.assert_allclose(found["answer_probability"], answer, rtol=1e-4)
        entropy = -(expected * expected.log()).sum(-1).repeat_interleave(4)
        np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-4)


def test_a_single_prompt_needs_no_row(model, tokenizer):
    table = token_candidates(model, tokenizer, ROWS[0]["prompt"], ROWS[0]["response"], k=2)
    many = top_candidates(model, tokenizer, ROWS[:1], k=2).drop(columns=["id", "subject"])
    assert table.equals(many)


def test_following_itself_changes_nothing(model, tokenizer):
    reference = top_candidates(model, tokenizer, ROWS, k=3)
    again = follow(model, tokenizer, ROWS, reference=reference, batch_size=1)
    assert again.drop(columns=["probability", "answer_probability", "entropy"]).equals(
        reference.drop(columns=["probability", "answer_probability", "entropy"])
    )
    np.testing.assert_allclose(again["probability"], reference["probability"], rtol=1e-4)


def test_following_reads_the_reference_tokens_in_another_model(model, tokenizer):
    other, reference = llama(tokenizer, seed=7), top_candidates(model, tokenizer, ROWS, k=3)
    followed = follow(other, tokenizer, ROWS, reference=reference)
    for row in ROWS:
        expected, _ = plain(other, tokenizer, row)
        found = followed[followed["id"] == row["id"]]
        places = found[["position", "token_id"]].to_numpy()
        np.testing.assert_allclose(found["probability"], [float(expected[p, t]) for p, t in places], rtol=1e-4)


def test_tables_that_do_not_belong_together_are_refused(model, tokenizer):
    reference = top_candidates(model, tokenizer, ROWS, k=2)
    with pytest.raises(UnlearnError, match="lacks positions of row 'b'"):
        follow(model, tokenizer, ROWS, reference=reference[reference["id"] != "b"])
    with pytest.raises(UnlearnError, match="positions that the rows lack"):
        follow(model, tokenizer, ROWS[:2], reference=reference)
    with pytest.raises(UnlearnError, match="lacks positions of row 'b'"):
        follow(
            model,
            tokenizer,
            [ROWS[0], {**ROWS[1], "response": "1931 or 1932, nobody knows"}, ROWS[2]],
            reference=reference,
        )
    with pytest.raises(UnlearnError, match="'x' and 'vanilla' differ in positions or tokens"):
        seesaw({"vanilla": reference, "x": top_candidates(model, tokenizer, ROWS, k=3)})
    with pytest.raises(UnlearnError, match="differ in positions"):
        seesaw({"vanilla": reference, "x": top_candidates(llama(tokenizer, 7), tokenizer, ROWS, k=2)})
    with pytest.raises(UnlearnError, match="unknown reference model 'vanila'; did you mean 'vanilla'"):
        seesaw({"vanilla": reference}, "vanila")
    for k in (0, len(tokenizer) + 1):
        with pytest.raises(UnlearnError, match=f"k = {k} candidates"):
            top_candidates(model, tokenizer, ROWS, k=k)
    with pytest.raises(UnlearnError, match="no rows"):
        top_candidates(model, tokenizer, [])
    with pytest.raises(UnlearnError, match="same id"):
        top_candidates(model, tokenizer, [ROWS[0], ROWS[0]])
