"""The commands `list` and `show`."""

import json
import shutil

import pytest

from unlearn_nb.runs import find_studies


def test_list_names_studies_and_runs(command):
    result = command("list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in find_studies())
    assert "small/tiny-biographies-quick-s2-lr=0.01" in result.stdout and "complete" in result.stdout
    assert "parameters: model, forget, retain, holdout and " in result.stdout and "run STUDY --help" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 140


@pytest.mark.parametrize("before", ["small/", "", "reports/small/"])
def test_show_prints_parameters_and_metrics(command, before):
    result = command("show", f"{before}tiny-biographies-quick-s2-lr=0.01")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["lr", "0.01"] in lines and ["headline.answer", "44"] in lines
    assert lines[-1] == ["reports/small/tiny-biographies-quick-s2-lr=0.01/report.html"]


def test_show_prints_records_as_a_table(command, place):
    folder = place / "reports" / "small" / "tables"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text("seed: 0\n")
    methods = [{"model": "npo", "kept": 0.123456}, {"model": "ga-gdr", "why": {"lr": 1}}]
    (folder / "metrics.json").write_text(json.dumps({"methods": methods, "ranks": [1, 2]}))
    lines = command("show", "tables").stdout.splitlines()
    start = lines.index("  methods:")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["model", "kept", "why.lr"], ["npo", "0.1235"], ["ga-gdr", "1"]]
    assert lines[start + 1].index("kept") == lines[start + 2].index("0.1235") and "{" not in "".join(lines)
    assert ["ranks", "[1,", "2]"] in [line.split() for line in lines]
    shutil.rmtree(folder)
