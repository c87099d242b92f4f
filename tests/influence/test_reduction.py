"""An edit takes rows out of the loss that was tuned; a small edit of bfloat16 weights is the edit."""

import json

import pytest
import torch
import torch.nn.functional as F
from toys import make_tokenizer, rows, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.experiments import tune
from unlearn_nb.influence import EditSettings, LanguageTask, Request, TrainingLoss, erase
from unlearn_nb.models import Recipe, RowsLoss, encode_rows, load_adapter, loss_of, selected_logits

ROWS = [row | {"id": f"r{i}", "response": row["response"] + " x y z" * (5 * (i % 2))}
        for i, row in enumerate(rows(6, seed=0))]


def token_mean(model, some, on="response"):
    """The mean over all tokens that the rows predict, written out."""
    values = []
    for item in encode_rows(make_tokenizer(), some, on=on):
        ids, labels = torch.tensor([item.input_ids]), torch.tensor([item.labels])
        answers = F.pad(labels[:, 1:] != -100, (0, 1))
        logits = selected_logits(model, ids, None, positions=answers)[0]
        values.append(F.cross_entropy(logits, labels[:, 1:][labels[:, 1:] != -100], reduction="none"))
    return torch.cat(values)


@pytest.mark.parametrize("on", ["response", "text"])
def test_an_edit_of_a_tuned_adapter_takes_out_its_rows_tokens(tmp_path, on):
    recipe = Recipe(steps=4, batch_size=3, lora_rank=2, loss_on=on)
    tune(tiny(), make_tokenizer(), ROWS, recipe, tmp_path, progress=False)
    model = load_adapter(tiny(), tmp_path / "adapter")
    assert (loss_of(model).on, loss_of(model).over) == (on, "tokens")
    loss = TrainingLoss(model, LanguageTask(make_tokenizer(), loss_of(model)))
    total = len(token_mean(model, ROWS, on))
    wanted = torch.autograd.grad(token_mean(model, ROWS[1:2], on).sum() / total, loss.weights.tensors)
    whole = loss.over(loss.task.encode(ROWS))
    assert torch.allclose(whole.gradient(ROWS[1:2]) / len(ROWS), loss.weights.join(wanted), atol=1e-6)


def test_what_was_tuned_over_rows_is_edited_over_rows(tmp_path):
    tune(tiny(), make_tokenizer(), ROWS, Recipe(steps=2, lora_rank=2, loss_over="rows"), tmp_path, progress=False)
    model = load_adapter(tiny(), tmp_path / "adapter")
    options = dict(request=Request.remove(["r1"]), damping=1.0, solver="cg(max_products=2)")
    edits = [erase(model, make_tokenizer(), ROWS, **options,
                   settings=settings) for settings in (EditSettings(), EditSettings(loss=RowsLoss("rows", "text")))]
    assert torch.equal(edits[0].delta, edits[1].delta)
    made = edits[0].save(tmp_path / "edited")
    assert json.loads((made / "training.json").read_text())["loss"]["over"] == "rows"
    assert json.loads((made / "edit.json").read_text())["realised"]["cosine"] > 0.99


@pytest.mark.parametrize("solver", ["cg(max_products=2)", "llmeraser(steps=1)"])
def test_a_saved_edit_says_what_was_taught_not_what_the_solver_was_published_with(tmp_path, solver):
    """A second request of the saved edit then goes on with the loss of the first."""
    tune(tiny(), make_tokenizer(), ROWS, Recipe(steps=2, lora_rank=2), tmp_path, progress=False)
    model = load_adapter(tiny(), tmp_path / "adapter")
    for number, (settings, wanted) in enumerate([(EditSettings(), "tokens"), (EditSettings(over="rows"), "rows"),
                                                 (EditSettings(loss=RowsLoss("rows")), "rows")]):
        edit = erase(model, make_tokenizer(), ROWS, request=Request.remove(["r1"]), solver=solver, damping=1.0,
                     settings=settings)
        assert loss_of(load_adapter(tiny(), edit.save(tmp_path / f"edited{number}"))).over == wanted


def test_a_small_edit_of_a_bfloat16_model_is_made_and_undone():
    model = tiny().to(torch.bfloat16)
    names = [name for name, _ in model.named_parameters() if "down_proj" in name]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    edit = erase(model, make_tokenizer(), ROWS, request=Request.remove(["r0"]), damping=10.0,
                 solver="cg(max_products=2)", settings=EditSettings(names=names)).scale(0.1).apply()
    assert edit.realised["cosine"] > 0.99 and torch.isfinite(model(torch.arange(4)[None]).logits).all()
    edit.undo()
    assert all(torch.equal(p, before[name]) and p.dtype == torch.bfloat16 for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [lambda: EditSettings(seed=-1), lambda: EditSettings(l2=float("nan")),
                                  lambda: Recipe(steps=2.5), lambda: Recipe(lr=float("inf")), lambda: Recipe(seed=-1)])
def test_numbers_that_can_not_be_are_refused(make):
    with pytest.raises(UnlearnError, match="must be"):
        make()
