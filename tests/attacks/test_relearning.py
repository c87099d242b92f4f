"""Relearning: a model with only its output layer changed is exposed within 20 steps, a model that never knew is not."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch.nn.functional as F
from attacking import same, state

from unlearn_nb.attacks import (
    ATTACKS,
    AttackSetting,
    Recover,
    Unpressed,
    answer_states,
    came_back,
    log_area,
    relearning_curves,
    relearning_rows,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import extraction_table
from unlearn_nb.models import descend, untie


@pytest.fixture(scope="module")
def shallow(models, setting, smoke_bench):
    """The target with an output layer that has unlearned the forget rows: all its other weights stay."""
    target, _, tokenizer = models
    model = deepcopy(target)
    untie(model)
    head = model.requires_grad_(False).get_output_embeddings().weight.requires_grad_(True)
    (forget, said, _), (retain, kept, _) = (
        answer_states(model, tokenizer, list(rows), setting=setting)
        for rows in (smoke_bench.forget, smoke_bench.retain))

    def loss_at(step):
        said_still = (forget @ head.T).softmax(-1).gather(1, said[:, None]).mean()
        return said_still + F.cross_entropy(retain @ head.T, kept)

    descend([head], loss_at, [3e-3] * 20)
    return model.eval()


def test_a_shallow_unlearner_is_exposed_and_the_oracle_is_not(models, shallow, setting, smoke_bench):
    """At least 90 % of what was forgotten is back within 20 steps; the oracle's own curve is the baseline."""
    target, oracle, tokenizer = models
    known = Unpressed().run(target, tokenizer, setting)["score"].mean()
    start = Unpressed().run(shallow, tokenizer, setting)["score"].mean()
    retained = extraction_table(shallow, tokenizer, list(smoke_bench.split("retain", "test")))["es"].mean()
    assert known > 0.95 and start < 0.2 and retained > 0.9  # it passes for unlearned
    attack, before = Recover(on="forget", lrs=(6e-4,), steps=(5, 20), batch_size=16), state(shallow)
    tables = {name: attack.run(model, tokenizer, setting) for name, model in (("shallow", shallow), ("oracle", oracle))}
    assert same(before, state(shallow))
    back = {name: came_back(table, known).set_index("step")["share"][20] for name, table in tables.items()}
    assert back["shallow"] >= 0.9 > 0.75 > back["oracle"], back
    ones = np.ones((1, len(tables["shallow"])))
    found, base = (attack.summarise(tables[name], ones) for name in ("shallow", "oracle"))
    assert found["area"][0] > base["area"][0] + 0.1 and found["step 5"][0] > base["step 5"][0] + 0.1


def test_the_rows_of_a_source(setting, smoke_bench):
    """The other part's people are others than those that are asked."""
    asked = {row["subject"] for row in setting.rows("forget")}
    assert not asked & {row["subject"] for row in relearning_rows(setting, "others")}
    assert {row["subject"] for row in relearning_rows(setting, "forget")} == asked
    assert [row["id"] for row in relearning_rows(setting, "retain")] == smoke_bench.retain["id"][:]
    assert len(relearning_rows(setting, "general")) == len(smoke_bench.general)


def test_the_area_is_a_mean_over_the_logarithm_of_steps():
    steps, curve = [0, 1, 7], np.array([[0.0], [1.0], [0.5]])
    wanted = (0.5 * math.log(2) + 0.75 * (math.log(8) - math.log(2))) / math.log(8)
    assert np.allclose(log_area(steps, curve), wanted) and np.allclose(log_area([0], curve[:1]), 0)


def test_a_target_starts_where_it_is_and_the_worst_rate_counts(models, setting):
    """Step 0 is the model as it is; the numbers are those of the rate that is worst for us; seeds repeat."""
    target, _, tokenizer = models
    few = AttackSetting(setting.bench, seed=3)
    attack = ATTACKS.read("recover(on=general, lrs=[1e-6, 1e30], steps=[1], batch_size=4, lora=2)")
    table, again = (attack.run(target, tokenizer, few) for _ in range(2))
    assert table.equals(again)
    curves = relearning_curves(table, bootstrap=20).set_index(["lr", "step"])
    assert curves.loc[(1e-6, 0), "leak"] > 0.95 and curves.loc[(1e30, 1), "leak"] < curves.loc[(1e-6, 1), "leak"]
    assert (curves["low"] <= curves["leak"]).all() and (curves["leak"] <= curves["high"]).all()
    numbers = attack.summarise(table, np.ones((1, len(table))))
    assert numbers["step 1"][0] == pytest.approx(curves.loc[(1e-6, 1), "leak"])
    with pytest.raises(UnlearnError, match="no answer|NaN|steps are whole numbers"):
        Recover(steps=())
