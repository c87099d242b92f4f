"""The command `run`: one line for every mistake, the report's path as the last line."""

from importlib.metadata import version

import pytest


@pytest.mark.parametrize("arguments, part", [
    (["run", "mergin"], "unknown study 'mergin'"),
    (["run", "gone.ipynb"], "does not exist"),
    (["run", "small.ipynb", "-p", "sed", "1"], "did you mean 'seed'"),
    (["run", "small.ipynb", "-p", "seed", "one"], "must be a whole number"),
    (["run", "small.ipynb", "-p", "seed", "1", "-p", "seed", "2"], "given twice"),
    (["run", "small.ipynb", "--budget", "quick", "-p", "budget", "full"], "given twice"),
    (["run", "small.ipynb", "--name", "../out"], "can't be used"),
    (["run", "small.ipynb", "-p", "bench", "tofu:nowhere"], "does not exist"),
    (["show", "small/tiny"], "unknown run"),
    (["rnu", "small.ipynb"], "did you mean 'run'"),
])
def test_a_mistake_is_one_line_and_a_failure(command, place, arguments, part):
    before = sorted(place.rglob("*"))
    result = command(*arguments)
    assert result.exit_code == 1 and part in result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1 and not result.stdout
    assert sorted(place.rglob("*")) == before, "nothing may be written"


def test_a_failed_run_says_why_and_where(command):
    result = command("run", "small.ipynb", "-p", "fault", "refuse", "--name", "bad")
    assert result.exit_code == 1 and not result.stdout
    *_, traceback, error = result.stderr.splitlines()
    assert error == "Error: the forget set is empty; give rows"
    assert traceback == "traceback: reports/small/bad/error.txt"


def test_options_that_click_checks(command):
    assert command("run", "small.ipynb", "--cell-timeout", "0").exit_code == 2
    assert command("run").exit_code == 2
    assert command("--version").stdout.endswith(f"version {version('unlearn_nb')}\n")


def test_help_of_a_study_lists_its_parameters(command):
    said = command("run", "--budget", "quick", "small.ipynb", "--help").stdout
    assert "Parameters of small" in said and "lr 0.001           learning rate" in said and "run_dir" not in said
    assert "Parameters of" not in command("run", "--help").stdout
    wrong = command("run", "smal.ipynb", "-h")
    assert wrong.exit_code == 1 and "does not exist" in wrong.stderr
