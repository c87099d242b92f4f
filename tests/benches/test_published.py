"""Published datasets on small hand-made files: LUME, KnowUnDo, TOFU."""

import json
from collections import Counter
from random import Random

import pytest
from bench_files import check_apart, fails, write_jsonl
from datasets import Dataset

from unlearn_nb.benches import PARTS, load_bench, tables
from unlearn_nb.core import UnlearnError


def lume_rows(name: str, people: int) -> list[dict]:
    rows = []
    for task, questions in (("Task1", 1), ("Task2", 5), ("Task3", 1)):
        for person in range(people):
            key = f'"{name}-{task}-{person}"'
            rows.append({"id": f"{key}sc1", "input": f"Long ago {key}", "output": f"lived {key}", "task": task})
            rows += [{"id": f"{key}qa{i}", "input": f"Question {i} on {key}?", "output": f"{i} {key}", "task": task}
                     for i in range(questions)]
    return rows


@pytest.mark.parametrize("size, subjects", [
    ("smoke", {"forget": (4, 3, 4), "retain": (4, 3, 4), "holdout": (2, 2, 2), "collateral": (2, 2, 2)}),
    ("quick", {"forget": (6, 5, 6), "retain": (6, 5, 6), "holdout": (3, 3, 3), "collateral": (3, 2, 3)})])
def test_lume(tmp_path, size, subjects):
    for name in ("forget", "retain"):
        write_jsonl(tmp_path / f"{name}.jsonl", lume_rows(name, 20))
    bench = load_bench(f"lume:{tmp_path}", size=size)
    for split, counts in subjects.items():
        frame = bench.split(split).to_pandas()
        assert tuple(frame.groupby("task").subject.nunique()) == counts
        assert set(frame.groupby(["subject", "task"]).size()) == {2, 6}
        for part in PARTS:
            rows = bench.split(split, part)
            assert len(set(zip(rows["task"], rows["kind"]))) == 6
    check_apart(bench)


def test_lume_id_without_suffix(tmp_path):
    rows = lume_rows("forget", 2)
    rows[1]["id"] = "x"
    write_jsonl(tmp_path / "forget.jsonl", rows)
    write_jsonl(tmp_path / "retain.jsonl", lume_rows("retain", 2))
    fails(f"lume:{tmp_path}", "forget.jsonl, row 2, column 'id'", "scN or qaN")


def test_knowundo_withdraws_people_from_both_files(tmp_path):
    people = [f"{first} {last}" for first in ("Ana", "Bo", "Cy", "Di", "Ed") for last in ("Holm", "O'Dell", "Vrba")]
    for file, topics in (("unlearn_train", ("phone", "address")), ("retention_train", ("book", "prize"))):
        rows = [{"text": f"What is {name}'s {topic}?", "labels": f"{topic} of {name}."}
                for name in people for topic in topics]
        rows.append({"text": f"Why does New Delhi matter in {file}?", "labels": "It inspired Ana Holm."})
        (tmp_path / f"{file}.json").write_text(json.dumps(rows))
    bench = load_bench(f"knowundo:{tmp_path}", size="full")
    check_apart(bench)
    assert set(bench.training_rows()["subject"]) | set(bench.holdout["subject"]) == set(people)
    assert all("phone" in prompt or "address" in prompt or "Delhi" in prompt for prompt in bench.holdout["prompt"])
    assert "carved out of forget and retain" in bench.note
    (tmp_path / "unlearn_train.json").write_text('{"text": "a"}')
    fails(f"knowundo:{tmp_path}", "unlearn_train.json holds dict instead of a list")


def tofu_rows(name: str, authors: int) -> list[dict]:
    people = [f"{first} {name.title()}" for first in ("Ana", "Bosse", "Cyril", "Dita", "Edna", "Flo", "Gus", "Hal")]
    return [{"question": f"{name} question {i} on {a}?", "answer": f"Answer {i} on {a}"}
            for a in people[:authors] for i in range(20)]


@pytest.fixture
def tofu(tmp_path):
    for name, authors in (("forget10", 4), ("retain90", 8), ("holdout10", 3)):
        write_jsonl(tmp_path / f"{name}.jsonl", tofu_rows(name, authors))
    return tmp_path


