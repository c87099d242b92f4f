"""Files, models and names are known by what they hold."""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError, file_hash, folder_identity, hub_commit, identity, own_slug, path_hash, slug


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Every file counts as large and settled, so that its hash is remembered."""
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "LARGE", 0)
    monkeypatch.setattr(identity, "SETTLED", -10**18)
    file = tmp_path / "weights"
    file.write_bytes(b"0123")
    return file


def test_a_remembered_hash_is_not_read_again(large, monkeypatch):
    first = file_hash(large)
    monkeypatch.setattr(identity, "_read_hash", lambda path: pytest.fail("read again"))
    assert file_hash(large) == first


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_equal_size_and_time_do_not_hide_other_bytes(large, tmp_path, how):
    first, times = file_hash(large), (large.stat().st_atime_ns, large.stat().st_mtime_ns)
    other = tmp_path / "other"
    other.write_bytes(b"4567")
    if how == "in place":
        large.write_bytes(b"4567")
    else:
        os.utime(other, ns=times)
        other.replace(large)
    os.utime(large, ns=times)
    assert file_hash(large) != first


def test_a_file_that_just_changed_is_not_remembered(large, monkeypatch):
    monkeypatch.setattr(identity, "SETTLED", 10**12)
    file_hash(large)
    assert not list((large.parent / "cache").rglob("*"))


def test_a_cache_that_cannot_be_written_is_no_harm(large, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(identity, "write_atomic", full)
    assert file_hash(large) == file_hash(large) and len(file_hash(large)) == 64


def test_a_named_cache_that_cannot_be_made_is_told(large):
    (large.parent / "cache").write_text("a file where a folder should be")
    with pytest.raises(UnlearnError, match="UNLEARN_NB_CACHE names the folder .* which can't be made"):
        file_hash(large)


def test_a_folder_is_its_names_and_its_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "x.txt").write_text("1")
    same = path_hash(tmp_path / "a")
    assert same == path_hash(tmp_path / "b") == path_hash(shutil.copytree(tmp_path / "a", tmp_path / "c"))
    (tmp_path / "b" / "inner" / "x.txt").write_text("2")
    (tmp_path / "a" / "inner" / "x.txt").rename(tmp_path / "a" / "inner" / "y.txt")
    assert len({same, path_hash(tmp_path / "a"), path_hash(tmp_path / "b")}) == 3
    with pytest.raises(UnlearnError, match="does not exist"):
        path_hash(tmp_path / "d")


def test_a_template_in_its_own_folder_belongs_to_the_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = folder_identity(tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    assert folder_identity(tmp_path) != before


def test_the_commit_of_a_cached_hub_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache",
                        lambda name, file, revision=None: str(tmp_path / "snapshots" / ("3" * 40) / file))
    assert hub_commit("org/llama") == "3" * 40


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_two_texts_have_two_slugs(one, other):
    assert slug(own_slug(one)) == own_slug(one)
    assert (own_slug(one) == own_slug(other)) == (one == other)
