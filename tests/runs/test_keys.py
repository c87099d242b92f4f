"""Stages are keyed by the code that they reach: a copy of the package is changed, and the key is looked at."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from unlearn_nb.runs import Run
from unlearn_nb.runs.keys import ASIDE, PACKAGE_FOLDER, modules_key, package_key, path_key, reached

BUILD = "unlearn_nb.experiments.probe"
PROBE = {
    "metrics/probe_value.py": "def value():\n    return 1\n",
    "metrics/probe_suite.py": "from .probe_value import value\n\n\ndef total():\n    return value() + value()\n",
    "experiments/probe.py": "from ..metrics.probe_suite import total\n\n\n"
                            "def build(folder):\n    (folder / 'total.txt').write_text(str(total()))\n",
    "experiments/probe_other.py": "def other():\n    return 1\n",
    "plots/probe_plot.py": "def draw():\n    return 'red'\n",
}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the package that a test may change, with a few modules of its own."""
    shutil.copytree(PACKAGE_FOLDER, tmp_path / "site" / "unlearn_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in PROBE.items():
        (tmp_path / "site" / "unlearn_nb" / name).write_text(text)
    return tmp_path / "site" / "unlearn_nb"


def change(copy: Path, name: str, old: str, new: str) -> None:
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))


def stage(copy: Path, folder: Path) -> tuple[str, str]:
    """What the stage of the copied package's build says, and what it holds; in a process of its own."""
    code = ("from unlearn_nb.experiments.probe import build\nfrom unlearn_nb.runs import Run\n"
            f"print((Run.open({str(folder)!r}).stage('probe', build) / 'total.txt').read_text())")
    env = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return re.search(r"stage probe: (\w+)", done.stderr)[1], done.stdout.strip()


def test_a_stage_is_built_anew_when_a_function_changes_that_it_calls_through_another(copy, tmp_path):
    assert [stage(copy, tmp_path / "run") for _ in "ab"] == [("built", "2"), ("reused", "2")]
    change(copy, "metrics/probe_value.py", "return 1", "return 2")
    assert stage(copy, tmp_path / "run") == ("built", "4")


def test_a_stage_is_reused_when_a_plot_or_another_study_changes(copy, tmp_path):
    assert stage(copy, tmp_path / "run") == ("built", "2")
    change(copy, "plots/probe_plot.py", "red", "blue")
    assert stage(copy, tmp_path / "run") == ("reused", "2")
    change(copy, "experiments/probe_other.py", "return 1", "return 2")
    assert stage(copy, tmp_path / "run") == ("reused", "2")


def key(copy: Path, module: str) -> str:
    modules_key.cache_clear()
    return modules_key(frozenset({f"unlearn_nb.{module}"}), copy)


@pytest.mark.parametrize("package", ["core", "benches", "objectives", "models", "unlearning", "merging", "metrics"])
def test_the_stages_of_a_study_follow_every_package_below(copy, package):
    before = key(copy, "experiments.merging")
    for module in sorted((copy / package).glob("[a-z]*.py")):
        module.write_text(module.read_text() + "\nchanged = True\n")
        assert key(copy, "experiments.merging") != before, module
        before = key(copy, "experiments.merging")


def test_data_counts_as_code(copy):
    before = key(copy, "experiments.relearn")
    prompt = next((copy / "augmentation" / "prompts").glob("*.txt"))
    prompt.write_text(prompt.read_text() + "changed")
    assert key(copy, "experiments.relearn") != before


def test_the_stages_of_a_study_do_not_follow_plots_runs_and_other_studies(copy):
    before = key(copy, "experiments.merging")
    others = [*(copy / "plots").glob("*.py"), *(copy / "runs").rglob("*.*"), *(copy / "cli").glob("*.py"),
              copy / "experiments" / "relearn.py", copy / "experiments" / "localization.py"]
    for module in others:
        module.write_text(module.read_text() + "\nchanged = True\n")
    assert len(others) > 10 and key(copy, "experiments.merging") == before


def test_a_function_of_a_notebook_follows_everything_but_what_draws_and_runs(copy):
    keys = [modules_key(frozenset({"__main__"}), copy)]
    for name in ["plots/probe_plot.py", "runs/execute.py", "cli/running.py", "experiments/probe_other.py"]:
        (copy / name).write_text((copy / name).read_text() + "\nchanged = True\n")
        modules_key.cache_clear()
        keys.append(modules_key(frozenset({"__main__"}), copy))
    assert keys[0] == keys[1] == keys[2] == keys[3] != keys[4]


def test_what_a_function_holds_counts():
    """A function that was handed over stands in another module than the one that calls it."""
    from unlearn_nb.core import write_atomic
    from unlearn_nb.merging import merge_adapters

    bound = partial(write_atomic, text="")
    assert package_key(bound) == package_key(write_atomic) != package_key(partial(write_atomic, text=merge_adapters))


def test_nothing_that_is_set_aside_is_reached_from_below():
    for module in sorted((PACKAGE_FOLDER / "experiments").glob("[a-z]*.py")):
        files = reached(f"experiments.{module.stem}")
        assert not {path.relative_to(PACKAGE_FOLDER).parts[0] for path in files} & set(ASIDE)


def test_what_lies_in_a_stage_is_known_by_its_key_wherever_the_run_lies(tmp_path):
    """An adapter says where its base lies, which differs from place to place; what was made is the same."""
    def build(folder):
        (folder / "adapter").mkdir()
        (folder / "adapter" / "base.txt").write_text(str(folder))

    first, second = (Run.open(tmp_path / name).stage("train", build, seed=1) / "adapter" for name in ("a", "b/c"))
    assert (first / "base.txt").read_text() != (second / "base.txt").read_text()
    assert path_key(first) == path_key(second) != path_key(first.parent)
    (second / "base.txt").write_text("something else")
    assert path_key(first) != path_key(second)
