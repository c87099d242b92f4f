"""Generation in batches whose rows leave, beside transformers' own row by row; likelihoods beside float64."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from toys import make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from unlearn_nb.models import IGNORED, PATIENCE, encode, encode_prompt, generate, load_model, sequence_nll

END = 1  # the toy tokeniser's end token
SIZES = dict(vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=END)
GROUPED = dict(num_key_value_heads=2, head_dim=8)
FAMILIES = {
    "llama": SIZES,
    "gpt2": dict(vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=END, pad_token_id=0),
    "gemma2": SIZES | GROUPED | dict(sliding_window=8, final_logit_softcapping=5.0),
    "gemma3_text": SIZES | GROUPED | dict(sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "qwen3": SIZES | GROUPED,
    "opt": SIZES | dict(ffn_dim=48, word_embed_proj_dim=32),
    "gpt_neox": SIZES,
    "mixtral": SIZES | dict(num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
}
RECURRENT = {
    "mamba": dict(vocab_size=200, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=END, pad_token_id=0),
    "lfm2": SIZES | dict(num_key_value_heads=2, layer_types=["conv", "full_attention"]),
}


def random_model(family, seed=0):
    """A model that writes many different tokens, the end token now and then."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(FAMILIES | RECURRENT)[family]))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.4)
    return model.eval()


def uneven_rows(count, seed=0):
    """Rows whose prompts have 1 to 20 tokens and whose responses 1 to 30."""
    random = np.random.default_rng(seed)
    def words(most):
        return " ".join(f"w{i}" for i in random.integers(3, 200, random.integers(1, most + 1)))
    return [{"prompt": words(20), "response": words(30)} for _ in range(count)]


def limit_of(tokenizer, row):
    return int(1.5 * len(tokenizer(row["response"]).input_ids)) + 8


def one_by_one(model, tokenizer, rows, limit=None):
    """Token ids that transformers writes for each row alone, before the end token."""
    written = []
    for row in rows:
        ids = torch.tensor([encode_prompt(tokenizer, row["prompt"])])
        full = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
                              max_new_tokens=limit or limit_of(tokenizer, row))
        new = full[0, ids.shape[1] :].tolist()
        written.append(new[: new.index(END)] if END in new else new)
    return written


def texts_of(tokenizer, written):
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in written]


def decoded_tokens(model):
    """A list that gets the number of rows of every forward pass of `model` from now on."""
    rows = []
    def count(module, args, kwargs):
        rows.append(len(kwargs["input_ids"]))
    model.register_forward_pre_hook(count, with_kwargs=True)
    return rows


# --- beside transformers, row by row ---------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES | RECURRENT)
def test_same_tokens_as_row_by_row_and_few_more_decoded(family):
    model, tokenizer, rows = random_model(family), make_tokenizer(), uneven_rows(25)
    written = one_by_one(model, tokenizer, rows)
    assert len({tuple(ids) for ids in written}) > 20  # the rows say different things
    passes = decoded_tokens(model)
    assert generate(model, tokenizer, rows) == texts_of(tokenizer, written)
    needed = sum(min(len(ids) + 1, limit_of(tokenizer, row)) for ids, row in zip(written, rows))
    assert needed <= sum(passes)
    if family in FAMILIES:
        assert sum(passes) <= needed / (1 - PATIENCE) and passes[0] == 25 and passes[-1] <= 8


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_rows_without_an_end_token_write_to_their_own_limit(family):
    model, tokenizer, rows = random_model(family), make_tokenizer(), uneven_rows(12)
    model.get_output_embeddings().weight = torch.nn.Parameter(model.get_output_embeddings().weight.clone())
    model.get_output_embeddings().weight.data[[0, END]] = 0.0  # a logit of 0 is never the largest of 200
    passes = decoded_tokens(model)
    written = one_by_one(model, tokenizer, rows)
    assert [len(ids) for ids in written] == [limit_of(tokenizer, row) for row in rows]
    del passes[:]
    answers = generate(model, tokenizer, rows)
    assert answers == texts_of(tokenizer, written)
    assert [len(text.split()) for text in answers] == [limit_of(tokenizer, row) for row in rows]
    assert sum(map(len, written)) <= sum(passes) <= sum(map(len, written)) / (1 - PATIENCE)


def test_no_end_token_at_all():
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(6)
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    answers = generate(model, tokenizer, rows, max_new_tokens=9)
    assert answers == texts_of(tokenizer, one_by_one_open(model, tokenizer, rows, 9))


