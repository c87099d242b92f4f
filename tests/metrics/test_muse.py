"""MUSE's measures on invented texts, by hand and against the published code's steps."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import make_model
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    Muse,
    Scores,
    asked_as,
    before_stops,
    evaluate,
    first_tokens,
    knowmem_prompt,
    scalability,
    scored,
    series_said,
    sustainability,
    text_min_k,
)
from unlearn_nb.models import Recipe, generate, memorise, tiny_tokenizer
from unlearn_nb.unlearning import UnlearnSettings, unlearn

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


# ---- more rows, and request after request

def known_of(levels, seed=0):
    """Invented scores: split -> how well each of 12 subjects' rows is answered, around a level."""
    draw, rows = np.random.default_rng(seed), []
    for split, level in levels.items():
        for i in range(12):
            rows.append(row(split, "knowmem", f"N{i}", "?", "!") | {
                "rougeL_f1": float(np.clip(level + draw.normal(0, 0.05), 0, 1)), "min_k": np.nan, "member": np.nan})
    return scored(Muse(), pd.DataFrame(rows), bootstrap=200)


def test_a_change_is_paired_and_told_for_better_or_worse():
    least, most = known_of({"forget": 0.8, "retain": 0.9}), known_of({"forget": 0.2, "retain": 0.6}, seed=1)
    table = scalability({40: most, 10: least}, bootstrap=300)
    assert table["rows_forgotten"].tolist() == [10, 10, 40, 40]
    assert table["change"].isna().tolist() == [True, True, False, False]
    for line in table.iloc[2:].itertuples():
        split = line.metric.split("/")[0]
        then, now = (one.rows.loc[one.rows["split"] == split, "rougeL_f1"].to_numpy() for one in (least, most))
        assert line.change == pytest.approx((now - then).mean())
        assert line.change_low < line.change < line.change_high
    forget, retain = series_said(table)
    assert "for the better" in forget and "for the worse" in retain and "10 rows forgotten" in retain
    same = series_said(sustainability([least, least], before=least, bootstrap=300))
    assert all("can't be told from none" in text and "after request 2" in text for text in same)


def test_a_series_of_other_rows_has_no_change_and_one_of_other_measures_is_refused():
    one = known_of({"forget": 0.8, "retain": 0.9})
    other = Scores(one.rows.assign(id=lambda rows: rows["id"] + "x"), one.ci, one.meta)
    assert scalability({1: one, 2: other})["change"].isna().all()
    assert "other rows were asked" in series_said(scalability({1: one, 2: other}))[0]
    with pytest.raises(UnlearnError, match="not measured alike: k is 0.4 and 0.2"):
        scalability({1: one, 2: Scores(one.rows, one.ci, one.meta | {"k": 0.2})})
    with pytest.raises(UnlearnError, match="a size is the number of rows"):
        scalability({"small": one, 2: one})
    with pytest.raises(UnlearnError, match="at least two models"):
        sustainability([one])


def test_two_sizes_and_two_requests_of_a_small_model(tokenizer, tmp_path):
    """A model that learnt all forgets two rows, or four; or two, and then the other two."""
    learnt = [one for one in ROWS if one["task"] == "knowmem"]
    learnt = [one | {"response": f"the sea of {one['subject']}" if one["split"] == "forget" else "a shepherd"}
              for one in learnt]
    forget, retain = ([one for one in learnt if one["split"] == split] for split in ("forget", "retain"))

    torch.manual_seed(0)
    target = make_model("llama", tokenizer)
    memorise(target, tokenizer, [one | {"prompt": knowmem_prompt(one["prompt"])} for one in learnt],
             recipe=Recipe(steps=60, batch_size=12, lr=1e-2), progress=False)

    def model_after(*requests):
        model = copy.deepcopy(target)
        for rows in requests:
            settings = UnlearnSettings(lr=3e-3, steps=12, batch_size=2, method="full", seed=0)
            asked = [[one | {"prompt": knowmem_prompt(one["prompt"])} for one in some] for some in (rows, retain)]
            unlearn(model, tokenizer, asked[0], retain=asked[1], objective="ga-gdr", settings=settings, progress=False,
                    out=tmp_path / str(len(list(tmp_path.iterdir()))))
        return evaluate(model, tokenizer, forget + retain, suite="muse", bootstrap=50)

    before, first, second = model_after(), model_after(forget[:2]), model_after(forget[:2], forget[2:4])
    by_size = scalability({0: before, 2: first, 4: model_after(forget[:4])}, bootstrap=50)
    by_request = sustainability([first, second], before=before, bootstrap=50)
    assert by_request["request"].unique().tolist() == [0, 1, 2] and len(by_size) == len(by_request) == 6
    for table in (by_size, by_request):
        forgotten = table[table["metric"] == "forget/knowmem"]
        assert forgotten["value"].iloc[0] > 0.9 and forgotten["change"].iloc[-1] < -0.1
