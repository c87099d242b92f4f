"""Faithfulness against scikit-learn, robustness by hand, and the harmonic means that were published."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    best_threshold,
    faithfulness,
    harmonic,
    meta_table,
    relearning_robustness,
    rounding_robustness,
)

values = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)

# R, Q, robustness of UDS's own table (its docs/data/meta_eval.json): em, es, uds, truth ratio, logit lens, CKA
PUBLISHED = [(0.6051, 0.9843, 0.7495), (0.7703, 0.97, 0.8587), (0.8997, 0.9677, 0.9325), (0.2343, 0.996, 0.3794),
             (0.8116, 0.9587, 0.8791), (0.0134, 0.9968, 0.0264)]


@given(values, values)
def test_faithfulness_is_the_area_under_the_curve(known, others):
    labels = [1] * len(known) + [0] * len(others)
    found = faithfulness(known, [*others, np.nan], bootstrap=0)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, known + others))
    assert found["n_unknown"] == len(others) and np.isnan(found["low"])


@given(values, values)
def test_no_line_separates_better_than_the_best(known, others):
    line = best_threshold(known, others)
    share = lambda at: np.mean(np.array(known) > at) + np.mean(np.array(others) <= at)  # noqa: E731 (read as a formula)
    assert all(share(line) >= share(at) for at in np.arange(-1, 8, 0.25))


@pytest.mark.parametrize("relearning, rounding, both", PUBLISHED)
def test_the_published_harmonic_means(relearning, rounding, both):
    """Their quotients are given to four places."""
    assert harmonic(relearning, rounding) == pytest.approx(both, abs=1.5e-4)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_two_conventions_by_their_formulas(before, after, oracle_before, oracle_after):
    options = dict(oracle_before=oracle_before, oracle_after=oracle_after)
    gain, reference = after - before, oracle_after - oracle_before
    found = relearning_robustness([before], [after], **options)[0]
    assert found == pytest.approx(min(reference / gain, 1) if gain > 0 else 1)
    symmetric = relearning_robustness([before], [after], **options, convention="symmetric")[0]
    sizes = abs(gain) + abs(reference)
    assert symmetric == pytest.approx(1 - abs(gain - reference) / sizes if sizes else 1) and 0 <= symmetric <= 1
    assert rounding_robustness([before], [after])[0] == pytest.approx(min(before / after, 1))
    swapped = [rounding_robustness([a], [b], convention="symmetric")[0] for a, b in ((before, after), (after, before))]
    assert swapped[0] == swapped[1] == pytest.approx(1 - abs(after - before) / (after + before))


def checkpoints():
    """Two pools of two, the oracle, two unlearned models and one that the measure says still knows."""
    lines = [("p1", "known", 0.9, 0.9, 0.9), ("p2", "known", 0.8, 0.8, 0.8), ("n1", "unknown", 0.1, 0.1, 0.1),
             ("n2", "unknown", 0.2, 0.2, 0.2), ("o", "oracle", 0.1, 0.2, 0.1), ("u1", "unlearned", 0.2, 0.6, 0.4),
             ("u2", "unlearned", 0.3, 0.5, 0.3), ("u3", "unlearned", 0.7, 0.9, 0.9)]
    return pd.DataFrame([{"model": name, "role": role, "state": state, "es": value,
                          "utility": 0.3 if name == "u2" else 0.6}
                         for name, role, *three in lines
                         for state, value in zip(("before", "relearned", "rounded"), three)])


def test_the_table_by_hand():
    """u3 is above the line (0.5) and takes no part: R = (.1/.4 + .1/.2) / 2, Q = (.2/.4 + 1) / 2."""
    line = meta_table(checkpoints(), ["es"], bootstrap=0).iloc[0]
    assert (line["threshold"], line["n_R"], line["faithfulness"]) == (0.5, 2, 1)
    assert line["R"] == pytest.approx(0.375) and line["Q"] == pytest.approx(0.75)
    assert line["robustness"] == pytest.approx(0.5) and line["trust"] == pytest.approx(2 / 3)
    assert line["relearned_change"] == pytest.approx(0.3) and line["oracle_relearned_change"] == pytest.approx(0.1)
    line = meta_table(checkpoints(), ["es"], convention="symmetric", bootstrap=0).iloc[0]
    assert line["R"] == pytest.approx((1 - 0.3 / 0.5 + 1 - 0.1 / 0.3) / 2)
    assert line["Q"] == pytest.approx((1 - 0.2 / 0.6 + 1) / 2)
    line = meta_table(checkpoints(), ["es"], utility="utility", bootstrap=0).iloc[0]
    assert line["n_R"] == 1 and line["R"] == pytest.approx(0.25)


def test_a_measure_that_is_high_for_less_knowledge_is_turned_round():
    turned = checkpoints().assign(es=lambda table: 1 - table["es"])
    one, other = (meta_table(table, ["es"], inverted=inverted, bootstrap=0)
                  for table, inverted in ((checkpoints(), ()), (turned, ["es"])))
    pd.testing.assert_frame_equal(one, other)


def test_what_is_not_measured_is_no_number():
    before = checkpoints().query("state == 'before' and role != 'oracle'")
    line = meta_table(before, ["es"], bootstrap=0).iloc[0]
    assert line["faithfulness"] == 1 and np.isnan(line[["R", "Q", "robustness", "trust"]].astype(float)).all()
    oracleless = checkpoints().query("role != 'oracle'")
    line = meta_table(oracleless, ["es"], bootstrap=0).iloc[0]
    assert np.isnan(line["R"]) and line["Q"] == pytest.approx(0.75)
    with pytest.raises(UnlearnError, match="unknown measure"):
        meta_table(before, ["es"], inverted=["uds"])
