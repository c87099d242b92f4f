"""Numbers that are none: the one check of tensors, and the one check of likelihoods."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_nb.core import NonFinite, check_finite, check_likelihoods, is_finite, model_name

KINDS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FINITE = st.floats(-6e4, 6e4, width=16)


@given(st.lists(FINITE, max_size=40), st.sampled_from(KINDS), st.integers(0, 40),
       st.sampled_from([None, np.nan, np.inf, -np.inf]))
def test_a_tensor_is_finite_as_isfinite_says(values, kind, place, strange):
    values = values if strange is None else [*values[:place], strange, *values[place:]]
    tensor = torch.tensor(values, dtype=torch.float64).to(kind)
    assert is_finite(tensor) == bool(tensor.isfinite().all())


def test_views_parameters_and_what_has_no_values():
    matrix = torch.nn.Parameter(torch.ones(4, 6))
    matrix.data[3, 5] = np.nan
    assert not is_finite(matrix) and not is_finite(matrix.T) and is_finite(matrix[:, ::2]) and is_finite(matrix[:3])
    assert is_finite(torch.empty(0, 3)) and is_finite(torch.empty(3, device="meta")) and is_finite(torch.ones(2) > 0)
    assert not is_finite(torch.tensor([1 + 1j, complex(0, np.inf)]))


def test_the_first_broken_tensor_is_named_with_what_to_do():
    fine, broken = torch.ones(2), torch.tensor([np.inf])
    check_finite({"a": fine}, "x")
    with pytest.raises(NonFinite, match="^x holds NaN or infinite values in the tensor b: try again.$"):
        check_finite({"a": fine, "b": broken, "c": broken}, "x", "try again")
    with pytest.raises(NonFinite, match="load it in float32"):
        check_finite({"b": broken.half()}, "x", "try again")


def test_an_infinite_likelihood_is_told():
    check_likelihoods([0.0, 9.0], "the model")
    check_likelihoods([], "the model")
    with pytest.raises(NonFinite, match="the model gives infinite likelihood for 1 of 2 texts .first: row 'b'."):
        check_likelihoods([0.0, np.inf], "the model", what="texts", ids=["a", "b"])
    with pytest.raises(NonFinite, match="the model 'm' gives NaN likelihood for 2 of 2 rows"):
        check_likelihoods(np.array([np.nan, -np.inf]), SimpleNamespace(config=SimpleNamespace(_name_or_path="a/b/m")))


def test_a_model_without_a_name_is_called_by_its_class():
    assert model_name(SimpleNamespace()) == model_name(SimpleNamespace(config=None)) == "SimpleNamespace"
    assert model_name(SimpleNamespace(config=SimpleNamespace(_name_or_path=None))) == "SimpleNamespace"
