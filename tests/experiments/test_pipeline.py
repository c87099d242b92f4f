"""Methods written as lists of steps: what they make, that they go on where they were, and what is refused."""

from dataclasses import replace

import pytest
import torch

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import (
    Experiment,
    Made,
    Merge,
    Unlearn,
    cost_of,
    merging_plan,
    read_steps,
    run_pipeline,
)
from unlearn_nb.merging import adapter_norm, delta_norm
from unlearn_nb.models import load_adapter, load_model, read_adapter
from unlearn_nb.regions import Region
from unlearn_nb.runs import Run

SHORT = "unlearn(objective=npo-gdr, lr=0.001, steps=4, batch=4)"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, smoke_bench):
    plan = merging_plan("tiny", "smoke")
    return Experiment(Run.open(str(tmp_path_factory.mktemp("pipeline"))), "tiny", smoke_bench,
                      plan=replace(plan, settings=replace(plan.settings, lora_r=4, lora_alpha=4)))


def says(experiment, which):
    rows = list(experiment.bench.forget)[:4]
    with experiment.candidate(which) as (model, tokenizer), torch.no_grad():
        ids = tokenizer([row["prompt"] + row["response"] for row in rows], return_tensors="pt", padding=True)
        return model(**ids).logits


def test_an_edit_with_a_training_on_top_is_one_folder_that_peft_loads_with_what_it_stands_on(experiment):
    made = run_pipeline(experiment, ["edit(solver='cg(max_products=2)', rows=8)", SHORT])
    edit, both = made.adapters
    assert not torch.allclose(says(experiment, both), says(experiment, edit))
    assert not torch.allclose(says(experiment, edit), says(experiment, "target"))
    alone = load_adapter(load_model(str(experiment.prepared.target))[0], both)
    assert len(alone.active_adapters) == 2  # the edit lies beneath
    assert cost_of(made)["rows"] > 4 * 4 and cost_of(made)["seconds"] > 0


def test_what_stands_is_not_made_again(experiment, monkeypatch):
    first = run_pipeline(experiment, [SHORT])
    monkeypatch.setattr("unlearn_nb.experiments.base.Experiment.target",
                        property(lambda self: pytest.fail("a finished pipeline loads no model")))
    assert run_pipeline(experiment, [SHORT]) == first


