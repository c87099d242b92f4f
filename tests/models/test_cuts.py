"""Rows that don't fit: cut alike everywhere, counted, told, and refused where too many are."""

import json
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_zoo import TEMPLATES, zoo_tokenizer
from toys import make_tokenizer, tiny

from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import evaluate
from unlearn_nb.models import (
    IGNORED,
    Cuts,
    Recipe,
    count_cuts,
    encode,
    encode_prompt,
    encode_rows,
    generate,
    load_model,
    memorise_into,
    selected_logits,
    sequence_nll,
)
from unlearn_nb.unlearning import UnlearnSettings, unlearn


def words(n, first=3):
    return " ".join(f"w{first + i % 150}" for i in range(n))


def row(prompt, response, **more):
    return {"prompt": words(prompt), "response": words(response, 40), **more}


def told_tokenizer(positions):
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = positions
    return tokenizer


@settings(max_examples=100, deadline=None)
@given(prompt=st.integers(0, 60), response=st.integers(0, 60), most=st.integers(2, 70))
def test_what_fits_is_whole_and_the_prompt_gives_way_first(prompt, response, most):
    one = row(prompt, response)
    ids, labels = encode(make_tokenizer(), one["prompt"], one["response"], max_length=most)
    total, kept, answer = prompt + response + 1, labels.count(IGNORED), len(ids) - labels.count(IGNORED)
    if total <= most:
        assert (kept, answer) == (prompt, response + 1)
    else:
        assert len(ids) == most and kept >= min(prompt, most // 8)
        assert answer == response + 1 or kept <= max(most // 8, 0)


def test_markup_is_never_cut():
    tokenizer = zoo_tokenizer("byte BPE")
    for template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[template]
        whole = encode_prompt(tokenizer, "Where was Anna born? " * 80, "chat")
        bare = encode_prompt(tokenizer, "", "chat")
        most = len(bare) + 20
        cut = encode_prompt(tokenizer, "Where was Anna born? " * 80, "chat", max_length=most, response="In Ulm.")
        head = next(i for i, pair in enumerate(zip(bare, whole)) if pair[0] != pair[1])
        assert cut[:head] == bare[:head] and cut[-3:] == bare[-3:] and len(bare) < len(cut) <= most
        with pytest.raises(UnlearnError, match="before its answer that can't be cut"):
            encode(tokenizer, "Who?", "Anna", "chat", max_length=len(bare))


def test_training_scoring_and_generation_cut_alike():
    model, tokenizer, one = tiny(), told_tokenizer(64), row(70, 10)
    seen = []

    def see(module, args, output):
        seen.append(args[0][0].tolist())

    handle = model.model.embed_tokens.register_forward_hook(see)
    sequence_nll(model, tokenizer, [one], on="response", max_length=64)
    generate(model, tokenizer, [one], max_length=64)
    handle.remove()
    (ids, labels, cut) = encode_rows(tokenizer, [one], max_length=64)[0]
    start = labels.count(IGNORED)
    assert seen[0] == ids and seen[1] == ids[:start] and (len(ids), cut) == (64, 17)
    assert max(map(len, seen)) <= 64


def test_cuts_are_counted_told_and_refused_above_half():
    tokenizer, rows = told_tokenizer(32), [row(5, 5), row(5, 5), row(30, 9)]
    assert count_cuts(tokenizer, rows) == Cuts(rows=3, cut_rows=1, cut_tokens=8, longest=40)
    with pytest.warns(UserWarning, match="1 of 3 rows are cut and lose 8 tokens"):
        encode_rows(tokenizer, rows, name="forget")
    with pytest.raises(UnlearnError, match="2 of 3 rows are cut .* at the model's 32 positions"):
        encode_rows(tokenizer, [rows[0], rows[2], rows[2]])
    with pytest.warns(UserWarning, match="2 of 3"):  # whoever gives max_length has chosen to cut
        encode_rows(tokenizer, [rows[0], rows[2], rows[2]], max_length=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not sum(one.cut for one in encode_rows(tokenizer, rows[:2]))


def test_more_than_the_model_has_positions_is_refused():
    model, tokenizer = load_model("tiny")
    assert tokenizer.model_max_length == 512
    one = {"prompt": "Who?", "response": "Anna"}
    for call in (lambda: sequence_nll(model, tokenizer, [one], max_length=513),
                 lambda: generate(model, tokenizer, [one], max_length=513),
                 lambda: encode(tokenizer, "Who?", "Anna", max_length=513)):
        with pytest.raises(UnlearnError, match="at most 512, the model's positions"):
            call()
    ids = torch.zeros(1, 65, dtype=torch.long)
    with pytest.raises(UnlearnError, match="65 tokens is beyond the model's 64 positions"):
        selected_logits(tiny(), ids, None, positions=ids > 0)
    with pytest.raises(UnlearnError, match="beyond the model's 64 positions"):  # the tokenizer does not know
        sequence_nll(tiny(), make_tokenizer(), [row(60, 9)])


def test_a_long_reference_may_be_recited_to_its_end():
    model, tokenizer = load_model("tiny")
    one = {"prompt": "Tell.", "response": "amber birch cedar delta " * 40}
    length = len(tokenizer(one["response"]).input_ids)
    assert 256 < length < 480
    last_token = torch.nn.functional.one_hot(torch.tensor(len(tokenizer) - 1), len(tokenizer)).float()
    handle = model.lm_head.register_forward_hook(lambda module, args, logits: logits * 0 + last_token)
    (answer,) = generate(model, tokenizer, [one])
    handle.remove()
    last = tokenizer.decode([len(tokenizer) - 1])
    assert answer.count(last.strip()) >= length


def test_answers_end_where_the_positions_do_and_that_is_told():
    model, tokenizer = tiny(), told_tokenizer(64)
    with pytest.warns(UserWarning, match="1 of 2 answers may have less than 20 tokens: the model has 64 positions"):
        answers = generate(model, tokenizer, [row(50, 2), row(4, 2)], max_new_tokens=20)
    assert len(answers[0].split()) <= 14
    with pytest.raises(UnlearnError, match="row 1 has an empty prompt"):
        generate(model, tokenizer, [row(4, 2), row(0, 2)])


def test_records_tell_what_was_cut(tmp_path):
    model, tokenizer, rows = tiny(), told_tokenizer(64), [row(5, 5), row(70, 5)]
    with pytest.warns(UserWarning, match="1 of 2 rows are cut"):
        unlearn(model, tokenizer, rows, [row(3, 3)], "npo+nll", settings=UnlearnSettings(steps=1), out=tmp_path / "o",
                progress=False)
    record = json.loads((tmp_path / "o" / "settings.json").read_text())
    assert record["cut"]["forget"] == {"rows": 2, "cut_rows": 1, "cut_tokens": 12, "longest": 76}
    assert record["cut"]["retain"]["cut_rows"] == 0 and record["template"] == "plain" and record["max_length"] is None
    with pytest.warns(UserWarning, match="training: 1 of 1 rows are cut"):
        (tmp_path / "m").mkdir()
        memorise_into(tmp_path / "m", "tiny", [{"prompt": "Who is it? " * 30, "response": "Anna"}],
                      recipe=Recipe(steps=1, max_length=32), template="chat(date=2026-02-03)")
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["cut"]["cut_rows"] == 1 and record["loss"]["template"] == "chat(date=2026-02-03)"


def test_evaluation_tells_its_length_and_cuts_and_may_read_both_parts():
    model, tokenizer = load_model("tiny")
    bench = load_bench("biographies", size="smoke")
    options = dict(suite="membership", bootstrap=0)
    whole = evaluate(model, tokenizer, bench, part="all", **options)
    parts = [evaluate(model, tokenizer, bench, part=part, **options) for part in ("validation", "test")]
    assert whole.meta["n_rows"] == sum(one.meta["n_rows"] for one in parts) and whole.meta["part"] == "all"
    assert whole.meta["max_length"] == 512 and whole.meta["cut"]["cut_rows"] == 0
    with pytest.warns(UserWarning, match="rows are cut"):
        short = evaluate(model, tokenizer, bench, part="validation", max_length=16, **options)
    assert short.meta["max_length"] == 16 and 0 < short.meta["cut"]["cut_rows"] <= short.meta["n_rows"]
    changed = short.rows["loss"].to_numpy() != parts[0].rows["loss"].to_numpy()
    assert changed.sum() == short.meta["cut"]["cut_rows"]
