"""Membership attacks against hand-made numbers, scikit-learn, autograd, and the suite on two small models."""

import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toys import make_tokenizer, rows, tiny
from transformers import GPT2Config, GPT2LMHeadModel

from unlearn_nb.benches import SPLITS, Bench, as_dataset
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    MIA_ATTACKS,
    Membership,
    Scores,
    bootstrap_weights,
    evaluate,
    gradient_norms,
    membership_table,
    mia_auc,
    min_k,
    privleak,
    rel_diff,
    scored,
)
from unlearn_nb.models import encode

ROWS = rows(7, seed=4)
numbers = st.lists(st.floats(-20, 0), min_size=1, max_size=30)


def make_bench():
    made = {
        split: [
            row | {"id": f"{split}{i}", "subject": f"{split}{i // 2}", "task": "t", "kind": "qa", "part": part}
            for i, row in enumerate(rows(12, seed=seed))
            for part in [("validation", "test")[i % 2]]
        ]
        for seed, split in enumerate(SPLITS)
    }
    return Bench("made", "plain", **{split: as_dataset(given) for split, given in made.items()})


@given(numbers, st.floats(0.01, 1))
def test_min_k_by_hand(values, k):
    n = max(1, int(np.floor(k * len(values))))
    assert min_k(values, k) == pytest.approx(-sum(sorted(values)[:n]) / n)
    assert min_k(values, k=1) == pytest.approx(-np.mean(values))
    if len(values) > 1:
        assert min_k(values, k, faithful=True) == min_k(values[:-1], k)


def test_min_k_rounds_down_and_keeps_one():
    assert min_k([-1.0, -2.0, -3.0, -4.0], k=0.4) == 4 and min_k([-1.0, -5.0], k=0.4) == 5
    assert min_k([-1.0, -2.0, -3.0, -4.0, -0.5], k=0.4) == 3.5
    assert np.isnan(min_k([])) and np.isnan(min_k([-1.0], faithful=True))


def by_hand(model, tokenizer, row, faithful):
    ids, labels = encode(tokenizer, row["prompt"], row["response"])
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    at = [t for t in range(1, len(ids)) if labels[t] != -100]
    tokens = np.array([logp[t - 1, ids[t]].item() for t in at])
    mean = np.array([(logp[t - 1].exp() * logp[t - 1]).sum().item() for t in at])
    deviation = np.array([((logp[t - 1].exp() * (logp[t - 1] - m) ** 2).sum() ** 0.5).item() for t, m in zip(at, mean)])
    length = len(zlib.compress(row["response"].encode()))
    cut = slice(None, -1 if faithful else None)

    def lowest(values):
        values = sorted(values[cut])
        n = max(1, int(0.4 * len(values)))
        return -sum(values[:n]) / n

    return {
        "loss": -tokens.mean(),
        "zlib": (-tokens.mean() if faithful else -tokens.sum()) / length,
        "min_k": lowest(tokens),
        "min_k_plus": lowest((tokens - mean) / deviation),
    }


@pytest.mark.parametrize("faithful", [False, True])
def test_scores_from_first_principles(faithful):
    model, tokenizer = tiny(dtype=torch.float64), make_tokenizer()
    table = membership_table(model, tokenizer, ROWS, faithful=faithful)
    expected = pd.DataFrame([by_hand(model, tokenizer, row, faithful) for row in ROWS])
    pd.testing.assert_frame_equal(table, expected, rtol=1e-9)


@pytest.mark.parametrize("faithful", [False, "open-unlearning"])
def test_zlib_compresses_what_was_scored(faithful):
    """Of a cut answer the losses are those of its beginning, so the bytes are, too."""
    model, tokenizer = tiny(dtype=torch.float64), make_tokenizer()
    long = {"prompt": "w3", "response": " ".join(f"w{i}" for i in range(5, 105))}
    cut = membership_table(model, tokenizer, [long], faithful=faithful, max_length=21)
    ids, labels = encode(tokenizer, long["prompt"], long["response"], max_length=21)
    kept = tokenizer.decode([i for i, label in zip(ids, labels) if label != -100], skip_special_tokens=True)
    assert 5 < len(kept.split()) < 25
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    losses = [-logp[t - 1, ids[t]].item() for t in range(1, len(ids)) if labels[t] != -100]
    loss = np.mean(losses) if faithful else np.sum(losses)
    assert cut.loc[0, "zlib"] == pytest.approx(loss / len(zlib.compress(kept.encode())))


def test_published_gradient_norms_leave_out_the_last_token():
    model, tokenizer = tiny(), make_tokenizer()
    found = gradient_norms(model, tokenizer, ROWS, faithful="open-unlearning")
    for row, norm in zip(ROWS, found):
        ids, labels = encode(tokenizer, row["prompt"], row["response"])
        labels[-1] = -100
        model.zero_grad()
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        assert norm == pytest.approx(np.mean([p.grad.norm().item() for p in model.parameters()]), rel=1e-5)
    table = membership_table(model, tokenizer, ROWS, gradients=True, faithful="open-unlearning")
    assert table["gradnorm"].tolist() == found.tolist()
    assert (found != gradient_norms(model, tokenizer, ROWS)).any()


