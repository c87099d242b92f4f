"""A finished run of a small study, and the command to look at it."""

import pytest
from click.testing import CliRunner
from small_study import write_study

from unlearn_nb.cli import main


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
