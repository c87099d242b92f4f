"""All attacks in one registry and one table: what each needs, pairs with the oracle, leak@k, probes, membership."""

import json
from math import comb

import numpy as np
import pandas as pd
import pytest
import torch
from attacking import same, state
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.attacks import (
    ATTACKS,
    WORST,
    Attack,
    AttackSetting,
    Probe,
    Sampling,
    Unpressed,
    as_attack,
    attack_table,
    excess_table,
    first_layers,
    leak_at_k,
    leaks,
    noise,
    sample_answers,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import MIA_ATTACKS, evaluate, membership_table, mia_auc
from unlearn_nb.models import generate


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.data())
def test_leak_at_k_is_the_published_quotient_and_rises_with_k(n, data):
    hits = data.draw(st.integers(0, n))
    found = [leak_at_k(hits, n, k) for k in range(1, n + 1)]
    assert np.allclose(found, [1 - comb(n - hits, k) / comb(n, k) for k in range(1, n + 1)])
    assert all(np.diff(found) >= -1e-12) and found[0] == pytest.approx(hits / n) and found[-1] == float(hits > 0)


def test_leak_at_k_equals_greedy_at_temperature_0(models, setting):
    """For every k; and sampling at a vanishing temperature is greedy."""
    target, _, tokenizer = models
    rows = setting.rows("forget")[:3]
    greedy = generate(target, tokenizer, rows, template=setting.bench.template)
    assert sample_answers(target, tokenizer, rows, samples=3, temperature=0) == [[answer] * 3 for answer in greedy]
    assert sample_answers(target, tokenizer, rows, samples=2, temperature=1e-4) == [[answer] * 2 for answer in greedy]

    class Few(AttackSetting):
        def rows(self, *splits):
            return super().rows(*splits)[:6]

    attack, few = Sampling(samples=4, temperature=0), Few(setting.bench)
    table = attack.run(target, tokenizer, few)
    assert table["hits"].isin([0, 4]).all() and table["score"].mean() > 0.8
    numbers = attack.summarise(table, np.ones((1, len(table))))
    assert {float(value[0]) for value in numbers.values()} == {table["score"].mean()}
    assert list(numbers) == ["leak@4", "leak@2", "leak@1"]


def test_every_attack_runs_and_leaves_the_model_as_it_is(models, setting):
    """All of the registry: `score` for every row, numbers for the table, not a bit of the model changed."""
    target, oracle, tokenizer = models
    before = state(target)
    options = {"sampling": "sampling(samples=1)", "recover": "recover(lrs=[1e-5], steps=[1])", "probe":
               "probe(layers=[4], steps=1)"}
    special = {"reference": ATTACKS["reference"](reference=oracle)}
    for name in ATTACKS:
        if name != "translation" and getattr(ATTACKS[name], "__module__", "").startswith("unlearn_nb"):
            attack = as_attack(special.get(name, options.get(name, name)))
            table = attack.run(target, tokenizer, setting)
            assert {"id", "subject", "split", "task", "score"} <= set(table) and table["score"].notna().all(), name
            numbers = attack.summarise(table, np.ones((2, len(table))))
            assert numbers and all(len(value) == 2 and np.isfinite(value).all() for value in numbers.values()), name
    assert same(before, state(target))


def test_unpressed_leaks_are_those_of_the_suite(models, setting):
    target, _, tokenizer = models
    scores = evaluate(target, tokenizer, setting.bench, part="test", suite="tofu", bootstrap=0)
    mine = Unpressed().run(target, tokenizer, setting).set_index("id")["score"]
    theirs = scores.rows[scores.rows["split"] == "forget"].set_index("id")["es"]
    pd.testing.assert_series_equal(mine, theirs.loc[mine.index], check_names=False)


def test_membership_attacks_are_the_metrics_ones(models, setting):
    target, _, tokenizer = models
    rows = setting.rows("forget", "holdout")
    known = membership_table(target, tokenizer, rows, template=setting.bench.template)
    member = np.array([row["split"] == "forget" for row in rows])
    for name in ("loss", "min_k_plus"):
        table = as_attack(name).run(target, tokenizer, setting)
        auc = as_attack(name).summarise(table, np.ones((1, len(table))))["auc"][0]
        assert auc == pytest.approx(mia_auc(known[name][member], known[name][~member])) and auc > 0.9
    assert set(MIA_ATTACKS) <= set(ATTACKS)


def test_a_probe_reads_what_a_silenced_head_hides(models, setting):
    """The last layer's states still hold the answers; the oracle's don't; the layers come back."""
    target, oracle, tokenizer = models
    layers = len(target.model.layers)
    attack = Probe(layers=(layers,), steps=20, lr=1e-4)
    held, never = (attack.run(model, tokenizer, setting)["score"].mean() for model in (target, oracle))
    assert held > 0.8 > 0.3 > never and len(target.model.layers) == layers
    with pytest.raises(ZeroDivisionError), first_layers(target, 1):
        1 / 0
    assert len(target.model.layers) == layers


