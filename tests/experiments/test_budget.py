"""Budgets of time: what fits, what is refused, what is kept, and what the command tells."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from unlearn_nb.cli.group import main
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    BUDGETS,
    Rate,
    Rates,
    Spending,
    Subject,
    affordable,
    budget,
    cuts,
    estimate_study,
    fit_study,
    levels_of,
    merging_plan,
    plan_values,
    probing,
)
from unlearn_nb.runs import Run, read_duration

ASKED = {"model": "tiny", "bench": "biographies", "seed": 0, "seeds": 1, "device": "cpu", "template": "auto"}
KINDS = ("learn", "over", "under", "relearn", "baseline", "train", "score", "read", "measure")
RATES = Rates({kind: Rate(0.2, 0.002) for kind in KINDS}, weights=4 * 10**6, adapter=10**6, peak=10**9, tokens=20.0,
              seconds=5.0)
TIMES = (60, 120, 200, 320, 600, 1100, 2400, 10**5)


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch):
    """Rates as of some machine; how often they were measured."""
    calls = []
    monkeypatch.setattr(budget, "rates_for", lambda *_: calls.append(1) or RATES)
    return calls


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661),
                                           ("0.5h", 1800), (" 5M ", 300)])
def test_times_are_read(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "30", "m", "-5m", "5m3h", "1e3s", "5 m", "quick", "9" * 400 + "h", "nans"])
def test_no_time(text):
    assert read_duration(text) is None


@pytest.mark.parametrize("study", ["audit", "compare", "eraser", "localization", "merging", "relearn"])
def test_what_fits_costs_no_more_and_more_time_buys_no_less(study):
    subject, costs = Subject(study, ASKED | {"seeds": 0 if study in ("audit", "localization") else 1}), []
    for seconds in TIMES:
        try:
            found = fit_study(subject, seconds, RATES)
        except UnlearnError as error:
            assert not costs and "is too small: the smallest plan takes about" in str(error)
            continue
        estimate = estimate_study(subject, Spending("", found.values), RATES).seconds
        assert estimate <= found.seconds <= seconds
        costs.append(estimate)
    assert len(costs) >= 3 and costs == sorted(costs) and costs[0] < costs[-1]
    dearest = max(estimate_study(subject, name, RATES).seconds for name in BUDGETS)
    assert costs[-1] >= dearest, "with time enough it is the whole plan"


@pytest.mark.parametrize("study", ["audit", "compare", "eraser", "forget", "localization", "merging", "relearn"])
@pytest.mark.parametrize("model, device", [("tiny", "cpu"), ("smollm2", "cpu"), ("smollm2", "cuda")])
def test_every_level_is_a_plan(study, model, device):
    make, _ = probing.PLANNED[study]
    levels = levels_of(study, model=model, device=device)
    for values in levels:
        assert asdict(make(model, Spending("", values), device=device))
    for place, name in zip((0, 16, 32), BUDGETS):
        assert levels[place] == plan_values(study, model=model, device=device, budget=name)
    assert not cuts(study, levels[-1], levels[-1])


def test_a_plan_that_was_kept_is_taken_by_a_quicker_machine_as_well(tmp_path, measured, monkeypatch):
    run = Run(tmp_path)
    first = affordable(run, "merging", "3m", **ASKED)
    assert len(measured) == 1 and run.effective["budget"].startswith("3m, of which about ")
    quicker = replace(RATES, kinds={kind: Rate(0.0, 1e-6) for kind in KINDS})
    monkeypatch.setattr(budget, "rates_for", lambda *_: measured.append(1) or quicker)
    again = Run(tmp_path)
    assert affordable(again, "merging", "3m", **ASKED) == first and len(measured) == 1
    assert again.effective == run.effective
    assert merging_plan("tiny", first).settings.steps == first.values["settings"]["steps"]
    assert affordable(again, "merging", "1h", **ASKED) != first and len(measured) == 2, "another budget is another plan"


def test_a_record_that_is_broken_is_made_anew(tmp_path, measured):
    first = affordable(Run(tmp_path), "merging", "3m", **ASKED)
    (tmp_path / "stages" / budget.KEPT).write_text('{"key": "')
    assert affordable(Run(tmp_path), "merging", "3m", **ASKED) == first and len(measured) == 2


def test_too_little_time_is_refused_with_the_least(tmp_path, measured):
    with pytest.raises(UnlearnError, match=r"a budget of 10 s is too small: the smallest plan takes about \d+ (s|min)"):
        affordable(Run(tmp_path), "merging", "10s", **ASKED)
    assert not (tmp_path / "stages" / budget.KEPT).exists()
    with pytest.raises(UnlearnError, match="unknown budget 'quik'"):
        affordable(Run(tmp_path), "merging", "quik", **ASKED)


def test_what_a_run_has_left_costs_nothing():
    subject = Subject("merging", ASKED)
    whole = estimate_study(subject, "smoke", RATES)
    rest = estimate_study(subject, "smoke", RATES, there=["s0-train-over-0.0015", "s0-score-target-test"])
    assert rest.seconds < whole.seconds and "1 of 1 of `train over`" in rest.reused and not whole.reused


def told(*arguments):
    result = CliRunner().invoke(main, ["estimate", *arguments])
    return result.exit_code, result.output


def test_the_command_tells_each_stage(measured, monkeypatch, tmp_path):
    monkeypatch.setattr("unlearn_nb.experiments.rates_for", lambda *_: RATES, raising=False)
    code, said = told("merging", "--budget", "smoke", "--out", str(tmp_path))
    assert code == 0 and "train over" in said and "memory: " in said and "in all" in said, said
    code, fitted = told("merging", "--budget", "3m", "--out", str(tmp_path))
    assert code == 0 and "plan within 3m: " in fitted and "steps of a training" in fitted, fitted
    assert not (Path(tmp_path) / "merging").exists(), "nothing is written"
    assert told("merging", "--budget", "1s", "--out", str(tmp_path))[0]


def test_a_time_is_refused_before_anything_runs_where_it_is_none():
    code, said = told("merging", "--budget", "30 minutes")
    assert code and "unknown budget '30 minutes'" in said and "30m" in said
    code, said = told("nothing")
    assert code
