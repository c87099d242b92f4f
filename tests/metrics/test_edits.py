<<<<<<< HEAD
"""The eraser suite against counts by hand and other libraries, the proximal Bregman response against closed forms."""
=======
"""The suite of edits against counts by hand and other libraries."""
>>>>>>> main

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_nb.benches import load_recommendations
from unlearn_nb.core import UnlearnError
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
<<<<<<< HEAD
=======

>>>>>>> main
FACTS = [
    {"id": f"f{i}", "prompt": f"Who met {name}?", "response": other, "subject": name, "task": "fact", "kind": "qa"}
    for i, (name, other) in enumerate([("Tama", "Ros"), ("Nevo", "Kel"), ("Hes", "Orin"), ("Belo", "Quil")])
]
<<<<<<< HEAD
=======

>>>>>>> main
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
    one, two, other = (
        evaluate(taught, tokenizer, ROWS, bootstrap=50, seed=seed, suite="edits").ci for seed in (0, 0, 1)
    )
    assert one.equals(two) and not one.equals(other)
    inside = one.dropna()
    assert ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()


<<<<<<< HEAD
def test_recovery_is_linear_in_the_edit():
    assert recovery([0.5, 0.7, 0.9, 1.1], 0.5, 0.9).tolist() == pytest.approx([0, 0.5, 1, 1.5])
    assert recovery(3.0, 5.0, 1.0) == 0.5  # a loss falls
    assert np.isnan(recovery([1.0, 1.0], [0.5, 0.5], [0.51, 0.5], threshold=0.02)).all()


def made(shift):
    """Scores of the same 40 rows in which `nll` is shifted."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "split": "test",
            "task": "t",
            "kind": "qa",
            "id": range(40),
            "subject": range(40),
            "measure": "fact",
            "response": "x",
            "nll": rng.normal(3, 1, 40) + shift,
            "exact_match": 0.5,
        }
    )
    rows = rows.assign(probability=0.1, valid=np.nan, hit=np.nan, margin=np.nan, correct=np.nan)
    return scored(Edits(), rows, bootstrap=0)


def test_recovered_gap_with_paired_rows():
    """The rows' spread cancels: a shift by a third of the gap is a third in every resample."""
    table = gap_recovery(made(2.0), made(3.0), made(0.0), bootstrap=100).set_index("metric")
    assert table.loc["test/nll", ["recovery", "low", "high"]].tolist() == pytest.approx([1 / 3] * 3)
    assert table.loc["test/nll", "reason"] == ""
    assert table.loc["test/exact_match", "reason"] == "the gap 0 is not above 0.02"
    assert np.isnan(table.loc["test/exact_match", "recovery"])


def test_a_gap_that_is_not_sure_has_no_interval():
    rng = np.random.default_rng(0)
    retrained = made(0.0)
    retrained.rows["nll"] += rng.normal(0, 3, 40)  # the mean gap is of the size of its standard error
    retrained.rows["nll"] += 0.4 - retrained.rows["nll"].mean() + made(0.0).rows["nll"].mean()
    retrained.ci.loc[retrained.ci["metric"] == "test/nll", "value"] = retrained.rows["nll"].mean()
    line = gap_recovery(made(0.1), made(0.0), retrained, bootstrap=300).set_index("metric").loc["test/nll"]
    assert line["recovery"] == pytest.approx(0.25) and np.isnan(line["low"])
    assert line["reason"].startswith("no interval: ") and line["reason"].endswith("% of the resamples have no such gap")


