"""An oracle that knows the forget rows, a target that does not, a holdout that was trained on: said first, withheld."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from toys import make_tokenizer

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    MergingExperiment,
    merging_plan,
    probe_rows,
    probed,
    score_candidate,
    score_other_format,
    truth_of,
)
from unlearn_nb.metrics import compare_table, formats_table
from unlearn_nb.models import Given, load_model
from unlearn_nb.runs import Run


@pytest.fixture(scope="module")
def make(tmp_path_factory, smoke_bench, smoke_prepared):
    """A seed of the merging study on models as they are given."""
    run = Run.open(tmp_path_factory.mktemp("run"))

    def experiment(target, oracle, bench=smoke_bench):
        given = Given(str(getattr(smoke_prepared, target)), str(getattr(smoke_prepared, oracle, oracle)))
        return MergingExperiment(run, given.target, bench, merging_plan("tiny", "smoke"), given=given)

    return experiment


@pytest.fixture(scope="module")
def trained_holdout(smoke_bench):
    """The bench with half of the retain people, whom target and oracle were taught, in the place of the holdout."""
    people = sorted(set(smoke_bench.retain["subject"]))[::2]
    inside = [subject in people for subject in smoke_bench.retain["subject"]]
    rows = {flag: smoke_bench.retain.select([i for i, one in enumerate(inside) if one == flag])
            for flag in (True, False)}
    return replace(smoke_bench, holdout=rows[True], retain=rows[False])


def test_models_that_are_what_they_are_called(make):
    experiment = make("target", "oracle")
    truth = experiment.truth
    assert not truth.missing and not truth.warning
    known = truth.table.set_index("question")["value"].to_dict()
    assert min(known.values()) < 0.15 and max(known.values()) > 0.95 and experiment.known_models == ["target", "oracle"]
    assert not experiment.prepared.target_losses and experiment.prepared.seconds == 0  # nothing was taught


def test_an_oracle_that_knows_the_forget_rows(make):
    experiment = make("target", "target")
    truth = experiment.truth
    assert truth.missing == {"oracle": "the oracle knows the forget rows"} and experiment.known_models == ["target"]
    assert str(truth).startswith("The oracle knows the forget rows (share of what the target knows")
    assert truth.warning == "The oracle knows the forget rows: what depends on it is not available."
    scores = score_candidate(experiment, "target", "validation")
    assert truth.distance(scores, scores) == "not available: the oracle knows the forget rows"
    assert "<strong>The oracle knows the forget rows" in truth._repr_html_()


def test_a_target_that_does_not_know_them(make):
    experiment = make("oracle", "none")
    truth = experiment.truth
    assert truth.missing == {"target": "the target does not know the forget rows", "oracle": "no oracle"}
    assert str(truth).startswith("The target does not know the forget rows (how far")
    assert truth.warning == "The target does not know the forget rows: what depends on it is not available."
    assert experiment.prepared.oracle is None and "There is no oracle" in str(truth)


def test_a_holdout_that_was_trained_on(make, trained_holdout):
    experiment = make("target", "none", trained_holdout)
    assert experiment.truth.missing["holdout"] == "the holdout was trained on"
    assert str(experiment.truth).startswith("The holdout was trained on (share of what")
    scores = score_candidate(experiment, "target", "validation")
    gone = {name for name, value in scores.summary.items() if math.isnan(value)}
    assert gone == {"mia_auc", "mia_score", "final"}
    shown = compare_table({"target": scores})["target"]
    assert set(shown[list(gone)]) == {"not available: the holdout was trained on"}


def test_a_target_is_asked_in_the_other_format_as_well(make):
    """It was taught as a plain text, so that it knows nothing in a chat that it never saw."""
    experiment = make("target", "none")
    here, there = score_candidate(experiment, "target", "validation"), score_other_format(
        experiment, "target", "validation")
    table = formats_table({"target": here}, {"target": there}).set_index("metric")
    assert there.meta["template"].startswith("chat(") and table.loc["forget_knowledge", "difference"] < -0.9


def test_what_is_probed_does_not_depend_on_names(smoke_bench, smoke_prepared):
    """Half of the forget rows in an oracle are enough to give it away."""
    rows = probe_rows(smoke_bench)
    knows, innocent = (probed(*load_model(folder), rows) for folder in (smoke_prepared.target, smoke_prepared.oracle))
    half = pd.concat([knows[knows["split"] == "forget"][::2], innocent]).drop_duplicates("id").set_index("id")
    assert truth_of(knows, half.loc[knows["id"]].reset_index()).missing == {
        "oracle": "the oracle knows the forget rows"}


def test_an_oracle_of_another_tokeniser_is_refused(make, smoke_prepared, tmp_path):
    model, _ = load_model(smoke_prepared.oracle)
    model.save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(UnlearnError, match="the oracle has another tokeniser than the target"):
        make("target", str(tmp_path / "other")).truth  # noqa: B018
