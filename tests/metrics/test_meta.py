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

# UDS's authors' own values, and the R and Q that they got of them: gnueaj/unlearning-depth-score, its
# runs/meta_eval/robustness/{relearn,quant}/results.json and the tables in plots/ beside (R, Q), plots/sym/ (symmetric).
# Llama-3.2-1B on TOFU's forget10: before, relearned, rounded to 4 bits, then R, Q, symmetric R, symmetric Q.
ORACLE = {"uds": (1.0, 0.7155811674498463), "es": (0.0591763219041133, 0.08392376632427868),
          "jailbreak_rouge": (0.3684864526174525, 0.3778332554693594)}
MODELS = [
    ("uds", "altpo a1 ep10", 0.8723593624707031, 0.6090653077622211, 0.8674218070203975, 1.0, 0.9628, 0.9614, 0.9810),
    ("uds", "altpo a1 ep5", 0.8160078929787096, 0.5763029454307276, 0.8046352486080917, 1.0, 0.9418, 0.9147, 0.9700),
    ("uds", "altpo a2 ep10", 0.8318555315930689, 0.5802025401557819, 0.8297692551810445, 1.0, 0.9877, 0.9389, 0.9938),
    ("uds", "altpo a2 ep5", 0.7953605732774727, 0.5337200745553401, 0.7880933835487341, 1.0, 0.9657, 0.9583, 0.9826),
    ("uds", "altpo a5 ep10", 0.7808756745909828, 0.5017503281375658, 0.7928494109035105, 1.0, 1.0, 0.9906, 0.9719),
    ("uds", "npo a2 ep10", 0.7813940200722683, 0.6022661360001024, None, 1.0, None, 0.7729, None),
    ("uds", "npo a5 ep10", 0.8179051414490547, 0.6365711048827362, None, 1.0, None, 0.7787, None),
    ("uds", "npo a5 ep5", 0.8129066334598957, 0.6400245535586595, None, 1.0, None, 0.7561, None),
    ("uds", "simnpo b3.5 ep10", 0.8255405006487233, 0.4961615785778807, None, 0.8635, None, 0.9268, None),
    ("uds", "simnpo b3.5 ep5", 0.8449403789272627, 0.4981769627557491, None, 0.8202, None, 0.9012, None),
    ("uds", "simnpo b4.5 ep10", 0.8034415335691534, 0.4852307215992165, None, 0.8938, None, 0.9439, None),
    ("uds", "simnpo b4.5 ep5", 0.792408565284173, 0.4801170817580509, None, 0.9107, None, 0.9533, None),
    ("es", "altpo a1 ep10", 0.045744153276524153, 0.08282470654473283, 0.0483718623459371, 0.6674, 0.9457, 0.8005,
     0.9721),
    ("es", "altpo a1 ep5", 0.06407077610443951, 0.09631631240288825, 0.05389001626911255, 0.7675, 1.0, 0.8684, 0.9137),
    ("es", "altpo a2 ep10", 0.051532559847898535, 0.09334278902971192, 0.052942217412091604, 0.5919, 0.9734, 0.7436,
     0.9865),
    ("es", "altpo a5 ep10", 0.05668474780354829, 0.11030661415808048, 0.05900504735773116, 0.4615, 0.9607, 0.6316,
     0.9799),
    ("jailbreak_rouge", "altpo a1 ep5", 0.3050503098735605, 0.30426426202539153, 0.29216564330363193, 0.0, 1.0, 0.0001,
     0.9784),
]
TABLE = {"open-unlearning": (0.9574, 0.9716), "symmetric": (0.8997, None)}  # UDS: R of 12 models, Q of the first 5

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


@pytest.mark.parametrize("measure, name, before, relearned, rounded, R, Q, symmetric_R, symmetric_Q", MODELS)
def test_the_published_quotients_of_each_model(measure, name, before, relearned, rounded, R, Q, symmetric_R,
                                               symmetric_Q):
    """Given to four places; UDS is high for less knowledge."""
    turned = (lambda value: 1 - value) if measure == "uds" else (lambda value: value)
    options = dict(zip(("oracle_before", "oracle_after"), map(turned, ORACLE[measure])))
    before, relearned = [turned(before)], [turned(relearned)]
    assert relearning_robustness(before, relearned, **options)[0] == pytest.approx(R, abs=6e-5)
    symmetric = relearning_robustness(before, relearned, **options, convention="symmetric")[0]
    assert symmetric == pytest.approx(symmetric_R, abs=1.1e-4)
    if rounded is not None:
        rounded = [turned(rounded)]
        assert rounding_robustness(before, rounded)[0] == pytest.approx(Q, abs=6e-5)
        symmetric = rounding_robustness(before, rounded, convention="symmetric")[0]
        assert symmetric == pytest.approx(symmetric_Q, abs=6e-5)


@pytest.mark.parametrize("convention", TABLE)
def test_the_published_table_from_its_own_values(convention):
    """The line of UDS: .9574 and .9716 by the quotients, .8997 in the final table, which is symmetric."""
    lines = [(name, "unlearned", *three) for measure, name, *three, _R, _Q, _one, _other in MODELS if measure == "uds"]
    lines.append(("retain", "oracle", *ORACLE["uds"], None))
    table = pd.DataFrame([{"model": name, "role": role, "state": state, "uds": value} for name, role, *three in lines
                          for state, value in zip(("before", "relearned", "rounded"), three) if value is not None])
    line = meta_table(table, ["uds"], inverted=["uds"], convention=convention, bootstrap=0).iloc[0]
    R, Q = TABLE[convention]
    assert (line["n_R"], line["n_Q"]) == (12, 5) and line["R"] == pytest.approx(R, abs=6e-5)
    assert Q is None or line["Q"] == pytest.approx(Q, abs=6e-5)
    assert line["oracle_relearned_change"] == pytest.approx(0.2844, abs=6e-5)  # published, too


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_two_conventions_by_their_formulas(before, after, oracle_before, oracle_after):
    options = dict(oracle_before=oracle_before, oracle_after=oracle_after)
    gain, reference = after - before, oracle_after - oracle_before
    found = relearning_robustness([before], [after], **options)[0]
    assert found == pytest.approx(min(max(reference / gain, 0), 1) if abs(gain) >= 1e-8 else 1)
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
