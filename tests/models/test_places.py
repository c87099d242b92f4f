"""The base of an artefact is found where both lie, and no file says where they lay."""

import shutil
from pathlib import Path

import pytest

from unlearn_nb.core import toy_adapter, toy_llama, toy_tokenizer
from unlearn_nb.models import (
    found_base,
    load_model,
    origin_of,
    read_adapter,
    read_origin,
    save_adapter,
    save_model,
    stored_base,
)


@pytest.fixture
def project(tmp_path):
    """A base, an adapter on it, and the adapter written again from memory, in one folder."""
    model = toy_llama()
    save_model(model, tmp_path / "p" / "models" / "base", origin=origin_of(model), tokenizer=toy_tokenizer())
    model, _ = load_model(tmp_path / "p" / "models" / "base")
    save_adapter(toy_adapter(model), tmp_path / "p" / "runs" / "one" / "adapter")
    (tmp_path / "p" / "again").mkdir()
    read_adapter(tmp_path / "p" / "runs" / "one" / "adapter").write(tmp_path / "p" / "again")
    return tmp_path / "p"


def test_no_file_says_where_it_lay(project):
    for file in project.rglob("*.json"):
        assert str(project.parent) not in file.read_text(encoding="utf-8"), file


def test_an_adapter_and_its_base_move_together(project):
    before = [read_origin(project / where).base for where in ("again", "runs/one/adapter")]
    assert before == [str(project / "models" / "base")] * 2
    moved = Path(shutil.move(project, project.with_name("moved")))
    assert load_model(moved / "runs" / "one" / "adapter")[0].peft_config
    assert load_model(moved / "again")[0].peft_config
    assert read_adapter(moved / "again").config["base_model_name_or_path"] == str(moved / "models" / "base")


def test_names_of_the_hub_stay(tmp_path):
    assert stored_base("org/base", tmp_path) == found_base("org/base", tmp_path) == "org/base"
    assert stored_base(None, tmp_path) is None and found_base(None, tmp_path) is None


def test_a_base_in_the_home_folder_is_found_by_its_adapter_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    base = tmp_path / "home" / ".cache" / "base"
    base.mkdir(parents=True)
    for place in (tmp_path / "home" / "work" / "adapter", Path("/elsewhere/adapter")):
        assert stored_base(str(base), place) == "~/.cache/base" and found_base("~/.cache/base", place) == str(base)


def test_what_peft_wrote_is_seen_from_here(tmp_path, monkeypatch):
    """peft takes a relative base as seen from where it is called."""
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert found_base("./base", tmp_path / "far" / "adapter") == "./base"
