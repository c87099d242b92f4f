"""One table: each architecture goes through preflight, unlearning, masks, localizers, merges, edits and scores."""

import copy

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_model
from peft import PromptTuningConfig, get_peft_model

from unlearn_nb.attacks import at_precision
from unlearn_nb.influence import Request, erase
from unlearn_nb.localization import LOCALIZERS, localize, score_units
from unlearn_nb.merging import merge_adapters, merge_into
from unlearn_nb.metrics import evaluate
from unlearn_nb.models import adapted, generate, load_adapter, preflight, sequence_nll, tiny_tokenizer
from unlearn_nb.unlearning import UnlearnSettings, unlearn

ROWS = [{"id": f"r{i}", "prompt": f"Question {i}: who is it? " + "Really? " * i + "Answer:", "subject": f"s{i}",
         "response": f"person number {i} of Lisbon" + " and more" * (i % 3), "task": "all", "kind": "qa",
         "split": ("forget", "retain")[i % 2]} for i in range(8)]
FORGET, RETAIN = ROWS[::2], ROWS[1::2]
STEPS = {"steps": 2, "lr": 1e-2, "batch_size": 2, "lora_r": 4, "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def base(kind, tokenizer):
    return make_model(kind, tokenizer)


@pytest.fixture(scope="module")
def adapters(base, tokenizer, tmp_path_factory):
    """Two adapters trained on the base, the second under a mask."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, mask in {"plain": "", "masked": "memflex"}.items():
        unlearn(base, tokenizer, FORGET, RETAIN, "npo + nll + kl", settings=UnlearnSettings(**STEPS, mask=mask),
                out=folder / name, progress=False)
    return folder


def answers_nll(model, tokenizer, batch_size=8):
    return sequence_nll(model, tokenizer, ROWS, on="response", batch_size=batch_size)


def test_scores_and_answers_do_not_depend_on_the_batch(base, tokenizer):
    np.testing.assert_allclose(answers_nll(base, tokenizer, 1), answers_nll(base, tokenizer, 8), atol=1e-5)
    alone, together = (generate(base, tokenizer, ROWS, batch_size=size, max_new_tokens=12) for size in (1, 8))
    assert alone == together
    checked = preflight(base, tokenizer, ROWS)
    assert "0 of 8 rows are cut" in str(checked) and checked.seconds < 10


def test_the_first_loss_is_that_of_the_model_itself(base, tokenizer, tmp_path):
    """NPO of a model with itself is 2/beta log 2, whatever its own dropout would do."""
    settings = UnlearnSettings(**STEPS | {"steps": 1})
    history = unlearn(base, tokenizer, FORGET, RETAIN, "npo(beta=0.1)", settings=settings, out=tmp_path / "out",
                      progress=False)
    assert history.frame["loss"].iloc[0] == pytest.approx(20 * np.log(2), abs=1e-3)


def test_adapters_unlearn_and_merge_as_in_peft(base, tokenizer, adapters):
    before = answers_nll(base, tokenizer)
    with adapted(copy.deepcopy(base), adapters / "plain") as model:
        inside = answers_nll(model, tokenizer)
    assert np.abs(inside - before).max() > 1e-3
    merged = merge_into(copy.deepcopy(base), adapters / "plain")
    np.testing.assert_allclose(answers_nll(merged, tokenizer), inside, atol=1e-4)
    both = merge_adapters([adapters / "plain", adapters / "masked"], method="ties", density=0.5)
    assert np.isfinite(answers_nll(merge_into(copy.deepcopy(base), both), tokenizer)).all()


def test_full_training_under_a_mask_moves_some_weights_only(base, tokenizer, tmp_path):
    model = copy.deepcopy(base)
    unlearn(model, tokenizer, FORGET, RETAIN, "npo + nll",
            settings=UnlearnSettings(**STEPS, method="full", mask="sure(percentile=90)", weight_decay=0.0),
            out=tmp_path / "out", progress=False)
    moved = [(new != old).float().mean().item() for new, old in zip(model.parameters(), base.parameters())]
    assert 0 < np.mean(moved) < 0.9


@pytest.mark.parametrize("method", ["activations", "gradient", "fisher", "memflex", "wagle"])
def test_localizers_score_units(base, tokenizer, method):
    localizer = LOCALIZERS.read(method)
    for unit in localizer.units:
        options = {"retain": RETAIN, "method": method, "unit": unit}
        scores = score_units(base, tokenizer, FORGET, **options)
        units = sum(values.numel() for values in scores.values.values())
        assert localize(scores, 0.25).n_units == pytest.approx(units / 4, abs=0.5)


def test_an_edit_changes_the_model_and_is_undone(base, tokenizer, adapters):
    model = load_adapter(copy.deepcopy(base), adapters / "plain")
    before = answers_nll(model, tokenizer)
    edit = erase(model, tokenizer, ROWS, request=Request.remove(["r0"]), solver="cg(max_products=3)", damping=1.0)
    edit.apply()
    changed = answers_nll(model, tokenizer)
    edit.undo()
    assert changed[0] > before[0]
    np.testing.assert_array_equal(answers_nll(model, tokenizer), before)


def test_scores_and_rounding(base, tokenizer):
    scores = evaluate(base, tokenizer, ROWS, part="test", bootstrap=0)
    assert 0 <= scores.summary["forget_regurgitation"] <= 1
    weights = [p.detach().clone() for p in base.parameters()]
    with at_precision(base, "bfloat16"):
        assert np.isfinite(answers_nll(base, tokenizer)).all()
    assert all(torch.equal(old, new) for old, new in zip(weights, base.parameters()))


def test_answers_under_a_learnt_prompt_do_not_depend_on_the_batch(tokenizer):
    """peft puts the virtual prompt before the padding, so that a padded row has its positions elsewhere."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, num_layers=2, token_dim=32,
                                num_attention_heads=4)
    model = get_peft_model(make_model("gpt2", tokenizer), config).eval()
    alone, together = (generate(model, tokenizer, ROWS, batch_size=size, max_new_tokens=6) for size in (1, 8))
    assert alone == together
    np.testing.assert_allclose(answers_nll(model, tokenizer, 1), answers_nll(model, tokenizer, 8), atol=1e-5)
    assert "read alone and in one padded batch" in str(preflight(model, tokenizer, ROWS))