def one_by_one_open(model, tokenizer, rows, limit):
    """As `one_by_one`, of a model that knows no end token."""
    for row in rows:
        ids = torch.tensor([encode_prompt(tokenizer, row["prompt"])])
        full = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
                              max_new_tokens=limit)
        yield full[0, ids.shape[1] :].tolist()


def test_end_tokens_of_the_model_end_a_row_too():
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(8)
    others = sorted({ids[1] for ids in one_by_one(model, tokenizer, rows) if len(ids) > 1})
    model.generation_config.eos_token_id = [END, *others]
    passes = decoded_tokens(model)
    answers = generate(model, tokenizer, rows)
    assert sum(passes) <= 2 * len(rows) and all(len(text.split()) <= 2 for text in answers)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_batch_size_changes_nothing(batch_size):
    model, tokenizer, rows = random_model("gpt2"), make_tokenizer(), uneven_rows(15, seed=1)
    expected = texts_of(tokenizer, one_by_one(model, tokenizer, rows))
    assert generate(model, tokenizer, rows, batch_size=batch_size) == expected


def test_padding_on_the_left_changes_nothing():
    model, tokenizer = random_model("llama"), make_tokenizer()
    rows = [{"prompt": "w5 " * n, "response": "w7 " * 10} for n in (1, 40, 2, 39)]
    assert generate(model, tokenizer, rows) == texts_of(tokenizer, one_by_one(model, tokenizer, rows))


def test_nothing_asked_nothing_answered():
    model, tokenizer = random_model("llama"), make_tokenizer()
    passes = decoded_tokens(model)
    assert generate(model, tokenizer, []) == [] and passes == []


def test_lora_changes_what_is_written_and_not_how():
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(9)
    plain = generate(model, tokenizer, rows)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapter = get_peft_model(model, config).eval()
    assert plain != generate(adapter, tokenizer, rows) == texts_of(tokenizer, one_by_one(adapter, tokenizer, rows))


def test_virtual_prompts_are_kept():
    tokenizer, rows = make_tokenizer(), uneven_rows(9)
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    model = get_peft_model(random_model("llama"), config).eval()
    # one row at a time, since peft gives padding a position of its own there
    assert generate(model, tokenizer, rows, batch_size=1) == texts_of(tokenizer, one_by_one(model, tokenizer, rows))
    assert len(generate(model, tokenizer, rows)) == 9


@pytest.mark.parametrize("change", [dict(use_cache=False), dict(cache_implementation="static")])
def test_settings_of_the_cache_change_no_answer(change):
    tokenizer, rows = make_tokenizer(), uneven_rows(9)
    expected = generate(random_model("gemma2"), tokenizer, rows)
    model = random_model("gemma2")
    model.generation_config.update(**change)
    passes = decoded_tokens(model)
    assert generate(model, tokenizer, rows) == expected and passes[0] == 9 > passes[-1]


def test_modules_keep_their_mode():
    model, tokenizer = random_model("llama"), make_tokenizer()
    model.train()
    model.lm_head.eval()
    generate(model, tokenizer, uneven_rows(2))
    assert model.training and model.model.training and not model.lm_head.training


# --- trained and untrained models ------------------------------------------------------------------------------------

def test_generation_in_batches_equals_one_by_one(target, smoke_bench):
    model, tokenizer = target
    rows = list(smoke_bench.forget)[:24]
    together = generate(model, tokenizer, rows, batch_size=7)
    assert together == [generate(model, tokenizer, [row])[0] for row in rows]
    assert all(text == text.strip() and "<pad>" not in text for text in together)


def test_generation_of_an_untrained_model_keeps_to_its_limits(untrained, smoke_bench):
    model, tokenizer = untrained
    rows = list(smoke_bench.retain)[:6]
    together = generate(model, tokenizer, rows)
    assert together == [generate(model, tokenizer, [row])[0] for row in rows]  # runs on without an end token
    short = generate(model, tokenizer, rows, max_new_tokens=3)
    assert all(len(tokenizer(text).input_ids) <= 6 for text in short)


def test_target_knows_its_rows_and_the_oracle_does_not(target, smoke_oracle, smoke_bench):
    questions = [row for row in smoke_bench.forget if row["kind"] == "qa"]
    def share(model, tokenizer):
        answers = generate(model, tokenizer, questions)
        return np.mean([answer == row["response"] for answer, row in zip(answers, questions)])
    assert share(*target) >= 0.95
    assert share(*load_model(smoke_oracle)) <= 0.05


