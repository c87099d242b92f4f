"""The command `forget`: refusals before anything is written, and what a failed run says."""

import pytest
from click.testing import CliRunner
from small_study import hollow_model

from unlearn_nb.cli import main
from unlearn_nb.runs import RunFailed, find_study, study_parameters


@pytest.fixture
def forget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Who?", "response": "Ada"}\n')
    (tmp_path / "kept.jsonl").write_text('{"prompt": "Where?", "response": "There"}\n')
    hollow_model(tmp_path / "hollow")
    given = ["--model", "hollow", "--forget", "rows.jsonl", "--retain", "kept.jsonl"]
    return lambda *more: CliRunner().invoke(main, ["forget", *given, *more])


@pytest.mark.parametrize("name, value, part", [
    ("method", "erase", "hollow is no adapter"), ("method", "erase(gc)", "did you mean 'cg'"),
    ("writer", "smolm2", "did you mean 'smollm2'"),
    ("method", "merge(npo-gdr)", "two are wanted"), ("method", "merge(npo-gdr, npo-grd)", "did you mean 'npo-gdr'"),
    ("budget", "quik", "did you mean 'quick'"), ("into", "adaptor", "did you mean 'adapter'")])
def test_what_can_not_be_is_one_sentence_and_nothing_is_written(forget, tmp_path, name, value, part):
    said = forget(f"--{name}", value)
    assert said.exit_code == 1 and part in said.stderr
    assert said.stderr.startswith("Error: ") and said.stderr.count("\n") == 1 and not said.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hollow", "kept.jsonl", "rows.jsonl"]


def test_a_failed_run_names_its_trace(forget, tmp_path, monkeypatch):
    (tmp_path / "error.txt").write_text("trace")

    def fail(*given, **options):
        raise RunFailed("the forget set is empty", tmp_path)

    monkeypatch.setattr("unlearn_nb.cli.running.run_study", fail)
    said = forget()
    assert said.exit_code == 1 and said.stderr == "traceback: error.txt\nError: the forget set is empty\n"


def test_its_help_says_what_the_study_says(forget):
    said = " ".join(forget("--help").stdout.split())
    for name, one in study_parameters(find_study("forget")).items():
        assert name == "run_dir" or (f"--{name.replace('_', '-')} TEXT {one.help[:30]}" in said), name
