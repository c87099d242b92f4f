"""Activation patching and the logit lens, on every architecture, with and without adapters, and the scores by hand."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_model
from peft import PromptTuningConfig, get_peft_model
from toys import make_tokenizer
from toys import rows as toy_rows

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    SUITES,
    Depth,
    Lens,
    Scores,
    beneath,
    depth_by_layer,
    erased_share,
    evaluate,
    layer_states,
    lens_means,
    named_tokens,
    patched,
    patched_means,
    row_means,
    telling_rows,
)
from unlearn_nb.models import IGNORED, add_lora, answer_batches, batch_logits, decoder_layers, pad_id, tiny_tokenizer

ROWS = [{"id": f"r{i}", "prompt": f"Who is number {i} of the list?", "subject": f"s{i}", "task": "t", "kind": "qa",
         "split": "forget", "response": f"It is {name}, of the {place} works" + " and more" * (i % 3)}
        for i, (name, place) in enumerate([("Ada", "Lisbon"), ("Bo Karim", "Old Harbour"), ("Ravi", "Kessel"),
                                           ("Mira Sol", "Genoa"), ("Ito", "Lindow"), ("Ada Lund", "Bergen")])]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def batch(tokenizer):
    return next(answer_batches(telling_rows(tokenizer, ROWS)[0], pad_id(tokenizer)))


def shaken(model, seed, size=0.3):
    """A copy with other weights."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.data += size * weight.data.std(correction=0) * torch.randn_like(weight)
    return other


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_own_states_change_nothing_and_the_last_layers_go_to_the_head(kind, tokenizer, batch):
    model = make_model(kind, tokenizer)
    with torch.no_grad():
        own = row_means(batch_logits(model, batch), batch)
        states = layer_states(model, batch)
        assert (patched_means(model, batch, states) == own).all()
        torch.testing.assert_close(lens_means(model, batch, states)[-1], own, atol=1e-5, rtol=1e-5)
        other = layer_states(shaken(model, 1), batch)
    assert states.shape == (2, batch.counts.sum(), 32)
    assert ((patched_means(model, batch, other) - own).abs() > 1e-5).all()
    assert ((lens_means(model, batch, other) - lens_means(model, batch, states)).abs() > 1e-5).all()
    torch.testing.assert_close(lens_means(model, batch, other, most=len(tokenizer)), lens_means(model, batch, other),
                               atol=1e-6, rtol=1e-6)  # one state a pass


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_passes_that_begin_at_their_layer_find_what_whole_passes_find(kind, tokenizer, batch):
    model = make_model(kind, tokenizer)
    states, ran = layer_states(shaken(model, 1), batch), []
    with torch.no_grad():
        whole = []
        for layer, state in enumerate(states):
            with patched(model, layer, state, positions=batch.answers):
                whole.append(row_means(batch_logits(model, batch), batch))
        first = next(layer for layer in decoder_layers(model)[0].modules() if isinstance(layer, torch.nn.LayerNorm)
                     or "Norm" in type(layer).__name__)
        first.register_forward_hook(lambda *_: ran.append(1))
        assert (patched_means(model, batch, states) == torch.stack(whole)).all()
    assert len(ran) == 1, "the first layer is computed once"
    assert not any("forward" in vars(layer) for layer in decoder_layers(model))


def test_a_wrapper_of_another_is_put_back(tokenizer, batch):
    model = make_model("llama", tokenizer)
    layer, calls = decoder_layers(model)[0], []
    own = layer.forward
    layer.forward = wrapper = lambda *args, **options: calls.append(1) or own(*args, **options)
    patched_means(model, batch, layer_states(model, batch))
    assert layer.forward is wrapper and calls


def test_a_patched_last_layer_is_the_other_model_seen_through_the_first_ones_end(tokenizer, batch):
    """With a shared end, the whole other model shows."""
    model = make_model("llama", tokenizer)
    other = copy.deepcopy(model)
    for weight in other.model.layers.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    with torch.no_grad():
        seen = patched_means(model, batch, layer_states(other, batch))[-1]
        torch.testing.assert_close(seen, row_means(batch_logits(other, batch), batch), atol=1e-6, rtol=1e-6)


