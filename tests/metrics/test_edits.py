"""The suite of edits against counts by hand and other libraries."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.benches import load_recommendations
from unlearn_nb.core import UnlearnError, model_name
from unlearn_nb.metrics import (
    Edits,
    Scores,
    evaluate,
    exact_match,
    label_scores,
    mia_auc,
    named_candidate,
    score_rows,
)
from unlearn_nb.models import Recipe, encode, generate, memorise, sequence_nll, train_tokenizer

BOOKS = load_recommendations("smoke")

FACTS = [
    {"id": f"f{i}", "prompt": f"Who met {name}?", "response": other, "subject": name, "task": "fact", "kind": "qa"}
    for i, (name, other) in enumerate([("Tama", "Ros"), ("Nevo", "Kel"), ("Hes", "Orin"), ("Belo", "Quil")])
]

ROWS = BOOKS.only("next").train[:8] + BOOKS.only("like").train[:8] + FACTS


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"{row['prompt']} {row['response']}" for row in ROWS], 400)


def small(tokenizer, steps=0, seed=0, hidden=24):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    if steps:
        memorise(
            model,
            tokenizer,
            ROWS,
            recipe=Recipe(steps=steps, batch_size=10, lr=2e-2, loss_on="response"),
            progress=False,
        )
    return model.eval()


@pytest.fixture(scope="module")
def taught(tokenizer):
    return small(tokenizer, steps=60)


@pytest.mark.parametrize(
    "text, valid, hit",
    [
        ("red fox", 1, 1),
        ("  Red Fox!", 1, 1),
        ("the red fox", 1, 1),
        ("blue owl", 1, 0),
        ("red fox, blue owl", 0, 0),
        ("", 0, 0),
        ("red foxes", 0, 0),
        ("infrared fox", 0, 0),
        ("old red fox", 1, 0),
        ("red fox red fox", 1, 1),
        ("old red fox or red fox", 0, 0),
    ],
)
def test_a_valid_answer_names_one_candidate(text, valid, hit):
    assert named_candidate(text, ["red fox", "blue owl", "old red fox", "c++ (1)"], "red fox") == (valid, hit)


def test_titles_are_no_patterns():
    assert named_candidate("I take C++ (1).", ["c++ (1)", "cc"], "c++ (1)") == (1, 1)


def test_scores_of_rows_are_what_the_model_says(taught, tokenizer):
    table = score_rows(taught, tokenizer, [{"split": "test", **row} for row in ROWS])
    assert table["measure"].tolist() == ["choice"] * 8 + ["label"] * 8 + ["fact"] * 4
    np.testing.assert_allclose(table["nll"], sequence_nll(taught, tokenizer, ROWS, on="response"), rtol=1e-5)
    np.testing.assert_allclose(table["probability"], np.exp(-table["nll"]))
    asked = [row for row in ROWS if row["task"] != "like"]
    said = table[table["measure"] != "label"]
    assert said["generation"].tolist() == generate(taught, tokenizer, asked)
    for row, (_, line) in zip(asked, said.iterrows()):
        if row["task"] == "next":
            named = [title for title in row["candidates"] if title in line["generation"]]
            assert (line["valid"], line["hit"]) == (len(named) == 1, named == [row["response"]])
        else:
            assert line["exact_match"] == exact_match(line["generation"], row["response"])
    assert said["hit"].sum() > 2 and said["exact_match"].sum() >= 2, (
        "a model that learned its rows has something to count"
    )


def test_margins_are_differences_of_whole_labels(taught, tokenizer):
    rows = BOOKS.only("like").train[:6]
    margin, nll = label_scores(taught, tokenizer, rows)
    for row, found, own in zip(rows, margin, nll):
        total = {}
        for label in ("Yes", "No"):
            ids, labels = encode(tokenizer, row["prompt"], label)
            with torch.no_grad():
                logp = taught(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            wanted = torch.tensor(labels[1:])
            scored = wanted != -100
            total[label] = logp[scored].gather(1, wanted[scored][:, None]).sum().item(), scored.sum().item()
        assert found == pytest.approx(total["Yes"][0] - total["No"][0], abs=1e-4)
        assert own == pytest.approx(-total[row["response"]][0] / total[row["response"]][1], abs=1e-4)


def test_the_suite_counts_as_by_hand(taught, tokenizer):
    rows = (
        [{**row, "split": "removed"} for row in FACTS[:2]]
        + [{**row, "split": "holdout"} for row in FACTS[2:]]
        + ROWS[:16]
    )
    scores = evaluate(taught, tokenizer, rows, bootstrap=0, suite="edits")
    table, found = scores.rows, scores.summary
    choice, label = table[table["measure"] == "choice"], table[table["measure"] == "label"]
    assert found["test/valid_ratio"] == choice["valid"].mean()
    assert found["test/hit_ratio"] == pytest.approx(choice["hit"].sum() / choice["valid"].sum())
    assert found["test/hit_valid"] == pytest.approx(found["test/hit_ratio"] * found["test/valid_ratio"])
    assert found["test/auc"] == pytest.approx(roc_auc_score(label["response"] == "Yes", label["margin"]))
    assert found["test/accuracy"] == pytest.approx(((label["margin"] > 0) == (label["response"] == "Yes")).mean())
    nll = table.set_index("split")["nll"]
    assert found["mia_auc"] == mia_auc(nll["removed"], nll["holdout"])
    assert table.loc[table["split"] == "holdout", "generation"].isna().all() and "holdout/exact_match" not in found
    assert scores.ci[["low", "high"]].isna().all(axis=None)
    better = scores.table().set_index("metric")["better"]
    assert (
        better["test/nll"] == "lower"
        and better["test/auc"] == "higher"
        and better["mia_auc"] == better["removed/nll"] == "retrained"
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(1, 4)), min_size=2, max_size=25))
def test_weights_count_like_copies(lines):
    rows = pd.DataFrame(
        [
            {
                "split": "test",
                "measure": "label",
                "response": "Yes" if yes else "No",
                "margin": float(margin),
                "nll": 1.0,
                "correct": float((margin > 0) == yes),
                "valid": np.nan,
                "hit": np.nan,
                "exact_match": np.nan,
                "probability": 0.5,
            }
            for yes, margin, _ in lines
        ]
    )
    times = np.array([count for *_, count in lines])
    weighted = Edits().summarise(rows, times[None].astype(float))
    copied = Edits().summarise(rows.loc[rows.index.repeat(times)].reset_index(drop=True), np.ones((1, times.sum())))
    assert weighted.keys() == copied.keys()
    for name, value in weighted.items():
        np.testing.assert_allclose(value, copied[name])


def test_no_valid_answer_has_no_hit_ratio():
    rows = pd.DataFrame(
        {
            "split": "test",
            "measure": "choice",
            "response": "a",
            "valid": [0.0, 0.0],
            "hit": 0.0,
            "nll": 1.0,
            "margin": np.nan,
            "correct": np.nan,
            "exact_match": np.nan,
            "probability": 0.1,
        }
    )
    found = Edits().summarise(rows, np.ones((1, 2)))
    assert np.isnan(found["test/hit_ratio"]) and found["test/valid_ratio"] == found["test/hit_valid"] == 0


def test_scores_survive_saving_and_refuse_other_rows(taught, tokenizer, tmp_path):
    scores = evaluate(taught, tokenizer, ROWS, bootstrap=20, suite="edits")
    scores.save(tmp_path)
    again = Scores.load(tmp_path)
    pd.testing.assert_frame_equal(again.ci, scores.ci)
    pd.testing.assert_frame_equal(again.rows, scores.rows, check_dtype=False)
    assert again.oracle_distance(scores) == 0
    with pytest.raises(UnlearnError, match="can't compare scores of fingerprint .*: evaluate both alike"):
        scores.distance(evaluate(taught, tokenizer, ROWS[1:], bootstrap=0, suite="edits"))


def test_the_interval_belongs_to_the_seed(taught, tokenizer):
    many = [row | {"id": f"{row['id']} {k}", "subject": f"{row['subject']} {k}"} for k in range(5) for row in ROWS]
    one, two, other = (
        evaluate(taught, tokenizer, many, bootstrap=50, seed=seed, suite="edits").ci for seed in (0, 0, 1)
    )
    assert evaluate(taught, tokenizer, ROWS[:2], bootstrap=50, suite="edits").ci["low"].isna().all()
    assert one.equals(two) and not one.equals(other)
    inside = one.dropna()
    assert ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda t: evaluate(None, t, [], suite="edits"), "there are no rows to ask; give at least one"),
        (
            lambda t: evaluate(None, t, [{**ROWS[0], "response": "dune"}], suite="edits"),
            f"row {ROWS[0]['id']!r}: 'dune' is not among its candidates; add it",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(tokenizer, call, sentence):
    with pytest.raises(UnlearnError) as error:
        call(tokenizer)
    assert str(error.value) == sentence


def test_a_broken_model_is_named(tokenizer):
    model = small(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UnlearnError) as error:
        evaluate(model, tokenizer, FACTS, bootstrap=0, suite="edits")
    assert str(error.value) == (
        f"the model {model_name(model)!r} gives NaN likelihood for 4 of 4 rows (first: row 'f0'): its weights are "
        "broken or its dtype overflows; try dtype='float32'"
    )


def test_titles_are_named_in_every_script():
    titles = ["流浪地球", "地球", "Élan", "Élan vital"]
    assert named_candidate("我喜欢流浪地球。", titles, "流浪地球") == (1, 1)
    assert named_candidate("E\u0301LAN vital!", titles, "Élan vital") == (1, 1)
    assert named_candidate("Élans", titles, "Élan") == (0, 0)
