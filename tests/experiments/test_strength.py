"""The search for a strength: what it measures, and in which order."""

import pytest

from unlearn_nb.experiments import Candidate, Trial, forget_plan, measure_trial, strength


class Stub:
    """An experiment that trains nothing."""

    plan = forget_plan("tiny", "quick")


@pytest.fixture
def measured(monkeypatch):
    """A function: left and lost of each candidate -> the steps that were measured, in order, and the trial's table."""

    def run(candidates):
        asked = []
        tried = [Candidate(f"adapter-{step}", step) for step in range(1, len(candidates) + 1)]

        def line(experiment, candidate, lr):
            asked.append(candidate.step)
            left, lost = candidates[candidate.step - 1]
            return {"lr": lr, "step": candidate.step, "adapter": candidate.adapter, "left": left, "lost": lost}

        monkeypatch.setattr(strength, "train_trial", lambda experiment, trial: tried)
        monkeypatch.setattr(strength, "_measured", line)
        return asked, measure_trial(Stub(), Trial(1e-3, 4))

    return run


@pytest.mark.parametrize("candidates, asked, passes", [
    ([(0.9, 0.0), (0.5, 0.0), (0.3, 0.0), (0.2, 0.0)], [4], [False]),
    ([(0.9, 0.0), (0.5, 0.5), (0.3, 0.6), (0.2, 0.4)], [4, 3], [False, False]),
    ([(0.9, 0.0), (0.04, 0.3), (0.04, 0.02), (0.0, 0.01)], [4, 3, 2, 1], [False, False, True, True]),
    ([(0.9, 0.0), (0.5, 0.0), (0.04, 0.02), (0.0, 0.2)], [4, 3, 2], [False, True, False])])
def test_candidates_are_measured_back_to_the_first_that_has_not_forgotten(measured, candidates, asked, passes):
    found, table = measured(candidates)
    assert found == asked and table["step"].tolist() == sorted(asked)
    assert table["passes"].tolist() == passes
