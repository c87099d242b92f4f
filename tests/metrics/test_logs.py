"""Published results recomputed from their rows: numbers of open-unlearning's logs and of TOFU's own."""

import json

import numpy as np
import pandas as pd
import pytest
from published import logs

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Scores,
    Tofu,
    forget_quality,
    log_column,
    log_rouge,
    log_summary,
    read_log,
    rouge_l_f1,
    scored,
    tofu_log_rows,
)

SUMMARIES = {  # as published, and the truth ratios that stand beside them
    ("tofu-full", "tofu-retain90"): {
        "exact_memorization": 0.9739357572793961,
        "extraction_strength": 0.706268493976531,
        "forget_Q_A_Prob": 0.8804820564389229,
        "forget_Q_A_ROUGE": 0.8201171050577979,
        "forget_quality": 3.9054713571083378e-22,
        "mia_gradnorm": 0.99848125,
        "mia_loss": 0.9964875,
        "mia_min_k": 0.99665,
        "mia_min_k_plus_plus": 0.99803125,
        "mia_reference": 0.99848125,
        "mia_zlib": 0.9979375,
        "model_utility": 0.5991534707368931,
        "privleak": -99.45739100654656,
        "forget_truth_ratio": 0.475563896242435,
        "ra_Truth_Ratio": 0.5273262603457551,
        "retain_Truth_Ratio": 0.5179621870037618,
        "wf_Truth_Ratio": 0.6201053693945934,
        "retain_Q_A_Prob": 0.8706601643562317,
        "retain_Q_A_ROUGE": 0.7932626474213142,
        "ra_Q_A_Prob_normalised": 0.4135646438190353,
        "ra_Q_A_ROUGE": 0.797,
        "wf_Q_A_Prob_normalised": 0.43633082577309573,
        "wf_Q_A_ROUGE": 0.827920227920228,
        "forget_Q_A_PERT_Prob": 0.04133516440791572,
    },
    ("tofu-retain90", None): {
        "exact_memorization": 0.5848885098844767,
        "extraction_strength": 0.05895894128954535,
        "forget_Q_A_Prob": 0.1161314930615481,
        "forget_Q_A_ROUGE": 0.37907355526383685,
        "mia_gradnorm": 0.34164375,
        "mia_loss": 0.3873625,
        "mia_min_k": 0.3826125,
        "mia_min_k_plus_plus": 0.477625,
        "mia_zlib": 0.3088875,
        "model_utility": 0.5911246639353407,
        "privleak": 23.477499995304495,
        "forget_truth_ratio": 0.6274597698541176,
        "ra_Truth_Ratio": 0.5034587127742052,
        "retain_Truth_Ratio": 0.5139158767392253,
        "wf_Truth_Ratio": 0.6175020880267867,
    },
    ("muse-target", "muse-retrain"): {
        "exact_memorization": 0.9443651211261749,
        "extraction_strength": 0.29539682539682544,
        "forget_knowmem_ROUGE": 0.6443370108563606,
        "forget_verbmem_ROUGE": 0.5789307740079299,
        "mia_gradnorm": 0.95245,
        "mia_loss": 0.999,
        "mia_min_k": 0.9991,
        "mia_min_k_plus_plus": 0.9739,
        "mia_reference": 1.0,
        "mia_zlib": 0.9998,
        "privleak": -99.81108310247458,
        "retain_knowmem_ROUGE": 0.5551912235837844,
    },
    ("muse-retrain", None): {
        "exact_memorization": 0.6124603524804115,
        "extraction_strength": 0.024444444444444432,
        "forget_knowmem_ROUGE": 0.32786613386613384,
        "forget_verbmem_ROUGE": 0.20162741575204354,
        "mia_gradnorm": 0.55525,
        "mia_loss": 0.5348,
        "mia_min_k": 0.5236,
        "mia_min_k_plus_plus": 0.4812,
        "mia_zlib": 0.5678,
        "privleak": -4.7199999990560135,
        "retain_knowmem_ROUGE": 0.5601729763464824,
    },
}


@pytest.mark.parametrize("name, oracle", SUMMARIES)
def test_every_published_number_comes_out_of_its_rows(name, oracle):
    found = log_summary(logs()[name], oracle and logs()[oracle])
    expected = SUMMARIES[name, oracle]
    assert set(expected) <= set(found) and ("forget_quality" in found) == (name == "tofu-full")
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, rel=1e-6, abs=0), metric


OWN = {  # of TOFU's two programs, run on TOFU's own log of the model that knows everything
    "tofu-aggregate": {
        "forget/truth_ratio": 0.5159854212808593, "retain/truth_ratio": 0.47469858801063747,
        "real_authors/truth_ratio": 0.5962289157077105, "world_facts/truth_ratio": 0.5390328416393139,
        "model_utility": 0.6226773637427151,
    },
    "tofu": {
        "forget/truth_ratio": 0.530370024560109, "retain/truth_ratio": 0.4538671193188384,
        "real_authors/truth_ratio": 0.505160107384876, "world_facts/truth_ratio": 0.4230547536740809,
        "model_utility": 0.585886035092722,
    },
}  # fmt: skip
SHARED = {
    "forget/probability": 0.9909385566403208, "retain/probability": 0.9895272273969067,
    "real_authors/probability": 0.45548207783762884, "world_facts/probability": 0.4185618075594898,
    "forget/rougeL": 0.985449693916369, "retain/rougeL": 0.9856545937933034, "real_authors/rougeL": 0.933,
    "world_facts/rougeL": 0.8824786324786325, "forget_quality": 1.834066410994743e-21,
}  # fmt: skip


