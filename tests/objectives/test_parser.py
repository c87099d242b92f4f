"""Objectives as text: what the algebra writes is read back, and bad text gets one sentence."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import (
    GA,
    KL,
    NLL,
    NPO,
    TERMS,
    Objective,
    parse_objective,
    resolve,
)


@pytest.mark.parametrize(
    "text, same",
    [
        ("0.4*npo(beta=0.1) + 0.4*kl + 0.2*nll", 0.4 * NPO(beta=0.1) + 0.4 * KL() + 0.2 * NLL()),
        ("npo", 1.0 * NPO()),
        ("ga - 2*nll", GA() - 2 * NLL()),
        ("-(ga + nll)*0.5", -0.5 * (GA() + NLL())),
        (
            "kl(direction=forward) + nll(on='forget', per=sequences)",
            KL(direction="forward") + NLL("forget", "sequences"),
        ),
        ("npo(faithful=zjunlp)\n", 1.0 * NPO(faithful="zjunlp")),
    ],
)
def test_parser_reads_what_the_algebra_writes(text, same):
    assert parse_objective(text) == same
    assert parse_objective(str(same)) == same


SAMPLES = [
    GA(),
    GA(per="sequences"),
    GA(faithful="zjunlp"),
    NLL(),
    NLL(per="sequences"),
    NLL(faithful="open-unlearning"),
    NPO(),
    NPO(beta=2.5),
    NPO(per="tokens"),
    NPO(faithful="zjunlp"),
    KL(),
    KL(direction="forward"),
    KL(faithful="open-unlearning"),
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6, allow_nan=False), st.sampled_from(SAMPLES)), min_size=1, max_size=6))
def test_text_round_trips(parts):
    objective = Objective(tuple(parts))
    assert parse_objective(str(objective)) == objective
    assert len(set(objective.labels)) == len(parts)


@pytest.mark.parametrize(
    "text, message",
    [
        ("0.4*np0 + nll", "did you mean 'npo'"),
        ("0.4*npo(bta=0.1)", "did you mean 'beta'"),
        ("npo(beta=0)", "beta must be a number above 0"),
        ("npo(beta=big)", "beta must be a number above 0"),
        ("npo(0.1)", "name the argument"),
        ("npo(**x)", "name the argument 'x'"),
        ("npo(beta=1, beta=2)", "is given twice"),
        ("kl(direction=sideways)", "direction must be one of"),
        ("nll(on=general)", "on must be one of"),
        ("rmu(seed=-1)", "seed must be a whole number"),
        ("rmu(seed=1.5)", "seed must be a whole number"),
        ("nll(faithful=1)", "faithful=1 doesn't say whose code"),
        ("O.4*npo", "can't read"),
        ("0.4 npo", "can't read"),
        ("", "can't read"),
        ("0.4*npo +", "can't read"),
        ("npo\0", "can't read"),
        ("0,4*npo", "is not that"),
        ("npo/2", "is not that"),
        ("npo**2", "is not that"),
        ("npo < 1", "is not that"),
        ("0.4", "is not a term"),
        ("npo + 0.4", "is not a term"),
        ("npo*nll", "finite number"),
        ("1e999*npo", "finite number"),
        ("True*npo", "finite number"),
        ("'a'*npo", "finite number"),
        ("__import__('os').system('true')", "name the argument"),
        ("__import__('os').getcwd()", "unknown term"),
        ("(lambda: npo)()", "unknown term"),
        ("npo(beta=exec('1'))", "must be a number"),
        ("zjuklab-ovre", "did you mean 'zjuklab-over'"),
        ("(" * 5000 + "npo" + ")" * 5000, "can't read"),
        ("-" * 3000 + "npo", "nested"),
    ],
)
def test_bad_text_gets_one_sentence(text, message):
    with pytest.raises(UnlearnError) as caught:
        resolve(text)
    assert message in str(caught.value) or (message == "nested" and "can't read" in str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, same_as",
    [
        ("0.125*simnpo(delta=1) + nll", "0.125*simnpo(delta=1, beta=4.5) + nll"),
        ("wga(beta=0.5) - satimp(beta2=2)", "wga(beta=0.5) + -1*satimp(beta1=5.0, beta2=2)"),
        (
            "rmu(layer=-1, steering=20) + 100*embed_diff(layer=-1)",
            "rmu(layer=-1, steering=20) + 100*embed_diff(layer=-1)",
        ),
        ("undial(beta=3) + ceu(skip_first=False)", "undial(beta=3) + ceu(skip_first=False)"),
    ],
)
def test_arguments_round_trip(text, same_as):
    assert parse_objective(str(parse_objective(text))) == parse_objective(text) == parse_objective(same_as)


@pytest.mark.parametrize(
    "text, message",
    [
        ("wga(beta=-1)", "wga: beta must be a number at least 0, not -1"),
        ("satimp(beta2=many)", "satimp: beta2 must be a number at least 0, not 'many'"),
        ("simnpo(beta=0)", "simnpo: beta must be a number above 0, not 0"),
        ("simnpo(delta=-0.5)", "simnpo: delta must be a number at least 0, not -0.5"),
        ("undial(beta=0)", "undial: beta must be a number above 0, not 0"),
        ("ceu(skip_first=1)", "ceu: skip_first must be one of False, True, not 1"),
        ("rmu(layer=1.5)", "rmu: layer must be a whole number, counted from 0, not 1.5"),
        ("rmu(steering=0)", "rmu: steering must be a number above 0, not 0"),
        ("embed_diff(on=general)", "embed_diff: on must be one of 'forget', 'retain', 'augmented', not 'general'"),
        ("satimpp", "unknown objective 'satimpp'; did you mean 'satimp'?"),
    ],
)
def test_bad_arguments_get_one_sentence(text, message):
    with pytest.raises(UnlearnError) as caught:
        resolve(text)
    assert str(caught.value) == message


def test_every_term_is_listed_where_none_is_near():
    """In a process of its own: no module of a term has been imported there before the text is read."""
    code = "from unlearn_nb.objectives import TERMS\ntry: TERMS['xyz']\nexcept ValueError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    listed = said.removeprefix("unknown term 'xyz'; known: ").split(", ")
    known = "ceu constraint dpo embed_diff ga jsd kl margin maxent nll npo rmu satimp simnpo undial wga"
    assert listed == known.split()


CODES = {"nll": 2, "ga": 2, "kl": 2, "npo": 2, "dpo": 2, "simnpo": 1, "wga": 1, "satimp": 1, "undial": 1, "ceu": 1,
         "rmu": 1, "embed_diff": 1, "jsd": 1}


@pytest.mark.parametrize("name", CODES)
def test_a_term_says_whose_code_it_follows(name):
    kind = TERMS[name]
    assert len(kind.codes) == CODES[name] and kind().faithful == "" and kind(faithful=False) == kind()
    for code in kind.codes:
        term = kind(faithful=code)
        assert term.faithful == code and term.unit == "microbatch" and f"faithful={code}" in str(term)
        assert parse_objective(str(term)) == 1.0 * term == parse_objective(f"{name}(faithful='{code}')")
    if len(kind.codes) == 1:
        assert kind(faithful=True) == kind(faithful=kind.codes[0])
    else:
        with pytest.raises(UnlearnError, match=f"{name}: faithful=True doesn't say whose code"):
            kind(faithful=True)
    with pytest.raises(UnlearnError, match="whose code"):
        parse_objective(f"{name}(faithful=nobody)")
