"""What the tests of objectives have in common."""

import pytest
from toys import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()
