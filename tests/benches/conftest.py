"""The quick bench, made once for the tests of benches."""

import pytest

from unlearn_nb.benches import load_bench


@pytest.fixture(scope="session")
def quick_bench():
    return load_bench("biographies", size="quick")
