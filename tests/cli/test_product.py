"""The commands `chat`, `export` and `verify`."""

import json
import shutil

import pytest
from click.testing import CliRunner
from delivering import delivered

from unlearn_nb.benches import read_own_rows
from unlearn_nb.cli import main


@pytest.fixture(scope="module")
def home(chatty_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(chatty_folder, folder / "mine")
    delivered(folder / "mine", folder)
    (folder / "reports" / "forget" / "bare").mkdir()
    (folder / "reports" / "forget" / "bare" / "params.yaml").write_text("model: mine\n")
    return folder


@pytest.fixture
def told(home, monkeypatch):
    monkeypatch.chdir(home)
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


def test_chat_asks_both_prompt_by_prompt_from_options_and_from_stdin(told, home):
    rows = read_own_rows(home / "mine" / "forget.jsonl")[:2]
    given = told("chat", "one", "--template", "chat", *(text for row in rows for text in ("--prompt", row["prompt"])))
    typed = told("chat", "one", "--template", "chat", input="\n\n".join(row["prompt"] for row in rows))
    assert given.exit_code == typed.exit_code == 0 and given.stdout == typed.stdout
    for row in rows:
        assert f"prompt:    {row['prompt']}\nbase:      {row['response']}\nunlearned: " in given.stdout
    assert given.stdout.count(rows[0]["response"]) == 1


def test_a_run_that_lies_elsewhere_is_meant_by_its_folder(told, home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = told("verify", str(home / "reports" / "forget" / "one"))
    assert said.exit_code == 0 and said.stdout.endswith("verified: it scores as the run said\n")
    refused = told("verify", str(home / "mine"))
    assert refused.exit_code == 1 and "unknown run in reports" in refused.output


def test_export_prints_a_folder_that_loads(told, home):
    said = told("export", "one", "--merge", "--to", "merged")
    assert said.exit_code == 0 and said.stdout.splitlines()[-1] == "merged"
    assert "AutoModelForCausalLM" in said.output and (home / "merged" / "model.safetensors").is_file()
    again = told("export", "one", "--merge", "--to", "merged")
    assert again.exit_code == 1 and "exists already" in again.output


def test_verify_says_so_and_ends_with_1_where_scores_differ(told, home):
    said = told("verify", "one")
    assert said.exit_code == 0 and said.stdout.endswith("verified: it scores as the run said\n")
    check = home / "reports" / "forget" / "one" / "check.json"
    before = check.read_text()
    kept = json.loads(before)
    kept["rows"] = [row | {"prob": 0.9} for row in kept["rows"]]
    check.write_text(json.dumps(kept))
    said = told("verify", "one")
    check.write_text(before)
    assert said.exit_code == 1 and "does not score as the run said: forget in chat, forget in plain" in said.output


@pytest.mark.parametrize("arguments", [("chat", "bare", "--prompt", "Who?"), ("export", "bare"), ("verify", "bare")])
def test_a_run_without_a_product_is_told_in_a_sentence(told, arguments):
    said = told(*arguments)
    assert said.exit_code == 1 and said.output.count("\n") == 1 and "has delivered no adapter" in said.output
