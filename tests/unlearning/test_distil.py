"""Noise and distillation: identity without noise, vectors only shrink, tied weights once, and no second model."""

import pytest
from toys import RETAIN, same, state, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import sequence_nll
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


def test_distillation_ends_within_a_share_of_the_teachers_loss(tokenizer, tmp_path):
    """After the first look at which the loss is that near; the teacher's own is measured before the noise."""
    settings, seen = UnlearnSettings(lr=5e-3, steps=12, batch_size=4, max_length=24), []

    def losses(model):
        return float(sequence_nll(model, tokenizer, RETAIN, on="response").mean())

    def run(name, **options):
        return noise_then_distil(tiny(), tokenizer, RETAIN, settings=settings, out=tmp_path / name, alpha=0.3, every=2,
                                 progress=False, **options).frame

    whole = run("whole", within=None, on_step=lambda step, live: seen.append(losses(live) / losses(tiny()) - 1))
    assert len(whole) == len(seen) == 12
    share = seen[5] * 1.001 if seen[5] > 0 else 0.0  # reached at the look after step 6 or before
    first = next(step for step in range(2, 13, 2) if seen[step - 1] <= share)
    ended = run("ended", within=share)
    assert len(ended) == first <= 6 and ended.kl.tolist() == pytest.approx(whole.kl[:first].tolist())
    assert len(run("told", within=None, on_step=lambda step, live: step == 3)) == 3
    with pytest.raises(UnlearnError, match="within a share of at least 0"):
        run("never", within=-1)


def test_a_student_comes_near_to_its_teacher(tokenizer, tmp_path):
    settings = UnlearnSettings(lr=5e-3, steps=20, batch_size=4, max_length=24)
    history = noise_then_distil(tiny(), tokenizer, RETAIN, settings=settings, out=tmp_path / "a", alpha=0.3,
                                progress=False)
    assert history.frame.kl.iloc[-1] < 0.7 * history.frame.kl[0] and history.frame.kl[0] > 0.01
    assert (tmp_path / "a" / "config.json").is_file()
    with pytest.raises(UnlearnError, match="alpha in"):
        noise_then_distil(tiny(), tokenizer, RETAIN, settings=settings, out=tmp_path / "b", alpha=-1)