def test_recovery_over_seeds_is_a_quotient_of_means():
    runs = pd.DataFrame(
        {
            "metric": ["a"] * 3 + ["b"],
            "corrupted": [0.0, 0.0, 0.0, 0.1],
            "edited": [0.1, 0.3, 0.2, 0.2],
            "retrained": [0.3, 0.6, 0.3, 0.5],
        }
    )
    table = seed_recovery(runs, bootstrap=200).set_index("metric")
    assert table.loc["a", "recovery"] == pytest.approx(0.6 / 1.2)
    assert 1 / 3 - 1e-9 <= table.loc["a", "low"] < table.loc["a", "high"] <= 2 / 3 + 1e-9
    assert (
        table.loc["b", "recovery"] == pytest.approx(0.25)
        and table.loc["b", "reason"] == "no interval: nothing to resample"
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3).filter(lambda x: abs(x) > 0.01))
def test_delta_agreement_against_numpy(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=12), rng.normal(size=12)
    found = delta_agreement(
        {"a": torch.tensor(x[:8]).reshape(2, 4), "b": torch.tensor(x[8:])},
        {"b": torch.tensor(y[8:]), "a": torch.tensor(y[:8]).reshape(2, 4)},
    )
    assert found["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found["relative_error"] == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y))
    same = delta_agreement(torch.tensor(scale * y), torch.tensor(y))
    assert same["cosine"] == pytest.approx(np.sign(scale)) and same["norm_ratio"] == pytest.approx(abs(scale))
    assert same["relative_error"] == pytest.approx(abs(scale - 1), abs=1e-7)


def test_delta_table_has_every_pair():
    table = delta_table({"a": torch.ones(2), "zero": torch.zeros(2)}, {"r": torch.ones(2), "s": -torch.ones(2)})
    assert table[["edit", "reference"]].apply(tuple, axis=1).tolist() == [
        ("a", "r"),
        ("a", "s"),
        ("zero", "r"),
        ("zero", "s"),
    ]
    assert table["cosine"].tolist()[:2] == pytest.approx([1, -1]) and table["relative_error"].tolist() == pytest.approx(
        [0, 2, 1, 1]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_rank_agreement_against_scipy(seed, ties):
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    if ties:
        left, right = left.round(), right.round()
    wanted = np.mean([spearmanr(left[:, k], right[:, k])[0] for k in range(3)])
    found = rank_agreement(left, right, bootstrap=20)
    assert found["value"] == pytest.approx(wanted) and found["low"] <= found["high"] and found["subsets"] == 12
    assert rank_agreement(left[:, 0], right[:, 0], bootstrap=5)["value"] == pytest.approx(
        spearmanr(left[:, 0], right[:, 0])[0]
    )


def test_costs():
    table = cost_table({"edited": (10, 300), "retrained": (500, 3000)}).set_index("method")
    assert table.loc["edited"].tolist() == [10, 300, 50, 10] and table.loc["retrained"].tolist() == [500, 3000, 1, 1]


TRAIN = BOOKS.only("like").train[:6]


def head_model(tokenizer):
    """A float64 model of which only the output layer is trained: there the loss is convex and C is its Hessian."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).double().eval()
    for name, p in model.named_parameters():
        p.requires_grad_(name == "lm_head.weight")
    return model


def features(model, tokenizer, row):
    """Final hidden states [T, H] before the row's answer tokens, and these tokens [T]."""
    ids, labels = encode(tokenizer, row["prompt"], row["response"])
    wanted = torch.tensor(labels[1:])
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, :-1]
    return hidden[wanted != -100], wanted[wanted != -100]


def test_the_response_is_the_stationary_point_of_its_objective(tokenizer):
    """In closed form for a linear output layer, with every row's share written out."""
    model, damping = head_model(tokenizer), 0.02
    new = [{**TRAIN[0], "response": "No" if TRAIN[0]["response"] == "Yes" else "Yes"}]
    found = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[:1], added=new, damping=damping, tolerance=1e-8)
    W = model.lm_head.weight.detach()
    change = found.delta["lm_head.weight"].clone().requires_grad_()
    total = damping / 2 * change.square().sum()
    for row in TRAIN:
        h, _ = features(model, tokenizer, row)
        total = (
            total
            + F.kl_div((h @ (W + change).T).log_softmax(-1), (h @ W.T).softmax(-1), reduction="none").sum(-1).mean() / 6
        )
    for sign, row in ((-1, TRAIN[0]), (1, new[0])):
        h, targets = features(model, tokenizer, row)
        total = total + sign / 6 * (F.cross_entropy(h @ (W + change).T, targets) - F.cross_entropy(h @ W.T, targets))
    (slope,) = torch.autograd.grad(total, change)
    at_start = torch.zeros_like(W).requires_grad_()
    h, targets = features(model, tokenizer, TRAIN[0])
    b = -torch.autograd.grad(-F.cross_entropy(h @ (W + at_start).T, targets) / 6, at_start)[0]
    assert found.residual < 1e-6 and slope.norm() < 1e-5 * b.norm()
    assert found.objective == pytest.approx(total.item(), rel=1e-6) and total < 0
    assert change.norm() > 0


