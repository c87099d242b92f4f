"""The top of the package: what it offers, and what it does not load."""

import subprocess
import sys

import pytest

import unlearn_nb

VERBS = ["load_bench", "load_model", "unlearn", "augment", "localize", "erase", "merge_adapters", "evaluate",
         "run_study"]
HEAVY = ["torch", "transformers", "peft", "datasets", "accelerate"]


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``code``."""
    script = f"import sys\n{code}\nprint('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_verbs_are_at_the_front_door():
    for verb in VERBS:
        assert callable(getattr(unlearn_nb, verb)) and verb in dir(unlearn_nb)


def test_the_packages_are_at_the_front_door():
    assert unlearn_nb.runs.run_study is unlearn_nb.run_study
    assert unlearn_nb.merging.merge_adapters is unlearn_nb.merge_adapters


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="unlearn_nb"):
        unlearn_nb.unlern


@pytest.mark.parametrize("code", [
    "import unlearn_nb",
    "from unlearn_nb.runs import list_runs, find_studies, run_study, Run",
    "from unlearn_nb.cli import main",
])
def test_an_import_loads_nothing_heavy(code):
    assert not loaded_by(code) & {*HEAVY, "papermill", "nbconvert", "nbformat", "IPython", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"], ["show", "a"]])
def test_a_command_that_runs_nothing_loads_no_model_library(arguments, tmp_path):
    params = tmp_path / "reports" / "study" / "a" / "params.yaml"
    params.parent.mkdir(parents=True)
    params.write_text("seed: 0")
    change = f"import os\nos.chdir({str(tmp_path)!r})"
    modules = loaded_by(f"{change}\nfrom unlearn_nb.cli import main\nmain({arguments}, standalone_mode=False)")
    assert "unlearn_nb.cli" in modules and not modules & {*HEAVY, "papermill", "nbconvert", "matplotlib"}


def test_the_list_of_commands_loads_none_of_them():
    modules = loaded_by("from unlearn_nb.cli import main\nmain(['--help'], standalone_mode=False)")
    assert "unlearn_nb.cli.group" in modules
    assert not {name for name in modules if name.startswith(("unlearn_nb.runs", "unlearn_nb.cli.running"))}
