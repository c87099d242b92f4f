"""RepSelect's collapse: orthogonal to what dominates, in formulas and in a real training; the last blocks."""

import pytest
import torch
from toys import FORGET, RETAIN, make_tokenizer, run, tiny
from transformers import TrainerCallback

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.regions import MASKS, collapse, last_blocks, top_directions
from unlearn_nb.unlearning import UnlearnSettings, make_batcher, make_trainer, schedule_for


@pytest.mark.parametrize("how, power", [("soft", 1), ("quadratic", 2), ("hard", None)])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_each_direction_keeps_its_share(how, power, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    top = top_directions(gradient, 3)
    share = torch.zeros(3) if power is None else (top.sizes[-1] / top.sizes) ** power
    left = collapse(gradient, top, how=how, sides="inputs")
    assert torch.allclose(left @ top.inputs, gradient @ top.inputs * share, atol=1e-5)
    outputs = collapse(gradient, top, how=how, sides="outputs")
    assert torch.allclose(top.outputs.mT @ outputs, share[:, None] * (top.outputs.mT @ gradient), atol=1e-5)
    rest = torch.linalg.svd(gradient, full_matrices=False)
    beyond = rest.Vh[3:].mT
    assert torch.allclose(left @ beyond, gradient @ beyond, atol=1e-5)  # the others as they were


def test_orthogonal_and_low_rank_gradients():
    Q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    assert torch.allclose(collapse(3 * Q, top_directions(3 * Q, 6)), 3 * Q, atol=1e-5)
    nothing = torch.zeros(4, 4)
    assert torch.equal(collapse(Q[:4, :4], top_directions(nothing, 2), how="hard"), Q[:4, :4])
    one = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 4))
    top = top_directions(one, 3)
    assert len(top.sizes) == 1 and collapse(one, top, how="hard").abs().max() < 1e-5


class Kept(TrainerCallback):
    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})


def gradients(tmp_path, **changes):
    kept, tokenizer, model = Kept(), make_tokenizer(), tiny()
    settings = UnlearnSettings(steps=2, batch_size=4, accumulation=2, max_grad_norm=0.0, method="full", **changes)
    batcher = make_batcher(tokenizer, {"forget": FORGET, "retain": RETAIN}, resolve("ga + nll"))
    trainer = make_trainer(model, batcher, settings=settings, schedule=schedule_for(batcher, settings), folder=tmp_path,
                           callbacks=[kept], progress=False)
    trainer.train()
    return kept.gradients, trainer


def test_the_gradient_of_every_step_is_orthogonal_to_the_first_ones_directions(tmp_path):
    plain, _ = gradients(tmp_path / "a")
    damped, trainer = gradients(tmp_path / "b", mask="collapse(directions=3, how=hard)")
    assert set(trainer.masked.chosen) == {name for name, g in plain[0].items() if g.dim() == 2}
    for step in damped:
        for name, top in trainer.masked.chosen.items():
            least = 1e-4 * plain[0][name].norm()
            assert (step[name] @ top.inputs).norm() < least and (top.outputs.mT @ step[name]).norm() < least
    assert torch.allclose(damped[0]["model.norm.weight"], plain[0]["model.norm.weight"])


def test_it_is_a_mask_of_the_settings_and_the_last_blocks_are_a_region(tmp_path):
    tokenizer = make_tokenizer()
    assert len(run(tiny(), tokenizer, tmp_path / "a", "npo + nll", mask="collapse(directions=2, of=retain)").frame) == 3
    with pytest.raises(UnlearnError, match="sides is one of"):
        MASKS.read("collapse(sides=left)")
    model = tiny()
    run(model, tokenizer, tmp_path / "b", "sugd", steps=4, method="full", plan="chunked(size=4, retain=1)",
        region=last_blocks(model, 1))
    last_blocks(model, 1).check_outside(tiny(), model)
    run(tiny(), tokenizer, tmp_path / "c", "ga + nll", lora_r=4, region=last_blocks(tiny(), 1, rank=4))
