"""A model's texts depend on prompt, attempt and settings only."""

import pytest

from unlearn_nb.augmentation import ModelWriter, load_writer
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import load_model


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def test_a_text_depends_on_prompt_attempt_and_seed_only(tiny):
    prompts = ["Why?", "What is the capital of a country that nobody has heard of?", "Hello there.", "Why not?"]
    make = lambda **options: ModelWriter(*tiny, "tiny", max_new_tokens=10, **options)
    texts = make(batch_size=4).write(prompts)
    assert make(batch_size=1).write(prompts[::-1])[::-1] == texts == make(batch_size=3).write(prompts)
    assert len(set(texts)) == 4
    assert all(a != b for a, b in zip(texts, make().write(prompts, attempt=1)))
    assert all(a != b for a, b in zip(texts, make(seed=1).write(prompts)))
    greedy = make(temperature=0).write(prompts)
    assert greedy == make(temperature=0, seed=3).write(prompts, attempt=2) != texts


def test_a_text_stops_at_the_end_token(tiny):
    model, tokenizer = tiny
    writer = ModelWriter(model, tokenizer, "tiny", max_new_tokens=300, temperature=1.5, batch_size=4)
    seen = {}
    prompts = [f"Number {i}" for i in range(8)]
    writer.write(prompts, on_text=lambda i, text, **tokens: seen.update({i: tokens["completion_tokens"]}))
    assert set(seen) == set(range(8)) and max(seen.values()) <= 300
    assert min(seen.values()) < 300, "of 8 x 300 tokens of an untrained model with 2,048 one at least ends a text"


def test_identity_changes_with_settings_and_weights(tiny):
    model, tokenizer = load_model("tiny")
    variants = [dict(), dict(seed=1), dict(temperature=0.1), dict(max_new_tokens=5)]
    names = {ModelWriter(model, tokenizer, "tiny", **options).identity for options in variants}
    assert len(names) == 4
    assert ModelWriter(*tiny, "tiny").identity in names  # the same weights, loaded again
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data.mul_(1.01)
    assert ModelWriter(model, tokenizer, "tiny").identity not in names


def test_models_that_cannot_write(tiny):
    model, tokenizer = tiny
    with pytest.raises(UnlearnError, match="do not fit into the 512 of 'tiny'"):
        ModelWriter(model, tokenizer, "tiny").write(["word " * 200])
    with pytest.raises(UnlearnError, match="do not fit into the 512|max_length is 511"):
        ModelWriter(model, tokenizer, "tiny").write(["word " * 600])
    _, other = load_model("tiny")
    other.chat_template = None
    with pytest.raises(UnlearnError, match="has no chat template"):
        ModelWriter(model, other, "tiny")
    with pytest.raises(UnlearnError, match="nobody/nothing"):
        load_writer("nobody/nothing")


def test_generation_settings_of_the_model_change_no_text():
    model, tokenizer = load_model("tiny")
    write = lambda: ModelWriter(model, tokenizer, "tiny", max_new_tokens=12).write(["Why?", "Who is there?"])
    texts = write()
    model.generation_config.update(no_repeat_ngram_size=1, min_new_tokens=12, suppress_tokens=list(range(9, 900)))
    assert write() == texts
