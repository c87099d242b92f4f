"""The command line: one line for every mistake, the report's path as the last line."""

import pytest
from click.testing import CliRunner
from small_study import write_study

from unlearn_nb.cli import main
from unlearn_nb.runs import find_studies


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study and one finished run of it."""
    folder = tmp_path_factory.mktemp("cli")
    write_study(folder / "small.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["run", "small.ipynb", "-p", "lr", "1e-2", "-p", "seed", "2", "--budget", "quick"]
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "reports/small/tiny-biographies-quick-s2-lr=0.01/report.html"
    return folder


@pytest.fixture
def command(place, monkeypatch):
    monkeypatch.chdir(place)
    return lambda *arguments: CliRunner().invoke(main, arguments)


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


def test_list_names_studies_and_runs(command):
    result = command("list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in find_studies())
    assert "small/tiny-biographies-quick-s2-lr=0.01" in result.stdout and "complete" in result.stdout


@pytest.mark.parametrize("before", ["small/", "", "reports/small/"])
def test_show_prints_parameters_and_metrics(command, before):
    result = command("show", f"{before}tiny-biographies-quick-s2-lr=0.01")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["lr", "0.01"] in lines and ["headline.answer", "44"] in lines
    assert lines[-1] == ["reports/small/tiny-biographies-quick-s2-lr=0.01/report.html"]


def test_options_that_click_checks(command):
    assert command("run", "small.ipynb", "--budget", "huge").exit_code == 2
    assert command("run").exit_code == 2
    assert "unlearn_nb" in command("--version").stdout or "0." in command("--version").stdout
