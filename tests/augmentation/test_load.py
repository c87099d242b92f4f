"""Writers by name."""

import pytest

from unlearn_nb.augmentation import load_writer
from unlearn_nb.core import UnlearnError


def test_an_endpoint_needs_a_model_name():
    with pytest.raises(UnlearnError, match="names no model; write URL#MODEL"):
        load_writer("http://localhost:8000/v1")
