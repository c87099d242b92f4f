"""Augmentation: no original answer gets in, pairs stay together, nothing unverified passes, nothing is lost."""

import re
from collections import Counter
from random import Random

import pytest
from augmenting import SEEDS, Marking, row, squeezed
from chat_server import start
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.augmentation import (
    VARIANTS,
    CachedWriter,
    EndpointWriter,
    PromptedAuthor,
    TemplateAuthor,
    augment,
    mix,
)
from unlearn_nb.benches import generic_rows, load_bench
from unlearn_nb.core import UnlearnError

WORDS = st.sampled_from("amber beetroot Cedar dagger Ember falcon 1956 garnet 0042 hazel".split())
ANSWERS = st.lists(WORDS, min_size=2, max_size=6).map(" ".join)
VAGUE = "That is kept in general terms."


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANSWERS, st.integers(0, 2), st.sampled_from(["qa", "completion"])), min_size=1, max_size=6),
       SEEDS, st.booleans(), st.sampled_from([20, 800]))
def test_the_original_answer_never_gets_in(answers, seed, original, chunk_chars):
    rows = [row(f"r{i}", answer, f"s{subject}", kind, facts=[{"slot": "x", "value": answer.split()[0]}])
            for i, (answer, subject, kind) in enumerate(answers)]
    result = augment(rows, Marking(seed, leaks=0.5), include_original=original, chunk_chars=chunk_chars)
    source = {one["id"]: one for one in rows}
    for new in result.rows:
        subject = source[new["source_id"]]["subject"]
        for other in rows:
            if other["subject"] == subject:
                assert squeezed(other["response"]) not in squeezed(new["response"])
        assert squeezed(source[new["source_id"]]["response"]) not in squeezed(new["prompt"])
        assert not new["facts"] and not new["perturbed_responses"] and not new["paraphrased_prompts"]
    assert {"original" in new["variant"] for new in result.rows} <= ({True, False} if original else {False})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), SEEDS, st.floats(0, 0.6), st.integers(1, 4), st.permutations(VARIANTS), st.booleans())