@pytest.mark.parametrize("on", ["text", "response"])
def test_nll_equals_naive_float64(target, smoke_bench, on):
    model, tokenizer = target
    rows = list(smoke_bench.holdout)[:10]
    scores = sequence_nll(model, tokenizer, rows, on=on, batch_size=4)
    exact = model.double()
    for row, score in zip(rows, scores):
        ids, labels = encode(tokenizer, row["prompt"], row["response"])
        counted = torch.tensor(ids if on == "text" else labels)[1:]
        logps = exact(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        picked = [logps[t, token].item() for t, token in enumerate(counted) if token != IGNORED]
        assert score == pytest.approx(-np.mean(picked), rel=1e-5)


def test_nll_of_strings_and_of_nothing(target):
    model, tokenizer = target
    scores = sequence_nll(model, tokenizer, ["A short text.", "x", ""])
    assert np.isfinite(scores[0]) and np.isnan(scores[1:]).all()


# --- what a model's folder says of generation -------------------------------------------------------------------------

MOODS = {
    "diversity_penalty": dict(num_beams=4, num_beam_groups=2, diversity_penalty=5.0),
    "encoder_no_repeat_ngram_size": dict(encoder_no_repeat_ngram_size=1),
    "forced_bos_token_id": dict(forced_bos_token_id=7),
    "force_words_ids": dict(force_words_ids=[[9]], num_beams=2),
    "low_memory": dict(cache_implementation="static", use_cache=False),
    "min_length": dict(min_length=60),
    "no_repeat_ngram_size": dict(no_repeat_ngram_size=1),
    "output_scores": dict(output_scores=True, output_logits=True, output_attentions=True),
    "penalty_alpha": dict(penalty_alpha=0.6, top_k=4),
    "renormalize_logits": dict(renormalize_logits=True, remove_invalid_values=True, typical_p=0.2, do_sample=True),
    "sequence_bias": dict(sequence_bias=[[[5], 100.0]]),
    "suppress_tokens": dict(suppress_tokens=list(range(2, 100))),
    "unknown_field": dict(attention_mask=None, logits_to_keep=7),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("mood", MOODS)
def test_generation_settings_of_a_model_change_no_answer(mood, wrapped):
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(5)
    if wrapped:
        model = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM")).eval()
    plain = generate(model, tokenizer, rows)
    settings = model.generation_config
    for name, value in MOODS[mood].items():
        setattr(settings, name, value)
    before = settings.to_dict()
    assert generate(model, tokenizer, rows) == plain
    assert model.generation_config is settings and settings.to_dict() == before


def test_settings_saved_beside_the_weights_change_no_answer(tmp_path):
    model, tokenizer, rows = random_model("gpt2"), make_tokenizer(), uneven_rows(5)
    plain = generate(model, tokenizer, rows)
    model.save_pretrained(tmp_path)
    told = {"eos_token_id": END, "suppress_tokens": [5, 6, 7, 8, 9], "min_new_tokens": 20, "max_length": 3,
            "bad_words_ids": [[i] for i in range(50, 150)], "max_time": 1e-9, "num_beams": 3}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    moody = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert moody.generation_config.min_new_tokens == 20 and generate(moody, tokenizer, rows) == plain


def test_a_generate_that_came_with_the_model_is_not_called():
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(3)
    plain = generate(model, tokenizer, rows)
    def brought(*args, **kwargs):
        raise AssertionError("the model's own generate was called")
    model.generate = brought
    assert generate(model, tokenizer, rows) == plain and model.generate is brought


def test_settings_return_when_generation_fails():
    model, tokenizer, rows = random_model("llama"), make_tokenizer(), uneven_rows(3)
    settings = model.generation_config
    def broken(module, args):
        raise RuntimeError("no memory")
    hook = model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="no memory"):
        generate(model, tokenizer, rows)
    hook.remove()
    assert model.generation_config is settings


def test_a_model_whose_settings_contradict_themselves_is_loaded(tmp_path):
    model, tokenizer = load_model("tiny")
    rows = [{"prompt": "Who is there?", "response": "nobody at all"}]
    plain = generate(model, tokenizer, rows)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    for told in ({"num_return_sequences": 3}, {"num_beams": -2}, {"cache_implementation": "none such"}):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 9]} | told))
        again, _ = load_model(tmp_path)
        assert again.generation_config.eos_token_id == [4, 9]
        again.generation_config.eos_token_id = model.generation_config.eos_token_id
        assert generate(again, tokenizer, rows) == plain
