"""MUSE's measures on invented texts, by hand and against the published code's steps."""

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import make_model
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import Muse, asked_as, before_stops, evaluate, first_tokens, knowmem_prompt, text_min_k
from unlearn_nb.models import generate, tiny_tokenizer

NAMES = ["Ada", "Bo Karim", "Ravi", "Mira", "Ito", "Lund"]


def row(split, task, name, prompt, response):
    return {"id": f"{split}-{task}-{name}", "subject": name, "task": task, "split": split, "part": "test", "kind": "qa",
            "prompt": prompt, "response": response}


ROWS = [made for name in NAMES for made in (
    row("forget", "verbmem", name, f"On Monday {name} came and", f"saw the sea of {name}."),
    row("forget", "knowmem", name, f"What did {name} see?", "the sea"),
    row("retain", "knowmem", name, f"Who fed the goats of {name}?", "a shepherd"),
    row("forget", "privleak", name, "The long way home was", f"walked by {name}, twice."),
    row("holdout", "privleak", name, "Rain fell on the roofs", f"but not on that of {name}."))]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model("llama", tokenizer)


def test_the_template_and_the_stops_are_the_published_ones():
    assert knowmem_prompt("Q?", [("A?", "b"), ("C?", "d")]) == (
        "Question: A?\nAnswer: b\n\nQuestion: C?\nAnswer: d\n\nQuestion: Q?\nAnswer:")
    assert before_stops("x\n\ny") == before_stops("x\nQuestion z") == before_stops("xQuestion: z") == "x"


def test_a_texts_min_k_by_its_tokens(model, tokenizer):
    """Minus the mean of the lowest 40 % of log-probabilities, all tokens but the first, whatever the batch."""
    texts = [f"{one['prompt']} {one['response']}" for one in ROWS]
    expected = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()
        expected.append(-np.sort(logps)[: int(0.4 * len(logps))].mean())
    for size in (1, 64):
        np.testing.assert_allclose(text_min_k(model, tokenizer, ROWS, batch_size=size), expected, atol=1e-5)


def test_the_suite_against_the_published_steps(model, tokenizer):
    scores = evaluate(model, tokenizer, ROWS, suite=Muse(faithful="muse", reference="news"), bootstrap=0)
    scorer, found = RougeScorer(["rougeL"], use_stemmer=False), {}
    for split, task in (("forget", "verbmem"), ("forget", "knowmem"), ("retain", "knowmem")):
        rows = [one for one in ROWS if (one["split"], one["task"]) == (split, task)]
        asked = [one | ({"prompt": knowmem_prompt(one["prompt"])} if task == "knowmem" else {}) for one in rows]
        texts = generate(model, tokenizer, asked, max_new_tokens=128 if task == "verbmem" else 32)
        texts = [before_stops(text) for text in texts] if task == "knowmem" else texts
        found[f"{split}/{task}"] = np.mean([scorer.score(one["response"], text)["rougeL"].fmeasure
                                            for one, text in zip(rows, texts)])
    for name, value in found.items():
        assert scores.summary[name] == pytest.approx(value)
    texts = [one for one in ROWS if one["task"] == "privleak"]
    score, holdout = text_min_k(model, tokenizer, texts), [one["split"] == "holdout" for one in texts]
    auc = roc_auc_score(holdout, -score)  # MUSE's own: the holdout is positive, on the score turned round
    assert scores.summary["auc"] == pytest.approx(1 - auc)
    assert scores.summary["privleak"] == pytest.approx(100 * (auc - 0.4772) / 0.4772)


def test_references_are_cut_as_each_code_does(tokenizer):
    long = [ROWS[0] | {"response": "one two three four five six " * 40}]
    ours, muse, other = (asked_as(tokenizer, long, "verbmem", limit=10, shots=None, faithful=code)[0]["response"]
                         for code in (False, "muse", "open-unlearning"))
    assert len(tokenizer(ours).input_ids) == 10 and other == long[0]["response"]
    assert ours == first_tokens(tokenizer, other, 10) and ours.startswith(muse)


def test_an_oracle_takes_its_auc_and_an_unknown_reference_is_refused(model, tokenizer):
    oracle = evaluate(make_model("gpt2", tokenizer), tokenizer, ROWS, suite="muse", bootstrap=0)
    scores = evaluate(model, tokenizer, ROWS, suite=Muse(oracle), bootstrap=20)
    a, b = 1 - scores.summary["auc"], 1 - oracle.summary["auc"]
    assert scores.summary["privleak"] == pytest.approx(100 * (a - b) / b)
    assert scores.rows["member"].value_counts().to_dict() == {1.0: 6, 0.0: 6}
    assert pd.isna(scores.rows.loc[scores.rows["task"] == "verbmem", "min_k"]).all()
    with pytest.raises(UnlearnError, match="unknown reference 'films'"):
        Muse(reference="films")
