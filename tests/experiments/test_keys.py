"""What the stages of the studies depend on: contents, not names. Nothing is trained."""

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest

from unlearn_nb.augmentation import writer_identity
from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    ErasingExperiment,
    Experiment,
    ReLearnExperiment,
    erasing_plan,
    for_bench,
    localization_plan,
    merging_plan,
    relearn_plan,
    training_set,
    tuned,
)
from unlearn_nb.experiments.erasing import fingerprint
from unlearn_nb.models import Recipe


class Recorder:
    """A run that builds nothing and remembers what each stage depends on."""

    def __init__(self, folder):
        self.folder, self.inputs = folder, {}

    def stage(self, name, build, **inputs):
        self.inputs[name] = inputs
        return self.folder


@pytest.fixture
def models(tmp_path, untrained):
    """Two models of one name in two folders, a weight apart."""
    for place in ("a", "b"):
        for part in untrained:
            part.save_pretrained(tmp_path / place / "m")
        untrained[0].model.norm.weight.data[0] += 1
    return [tmp_path / "a" / "m", tmp_path / "b" / "m"]


def test_adapters_of_two_models_of_one_name_are_two_stages(models, tmp_path, smoke_bench):
    found = []
    for folder in models:
        run = Recorder(tmp_path)
        plan = erasing_plan(str(folder), "smoke")
        tuned(ErasingExperiment(run, str(folder), smoke_bench, plan), "facts", list(smoke_bench.forget), name="all")
        found.append(run.inputs["s0-tune-facts-all"])
    assert found[0] | {"base": ""} == found[1] | {"base": ""} and found[0]["base"] != found[1]["base"]


def test_whatever_a_row_holds_is_in_its_fingerprint():
    row = {"id": "1", "prompt": "Who?", "response": "Ada.", "subject": "Ada", "kind": "qa", "part": "test"}
    others = [row | {name: "other"} for name in row]
    assert len({fingerprint([one]) for one in [row, *others]}) == 7
    assert fingerprint([row, others[0]]) != fingerprint([others[0], row])


def relearn(tmp_path, bench, **given):
    """A ReLearn experiment whose models are named only, and the run that remembers its stages."""
    run, plan = Recorder(tmp_path), for_bench(relearn_plan("tiny", "smoke", **given), "tiny", bench)
    experiment = ReLearnExperiment(run, "tiny", bench, plan)
    experiment.__dict__["prepared"] = SimpleNamespace(target=tmp_path / "target", oracle=tmp_path / "oracle")
    return experiment, run


def test_an_edited_generic_file_is_another_training_set(tmp_path, smoke_bench):
    file, found = tmp_path / "g.jsonl", []
    for word in ("alpha", "omega", "alpha"):
        file.write_text(json.dumps({"prompt": f"{word}?", "response": word}))
        experiment, run = relearn(tmp_path, smoke_bench, generic=f"jsonl:{file}")
        training_set(experiment, 1.0)
        found.append(run.inputs["s0-mix-1"]["generic"])
    assert found[0] == found[2] != found[1]


def test_an_entailment_model_is_known_by_its_content(models, tmp_path, smoke_bench):
    found = [relearn(tmp_path, smoke_bench, nli=str(folder))[0].scoring["nli"] for folder in models]
    assert found[0] != found[1]
    assert relearn(tmp_path, smoke_bench)[0].scoring["nli"] == ""


def test_writers_are_known_by_address_and_model_or_by_content(models):
    urls = [f"http://{host}:8000/v1#{name}" for host in "ab" for name in ("one", "two")]
    assert len({writer_identity(spec) for spec in [*urls, *map(str, models), "org1/llama", "org2/llama"]}) == 8


@pytest.mark.parametrize("plan, code", [(merging_plan, "zjunlp"), (relearn_plan, "zjunlp"), (erasing_plan, "llmeraser"),
                                        (localization_plan, "open-unlearning")])
def test_a_study_names_whose_code_it_follows(plan, code):
    own, *same = (plan("tiny", "smoke", faithful=given) for given in ("", False, "false"))
    followed, *equal = (plan("tiny", "smoke", faithful=given) for given in (code, True, "true"))
    assert own == same[0] == same[1] != followed == equal[0] == equal[1]
    with pytest.raises(UnlearnError, match=f"faithful='{code}'"):
        plan("tiny", "smoke", faithful="tofu")


def test_rows_without_a_number_of_json_are_refused(tmp_path):
    row = {"id": "1", "prompt": "Who?", "response": "Ada.", "subject": "Ada", "task": "t", "kind": "qa"}
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"id": name}) + "\n")
    for text in ("NaN", "-Infinity", "1e999"):
        line = json.dumps(row)[:-1] + f', "weight": {text}}}\n'
        (tmp_path / "retain.jsonl").write_text(json.dumps(row | {"id": "2"}) + "\n" + line)
        with pytest.raises(UnlearnError, match="retain.jsonl, line 2: .* is no number of JSON"):
            load_bench(f"jsonl:{tmp_path}")


def test_target_and_oracle_are_the_same_made_at_once_or_one_after_the_other(tmp_path, untrained, monkeypatch):
    for part in untrained:
        part.save_pretrained(tmp_path / "m")
    bench, plan = load_bench("biographies", size="smoke"), merging_plan("tiny", "smoke")
    plan = replace(plan, recipe=Recipe(steps=3, batch_size=4))
    found = []
    for jobs in (1, 2):
        monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path / f"cache-{jobs}"))
        prepared = Experiment(Recorder(tmp_path), str(tmp_path / "m"), bench, plan, jobs=jobs).prepared
        found.append([(folder.name, (folder / "model.safetensors").read_bytes()) for folder in prepared[:2]])
        assert len(prepared.oracle_losses) == 3
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_an_experiment_is_sent_without_the_model_in_memory(tmp_path, smoke_bench):
    experiment = Experiment(Recorder(tmp_path), "tiny", smoke_bench, merging_plan("tiny", "smoke"))
    experiment.__dict__.update(target=("a model", "a tokeniser"), prepared="two folders")
    sent = pickle.loads(pickle.dumps(experiment))
    assert sent.prepared == "two folders" and "target" not in vars(sent) and experiment.target[0] == "a model"
