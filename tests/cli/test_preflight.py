"""Wrong parameters: refused by the command itself, in one sentence, before anything is written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from small_study import hollow_model, write_study

from unlearn_nb.cli import main
from unlearn_nb.runs import list_runs

PROGRAM = "from unlearn_nb.start import main; main()"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A working folder beside an empty cache."""
    (tmp_path / "here" / "my-model").mkdir(parents=True)
    hollow_model(tmp_path / "here" / "hollow")
    (tmp_path / "cache").mkdir()
    (tmp_path / "here" / "rows").mkdir()
    (tmp_path / "here" / "rows" / "forget.jsonl").write_text('{"prompt": "Who?", "answer": "Ada"}\n')
    (tmp_path / "here" / "rows" / "retain.jsonl").write_text('{"prompt": "Who?", "response": "Ida"}\n')
    (tmp_path / "here" / "rows" / "other.jsonl").write_text('{"prompt": "Where?", "response": "There"}\n')
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


FORGET = ["forget", "-p", "model", "hollow", "-p", "forget", "rows/other.jsonl", "-p", "retain", "rows/retain.jsonl"]
MISTAKES = [
    (["mergin"], "did you mean 'merging'"),
    (["merging", "-p", "densty", "0.5"], "did you mean 'density'"),
    (["merging", "-p", "density", "1.5"], "density' is 1.5: give a number above 0 and at most 1"),
    (["merging", "-p", "model", "tinny"], "did you mean 'tiny'"),
    (["merging", "-p", "model", "./my-modle"], "did you mean 'my-model'"),
    (["merging", "-p", "model", "my-model"], "has no config.json: a model's folder has config.json and model.safetens"),
    (["merging", "-p", "over", "graddiff"], "did you mean 'ga-gdr'"),
    (["merging", "-p", "over", "graddif"], "did you mean 'ga-gdr'"),
    (["merging", "-p", "under", "0.4*nop + nll"], "did you mean 'npo'"),
    (["merging", "-p", "bench", "biografies"], "did you mean 'biographies'"),
    (["merging", "-p", "bench", "jsonl:rows"], "response"),
    (["merging", "-p", "device", "cuda:99"], "give cpu"),
    (["merging", "--budget", "quik"], "did you mean 'quick'"),
    (["merging", "-p", "faithful", "zjunpl"], "did you mean 'zjunlp'"),
    (["localization", "-p", "objectives", "wga,nop"], "did you mean 'npo'"),
    (["localization", "-p", "closure", "orign"], "did you mean 'origin'"),
    (["localization", "-p", "share", "0.7"], "above 0 and at most 0.5"),
    (["eraser", "-p", "solver", "ekfca"], "did you mean 'ekfac'"),
    (["eraser", "-p", "rank", "0"], "give a number at least 1"),
    (["relearn", "-p", "writer", "htp://localhost:8000/v1#m"], "did you mean 'http://localhost:8000/v1#m'"),
    (["relearn", "-p", "writer", "http://localhost:8000/v1"], "URL#MODEL"),
    (["relearn", "-p", "judge", "wrods"], "did you mean 'words'"),
    (["relearn", "-p", "generic", "embeded"], "did you mean 'embedded'"),
    (["relearn", "-p", "dtype", "float23"], "did you mean 'float32'"),
    (["forget", "-p", "dtype", "float23"], "did you mean 'float32'"),
    (["merging", "-p", "template", "chatt"], "did you mean 'chat'"),
    (["merging", "-p", "target", "none"], "target can't be 'none': leave it out"),
    (["merging", "-p", "oracle", "None"], "did you mean 'none'"),
    (["merging", "-p", "oracle", "TOFU_EVAL.json"], "oracle 'TOFU_EVAL.json' does not exist"),
    (["localization", "-p", "oracle", "TOFU_EVAL.json"], "in the studies merging and relearn"),
    (["eraser", "-p", "target", "tiny"], "target 'tiny' is no adapter"),
    (["eraser", "-p", "oracle", "tiny"], "oracle is given without a target"),
    (["relearn", "-p", "rater", "templates"], "which write and can't judge"),
    ([*FORGET, "-p", "template", "chatt"], "did you mean 'chat'"),
    ([*FORGET[:-1], "rows/other.jsonl"], "a row can't be in forget and in retain"),
    ([*FORGET, "-p", "holdout", "rows/retain.jsonl"], "a row can't be in retain and in holdout"),
    ([*FORGET, "-p", "general", "rows/retain.jsonl"], "a row can't be in retain and in general"),
    ([*FORGET, "-p", "carve", "0.5"], "of retain's 1 subjects aside"),
    (["forget", "-p", "model", "tiny", *FORGET[4:]], "model can't be 'tiny', which is untrained and knows no rows"),
    (["forget", "-p", "model", "tinny", *FORGET[4:]], "give smollm2, a model's folder or a hub id"),
    (["forget", "-p", "carve", "1.5"], "carve' is 1.5: give a number at least 0 and below 1"),
]


