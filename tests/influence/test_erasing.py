"""Edits against closed forms and retraining, their algebra, their files, and bad arguments."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from torch import nn
from toys import data, gpt2, lora, make_tokenizer, peft, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import (
    SOLVERS,
    CrossEntropy,
    LanguageTask,
    Request,
    TensorTask,
    TrainingLoss,
    Weights,
    changed_rows,
    choose,
    erase,
    erase_options,
)
from unlearn_nb.models import RowsLoss, check_adapter, load_adapter

N, D, L2 = 24, 3, 0.2


def edit_of(model, tokenizer, rows, request, **options):
    """An edit from options in one flat table, as a plan has them."""
    return erase(model, tokenizer, rows, request=request, **erase_options({"solver": "cg"} | options))


def ridge_data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    X, y = (torch.randn(N, k, generator=generator, dtype=torch.float64) for k in (D, 1))
    return X, y, [{"id": f"z{i}", "prompt": x, "response": t} for i, (x, t) in enumerate(zip(X, y))]


def second_moments(X):
    return X.T @ X / N + L2 * torch.eye(D, dtype=X.dtype)


def ridge_fit(X, y):
    """Minimum of (1/N) * sum of 0.5 * squared errors + L2/2 * ||w||^2, N the same however many rows there are."""
    return torch.linalg.solve(second_moments(X), X.T @ y / N).flatten()


def ridge_model(X, y):
    model = nn.Linear(D, 1, bias=False).double()
    model.weight.data[0] = ridge_fit(X, y)
    return model


def ridge_erase(model, rows, request, **options):
    return edit_of(model, None, rows, request, task=TensorTask(), damping=0.0, l2=L2, tol=1e-13, **options)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, N - 1), st.integers(0, 10**6))
def test_removal_is_leave_one_out_of_ridge_up_to_the_leverage(i, seed):
    X, y, rows = ridge_data(seed)
    model = ridge_model(X, y)
    edit = ridge_erase(model, rows, Request.remove([f"z{i}"]))
    keep = [j for j in range(N) if j != i]
    change = ridge_fit(X[keep], y[keep]) - ridge_fit(X, y)
    leverage = float(X[i] @ torch.linalg.solve(second_moments(X), X[i]) / N)
    assert torch.allclose(edit.delta / (1 - leverage), change, atol=1e-9)
    assert change @ edit.delta > 0, "the sign: removal adds the gradient of what is removed"


def test_response_correction_of_ridge_is_exact_and_addition_is_minus_removal():
    X, y, rows = ridge_data()
    model = ridge_model(X, y)
    new = y.clone()
    new[[2, 5]] += torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    edit = ridge_erase(model, rows, Request.correct(["z2", "z5"], [new[2], new[5]]))
    assert torch.allclose(edit.delta, ridge_fit(X, new) - ridge_fit(X, y), atol=1e-10)
    added = ridge_erase(model, rows, Request.add([rows[3] | {"id": "again"}]))
    assert torch.allclose(added.delta, -ridge_erase(model, rows, Request.remove(["z3"])).delta, atol=1e-12)


def test_query_modification_of_ridge_is_the_newton_step():
    X, y, rows = ridge_data()
    model = ridge_model(X, y)
    moved = X[4] + 0.1
    edit = ridge_erase(model, rows, Request.modify(["z4"], [moved]))
    w = model.weight[0].detach()
    b = ((X[4] @ w - y[4]) * X[4] - (moved @ w - y[4]) * moved) / N
    assert torch.allclose(edit.delta, torch.linalg.solve(second_moments(X), b), atol=1e-10)
    X_new = X.clone()
    X_new[4] = moved
    assert torch.cosine_similarity(edit.delta, ridge_fit(X_new, y) - w, dim=0) > 0.95


def logistic(rows, l2=0.05):
    """Weights of a converged logistic regression, N in the mean whatever the number of rows."""
    model = nn.Linear(3, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    loss = TrainingLoss(model, TensorTask(CrossEntropy))
    for _ in range(30):
        edit = edit_of(model, None, rows, Request(), task=TensorTask(CrossEntropy), damping=0.0, l2=l2)
        g = loss.gradient(rows) * len(rows) / N + l2 * loss.weights.vector()
        H = torch.autograd.functional.hessian(
            lambda w: (
                sum(
                    nn.functional.cross_entropy(r["prompt"] @ w.view(2, 3).T, torch.tensor(r["response"])) for r in rows
                )
                / N
                + l2 / 2 * w @ w
            ),
            loss.weights.vector(),
        )
        loss.weights.assign(loss.weights.split(loss.weights.vector() - torch.linalg.solve(H, g)))
        if g.norm() < 1e-12:
            break
    assert not edit.delta.any()
    return model


def test_edits_predict_leave_one_out_retraining_of_a_logistic_model():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    rows = [
        {"id": f"z{i}", "prompt": x, "response": int(x.sum() + torch.randn((), generator=generator) > 0)}
        for i, x in enumerate(X)
    ]
    model = logistic(rows)
    start = model.weight.detach().flatten().clone()
    for i in range(0, N, 4):
        edit = edit_of(
            model, None, rows, Request.remove([f"z{i}"]), task=TensorTask(CrossEntropy), damping=0.0, l2=0.05, tol=1e-10
        )
        change = logistic(rows[:i] + rows[i + 1 :]).weight.detach().flatten() - start
        assert (
            torch.cosine_similarity(edit.delta, change, dim=0) > 0.98 and 0.7 < edit.delta.norm() / change.norm() < 1.2
        )


@pytest.fixture(scope="module")
def model():
    """Shared by tests that leave it as they found it."""
    return lora(gpt2(), r=1)


def language_erase(model, request, rows=None, **options):
    return edit_of(
        model, make_tokenizer(), rows or data(8), request, **{"damping": 0.1, "max_length": 48, "tol": 1e-8} | options
    )


TEXTS = st.sampled_from(["w3 w4", "w5", "w6 w7 w8"])


@settings(max_examples=4, deadline=None)
@given(
    st.sets(st.integers(0, 3), max_size=2),
    st.dictionaries(st.integers(4, 5), TEXTS),
    st.dictionaries(st.integers(5, 7), TEXTS),
)
def test_a_mixed_request_is_the_sum_of_its_parts_in_any_order(removed, prompts, responses):
    model = lora(gpt2(), r=1)
    parts = [
        Request.remove([f"r{i}" for i in removed]),
        Request.modify([f"r{i}" for i in prompts], prompts.values()),
        Request.correct([f"r{i}" for i in responses], responses.values()),
    ]
    whole = language_erase(model, parts[0] + parts[1] + parts[2])
    for order in ((0, 1, 2), (2, 1, 0)):
        last = None
        for i in order:
            last = language_erase(model, parts[i], after=last)
        if set(prompts) & set(responses):  # both halves of one row: a sum only to first order
            assert changed_rows(last.rows, whole.rows) == ([], [])
        assert (last.total - whole.total).norm() <= 1e-6 * max(1e-9, float(whole.total.norm()))


def test_removing_and_adding_again_leads_back_bit_for_bit(model):
    start = [tensor.clone() for tensor in Weights(model).tensors]
    first = language_erase(model, Request.remove(["r1", "r4"])).apply()
    gone = [row for row in data(8) if row["id"] in ("r1", "r4")]
    assert [row["id"] for row in first.rows] == ["r0", "r2", "r3", "r5", "r6", "r7"] and first.delta.any()
    with pytest.raises(UnlearnError, match="gone from it, among them 'r4'"):
        language_erase(model, Request.remove(["r4"]), after=first)
    back = language_erase(model, Request.add(gone), after=first).apply()
    assert all(torch.equal(a, b) for a, b in zip(start, Weights(model).tensors))
    back.undo()
    first.undo()
    assert all(torch.equal(a, b) for a, b in zip(start, Weights(model).tensors))


def test_the_second_edit_is_taken_at_the_trained_weights(model):
    alone = language_erase(model, Request.remove(["r2"]))
    first = language_erase(model, Request.remove(["r0"])).apply()
    after = language_erase(model, Request.remove(["r2"]), after=first)
    assert torch.equal(alone.delta, after.delta)
    anew = language_erase(model, Request.remove(["r2"]), rows=first.rows)
    assert not torch.equal(alone.delta, anew.delta), "without after= the edited model is the trained one"
    first.undo()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_request_for_nothing_changes_nothing(model, solver):
    options = {"curvature": "empirical-fisher"} if solver in ("woodbury", "datainf") else {}
    same = Request.modify(["r3"], [data(8)[3]["prompt"]])
    for request in (Request(), same):
        edit = edit_of(model, make_tokenizer(), data(8), request, solver=solver, damping=0.1, max_length=48, **options)
        assert edit.delta.any() == (solver == "llmeraser"), "the published loop starts at a constant"
        assert solver == "llmeraser" or edit.residual == 0


@pytest.mark.parametrize(
    "solver, options",
    [
        ("cg", {}),
        ("sgd", {"steps": 30}),
        ("lissa", {"steps": 30}),
        ("ekfac", {}),
        ("woodbury", {"curvature": "fisher"}),
        ("datainf", {"curvature": "empirical-fisher"}),
        ("llmeraser", {}),
    ],
)
def test_every_solver_answers_and_leaves_the_model_alone(model, solver, options):
    start = Weights(model).vector()
    torch.manual_seed(0)
    edit = edit_of(model, make_tokenizer(), data(8), Request.remove(["r0"]), solver=solver, max_length=48, **options)
    assert torch.equal(Weights(model).vector(), start) and edit.delta.any() and edit.products > 0 and edit.seconds > 0
    assert edit.gradients > 8 and edit.solution.solver == solver
    if solver == "llmeraser":
        assert edit.solution.damping == 0 and edit.delta.abs().max() < 5e-4
    else:
        assert edit.solution.damping > 0


def test_the_published_right_side_has_dropout_and_forgets_the_batch():
    rows, tokenizer = data(8), make_tokenizer()
    model = with_adapter(tiny())
    options = dict(solver="llmeraser", max_length=48, steps=1, init=0.0, lr=1.0)
    edits = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        edits.append(edit_of(model, tokenizer, rows, Request.remove(["r0"]), **options).delta)
    assert not torch.equal(edits[0], edits[1]) and torch.equal(edits[0], edits[2])
    quiet = lora(tiny(), r=1)  # without dropout

    def residual(batch, init):
        return edit_of(
            quiet,
            tokenizer,
            rows,
            Request.remove(["r0", "r1"]),
            solver="llmeraser",
            max_length=48,
            steps=0,
            init=init,
            batch=batch,
        ).residual

    assert residual(4, 1.0) == pytest.approx(residual(1, 4.0)) != pytest.approx(residual(1, 1.0)), (
        "b is too small by the batch"
    )


def test_apply_and_undo_are_exact_in_bfloat16_too():
    model = with_adapter(tiny()).to(torch.bfloat16)
    start = [tensor.clone() for tensor in Weights(model).tensors]
    edit = edit_of(model, make_tokenizer(), data(6), Request.remove(["r0"]), damping=0.1, max_length=48)
    edit.apply()
    assert any(not torch.equal(a, b) for a, b in zip(start, Weights(model).tensors))
    edit.undo()
    assert all(torch.equal(a, b) for a, b in zip(start, Weights(model).tensors))


def test_scale_and_cap(model):
    edit = language_erase(model, Request.remove(["r0"]))
    half = edit.scale(0.5)
    assert torch.equal(half.delta, 0.5 * edit.delta) and not half.applied
    initial = Weights(model).vector() - 1
    way = Weights(model).size ** 0.5
    capped = language_erase(model, Request.remove(["r0"]), cap=0.1 * float(edit.delta.norm()) / way, initial=initial)
    assert torch.allclose(capped.delta, 0.1 * edit.delta)
    loose = language_erase(model, Request.remove(["r0"]), cap=10 * float(edit.delta.norm()) / way, initial=initial)
    assert torch.equal(loose.delta, edit.delta)


def test_damping_and_scale_are_chosen_by_the_callers_objective(model):
    start, asked = Weights(model).vector(), []

    def objective(edited):
        length = float((Weights(edited).vector() - start).norm())
        asked.append(length)
        return abs(length - 0.5)

    edit = language_erase(model, Request.remove(["r0"]), damping="auto", objective=objective, scales=(0.5, 1, 2))
    assert torch.equal(Weights(model).vector(), start) and len(asked) == len(edit.choices) == 18
    best = edit.choices.loc[edit.choices.objective.idxmin()]
    assert (
        abs(float(edit.delta.norm()) - 0.5) == pytest.approx(best.objective) and edit.solution.damping == best.damping
    )
    fixed = language_erase(model, Request.remove(["r0"]), damping=float(best.damping)).scale(float(best.scale))
    assert torch.allclose(fixed.delta, edit.delta, rtol=1e-4, atol=1e-8)
    with pytest.raises(UnlearnError, match="the objective is not finite for any damping and scale"):
        choose([edit], lambda edited: float("nan"))
    assert torch.equal(Weights(model).vector(), start)


def test_the_best_of_several_dampings_is_that_of_one_alone(model):
    request, start = Request.remove(["r0"]), Weights(model).vector()
    edit = language_erase(
        model, request, damping=(0.1, 0.4), objective=lambda edited: -float((Weights(edited).vector() - start).norm())
    )
    alone = language_erase(model, request, damping=0.1)
    assert (
        edit.solution.damping == 0.1
        and edit.choices.damping.tolist() == [0.1, 0.4]
        and torch.allclose(edit.delta, alone.delta)
    )


def test_the_residual_is_taken_on_rows_that_the_curvature_did_not_see(model):
    request = Request.remove(["r0"])
    seen = language_erase(model, request)
    assert seen.residual == pytest.approx(seen.solution.residual, rel=0.1, abs=1e-9) and seen.residual < 1e-7
    part = language_erase(model, request, curvature_rows=4)
    assert part.solution.residual < 1e-7 and part.residual > 0.01
    given_rows = language_erase(model, request, fresh=data(5, seed=9))
    assert given_rows.residual > 0.01


def test_l2_adds_to_the_damping(model):
    request = Request.remove(["r0"])
    a, b = language_erase(model, request, damping=0.03), language_erase(model, request, damping=0.01, l2=0.02)
    assert torch.allclose(a.delta, b.delta, rtol=1e-6, atol=1e-12)


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(folder).iterdir())}


ADAPTERS = {
    "lora": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    "ia3": IA3Config(task_type="CAUSAL_LM"),
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_saved_edit_loads_and_the_original_stays(tmp_path, kind):
    torch.manual_seed(0)
    get_peft_model(tiny(), ADAPTERS[kind]).save_pretrained(tmp_path / "original")
    before = digest(tmp_path / "original")
    model = PeftModel.from_pretrained(tiny(), tmp_path / "original")
    edit = edit_of(model, make_tokenizer(), data(6), Request.remove(["r0"]), damping=0.05, max_length=48)
    start = Weights(model).vector()
    edit.save(tmp_path / "edited")
    assert torch.equal(Weights(model).vector(), start) and digest(tmp_path / "original") == before
    loaded = load_adapter(tiny(), tmp_path / "edited")
    assert torch.allclose(Weights(loaded).vector(), start + edit.delta) and not loaded.training
    assert json.loads((tmp_path / "edited" / "edit.json").read_text())["solver"] == "cg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited", "original"]
    with pytest.raises(UnlearnError) as error:
        edit.save(tmp_path / "original")
    assert (
        str(error.value) == "original exists already: save the edit into a new folder, the adapter it came from stays"
    )
    assert digest(tmp_path / "original") == before


def test_a_save_that_fails_leaves_nothing_behind(tmp_path):
    model = lora(gpt2())
    name = "base_model.model.transformer.ln_f.weight"
    edit = edit_of(model, make_tokenizer(), data(6), Request.remove(["r0"]), damping=0.05, max_length=48, names=[name])
    with pytest.raises(UnlearnError) as error:
        edit.save(tmp_path / "edited")
    assert (
        str(error.value)
        == f"the edit changes {name}, which is not part of the adapter 'default': edit the adapter's weights only"
    )
    assert list(tmp_path.iterdir()) == [] and not edit.applied


def test_an_adapter_of_another_model_is_refused_and_the_base_untouched(tmp_path):
    lora(gpt2(width=16)).save_pretrained(tmp_path / "wide")
    lora(gpt2(layers=2)).save_pretrained(tmp_path / "deep")
    with_adapter(tiny()).save_pretrained(tmp_path / "llama")
    base = gpt2()
    names = list(base.state_dict())
    for folder, part in (
        ("wide", "is [2, 16] there and [2, 8] here"),
        ("deep", "there and absent here"),
        ("llama", "does not belong to this model"),
        ("nowhere", "nowhere is no adapter folder"),
    ):
        with pytest.raises(UnlearnError) as error:
            load_adapter(base, tmp_path / folder)
        assert part in str(error.value) and "\n" not in str(error.value)
        assert list(base.state_dict()) == names
    check_adapter(gpt2(width=16), tmp_path / "wide")


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"damping": -0.5}, "damping must be a finite number of at least 0, not -0.5"),
        (
            {"damping": "best"},
            "damping must be a finite number of at least 0, or a share such as '0.1 of largest', not 'best'",
        ),
        (
            {"damping": "auto"},
            "choosing a damping or a scale needs an objective: give objective=, a function of the edited model "
            "on validation rows",
        ),
        (
            {"scales": (1, 2)},
            "choosing a damping or a scale needs an objective: give objective=, a function of the edited model "
            "on validation rows",
        ),
        (
            {"damping": [0.1, 1.0]},
            "choosing a damping or a scale needs an objective: give objective=, a function of the edited model "
            "on validation rows",
        ),
        ({"damping": [0.1, -1.0]}, "damping must be a finite number of at least 0, not -1.0"),
        ({"damping": []}, "no damping or no scale is given: give at least one of each"),
        (
            {"cap": 0.5},
            "cap is in lengths of the way that training went: give initial=, the weights before it as a vector",
        ),
        ({"solver": "newton"}, "unknown solver 'newton'; known: cg, datainf, ekfac, lissa, llmeraser, sgd, woodbury"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence_and_the_model_stays(model, options, sentence):
    start = Weights(model).vector()
    with pytest.raises(UnlearnError) as error:
        language_erase(model, Request.remove(["r0"]), **options)
    assert str(error.value) == sentence and torch.equal(Weights(model).vector(), start)


def test_weights_that_are_not_finite_are_told_and_the_adapter_on_disk_stays(tmp_path):
    lora(gpt2()).save_pretrained(tmp_path / "original")
    before = digest(tmp_path / "original")
    model = PeftModel.from_pretrained(gpt2(), tmp_path / "original")
    next(p for name, p in model.named_parameters() if "lora_B" in name).data.fill_(float("nan"))
    with pytest.raises(UnlearnError, match="preflight: the model .* gives NaN likelihood for 3 of 3 rows"):
        language_erase(model, Request.remove(["r0"]))
    assert digest(tmp_path / "original") == before


def test_a_model_without_trainable_weights_is_refused_and_the_adapter_on_disk_stays(tmp_path):
    lora(gpt2()).save_pretrained(tmp_path / "original")
    before = digest(tmp_path / "original")
    with pytest.raises(
        UnlearnError,
        match="^the model has no trainable parameter: load its adapter with is_trainable=True, or name weights$",
    ):
        language_erase(gpt2().requires_grad_(False), Request.remove(["r0"]))
    assert digest(tmp_path / "original") == before


def test_a_module_that_drops_in_evaluation_mode_is_refused():
    class Always(nn.Dropout):
        def forward(self, x):
            return nn.functional.dropout(x, 0.3, training=True)

    model = lora(gpt2())
    model.base_model.model.transformer.drop = Always()
    with pytest.raises(UnlearnError, match="two forward passes over the same row differ in evaluation mode"):
        language_erase(model, Request.remove(["r0"]))


def test_an_edit_knows_whether_it_is_applied(model):
    edit = language_erase(model, Request.remove(["r0"]))
    with pytest.raises(UnlearnError, match="^the edit is not applied: there is nothing to undo$"):
        edit.undo()
    edit.apply()
    with pytest.raises(UnlearnError, match="^the edit is applied already: undo it first$"):
        edit.apply()
    edit.undo()
    other = lora(gpt2(), r=1)
    with pytest.raises(UnlearnError, match="the edit before this one has another model"):
        language_erase(other, Request.remove(["r1"]), after=edit)


def test_ia3_and_prompt_tuning_can_be_edited():
    for kind in ("ia3", "prompt tuning"):
        model = peft(tiny(), ADAPTERS[kind])
        loss = TrainingLoss(model, LanguageTask(make_tokenizer(), RowsLoss("rows", max_length=48)))
        edit = edit_of(model, make_tokenizer(), data(6), Request.remove(["r0"]), max_length=48)
        b = loss.gradient(data(6)[:1])
        assert b @ edit.delta > 0 and edit.residual < 0.1, kind
