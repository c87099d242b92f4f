"""Small models, tokenizers and rows that tests share; nothing here is imported from a test file."""

import math

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from unlearn_nb.influence import LanguageTask, TrainingLoss
from unlearn_nb.models import RowsLoss
from unlearn_nb.unlearning import UnlearnSettings, unlearn

VOCAB = 200


DEFAULT = "0.4*npo + 0.4*kl + 0.2*nll"


QUICK = dict(lr=2e-2, steps=3, batch_size=2, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=24)


def make_tokenizer():
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, VOCAB)}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def rows(n, seed):
    """Rows of uneven length; the answers of the first two are the shortest and the longest."""
    generator = torch.Generator().manual_seed(seed)

    def words(count):
        return " ".join(f"w{i}" for i in torch.randint(3, VOCAB, (count,), generator=generator).tolist())

    lengths = torch.randint(2, 9, (n, 2), generator=generator).tolist()
    return [
        {"prompt": words(a), "response": words(1 if i == 0 else 12 if i == 1 else b)}
        for i, (a, b) in enumerate(lengths)
    ]


FORGET, RETAIN = rows(8, seed=1), rows(10, seed=2)


def tiny(seed=0, tied=False, dtype=torch.float32):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.15,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def with_adapter(model, seed=3):
    """A target that is base + adapter, the adapter far from zero and with dropout."""
    torch.manual_seed(seed)
    target = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=6, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return target.eval()


def run(model, tokenizer, out, objective=DEFAULT, **changes):
    extra = {key: changes.pop(key) for key in ("on_step", "snapshots", "forget", "retain", "region") if key in changes}
    rows = {"forget": FORGET, "retain": RETAIN} | extra
    return unlearn(model, tokenizer, objective=objective, settings=UnlearnSettings(**QUICK | changes), out=out,
                   progress=False, **rows)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def small(name, **changes):
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, n_embd=32, n_layer=2, n_head=4
    )
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes | changes)).eval()


def gpt2(seed=0, width=8, layers=1, tied=True):
    """A GPT-2 in float64 (Llama's norm computes in float32 whatever it is given)."""
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=width, n_layer=layers, n_head=2, bos_token_id=1,
                        eos_token_id=1, initializer_range=0.15, tie_word_embeddings=tied)
    return GPT2LMHeadModel(config).double().eval()


def lora(model, r=2, targets="all-linear", seed=1):
    """An adapter in float64 that is not at its start, where B would be zero and A have no gradient."""
    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=r, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model, config).double().eval()


def peft(model, kind):
    torch.manual_seed(2)
    return get_peft_model(model, kind).eval()


def data(n=5, seed=0):
    return [row | {"id": f"r{i}"} for i, row in enumerate(rows(n, seed))]


def language_loss(model, **options):
    return TrainingLoss(model, LanguageTask(make_tokenizer(), RowsLoss("rows", max_length=48)), **options)


SIZES = dict(intermediate_size=48, num_key_value_heads=2, ffn_dim=48, word_embed_proj_dim=32,
             max_position_embeddings=64, n_inner=None, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def log_softmax(row):
    """Independent of torch: stable log-softmax of one row of numbers."""
    top = max(row)
    total = math.fsum(math.exp(x - top) for x in row)
    return [x - top - math.log(total) for x in row]


def semeval_table(seed=0, people=5, tasks=("Task1", "Task2"), completions=True, holdout=True, general=6, questions=2):
    """Random rows with every column that a suite reads."""
    rng, rows = np.random.default_rng(seed), []
    for split in ("forget", "retain", "collateral") + (("holdout",) if holdout else ()):
        for task in tasks:
            for person in range(people):
                for kind in ["completion"] * completions + ["qa"] * questions:
                    rows.append(
                        {
                            "split": split,
                            "task": task,
                            "kind": kind,
                            "subject": f"{split}{task}{person}",
                            "rougeL": rng.uniform(0.05, 0.95),
                            "exact_match": float(rng.random() < 0.6),
                            "repetitive": float(rng.random() < 0.2),
                            "generation": "text",
                            "nll": round(rng.normal(2, 1), 1),
                            "correct": np.nan,
                            "member": {"forget": 1.0, "holdout": 0.0}.get(split, np.nan),
                        }
                    )
    for i in range(general):
        rows.append(
            {
                "split": "general",
                "task": "general",
                "kind": "qa",
                "subject": f"g{i}",
                "generation": "b",
                "correct": float(i % 3 > 0),
                "member": np.nan,
            }
        )
    return pd.DataFrame(rows).assign(id=lambda t: [f"r{i}" for i in range(len(t))], prompt="p", response="r")


def fact_row(prompt, response, facts=(), perturbed=(), kind="qa", split="forget", number=0):
    """A row as a bench has it."""
    return {
        "split": split, "task": "Task1", "kind": kind, "id": f"{split}-{number}", "subject": f"{split} {number // 2}",
        "prompt": prompt, "response": response, "perturbed_responses": list(perturbed),
        "facts": [{"slot": f"slot{i}", "value": value} for i, value in enumerate(facts)],
    }


class Replies:
    """A writer that gives prepared rounds of replies."""

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def write(self, prompts):
        self.asked.append(prompts)
        return self.rounds.pop(0)
