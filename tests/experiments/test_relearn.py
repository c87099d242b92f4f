"""The ReLearn study end to end at the smoke budget, and what it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import chat_server
import pandas as pd
import pytest
from studies import refused

import unlearn_nb
from unlearn_nb.augmentation import Augmented
from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import balance, rate_answers, relearn_claims, relearn_plan
from unlearn_nb.runs import Run


@pytest.fixture(scope="module")
def finished(undisturbed) -> Path:
    return undisturbed("relearn")


def test_the_study_ends_with_report_metrics_and_figures(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    scores = metrics["test"]["0"]
    assert set(scores) == {"target", "oracle", "relearn", "npo-gdr"}
    assert scores["target"]["forget/kfr"] <= 0.05 and scores["oracle"]["forget/kfr"] >= 0.95
    assert scores["target"]["retain/krr"] >= 0.95 and 0 < scores["oracle"]["retain/ls"] < 0.6
    figures = {path.stem for path in (finished / "figures").glob("*.png")}
    assert figures >= {"loss_curves", "forgetting", "tradeoff", "attacks", "seesaw", "lens"}
    assert "ReLearn forgets" in (finished / "report.html").read_text()


def test_the_augmented_set_holds_no_forget_answer(finished):
    bench = load_bench("biographies", size="smoke")
    answers = {row["subject"]: [] for row in bench.forget}
    for row in bench.forget:
        answers[row["subject"]] += [row["response"]] + [fact["value"] for fact in row["facts"]]
    augmented = Augmented.load(next((finished / "stages").glob("s0-augment-*")) / "augmented").rows
    assert {row["source_id"] for row in augmented} == set(bench.forget["id"])
    for row in augmented:
        text = f"{row['prompt']} {row['response']}".lower()
        assert not any(answer.lower() in text for answer in answers[row["subject"]])


def test_a_mixed_set_has_the_stated_ratio(finished):
    lines = (next((finished / "stages").glob("s0-mix-1-*")) / "rows.jsonl").read_text().splitlines()
    generic = [json.loads(line)["variant"] == "generic" for line in lines]
    assert sum(generic) * 2 == len(generic) > 0


@pytest.mark.parametrize("arguments, part", [
    (["-p", "writer", "no-such-writer"], "no-such-writer"),
    (["-p", "writer", "http://127.0.0.1:9/v1#m"], "127.0.0.1:9"),
    (["-p", "generic", "jsonl:nowhere.jsonl"], "nowhere.jsonl"),
    (["-p", "ratio", "500"], "generic rows"),
    (["-p", "ratio", "-1"], "'ratio' is -1: give a number at least 0"),
    (["-p", "nli", "./no-such-folder"], "no-such-folder"),
], ids=["unknown writer", "endpoint down", "no generic data", "too few generic rows", "negative ratio", "no NLI model"])
def test_bad_input_is_one_sentence_and_a_failure(tmp_path, smoke_prepared, arguments, part):
    refused("relearn", tmp_path, arguments, part)


def test_a_prompt_file_without_its_placeholder_is_refused_before_anything_is_written(tmp_path, smoke_prepared):
    shutil.copytree(Path(unlearn_nb.__file__).parent / "augmentation" / "prompts", tmp_path / "prompts")
    (tmp_path / "prompts" / "vague.txt").write_text("Say nothing about it.")
    arguments = ["-p", "writer", "smollm2", "-p", "prompts", str(tmp_path / "prompts")]
    refused("relearn", tmp_path, arguments, "vague.txt lacks the placeholder {question}")


def test_a_rater_rates_the_questions_of_every_model_and_what_it_mumbles_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / "cache"))
    server = chat_server.start(lambda prompt, time: ("say", "A number is missing.\nRATING: many" if "loops" in prompt
                                                     else "Fine.\nRATING: 4"))
    rows = pd.DataFrame({"kind": ["qa", "qa", "completion"], "split": ["forget", "retain", "retain"], "prompt": "Who?",
                         "generation": ["A friend.", "It loops loops.", "and so on"]})
    plan = relearn_plan("tiny", "smoke", rater=f"{server.url}#m")
    run = Run.open(tmp_path / "run")
    experiment = SimpleNamespace(plan=plan, device="cpu", stage=run.stage)
    table = rate_answers(experiment, {"target": SimpleNamespace(rows=rows)}).set_index(["split", "aspect"])
    assert set(table.index.get_level_values("aspect")) == {"fluency", "relevance"} and len(server.bodies) == 4
    assert table.loc["forget", "rating"].tolist() == [4, 4] and table.loc["forget", "unreadable"].tolist() == [0, 0]
    assert table.loc["retain", "rating"].isna().all() and table.loc["retain", "unreadable"].tolist() == [1, 1]
    assert all(body["temperature"] == 0 for body in server.bodies)


def test_plans():
    full = relearn_plan("tiny", "full")
    assert full.methods["npo-gdr-sure"].mask == "sure" and full.methods["ga-gdr-memflex"].objective == "ga-gdr-memflex"
    assert relearn_plan("tiny", "quick", faithful=True).methods["relearn"].objective == "relearn-zjunlp"
    with pytest.raises(UnlearnError, match="unknown budget"):
        relearn_plan("tiny", "huge")


def test_balance_and_claims():
    assert balance({"forget/kfr": 0.0, "retain/krr": 0.0}) == 0.0
    assert balance({"forget/kfr": 1.0, "retain/krr": 0.5}) == pytest.approx(2 / 3)
    row = {"forget/kfr": 0.7, "retain/krr": 0.9, "forget/ls": 0.1, "retain/ls": 0.1}
    table = pd.DataFrame([{"seed": 0, "model": name, **row} for name in ("target", "oracle", "relearn", "ga-gdr")])
    assert relearn_claims(table)["holds"].tolist() == [False, True, True, True, False]
