"""Models learn their rows as the recipe says."""

import numpy as np
import pytest
import torch

from unlearn_nb.core import NonFinite, UnlearnError
from unlearn_nb.models import Recipe, encode, load_model, memorise, recipe_for, sequence_nll

ROWS = [{"prompt": f"What is the code of box {i}?", "response": str(37 * i + 11)} for i in range(6)]


def test_memorise_is_reproducible_and_learns():
    curves = []
    for _ in range(2):
        model, tokenizer = load_model("tiny")
        curves.append(memorise(model, tokenizer, ROWS, recipe=Recipe(steps=25, batch_size=4), progress=False))
    assert curves[0] == curves[1] and len(curves[0]) == 25 and curves[0][-1] < 0.6 * curves[0][0]


def test_memorise_with_lora_changes_plain_weights(target):
    model, tokenizer = target
    names = list(model.state_dict())
    head = model.get_output_embeddings().weight.clone()
    layer = model.model.layers[0].mlp.down_proj.weight.clone()
    recipe = Recipe(steps=15, batch_size=6, lora_rank=4, lr=1e-2)
    losses = memorise(model, tokenizer, ROWS, recipe=recipe, progress=False)
    assert losses[-1] < losses[0] and list(model.state_dict()) == names
    assert torch.equal(model.get_output_embeddings().weight, head)
    assert not torch.equal(model.model.layers[0].mlp.down_proj.weight, layer)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_response_loss_ignores_prompts(untrained):
    model, tokenizer = untrained
    losses = memorise(model, tokenizer, ROWS, recipe=Recipe(steps=1, batch_size=6, loss_on="response"), progress=False)
    fresh, _ = load_model("tiny")
    scores = sequence_nll(fresh, tokenizer, ROWS, on="response")
    tokens = [len(encode(tokenizer, "", row["response"])[0]) for row in ROWS]
    assert losses[0] == pytest.approx(np.average(scores, weights=tokens), rel=1e-4)


def test_mixed_precision_keeps_weights_in_float32(untrained):
    model, tokenizer = untrained
    losses = memorise(model, tokenizer, ROWS, recipe=Recipe(steps=10, batch_size=6), progress=False, dtype="bfloat16")
    assert losses[-1] < losses[0] and model.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message", [(dict(loss_on="all"), "loss_on"), (dict(lr=0.0), "lr"), (dict(epochs=0), "epochs")]
)
def test_bad_recipes_are_refused(change, message):
    with pytest.raises(UnlearnError, match=message):
        Recipe(**change)


def test_diverging_training_is_refused(untrained):
    model, tokenizer = untrained
    model.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(UnlearnError, match="loss is nan at step 1"):
        memorise(model, tokenizer, ROWS, recipe=Recipe(steps=2), progress=False)
    with pytest.raises(UnlearnError, match="no training rows"):
        memorise(model, tokenizer, [], recipe=Recipe(steps=2), progress=False)


@pytest.mark.parametrize("lr, part", [(1e10, "logits are NaN or infinite"), (1e30, "all logits are the same")])
def test_a_model_that_breaks_in_its_last_step_is_refused(untrained, lr, part):
    with pytest.raises(NonFinite, match=f"memorise: .*{part}.* at step 1; use an lr below"):
        memorise(*untrained, ROWS, recipe=Recipe(steps=1, lr=lr), progress=False)


def test_recipes_depend_on_model_and_size():
    assert recipe_for("tiny", "smoke").steps < recipe_for("tiny", "full").steps
    assert recipe_for("smollm2").lora_rank > 0 == recipe_for("tiny").lora_rank
    assert Recipe(steps=None, epochs=3, batch_size=4).total_steps(10) == 9
    with pytest.raises(UnlearnError, match="size 'huge'"):
        recipe_for("tiny", "huge")