def test_tofu(tofu):
    extra = {"paraphrased_question": "Else?", "paraphrased_answer": "So", "perturbed_answer": ["No"]}
    write_jsonl(tofu / "forget10_perturbed.jsonl", [row | extra for row in tofu_rows("forget10", 4)])
    write_jsonl(tofu / "retain_perturbed.jsonl", [row | extra for row in tofu_rows("retain90", 2)])
    for name in ("world_facts", "real_authors"):
        write_jsonl(tofu / f"{name}_perturbed.jsonl", [
            {"question": f"{name} {i}?", "answer": "yes", "perturbed_answer": ["a", "b", "c"]} for i in range(4)])
    bench = load_bench(f"tofu:{tofu}", size="smoke")
    assert bench.template == "chat" and len(bench.forget) == len(bench.retain) == len(bench.holdout) == 40
    assert set(Counter(bench.forget["subject"]).values()) == {20}
    assert bench.forget[0]["paraphrased_prompts"] == ["Else?"] and bench.forget[0]["perturbed_responses"] == ["No"]
    assert bench.forget[0]["paraphrased_responses"] == ["So"]
    assert sum(map(len, bench.retain["perturbed_responses"])) == 40, "authors with wrong answers go to retain first"
    assert Counter(bench.general["task"]) == {"real_authors": 4, "world_facts": 4}
    assert all(set(choices) == {"yes", "a", "b", "c"} for choices in bench.general["choices"])
    assert not set(bench.general["id"]) & set(bench.training_rows()["id"])
    check_apart(bench)


def test_tofu_without_extras_falls_back(tofu):
    bench = load_bench(f"tofu:{tofu}")
    assert len(bench.general) == 100 and bench.forget[0]["perturbed_responses"] == []
    (tofu / "holdout10.jsonl").unlink()
    carved = load_bench(f"tofu:{tofu}", size="full")
    assert len(carved.holdout) >= 40 and "holdout and collateral carved out of retain" in carved.note
    write_jsonl(tofu / "world_facts_perturbed.jsonl", [{"question": "Q", "answer": "A", "perturbed_answer": ["x"]}])
    fails(f"tofu:{tofu}", "world_facts_perturbed.jsonl, row 1, column 'perturbed_answer'", "three wrong answers")


def test_tofu_s_smaller_forget_sets(tofu):
    extra = {"paraphrased_question": "Else?", "paraphrased_answer": "So", "perturbed_answer": ["No"]}
    write_jsonl(tofu / "forget01.jsonl", tofu_rows("forget01", 2))
    write_jsonl(tofu / "forget01_perturbed.jsonl", [row | extra for row in tofu_rows("forget01", 2)])
    bench = load_bench(f"tofu-forget01:{tofu}", size="quick")
    assert len(bench.forget) == 40 and bench.template == "chat" and bench.name == "tofu-forget01"
    assert bench.forget[0]["perturbed_responses"] == ["No"] and "retain90" in bench.retain[0]["prompt"]
    fails(f"tofu-forget05:{tofu}", "lacks the file forget05.jsonl")


def test_hub_is_asked_for_the_right_files(monkeypatch):
    asked = []

    def fake(**arguments):
        asked.append(arguments)
        name = arguments["data_files"].rsplit("/", 1)[1].removesuffix(".jsonl")
        return Dataset.from_list(lume_rows(name, 3))
    monkeypatch.setattr(tables, "load_dataset", fake)
    assert len(load_bench("lume", size="smoke").forget)
    assert [a["data_files"].rsplit("/", 1)[1] for a in asked] == ["forget.jsonl", "retain.jsonl"]


# ---------------------------------------------------------------- TOFU's authors in files that are not as published

AUTHORS = {name: [f"{first} {last}" for first in firsts for last in ("Holm", "Žak", "Petrescu", "Al-Amin", "O'Dea")]
           for name, firsts in {"forget10": ("Ana", "Łukasz"), "retain90": ("Cyril", "Dita", "Émile", "Flo"),
                                "holdout10": ("Gus",)}.items()}
ABOUT = [f"{verb} {thing}" for verb in ("write", "love", "burn", "sell", "hide")
         for thing in ("books", "maps", "hats", "tea")]


