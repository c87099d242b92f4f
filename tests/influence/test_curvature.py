"""Gradients and curvature products on real models against autograd, definitions and finite differences."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    IA3Config,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
)
from torch import nn
from toys import data, gpt2, language_loss, lora, make_tokenizer, peft, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import (
    PRODUCT_COST,
    CrossEntropy,
    Curvature,
    LanguageTask,
    SquaredError,
    TensorTask,
    TrainingLoss,
    Weights,
    row_gradients_of_batch,
)
from unlearn_nb.models import RowsLoss, encode

KINDS = list(PRODUCT_COST)


PROMPT = dict(task_type="CAUSAL_LM", num_virtual_tokens=3)
MODELS = {
    "llama": lambda: tiny(),
    "gpt2": lambda: gpt2(layers=2),
    "llama lora": lambda: with_adapter(tiny()),
    "gpt2 lora": lambda: lora(gpt2(layers=2)),
    "llama ia3": lambda: peft(tiny(), IA3Config(task_type="CAUSAL_LM")),
    "gpt2 ia3": lambda: peft(gpt2(), IA3Config(task_type="CAUSAL_LM")),
    "llama prompt tuning": lambda: peft(tiny(), PromptTuningConfig(**PROMPT)),
    "llama p-tuning": lambda: peft(tiny(), PromptEncoderConfig(**PROMPT, encoder_hidden_size=4)),
    "gpt2 prefix tuning": lambda: peft(gpt2(), PrefixTuningConfig(**PROMPT)).double(),
}


def plain_gradient(model, rows):
    """Mean over rows of the gradient of transformers' own loss, one row at a time."""
    tokenizer = make_tokenizer()
    total = 0
    for row in rows:
        ids, labels = (torch.tensor([part]) for part in encode(tokenizer, row["prompt"], row["response"], "plain", 48))
        labels[0, 0] = -100
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        parts = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], materialize_grads=True)
        total = total + torch.cat([part.flatten() for part in parts])
    return total / len(rows)


