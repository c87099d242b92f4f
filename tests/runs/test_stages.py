"""Stages: one process a folder, one key a content; figures."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import Run


@dataclass(frozen=True)
class Settings:
    lr: float
    steps: tuple


class Rows:
    def __init__(self, fingerprint: str):
        self.fingerprint = fingerprint


def value(folder: Path) -> None:
    (folder / "value.txt").write_text("1")


def test_a_stage_is_keyed_by_what_goes_in(tmp_path):
    run = Run.open(tmp_path)
    (tmp_path / "file.txt").write_text("a")
    variants = [{}, {"lr": 1.0}, {"lr": 2.0}, {"rate": 1.0}, {"s": Settings(1.0, (1,))}, {"s": Settings(1.0, (2,))},
                {"rows": Rows("a")}, {"rows": Rows("b")}, {"file": tmp_path / "file.txt"},
                {"nested": {"a": [1, {"b": None}]}}, {"nested": {"a": [1, {"b": 0}]}}]
    folders = [run.stage("s", value, **inputs) for inputs in variants]
    assert len(set(folders)) == len(variants)
    assert folders == [run.stage("s", value, **inputs) for inputs in variants]
    (tmp_path / "file.txt").write_text("b")
    assert run.stage("s", value, file=tmp_path / "file.txt") not in folders


def test_a_stage_is_built_anew_when_its_code_changes(tmp_path):
    run = Run.open(tmp_path)
    builds = [lambda folder: (folder / "a").touch(), lambda folder: (folder / "b").touch(),
              lambda folder: [(folder / "a").touch() for _ in "x"]]
    assert len({run.stage("s", build) for build in builds}) == 3


def test_a_stage_is_built_anew_when_a_helper_a_default_or_a_closure_changes(tmp_path):
    run, space = Run.open(tmp_path), {"__name__": "__main__"}
    found = []
    for cell in ("def helper(): return 1\ndef build(folder, k=1): (folder / 'x').write_text(str(helper() * k))",
                 "def helper(): return 2", "def build(folder, k=3): (folder / 'x').write_text(str(helper() * k))", ""):
        exec(cell, space)
        found.append((run.stage("s", space["build"]) / "x").read_text())
    assert found == ["1", "2", "6", "6"]

    def closing(held):
        return lambda folder: (folder / "x").write_text(str(held))

    assert [(run.stage("c", closing(held)) / "x").read_text() for held in (1, 2, {"a": [3]}, 1)] == [
        "1", "2", "{'a': [3]}", "1"]


def test_a_global_model_table_or_file_is_part_of_a_stage(tmp_path):
    run, space = Run.open(tmp_path / "run"), {"__name__": "__main__", "path": tmp_path / "rows.txt"}
    found = []
    for text in ("a", "b", "a"):
        (tmp_path / "rows.txt").write_text(text)
        exec("def build(folder): (folder / 'x').write_text(path.read_text())", space)
        found.append((run.stage("s", space["build"]) / "x").read_text())
    assert found == ["a", "b", "a"] and len(list((tmp_path / "run" / "stages").glob("s-*"))) == 2


def test_a_stage_that_takes_another_follows_it(tmp_path):
    run = Run.open(tmp_path)
    after = {run.stage("after", value, before=run.stage("before", value, seed=seed)) for seed in (0, 1, 0)}
    assert len(after) == 2


@pytest.mark.parametrize("wrong, part", [
    ({"x": object()}, "'x' has the type object"), ({"x": Path("no/such")}, "does not exist"),
])
def test_inputs_that_cant_be_hashed(tmp_path, wrong, part):
    with pytest.raises(UnlearnError, match=part):
        Run.open(tmp_path).stage("s", value, **wrong)


def test_a_dot_in_a_stages_name_keeps_stages_apart(tmp_path):
    run = Run.open(tmp_path)
    assert len({run.stage("lr=0.1", value), run.stage("lr=0.2", value)}) == 2


def test_a_figure_is_saved_twice_and_closed(tmp_path):
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    Run.open(tmp_path).figure(figure, "line")
    assert (tmp_path / "figures" / "line.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"line.png", "line.svg"}
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(UnlearnError):
        Run.open(tmp_path).figure(figure, "../line")


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def build(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Run.open(tmp_path).stage("s", build)
    assert [path.name for path in (tmp_path / "stages").iterdir()] == [".lock"]
