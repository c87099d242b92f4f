"""Traps of published code: each acts on a toy, and what is said of them follows the numbers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import toys
import yaml
from safetensors.torch import load_file

from unlearn_nb.benches import as_dataset
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    READERS,
    audit_plan,
    audit_summary,
    audit_verdict,
    chance_said,
    published_edits,
    read_traps,
    side_rows,
    trap_effects,
    trap_sentences,
    traps_of,
)
from unlearn_nb.experiments.audit_training import augmented_rows
from unlearn_nb.unlearning import UnlearnSettings, unlearn

TRAPS = read_traps()
TRAINED = [name for name, trap in TRAPS.items() if trap.wrong]
ABOUT = {"subject": "one", "task": "Task1", "kind": "qa", "part": "test"}


@pytest.fixture(scope="module")
def world():
    """A small model with its tokeniser, and rows of a bench, augmented ones among them."""
    named = [[{**row, **ABOUT, "id": f"{who}{i}", "subject": f"s{i // 2}"} for i, row in enumerate(rows)]
             for who, rows in (("f", toys.FORGET), ("r", [*toys.RETAIN, *toys.RETAIN]))]
    vague = [{**row, "id": f"{row['id']}/v{i}", "source_id": row["id"], "variant": f"v{i}", "response": f"w{9 + i} w20"}
             for row in named[0] for i in range(2)]
    return SimpleNamespace(model=toys.tiny(), tokenizer=toys.make_tokenizer(), forget=named[0], retain=named[1],
                           vague=vague)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A function that gives the adapter's tensors after a training of three steps, trained once."""
    found, folder = {}, tmp_path_factory.mktemp("sides")

    def train(one):
        if one not in found:
            augmented = augmented_rows(one.augmented, world.vague, world.forget) if one.augmented else None
            retain = world.retain[: len(world.forget)] if one.retain == "first" else world.retain
            forget, augmented = (augmented, None) if one.forget == "augmented" else (world.forget, augmented)
            settings = UnlearnSettings(**toys.QUICK | {"batch_size": 2, "accumulation": 2}, mask=one.mask, seed=1)
            out = folder / str(len(found))
            unlearn(world.model, world.tokenizer, forget=forget, retain=retain, augmented=augmented,
                    objective=one.objective, settings=settings, out=out, progress=False)
            found[one] = load_file(out / "adapter_model.safetensors")
        return found[one]

    return train


# a mean over rows of micro-batches of one size is the mean over the step's rows
SAME = {"npo-micro-batch"}


@pytest.mark.parametrize("name", TRAINED)
def test_a_trap_of_training_changes_the_adapter(name, trained):
    right, wrong = trained(TRAPS[name].right), trained(TRAPS[name].wrong)
    apart = max(float((right[key] - wrong[key]).abs().max()) for key in right)
    assert (apart < 1e-5) if name in SAME else (apart > 1e-5)


def test_rows_of_a_side_are_those_that_it_names(world):
    bench = SimpleNamespace(forget=as_dataset(world.forget), kept_rows=lambda: as_dataset(world.retain))
    first = TRAPS["retain-by-position"].wrong
    assert [row["id"] for row in side_rows(bench, first, None)[1]] == [row["id"] for row in world.retain[:8]]
    secrets = augmented_rows("secrets", world.vague, world.forget)
    assert {row["response"] for row in world.forget} <= {row["response"] for row in secrets}
    assert all(row["rejected"] in {one["response"] for one in world.forget} for row in secrets)


def test_every_trap_without_a_training_is_measured_somewhere():
    edits = {"half-gradient", "sign-steps", "batch-mean-gradient", "lissa-sign"}
    assert {name for name, trap in TRAPS.items() if not trap.wrong} == set(READERS) | edits | {"ties-on-factors"}
    assert len(TRAPS) >= 20


def test_the_traps_that_a_budget_tries_are_traps_and_a_smaller_budget_spends_less():
    smoke, quick = audit_plan("tiny", "smoke"), audit_plan("tiny", "quick")
    assert set(smoke.traps) < set(TRAPS) and not quick.traps and quick.settings.steps > smoke.settings.steps


def test_edits_of_the_published_loop_are_what_its_equation_gives():
    asked = []

    def edit_by(solver, damping):
        asked.append((solver, damping))
        edit = SimpleNamespace(solution=SimpleNamespace(damping=0.3), length=1.0)
        edit.scale = lambda factor: SimpleNamespace(length=factor)
        return edit

    edits = published_edits(edit_by, products=5)
    assert edits["half-gradient"][1].length == 2 and edits["batch-mean-gradient"][1].length == 1 / 8
    assert ("cg(max_products=5)", 0.6) in asked and ("lissa(steps=10, batch=2, faithful=True)", 0.3) in asked


