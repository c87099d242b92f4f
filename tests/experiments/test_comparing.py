"""The comparison: every method gets the same search, and every sentence follows the numbers."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from studies import finish, refused

from unlearn_nb.attacks import Attack
from unlearn_nb.core import UnlearnError, from_json
from unlearn_nb.experiments import (
    PAPER_CLAIMS,
    RANKED_BY,
    REASONS,
    Examined,
    compare_plan,
    compare_summary,
    comparing,
    disagreement,
    examine,
    measures_with,
    overview,
    rankings,
    ranks_of,
    read_rules,
    sentence_of,
    winners,
)
from unlearn_nb.plots import attacks_heatmap, caption_of, pareto_plot, ranks_heatmap, unbeaten

SPLITS = ("forget", "retain", "collateral", "holdout")


# ---- the plan

@pytest.mark.parametrize(("model", "budget"), [*itertools.product(["tiny", "smollm2"], ["smoke", "quick", "full"])])
def test_every_contestant_of_the_plan_gets_the_same_number_of_candidates(model, budget):
    plan = compare_plan(model, budget)
    assert {one.candidates for one in plan.contestants.values()} == {plan.trials}
    assert len(plan.contestants) >= (14 if model == "tiny" else 8)
    assert not any("," in name for name in plan.contestants), "commas stand between names"


def test_all_four_systems_and_two_regions_and_two_compositions_take_part():
    families = [one.family for one in compare_plan("tiny", "quick").contestants.values()]
    assert {"ReLearn", "merging", "influence", "localization", "composed"} <= set(families)
    assert families.count("localization") >= 2 and families.count("composed") >= 2


def test_every_claim_of_a_paper_is_about_contestants_of_the_plan():
    known = {*compare_plan("tiny", "quick").contestants, "oracle"}
    for claim in PAPER_CLAIMS:
        assert {claim.contestant, *claim.rivals} <= known
        assert {*claim.own, *claim.stronger} <= set(RANKED_BY)


def test_an_unknown_contestant_and_an_uneven_search_are_refused(monkeypatch):
    with pytest.raises(UnlearnError, match="did you mean 'SimNPO'"):
        compare_plan("tiny", "quick", only="NPO+GDR, SimNPOO")
    rules = read_rules("compare")
    rules.append({"contestants": {"PDU": {"strengths": [0.1, 0.2, 0.3]}}})
    monkeypatch.setattr("unlearn_nb.experiments.plan.read_rules", lambda study: rules)
    with pytest.raises(UnlearnError, match="the contestant PDU has 18 candidates, and every one gets 6"):
        compare_plan("tiny", "quick")


# ---- invented results, and what is said of them

def result(**levels):
    """Rows of contestants: name -> (p and es of forget rows, of retain rows, of collateral rows, erased)."""
    random, rows = np.random.default_rng(0), []
    for seed, (name, (forget, retain, others, erased)) in itertools.product((0, 1), levels.items()):
        for split, level in zip(SPLITS, (forget, retain, others, 0.1)):
            for person in range(10):
                p = float(np.clip(level + random.normal(0, 0.02), 0, 1))
                rows.append({"contestant": name, "seed": seed, "split": split, "id": f"{split}{person}",
                             "subject": f"{split}{person}", "p": p, "es": p, "NF4": p,
                             "kfr": 1 - p if split == "forget" else np.nan, "krr": p if split == "retain" else np.nan,
                             "erased": erased + random.normal(0, 0.01) if split == "forget" else np.nan})
    return pd.DataFrame(rows)


def searched(rows):
    names = [name for name in rows["contestant"].unique() if name not in ("target", "oracle")]
    return pd.DataFrame([{"contestant": name, "family": "one", "strength": 1.0, "step": 5, "seed": 0, "left": 0.1,
                          "lost": 0.1, "balance": 0.9 - i / 10, "chosen": True, "adapter": "stages/a", "seconds": 1.0,
                          "rows": 10.0 + i, "peak_mb": 1.0} for i, name in enumerate(names)])


KNOWN = {"target": (0.95, 0.95, 0.95, 0.0), "oracle": (0.1, 0.95, 0.95, 1.0)}
A_WINS = result(**KNOWN, A=(0.1, 0.9, 0.9, 0.95), B=(0.5, 0.9, 0.5, 0.3))
B_WINS = result(**KNOWN, A=(0.5, 0.6, 0.4, 0.3), B=(0.1, 0.9, 0.9, 0.95))
SHARED = result(**KNOWN, A=(0.1, 0.9, 0.9, 0.3), B=(0.5, 0.9, 0.9, 0.95))


def test_the_verdict_and_the_winners_follow_the_numbers():
    said = {}
    for winner, rows in (("A", A_WINS), ("B", B_WINS)):
        candidates, found = searched(rows), rankings(rows)
        table = overview(candidates, rows)
        summary = compare_summary(table, rows, found=found, best=candidates.set_index("contestant"))
        assert f"{winner} comes closest to the oracle" in summary.verdict
        assert all(0 <= number.low <= number.value <= number.high <= 1 for number in summary.numbers[:3])
        assert f"{winner} is first" in disagreement(found) and not any("winners" in text for text in summary.fails)
        line = winners(found, {"A": "one", "B": "one"}, table["rows"]).loc["one"]
        assert line["forgetting by probability"] == f"{winner} (1)" and line["cheapest"] == "A (10)"
        said[winner] = (summary.verdict, [sentence_of(rows, name) for name in "AB"])
    assert said["A"][0] != said["B"][0] and not set(said["A"][1]) & set(said["B"][1])


def test_where_measures_name_different_winners_the_report_says_so():
    assert "different winners" in disagreement(rankings(SHARED)) and "depth (UDS): B" in disagreement(rankings(SHARED))
    assert "different winners" not in disagreement(rankings(A_WINS))
    best = searched(SHARED).set_index("contestant")
    summary = compare_summary(overview(searched(SHARED), SHARED), SHARED, found=rankings(SHARED), best=best)
    assert any("different winners" in text for text in summary.fails)


@pytest.mark.parametrize("claim", PAPER_CLAIMS, ids=lambda claim: claim.paper)
def test_the_papers_claims_follow_the_numbers(claim):
    strong = KNOWN | {claim.contestant: (0.1, 0.94, 0.94, 0.97)} | {
        rival: (0.6, 0.5, 0.4, 0.2) for rival in claim.rivals if rival != "oracle"}
    weak = KNOWN | {claim.contestant: (0.6, 0.5, 0.4, 0.2)} | {
        rival: (0.1, 0.94, 0.94, 0.97) for rival in claim.rivals if rival != "oracle"}
    shallow = strong | {claim.contestant: (0.1, 0.94, 0.5, 0.1)} | {
        rival: (0.6, 0.5, 0.9, 0.9) for rival in claim.rivals if rival != "oracle"}
    found = [examine(result(**levels), claim) for levels in (strong, weak, shallow)]
    said = [one.text for one in found]
    assert not found[1].holds and not found[2].holds
    assert "does not hold here" in said[1] and "does not survive stronger ones" in said[2] and len(set(said)) == 3
    assert claim.wants == "not behind" and "oracle" in claim.rivals or "survives stronger ones" in said[0]
    assert "can't be asked" in examine(A_WINS, claim).text and examine(A_WINS, claim).holds is None


def test_a_summary_names_what_fails_and_what_is_not_available():
    rows = B_WINS[B_WINS["contestant"] != "oracle"]
    candidates = searched(rows)
    best = candidates.set_index("contestant")
    summary = compare_summary(overview(candidates, rows), rows, found=rankings(rows), best=best,
                              claims=[Examined(False, "X's claim, that y, does not hold here.", "X: behind."),
                                      Examined(None, "Y's claim can't be asked."), Examined(True, "Z's holds.")],
                              missing={"oracle": REASONS["oracle"]})
    assert summary.verdict.lower().startswith(REASONS["oracle"].lower())
    assert "balance on validation rows" in summary.verdict
    assert summary.fails[1:] == ("X's claim, that y, does not hold here.",) and summary.numbers[3].value is None


def test_figures_say_what_is_in_them():
    measures = measures_with(["NF4"])
    found = rankings(A_WINS, measures)
    assert "forgetting under NF4" in found
    table = overview(searched(A_WINS), A_WINS, measures)
    said = caption_of(pareto_plot(table, "forgetting by probability", ["collateral by extraction strength"]))
    assert "in the first panel A." in said
    assert "2 contestants by" in caption_of(ranks_heatmap(*ranks_of(found)))
    assert "B under NF4 (+0.5" in caption_of(attacks_heatmap(pd.DataFrame({"NF4": {"A": 0.0, "B": 0.52}})))


def test_the_front_is_what_nobody_beats():
    random = np.random.default_rng(0)
    x, y = random.uniform(size=(2, 50))
    front = unbeaten(x, y)
    for i in range(50):
        beaten = any(x[j] <= x[i] and y[j] >= y[i] and (x[j] < x[i] or y[j] > y[i]) for j in range(50))
        assert front[i] != beaten


def test_nothing_is_said_of_forgetting_what_was_never_known(monkeypatch):
    known = A_WINS.query("contestant == 'A' and seed == 0")[["split", "id", "subject", "p", "es"]]
    attacked = known.query("split == 'forget'")[["id"]].assign(NF4=0.5)
    monkeypatch.setattr(comparing, "known_by", lambda *given: known)
    monkeypatch.setattr(comparing, "attacked_by", lambda *given: (attacked, {}))
    monkeypatch.setattr(comparing, "suites_of", lambda experiment: {})
    seen = {}
    for knows in (True, False):
        experiment = SimpleNamespace(truth=SimpleNamespace(target_knows=knows), seed=0)
        seen[knows] = comparing.scored_rows(experiment, "adapter", "A").groupby("split")[["p", "es", "NF4"]].mean()
    assert seen[True].loc["forget"].notna().all() and seen[False].loc["forget"].isna().all()
    assert seen[False].loc["retain", "p"] == seen[True].loc["retain", "p"]


def test_an_attack_that_the_bench_lacks_is_left_out_and_named():
    class Lacks(Attack):
        def run(self, model, tokenizer, setting):
            raise UnlearnError("the bench has no paraphrases")

    class Works(Attack):
        def run(self, model, tokenizer, setting):
            return pd.DataFrame({"id": ["a"], "score": [0.5]})

    found, left_out = comparing.tried(None, None, {"one": Works(), "other": Lacks()}, setting=None)
    assert list(found) == ["one"] and left_out == {"other": "the bench has no paraphrases"}
    with pytest.raises(UnlearnError, match="no attack of the plan can be made: the bench has no paraphrases"):
        comparing.tried(None, None, {"other": Lacks()}, setting=None)


# ---- the study

@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    only = "NPO+KL+NLL in a random region, edit then NPO+KL+NLL"
    return finish("compare", tmp_path_factory.mktemp("compare"), "run", "-p", "only", only)


def test_the_study_ends_with_report_metrics_figures_and_an_adapter(finished):
    metrics = from_json((finished / "metrics.json").read_text())
    names = [line["contestant"] for line in metrics["overview"]]
    assert names[:2] == ["target", "oracle"] and len(names) == 4
    assert {"forgetting by depth (UDS)", "forgetting under NF4", "forgetting by KFR"} <= set(metrics["rankings"])
    taken = {line["metric"]: line for line in metrics["trust"]}
    assert {"forgetting by depth (UDS)", "forgetting by KFR", "forgetting by probability"} <= set(taken)
    assert all(line["n_known"] == line["n_unknown"] == 5 for line in taken.values())
    assert {"pareto.png", "ranks.png", "attacks.png"} <= {file.name for file in (finished / "figures").iterdir()}
    depth = {line["contestant"]: line["forgetting by depth (UDS)"] for line in metrics["overview"]}
    assert depth["oracle"] == pytest.approx(1) and depth["target"] == pytest.approx(0, abs=1e-6)
    summary = from_json((finished / "summary.json").read_text())
    assert (finished / summary["adapter"] / "adapter_config.json").exists()


def test_a_mistyped_contestant_is_refused_before_anything_is_run(tmp_path):
    refused("compare", tmp_path, ["-p", "only", "NPO+GDRR"], "did you mean 'NPO+GDR'")
