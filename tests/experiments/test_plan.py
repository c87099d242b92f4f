"""Plans: what the files say about the models that have been run, for whom there are rules, and what is refused."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from transformers import LlamaConfig

from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    BUDGETS,
    MergingPlan,
    base,
    choose_dtype,
    erasing_plan,
    for_bench,
    localization_plan,
    merging_plan,
    model_size,
    plan,
    read_plan,
    relearn_plan,
)
from unlearn_nb.models import recipe_for
from unlearn_nb.objectives import resolve

# study -> "model/budget[/bench]" -> fields of the plan of seed 3 on a CPU, as in all reports so far
TABLE = json.loads((Path(__file__).parent / "plans.json").read_text())
WITHOUT_FACTS = SimpleNamespace(forget={"facts": [[], []]})
PLANS = {"merging": merging_plan, "relearn": relearn_plan, "eraser": erasing_plan, "localization": localization_plan}
SIZED = {"tiny": "tiny", "small": "smollm2", "medium": "a/medium", "large": "a/large"}


def named(methods):
    return {name: asdict(method) for name, method in methods.items()}


def made(study, model, budget, *more):
    """The fields of a plan as JSON."""
    if study == "relearn":
        bench = WITHOUT_FACTS if more else load_bench("biographies", size="smoke")
        found = for_bench(relearn_plan(model, budget, seed=3), model, bench)
        fields = asdict(found) | {"methods": named(found.methods)}
    elif study == "localization":
        found = localization_plan(model, budget, seed=3, bench=more[0])
        fields = asdict(found) | {"methods": named(found.methods), "located": found.located,
                                  "localizers": found.localizers, "injected": found.injected,
                                  "masks": found.masks is not None}
    else:
        found = PLANS[study](model, budget, seed=3)
        fields = asdict(found)
    if study == "eraser":
        fields["solvers"] = {name: found.solvers[name] for name in found.compared}
    return json.loads(json.dumps(fields))


@pytest.mark.parametrize("study, case", [(study, case) for study, cases in TABLE.items() for case in cases])
def test_models_that_have_been_run_keep_their_plans(study, case):
    """To the type of every number, because a recipe's hash is the name of the models that it made."""
    found = made(study, *case.split("/"))
    for field, value in TABLE[study][case].items():
        assert json.dumps(found[field], sort_keys=True) == json.dumps(value, sort_keys=True), field


def test_a_target_is_shared_with_everybody_who_asks_for_the_same_recipe():
    for budget in BUDGETS:
        for model in ("tiny", "smollm2"):
            assert merging_plan(model, budget).recipe == relearn_plan(model, budget).recipe == recipe_for(model, budget)


@pytest.fixture
def sized(monkeypatch):
    """Names of models of every size."""
    known = {name: size for size, name in SIZED.items()}
    for module in (plan, base):
        monkeypatch.setattr(module, "model_size", lambda model: known[model])


@pytest.mark.parametrize("study", PLANS)
@pytest.mark.parametrize("size", SIZED)
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_case_has_a_plan_that_can_be_run(sized, study, size, device, budget):
    found = PLANS[study](SIZED[size], budget, device=device)
    objectives = {"merging": lambda: found.objectives.values(), "eraser": lambda: (),
                  "relearn": lambda: [method.objective for method in found.methods.values()],
                  "localization": lambda: [found.injected, *(method.objective for method in found.methods.values())]}
    for objective in objectives[study]():
        resolve(objective)
    assert found.bench_size in ("smoke", "quick", "full") and found.seeds >= 1 and found.recipe.lr > 0
    if study == "merging":
        assert found.settings.steps >= 10 and set(found.learning_rates) == {"over", "under"}
    if study == "eraser":
        assert {*found.compared, *found.efforts, found.solver} <= set(found.solvers)
        assert not found.shares or (found.swept and found.efforts)
        assert found.judged > 0 and found.chosen > 0 and (found.users
                                                          or {case.task for case in found.cases} == {"facts"})


