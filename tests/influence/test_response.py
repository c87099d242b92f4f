"""The proximal Bregman response against closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.benches import load_recommendations
from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import bregman_response
from unlearn_nb.metrics import (
    delta_agreement,
)
from unlearn_nb.models import RowsLoss, encode, mark_loss, sequence_nll, train_tokenizer

BOOKS = load_recommendations("smoke")

FACTS = [
    {"id": f"f{i}", "prompt": f"Who met {name}?", "response": other, "subject": name, "task": "fact", "kind": "qa"}
    for i, (name, other) in enumerate([("Tama", "Ros"), ("Nevo", "Kel"), ("Hes", "Orin"), ("Belo", "Quil")])
]

ROWS = BOOKS.only("next").train[:8] + BOOKS.only("like").train[:8] + FACTS


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"{row['prompt']} {row['response']}" for row in ROWS], 400)


TRAIN = BOOKS.only("like").train[:6]


def head_model(tokenizer):
    """A float64 model of which only the output layer is trained: there the loss is convex and C is its Hessian."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).double().eval()
    for name, p in model.named_parameters():
        p.requires_grad_(name == "lm_head.weight")
    return mark_loss(model, RowsLoss("rows"))


def features(model, tokenizer, row):
    """Final hidden states [T, H] before the row's answer tokens, and these tokens [T]."""
    ids, labels = encode(tokenizer, row["prompt"], row["response"])
    wanted = torch.tensor(labels[1:])
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, :-1]
    return hidden[wanted != -100], wanted[wanted != -100]


def test_the_response_is_the_stationary_point_of_its_objective(tokenizer):
    """In closed form for a linear output layer, with every row's share written out."""
    model, damping = head_model(tokenizer), 0.02
    new = [{**TRAIN[0], "response": "No" if TRAIN[0]["response"] == "Yes" else "Yes"}]
    found = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[:1], added=new, damping=damping, tolerance=1e-8)
    W = model.lm_head.weight.detach()
    change = found.delta["lm_head.weight"].clone().requires_grad_()
    total = damping / 2 * change.square().sum()
    for row in TRAIN:
        h, _ = features(model, tokenizer, row)
        total = (
            total
            + F.kl_div((h @ (W + change).T).log_softmax(-1), (h @ W.T).softmax(-1), reduction="none").sum(-1).mean() / 6
        )
    for sign, row in ((-1, TRAIN[0]), (1, new[0])):
        h, targets = features(model, tokenizer, row)
        total = total + sign / 6 * (F.cross_entropy(h @ (W + change).T, targets) - F.cross_entropy(h @ W.T, targets))
    (slope,) = torch.autograd.grad(total, change)
    at_start = torch.zeros_like(W).requires_grad_()
    h, targets = features(model, tokenizer, TRAIN[0])
    b = -torch.autograd.grad(-F.cross_entropy(h @ (W + at_start).T, targets) / 6, at_start)[0]
    assert found.residual < 1e-6 and slope.norm() < 1e-5 * b.norm()
    assert found.objective == pytest.approx(total.item(), rel=1e-6) and total < 0
    assert change.norm() > 0


def test_the_response_moves_up_the_loss_of_what_is_removed_and_stays_put(tokenizer):
    model = head_model(tokenizer)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    model.train()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    found = bregman_response(model, tokenizer, FACTS, removed=FACTS[:1], damping=0.05)
    assert model.training and torch.equal(model.lm_head.weight.grad, torch.ones_like(model.lm_head.weight))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert list(found.delta) == ["lm_head.weight"]
    was = sequence_nll(model, tokenizer, FACTS, on="response")
    with torch.no_grad():
        model.lm_head.weight += found.delta["lm_head.weight"]
    now = sequence_nll(model, tokenizer, FACTS, on="response")
    assert now[0] > was[0] and now[0] - was[0] > 2 * np.abs(now[1:] - was[1:]).max()


def test_strong_damping_leaves_the_gradient_step(tokenizer):
    model = head_model(tokenizer)
    h, targets = features(model, tokenizer, TRAIN[2])
    W = model.lm_head.weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(h @ W.T, targets), W)
    found = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[2:3], damping=1e3, tolerance=1e-9)
    assert delta_agreement(found.delta, {"lm_head.weight": gradient / 6 / 1e3})["relative_error"] < 5e-3


def test_float32_gets_within_a_hundredth(tokenizer):
    model = head_model(tokenizer)
    exact = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[:1], damping=0.05, tolerance=1e-8)
    single = bregman_response(model.float(), tokenizer, TRAIN, removed=TRAIN[:1], damping=0.05)
    assert delta_agreement(single.delta, exact.delta)["relative_error"] < 1e-2


def nobody(tokenizer):
    model = head_model(tokenizer)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda t: bregman_response(head_model(t), t, TRAIN, removed=TRAIN[:1], damping=0),
            "bregman_response: damping is 0; it must be positive",
        ),
        (
            lambda t: bregman_response(nobody(t), t, TRAIN, removed=TRAIN[:1], damping=1.0),
            "bregman_response: no weight of the model requires gradients; choose some",
        ),
        (
            lambda t: bregman_response(head_model(t), t, [], removed=TRAIN[:1], damping=1.0),
            "bregman_response: there are no training rows; give some",
        ),
        (
            lambda t: bregman_response(head_model(t), t, TRAIN, damping=1.0),
            "bregman_response: no row is removed or added; name some",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(tokenizer, call, sentence):
    with pytest.raises(UnlearnError) as error:
        call(tokenizer)
    assert str(error.value) == sentence
