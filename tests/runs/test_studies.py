"""Studies: what is one, what is none, and where they are found."""

import nbformat
import pytest
from small_study import PARAMETERS, write_study

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import find_studies, find_study, run_study, study_parameters


@pytest.mark.parametrize("cell, part", [
    ("seed = 1 + seed", "literal"), ("seed = 0", "no run_dir"), ("import os\nrun_dir = ''", "literal"),
])
def test_parameters_cells_that_cant_be_read(tmp_path, cell, part):
    with pytest.raises(UnlearnError, match=part):
        study_parameters(write_study(tmp_path / "bad.ipynb", cell))


@pytest.mark.parametrize("count", [0, 2])
def test_a_study_has_exactly_one_parameters_cell(tmp_path, count):
    path = write_study(tmp_path / "bad.ipynb", PARAMETERS, PARAMETERS)
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells[1:]:
        cell.metadata["tags"] = ["parameters"] if count else []
    nbformat.write(notebook, path)
    with pytest.raises(UnlearnError, match=f"has {count} cells tagged"):
        run_study(path, out=tmp_path / "reports")


def test_things_that_are_no_study(tmp_path):
    (tmp_path / "text.ipynb").write_text("no notebook")
    for study, part in [(tmp_path / "text.ipynb", "read as a notebook"), ("mergin", "unknown study"),
                        ("gone.ipynb", "does not exist")]:
        with pytest.raises(UnlearnError, match=part):
            study_parameters(find_study(study))


def test_studies_are_found_in_further_folders(study, monkeypatch):
    assert find_studies([study.parent])["small"] == study.resolve()
    monkeypatch.setenv("UNLEARN_NB_STUDIES", str(study.parent))
    assert find_study("small") == study.resolve()
