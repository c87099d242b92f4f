"""Fixtures of the tests of runs: a small study, and a run of it that succeeded."""

from pathlib import Path

import pytest
from small_study import write_study

from unlearn_nb.runs import run_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "small.ipynb")


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory) -> Path:
    """The folder of a run that succeeded."""
    return run_study(study, {"seed": 1}, out=tmp_path_factory.mktemp("reports"), run_name="good", progress=False).parent