class Fixed(Attack):
    """Scores that a test says."""

    name = "fixed"

    def __init__(self, scores):
        self.scores = scores

    def run(self, model, tokenizer, setting):
        rows = setting.rows("forget")
        return setting.table(rows, score=np.resize(self.scores[model], len(rows)))


def test_excess_is_paired_with_the_oracle(models, setting, monkeypatch):
    """The same scores on both sides have none, whatever their spread; a constant lead has an interval of one point."""
    rows = setting.table(setting.rows("forget"), task="T")
    spread = np.linspace(0, 0.9, len(rows))
    attack = Unpressed()
    table = excess_table(attack, rows.assign(score=spread + 0.1), rows.assign(score=spread), bootstrap=200).iloc[0]
    assert table["excess"] == pytest.approx(0.1) and table["excess_low"] == pytest.approx(0.1)
    assert table["excess_high"] == pytest.approx(0.1) and table["low"] < table["value"] < table["high"]
    with pytest.raises(UnlearnError, match="was asked other rows"):
        excess_table(attack, rows.assign(score=1.0), rows[::-1].assign(score=1.0))
    plain = lambda self, model, tokenizer, setting: setting.table(setting.rows("forget"), score=0.2)
    monkeypatch.setattr("unlearn_nb.attacks.attacked.Unpressed.run", plain)
    attacks = {"a": Fixed({"m": [0.9, 0.0], "o": [0.1, 0.3]}), "b": Fixed({"m": [0.0, 0.6], "o": [0.0, 0.1]})}
    found = attack_table({"m": ("m", None)}, setting.bench, oracle=lambda: ("o", None), attacks=attacks, bootstrap=0)
    numbers = found.table.set_index("attack")
    assert numbers.loc["a", "value"] == pytest.approx(0.45) and numbers.loc["a", "oracle"] == pytest.approx(0.2)
    assert numbers.loc[WORST, "value"] == pytest.approx((0.9 + 0.6) / 2)  # row by row, the oracle's too
    assert numbers.loc[WORST, "oracle"] == pytest.approx((0.2 + 0.3) / 2)
    assert found.matrix().loc["m"].to_dict() == pytest.approx({"none": 0, "a": 0.25, "b": 0.25, WORST: 0.5})


def test_what_cannot_be_attacked_is_told_and_left_out(models, setting, tmp_path):
    target, oracle, tokenizer = models
    attacks = ["translation", "jailbreak"]
    found = attack_table({"target": (target, tokenizer)}, setting.bench, oracle=(oracle, tokenizer), attacks=attacks,
                         bootstrap=20)
    assert "translation needs a writer" in found.left_out["translation"]
    assert list(found.matrix().columns) == ["none", "jailbreak", WORST]
    line = found.table.set_index("attack").loc["none"]
    assert line["excess"] > 0.7 and line["oracle"] < 0.3
    saved = found.save(tmp_path / "out")
    lines = [json.loads(text) for text in (saved / "attacks.jsonl").read_text().splitlines()]
    assert [line["attack"] for line in lines] == ["none", "jailbreak", WORST]
    for asked, message in [(["prefx"], "did you mean 'prefix'"), ([3], "is no attack")]:
        with pytest.raises(UnlearnError, match=message):
            attack_table({"target": (target, tokenizer)}, setting.bench, attacks=asked)
    with pytest.raises(UnlearnError, match="unknown measure"):
        leaks(target, tokenizer, [], measure="ess")


def test_noise_keeps_names_and_figures():
    rows = [{"id": "1", "prompt": "What is the profession of Orla Finch, born 12 May 1980?"}]
    (changed,) = noise(rows, share=1.0)
    words = list(zip(rows[0]["prompt"].split(), changed["prompt"].split()))
    assert all(sorted(a) == sorted(b) and a[0] == b[0] for a, b in words)
    moved = [a for a, b in words if a != b]
    assert moved and all(word.islower() and len(word.strip("?,")) >= 4 for word in moved)
    with pytest.raises(UnlearnError, match="noise share 2"):
        noise(rows, share=2)


def test_a_rounding_tells_the_share_of_changed_codes(models, setting):
    target, oracle, tokenizer = models
    with torch.no_grad():
        table = as_attack("int4").run(target, tokenizer, AttackSetting(setting.bench, before=oracle))
    assert 0.2 < table["codes"].iloc[0] < 1 and "codes" in as_attack("int4").summarise(table, np.ones((1, len(table))))
