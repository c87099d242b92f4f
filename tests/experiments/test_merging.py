"""The merging study end to end at the smoke budget: reproducible, resumable, and clear about bad input."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from studies import command, finish, refused


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def finished(reports, smoke_prepared) -> Path:
    """An undisturbed run of the study."""
    return finish("merging", reports, "first")


def stages(folder: Path) -> dict[str, int]:
    """Finished stages of a run and when they were finished."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()
            if not path.name.endswith(".tmp")
            and path.is_dir()}


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


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished, reports):
    """kill -9 in the middle of the second adapter's training; what was finished is not built again."""
    folder, again = reports / "merging" / "second", command("merging", reports, "second")
    runner = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((folder / "stages").glob(".s0-train-under-*.tmp/.adapter*")):
        assert runner.poll() is None and time.monotonic() < deadline, "the second training never started"
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    before = stages(folder)
    assert any(name.startswith("s0-train-over") for name in before)
    assert not any(name.startswith("s0-train-under") for name in before)
    assert not (folder / "metrics.json").exists() and not (folder / "report.html").exists()

    subprocess.run(again, check=True, capture_output=True)
    after = stages(folder)
    assert {name: after[name] for name in before} == before
    assert (folder / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


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
    (["-p", "density", "1.5"], "density is 1.5"),
    (["-p", "densty", "0.8"], "did you mean 'density'"),
    (["-p", "over", "1e39*npo + 0.2*nll"], "lower the learning rate"),
], ids=["unknown term", "weight typo", "density", "unknown parameter", "loss not finite"])
def test_a_bad_parameter_is_one_sentence_and_a_failure(tmp_path, smoke_prepared, arguments, part):
    refused("merging", tmp_path, arguments, part)