def test_a_training_beside_another_stands_on_the_target_and_can_be_merged_with_it(experiment):
    made = run_pipeline(experiment, [SHORT, SHORT.replace("npo-gdr", "ga-gdr").replace(")", ", on=target)"),
                                     "merge(method=linear, share=0.3)"])
    over, under, merged = map(read_adapter, made.adapters)
    module = merged.modules[0]
    wanted = 0.3 * over.factors(module)[0] + 0.7 * under.factors(module)[0]
    torch.testing.assert_close(merged.factors(module)[0], wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("scale", [-1.0, 0.5])
def test_a_merge_of_one_scales_and_negates(experiment, scale):
    trained, merged = map(read_adapter, run_pipeline(
        experiment, [SHORT, f"merge(method=linear, of=1, scale={scale})"]).adapters)
    for module in trained.modules:
        B, A = trained.update(module)
        turned = (merged.update(module)[0] @ merged.update(module)[1]).float()
        torch.testing.assert_close(turned, scale * (B @ A).float(), atol=1e-6, rtol=1e-4)
    assert delta_norm(*merged.update(module)) == pytest.approx(abs(scale) * delta_norm(B, A), rel=1e-4)


def test_snapshots_are_kept_where_points_are_asked_for(experiment):
    made = run_pipeline(experiment, [SHORT.replace(")", ", points=2)")])
    assert [folder.name for folder in (made.adapters[-1] / "snapshots").iterdir()] == ["step-2"]


def test_a_region_is_found_and_trained_in_and_an_attack_leaves_its_table(experiment, monkeypatch):
    steps = ["localize(localizer=random, share=0.1)", SHORT.replace(")", ", points=2)"), "attack(by=nf4)"]
    made = run_pipeline(experiment, steps)
    assert made.region is None and len(made.adapters) == 1 and len(made.stages) == 3
    region, trained = Region.load(made.regions[0]), read_adapter(made.adapters[0])
    for module in trained.modules:
        B, A = trained.update(module)
        inside = region.masks.get(f"{module}.weight", torch.zeros(1, 1)).bool().expand(B.shape[0], A.shape[1])
        assert (B @ A)[~inside].abs().max() < 1e-5, "outside nothing changes"
        assert (B @ A)[inside].abs().sum() > 0 or not inside.any()
    assert [folder.name for folder in (made.adapters[0] / "snapshots").iterdir()] == ["step-2"]
    asked = experiment.bench.split("forget", "test")
    assert made.table("nf4")["id"].tolist() == [str(row["id"]) for row in asked]
    assert made.table("nf4")["score"].between(0, 1).all()
    monkeypatch.setattr("unlearn_nb.experiments.base.Experiment.target",
                        property(lambda self: pytest.fail("a finished pipeline loads no model")))
    assert run_pipeline(experiment, steps) == made


def test_a_region_is_for_the_target_and_for_one_training(experiment, tmp_path):
    before = Made(adapters=(tmp_path,), region=tmp_path / "region.safetensors")
    with pytest.raises(UnlearnError, match="put localize and its unlearn first"):
        run_pipeline(experiment, [SHORT], before)
    with pytest.raises(UnlearnError, match="give one of them"):
        run_pipeline(experiment, [SHORT.replace(")", ", mask=memflex)")], replace(before, adapters=()))
    with pytest.raises(UnlearnError, match="stands twice before an unlearn"):
        run_pipeline(experiment, ["localize"], before)
    with pytest.raises(UnlearnError, match="unknown attack of this pipeline 'nf4'"):
        before.table("nf4")


@pytest.mark.parametrize("steps, part", [
    ([], "a pipeline is a list of steps"),
    ("edit", "a pipeline is a list of steps"),
    (["unlern"], "did you mean 'unlearn'"),
    (["unlearn(rate=1)"], "'rate'"),
    (["unlearn(on=base)"], "'last' or 'target'"),
    (["unlearn", "attack(by=nf5)"], "unknown attack 'nf5'"),
])
def test_steps_that_cannot_be_read_are_refused_before_anything_is_run(steps, part):
    with pytest.raises(UnlearnError, match=None) as error:
        run_pipeline(None, steps)
    assert part in str(error.value)


def test_an_edit_on_top_of_a_training_and_a_merge_of_too_few_are_refused(experiment):
    with pytest.raises(UnlearnError, match="put it first"):
        run_pipeline(experiment, ["edit"], Made(adapters=(experiment.run.folder,)))
    with pytest.raises(UnlearnError, match="takes 2 adapters, and 1"):
        run_pipeline(experiment, [Merge()], Made(adapters=(experiment.run.folder,)))


def test_texts_and_objects_are_the_same_steps():
    assert read_steps(["unlearn(objective=ga-gdr)", "edit"])[0] == Unlearn(objective="ga-gdr")


def test_a_subtraction_takes_away_the_share_that_serves_the_forget_rows_more(experiment):
    learn = SHORT.replace("npo-gdr", "'nll(on=forget)'")
    made = run_pipeline(experiment, [learn, "subtract(strength=2)"])
    learnt, rest = (adapter_norm(read_adapter(path)) for path in made.adapters)
    assert 0 < rest < 2 * learnt  # shares lie between 0 and 1
    assert not torch.allclose(says(experiment, made.last), says(experiment, "target"))
    read = len(experiment.bench.forget) + len(experiment.bench.kept_rows())  # beside the rows of the training
    assert cost_of(made)["rows"] > read >= cost_of(made)["rows"] - cost_of(run_pipeline(experiment, [learn]))["rows"]
    with pytest.raises(UnlearnError, match="subtract takes an adapter trained on the forget rows"):
        run_pipeline(experiment, ["subtract"])