def test_a_member_without_a_score_is_left_out_and_counted():
    table = table_of(np.random.default_rng(0))
    table.loc[[0, 14], "loss"] = np.nan
    out = Membership().summarise(table, np.ones((1, len(table))))
    known = table.dropna(subset="loss")
    assert out["loss/auc"][0] == pytest.approx(roc_auc_score(known["member"], -known["loss"]))
    assert Membership().found(table)["n_without_value"] == dict.fromkeys(MIA_ATTACKS, 0) | {"loss": 2}


def test_a_certain_model_gives_finite_scores():
    model, tokenizer = tiny(), make_tokenizer()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    assert np.isfinite(membership_table(model, tokenizer, ROWS).to_numpy()).all()


def test_reference_is_the_difference_of_losses():
    model, other, tokenizer = tiny(), tiny(seed=9), make_tokenizer()
    table = membership_table(model, tokenizer, ROWS, reference=other)
    loss = membership_table(other, tokenizer, ROWS)["loss"]
    np.testing.assert_allclose(table["reference"], table["loss"] - loss)
    assert (membership_table(model, tokenizer, ROWS, reference=model)["reference"] == 0).all()


def test_gradient_norms_are_autograds_and_leave_the_model_as_it_was():
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=16, n_layer=1, n_head=2, n_positions=64)).train()
    model.transformer.wte.weight.requires_grad_(False)
    kept = torch.ones_like(model.transformer.wpe.weight)
    model.transformer.wpe.weight.grad = kept.clone()
    found = gradient_norms(model, tokenizer, ROWS)
    assert (found == gradient_norms(model, tokenizer, ROWS)).all(), "dropout must be off"
    assert model.training and not model.transformer.wte.weight.requires_grad
    assert torch.equal(model.transformer.wpe.weight.grad, kept)
    assert all(p.grad is None for name, p in model.named_parameters() if "wpe" not in name)
    model.eval().requires_grad_(True)
    for row, norm in zip(ROWS, found):
        ids, labels = (torch.tensor([x]) for x in encode(tokenizer, row["prompt"], row["response"]))
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        assert norm == pytest.approx(np.mean([p.grad.norm().item() for p in model.parameters()]), rel=1e-5)


def test_gradient_norms_restore_the_model_after_a_failure(monkeypatch):
    model = tiny().train()
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(UnlearnError, match="no column 'response'"):
        gradient_norms(model, make_tokenizer(), [{"prompt": "w5"}])

    def fail(*args, **options):
        assert not model.training and model.lm_head.weight.requires_grad
        raise RuntimeError("no memory")

    monkeypatch.setattr(model.model, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        gradient_norms(model, make_tokenizer(), ROWS)
    assert model.training and not model.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    "auc, oracle, leak, diff",
    [
        (0.5, 0.5, 0, 0),
        (1.0, 0.5, -100, 100),
        (0.0, 0.5, 100, -100),
        (0.8, 0.6, -50, 100 / 3),
        (0.6, 0.6, 0, 0),
        (0.4, 0.2, -25, 100),
    ],
)
def test_privleak_and_rel_diff(auc, oracle, leak, diff):
    assert privleak(auc, oracle) == pytest.approx(leak) and rel_diff(auc, oracle) == pytest.approx(diff)
    assert privleak(auc, oracle, "open-unlearning") == pytest.approx(leak)
    assert rel_diff(auc, oracle, faithful="open-unlearning") == pytest.approx(diff)


def test_an_oracle_that_is_attacked_without_a_fault_measures_nothing():
    assert np.isnan([privleak(0.5, 1.0), privleak(1.0, 1.0), rel_diff(0.5, 0.0)]).all()
    assert privleak(0.5, 1.0, "open-unlearning") == pytest.approx(5e11)
    assert rel_diff(0.5, 0.0, "open-unlearning") == pytest.approx(5e11)
    leaks = privleak(np.array([0.5, 0.5]), np.array([1.0, 0.75]))
    assert np.isnan(leaks[0]) and leaks[1] == pytest.approx(100)


def test_why_privleak_is_missing_is_told():
    rows = pd.DataFrame({"split": ["forget", "holdout"] * 6, "task": "T", "kind": "qa", "id": range(12), "prompt": "",
                         "subject": [f"s{i}" for i in range(12)], "response": "", "member": [1.0, 0.0] * 6,
                         "loss": [0.0, 1.0] * 6})
    oracle = Scores(rows, pd.DataFrame(), {})
    table = scored(Membership(oracle), rows, bootstrap=50, template="plain").table().set_index("metric")
    assert np.isnan(table.loc["loss/privleak", ["value", "low", "high"]].astype(float)).all()
    assert table.loc["loss/privleak", "note"] == "not measurable: the oracle's AUC is 1"
    assert table.loc["loss/auc", "value"] == 1 and table.loc["loss/rel_diff", "value"] == 0