def test_a_gpu_is_given_more_than_two_cores(sized):
    """A 7B on a GPU is not treated as a 135M on two cores."""
    cpu, gpu = (localization_plan("a/large", "quick", device=device) for device in ("cpu", "cuda"))
    assert gpu.rows > cpu.rows and gpu.checkpoints[-1] > cpu.checkpoints[-1] and gpu.settings.accumulation > 1
    assert cpu == localization_plan("smollm2", "quick")
    merging = merging_plan("a/large", "full", device="cuda")
    assert (merging.settings.lora_r, merging.settings.lora_alpha, merging.settings.lora_dropout) == (32, 32, 0.05)
    assert 0.0001 in merging.learning_rates["over"] and choose_dtype("auto", "a/large", "cuda") == "bfloat16"
    assert relearn_plan("a/large", "quick", device="cuda").learning_rates["relearn"] == (0.0001,)
    assert erasing_plan("a/large", "full", device="cuda").recipe.lr == 0.0002


@pytest.mark.parametrize("gain, kind", [(4.4, "bfloat16"), (1.1, "float32"), (0.02, "float32")])
def test_a_machine_that_multiplies_bfloat16_fast_does_so_for_real_models_alone(monkeypatch, tmp_path, gain, kind):
    monkeypatch.setattr("unlearn_nb.experiments.base.bfloat16_gain", lambda device: gain)
    assert choose_dtype("auto", "smollm2", "cpu") == kind and choose_dtype("float32", "smollm2", "cpu") == "float32"
    LlamaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=100).save_pretrained(tmp_path)  # as small as tiny
    assert choose_dtype("auto", str(tmp_path), "cpu") == choose_dtype("auto", "tiny", "cuda") == "float32"


def test_a_folder_s_size_is_that_of_its_configuration(tmp_path):
    LlamaConfig(hidden_size=1536, num_hidden_layers=12, num_attention_heads=16).save_pretrained(tmp_path / "model")
    assert model_size(str(tmp_path / "model")) == "medium"
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": str(tmp_path / "model")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert model_size(str(tmp_path / "adapter")) == "medium"
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("count, size", [(7e9, "large"), (None, "small")])
def test_a_model_that_is_not_here_is_counted_by_the_hub_or_taken_for_small(monkeypatch, recwarn, count, size):
    monkeypatch.setattr(plan, "_hub_count", lambda name: count)
    assert model_size(f"nobody/model-{size}") == size
    assert ["can't be told" in str(warning.message) for warning in recwarn] == ([] if count else [True])


@pytest.mark.parametrize("rules, part", [
    ([{"steps": 3}], "unknown word 'steps'"),
    ([{"settings": {"stps": 3}}], "plans/merging.yaml.settings: unknown word 'stps'; did you mean 'steps'"),
    ([{"when": {"sizes": "tiny"}}], "plans/merging.yaml, rule 1: unknown word of `when` 'sizes'; did you mean 'size'"),
    ([{}, {"when": {"device": ["cpu", "gpu"]}}], "rule 2: unknown device 'gpu'"),
    ([{"recipe": {"warmup": "1e-3"}}], "recipe.warmup is the text '1e-3', and a number is wanted"),
    ([{"bench_size": "full"}], "lacks recipe, settings, objectives"),
])
def test_a_wrong_file_is_refused_in_one_sentence(monkeypatch, rules, part):
    complete = [] if "lacks" in part else plan.read_rules("merging")[:2]  # amounts, and what holds for all
    monkeypatch.setattr(plan, "read_rules", lambda study: [*rules, *complete])
    with pytest.raises(UnlearnError) as error:
        read_plan("merging", MergingPlan, model="tiny", budget="full")
    assert part in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_study_or_budget_is_refused():
    with pytest.raises(UnlearnError, match="unknown study 'mergin'; did you mean 'merging'"):
        read_plan("mergin", MergingPlan, model="tiny", budget="full")
    with pytest.raises(UnlearnError, match="unknown budget 'huge': use smoke, quick or full"):
        read_plan("merging", MergingPlan, model="tiny", budget="huge")


def test_every_file_says_where_its_numbers_come_from():
    folder = Path(plan.__file__).parent / "plans"
    assert sorted(path.stem for path in folder.iterdir()) == sorted([*PLANS, "audit", "compare", "forget"])
    for path in folder.iterdir():
        text = path.read_text()
        assert "not run" in text and all(isinstance(rule, dict) for rule in yaml.safe_load(text))
        assert max(map(len, text.splitlines())) <= 170