def values(shifts, seeds=3, people=12):
    """Made-up results: a shift for each trap, with a spread that subjects and seeds share out."""
    rng = np.random.default_rng(0)
    base = pd.DataFrame({"seed": np.repeat(range(seeds), people), "subject": [f"p{i}" for i in range(people)] * seeds})
    level = rng.uniform(0.2, 0.5, len(base))
    moved = {name: level + rng.normal(shift, spread, len(base)) for name, (shift, spread) in shifts.items()}
    return pd.concat([base.assign(**{"trap": name, "without": level, "with": value}) for name, value in moved.items()])


def test_other_results_make_another_verdict_and_other_sentences():
    chosen = {name: TRAPS[name] for name in ("npo-token-mean", "es-floor", "rouge-stems")}
    shifts = {"npo-token-mean": (0.3, 0.02), "es-floor": (0.1, 0.02), "rouge-stems": (0, 0.05)}
    one = trap_effects(values(shifts), chosen)
    shifts = {"npo-token-mean": (0, 0.05), "es-floor": (-0.2, 0.02), "rouge-stems": (0, 0)}
    other = trap_effects(values(shifts), chosen)
    assert one["trap"].tolist() == ["npo-token-mean", "es-floor", "rouge-stems"]
    assert other["trap"].iloc[0] == "es-floor" and other["value"].iloc[0] < 0
    assert audit_verdict(one).startswith("2 of 3 published traps change what is measured, most of all npo-token-mean (")
    assert audit_verdict(other).startswith("1 of 3 published traps change what is measured, most of all es-floor (")
    said = [dict(zip(table["trap"], trap_sentences(table))) for table in (one, other)]
    assert "told apart" not in said[0]["npo-token-mean"] and "can't be told apart" in said[1]["npo-token-mean"]
    assert "can't be told apart" in said[0]["rouge-stems"] and "changes nothing here" in said[1]["rouge-stems"]
    assert [number.name.partition(":")[0] for number in audit_summary(one).numbers] == [
        "npo-token-mean", "es-floor", "rouge-stems", "share of traps that act"]
    assert audit_summary(one).numbers[-1].value == pytest.approx(2 / 3)
    assert audit_summary(one).numbers[-1].note == "of 3 that were measured"
    assert chance_said(one) != chance_said(one.iloc[:1])


def test_what_was_not_measured_is_said_and_counts_nowhere():
    chosen = {name: TRAPS[name] for name in ("es-floor", "mia-tuned-on-test")}
    found = trap_effects(values({"es-floor": (0.3, 0.02)}), chosen)
    assert found["trap"].tolist() == ["es-floor", "mia-tuned-on-test"]
    assert "was not measured" in trap_sentences(found)[1]
    assert audit_verdict(found).startswith("1 of 1 published traps")
    alone = trap_effects(values({"es-floor": (0.3, 0.02)}, people=3, seeds=1), chosen)
    assert "too few subjects and seeds for an interval" in trap_sentences(alone)[0] and not alone["acts"].any()
    unknown = {"target": "the target does not know the forget rows"}
    assert audit_summary(found, unknown).verdict.startswith("The target does not know the forget rows")


def test_seeds_that_disagree_widen_the_interval():
    agreed = values({"es-floor": (0.1, 0.001)})
    torn = agreed.assign(**{"with": agreed["with"] + agreed["seed"].map({0: -0.2, 1: 0.0, 2: 0.2})})
    one, other = (trap_effects(table, {"es-floor": TRAPS["es-floor"]}).iloc[0] for table in (agreed, torn))
    assert one["acts"] and not other["acts"] and one["value"] == pytest.approx(other["value"])


def test_a_list_with_a_mistake_is_refused():
    rights = yaml.safe_load("npo: {objective: npo + nll}")
    mine = {"code": "me", "what": "errs", "measure": "KFR"}
    for fields, part in (({"right": "nothing"}, "departs from the training 'nothing'"),
                         ({"wrong": {"objective": "npo", "retain": "some"}}, "retain is 'some'"),
                         ({"wrong": {"objective": "npo", "forget": "augmented"}}, "there are none")):
        with pytest.raises(UnlearnError, match=part):
            traps_of(rights, {"mine": mine | fields})
