"""From rows to tokens: boundaries, limits and labels."""

from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.models import IGNORED, encode, encode_prompt, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=60), response=st.text(max_size=60), max_length=st.integers(5, 80))
def test_encode_keeps_boundary_and_limits(prompt, response, max_length):
    tokenizer = TOKENIZER
    ids, labels = encode(tokenizer, prompt, response, max_length=max_length)
    start = encode_prompt(tokenizer, prompt, max_length=max_length, response=response)
    joint = tokenizer(f"{prompt} {response}", add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    whole_start = encode_prompt(tokenizer, prompt, response=response)
    assert whole_start == joint[: len(whole_start)]
    assert len(ids) == len(labels) <= max_length and labels == [IGNORED] * len(start) + ids[len(start) :]
    over = max(len(joint) - max_length, 0)  # the prompt gives way first, but for an eighth of the space
    assert len(start) == len(whole_start) - min(over, max(len(whole_start) - max_length // 8, 0))
    assert start == whole_start[len(whole_start) - len(start) :]
    assert ids == (start + joint[len(whole_start) :])[:max_length]


def test_encode_decodes_to_prompt_space_response():
    tokenizer = TOKENIZER
    ids, _ = encode(tokenizer, "Who wrote it?", "Anna Böll, 1972")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Who wrote it? Anna Böll, 1972"
    assert ids[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_chat_template_marks_the_answer_only():
    tokenizer = TOKENIZER
    ids, labels = encode(tokenizer, "Who?", "Anna", template="chat")
    assert tokenizer.decode(ids) == "Question: Who?\nAnswer: Anna</s>"
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == " Anna</s>"  # one token