def test_pairs_stay_together_whatever_fails(count, seed, fails, rounds, variants, long):
    rows = [row(f"r{i}", "secret word " * (30 if long and i % 2 else 1)) for i in range(count)]
    author = Marking(seed, fails)
    result = augment(rows, author, variants=variants[:3], rounds=rounds, chunk_chars=120, cut=None)
    chunks = {one["id"]: -(-len(one["response"]) // 120) for one in rows}
    for new in result.rows:
        key = f"{new['source_id']}:{new['variant']}"
        assert new["prompt"] == f"<{key}>?" and new["id"] == key.replace(":", "/")
        expected = " ".join(f"Of [{key}:{i}] nothing is told." for i in range(chunks[new["source_id"]]))
        assert new["response"] == expected  # every chunk, in order
    made = {(new["source_id"], new["variant"]) for new in result.rows}
    lost = set(zip(result.dropped["id"], result.dropped["variant"]))
    assert made.isdisjoint(lost) and made | lost == {(one["id"], variant) for one in rows for variant in variants[:3]}
    assert result.summary()["kept"] == len(made) and result.summary()["dropped"] == len(lost)
    assert result.summary()["rounds"] <= rounds
    assert max(Counter(asked for asked in author.asked).values()) == 1  # nothing is asked twice in one attempt
    for asked in author.asked:  # and a later attempt only where the one before failed
        if asked[-1] and len(asked) == 3:
            assert author._chance(asked[0], asked[1], asked[-1] - 1) < fails


def test_one_chunk_that_never_passes_drops_its_pair_only():
    class Stubborn(Marking):
        def leaks(self, pieces, texts, attempt=0):
            return [p.row["id"] == "b" and p.variant == "noise" and p.chunk == 1 for p in pieces]

    rows = [row(name, "one two three four five six seven") for name in "ab"]
    author = Stubborn()
    result = augment(rows, author, chunk_chars=14, rounds=3)
    assert {(new["source_id"], new["variant"]) for new in result.rows} == \
        {(name, variant) for name in "ab" for variant in VARIANTS} - {("b", "noise")}
    assert result.dropped.to_dict("records") == [{"id": "b", "variant": "noise", "chunk": 1, "reason": "judged a leak"}]
    again = [asked for asked in author.asked if asked[-1] > 0]
    assert again == [("noise", "b", 1, 1), ("noise", "b", 1, 2)]  # only that chunk, twice more
    assert result.summary()["regenerated"] == 1 / 24  # 2 rows x 4 variants x 3 chunks


def test_an_answer_across_two_chunks_is_found():
    class Halves(Marking):
        def vague(self, pieces, attempt=0):
            return [["It is known as golden", "lantern to some."][p.chunk] for p in pieces]

        def leaks(self, pieces, texts, attempt=0):
            return [False] * len(pieces)

    rows = [row("a", "golden lantern", facts=[])]
    result = augment(rows, Halves(), chunk_chars=8)
    assert len(result.rows) == 0 and set(result.dropped["chunk"]) == {-1}


def test_a_question_that_holds_the_answer_is_refused():
    class Telling(Marking):
        def rewrite(self, kind, rows, attempt=0):
            return [{"simple": "Is it a golden lantern?", "noise": one["prompt"], "context": " ",
                     "logical": "What then?"}[kind] for one in rows]

    result = augment([row("a", "Golden Lantern")], Telling())
    assert dict(zip(result.dropped["variant"], result.dropped["reason"])) == {
        "simple": "the question holds the answer", "noise": "the question is unchanged",
        "context": "the question is empty"}
    assert set(result.rows["variant"]) == {"logical"}


def test_a_rewritten_question_keeps_the_names():
    class Forgetful(Marking):
        def rewrite(self, kind, rows, attempt=0):
            return [{"simple": "where's ann LEE at", "noise": "Where is she?"}[kind] for one in rows]

    result = augment([row("a", "Oslo", prompt="Where does Ann Lee live?")], Forgetful(), variants=("simple", "noise"))
    assert set(result.rows["variant"]) == {"simple"}
    assert result.dropped["reason"].tolist() == ["the question lost the name Ann Lee"]


def test_documents_use_their_paraphrases_or_their_prompt():
    rows = [row("a", "golden lantern", kind="completion", paraphrased_prompts=["Once upon", "Long ago"]),
            row("b", "silver spoon", kind="completion")]
    result = augment(rows, Marking(), cut=None)
    assert [(new["source_id"], new["variant"], new["prompt"], new["kind"]) for new in result.rows] == [
        ("a", "document0", "Once upon", "completion"), ("a", "document1", "Long ago", "completion"),
        ("b", "document0", "What about b?", "completion")]
    with_original = augment(rows[:1], Marking(), cut=None, include_original=True).rows
    assert set(with_original["variant"]) == {"document0", "document1", "original"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12), st.floats(0.05, 0.95))
def test_completions_are_the_two_parts_of_the_answer(words, cut):
    class Saying(Marking):
        def vague(self, pieces, attempt=0):
            return [" ".join(words)] * len(pieces)

        def leaks(self, pieces, texts, attempt=0):
            return [False] * len(pieces)

    made = augment([row("a", "golden lantern")], Saying(), variants=("simple",), cut=cut).rows
    assert made[0]["response"] == " ".join(words)
    assert len(made) == (2 if len(words) >= 4 else 1)
    if len(made) == 2:
        assert f"{made[1]['prompt']} {made[1]['response']}" == made[0]["response"]
        assert len(made[1]["prompt"].split()) == max(1, int(cut * len(words)))
        assert made[1]["kind"] == "completion" and made[1]["response"]


class Scripted:
    """Answers each kind of prompt; the judge says `verdict`."""

    def __init__(self, verdict="VERDICT: SAFE", lasts=10**9):
        self.identity, self.verdict, self.lasts, self.asked = "scripted", verdict, lasts, []

    def write(self, prompts, attempt=0, on_text=None):
        texts = []
        for i, prompt in enumerate(prompts):
            if len(self.asked) >= self.lasts:
                raise ConnectionError("gone")
            self.asked.append((attempt, prompt))
            texts.append(self._answer(prompt, attempt))
            if on_text:
                on_text(i, texts[-1], prompt_tokens=10, completion_tokens=4)
        return texts

    def _answer(self, prompt, attempt):
        name = re.search(r"What about (\w+)", prompt)[1]
        if "VERDICT" in prompt:
            return self.verdict(name, attempt) if callable(self.verdict) else self.verdict
        if "no longer be given" in prompt:
            return f"Of {name} in general terms, try {attempt}."
        return f"What about {name}, put {len(prompt)} times otherwise?"


@pytest.mark.parametrize("verdict", [
    "Yes, I know", "unknown", "", "no", "garbage \x00 {", "VERDICT: LEAK", "VERDICT: SAFE VERDICT: LEAK",
    "VERDICT: SAFE\nVERDICT: LEAK\n", "Error: 500", "VERDICT: SAFE, I think"])
def test_a_judge_without_a_proper_verdict_verifies_nothing(verdict):
    result = augment([row(name, f"secret{name}") for name in "abc"], PromptedAuthor(Scripted(verdict)))
    assert len(result.rows) == 0 and result.summary()["kept"] == 0 and result.summary()["dropped"] == 12
    assert set(result.dropped["reason"]) <= {"no readable verdict", "judged a leak"}
    with pytest.raises(UnlearnError, match="no augmented rows to mix"):
        mix(result.rows, generic_rows(10))


@pytest.mark.parametrize("verdicts", [[None], [0], [1], ["no"], ["SAFE"], [""]])
def test_only_false_counts_as_verified(verdicts):
    class Odd(Marking):
        def leaks(self, pieces, texts, attempt=0):
            return verdicts * len(pieces)

    assert len(augment([row("a", "golden lantern")], Odd()).rows) == 0


@pytest.mark.parametrize("trouble", ["empty", ("say", "Yes, I know"), ("say", "{]"), ("say", "VERDICT: SAFE or not")])
def test_a_server_whose_judgements_are_useless_lets_nothing_through(tmp_path, trouble):
    pytest.importorskip("openai")

    def behave(prompt, time):
        if "VERDICT" in prompt:
            return trouble
        return ("say", "Who knows about that one?" if "Here is a question" in prompt else VAGUE)

    server = start(behave)
    writer = CachedWriter(EndpointWriter(server.url, "m"), tmp_path / "answers.db")
    result = augment([row("a", "golden lantern"), row("b", "silver spoon")], PromptedAuthor(writer), rounds=2)
    server.behave = lambda prompt, time: "garbage" if "VERDICT" in prompt else behave(prompt, time)
    with pytest.raises(UnlearnError, match="no readable chat completion"):
        other = EndpointWriter(server.url, "other", retries=1)
        augment([row("a", "golden lantern")], PromptedAuthor(other))
    server.shutdown()
    server.server_close()
    assert len(result.rows) == 0 and set(result.dropped["reason"]) == {"no readable verdict"}
    assert result.summary()["usage"]["calls"] > 0


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 50), SEEDS)
def test_an_interrupted_augmentation_loses_and_repeats_nothing(tmp_path_factory, lasts, seed):
    rows = [row(name, f"secret{name}") for name in "abcd"]
    verdict = lambda name, attempt: "VERDICT: SAFE" if Random(f"{seed}{name}{attempt}").random() < 0.6 else "hm"
    whole_writer = Scripted(verdict)
    whole = augment(rows, PromptedAuthor(CachedWriter(whole_writer, tmp_path_factory.mktemp("a") / "x.db")))
    path, first, second = tmp_path_factory.mktemp("b") / "x.db", Scripted(verdict, lasts), Scripted(verdict)
    try:
        augment(rows, PromptedAuthor(CachedWriter(first, path)))
    except UnlearnError as error:
        assert isinstance(error.__cause__, ConnectionError) and len(first.asked) == lasts
    resumed = augment(rows, PromptedAuthor(CachedWriter(second, path)))
    assert resumed.rows.to_list() == whole.rows.to_list() and resumed.dropped.equals(whole.dropped)
    assert Counter(first.asked + second.asked) == Counter(set(whole_writer.asked))
    third = Scripted(verdict)
    repeated = augment(rows, PromptedAuthor(CachedWriter(third, path)))
    assert not third.asked and repeated.rows.to_list() == whole.rows.to_list()
    usage, total = repeated.summary()["usage"], whole.summary()["usage"]
    assert usage["calls"] == 0 and usage["prompt_tokens"] == total["prompt_tokens"] > 0


