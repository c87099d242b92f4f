"""Chat texts: dates, system prompts, blocks of thoughts, ends of turns, and tokenizers that can't tell places."""

import warnings

import pytest
import torch
from tokenizers_zoo import SCRIPTS, TEMPLATES, zoo_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.core import Template, UnlearnError
from unlearn_nb.models import IGNORED, encode, encode_prompt, end_tokens, generate, sequence_nll

THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' + m['content'].lstrip('\n') }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # Qwen 3
OPENING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)  # DeepSeek R1
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def chat(template, kind="byte BPE"):
    tokenizer = zoo_tokenizer(kind)
    tokenizer.chat_template = TEMPLATES.get(template, template)
    return tokenizer


def model_for(tokenizer, positions=256):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=positions, initializer_range=0.3)).eval()


def shown(tokenizer, template, prompt="Who?", response="Anna"):
    ids, labels = encode(tokenizer, prompt, response, template)
    start = labels.count(IGNORED)
    assert encode_prompt(tokenizer, prompt, template) == ids[:start]
    return tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:])


def test_the_date_is_the_template_s_and_not_today_s():
    tokenizer = chat("Llama 3")
    assert "Today Date: 26 Jul 2024" in shown(tokenizer, "chat")[0]
    assert "Today Date: 03 Feb 2026" in shown(tokenizer, "chat(date=2026-02-03)")[0]
    tokenizer.chat_template = "{{ date_string }} {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert shown(tokenizer, "chat(date=2026-02-03)")[0].startswith("03 Feb 2026 ")


def test_a_date_in_a_row_is_left_alone_and_one_that_can_not_be_pinned_is_refused():
    tokenizer = chat("Llama 3")
    assert "strftime_now('%Y')" in shown(tokenizer, "chat", prompt="What is strftime_now('%Y')?")[0]
    tokenizer.chat_template = "{% set f = '%d' %}{{ strftime_now(f) }}" + TEMPLATES["ChatML"]
    with pytest.raises(UnlearnError, match="can't be pinned"):
        encode(tokenizer, "Who?", "Anna", "chat")


def test_the_system_prompt_is_chosen_and_is_text():
    tokenizer = chat("ChatML")
    begun = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert shown(tokenizer, "chat(system='Be brief.')") == (begun, "Anna<|im_end|>")
    assert encode(tokenizer, "Who?", "Anna", "chat", system="Be brief.") == encode(
        tokenizer, "Who?", "Anna", Template("chat", system="Be brief."))
    forged = encode(tokenizer, "Who?", "Anna", "chat", system="<|im_end|>")[0]
    assert forged.count(end_tokens(tokenizer, "chat")[-1]) == 3
    model, row = model_for(tokenizer), {"prompt": "Who?", "response": "Anna"}
    scores = [sequence_nll(model, tokenizer, [row], on="response", template="chat", system=s)[0] for s in (None, "Hm.")]
    assert scores[0] != scores[1]
    tokenizer.chat_template = NO_SYSTEM + TEMPLATES["Gemma"]
    with pytest.raises(UnlearnError, match="System role not supported"):
        encode(tokenizer, "Who?", "Anna", "chat", system="Be brief.")
    assert shown(tokenizer, "chat")[1] == "Anna<end_of_turn>"


def test_an_empty_block_of_thoughts_belongs_to_the_prompt():
    assert shown(chat(THINKING), "chat") == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "Anna<|im_end|>")
    assert shown(chat(OPENING), "chat")[0].endswith("<|im_start|>assistant\n")  # an answer comes without thoughts


def test_a_begin_token_stands_once_whoever_writes_it():
    for template, kind in (("Llama 3", "chat"), ("Gemma", "chat"), ("Mistral", "chat"), ("Gemma", "plain")):
        tokenizer = chat(template)
        ids, _ = encode(tokenizer, "Who?", "Anna", kind)
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


def test_generation_stops_at_the_end_of_the_turn():
    tokenizer = chat("ChatML")
    model, row = model_for(tokenizer), {"prompt": "Who?", "response": "Anna Berg, a painter"}
    free = generate(model, tokenizer, [row], template="chat", max_new_tokens=12)[0]
    assert free
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    steps = []

    def third_is_the_end(module, args, logits):
        steps.append(1)
        if len(steps) >= 3:
            logits[..., end] = 1e4
        return logits

    with torch.no_grad():
        handle = model.lm_head.register_forward_hook(third_is_the_end)
    answer = generate(model, tokenizer, [row], template="chat", max_new_tokens=12)[0]
    handle.remove()
    assert len(steps) == 3 and free.startswith(answer) and "<|im_end|>" not in answer


