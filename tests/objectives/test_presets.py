"""Presets carry the published weights."""

import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import PRESETS, TERMS, resolve


def test_presets_carry_the_published_weights():
    weights = {name: tuple(w for w, _ in resolve(name).parts) for name in PRESETS}
    assert weights["zjuklab-over"] == weights["zjuklab-over-zjunlp"] == (0.4, 0.4, 0.2)
    assert weights["zjuklab-under"] == weights["zjuklab-under-zjunlp"] == (0.3, 0.3, 0.4)
    for name in PRESETS:
        code = next((code for code in ("zjunlp", "open-unlearning", "nmndeep") if name.endswith(f"-{code}")), "")
        assert all(term.faithful == code for _, term in resolve(name).parts), name


def test_the_published_weights():
    weights = {name: str(resolve(name)) for name in PRESETS}
    assert weights["simnpo-gdr"] == "0.125*simnpo + nll" and weights["satimp-gdr"] == "0.1*satimp + nll"
    assert (
        weights["undial"] == "undial"
        and weights["rmu"] == "rmu + embed_diff"
        and weights["idkdpo-gdr"] == "20.0*dpo + nll"
    )
    defaults = [TERMS[name]() for name in ("simnpo", "satimp", "undial", "rmu", "wga")]
    assert [(t.beta, t.delta) for t in defaults[:1]] == [(4.5, 0)] and (defaults[1].beta1, defaults[1].beta2) == (5, 1)
    assert defaults[2].beta == 10 and (defaults[3].layer, defaults[3].steering) == (7, 2) and defaults[4].beta == 1


@pytest.mark.parametrize("theirs, ours", [
    ("GradAscent", "ga"), ("GradDiff", "ga-gdr"), ("NPO", "npo-gdr"), ("SimNPO", "simnpo-gdr"), ("DPO", "idkdpo-gdr"),
    ("UNDIAL", "undial"), ("RMU", "rmu"), ("grad_ascent", "ga"), ("grad_diff", "ga-gdr"), ("npo_gdr", "npo-gdr"),
])
def test_names_of_other_projects_are_told_ours(theirs, ours):
    with pytest.raises(UnlearnError, match=f"^unknown objective '{theirs}'; did you mean '{ours}'.$"):
        resolve(theirs)
    assert resolve(ours)
