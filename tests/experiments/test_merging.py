"""The merging study end to end at the smoke budget: its results, and what it refuses."""

import json
from pathlib import Path

import pytest
from studies import refused, refused_as_a_program


@pytest.fixture(scope="module")
def finished(undisturbed) -> Path:
    return undisturbed("merging")


def test_the_study_ends_with_report_metrics_and_figures(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    scores = metrics["test"]["0"]
    assert set(scores) >= {"target", "oracle", "over", "under", "merged", "published merge"}
    cells = [name for name in scores["merged"] if name.startswith(("forget/", "retain/"))]
    assert len(cells) == 12 and {"mia_auc", "mia_score", "utility", "final",
                                 "collateral_knowledge"} <= set(scores["merged"])
    assert scores["target"]["forget_knowledge"] >= 0.95 and scores["oracle"]["forget_knowledge"] <= 0.05
    figures = {path.stem for path in (finished / "figures").glob("*.png")}
    assert figures == {path.stem for path in (finished / "figures").glob("*.svg")} and len(figures) == 8
    assert all(claim in (finished / "report.html").read_text()
               for claim in ("Task Aggregate", "Distance to the oracle"))


def jsonl_bench(folder: Path, forget: list[dict], retain: list[dict]) -> Path:
    folder.mkdir()
    for name, rows in (("forget", forget), ("retain", retain)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


ROWS = [{"prompt": f"Who owns house {i}?", "response": f"Owner {i}"} for i in range(40)]


@pytest.mark.parametrize("forget, retain, part", [
    ([{"prompt": "Who?"}], ROWS, "forget.jsonl, row 1, column 'response'"),
    ([], ROWS, "forget.jsonl holds no rows"),
    (ROWS[:1], ROWS, "also stands in forget.jsonl, row 1"),
], ids=["missing column", "empty forget set", "forget row also in retain"])
def test_a_bad_bench_is_one_sentence_and_a_failure(tmp_path, forget, retain, part):
    bench = jsonl_bench(tmp_path / "bench", forget, retain)
    refused("merging", tmp_path, ["-p", "bench", f"jsonl:{bench}"], part)


@pytest.mark.parametrize("arguments, part", [
    (["-p", "over", "0.4*npo + 0.2*nlll"], "did you mean 'nll'"),
    (["-p", "over", "0.4x*npo + 0.2*nll"], "0.4x"),
    (["-p", "densty", "0.8"], "did you mean 'density'"),
    (["-p", "over", "1e39*npo + 0.2*nll"], "lower the learning rate"),
], ids=["unknown term", "weight typo", "unknown parameter", "loss not finite"])
def test_a_bad_parameter_is_one_sentence_and_a_failure(tmp_path, smoke_prepared, arguments, part):
    refused("merging", tmp_path, arguments, part)


def test_a_program_that_refuses_ends_like_one(tmp_path, smoke_prepared):
    said = "'density' is 1.5: give a number above 0 and at most 1"
    refused_as_a_program("merging", tmp_path, ["-p", "density", "1.5"], said)
