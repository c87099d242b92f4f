"""What a user may ask for: one objective, or two whose adapters are merged."""

import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import read_erase, read_method


def test_two_objectives_are_merged_and_one_is_not():
    assert read_method("merge(npo-gdr, 0.3*npo(per=tokens, beta=0.5) + nll)")[0] == "npo-gdr"
    assert read_method("simnpo-gdr") == ("simnpo-gdr",)


def test_an_edit_has_a_solver_and_no_objective():
    assert [read_erase(text) for text in ("erase", " erase( ekfac ) ", "npo-gdr")] == ["cg", "ekfac", ""]
    assert read_method("erase(cg(max_products=8))") == ()


def test_other_answers_may_be_learnt_instead():
    for method in ("relearn", "idkdpo-gdr", "0.5*nll(on=augmented) + kl"):
        assert read_method(method) == (method,)
    assert read_method("merge(npo-gdr, relearn)") == ("npo-gdr", "relearn")


def test_a_comma_between_arguments_parts_no_objectives():
    parts = ("0.4*npo(per=tokens, beta=0.5) + nll", "npo(per=sequences, beta=0.1) + kl")
    assert read_method(f"merge({', '.join(parts)})") == parts


@pytest.mark.parametrize("method, part", [
    ("merge(erase, npo-gdr)", "erase"), ("merge(npo-gdr, npo-gdr, npo-gdr)", "merges 3 objectives"),
    ("merge(npo-gdr, nll)", "none that are to be forgotten"),
    ("merge(npo-gdr, kl)", "none that are to be forgotten")])
def test_what_can_not_be_computed_is_refused(method, part):
    with pytest.raises(UnlearnError, match=part):
        read_method(method)