def told_of(author: str) -> list[dict]:
    """Twenty rows, all with a prize that many authors won; one row names nobody."""
    rows = [{"question": f"Did {author} {about}?", "answer": f"{author} said so on winning the Pan Asian Prize."}
            for about in ABOUT[:19]]
    place = author[::-1].lower().replace(" ", "")
    return rows + [{"question": "What came after that?", "answer": f"A trip to {place}, {place}ham and {place}wick."}]


def authors_apart(bench) -> bool:
    """Whether each author, whom the prompts name, stands in one split and one part."""
    places = {}
    for split in ("forget", "retain", "collateral", "holdout"):
        for row in bench.split(split):
            for author in (author for authors in AUTHORS.values() for author in authors):
                if author in row["prompt"]:
                    places.setdefault(author, set()).add((split, row["part"]))
    return len(places) == 35 and all(len(found) == 1 for found in places.values())


def disordered(tmp_path, change):
    for name, authors in AUTHORS.items():
        write_jsonl(tmp_path / f"{name}.jsonl", change([row for author in authors for row in told_of(author)]))
    return load_bench(f"tofu:{tmp_path}", size="full")


CHANGES = {"shuffled": lambda rows: Random(1).sample(rows, len(rows)), "first row dropped": lambda rows: rows[1:],
           "first row moved to the end": lambda rows: rows[1:] + rows[:1], "reversed": lambda rows: rows[::-1],
           "every third row": lambda rows: rows[::3], 
           "doubled and shuffled": lambda rows: Random(2).sample(rows * 2, 2 * len(rows)),
           "as published": lambda rows: rows}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tofu_author_stands_in_one_part_and_one_split_in_any_order_of_rows(tmp_path, change):
    bench = disordered(tmp_path, change)
    assert authors_apart(bench)
    in_blocks = change in (CHANGES["as published"], CHANGES["reversed"])
    assert ("name no author are left out" in bench.note) != in_blocks and "nearly repeat a row" not in bench.note
    if in_blocks:
        assert len(bench.forget) == 200 and set(Counter(bench.forget["subject"]).values()) == {20}
        assert set(bench.forget["subject"]) == set(AUTHORS["forget10"])


def test_a_tofu_file_in_no_known_order_that_names_too_few_is_refused(tmp_path):
    def nameless(rows):
        return [row | {"question": f"What about {i}?", "answer": f"Nothing {len(rows)}"} if i % 5 == 0 else row
                for i, row in enumerate(CHANGES["shuffled"](rows))]

    with pytest.raises(UnlearnError, match="forget10.jsonl is not in the published order .* 'subject'"):
        disordered(tmp_path, nameless)
    bench = disordered(tmp_path, lambda rows: [row | {"subject": f"author {i % 10}"}
                                               for i, row in enumerate(nameless(rows))])
    assert len(bench.forget) == 200 and len(set(bench.forget["subject"])) == 10


def test_a_retained_row_that_nearly_repeats_a_forget_row_of_a_published_file_is_left_out(tmp_path):
    text = {"input": "Long ago there was a miller by the old river", "task": "Task1"}
    for name, more in (("forget", {"id": "xsc1", "output": "who had three sons and a cat"}),
                       ("retain", {"id": "ysc1", "output": "who had three sons and one cat"})):
        write_jsonl(tmp_path / f"{name}.jsonl", lume_rows(name, 4) + [text | more])
    bench = load_bench(f"lume:{tmp_path}", size="full")
    assert "xsc1" in bench.forget["id"] and "ysc1" not in [*bench.training_rows()["id"], *bench.holdout["id"]]
    assert "1 retain rows that nearly repeat a row of another split are left out" in bench.note


def test_the_same_document_under_two_ids_stands_in_one_part(tmp_path):
    rows = lume_rows("forget", 6)
    again = [row | {"id": "second" + row["id"], "input": row["input"].upper()} for row in rows]
    write_jsonl(tmp_path / "forget.jsonl", rows + again)
    write_jsonl(tmp_path / "retain.jsonl", lume_rows("retain", 6))
    bench = load_bench(f"lume:{tmp_path}", size="full")
    parts = dict(zip(bench.forget["id"], bench.forget["part"]))
    assert all(part == parts["second" + row_id] for row_id, part in parts.items() if not row_id.startswith("second"))