def test_markup_of_added_tokens_that_are_not_special_ends_turns_too():
    tokenizer = zoo_tokenizer("byte BPE", begin=False)
    tokenizer.add_tokens(["<|user|>", "<|bot|>", "<|stop|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|bot|>' }}" \
        "{{ m['content'] + '<|stop|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|bot|>' }}{% endif %}"
    stop = tokenizer.convert_tokens_to_ids("<|stop|>")
    ids, _ = encode(tokenizer, "Is <|stop|> a word?", "Yes, <|stop|> is.", "chat")
    assert ids[-1] == stop and ids.count(stop) == 2 and stop in end_tokens(tokenizer, "chat")


def test_chat_without_a_chat_template_is_refused():
    tokenizer = zoo_tokenizer("Metaspace first")
    tokenizer.chat_template = None
    with pytest.raises(UnlearnError, match="no chat template"):
        encode(tokenizer, "Who?", "Anna", "chat")
    with pytest.raises(UnlearnError, match="no chat template"):
        generate(model_for(tokenizer), tokenizer, [{"prompt": "Who?", "response": "Anna"}], template="chat")


@pytest.mark.parametrize("fault", ["1 // 0", "''.join()", "'%(a)s' % {}", "'a'.encode('no-such')"])
def test_a_template_that_fails_is_refused_in_a_sentence(fault):
    tokenizer = chat(TEMPLATES["ChatML"] + "{{ " + fault + " }}")
    with pytest.raises(UnlearnError, match="the chat template can't write texts of user"):
        encode(tokenizer, "Who?", "Anna", "chat")


class Slow:
    """A tokenizer that does not tell where its tokens come from."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, return_offsets_mapping=False, **options):
        assert not return_offsets_mapping
        return self.tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __len__(self):
        return len(self.tokenizer)


@pytest.mark.parametrize("kind", ["byte BPE", "SentencePiece, dummy prefix", "Metaspace first"])
def test_a_tokenizer_without_places_gives_the_same_or_refuses(kind):
    tokenizer = chat("Mistral", kind)
    for script in SCRIPTS.values():
        for template in ("plain", "chat"):
            assert encode(Slow(tokenizer), script, script, template) == encode(tokenizer, script, script, template)
    with pytest.raises(UnlearnError, match="use a fast tokenizer"):
        encode(Slow(tokenizer), "What costs it?", "<s>old price</s>")


def test_special_text_in_bare_strings_is_text():
    from unlearn_nb.models import encode_rows
    tokenizer = zoo_tokenizer("byte BPE")
    (row,) = encode_rows(tokenizer, ["<s>old price</s> and new"])
    assert row.input_ids.count(tokenizer.bos_token_id) == 1 and tokenizer.eos_token_id not in row.input_ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (plain,) = encode_rows(tokenizer, ["old price and new"])
    assert plain.input_ids == tokenizer("old price and new").input_ids


@pytest.mark.parametrize("content", ["m['content'] | tojson", "m['content'] | e", "m['content'].split('</think>')[-1]"])
def test_a_template_that_changes_a_row_s_text_is_refused(content):
    tokenizer = chat(TEMPLATES["ChatML"].replace("m['content']", content))
    assert content in tokenizer.chat_template
    encode(tokenizer, "Who", "Anna", "chat")
    with pytest.raises(UnlearnError, match="changes the text of a row"):
        encode(tokenizer, "Who", 'A "painter" </think>\n& more', "chat")


def test_a_template_that_depends_on_a_row_s_text_is_refused():
    asks = "{{ 'Hm. ' if messages[0]['content'].endswith('?') else '' }}"
    tokenizer = chat(asks + TEMPLATES["ChatML"])
    encode(tokenizer, "Who", "Anna", "chat")
    for asked in (lambda: encode(tokenizer, "Who?", "Anna", "chat"), lambda: encode_prompt(tokenizer, "Who?", "chat")):
        with pytest.raises(UnlearnError, match="depends on it: it writes 'Hm. "):
            asked()


@pytest.mark.parametrize("strange", [None, 5, b"Anna", "Anna\ud800"])
def test_what_is_no_text_is_refused_by_row(strange):
    tokenizer = chat("ChatML")
    for column in ("prompt", "response"):
        rows = [{"id": "r7", "prompt": "Who?", "response": "Anna"} | {column: strange}]
        with pytest.raises(UnlearnError, match=f"the {column} of row r7 "):
            sequence_nll(model_for(tokenizer), tokenizer, rows, on="response")
