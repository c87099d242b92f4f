"""Which measure is believed follows from models of which it is known whether they know, and the report follows that."""

import numpy as np
import pandas as pd
import pytest

from unlearn_nb.benches import load_bench
from unlearn_nb.experiments import (
    POOL,
    beliefs_in_words,
    believed,
    compare_plan,
    compare_summary,
    disagreement,
    examined,
    in_order,
    measures_with,
    overview,
    pool_of,
    rankings,
    sentence_of,
    trust_table,
)

ATTACKS = compare_plan("tiny", "quick").attacks
MEASURES = measures_with(ATTACKS)
DEPTH, STRENGTH = "forgetting by depth (UDS)", "forgetting by extraction strength"


def checkpoints(blind, sees, *, models=5, knows=0.9):
    """Models by two measures of forgetting: one that relearning proves blind, and one that sees what is hidden."""
    random, lines = np.random.default_rng(0), []
    for role, count, level in (("known", models, knows), ("unknown", models, 0.1), ("oracle", 1, 0.1),
                               ("unlearned", 3, 0.1)):
        for i in range(count):
            for state in ("before", "relearned", "rounded"):
                known = level + random.normal(0, 0.01) + 0.1 * (state == "relearned")
                hidden = 0.5 * (state == "relearned" and role == "unlearned")
                turned = {name: 1 - value if MEASURES[name].better == "higher" else value
                          for name, value in ((blind, known + hidden), (sees, known))}
                lines.append({"model": f"{role} {i}", "role": role, "state": state, "utility": 0.9, **turned})
    return pd.DataFrame(lines)


def result():
    """Rows of contestants A and B, each of which wins by one of the two measures."""
    levels = {"target": (0.9, 0.0), "oracle": (0.1, 1.0), "A": (0.1, 0.4), "B": (0.4, 0.95)}
    lines = [{"contestant": name, "seed": 0, "split": split, "id": f"{split}{i}", "subject": f"{split}{i}",
              "p": strength if split == "forget" else 0.9, "es": strength if split == "forget" else 0.9,
              "erased": erased if split == "forget" else np.nan}
             for name, (strength, erased) in levels.items() for split in ("forget", "retain", "collateral")
             for i in range(8)]
    return pd.DataFrame(lines)


@pytest.mark.parametrize(("blind", "sees", "winner"), [(STRENGTH, DEPTH, "B"), (DEPTH, STRENGTH, "A")])
def test_the_measure_that_is_believed_leads_and_names_the_winner(blind, sees, winner):
    trust = trust_table(checkpoints(blind, sees), examined(ATTACKS))
    assert believed(trust) == [sees]
    said = " ".join(beliefs_in_words(trust, MEASURES))
    assert f"{sees[0].upper()}{sees[1:]} leads" in said
    assert f"{blind[0].upper()}{blind[1:]} is not believed: it does not see what is only hidden" in said
    order = list(in_order(MEASURES, trust))
    assert order[0] == sees and order.index(blind) == sum(one.split == "forget" for one in MEASURES.values()) - 1

    rows = result()
    found = rankings(rows, in_order(MEASURES, trust))
    assert next(iter(found)) == sees and f"{winner} is first" in disagreement(found, [sees])
    candidates = pd.DataFrame([{"contestant": name, "family": "one", "strength": 1.0, "step": 1, "seed": 0, "lost": 0.1,
                                "balance": 0.5, "chosen": True, "adapter": "stages/a", "seconds": 1.0, "rows": 1.0,
                                "peak_mb": 1.0} for name in "AB"])
    summary = compare_summary(overview(candidates, rows, MEASURES, lead=sees), rows, found=found, measures=MEASURES,
                              best=candidates.set_index("contestant"), believed=[sees])
    assert f"{winner} comes closest to the oracle" in summary.verdict and f"{sees[11:]})" in summary.verdict
    assert f"of {winner}" in summary.numbers[0].note and sees[14:] in summary.numbers[0].note
    assert (sees in sentence_of(rows, "B", lead=sees, measures=MEASURES)) == (sees == DEPTH)


def test_few_models_noise_and_nothing_are_told_apart():
    few = trust_table(checkpoints(STRENGTH, DEPTH, models=2), examined(ATTACKS))
    assert not believed(few) and "2 models that know and 2 that don't are too few" in beliefs_in_words(few, MEASURES)[1]
    alike = trust_table(checkpoints(STRENGTH, DEPTH, knows=0.1), examined(ATTACKS))
    assert not believed(alike) and "does not tell models that know" in " ".join(beliefs_in_words(alike, MEASURES))
    nothing = trust_table(pd.DataFrame(), examined(ATTACKS))
    assert "was not examined" in beliefs_in_words(nothing, MEASURES)[0]
    assert list(in_order(MEASURES, nothing)) == [*(name for name in MEASURES if MEASURES[name].split == "forget"),
                                                 *(name for name in MEASURES if MEASURES[name].split != "forget")]


def test_each_kind_of_the_pool_has_a_mate_and_takes_only_rows_that_the_bench_has():
    bench = load_bench("biographies", "smoke")
    asked = list(bench.split("forget", "test"))
    assert list(pool_of(bench, asked)) == list(POOL)
    roles = [one.role for one in POOL.values()]
    assert roles.count("known") == roles.count("unknown") == 5
    bare = [row | {"paraphrased_prompts": [], "perturbed_responses": []} for row in asked]
    assert {name for name in POOL if "wrong" in name or "words" in name} == set(POOL) - set(pool_of(bench, bare))
    wrong = POOL["oracle, taught wrong answers"].rows(bench, asked)
    assert all(one["response"] != row["response"] and one["prompt"] == row["prompt"] for one, row in zip(wrong, asked))