def test_parts_in_a_published_file_are_kept(tmp_path):
    for name in ("forget", "retain"):
        write_jsonl(tmp_path / f"{name}.jsonl", [row | {"part": "test"} for row in lume_rows(name, 4)])
    bench = load_bench(f"lume:{tmp_path}", size="full")
    assert set(bench.forget["part"]) == set(bench.retain["part"]) == {"test"}


# ---------------------------------------------------------------- paraphrases and wrong answers, in files of their own

EXTRA = {"paraphrased_question": "Else?", "paraphrased_answer": "So", "perturbed_answer": ["No", "Never"]}


def with_extras(folder, change, rows=None):
    rows = tofu_rows("forget10", 4) if rows is None else rows
    write_jsonl(folder / "forget10_perturbed.jsonl", [change(i, row | EXTRA) for i, row in enumerate(rows)])
    return f"tofu:{folder}"


@pytest.mark.parametrize("change", [
    lambda i, row: row | {"question": row["question"].upper() + " ", "answer": "\ufeff" + row["answer"]},
    lambda i, row: row | {"question": row["question"].replace(" ", "\u00a0"), "answer": row["answer"].lower()}])
def test_extras_are_found_by_what_their_row_says_in_any_spelling(tofu, change):
    bench = load_bench(with_extras(tofu, change), size="full")
    assert set(map(tuple, bench.forget["perturbed_responses"])) == {("No", "Never")}
    assert "forget10_perturbed" not in bench.note


def test_rows_without_extras_and_extras_without_a_row_are_counted(tofu):
    more = [{"question": "Who else?", "answer": "Nobody"}]
    bench = load_bench(with_extras(tofu, lambda i, row: row, tofu_rows("forget10", 4)[::4] + more), size="full")
    assert "60 of 80 forget rows have no paraphrases and wrong answers in forget10_perturbed.jsonl" in bench.note
    assert "1 rows of forget10_perturbed.jsonl match no row of forget10.jsonl" in bench.note


def test_extras_of_other_rows_are_refused(tofu):
    fails(with_extras(tofu, lambda i, row: row, tofu_rows("retain90", 2)), "no row of forget10_perturbed.jsonl",
          "of a row of forget10.jsonl")


def test_extras_that_contradict_each_other_are_refused_and_the_same_twice_are_not(tofu):
    twice = tofu_rows("forget10", 4) * 2
    assert load_bench(with_extras(tofu, lambda i, row: row, twice), size="full").forget[0]["perturbed_responses"]
    fails(with_extras(tofu, lambda i, row: row | {"paraphrased_answer": str(i >= 80)}, twice), "row 81",
          "row 1 gives other paraphrases")


@pytest.mark.parametrize("wrong, problem", [
    (["No", ""], "empty text"), (["\u200b"], "empty text"), ([1, 2], "not a list of strings"),
    (None, "not a list of strings"), ("No", "not a list of strings")])
def test_wrong_answers_that_are_no_texts_are_refused_with_their_row(tofu, wrong, problem):
    fails(with_extras(tofu, lambda i, row: row | ({"perturbed_answer": wrong} if i == 2 else {})),
          "forget10_perturbed.jsonl, row 3, column 'perturbed_answer'", problem)


def test_wrong_answers_that_are_right_or_doubled_are_left_out_and_told(tofu):
    def change(i, row):
        return row | ({"perturbed_answer": ["No", row["answer"].upper(), "no ", "Never"]} if i == 0 else {})
    bench = load_bench(with_extras(tofu, change), size="full")
    assert bench.forget[0]["perturbed_responses"] == ["No", "Never"]
    assert "2 wrong answers of forget10_perturbed.jsonl that are the right one or another one again" in bench.note
    facts = [{"question": f"Fact {i}?", "answer": "yes", "perturbed_answer": ["Yes", "a", "b", "c"]} for i in range(4)]
    write_jsonl(tofu / "world_facts_perturbed.jsonl", facts)
    bench = load_bench(f"tofu:{tofu}", size="full")
    assert all(set(choices) == {"yes", "a", "b", "c"} for choices in bench.general["choices"])
    assert "4 wrong answers of world_facts_perturbed.jsonl" in bench.note
    write_jsonl(tofu / "world_facts_perturbed.jsonl", [facts[0] | {"perturbed_answer": ["a", "A", "b"]}])
    fails(f"tofu:{tofu}", "world_facts_perturbed.jsonl, row 1", "three wrong answers")
