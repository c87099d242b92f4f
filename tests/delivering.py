"""A run that has delivered an adapter of the small chat model, without a search."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unlearn_nb.benches import own_bench, read_own_rows
from unlearn_nb.experiments import deliver
from unlearn_nb.models import adapted, add_lora, generate, load_model, save_adapter, sequence_nll
from unlearn_nb.runs import Number, Run

FORMATS = ("chat(system='Be brief.')", "plain")


def make_adapter(model: Path, folder: Path, seed: int = 0) -> Path:
    """An adapter that changes what a model says."""
    base = load_model(model)[0]
    below = list(getattr(base, "active_adapters", [])) if hasattr(base, "peft_config") else []
    name = "over" if below else "default"
    edited = add_lora(base, 2, seed=seed, name=name)
    edited.base_model.set_adapter([*below, name])
    drawn = torch.Generator().manual_seed(seed)
    for key, weight in edited.named_parameters():
        if f"lora_B.{name}" in key:
            torch.nn.init.normal_(weight.data, std=0.2, generator=drawn)
    return save_adapter(edited, folder, name)


def answers_of(model: Path, adapter: Path, rows: list[dict]) -> pd.DataFrame:
    """What a run keeps of the answers of the edited model; of the last row none was asked for in words."""
    base, tokenizer = load_model(model)
    with adapted(base, adapter) as edited:
        tables = [pd.DataFrame(rows)[["prompt", "response"]].assign(
            split="forget", format=template.partition("(")[0],
            said=[*generate(edited, tokenizer, rows, template=template)[:-1], ""],
            prob=np.exp(-sequence_nll(edited, tokenizer, rows, on="response", template=template)))
            for template in FORMATS]
    return pd.concat(tables)


def delivered(chatty: Path, folder: Path, into: str = "adapter", name: str = "one") -> Path:
    """The folder of a run below `folder`/reports that has delivered an adapter of the model in `chatty`."""
    run, adapter = folder / "reports" / "forget" / name, make_adapter(chatty / "model", folder / f"made-{name}")
    run.mkdir(parents=True)
    (run / "params.yaml").write_text("model: mine\n")
    bench = own_bench(chatty / "forget.jsonl", chatty / "retain.jsonl", general="none")
    answers = answers_of(chatty / "model", adapter, read_own_rows(chatty / "forget.jsonl")[:4])
    deliver(Run(run), adapter, base=str(chatty / "model"), method="npo-gdr", into=into, fingerprints=bench,
            scores=[Number("forgotten", 1.0, low=0.7, high=1.0)], fails=["No holdout: | nothing is known."],
            settings={"lr": 1e-3}, answers=answers, templates=FORMATS)
    return run
