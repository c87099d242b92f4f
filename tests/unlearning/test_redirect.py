"""LUNAR in closed form equals the converged squared error, and is written as an adapter of rank 1."""

import torch
from peft import PeftModel
from toys import FORGET, RETAIN, same, state, tiny

from unlearn_nb.unlearning import PromptSums, lunar, prompt_sums, redirection


def test_it_is_the_minimum_of_the_squared_error():
    generator = torch.Generator().manual_seed(0)
    x_f, x_r = torch.randn(30, 7, generator=generator).double() + 1, torch.randn(50, 7, generator=generator).double()
    u = torch.randn(5, generator=generator).double()
    sums = [PromptSums(x.T @ x, x.sum(0), h, 1) for x, h in ((x_f, torch.zeros(5).double()), (x_r, u), (x_r, u))]
    damping = 1e-2
    B, A = redirection(*sums, strength=2.0, damping=damping)
    lam = damping * (sums[0].moments + sums[1].moments).trace() / 7
    change = torch.zeros(5, 7, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def error():
        optimiser.zero_grad()
        loss = (x_f @ change.T - 2 * u).square().sum() + (x_r @ change.T).square().sum() + lam * change.square().sum()
        loss.backward()
        return loss

    optimiser.step(error)
    assert torch.allclose(B @ A, change.detach(), atol=1e-7)


def test_an_adapter_of_rank_one_in_one_layer(tokenizer, tmp_path):
    model = tiny()
    before = state(model)
    folder = lunar(model, tokenizer, forget=FORGET[:4], retain=RETAIN[:4], unknown=RETAIN[4:], layer=1,
                   out=tmp_path / "a")
    assert same(before, state(model))
    changed = {name: value for name, value in PeftModel.from_pretrained(model, folder).state_dict().items()
               if "lora_" in name}
    assert {tuple(value.shape) for value in changed.values()} == {(1, 48), (32, 1)} and len(changed) == 2
    assert all("layers.1.mlp.down_proj" in name for name in changed)


def test_sums_are_those_of_the_down_projections_inputs(tokenizer):
    model, seen = tiny(), []
    handle = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    sums = prompt_sums(model, tokenizer, [row["prompt"] for row in FORGET[:3]], layer=0)
    handle.remove()
    x = torch.cat(seen).double()
    assert torch.allclose(sums.inputs, x.sum(0)) and torch.allclose(sums.moments, x.T @ x) and sums.prompts == 3