def test_the_response_moves_up_the_loss_of_what_is_removed_and_stays_put(tokenizer):
    model = head_model(tokenizer)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    model.train()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    found = bregman_response(model, tokenizer, FACTS, removed=FACTS[:1], damping=0.05)
    assert model.training and torch.equal(model.lm_head.weight.grad, torch.ones_like(model.lm_head.weight))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert list(found.delta) == ["lm_head.weight"]
    was = sequence_nll(model, tokenizer, FACTS, on="response")
    with torch.no_grad():
        model.lm_head.weight += found.delta["lm_head.weight"]
    now = sequence_nll(model, tokenizer, FACTS, on="response")
    assert now[0] > was[0] and now[0] - was[0] > 2 * np.abs(now[1:] - was[1:]).max()


def test_strong_damping_leaves_the_gradient_step(tokenizer):
    model = head_model(tokenizer)
    h, targets = features(model, tokenizer, TRAIN[2])
    W = model.lm_head.weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(h @ W.T, targets), W)
    found = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[2:3], damping=1e3, tolerance=1e-9)
    assert delta_agreement(found.delta, {"lm_head.weight": gradient / 6 / 1e3})["relative_error"] < 5e-3


def test_float32_gets_within_a_hundredth(tokenizer):
    model = head_model(tokenizer)
    exact = bregman_response(model, tokenizer, TRAIN, removed=TRAIN[:1], damping=0.05, tolerance=1e-8)
    single = bregman_response(model.float(), tokenizer, TRAIN, removed=TRAIN[:1], damping=0.05)
    assert delta_agreement(single.delta, exact.delta)["relative_error"] < 1e-2


def nobody(tokenizer):
    model = head_model(tokenizer)
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda t: bregman_response(head_model(t), t, TRAIN, removed=TRAIN[:1], damping=0),
            "bregman_response: damping is 0; it must be positive",
        ),
        (
            lambda t: bregman_response(nobody(t), t, TRAIN, removed=TRAIN[:1], damping=1.0),
            "bregman_response: no weight of the model requires gradients; choose some",
        ),
        (
            lambda t: bregman_response(head_model(t), t, [], removed=TRAIN[:1], damping=1.0),
            "bregman_response: there are no training rows; give some",
        ),
        (
            lambda t: bregman_response(head_model(t), t, TRAIN, damping=1.0),
            "bregman_response: no row is removed or added; name some",
        ),
=======
@pytest.mark.parametrize(
    "call, sentence",
    [
>>>>>>> main
        (lambda t: evaluate(None, t, [], suite="edits"), "there are no rows to ask; give at least one"),
        (
            lambda t: evaluate(None, t, [{**ROWS[0], "response": "dune"}], suite="edits"),
            f"row {ROWS[0]['id']!r}: 'dune' is not among its candidates; add it",
        ),
<<<<<<< HEAD
        (
            lambda t: delta_agreement(torch.ones(2), torch.ones(3)),
            "delta_agreement: delta and reference differ in the names or shapes of their weights; "
            "take both from the same adapter",
        ),
        (
            lambda t: rank_agreement([1, 2], [1, 2]),
            "rank_agreement: predicted [2] and actual [2] must have the same shape, "
            "[subsets] or [subsets, queries], with 3 subsets or more",
        ),
        (lambda t: cost_table({"edited": (1, 2)}, "edit"), "unknown reference 'edit'; did you mean 'edited'?"),
        (
            lambda t: cost_table({"retrained": (1, -2)}),
            "cost_table: a cost is negative; give seconds and gradient equivalents of 0 or more",
        ),
=======
>>>>>>> main
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
        "the model gives NaN likelihood for 4 of 4 rows (first: row 'f0'): its weights are broken or its "
        "dtype overflows; try dtype='float32'"
    )
