"""Noise and distillation: identity without noise, vectors only shrink, tied weights once, and no second model."""

import pytest
from toys import RETAIN, same, state, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.unlearning import UnlearnSettings, add_noise, noise_then_distil


@pytest.mark.parametrize("tied", [False, True])
def test_noise_has_its_size_and_its_seed(tied):
    before, after = tiny(tied=tied), tiny(tied=tied)
    add_noise(after, 0.5, 0.2, seed=4)
    for one, other in zip(before.parameters(), after.parameters()):
        noise = (other - 0.5 * one).detach()
        limit = 0.1 * (6 / sum(one.shape[-2:])) ** 0.5 if one.dim() > 1 else 0.0
        largest = float(noise.abs().max())
        assert largest <= limit * 1.0001 + 1e-7 and (one.dim() == 1 or largest > 0.9 * limit)
    again = tiny(tied=tied)
    add_noise(again, 0.5, 0.2, seed=4)
    assert same(state(after), state(again))
    add_noise(again, 0, 0.2)
    assert same(state(after), state(again))


def test_a_student_comes_near_to_its_teacher(tokenizer, tmp_path):
    settings = UnlearnSettings(lr=5e-3, steps=20, batch_size=4, max_length=24)
    history = noise_then_distil(tiny(), tokenizer, RETAIN, settings=settings, out=tmp_path / "a", alpha=0.3,
                                progress=False)
    assert history.frame.kl.iloc[-1] < 0.7 * history.frame.kl[0] and history.frame.kl[0] > 0.01
    assert (tmp_path / "a" / "config.json").is_file()
    with pytest.raises(UnlearnError, match="alpha in"):
        noise_then_distil(tiny(), tokenizer, RETAIN, settings=settings, out=tmp_path / "b", alpha=-1)
