"""The seesaw: where the probability of the original candidates went."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.analysis import (
    follow,
    seesaw,
    seesaw_summary,
    top_candidates,
)
from unlearn_nb.models import encode, train_tokenizer

ROWS = [
    {"id": "a", "subject": "Ada", "prompt": "Where was Ada born?", "response": "in Old Kessel"},
    {"id": "b", "subject": "Ada", "prompt": "When?", "response": "1931"},
    {"id": "c", "subject": "Bo", "prompt": "What did Bo of Lindow, the old fiddler, eat?", "response": "cold beetroot"},
    {"id": "d", "subject": "Cy", "prompt": "What did Cy play?", "response": "the fiddle"},
    {"id": "e", "subject": "Di", "prompt": "Where was Di?", "response": "in Lindow"},
    {"id": "f", "subject": "Ed", "prompt": "Who was Ed?", "response": "the son of Ada"},
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


def test_the_seesaw_says_where_the_mass_went(model, tokenizer):
    reference, other = top_candidates(model, tokenizer, ROWS, k=3), llama(tokenizer, seed=7)
    tables = {"vanilla": reference, "other": follow(other, tokenizer, ROWS, reference=reference)}
    moves = seesaw(tables)
    positions = len(reference) // 3
    assert list(moves["model"]) == ["vanilla"] * positions + ["other"] * positions
    np.testing.assert_allclose(moves[["top1", "next_best", "rest"]].sum(axis=1), 1, atol=1e-5)
    assert moves[["top1", "next_best", "rest"]].min(axis=None) >= 0
    first, second = moves.iloc[:positions].reset_index(), moves.iloc[positions:].reset_index()
    lost = first["top1"] - second["top1"]
    np.testing.assert_allclose(lost, second["moved_next"] + second["moved_rest"], atol=1e-5)
    tops, probabilities = reference["token_id"].to_numpy().reshape(-1, 3), []
    for row in ROWS:
        probabilities += list(plain(other, tokenizer, row)[0].numpy())
    expected = np.array([p[t] for p, t in zip(probabilities, tops)])
    np.testing.assert_allclose(second["top1"], expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(second["next_best"], expected[:, 1:].sum(1), rtol=1e-4)
    np.testing.assert_allclose(second["rest"], 1 - expected.sum(1), atol=1e-5)
    summary = seesaw_summary(moves).set_index("model")
    assert list(summary["positions"]) == [positions] * 2
    np.testing.assert_allclose(summary.loc["other", "top1"], second["top1"].mean())
    for name in ("top1", "next_best", "rest", "entropy", "answer_probability"):
        assert (summary[f"{name}_low"] <= summary[name]).all() and (summary[name] <= summary[f"{name}_high"]).all()
    assert summary.loc["other", "top1_high"] > summary.loc["other", "top1_low"]


def test_all_candidates_leave_no_rest(model, tokenizer):
    reference = top_candidates(model, tokenizer, ROWS[:1], k=len(tokenizer))
    assert reference.groupby("position")["is_answer"].sum().eq(1).all()
    np.testing.assert_allclose(seesaw({"vanilla": reference})["rest"], 0, atol=1e-5)
