"""`unlearn-nb lds`: its stages are used again, and what is wrong is told before anything is trained."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from unlearn_nb.cli import main
from unlearn_nb.experiments import LdsExperiment, sixty_rows

SMALL = ["--model", "tiny", "--subsets", "3", "--steps", "2", "--batch-size", "4", "--rank", "1", "--to", "out"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, queries = sixty_rows()
    for name, rows in {"train": train[:6], "queries": queries[:5]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_a_stopped_command_goes_on_after_its_last_training(files, monkeypatch):
    arguments, trainings = ["lds", "train.jsonl", "queries.jsonl", *SMALL, "--unrolled"], []
    own = LdsExperiment.training

    def counted(experiment, rows, order=0):
        trainings.append(len(rows))
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return own(experiment, rows, order)

    monkeypatch.setattr(LdsExperiment, "training", counted)
    assert CliRunner().invoke(main, arguments).exit_code == 130 and trainings == [3, 3, 3]
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0, said.output
    assert trainings == [3, 3, 3, 3, 6, 6]  # the third half, the whole, and the way back
    again = CliRunner().invoke(main, arguments)
    assert again.stdout == said.stdout and len(trainings) == 6
    table = pd.read_csv(files / "out" / "lds.csv").set_index("method")
    assert list(table.index) == ["ekfac", "dot", "random", "unrolled"] and table.loc["unrolled", "with_truth"] == 1
    assert table.loc["dot", "ahead"] == 0 and table["subsets"].eq(3).all()
    assert said.stdout.splitlines()[-1] == "out/lds.csv" and "smoothness" in said.stdout
    assert json.loads((files / "out" / "metrics.json").read_text())["rows"] == 6


@pytest.mark.parametrize(("arguments", "message"), [
    (["train.jsonl"], "give both a file of training rows"), (["--subsets", "2"], "subsets must be a whole number"),
    (["--rank", "0"], "a rank of at least 1"), (["--method", "dot", "--method", "dot"], "each once"),
    (["--optimiser", "adam"], "unknown optimiser"), (["--lr", "0"], "lr must be a finite number above 0"),
    (["nowhere.jsonl", "queries.jsonl"], "nowhere.jsonl")])
def test_what_is_wrong_is_told_in_a_sentence_and_leaves_no_folder(files, arguments, message):
    said = CliRunner().invoke(main, ["lds", *arguments, "--to", "out"])
    assert said.exit_code == 1 and message in said.output and not (files / "out").exists()
