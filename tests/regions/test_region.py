"""Regions as sets, found in many architectures, and trained: what lies outside keeps its bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from regional import full_masks, masks
from toys import (
    tiny,
)

from unlearn_nb.core import UnlearnError
from unlearn_nb.regions import Region, down_projections

SHAPE = (3, 4)


regions = st.dictionaries(st.sampled_from("ab"), masks).map(lambda m: Region(m, dict.fromkeys(m, SHAPE)))


def members(region):
    return {(n, *map(int, at)) for n, m in region.masks.items() for at in m.expand(SHAPE).nonzero()}


@given(regions, regions)
@settings(deadline=None)
def test_regions_are_sets_of_weights(one, two):
    a, b = members(one), members(two)
    assert members(one | two) == a | b and members(one & two) == a & b and members(one - two) == a - b
    assert (one == two) == (a == b) and one.n_weights == len(a)
    assert one.overlap(two) == (len(a & b) / len(a | b) if a | b else 1.0)
    assert (one - two) | (one & two) == one and one == full_masks(one)


@given(region=regions)
@settings(max_examples=25, deadline=None)
def test_a_saved_region_is_the_same(region, tmp_path_factory):
    path = region.save(tmp_path_factory.mktemp("region") / "r.safetensors")
    assert Region.load(path) == region and {n: m.shape for n, m in Region.load(path).masks.items()} == {
        n: m.shape for n, m in region.masks.items()
    }


def test_files_that_are_no_regions_are_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "text").write_text("region")
    for name in ("model.safetensors", "text", "missing"):
        with pytest.raises(
            UnlearnError, match=r"can't be read as a region \(\w+\): give a file that Region.save wrote$"
        ):
            Region.load(tmp_path / name)


@pytest.mark.parametrize("unit, units", [("value_vector", 96), ("weight", 17408), ("tensor", 14)])
def test_random_regions_have_their_size_and_stay_apart(unit, units):
    model = tiny()
    one = Region.random(model, 0.25, unit, seed=1)
    two = Region.random(model, 0.25, unit, seed=1, exclude=one)
    assert one.n_units == two.n_units == round(0.25 * units) and one.overlap(two) == 0.0
    assert one == Region.random(model, 0.25, unit, seed=1) and one != Region.random(model, 0.25, unit, seed=2)
    assert Region.random(model, 1.0, unit) == Region.every(model, unit)


def test_every_value_vector_is_as_likely_as_another():
    model, counts = tiny(), torch.zeros(2, 48)
    for seed in range(400):
        counts += torch.stack(
            [
                m[0].float() if m.shape == (1, 48) else torch.zeros(48)
                for m in (Region.random(model, 0.25, seed=seed) | Region({}, {})).masks.values()
            ]
        )
    spread = (counts - 100) / (400 * 0.25 * 0.75) ** 0.5  # standard deviations of a binomial
    assert spread.abs().max() < 4.5 and 0.7 < spread.std() < 1.3


def test_a_column_with_one_weight_taken_is_not_free():
    model = tiny()
    name = next(iter(down_projections(model)))
    mask = torch.zeros(32, 48, dtype=torch.bool)
    mask[3, 7] = True
    one = Region({name: mask}, {name: (32, 48)})
    beside = Region.random(model, 95 / 96, exclude=one)
    assert beside == Region.every(model) - Region({name: mask.any(0, keepdim=True)}, {name: (32, 48)})