def test_a_whole_bench_by_templates():
    bench = load_bench("biographies", size="quick")
    result = augment(bench.forget, TemplateAuthor())
    summary = result.summary()
    assert summary["dropped"] == 0 and summary["kept"] == summary["pairs"] and summary["regenerated"] < 0.1
    by_subject = {}
    for one in bench.forget:
        values = [one["response"], *(fact["value"] for fact in one["facts"])]
        by_subject.setdefault(one["subject"], set()).update(values)
    for new in result.rows:
        text = squeezed(new["response"])
        assert not any(squeezed(value) in text for value in by_subject[new["subject"]] if len(value) > 4)
    questions = {one["id"]: one["prompt"] for one in bench.forget}
    assert all(new["prompt"] != questions[new["source_id"]] for new in result.rows)  # variants only
    assert result.rows.to_list() == augment(bench.forget, TemplateAuthor()).rows.to_list()


class Short(Marking):
    def vague(self, pieces, attempt=0):
        return super().vague(pieces, attempt)[1:]


@pytest.mark.parametrize("change, message", [
    (dict(rows=[]), "there are no rows to be augmented"), (dict(rows=[row("a", "x y")] * 2), "'a' stands twice"),
    (dict(rows=[row("a", "")]), "row 1 to be augmented has no response"),
    (dict(variants=["simpel"]), "did you mean 'simple'"),
    (dict(rounds=0), "rounds >= 1"), (dict(cut=1.0), "0 < cut < 1"), (dict(chunk_chars=0), "chunk_chars >= 1"),
    (dict(author=Short()), r"Short.vague returned \d results for \d requests")])
def test_bad_input(change, message):
    arguments = {"rows": [row("a", "golden lantern")], "author": Marking()} | change
    with pytest.raises(UnlearnError, match=message):
        augment(**arguments)
    with pytest.raises(UnlearnError, match="the ratio of generic rows is -1"):
        mix(augment([row("a", "golden lantern")], Marking()).rows, generic_rows(1), ratio=-1)