@pytest.mark.parametrize("aggregation", OWN)
@pytest.mark.parametrize("faithful", ["tofu", False])
def test_each_of_tofus_two_programs_on_tofus_own_log(aggregation, faithful):
    options = dict(aggregation=aggregation, faithful=faithful)
    oracle = Scores(tofu_log_rows(logs()["own-retain90"], **options), pd.DataFrame())
    rows = tofu_log_rows(logs()["own-full"], **options)
    found = Tofu(oracle, **options).summarise(rows, np.ones((1, len(rows))))
    for metric, value in (OWN[aggregation] | SHARED).items():
        assert found[metric][0] == pytest.approx(value, rel=1e-6, abs=0), metric


def test_equation_1_changes_what_is_tested_too():
    quality = {}
    for aggregation in ("tofu", "tofu-paper"):
        full, oracle = (tofu_log_rows(logs()[name], aggregation=aggregation, faithful=False)
                        for name in ("own-full", "own-retain90"))  # fmt: skip
        chosen = [rows.loc[rows["set"] == "forget", "ratio"] for rows in (full, oracle)]
        quality[aggregation] = forget_quality(*chosen)
    assert quality["tofu-paper"] < 1e-10 and quality["tofu-paper"] != pytest.approx(quality["tofu"], rel=0.1, abs=0)


def test_truth_probability_is_open_unlearnings_third_aggregator():
    for name in ("tofu-full", "tofu-retain90"):
        right, wrong = (log_column(logs()[name], f"forget_Q_A_{kind}_Prob", "avg_loss") for kind in ("PARA", "PERT"))
        p, q = np.exp(-right), np.exp(-wrong.mean(1))
        rows = tofu_log_rows(logs()[name])
        found = rows.loc[rows["set"] == "forget", "truth_probability"].mean()
        assert found == pytest.approx((p / (p + q + 1e-10)).mean(), rel=1e-12)


def test_a_log_gets_intervals_and_can_be_saved(tmp_path):
    scores = scored(Tofu(faithful="open-unlearning"), tofu_log_rows(logs()["tofu-full"]), bootstrap=30)
    low, value, high = scores.ci.set_index("metric").loc["model_utility", ["low", "value", "high"]]
    assert low < value < high and value == pytest.approx(0.5991534707, rel=1e-6)
    assert scores.meta["truth_ratio_words"]["real_authors"] == "own" and len(scores.meta["utility_terms"]) == 9
    assert Scores.load(scores.save(tmp_path)).summary == scores.summary


def rows_of(**fields):
    return {"agg_value": 0.0, "value_by_index": {str(i): dict(zip(fields, row)) for i, row in
                                                 enumerate(zip(*fields.values()))}}  # fmt: skip


def test_rouge_comes_from_the_texts_by_ascii_words_and_in_the_order_of_numbers():
    texts = dict(generation=["Évreux 1971", "b a", "c"], ground_truth=["Évreux", "a b", "c"])
    recall = rows_of(**texts, rougeL_recall=[9.0] * 3)
    log = {"forget_Q_A_ROUGE": recall, "forget_knowmem_ROUGE": rows_of(**texts, rougeL_f1=[9.0] * 3)}
    assert log_rouge(log, "forget_Q_A_ROUGE").tolist() == [1, 0.5, 1]
    expected = [rouge_l_f1(*pair, faithful="open-unlearning") for pair in zip(*texts.values())]
    assert log_rouge(log, "forget_knowmem_ROUGE").tolist() == expected
    shuffled = {"agg_value": 0, "value_by_index": {str(i): {"score": float(i)} for i in (10, 9, 2, 0, 1)}}
    assert log_column({"x": shuffled}, "x").tolist() == [0, 1, 2, 9, 10]


def test_a_row_without_a_value_is_nan_and_counts_in_no_mean():
    log = {"exact_memorization": rows_of(score=[0.5, None, 1.0])}
    assert np.isnan(log_column(log, "exact_memorization")[1])
    assert log_summary(log)["exact_memorization"] == 0.75


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "can't be read as a log"),
        ("[1, 2]", "is no log of open-unlearning"),
        (json.dumps(SUMMARIES["muse-retrain", None]), "give an ..._EVAL.json, not a summary"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, text, message):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(UnlearnError, match=message):
        read_log(path)


def test_what_a_log_lacks_is_named():
    log = dict(logs()["tofu-full"])
    del log["wf_Q_A_Prob"]
    with pytest.raises(UnlearnError, match="no rows of 'wf_Q_A_Prob' with 'avg_loss'; it has rows of exact_mem"):
        tofu_log_rows(log)
    with pytest.raises(UnlearnError, match="no rows of 'exact_memorization' with 'prob'"):
        log_column(log, "exact_memorization", "prob")
    short = logs()["tofu-full"] | {"wf_Q_A_ROUGE": rows_of(rougeL_recall=[1.0])}
    with pytest.raises(UnlearnError, match="metrics of 'wf' don't have the same number of rows"):
        tofu_log_rows(short)
