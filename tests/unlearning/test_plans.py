"""Plans in real trainings: fresh optimisers, rates, equal use of retain rows, budgets."""

import itertools

import numpy as np
import pytest
from toys import FORGET, RETAIN, run, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import PLANS, UnlearnSettings, make_batcher, make_trainer, planned, schedule_for

SIZES = {"forget": 8, "retain": 10}


@pytest.mark.parametrize("size, retain", list(itertools.product((1, 3, 8, 40), (1, 7))))
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("faithful", ["", "ails-ntua"])
def test_each_retain_row_is_used_equally_often(size, retain, epochs, faithful):
    plan = PLANS.read(f"chunked(size={size}, retain={retain}, faithful={faithful!r})")
    items = [item for phase in planned(plan, SIZES, per_step=1, seed=3, epochs=epochs) for item in phase]
    used = np.bincount([i for item in items for i in item["retain"]], minlength=10)
    assert used.max() - used.min() <= (epochs if faithful else 1) and used.sum() == 8 * retain * epochs
    assert sorted(i for item in items for i in item["forget"]) == sorted(list(range(8)) * epochs)
    assert all(len(item["forget"]) + len(item["retain"]) == 1 for item in items)


@pytest.mark.parametrize("restart", [True, False])
def test_the_optimiser_is_empty_at_the_start_of_each_chunk(tokenizer, tmp_path, restart):
    settings = UnlearnSettings(lr=1e-2, epochs=1, batch_size=4, plan=f"chunked(size=4, retain=1, restart={restart})")
    batcher = make_batcher(tokenizer, {"forget": FORGET, "retain": RETAIN}, resolve("ga + 0.5*nll"))
    schedule, sizes = schedule_for(batcher, settings), []
    trainer = make_trainer(tiny(), batcher, settings=settings, schedule=schedule, folder=tmp_path, progress=False)
    samples = trainer.get_batch_samples

    def watched(*args):
        found = samples(*args)
        sizes.append(len(trainer.optimizer.state))
        return found

    trainer.get_batch_samples = watched
    trainer.train()
    empty = [not size for size in sizes]
    assert empty == ([True, False, True, False] if restart else [True, False, False, False])
    rates = [record["lr"] for record in trainer.records]
    assert rates == pytest.approx([1e-2, 5e-3] * 2 if restart else [1e-2, 7.5e-3, 5e-3, 2.5e-3])


def test_a_chunk_of_all_rows_without_restart_is_one_phase(tokenizer, tmp_path):
    frame = run(tiny(), tokenizer, tmp_path / "a", "ga + nll", steps=4, plan="chunked(size=100)").frame
    plain = run(tiny(), tokenizer, tmp_path / "b", "ga + nll", steps=4).frame
    assert frame.lr.tolist() == pytest.approx(plain.lr.tolist())


def test_a_preset_brings_its_plan_and_snapshots_count_all_phases(tokenizer, tmp_path):
    history = run(tiny(), tokenizer, tmp_path / "a", "agad", steps=6, snapshots=[6])
    assert history.read["forget"] > 0 and (tmp_path / "a" / "snapshots" / "step-6").is_dir()
    assert '"plan": "alternating(size=64, share=0.25)"' in (tmp_path / "a" / "settings.json").read_text()
    first, last = history.frame.iloc[0], history.frame.iloc[-1]
    assert first.ga < 0 == first.nll and last.ga == 0 < last.nll  # ascent first, retain rows in the end
    with pytest.raises(UnlearnError, match="there is no step 7"):
        run(tiny(), tokenizer, tmp_path / "b", "agad", steps=6, snapshots=[7])
    with pytest.raises(UnlearnError, match="3 phases, and the settings 2 steps"):
        run(tiny(), tokenizer, tmp_path / "c", "agad", steps=2)


def test_epochs_count_in_each_phase(tokenizer, tmp_path):
    history = run(tiny(), tokenizer, tmp_path / "a", "sugd", steps=None, epochs=2, plan="chunked(size=3, retain=2)")
    assert history.read == {"forget": 16, "retain": 32}
    assert len(history.frame) == 2 * 5 + 2 * 5 + 2 * 3  # two epochs of 9, 9 and 6 items, two a step