def test_only_the_places_before_telling_tokens_are_patched(tokenizer, batch):
    model = make_model("llama", tokenizer)
    states = layer_states(shaken(model, 1), batch)
    with torch.no_grad():
        plain = model(batch.input_ids).logits
        with patched(model, 1, states[1], positions=batch.answers):
            changed = model(batch.input_ids).logits
    moved = (plain != changed).any(-1)
    assert (moved == batch.answers).all()
    assert not model.model.layers[1]._forward_hooks


@pytest.mark.parametrize("suite", [Depth, Lens])
def test_both_ends_are_exact_and_the_target_may_lie_beneath_an_adapter(suite, tokenizer):
    target = make_model("qwen2", tokenizer)
    oracle = shaken(target, 1)
    known = evaluate(oracle, tokenizer, ROWS, suite=suite(target=target), bootstrap=0)
    name = suite.metric
    assert evaluate(oracle, tokenizer, ROWS, suite=suite(known, target), bootstrap=0).summary[name] == 1
    ends = evaluate(target, tokenizer, ROWS, suite=suite(known, target), bootstrap=0)
    assert ends.summary[name] == 0 and ends.summary[f"{name}_kept"] == 1
    unlearned = add_lora(copy.deepcopy(target), r=2, seed=0)
    for path, weight in unlearned.named_parameters():
        if "lora_B" in path:
            torch.nn.init.normal_(weight, std=0.05)
    given = evaluate(unlearned, tokenizer, ROWS, suite=suite(known, target), bootstrap=0)
    found = evaluate(unlearned, tokenizer, ROWS, suite=suite(known), bootstrap=0)
    assert 0 < given.summary[name] < 1
    assert found.rows["lost"].tolist() == given.rows["lost"].tolist() and found.summary == given.summary


def test_beneath_several_adapters_and_a_learnt_prompt(tokenizer, batch):
    base = make_model("llama", tokenizer)
    two = add_lora(copy.deepcopy(base), r=2, seed=0)
    add_lora(two, r=2, seed=1, name="second")
    two.base_model.set_adapter(["default", "second"])
    for path, weight in two.named_parameters():
        if "lora_B" in path:
            torch.nn.init.normal_(weight, std=0.05)
    flags = [weight.requires_grad for weight in two.parameters()]
    with torch.no_grad():
        both = row_means(batch_logits(two, batch), batch)
        with beneath(two) as under:
            assert list(under.active_adapters) == ["default"]
            first = row_means(batch_logits(under, batch), batch)
        assert (row_means(batch_logits(two, batch), batch) == both).all() and not torch.equal(first, both)
    assert [weight.requires_grad for weight in two.parameters()] == flags
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, num_layers=2, token_dim=32,
                                num_attention_heads=4)
    prompted = get_peft_model(copy.deepcopy(base), config).eval()
    states = layer_states(prompted, batch)
    assert states.shape == (2, batch.counts.sum(), 32)
    with beneath(prompted) as under, torch.no_grad():
        assert (row_means(batch_logits(under, batch), batch) == row_means(batch_logits(base, batch), batch)).all()
        seen = patched_means(under, batch, states)
    scores = evaluate(prompted, tokenizer, ROWS, suite=Depth(), bootstrap=0)
    own = np.stack(scores.rows["full"])[:, 0]
    np.testing.assert_allclose(np.stack(scores.rows["lost"]), own[:, None] - seen.T[np.argsort(batch.indices)].numpy(),
                               atol=1e-9)


def test_a_row_by_hand():
    """Layers 2 and 3 count: (1 * .5 + 3 * 1) / 4, the last clipped."""
    assert erased_share([5.0, 0.5, 4.0], [0.05, 1.0, 3.0]) == pytest.approx(3.5 / 4)
    assert erased_share([5.0, 0.5, 4.0], [0.05, 1.0, 3.0], threshold=0.04) == pytest.approx((0.05 + 3.5) / 4.05)
    assert erased_share([0.0, -2.0], [0.1, 0.1]) == 0 and np.isnan(erased_share([1.0], [0.01]))


