"""What `nbs/extending.ipynb` shows: one of each kind, in one cell of at most 30 lines. (Its run is in test_project.)"""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = nbformat.read(Path(__file__).resolve().parent.parent / "nbs" / "extending.ipynb", as_version=4)
CELLS = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"]
KINDS = ["TERMS", "MASKS", "LOCALIZERS", "SOLVERS", "MERGE_METHODS", "ATTACKS", "SUITES", "BENCHES"]


@pytest.mark.parametrize("registry", KINDS)
def test_one_of_a_kind_is_added_in_one_place(registry):
    places = [source for source in CELLS if f"@{registry}.register" in source]
    assert len(places) == 1 and places[0].count(".register") == 1
    code = [line for line in places[0].splitlines() if line.strip() and not re.match(r"(from|import) ", line)]
    assert len(code) <= 30


def test_a_study_is_added_in_one_place():
    (place,) = [source for source in CELLS if "nbformat.write" in source]
    assert len(place.splitlines()) <= 30 and "run.finish(" in place


def test_every_kind_is_used_by_name_and_asserted():
    adding = [i for i, source in enumerate(CELLS) if ".register" in source or "nbformat.write" in source]
    for after in (CELLS[i + 1] for i in adding):
        assert "assert " in after
