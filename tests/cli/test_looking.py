"""The commands `list` and `show`."""

import pytest

from unlearn_nb.runs import find_studies


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
