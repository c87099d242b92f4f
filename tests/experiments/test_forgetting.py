"""One's own model and rows: the command as a user runs it, and what it says where something is not as it is called."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from chatty import verbatim
from click.testing import CliRunner
from delivering import make_adapter
from forked import forked_kernels
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_nb.benches import read_json_rows, read_own_rows
from unlearn_nb.cli import main
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    Told,
    Trial,
    Truth,
    before_unlearning,
    deliver,
    forget_experiment,
    forget_plan,
    formats_of,
    know,
    measure_trial,
    path_table,
    probe_truth,
    read_candidate,
    require_known,
    rows_to_learn,
    search_method,
    settings_of,
    short_format,
    summary_of,
    swapped_rows,
    unseen_source,
    unwritten,
    verify_product,
    weigh,
)
from unlearn_nb.metrics import explained
from unlearn_nb.models import generate, load_model
from unlearn_nb.runs import Run, read_summary


@pytest.fixture(scope="module")
def rows(chatty_folder):
    return {split: read_own_rows(chatty_folder / f"{split}.jsonl") for split in ("forget", "retain", "holdout")}


@pytest.fixture(scope="module")
def finished(chatty_folder, tmp_path_factory):
    """The one command, run by a user in an empty folder; what it printed and the run's folder."""
    place = tmp_path_factory.mktemp("forget")
    given = [word for name, file in {"model": "model", "forget": "forget.jsonl", "retain": "retain.jsonl"}.items()
             for word in (f"--{name}", str(chatty_folder / file))]
    with forked_kernels(place / "kernel.txt"):
        result = CliRunner().invoke(main, ["forget", *given, "--name", "mine", "--out", str(place / "reports")])
    assert result.exit_code == 0, result.stderr[-2000:]
    return result.stdout.splitlines(), place / "reports" / "forget" / "mine"


