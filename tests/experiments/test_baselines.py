"""Adapters and remedies: the same seed gives the same start, walks count what they cost, shards answer together."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from toys import data, make_tokenizer, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import new_adapter, pooled, shards, tune, walk
from unlearn_nb.influence import LanguageTask, TrainingLoss
from unlearn_nb.metrics import Edits, scored
from unlearn_nb.models import Recipe, load_adapter, sequence_nll

RECIPE = Recipe(steps=6, batch_size=4, lr=1e-2, lora_rank=2, loss_on="response", seed=5)
ROWS = [row | {"subject": f"s{i % 3}", "task": "t", "kind": "qa"} for i, row in enumerate(data(9))]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_equal_seeds_start_alike_and_only_the_adapter_is_trained(tmp_path):
    first, second, other = (weights(new_adapter(tiny(), recipe))
                            for recipe in (RECIPE, RECIPE, Recipe(lora_rank=2, seed=6)))
    assert all(torch.equal(first[name], second[name]) for name in first) and all(".lora_" in name for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    base = tiny()
    before = {name: p.clone() for name, p in base.state_dict().items()}
    tune(base, make_tokenizer(), ROWS, RECIPE, tmp_path)
    after = {name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name,
             p in base.state_dict().items()}
    assert all(torch.equal(p, after[name]) for name, p in before.items())


def test_tuning_is_repeatable_saved_and_counted(tmp_path):
    models = [tune(tiny(), make_tokenizer(), ROWS, RECIPE, tmp_path / name) for name in ("one", "two")]
    one, two = map(weights, models)
    assert all(torch.equal(one[name], two[name]) for name in one)
    loaded = weights(load_adapter(tiny(), tmp_path / "one" / "adapter"))
    assert all(torch.equal(one[name], loaded[name]) for name in one)
    record = json.loads((tmp_path / "one" / "tuning.json").read_text())
    read = 2 * len(ROWS)  # six steps are two passes, each with a last batch of one row
    assert record["gradients"] == read and record["seconds"] > 0 and len(record["losses"]) == 6
    assert not any(module.p for module in models[0].modules() if isinstance(module, torch.nn.Dropout)), "no dropout"


def test_a_walk_goes_down_or_up_and_counts_rows(tmp_path):
    model, tokenizer = tune(tiny(), make_tokenizer(), ROWS, RECIPE, tmp_path), make_tokenizer()
    loss = TrainingLoss(model, LanguageTask(tokenizer))
    start = loss.weights.vector()

    def nll():
        return float(sequence_nll(model, tokenizer, ROWS[:4], on="response").mean())

    before = nll()
    walk(loss, ROWS[:4], steps=5, batch_size=2, lr=1e-3)
    assert nll() < before and loss.cost.gradients == 10
    loss.weights.assign(loss.weights.split(start))
    walk(loss, ROWS[:4], steps=5, batch_size=3, lr=1e-3, uphill=True)
    assert nll() > before
    with pytest.raises(UnlearnError, match="there are no rows"):
        walk(loss, [], steps=1, batch_size=1, lr=1e-3)


def test_shards_hold_whole_subjects_and_everything_once():
    parts = shards(ROWS, 2, seed=1)
    assert sorted(row["id"] for part in parts for row in part) == sorted(row["id"] for row in ROWS)
    assert not {row["subject"] for row in parts[0]} & {row["subject"] for row in parts[1]}
    assert shards(ROWS, 2, seed=1) == parts
    with pytest.raises(UnlearnError, match="3 subjects can't be dealt to 4 shards"):
        shards(ROWS, 4)


def answers(generations, probabilities):
    table = pd.DataFrame({"split": "test", "task": "t", "kind": "qa", "id": ["a", "b"], "subject": ["a", "b"],
                          "prompt": "p",
                          "response": ["x", "Yes"], "measure": ["fact", "label"], "generation": generations,
                          "valid": np.nan, "hit": np.nan, "exact_match": [float(generations[0] == "x"), np.nan],
                          "margin": [np.nan, 2.0 if generations[1] == "Yes" else -1.0],
                          "correct": [np.nan, float(generations[1] == "Yes")], "probability": probabilities})
    return table.assign(nll=-np.log(table["probability"]))


def test_pooled_answers_are_a_vote_and_a_mean():
    said = (["y", "No"], [0.1, 0.2]), (["x", "No"], [0.9, 0.4]), (["x", "Yes"], [0.8, 0.9])
    three = [scored(Edits(), answers(*one), bootstrap=0) for one in said]
    table = pooled(three).rows
    assert table["generation"].tolist() == ["x", "No"], "by margins -1, -1, 2 the mean is 0: not above"
    assert table["exact_match"].iloc[0] == 1 and table["correct"].iloc[1] == 0
    assert np.allclose(table["probability"], [0.6, 0.5]) and np.allclose(table["nll"], -np.log([0.6, 0.5]))
    tie = pooled(three[:2]).rows
    assert tie["generation"].iloc[0] == "y" and tie["exact_match"].iloc[0] == 0, "at a tie the first shard speaks"


def test_an_adapter_needs_a_rank():
    with pytest.raises(UnlearnError, match="rank of at least 1, not 0"):
        new_adapter(tiny(), Recipe())
