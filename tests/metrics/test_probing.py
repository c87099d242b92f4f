"""The linear probe: its map beside scikit-learn's, its folds, its control, and what it says of invented states."""

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import make_model
from sklearn.linear_model import Ridge

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    SUITES,
    Places,
    Probing,
    Scores,
    at_layer,
    evaluate,
    fold_numbers,
    read_tokens,
    ridge_map,
    scored,
    telling_places,
    token_codes,
)
from unlearn_nb.models import tiny_tokenizer

NAMES = ["Ada", "Karim", "Ravi", "Mira", "Ito", "Lund", "Tess", "Pim", "Olga", "Sten", "Ugo", "Vera"]
ROWS = [{"id": f"{split}{i}", "prompt": f"Who is number {i} of the {split} list?", "subject": f"{split} {i}",
         "task": "t", "kind": "qa", "split": split, "response": f"It is {name}, of the works"}
        for split in ("forget", "retain") for i, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10])
def test_the_map_is_sklearns_ridge(ridge):
    draw = torch.Generator().manual_seed(0)
    x, y, new = (torch.randn(n, k, generator=draw).double() for n, k in ((40, 12), (40, 5), (7, 12)))
    slope, mean, level = ridge_map(x, y, ridge)
    alpha = ridge * float(((x - x.mean(0)) ** 2).sum()) / 12
    known = Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(((new - mean) @ slope + level).numpy(), known.predict(new.numpy()), atol=1e-10)


def test_a_subject_is_in_one_fold_and_folds_are_alike_in_size():
    subjects = [f"s{i % 23}" for i in range(200)] + [None, None]
    folds = fold_numbers(subjects, 5, seed=3)
    assert all(len(set(folds[np.array(subjects, object) == name])) == 1 for name in set(subjects) - {None})
    counts = np.bincount(pd.Series(folds, index=subjects).groupby(level=0).first(), minlength=5)
    assert counts.max() - counts.min() <= 2
    assert (folds != fold_numbers(subjects, 5, seed=4)).any()


def invented(count=400, width=16, tokens=20, seed=0):
    """Places of one layer that holds the token's code, and one of noise; their folds; an output layer's codes."""
    draw = torch.Generator().manual_seed(seed)
    codes = token_codes(torch.randn(tokens, width, generator=draw))
    which = torch.randint(tokens, (count,), generator=draw)
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw))[0].double()
    noise = torch.randn(count, width, generator=draw)
    states = torch.stack([(codes[which] @ turn).float() + 0.02 * noise, noise])
    return Places(states, which, np.arange(count)), codes, np.arange(count) % 5


def test_what_is_there_is_read_what_is_not_is_not_and_the_control_reads_nothing():
    places, codes, folds = invented()
    fitted = np.arange(400) >= 200
    read, control = read_tokens(places, codes, fitted, folds=folds, ridge=0.01)
    assert read[0, :200].mean() > 0.95 and read[0, 200:].mean() > 0.95
    assert read[1].mean() < 0.2 and control.mean() < 0.2  # one of twenty by chance


def test_a_token_is_read_by_a_map_that_was_not_fitted_on_it_nor_on_its_fold():
    """By scikit-learn, fold by fold, the places left out one after the other."""
    places, codes, folds = invented(count=60, tokens=8)
    fitted = np.arange(60) % 3 > 0
    read, _ = read_tokens(places, codes, fitted, folds=folds, ridge=0.05)
    values = codes[torch.unique(places.tokens, return_inverse=True)[0]].numpy()
    for layer, states in enumerate(places.states.double()):
        x = (states / states.norm(dim=1, keepdim=True) * 4).numpy()
        for fold in range(5):
            inside, here = fitted & (folds != fold), folds == fold
            alpha = 0.05 * ((x[inside] - x[inside].mean(0)) ** 2).sum() / 16
            said = Ridge(alpha=alpha).fit(x[inside], values[places.tokens[inside]]).predict(x[here])
            assert ((said @ values.T).argmax(1) == places.tokens[here].numpy()).tolist() == read[layer, here].tolist()