@pytest.mark.parametrize("arguments, part", MISTAKES, ids=lambda value: "-".join(value) if type(value) is list else "")
def test_a_wrong_parameter_is_one_sentence_and_nothing_is_written(empty, arguments, part):
    before = files(empty)
    result = CliRunner().invoke(main, ["run", *arguments])
    assert result.exit_code == 1 and part in result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1 and not result.stdout
    assert files(empty) == before


@pytest.mark.parametrize("mistake", [("-p", "model", "tinny"), ("-p", "over", "GradDiff")], ids=str)
def test_the_same_of_a_program(empty, mistake):
    before = files(empty)
    command = [sys.executable, "-c", PROGRAM, "run", "merging", *mistake]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "did you mean" in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert files(empty) == before


def test_a_study_of_ones_own_is_checked_by_the_names_of_its_parameters(empty):
    write_study(empty / "small.ipynb")
    mistakes = {"model": ("tinny", "'tiny'"), "device": ("cuda:99", "give cpu"), "bench": ("tfu", "'tofu'")}
    for name, (value, part) in mistakes.items():
        result = CliRunner().invoke(main, ["run", str(empty / "small.ipynb"), "-p", name, value])
        assert result.exit_code == 1 and part in result.stderr
    assert not (empty / "here" / "reports").exists()


def test_a_disk_that_is_nearly_full_is_told_before(empty, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("unlearn_nb.runs.preflight.shutil.disk_usage", lambda place: usage)
    result = CliRunner().invoke(main, ["run", "merging"])
    assert result.exit_code == 1 and "GiB free, and a run needs" in result.stderr and "free some space" in result.stderr
    assert not (empty / "here" / "reports").exists()


def test_a_model_beyond_the_memory_is_told_before(empty, monkeypatch):
    monkeypatch.setattr("unlearn_nb.runs.preflight._memory", lambda device: (16, 16))
    result = CliRunner().invoke(main, ["run", "merging", "-p", "model", "hollow"])
    assert result.exit_code == 1 and "take a smaller model" in result.stderr
    assert not (empty / "here" / "reports").exists()


# --- interrupts


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted_says_that_it_goes_on_and_leaves_nothing_half_made(tmp_path, number, status):
    study = write_study(tmp_path / "small.ipynb")
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", PROGRAM, "run", str(study), "-p", "fault", "hang", "--name", "x"]
    folder, env = tmp_path / "reports" / "small" / "x", os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        while not (folder / "hung").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        stdout, stderr = process.communicate()
    assert process.returncode == status and not stdout and "Traceback" not in stderr
    said = "interrupted: the same command goes on after its 1 stage finished so far (the last: first)"
    assert stderr.splitlines()[-1] == said
    assert kernels and not any(kernel.is_running() for kernel in kernels)
    assert [run.state for run in list_runs(tmp_path / "reports")] == ["interrupted"]
    (folder / "calls.txt").unlink()
    left = {path.name for path in (folder / "stages").iterdir() if not path.name.startswith("first-")}
    assert left == {".lock", ".starts.json"} and not list((tmp_path / "tmp").iterdir())
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert again.returncode == 0 and (folder / "calls.txt").read_text() == "second\n", again.stderr
    facts = json.loads((folder / "environment.json").read_text())
    assert facts["starts"] == 2 and facts["seconds_total"] > facts["seconds"] > 0 and "%|" not in again.stderr
