"""Parameters: which values are taken, which are refused, and what a run is called."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError, checked_name
from unlearn_nb.runs import Parameter, check_parameters, default_run_name, run_study


@pytest.mark.parametrize("given_value, passed", [("3", 3.0), ("1e-4", 1e-4), (2, 2.0), (0.5, 0.5)])
def test_a_float_parameter_takes_numbers(study, given_value, passed):
    value = check_parameters(study, {"lr": given_value})["lr"]
    assert value == passed and type(value) is float


def test_text_parameters_are_not_read_as_yaml(study):
    assert check_parameters(study, {"fault": "1.5", "model": "true"}) == {"fault": "1.5", "model": "true"}


@pytest.mark.parametrize("wrong, part", [
    ({"sed": 1}, "did you mean 'seed'"), ({"seed": "1.5"}, "whole number"), ({"seed": True}, "whole number"),
    ({"seed": "[1"}, "whole number"),
    ({"lr": "fast"}, "a number"), ({"lr": float("inf")}, "a number"), ({"lr": True}, "a number"),
    ({"fault": 3}, "text"), ({"budget": "quik"}, "did you mean 'quick'"), ({"device": "gpu"}, "cpu, mps, cuda"),
    ({"run_dir": "/tmp/x"}, "--out"), ({"bench": "lume:no/such/folder"}, "does not exist"),
])
def test_wrong_parameters_are_refused_before_anything_runs(study, tmp_path, wrong, part):
    with pytest.raises(UnlearnError, match=part) as caught:
        run_study(study, wrong, out=tmp_path / "reports")
    assert "\n" not in str(caught.value) and not (tmp_path / "reports").exists()


def test_paths_are_meant_from_the_callers_folder(study, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "caller").mkdir()
    monkeypatch.chdir(tmp_path / "caller")
    values = check_parameters(study, {"bench": "lume:../data", "model": "../data"})
    assert values == {"bench": f"lume:{(tmp_path / 'data').resolve()}", "model": str((tmp_path / "data").resolve())}
    assert check_parameters(study, {"bench": "tofu", "model": "org/model"}) == {"bench": "tofu", "model": "org/model"}


@settings(deadline=None)
@given(model=st.text(), bench=st.text(), knob=st.text(), seed=st.integers())
def test_a_default_run_name_never_leaves_its_folder(model, bench, knob, seed):
    parameters = {name: Parameter("", str, "") for name in ("model", "bench", "knob")} | {"seed": Parameter(0, int, "")}
    name = default_run_name(parameters, {"model": model, "bench": bench, "knob": knob, "seed": seed})
    assert checked_name(name) == name and "/" not in name and not name.startswith(".")
