"""open-unlearning's EVAL layout: published logs, read, written and read again, and as the oracle of forget quality."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from published import logs

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Membership,
    Tofu,
    eval_log,
    log_column,
    log_oracle,
    log_summary,
    read_log,
    scored,
    tofu_log_rows,
    write_eval,
)

OURS = {"mia_min_k_plus_plus": "min_k_plus"}


def scores_of(log, **options):
    return scored(Tofu(faithful="open-unlearning", **options), tofu_log_rows(log), bootstrap=0)


def attacked(log):
    """Scores of the suite `membership` with the rows of a log."""
    sides = {side: {OURS.get(name, name.removeprefix("mia_")): log_column(log[name], side) for name in log
                    if name.startswith("mia_")} for side in ("forget", "holdout")}
    rows = pd.concat([pd.DataFrame(columns).assign(split=side, member=float(side == "forget"), task="t",
                                                   subject=[f"{side}{i}" for i in range(len(columns["loss"]))])
                      for side, columns in sides.items()], ignore_index=True)
    return scored(Membership(faithful="open-unlearning"), rows, bootstrap=0)


@pytest.mark.parametrize("name", ["tofu-full", "tofu-retain90"])
def test_a_published_log_is_written_as_it_was_read(name, tmp_path):
    log = logs()[name]
    path = write_eval(scores_of(log), tmp_path, "TOFU", membership=attacked(log))
    again = read_log(path)
    assert set(log) - set(again) <= {"forget_quality", "privleak", "model_utility"}
    for metric in (name for name in log if name.endswith(("_Prob", "PERT_Prob", "PARA_Prob"))):
        assert log_column(again, metric, "avg_loss") == pytest.approx(log_column(log, metric, "avg_loss"), nan_ok=True)
    for metric in ("extraction_strength", "exact_memorization"):
        assert np.array_equal(log_column(again, metric), log_column(log, metric))
    for attack in (name for name in log if name.startswith("mia_")):
        for side in ("forget", "holdout"):
            assert np.array_equal(log_column(again[attack], side), log_column(log[attack], side))
    before, after = log_summary(log), log_summary(again)
    assert before.keys() == after.keys() and {k: after[k] for k in before} == pytest.approx(before)
    summary = json.loads((tmp_path / "TOFU_SUMMARY.json").read_text())
    assert summary["model_utility"] == pytest.approx(before["model_utility"]) and "mia_min_k" in summary
    assert {key: again[key]["agg_value"] for key in summary} == summary


def test_a_retain_models_log_is_the_oracle_of_forget_quality():
    """The published 3.9e-22 of the model that was not unlearned, and 1 of the retain model itself."""
    retain = log_oracle(logs()["tofu-retain90"], faithful="open-unlearning")
    full = scores_of(logs()["tofu-full"], oracle=retain)
    assert full.summary["forget_quality"] == pytest.approx(3.9054713571083378e-22)
    assert math.isclose(scores_of(logs()["tofu-retain90"], oracle=retain).summary["forget_quality"], 1)
    log = eval_log(full, oracle=logs()["tofu-retain90"])
    assert log["forget_quality"]["agg_value"] == pytest.approx(3.9054713571083378e-22)


def test_a_log_is_compared_in_what_it_tells():
    """Part, template and tokens are not told by a log; how its numbers were put together is."""
    ours = scores_of(logs()["tofu-full"])
    ours.meta.update(part="test", template="chat(date=2024-07-26)", tokens="abc")
    ours.require_alike(log_oracle(logs()["tofu-retain90"], faithful="open-unlearning"))
    with pytest.raises(UnlearnError, match="can't compare scores of faithful"):
        ours.require_alike(log_oracle(logs()["tofu-retain90"]))


def test_a_log_of_fewer_rows_can_be_an_oracle():
    """The samples of the test need not be of one size."""
    few = tofu_log_rows(logs()["tofu-retain90"]).groupby("set").head(50)
    assert 0 < scores_of(logs()["tofu-full"], oracle=scored(Tofu(), few, bootstrap=0)).summary["forget_quality"] < 1e-5


def test_a_log_without_forget_rows_is_refused():
    log = {name: one for name, one in logs()["tofu-retain90"].items() if not name.startswith("forget")}
    with pytest.raises(UnlearnError, match="the log has no rows of 'forget_Q_A_Prob'"):
        log_oracle(log)
