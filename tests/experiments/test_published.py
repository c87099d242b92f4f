"""A published log as the oracle: numbers only, with invented texts."""

import json

import pandas as pd
import pytest
from published import logs

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    MergingExperiment,
    given_models,
    log_number,
    log_quality,
    log_rows,
    merging_plan,
    scores_summary,
)
from unlearn_nb.runs import Run


def published(folder, count, rows=None):
    """The first forget rows of a published log, with the texts of `rows` where they are given."""
    kept = {name: one["value_by_index"] for name, one in logs()["tofu-retain90"].items()
            if name.startswith("forget_Q_A")}
    log = {name: {"agg_value": None, "value_by_index": {str(i): dict(found[str(i)]) for i in range(count)}}
           for name, found in kept.items()}
    for i, row in enumerate(rows or ()):
        log["forget_Q_A_ROUGE"]["value_by_index"][str(i)] |= {
            "input": f"user\n\n{row['prompt']}assistant", "ground_truth": row["response"], "generation": ""}
    path = folder / "TOFU_EVAL.json"
    path.write_text(json.dumps(log))
    return path


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, smoke_bench, smoke_prepared):
    run, given = Run.open(tmp_path_factory.mktemp("run")), given_models(str(smoke_prepared.target), "TOFU_EVAL.json")
    return MergingExperiment(run, given.target, smoke_bench, merging_plan("tiny", "smoke"), given=given)


def test_forget_quality_is_read_against_a_log(experiment, tmp_path):
    """A log is no model: all else that needs an oracle stays without one."""
    rows = list(experiment.bench.forget)
    path = published(tmp_path, len(rows), rows)
    found = log_quality(experiment, "target", path)
    assert found < -1.3, "a model that recites the rows is told from one that has never seen its own"
    assert experiment.prepared.oracle is None and experiment.known_models == ["target"]
    number = log_number(found, found, path, missing=experiment.truth.missing)
    table = pd.DataFrame([{"seed": 0, "model": name, "metric": "f", "value": 0.9, "low": 0.8, "high": 1.0}
                          for name in ("ours", "target")])
    said = scores_summary(table, "Ours", "ours", columns={"forgotten": "f"}, found=pd.DataFrame({"holds": [],
                                                                                                 "why": []}),
                          missing=experiment.truth.missing, quality=number)
    assert said.numbers[3] is number and "TOFU_EVAL.json" in number.note and "oracle" in said.numbers[0].note


def test_a_log_of_other_rows_is_refused(experiment, tmp_path):
    rows = list(experiment.bench.forget)
    with pytest.raises(UnlearnError, match=f"has 12 forget rows and the bench {len(rows)}: give the log of the same"):
        log_rows(published(tmp_path, 12), rows)
    others = [rows[0] | {"prompt": "Invented?"}, *rows[1:]]
    with pytest.raises(UnlearnError, match=f"does not ask 1 of {len(rows)} forget rows"):
        log_rows(published(tmp_path, len(rows), others), rows)
    assert len(log_rows(published(tmp_path, len(rows)), rows)) == len(rows), "a log without texts is compared in count"
    with pytest.raises(UnlearnError, match="have none"):
        log_rows(published(tmp_path, len(rows)), [row | {"perturbed_responses": []} for row in rows])
