"""Claims: intervals as of Student's formula, tables, words."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from unlearn_nb.experiments import claims_table, in_words, models_over_seeds, over_seeds, seeds_note
from unlearn_nb.metrics import bounds_of


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_interval_is_student_s(count):
    values = np.random.default_rng(count).normal(size=count)
    half = t.ppf(0.975, count - 1) * values.std(ddof=1) / count ** 0.5
    found = over_seeds(values)
    assert [found["low"], found["high"]] == pytest.approx([values.mean() - half, values.mean() + half], abs=1e-12)
    assert found["value"] == pytest.approx(values.mean())


def test_a_single_seed_and_equal_seeds_have_no_interval(recwarn):
    for values in ([0.3], [0.0, 0.0, 0.0]):
        found = over_seeds(values)
        assert found["value"] == values[0] and math.isnan(found["low"]) and math.isnan(found["high"])
    assert not recwarn.list


@pytest.mark.parametrize("values", [[0.9, 1.0], [0.0, 0.03], [0.2, 0.9, 1.0]])
def test_no_interval_of_a_share_leaves_what_a_share_can_be(values):
    free, found = over_seeds(values), over_seeds(values, bounds_of("retain/krr"))
    assert free["low"] < 0 or free["high"] > 1
    assert [found["low"], found["high"]] == [max(free["low"], 0), min(free["high"], 1)]
    assert "cut at the end of the measure" in in_words(claims_table([("kept", *found.values(), True)]))[0]
    assert "tell little" in seeds_note(found, len(values)) and "cut" not in seeds_note(over_seeds([0.4, 0.41]), 2)


def test_a_missing_value_stays_missing():
    assert all(math.isnan(value) for value in over_seeds([0.3, math.nan]).values())


def test_tables_of_claims_are_alike_with_and_without_intervals():
    table = claims_table([("one", 1, np.bool_(True)), ("two", 0.5, 0.4, 0.6, False)])
    assert table["holds"].dtype == bool and table["value"].dtype == float and table["low"].isna().tolist() == [True,
                                                                                                               False]
    assert in_words(table)[1] == "Does not hold: two: 0.500 (95 % interval over seeds 0.400 to 0.600)."
    assert list(claims_table([]).columns) == list(table.columns)


def test_models_over_seeds():
    table = pd.DataFrame({"seed": [0, 1, 0, 1], "model": ["b", "b", "a", "a"], "x": [1.0, 3.0, 5.0, 5.0]})
    found = models_over_seeds(table, ["x"])
    assert list(found.index) == ["b", "a"] and found["x mean"].tolist() == [2, 5]
    assert found["x std"].tolist() == pytest.approx([2 ** 0.5, 0])