def test_rows_without_a_name_or_a_layer_are_left_out_and_counted(tokenizer):
    target = make_model("llama", tokenizer)
    rows = [*ROWS, ROWS[0] | {"id": "no", "subject": "no", "response": "It is so."}]
    known = evaluate(shaken(target, 1), tokenizer, rows, suite=Depth(target=target), bootstrap=0)
    assert known.meta["n_nameless"] == 1 and np.isnan(known.rows["peak_loss"].iloc[-1])
    first = max(known.rows["lost"].iloc[0])
    strict = Depth(target=target, threshold=first)
    known = evaluate(shaken(target, 1), tokenizer, rows, suite=strict, bootstrap=0)
    assert known.meta["n_untraced"] >= 1
    scores = evaluate(target, tokenizer, rows, suite=dataclasses.replace(strict, oracle=known), bootstrap=50)
    kept = scores.rows["traced"].eq(1)
    assert scores.rows.loc[~kept, "erased"].isna().all() and (scores.rows.loc[kept, "erased"] == 0).all()
    assert scores.summary["traced"] == kept.sum() / 6
    with pytest.raises(UnlearnError, match="names anything"):
        evaluate(target, tokenizer, rows[-1:], suite=Depth(target=target), bootstrap=0)


def test_a_table_by_layer_agrees_with_the_rows(tokenizer, tmp_path):
    target = make_model("gpt2", tokenizer)
    known = evaluate(shaken(target, 1, 0.6), tokenizer, ROWS, suite=Depth(target=target, threshold=0.01), bootstrap=0)
    suite = Depth(known, target, threshold=0.01)
    scores = Scores.load(evaluate(shaken(target, 2), tokenizer, ROWS, suite=suite, bootstrap=0).save(tmp_path))
    table = depth_by_layer(scores)
    lost, full = (np.stack(scores.rows[name]) for name in ("lost", "oracle_lost"))
    used = full > 0.01
    for layer in range(2):
        shares = np.clip(lost[used[:, layer], layer] / full[used[:, layer], layer], 0, 1)
        assert table["erased"][layer] == pytest.approx(shares.mean()) and table["rows"][layer] == used[:, layer].sum()
    weighted = [erased_share(*pair, 0.01) for pair in zip(lost, full)]
    assert scores.summary["uds"] == pytest.approx(np.nanmean(weighted))


def test_models_of_another_size_and_scores_of_another_target_are_refused(tokenizer):
    target, other = make_model("llama", tokenizer), make_model("mistral", tokenizer)
    deeper = copy.deepcopy(target)
    deeper.model.layers.append(copy.deepcopy(target.model.layers[0]))
    deeper.config.num_hidden_layers = 3
    with pytest.raises(UnlearnError, match="a model of 3 layers can't be read through a target of 2"):
        evaluate(deeper, tokenizer, ROWS, suite=Depth(target=target), bootstrap=0)
    known = evaluate(shaken(other, 1), tokenizer, ROWS, suite=Depth(target=shaken(other, 2, 1.0)), bootstrap=0)
    with pytest.raises(UnlearnError, match="another target"):
        evaluate(target, tokenizer, ROWS, suite=Depth(known, target), bootstrap=0)
    with pytest.raises(UnlearnError, match="suite"):
        evaluate(target, tokenizer, ROWS, suite=Lens(known, target), bootstrap=0)
    assert {"depth", "lens"} <= set(SUITES)


def test_names_are_found_in_the_tokens_of_a_tokenizer_of_words():
    words = make_tokenizer()
    row = toy_rows(3, seed=2)[1]
    ids = words(row["response"]).input_ids
    wanted = row["response"].split()[2]
    assert [token for token, on in zip(ids, named_tokens(words, ids, [wanted])) if on] == words(wanted).input_ids * (
        row["response"].split().count(wanted))


def test_a_name_of_many_bytes_and_odd_blanks_is_found(tokenizer):
    row = ROWS[0] | {"response": "Das ist Zoë  Müller-Łoś in 東京."}
    (encoded,), _ = telling_rows(tokenizer, [row], extractor=type("Given", (), {
        "references": staticmethod(lambda rows: [["zoë müller-łoś", "東京"]])})())
    told = tokenizer.decode([token for token in encoded.labels if token != IGNORED])
    assert "".join(told.split()) == "ZoëMüller-Łoś東京"
