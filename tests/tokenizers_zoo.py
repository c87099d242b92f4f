"""Tokenizers and chat templates of the common kinds, small and made here."""

from functools import lru_cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CONTROLS = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
            "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]

SCRIPTS = {
    "Latin": "The quick brown fox, who lives in Zürich, asks: is it naïve? Her number is 555 1234.",
    "Greek": "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "Cyrillic": "Москва — столица России, говорит Иван.",
    "Arabic": "القاهرة هي عاصمة مصر.",
    "Hebrew": "תל אביב היא עיר בישראל.",
    "Devanagari": "दिल्ली भारत की राजधानी है।",
    "Thai": "กรุงเทพมหานครเป็นเมืองหลวง",
    "Chinese": "北京大学在中国的首都。",
    "Japanese": "東京は日本の首都です。カタカナも。",
    "Ethiopic": "ኣስመራ ርእሰ ከተማ ኤርትራ እያ።",
}
CORPUS = [text for text in SCRIPTS.values() for _ in range(8)] + ["Question: who is it? Answer: a painter\n\n"] * 8


def _byte_level(trim: bool) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if trim:  # as Llama 3 has it
        core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=700, special_tokens=CONTROLS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return core


_BYTES = [f"<0x{i:02X}>" for i in range(256)]


def _sentencepiece(dummy: bool) -> Tokenizer:
    """BPE over the whole text with bytes for what is unknown; `dummy`: a blank is put before every piece of text."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=1000, special_tokens=[*CONTROLS, *_BYTES], show_progress=False, initial_alphabet=["▁", "\n"]))
    core.pre_tokenizer = None
    replace = normalizers.Replace(" ", "▁")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if dummy else replace
    if not dummy:  # as Gemma has it
        core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if dummy else steps)
    return core


def _metaspace(scheme: str, unigram: bool = False) -> Tokenizer:
    core = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])
    if unigram:
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=CONTROLS, unk_token="<unk>",
                                          show_progress=False)
    else:
        trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=[*CONTROLS, *_BYTES], show_progress=False,
                                      initial_alphabet=["▁", "\n"])
    core.train_from_iterator(CORPUS, trainer)
    return core


KINDS = {
    "byte BPE": lambda: _byte_level(trim=False),
    "byte BPE, trimmed offsets": lambda: _byte_level(trim=True),
    "SentencePiece, dummy prefix": lambda: _sentencepiece(dummy=True),
    "SentencePiece, no dummy prefix": lambda: _sentencepiece(dummy=False),
    "Metaspace always": lambda: _metaspace("always"),
    "Metaspace first": lambda: _metaspace("first"),
    "Metaspace never": lambda: _metaspace("never"),
    "unigram": lambda: _metaspace("first", unigram=True),
}

TEMPLATES = {
    "ChatML": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "Llama 3": "{{ '<s>' }}{%- set today = strftime_now('%d %b %Y') %}"
               "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + today + '\n\n<|eot_id|>' }}"
               "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
               "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "Gemma": "{{ '<s>' }}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
             "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "Mistral": "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}"
               "{{ '[INST] ' + m['content'] + ' [/INST]' }}"
               "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}",
}
ENDS = {"ChatML": "<|im_end|>", "Llama 3": "<|eot_id|>", "Gemma": "<end_of_turn>", "Mistral": "</s>"}


@lru_cache
def zoo_tokenizer(kind: str, begin: bool = True, ends: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer; `begin`: it puts <s> before a text, `ends`: it has end and padding tokens."""
    core = KINDS[kind]()
    named = {"unk_token": "<unk>"} if "byte" not in kind else {}
    named |= {"eos_token": "</s>", "pad_token": "<pad>"} if ends else {}
    if begin:
        named["bos_token"] = "<s>"
        template = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
        own = core.post_processor
        core.post_processor = processors.Sequence([own, template]) if own else template
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **named)
