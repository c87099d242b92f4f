"""`unlearn-nb new`: the study that it writes is whole, has no stored output, and runs as it is."""

import json

import nbformat
import pytest
from click.testing import CliRunner

from unlearn_nb.cli import main
from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import run_study


def test_the_new_study_runs_as_it_is_and_says_what_it_found(tmp_path, monkeypatch):
    """Title, comments of parameters, stages, figure, summary and metrics are all there."""
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["new", "my-study"])
    assert made.exit_code == 0 and made.stdout == "my-study.ipynb\n" and "unlearn-nb run my-study.ipynb" in made.stderr
    notebook = nbformat.read("my-study.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# My study\n\n> ")
    assert not any(cell.get("outputs") for cell in notebook.cells)
    report = run_study("my-study.ipynb", {"steps": 10}, progress=False)
    found = json.loads((report.parent / "metrics.json").read_text())
    assert set(found["headline"]) == {"forget", "retain"} and len(found["scores"]) == 4
    before = {line["split"]: line["value"] for line in found["scores"] if line["when"] == "before"}
    assert before == {"forget": 1.0, "retain": 1.0} and found["headline"]["forget"] < 1
    assert (report.parent / "figures" / "answers.png").is_file()
    summary = json.loads((report.parent / "summary.json").read_text())
    assert summary["verdict"].startswith("After 10 steps of npo-gdr, ") and summary["figure"] == "answers"
    with pytest.raises(UnlearnError, match="did you mean 'steps'"):
        run_study("my-study.ipynb", {"stpes": 10}, progress=False)


@pytest.mark.parametrize("name", ["", "../mine", "a b", "a/b", ".hidden", "-x", "x" * 81, "mine.ipynb"])
def test_names_that_are_no_plain_file_names_are_refused(tmp_path, monkeypatch, name):
    """Nothing is written."""
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, ["new", "--", name])
    assert refused.exit_code == 1 and "a study can't be called" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_there_stays(tmp_path):
    """Whatever the file holds."""
    (tmp_path / "mine.ipynb").write_text("precious")
    refused = CliRunner().invoke(main, ["new", "mine", "--to", str(tmp_path)])
    assert refused.exit_code == 1 and "exists already" in refused.stderr
    assert (tmp_path / "mine.ipynb").read_text() == "precious"
