"""A cache of hashes for tests of what is remembered and what is damaged."""

import pytest

from unlearn_nb.core import identity


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """A cache of the test's own, which remembers the hashes of files of any size."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(folder))
    monkeypatch.setattr(identity, "LARGE", 0)
    return folder