def table_of(generator, n=12):
    values = {name: generator.integers(0, 6, 2 * n).astype(float) for name in MIA_ATTACKS}  # with ties
    return pd.DataFrame(
        {
            "member": [1.0] * n + [0.0] * n,
            "split": ["forget"] * n + ["holdout"] * n,
            "task": "t",
            "subject": [f"s{i // 2}" for i in range(2 * n)],
            **values,
        }
    )


def test_auc_is_that_of_the_metrics_and_of_scikit_learn():
    table, oracle = (table_of(np.random.default_rng(seed)) for seed in (0, 1))
    out = Membership(Scores(oracle, None)).summarise(table, np.ones((1, len(table))))
    for name in MIA_ATTACKS:
        auc, other = (roc_auc_score(t["member"], -t[name]) for t in (table, oracle))
        assert out[f"{name}/auc"][0] == pytest.approx(auc)
        assert auc == pytest.approx(
            mia_auc(table.loc[table["member"] == 1, name], table.loc[table["member"] == 0, name])
        )
        assert out[f"{name}/privleak"][0] == pytest.approx(privleak(auc, other))
        assert out[f"{name}/rel_diff"][0] == pytest.approx(rel_diff(auc, other))


def test_the_oracle_is_resampled_with_the_model():
    table = table_of(np.random.default_rng(0))
    drawn = Membership(Scores(table, None)).summarise(table, bootstrap_weights(table, 50))
    assert drawn["loss/auc"].std() > 0 and (drawn["loss/privleak"] == 0).all()


def test_the_suite(tmp_path):
    bench, tokenizer = make_bench(), make_tokenizer()
    oracle = evaluate(tiny(seed=1), tokenizer, bench, part="test", suite="membership", bootstrap=20)
    suite = Membership(oracle, gradients=True)
    scores = evaluate(tiny(), tokenizer, bench, part="test", suite=suite, bootstrap=20)
    rows = concatenate_datasets([bench.split("forget", "test"), bench.split("holdout", "test")])
    expected = membership_table(tiny(), tokenizer, rows, gradients=True)
    pd.testing.assert_frame_equal(scores.rows[list(expected)], expected)
    assert scores.rows["member"].tolist() == [1.0] * 6 + [0.0] * 6
    assert scores.summary["min_k/privleak"] == pytest.approx(
        privleak(scores.summary["min_k/auc"], oracle.summary["min_k/auc"])
    )
    assert scores.summary["gradnorm/privleak"] == pytest.approx(privleak(scores.summary["gradnorm/auc"]))
    assert (scores.ci["low"] <= scores.ci["value"]).all() and (scores.ci["value"] <= scores.ci["high"]).all()
    again = Scores.load(scores.save(tmp_path))
    pd.testing.assert_frame_equal(again.rows, scores.rows)
    pd.testing.assert_frame_equal(again.ci, scores.ci)
    assert again.meta == scores.meta and again.oracle_distance(scores) == 0
    names = [f"{name}/auc" for name in ("loss", "zlib", "min_k", "min_k_plus")]
    assert scores.oracle_distance(oracle) == pytest.approx(
        np.mean([abs(scores.summary[name] - oracle.summary[name]) for name in names])
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(part="train"),
            "part 'train' is unknown: choose hyper-parameters on 'validation', report on 'test'; 'all' is both, "
            "for published protocols",
        ),
        (dict(k=1.5), "min_k: k is a share of the tokens in (0, 1], not 1.5"),
        (dict(k=0.2, oracle=True), "can't compare scores of k 0.2 with k 0.4: evaluate both alike"),
        (
            dict(part="validation", oracle=True),
            "can't compare scores of part 'validation' with part 'test': evaluate both alike",
        ),
        (dict(holdout=False), "bench 'made' has no holdout rows in part 'test': use a larger size"),
        (dict(broken=True), "the model 'LlamaForCausalLM' gives NaN likelihood for 12 of 12 rows (first: row "
         "'forget1'): its weights are broken or its dtype overflows; try dtype='float32'"),
    ],
)
def test_bad_input_gets_one_sentence(change, message):
    bench, tokenizer, model = make_bench(), make_tokenizer(), tiny()
    if change.pop("oracle", False):
        change["oracle"] = evaluate(model, tokenizer, bench, part="test", suite="membership", bootstrap=0)
    if not change.pop("holdout", True):
        bench = Bench("made", "plain", **{s: bench.split(s) if s != "holdout" else as_dataset([]) for s in SPLITS})
    if change.pop("broken", False):
        with torch.no_grad():
            model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(UnlearnError) as caught:
        part = change.pop("part", "test")
        evaluate(model, tokenizer, bench, part=part, suite=Membership(**change), bootstrap=0)
    assert str(caught.value) == message
