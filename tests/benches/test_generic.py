"""Generic rows: right, distinct, deterministic, apart from the benches, and never fewer than asked for."""

import json
import re

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import FEATURES, general_facts, generic_rows, load_generic, tables
from unlearn_nb.core import UnlearnError

ROWS = generic_rows(6500)
NUMBERS = {word: n for n, word in enumerate(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""".split())}
NUMBERS |= {word: 10 * n for n, word in enumerate(
    "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)}


def value(words: str) -> int:
    """Reads a number word back, written independently of the generator."""
    hundreds, _, rest = words.lower().rpartition(" hundred")
    total = 100 * NUMBERS[hundreds] if hundreds else 0
    return total + sum(NUMBERS[part] for part in re.split(r"[ -]", rest.replace(" and ", "").strip()) if part)


def of(family: str) -> list[dict]:
    return [row for row in ROWS if row["subject"] == family]


def test_rows_have_the_columns_of_a_bench():
    assert ROWS.features == FEATURES
    assert set(ROWS["task"]) == {"generic"} and set(ROWS["kind"]) == {"qa"}
    assert len(set(ROWS["id"])) == len(set(ROWS["prompt"])) == len(ROWS)


def test_answers_are_short_english_sentences():
    for row in ROWS:
        assert re.fullmatch(r"[A-Z][A-Za-z ,-]*\.", row["response"]), row
        assert 4 <= len(row["response"].split()) <= 14, row
        assert row["prompt"].endswith("?")


def test_sums_are_right():
    operations = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    rows = of("sums")
    for row in rows:
        x, operation, y = re.fullmatch(r"What is (.+) (plus|minus|times) (.+)\?", row["prompt"]).groups()
        result = re.search(r" (?:makes|leaves|equals) (.+)\.", row["response"])[1]
        assert value(result) == operations[operation](value(x), value(y)), row
    assert len(rows) > 1000


def test_comparisons_counting_letters_and_order_are_right():
    for row in of("comparisons"):
        pair = [value(n) for n in re.fullmatch(r"Which number is larger, (.+) or (.+)\?", row["prompt"]).groups()]
        larger, smaller = re.fullmatch(r"(.+) is larger than (.+)\.", row["response"]).groups()
        assert sorted(pair) == [value(smaller), value(larger)] and value(smaller) < value(larger)
    for row in of("counting"):
        if follows := re.fullmatch(r"After (.+) comes (.+)\.", row["response"]):
            assert value(follows[2]) == value(follows[1]) + 1
        else:
            number, parity = re.fullmatch(r"(.+) is an (even|odd) number\.", row["response"]).groups()
            assert parity == ("odd" if value(number) % 2 else "even")
    for row in of("letters"):
        pair = re.findall(r"\b([A-Z])\b", row["response"])
        assert len(pair) == 2
        assert (pair[0] < pair[1]) if "before" in row["response"] else (ord(pair[0]) - ord(pair[1]) == 1)
    for row in of("order"):
        first, second = re.fullmatch(r"In a dictionary (\w+) comes before (\w+)\.", row["response"]).groups()
        assert first < second and first in row["prompt"] and second in row["prompt"]


def test_spelling_is_right():
    for row in of("spelling"):
        word = re.search(r"word (\w+)", row["prompt"])[1]
        if "How many" in row["prompt"]:
            assert value(re.search(r"has (.+) letters", row["response"])[1]) == len(word)
        else:
            letter = word[0] if "begin" in row["prompt"] else word[-1]
            assert row["response"].endswith(f" {letter.upper()}.")


def test_no_question_is_a_general_fact():
    assert not set(ROWS["prompt"]) & {row["prompt"] for row in general_facts()}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6))
def test_any_count_and_seed(count, seed):
    rows = generic_rows(count, seed)
    assert len(rows) == count == len(set(rows["prompt"]))
    assert rows.to_list() == generic_rows(count, seed).to_list()
    share = [rows["subject"][:].count(family) for family in set(rows["subject"])]
    assert max(share) - min(share) <= 1  # families take turns


def test_too_few_rows_are_an_error_that_counts():
    with pytest.raises(UnlearnError, match=r"holds (\d+) rows, but 50000 are needed") as error:
        load_generic("embedded", 50_000)
    there = int(re.search(r"holds (\d+)", str(error.value))[1])
    assert len(generic_rows(there)) == there
    with pytest.raises(UnlearnError, match="at least one"):
        generic_rows(0)


def test_a_file(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"q{i % 5}", "response": f"a{i}"} for i in range(8)]  # 5 different prompts
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = load_generic(f"jsonl:{file}", 5, seed=3)
    assert {(row["prompt"], row["response"]) for row in rows} == {(f"q{i}", f"a{i}") for i in range(5)}
    with pytest.raises(UnlearnError, match="holds 5 rows, but 6"):
        load_generic(f"jsonl:{file}", 6)
    file.write_text('{"prompt": "q"}\n')
    with pytest.raises(UnlearnError, match=r"rows.jsonl, row 1, column 'response': is missing"):
        load_generic(f"jsonl:{file}", 1)


@pytest.mark.parametrize("spec, message", [
    ("jsonl:/no/such/file", "there is no file /no/such/file"), ("embeded", "did you mean 'embedded'"),
    ("jsonl:", "unknown generic source"), ("", "unknown generic source")])
def test_unknown_sources(spec, message):
    with pytest.raises(UnlearnError, match=message):
        load_generic(spec, 1)


def test_wikiqa_takes_correct_answers_only(monkeypatch):
    data = [{"question": f"q{i}", "answer": f"a{i} {label}", "label": label} for i in range(6) for label in (0, 1)]
    monkeypatch.setattr(tables, "load_dataset", lambda path, split: Dataset.from_list(data))
    rows = load_generic("wikiqa", 6)
    assert {row["response"] for row in rows} == {f"a{i} 1" for i in range(6)}
    with pytest.raises(UnlearnError, match="holds 6 rows, but 7"):
        load_generic("wikiqa", 7)


def test_wikiqa_out_of_reach(monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("no route\nmore lines")
    monkeypatch.setattr(tables, "load_dataset", fail)
    with pytest.raises(UnlearnError, match=r"can't fetch 'wikiqa' from the hub \(no route\); use 'embedded'"):
        load_generic("wikiqa", 1)