def close(a, b, tolerance):
    return float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_transformers_own_loss(name):
    model = MODELS[name]()
    assert close(language_loss(model).gradient(data()), plain_gradient(model, data()), 1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_symmetric_linear_and_where_they_must_not_negative(name, kind):
    loss = language_loss(MODELS[name]())
    curvature = Curvature(loss, data(), kind)
    u, v = torch.randn(2, loss.weights.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        loss.weights.dtype
    )
    Cu, Cv = curvature(u), curvature(v)
    scale = float(Cu.norm() * v.norm())
    assert abs(float(v @ Cu - u @ Cv)) <= 1e-4 * scale
    assert (curvature(2 * u - v) - (2 * Cu - Cv)).norm() <= 1e-3 * (Cu.norm() + Cv.norm())
    if kind != "hessian":
        assert u @ Cu > 0 and v @ Cv > 0


def test_hessian_products_against_differences_of_gradients_in_double_precision():
    model = lora(gpt2())
    loss = language_loss(model)
    start = loss.weights.vector()
    v = torch.randn(loss.weights.size, dtype=torch.float64)
    product = Curvature(loss, data(), "hessian")(v)
    sides = []
    for sign in (1, -1):
        loss.weights.assign(loss.weights.split(start + sign * 1e-5 * v))
        sides.append(loss.gradient(data()))
    assert close((sides[0] - sides[1]) / 2e-5, product, 1e-6)


def test_gauss_newton_is_the_hessian_where_outputs_are_linear_in_the_weights():
    loss = language_loss(gpt2(tied=False), names=["lm_head.weight"])
    v = torch.randn(loss.weights.size, dtype=torch.float64)
    assert close(Curvature(loss, data())(v), Curvature(loss, data(), "hessian")(v), 1e-9)


def test_gauss_newton_is_the_expected_fisher():
    """For a classifier the expectation over labels can be written out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    numbers = [{"prompt": torch.randn(3, dtype=torch.float64), "response": 0} for _ in range(5)]
    loss = TrainingLoss(model, TensorTask(CrossEntropy))
    fisher = torch.zeros(loss.weights.size, loss.weights.size, dtype=torch.float64)
    for row in numbers:
        p = model(row["prompt"]).softmax(-1).detach()
        for label in range(3):
            g = loss.gradient([row | {"response": label}])
            fisher += p[label] * g[:, None] * g / len(numbers)
    gn = torch.stack([Curvature(loss, numbers)(e) for e in torch.eye(loss.weights.size, dtype=torch.float64)])
    assert torch.allclose(gn, fisher, atol=1e-12)


def test_drawn_labels_average_to_gauss_newton_on_a_language_model():
    loss = language_loss(lora(gpt2(), r=1, targets=["c_attn"]))
    v = torch.randn(loss.weights.size, dtype=torch.float64)
    exact = Curvature(loss, data(3))(v)
    draws = torch.stack([Curvature(loss, data(3), "fisher", seed=s)(v) for s in range(60)])
    assert (draws.mean(0) - exact).norm() < 2 * draws.std(0).norm() / 60**0.5
    scores = [torch.cat([s for _, s in Curvature(loss, data(3), "fisher", seed=s).scores()]) for s in range(60)]
    draws = torch.stack([G.T @ (G @ v) / 3 for G in scores])
    assert (draws.mean(0) - exact).norm() < 2 * draws.std(0).norm() / 60**0.5


def test_ridge_curvature_is_the_matrix_of_second_moments():
    torch.manual_seed(0)
    X, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    loss = TrainingLoss(nn.Linear(3, 1, bias=False).double(), TensorTask(SquaredError))
    numbers = [{"prompt": x, "response": t} for x, t in zip(X, y)]
    for kind in ("gauss-newton", "hessian"):
        C = torch.stack([Curvature(loss, numbers, kind, l2=0.3)(e) for e in torch.eye(3, dtype=torch.float64)])
        assert torch.allclose(C, X.T @ X / 7 + 0.3 * torch.eye(3), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_batching_changes_nothing(kind):
    model = lora(gpt2())
    v = torch.randn(Weights(model).size, dtype=torch.float64)
    results = [Curvature(language_loss(model, max_tokens=tokens), data(6), kind)(v) for tokens in (1, 60, 4000)]
    assert close(results[1], results[0], 1e-9) and close(results[2], results[0], 1e-9)
    order = Curvature(language_loss(model), data(6), kind)
    halves = [order.product(v, order.batches(part), 3) for part in ([0, 2, 4], [1, 3, 5])]
    assert close(sum(halves) / 2, results[0], 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_row_gradients_are_the_gradients_of_the_rows(name):
    loss = language_loss(MODELS[name]())
    batch = loss.task.batch(loss.task.encode(data()))
    alone = torch.stack([loss.gradient([row]) for row in data()])
    assert close(row_gradients_of_batch(loss, batch), alone, 1e-4)
    assert (loss.other is None) == (name in ("llama lora", "gpt2 lora"))


def test_rows_of_a_layer_used_behind_the_hooks_back_are_still_right():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.layer(x) + x @ self.layer.weight

    torch.manual_seed(0)
    numbers = [{"prompt": torch.randn(3), "response": torch.randn(3)} for _ in range(4)]
    loss = TrainingLoss(Shared(), TensorTask())
    batch = loss.task.batch(loss.task.encode(numbers))
    assert close(row_gradients_of_batch(loss, batch), torch.stack([loss.gradient([row]) for row in numbers]), 1e-5)


def test_scores_come_in_chunks_of_bounded_size():
    loss = language_loss(with_adapter(tiny()))
    curvature = Curvature(loss, data(6), "empirical-fisher")
    limit = 2.5 * loss.weights.size * 4 / 2**20
    chunks = list(curvature.scores(memory_mb=limit))
    assert sorted(i for chunk, _ in chunks for i in chunk) == list(range(6)) and all(
        len(scores) <= 2 for _, scores in chunks
    )
    for chunk, scores in chunks:
        assert close(scores[0], loss.gradient([data(6)[chunk[0]]]), 1e-4)


def test_costs_are_counted():
    loss = language_loss(with_adapter(tiny()))
    loss.gradient(data(5))
    assert (loss.cost.products, loss.cost.gradients) == (0, 5)
    for kind, price in (("gauss-newton", 2), ("empirical-fisher", 2), ("hessian", 3)):
        before = loss.cost.gradients
        curvature = Curvature(loss, data(5), kind)
        curvature(loss.weights.vector())
        curvature.minibatch(2)(loss.weights.vector())
        assert loss.cost.gradients - before == price * 7
    assert loss.cost.products == 6
    Curvature(loss, data(6), "fisher")(loss.weights.vector())
    assert loss.cost.gradients == 5 + 49 + 6 / 3 + 12


def test_a_minibatch_draws_anew_and_averages_to_the_whole():
    loss = language_loss(lora(gpt2()))
    curvature = Curvature(loss, data(5))
    v = torch.randn(loss.weights.size, dtype=torch.float64)
    draw, again = curvature.minibatch(2, seed=3), curvature.minibatch(2, seed=3)
    first, second = draw(v), draw(v)
    assert not torch.equal(first, second) and torch.equal(again(v), first)
    assert close(sum(draw(v) for _ in range(80)) / 80, curvature(v), 0.25)


def test_nothing_of_the_model_is_changed():
    model = with_adapter(tiny())
    model.train()
    model.base_model.model.model.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    values = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    loss = language_loss(model)
    first = loss.gradient(data())
    for kind in KINDS:
        Curvature(loss, data(), kind)(first)
    assert torch.equal(loss.gradient(data()), first), "dropout is off"
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert flags == {name: p.requires_grad for name, p in model.named_parameters()}
    assert all(torch.equal(values[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and torch.equal(torch.get_rng_state(), state)


def test_dropout_can_be_left_on_as_published():
    loss = language_loss(with_adapter(tiny()), dropout=True)
    assert not torch.equal(loss.gradient(data()), loss.gradient(data()))


def test_a_frozen_adapter_is_chosen_by_its_name(tmp_path):
    with_adapter(tiny()).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(tiny(), tmp_path)
    assert not any(p.requires_grad for p in model.parameters())
    weights = Weights(model)
    assert all("lora_" in name for name in weights.names) and len(weights.names) == 28
    assert language_loss(model).gradient(data()).any()


def test_a_bfloat16_base_under_a_float32_adapter():
    full, half = with_adapter(tiny()), with_adapter(tiny())
    for name, parameter in half.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    losses = [language_loss(model) for model in (full, half)]
    v = torch.randn(losses[0].weights.size, generator=torch.Generator().manual_seed(0))
    results = [Curvature(loss, data())(v) for loss in losses]
    assert results[1].dtype == torch.float32 and torch.cosine_similarity(*results, dim=0) > 0.99


@pytest.mark.parametrize("name", ["llama lora", "llama"])
def test_half_precision_weights_are_measured_in_float32_and_that_is_said(name):
    model = MODELS[name]()
    chosen = [p for p in model.parameters() if p.requires_grad]
    for parameter in chosen:
        parameter.data = parameter.data.bfloat16()
    loss = language_loss(model)
    with pytest.warns(UserWarning, match="is in half precision, where gradients are several per cent off"):
        found = loss.gradient(data())
    v = torch.randn(loss.weights.size, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="in half precision"):
        product = Curvature(loss, data())(v)
    assert all(p.dtype == torch.bfloat16 for p in chosen) and found.dtype == torch.float32
    exact = language_loss(model.float())
    assert close(found, exact.gradient(data()), 1e-4) and close(product, Curvature(exact, data())(v), 1e-3)


def test_fused_attention_is_set_aside_for_the_pass():
    model = with_adapter(tiny())
    loss, v = language_loss(model), torch.ones(Weights(model).size)
    gradient, product = loss.gradient(data()), Curvature(loss, data(), "hessian")(v)
    config = model.base_model.model.config
    config._attn_implementation = "flash_attention_2"  # as a model comes that was loaded with it
    with pytest.raises(Exception, match="flash|Flash|kernels"):  # not even a pass without it
        model(torch.arange(4)[None])
    assert close(loss.gradient(data()), gradient, 1e-5)
    assert close(Curvature(loss, data(), "hessian")(v), product, 1e-4)
    assert config._attn_implementation == "flash_attention_2"


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_no_product(reentrant):
    model = with_adapter(tiny())
    v = torch.ones(Weights(model).size)
    results = []
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        loss = language_loss(model, dropout=True)  # where it is on
        torch.manual_seed(0)
        results.append(Curvature(loss, data(), "hessian")(v))
    assert close(results[1], results[0], 1e-4)


def test_a_model_spread_over_devices_is_refused():
    model = tiny()
    model.model.layers[1].to("meta")
    with pytest.raises(UnlearnError, match="weights are on cpu and meta: gradients are taken on one device; load it"):
        language_loss(model)


def test_more_draws_are_nearer_the_expectation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    numbers = [{"prompt": torch.randn(3, dtype=torch.float64), "response": 0} for _ in range(20)]
    loss = TrainingLoss(model, TensorTask(CrossEntropy))
    v = torch.randn(loss.weights.size, dtype=torch.float64)
    exact = Curvature(loss, numbers)(v)

    def error(draws):
        found = [Curvature(loss, numbers, "fisher", draws=draws, seed=s)(v) for s in range(8)]
        return torch.stack(found).sub(exact).square().mean()

    assert error(40) < error(1) / 10
    before = loss.cost.gradients
    Curvature(loss, numbers, "fisher", draws=4)(v)
    assert loss.cost.gradients - before == pytest.approx(20 / 3 + 2 * 20 * 4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_vector_splits_into_weights_and_joins_again(shapes):
    model = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])
    weights = Weights(model)
    vector = torch.arange(weights.size, dtype=torch.float32)
    assert torch.equal(weights.join(weights.split(vector)), vector)
    assert list(weights.slices().values())[-1].stop == weights.size == len(vector)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(1)


@pytest.mark.parametrize(
    "attempt, sentence",
    [
        (
            lambda: Curvature(TrainingLoss(Noisy(2, 1), TensorTask()), NUMBERS),
            "two forward passes over one row differ in evaluation mode: some module drops or draws at "
            "random; switch it off before asking for gradients",
        ),
        (
            lambda: Weights(nn.Linear(2, 1).requires_grad_(False)),
            "the model has no trainable parameter: load its adapter with is_trainable=True, or name weights",
        ),
        (lambda: Weights(nn.Linear(2, 1), ["wieght"]), "unknown weight 'wieght'; did you mean 'weight'?"),
        (
            lambda: TrainingLoss(nan_model(), TensorTask()).gradient(NUMBERS),
            "the gradient is not finite at weight: check that the model's weights and the rows are, and use float32",
        ),
        (
            lambda: Curvature(TrainingLoss(nn.Linear(2, 1), TensorTask()), NUMBERS, "newton"),
            "unknown curvature 'newton'; did you mean 'gauss-newton'?",
        ),
        (
            lambda: Curvature(TrainingLoss(nn.Linear(2, 1), TensorTask()), []),
            "a curvature needs at least one row: give training rows",
        ),
        (
            lambda: LanguageTask(make_tokenizer(), RowsLoss(max_length=1)).encode(data(1)),
            "max_length must be a whole number of at least 2, not 1",
        ),
        (
            lambda: LanguageTask(make_tokenizer()).encode([{"id": "r0", "prompt": "", "response": ""}]),
            "row 'r0' has no answer token: give it a response",
        ),
        (
            lambda: list(Curvature(TrainingLoss(nn.Linear(2, 1), TensorTask()), NUMBERS, "hessian").scores()),
            "the Hessian is no sum of outer products: choose gauss-newton, fisher or empirical-fisher",
        ),
        (
            lambda: TrainingLoss(
                gpt2(), LanguageTask(make_tokenizer()), names=["transformer.wpe.weight"]
            ).require_linear("ekfac"),
            "ekfac works on the weights of linear layers, which transformer.wpe.weight is not: use cg, or "
            "choose other weights",
        ),
        (
            lambda: TrainingLoss(
                nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)]),
                TensorTask(forward=lambda m, x: m[0](x)),
                names=["1.weight"],
            ).gradient(NUMBERS),
            "the loss does not depend on the chosen weights (1.weight, ...): choose others",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(attempt, sentence):
    with pytest.raises(UnlearnError) as error:
        attempt()
    assert str(error.value) == sentence


NUMBERS = [
    {"prompt": torch.tensor([1.0, 2.0]), "response": torch.tensor([1.0])},
    {"prompt": torch.tensor([0.0, 1.0]), "response": torch.tensor([0.5])},
]


def nan_model():
    model = nn.Linear(2, 1)
    model.weight.data[0, 0] = float("nan")
    return model
