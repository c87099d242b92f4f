"""Parameters: which values are taken, which are refused, and what a run is called."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_study import write_study

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


@pytest.mark.parametrize("name, text", [
    *(("seed", text) for text in ("010", "0x10", "0o7", "0b1", "1:30", "1_000", "+1", " 1", "1.0", "", "no", "٣")),
    *(("lr", text) for text in ("1_0.0", ".5", "5.", "+0.5", "0x1p3", "infinity", "NaN", "1e999", "1:30", "", " 1")),
    ("seed", -1), ("seed", "-1"), ("seed", 2**32), ("seed", 2.0), ("lr", 10**400), ("lr", float("nan")),
    ("model", ""), ("model", "  "), ("bench", ""), ("bench", "jsonl:"), ("bench", "jsonl: "),
    ("fault", "\udce9"),  # bytes of a command line that are no UTF-8
])
def test_values_that_nobody_meant_are_refused(study, name, text):
    with pytest.raises(UnlearnError, match=f"parameter '{name}'"):
        check_parameters(study, {name: text})


@pytest.fixture
def typed(tmp_path):
    return write_study(tmp_path / "typed.ipynb", "flag = False\nsizes = [1, 2]\nanything = None\nseeds = 0\n"
                       "generic = 'embedded'\nprompts = ''\nrun_dir = ''")


@pytest.mark.parametrize("name, text, value", [
    ("flag", "true", True), ("flag", "False", False), ("sizes", "[1, 2.5]", [1, 2.5]), ("anything", "3", 3),
    ("anything", "010", "010"), ("anything", "no", "no"), ("anything", "NaN", "NaN"), ("seeds", "0", 0),
])
def test_text_is_read_by_the_type_of_the_default(typed, name, text, value):
    found = check_parameters(typed, {name: text})[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name, text", [
    ("flag", "yes"), ("flag", "on"), ("flag", "1"), ("flag", "TRUE"), ("sizes", "1, 2"), ("sizes", "[NaN]"),
    ("sizes", "[010]"), ("sizes", [float("inf")]), ("anything", object()), ("seeds", -1),
])
def test_what_is_no_value_of_its_type_is_refused(typed, name, text):
    with pytest.raises(UnlearnError, match=f"parameter '{name}'"):
        check_parameters(typed, {name: text})


def test_every_path_is_meant_from_the_callers_folder(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "rows.jsonl").write_text("")
    assert check_parameters(typed, {"generic": "jsonl:rows.jsonl", "prompts": "mine"}) == {
        "generic": f"jsonl:{tmp_path / 'rows.jsonl'}", "prompts": str(tmp_path / "mine")}
    others = {"generic": "wikiqa", "prompts": "other"}
    assert check_parameters(typed, others) == others
    with pytest.raises(UnlearnError, match="'rows.json' does not exist"):
        check_parameters(typed, {"generic": "jsonl:rows.json"})


def test_a_folder_that_is_called_like_a_model_of_ours_does_not_stand_for_it(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert check_parameters(study, {"model": "tiny"}) == {"model": "tiny"}
    assert check_parameters(study, {"model": "./tiny"}) == {"model": str(tmp_path / "tiny")}


KNOWN = {name: Parameter("", str, "") for name in ("bench", "knob", "model", "z")}
KNOWN |= {"budget": Parameter("quick", str, ""), "seed": Parameter(0, int, "")}


def test_names_of_ordinary_runs_are_plain():
    ordinary = {"model": "tiny", "bench": "biographies"}
    assert default_run_name(KNOWN, ordinary) == "tiny-biographies-quick-s0"
    assert default_run_name(KNOWN, ordinary | {"knob": "0.5", "seed": 3}) == "tiny-biographies-quick-s3-knob=0.5"
    assert default_run_name(KNOWN, ordinary | {"model": "org/llama"}).startswith("llama-")


@pytest.mark.parametrize("one, other", [
    ({"model": "/d1/m"}, {"model": "/d2/m"}), ({"model": "org1/llama"}, {"model": "org2/llama"}),
    ({"model": "org/llama"}, {"model": "llama"}), ({"model": "org/llama"}, {"model": "org-llama"}),
    ({"model": "m/"}, {"model": "m"}), ({"bench": "jsonl:/d1"}, {"bench": "jsonl:/d2"}),
    ({"knob": "a b"}, {"knob": "a-b"}),
    ({"bench": "jsonl:/a/d"}, {"bench": "jsonl:/b/d"}), ({"bench": "tofu"}, {"bench": "tofu:/tofu"}),
    ({"knob": "日本"}, {"knob": "中国"}), ({"knob": "Müller"}, {"knob": "Muller"}),
    ({"knob": "é"}, {"knob": "e\u0301"}),
    ({"knob": "npo(beta=1)"}, {"knob": "npo-beta=1"}), ({"knob": "a-z=b"}, {"knob": "a", "z": "b"}),
    ({"knob": "x" * 200}, {"knob": "x" * 201}), ({"knob": "-a"}, {"knob": "a"}), ({"knob": "a."}, {"knob": "a"}),
])
def test_other_values_have_another_run_folder(one, other):
    names = [default_run_name(KNOWN, values) for values in (one, other)]
    assert len(set(names)) == 2 and all(checked_name(name) == name for name in names)


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