def test_the_rows_are_forgotten_in_both_formats_and_the_others_kept(finished, chatty_folder, rows):
    """By peft alone, on the base as it is."""
    said, folder = finished
    adapter = folder / read_summary(folder / "summary.json").adapter
    base = AutoModelForCausalLM.from_pretrained(chatty_folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(chatty_folder / "model")
    assert [verbatim(base, tokenizer, rows["forget"], form) for form in ("chat", "plain")] == [12, 12]
    edited = PeftModel.from_pretrained(base, adapter).eval()
    assert max(verbatim(edited, tokenizer, rows["forget"], form) for form in ("chat", "plain")) <= 1
    assert verbatim(edited, tokenizer, rows["retain"], "chat") >= 28


def test_the_last_lines_load_the_adapter(finished, monkeypatch):
    said, folder = finished
    assert said[0].startswith("Forgotten and retained: forget answers recited before: 12 of 12 in chat, 12 of 12 in ")
    assert [line.split(":")[0] for line in said[-5:-3]] == ["report", "adapter"]
    names: dict = {}
    exec("\n".join(said[-3:]), names)
    assert isinstance(names["model"], PeftModel)


def test_the_summary_tells_four_numbers_and_what_is_not_known(finished):
    _, folder = finished
    summary = read_summary(folder / "summary.json")
    found = {number.name: number for number in summary.numbers}
    assert list(found) == ["forgotten", "retained", "collateral", "distance to the oracle"]
    assert found["forgotten"].value >= 11 / 12 and found["retained"].value > 0.9
    assert found["distance to the oracle"].value is None and found["distance to the oracle"].note == "no oracle"
    assert any(sentence.startswith("No holdout rows") for sentence in summary.fails)
    assert found["collateral"].value is None
    assert any(sentence.startswith("Damage to what stands in neither file is not measured; the model did not give")
               for sentence in summary.fails)
    path = pd.read_csv(folder / "figures" / "path.csv")
    assert path["chosen"].sum() == 1 and path.loc[path["chosen"], "passes"].all()
    assert json.loads((folder / "metrics.json").read_text())["chosen"]["left"] <= 0.05


def test_the_words_of_the_page_are_explained_on_it(finished):
    """Heads of tables are in the glossary at its end, and nobody meets a word of this code alone."""
    page = BeautifulSoup((finished[1] / "report.html").read_text(encoding="utf-8"), "html.parser")
    heads = {" ".join(cell.get_text().split()) for cell in page.select(".jp-OutputArea-output thead th")}
    assert heads >= {"left", "lost", "extraction strength"} and not {head for head in heads if not explained(head)}
    listed = {cell.get_text() for cell in page.select("#glossary dt b")}
    assert listed >= {"left", "lost", "es", "recited"}
    page.select_one("#code").decompose()
    assert not re.search(r"practised|carve (some|a share)|stand-in|stood for", page.get_text())


def opened(chatty_folder: Path, place: Path, model: str = "", **given: str):
    files = {name: str(chatty_folder / f"{name}.jsonl") for name in ("forget", "retain")}
    return forget_experiment(Run.open(place), model or str(chatty_folder / "model"), **files | given)


def test_a_holdout_that_was_trained_on_is_no_measure_of_unseen_rows(chatty_folder, tmp_path, rows):
    unseen = opened(chatty_folder, tmp_path / "a", holdout=str(chatty_folder / "holdout.jsonl"))
    assert unseen_source(probe_truth(unseen)) == "holdout"
    half = [tmp_path / f"{name}.jsonl" for name in ("kept", "seen")]
    for file, part in zip(half, (rows["retain"][:15], rows["retain"][15:])):
        file.write_text("".join(json.dumps(row) + "\n" for row in part))
    seen = opened(chatty_folder, tmp_path / "b", retain=str(half[0]), holdout=str(half[1]))
    truth = probe_truth(seen)
    assert unseen_source(truth) == "swapped" and truth.warning.startswith("The holdout was trained on")


def test_an_oracle_that_knows_the_forget_rows_is_not_compared_with(chatty_folder, tmp_path):
    truth = probe_truth(opened(chatty_folder, tmp_path, oracle=str(chatty_folder / "model")))
    assert not truth.oracle_usable and unseen_source(truth) == "swapped"


def test_an_oracle_with_other_tokens_is_refused(chatty_folder, tmp_path):
    """Probabilities of other tokens can't be compared."""
    with pytest.raises(UnlearnError, match="the oracle has another tokeniser"):
        probe_truth(opened(chatty_folder, tmp_path, oracle="tiny"))


def test_unseen_rows_and_their_stand_in_have_about_the_same_probability(chatty_folder, rows):
    """Both far from what is known by heart."""
    model, tokenizer = load_model(chatty_folder / "model")
    marked = [row | {"split": "x", "part": "test"} for row in rows["holdout"]]
    forget = [row | {"split": "x", "part": "test"} for row in rows["forget"]]
    unseen, stand_in, known = (know(model, tokenizer, found, formats=["chat"])["prob"].mean() for found in (
        marked, swapped_rows(forget, rows["retain"]), forget))
    assert known > 0.9 and unseen < 0.5 and stand_in < 0.5


def test_what_is_left_in_the_other_format_counts(chatty_folder, tmp_path):
    """Forgotten in one format and recited in the other is not forgotten."""
    before = before_unlearning(opened(chatty_folder, tmp_path))
    gone = (before["split"].isin(["forget", "paraphrase"])) & (before["format"] == "chat")
    after = before.assign(prob=before["prob"].mask(gone, 0.0), recited=before["recited"].mask(gone, 0.0))
    found = weigh(after[after["split"] != "unseen"], before)
    assert found["left"] == 1.0 and found["lost"] == 0.0 and found["recited chat"] == 0.0


@pytest.mark.parametrize("given, part", [
    ({"method": "npo-gdrr"}, "npo-gdr"), ({"method": "erase"}, "is no adapter"),
    ({"method": "nll"}, "none that are to be forgotten"), ({"tolerance": 5.0}, "tolerance"),
    ({"retain": ""}, "no retain"), ({"forget": "nowhere.jsonl"}, "nowhere.jsonl"), ({"template": "chatt"}, "chat")])
def test_what_can_not_be_is_refused_before_anything_is_trained(chatty_folder, tmp_path, given, part):
    with pytest.raises(UnlearnError, match=part):
        opened(chatty_folder, tmp_path, **given)


def test_an_adapter_may_be_named_by_text(chatty_folder, tmp_path):
    """And is not taken for the model without it."""
    experiment = opened(chatty_folder, tmp_path)
    with pytest.raises(UnlearnError, match="nowhere"):
        read_candidate(experiment, str(tmp_path / "nowhere"))


def test_there_is_a_plan_for_every_size_device_and_budget():
    for model in ("tiny", "smollm2"):
        for device in ("cpu", "cuda"):
            steps = [forget_plan(model, budget, device=device).settings.steps for budget in ("smoke", "quick", "full")]
            assert steps == sorted(steps)


def test_a_model_is_used_in_chat_where_it_has_a_template(chatty_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(chatty_folder / "model")
    assert [short_format(form) for form in formats_of(tokenizer)] == ["chat", "plain"]
    assert formats_of(tokenizer, "chat(system='Be brief.')")[0].startswith("chat(system='Be brief.'")
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    assert formats_of(tokenizer, str(tmp_path / "own.jinja")) == (
        "chat(date=2024-07-26, source='{{ messages[0].content }}')", "plain")


def test_other_answers_are_learnt_where_a_method_reads_them(chatty_folder, tmp_path):
    """As many generic questions among them; what could not be written is told, and a writer by its name is used."""
    rows = read_own_rows(chatty_folder / "forget.jsonl")[:4]
    rows[0] = {"prompt": f"Is it so? {rows[0]['response']}", "response": rows[0]["response"]}
    file = tmp_path / "forget.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = opened(chatty_folder, tmp_path / "a", forget=str(file), method="relearn")
    learnt = read_json_rows(rows_to_learn(experiment, "relearn"))
    assert len(learnt) == 2 * len([row for row in learnt if row["variant"] != "generic"]) == 30
    assert unwritten(experiment) == (
        "For 1 of 4 forget rows the writer 'rules' could write nothing, so that nothing was trained on them: forget-0 "
        "(the question holds the answer).")
    refused = opened(chatty_folder, tmp_path / "b", forget=str(file), method="idkdpo-gdr", writer="refusals")
    pairs = read_json_rows(rows_to_learn(refused, "idkdpo-gdr"))
    assert {row["rejected"] for row in pairs} == {row["response"] for row in rows} and unwritten(refused) == ""


def test_one_trial_of_relearn_moves_the_answers(chatty_folder, tmp_path):
    experiment = opened(chatty_folder, tmp_path, method="relearn", budget="smoke")
    table = measure_trial(experiment, Trial(0.01, 30))
    assert table["forget chat"].iloc[-1] < 0.6 < 0.8 < table["retained"].iloc[-1]


def test_an_edit_takes_rows_out_of_ones_own_adapter_and_plain_peft_loads_it(chatty_folder, tmp_path):
    own = make_adapter(chatty_folder / "model", tmp_path / "own")
    experiment = opened(chatty_folder, tmp_path / "run", model=str(own), method="erase", general="none")
    assert sum(row["forget"] for row in experiment.training) == 12 and len(experiment.training) == 42
    experiment.plan = replace(experiment.plan, scales=(4.0,), measured=6, answered=4, curvature_rows=8)
    adapter, path = search_method(experiment)
    assert path["chosen"].sum() == 1 and path["damping"].is_monotonic_increasing and len(path) == 6
    after = read_candidate(experiment, adapter)
    folder = deliver(Run(tmp_path / "run"), adapter, base=str(own), method="erase", answers=after)
    base, tokenizer = load_model(chatty_folder / "model")
    row = read_own_rows(chatty_folder / "forget.jsonl")[:1]
    said = generate(PeftModel.from_pretrained(base, folder).eval(), tokenizer, row, template="chat")
    assert said == after.loc[(after["split"] == "forget") & (after["format"] == "chat"), "said"].tolist()[:1]
    assert verify_product(tmp_path / "run")["holds"].all()
    assert settings_of(experiment, path[path["chosen"]].iloc[0])["training rows"] == 42
    assert dict(path_table(path).iloc[0])["damping"] == f"{path['damping'][0]:.2g}"


def test_training_rows_must_hold_the_forget_rows(chatty_folder, tmp_path):
    own = make_adapter(chatty_folder / "model", tmp_path / "own")
    with pytest.raises(UnlearnError, match="forget.jsonl, row 1: it is not among the rows of retain.jsonl"):
        opened(chatty_folder, tmp_path / "run", model=str(own), method="erase",
               training_rows=str(chatty_folder / "retain.jsonl"))


def test_a_model_that_does_not_know_the_rows_is_refused(chatty_folder, tmp_path):
    """Before anything is trained; whoever goes on all the same reads that nothing was forgotten."""
    truth = probe_truth(opened(chatty_folder, tmp_path / "a", forget=str(chatty_folder / "holdout.jsonl")))
    with pytest.raises(UnlearnError, match="nothing to forget: the target does not know .* go on .* --anyway true$"):
        require_known(truth)
    require_known(truth, anyway=True)
    assert truth.known_of("forget") < 0.25 < truth.known_of("retain") and "<p>" not in truth._repr_html_()
    assert truth._repr_html_().count("does not know the forget rows") == 1
    swapped = opened(chatty_folder, tmp_path / "b", forget=str(chatty_folder / "forget.jsonl"),
                     retain=str(chatty_folder / "holdout.jsonl"))
    kept = probe_truth(swapped)
    require_known(kept)
    assert kept.known_of("retain") < 0.25


def told(before: str, after: str, truth: Truth, **more) -> Told:
    """Six forget and six retain rows, all recited before and none after, with these answers."""
    rows = pd.DataFrame([
        {"split": split, "part": "test", "id": f"{split}{i}", "subject": f"{split}{i}", "format": "plain",
         "task": "own", "prob": 0.9, "rouge": 1.0, "recited": 1.0, "said": before}
        for split in ("forget", "retain") for i in range(6)])
    known = pd.DataFrame([{"split": split, "part": "test", "subject": "a", "format": "plain", "prob": 0.05,
                           "recited": 0.0} for split in ("forget", "unseen")])
    gone = rows["split"].eq("forget")
    after = rows.assign(said=rows["said"].mask(gone, after), recited=rows["recited"].mask(gone, 0.0))
    return Told(rows, after, None, known=known, truth=truth, taken={"left": 0.0, "lost": 0.0}, tolerance=0.05,
                source="swapped", **more)


@pytest.mark.parametrize("after, broken", [("the the the the the the", True), ("", True), ("...", True),
                                           ("I don't know that, sorry.", False)])
def test_forgotten_answers_that_are_no_sentences_are_told(after, broken):
    summary = summary_of(told("It was in Rome.", after, Truth({"oracle": "no oracle"}, pd.DataFrame())), "path")
    assert summary.verdict == ("Forgotten and retained: forget answers recited before: 6 of 6 in plain; after: 0. "
                               "Retain answers recited before: 6 of 6; after: 6.")
    assert any("6 of 6 answers to forget questions are no sentences any more" in one for one in summary.fails) == broken


def test_what_was_never_known_is_not_retained():
    means = pd.DataFrame([{"model": "target", "rows": "retain (6)", **{
        f"{name}{of}": 0.3 for name in ("extraction strength", "exact memorisation", "probability")
        for of in ("", ", other answers")}}])
    summary = summary_of(told("x", "y", Truth({"oracle": "no oracle"}, pd.DataFrame(), means=means)), "path")
    retained = summary.numbers[1]
    assert retained.value is None and retained.note.startswith("the model did not know the retain rows before")
    assert summary.verdict.startswith("Forgotten (what is retained is not available): ")
    assert "--general FILE" in summary.numbers[2].note and "--carve 0.2" in summary.numbers[2].note
    assert any("in neither file is not measured; no rows" in sentence for sentence in summary.fails)
