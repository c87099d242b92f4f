"""A small chat model that knows rows of invented people by heart, made offline in about a minute.

`python tests/chatty.py FOLDER` writes FOLDER/model (a chat template in its tokenizer) and forget.jsonl, retain.jsonl
and holdout.jsonl: 12 and 30 rows that the model answers verbatim, in chat and in plain format, and 12 that nobody has
taught it.
"""

import argparse
import json
import os
from pathlib import Path
from random import Random

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import local_torch_dtype

from unlearn_nb.benches import make_biographies
from unlearn_nb.core import write_atomic
from unlearn_nb.models import TINY_CONFIG, encode_rows, generate, tiny_tokenizer

FORMATS = ("chat", "plain")
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SMALL = dict(hidden_size=64, intermediate_size=176, num_hidden_layers=2)
SIZES = {"full": dict(TINY_CONFIG), "small": TINY_CONFIG | SMALL}
STEPS = {"full": (120, 200), "small": (60, 160)}  # of people in no file, then of the rows


def people_rows(people: dict[str, int], seed: int) -> dict[str, list[dict]]:
    """Questions and answers by split, three a person; twice as many people as `people` says."""
    found = {}
    for split, rows in make_biographies(people, seed).items():
        mine = [row for row in rows if row["kind"] == "qa" and row["task"] != "Task2"]
        found[split] = [{"prompt": row["prompt"], "subject": row["subject"],
                         "response": f"It was {row['response']}, as everyone near {row['subject']} knows.",
                         "paraphrases": row["paraphrased_prompts"][:2]} for row in mine]
    return found


def chatty_rows(seed: int = 0) -> dict[str, list[dict]]:
    """12 rows to forget, 30 to retain, and 12 that nobody has taught, each of three facts of a person."""
    return people_rows({"forget": 2, "retain": 5, "holdout": 2}, seed)


def chatty_tokenizer():
    """The tokenizer of `tiny` with the markup and the template of ChatML."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.model_max_length = TINY_CONFIG["max_position_embeddings"]
    return tokenizer


def teach(model, tokenizer, rows: list[dict], *, formats: tuple[str, ...], steps: int, lr: float, seed: int) -> None:
    """Descend on the answers of rows in all formats."""
    data = [row for template in formats for row in encode_rows(tokenizer, rows, template=template)]
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0), Random(seed)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = rng.sample(data, min(32, len(data)))
        ids, labels = (torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(getattr(row, name)) for row in batch], batch_first=True, padding_value=padding)
            for name, padding in (("input_ids", tokenizer.pad_token_id), ("labels", -100)))
        model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()


def chatty_model(size: str = "full", formats: tuple[str, ...] = FORMATS, seed: int = 0, rows: list[dict] | None = None):
    """Model and tokenizer; the model knows `rows` (those of `chatty_rows`) by heart, in each of the formats."""
    tokenizer, (general, own) = chatty_tokenizer(), STEPS[size]
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LlamaConfig(**SIZES[size] | {"vocab_size": len(tokenizer)}, **special, tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]), local_torch_dtype(torch.float32):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).train()
    others = [row for found in people_rows({"forget": 30}, seed + 977_000).values() for row in found]
    known = chatty_rows(seed)
    known = known["forget"] + known["retain"] if rows is None else rows
    teach(model, tokenizer, others, formats=formats, steps=general, lr=3e-3, seed=seed)
    teach(model, tokenizer, known + others[:42], formats=formats, steps=own, lr=2e-3, seed=seed)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return model.eval(), tokenizer


def verbatim(model, tokenizer, rows: list[dict], template: str) -> int:
    """How many rows a model answers word by word."""
    said = generate(model, tokenizer, rows, template=template, max_new_tokens=40)
    return sum(text.strip() == row["response"] for text, row in zip(said, rows))


def write_chatty(folder: str | Path, size: str = "full", formats: tuple[str, ...] = FORMATS, seed: int = 0) -> Path:
    """Write model and rows into `folder`."""
    folder, model_tokenizer = Path(folder), chatty_model(size, formats, seed)
    for part in model_tokenizer:
        part.save_pretrained(folder / "model")
    for split, rows in chatty_rows(seed).items():
        write_atomic(folder / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--formats", default=",".join(FORMATS), help="in which the model knows its rows")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_chatty(given.folder, given.size, tuple(given.formats.split(",")), given.seed)
    print(given.folder / "model")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