def test_noise_is_not_read_though_a_fit_on_the_same_rows_would_seem_to():
    draw = torch.Generator().manual_seed(1)
    places = Places(torch.randn(1, 60, 48, generator=draw), torch.randint(6, (60,), generator=draw), np.arange(60))
    codes = token_codes(torch.randn(6, 48, generator=draw))
    read, _ = read_tokens(places, codes, np.ones(60, bool), folds=np.arange(60) % 5, ridge=1e-4)
    x = places.states[0].double()
    slope, mean, level = ridge_map(x, codes[places.tokens], 1e-4)
    seeming = (((x - mean) @ slope + level) @ codes.T).argmax(1) == places.tokens
    assert seeming.float().mean() > 0.9 > 0.45 > read.mean()


def table(levels, count=30, seed=0):
    """Rows whose tokens are read with these probabilities: split -> by layer."""
    draw, lines = np.random.default_rng(seed), []
    for split, level in levels.items():
        for i in range(count):
            lines.append({"split": split, "task": "t", "kind": "qa", "id": f"{split}{i}", "subject": f"{split} {i}",
                          "prompt": "", "response": "", "n_tokens": 4, "dealt": [0.0] * len(level),
                          "read": [float(draw.binomial(4, p)) / 4 for p in level]})
    return pd.DataFrame(lines)


def test_the_layer_is_that_of_the_retain_rows_and_the_excess_is_over_the_oracles_same_layer():
    oracle = Scores(at_layer(table({"forget": (0.2, 0.1), "retain": (0.9, 0.3)}, seed=1)), pd.DataFrame())
    rows = at_layer(table({"forget": (0.9, 0.6), "retain": (0.4, 0.8)}), oracle)
    assert set(rows["layer"]) == {2}
    found = scored(Probing(), rows).ci.set_index("metric")
    own, theirs = (one.rows["read"].str[1] if isinstance(one, Scores) else one["read"].str[1] for one in (rows, oracle))
    forget = rows["split"] == "forget"
    assert found.loc["probing", "value"] == pytest.approx(own[forget].mean())
    assert found.loc["probing_excess", "value"] == pytest.approx((own - theirs)[forget].mean())
    assert 0 < found.loc["probing_excess", "low"] < 0.5 < found.loc["probing_excess", "high"]
    assert found.loc["probing_peak", "value"] == pytest.approx(rows["read"].str[0][forget].mean())


def test_of_an_oracle_against_itself_nothing_is_in_excess_and_a_row_it_lacks_is_refused():
    rows = at_layer(table({"forget": (0.2, 0.5), "retain": (0.9, 0.3)}))
    again = at_layer(rows, Scores(rows, pd.DataFrame()))
    assert (again["excess"] == 0).all()
    with pytest.raises(UnlearnError, match="taken of other rows"):
        at_layer(rows, Scores(rows.iloc[1:], pd.DataFrame()))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_model_is_read_by_name_and_its_states_are_those_of_every_telling_token(kind, tokenizer):
    model = make_model(kind, tokenizer)
    places = telling_places(model, tokenizer, ROWS)
    assert places.states.shape[1:] == (len(places.tokens), model.config.hidden_size)
    assert set(places.rows) == set(range(len(ROWS)))
    scores = evaluate(model, tokenizer, ROWS, suite="probing(folds=3)", bootstrap=50)
    assert scores.rows["n_tokens"].tolist() == np.bincount(places.rows).tolist()
    assert 0 <= scores.summary["probing"] <= scores.summary["probing_peak"] <= 1
    assert scores.meta["folds"] == 3 and "probing" in SUITES
    same = evaluate(model, tokenizer, ROWS, suite="probing(folds=3)", bootstrap=50)
    pd.testing.assert_frame_equal(scores.rows, same.rows)


def test_what_cannot_be_probed_is_refused(tokenizer):
    model = make_model("llama", tokenizer)
    with pytest.raises(UnlearnError, match="nothing that could be read"):
        evaluate(model, tokenizer, [row | {"response": "it is so"} for row in ROWS], suite="probing")
    with pytest.raises(UnlearnError, match="give retain rows of more subjects"):
        evaluate(model, tokenizer, [row | {"subject": "one"} for row in ROWS], suite="probing")
    with pytest.raises(UnlearnError, match="no retain rows"):
        evaluate(model, tokenizer, ROWS[:12], suite="probing")
    for bad in ("folds=1", "ridge=0", "seed=-1"):
        with pytest.raises(UnlearnError, match="at least 2 folds"):
            SUITES.read(f"probing({bad})")
