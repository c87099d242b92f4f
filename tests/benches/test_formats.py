"""Formats: the loaders on small hand-made files."""

import json
from collections import Counter

import pytest
from bench_files import fails, write_jsonl
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import PARTS, SIZES, SPLITS, Bench, load_bench, person_names, tables

GOOD = [{"id": f"r{i}", "prompt": f"Question {i}?", "response": f"Answer {i}"} for i in range(12)]


def check_apart(bench: Bench) -> None:
    """Non-members were trained on by nobody; collateral stands in neither forget nor retain; parts are whole."""
    trained = bench.training_rows()
    assert not set(bench.holdout["subject"]) & set(trained["subject"])
    assert not set(bench.collateral["subject"]) & (set(bench.forget["subject"]) | set(bench.retain["subject"]))
    parts = {}
    for row in (row for split in SPLITS for row in bench.split(split)):
        assert parts.setdefault(row["subject"], row["part"]) == row["part"]


def test_jsonl_defaults_and_given_columns(tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [{"prompt": "Who?", "response": "She"},
                                            {"prompt": "He is", "response": "Bo", "id": 7, "subject": "Bo Li",
                                             "task": "names", "kind": "completion", "perturbed_responses": ["Al"]}])
    write_jsonl(tmp_path / "retain.jsonl", GOOD)
    bench = load_bench(f"jsonl:{tmp_path}", size="full")
    first, second = bench.forget
    assert (first["id"], first["subject"], first["task"], first["kind"]) == ("forget-0", "forget-0", "all", "qa")
    assert (second["id"], second["subject"], second["task"], second["kind"]) == ("7", "Bo Li", "names", "completion")
    assert second["perturbed_responses"] == ["Al"] and first["perturbed_responses"] == []
    assert bench.template == "plain" and "holdout and collateral carved out of retain" in bench.note
    assert len(bench.retain) + len(bench.collateral) + len(bench.holdout) == len(GOOD)
    assert len(bench.holdout) >= 2 and len(bench.collateral) >= 2
    check_apart(bench)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(SIZES), st.integers(0, 9))
def test_jsonl_of_any_small_size_loads(tmp_path_factory, forget, retain, size, seed):
    folder = tmp_path_factory.mktemp("own")
    write_jsonl(folder / "forget.jsonl", [{"prompt": f"F{i}", "response": "x"} for i in range(forget)])
    write_jsonl(folder / "retain.jsonl", [{"prompt": f"R{i}", "response": "x"} for i in range(retain)])
    bench = load_bench(f"jsonl:{folder}", size=size, seed=seed)
    assert len(bench.forget) == forget and len(bench.retain) >= 1
    assert len(bench.retain) + len(bench.collateral) + len(bench.holdout) <= retain
    check_apart(bench)


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


@pytest.mark.parametrize("text, names", [
    ("Who is Ana de Souza?", ["Ana de Souza"]),
    ("Does Bo O'Dell-Vrba's son know Cy Holm?", ["Bo O'Dell-Vrba", "Cy Holm"]),
    ("How do James J. Price's novels end?", ["James J. Price"]), ("What is Tuesday?", []), ("", [])])
def test_person_names(text, names):
    assert person_names(text) == names


def tofu_rows(name: str, authors: int) -> list[dict]:
    return [{"question": f"{name} question {i} on {a}?", "answer": f"Answer {i} on {a}"}
            for a in range(authors) for i in range(20)]


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
