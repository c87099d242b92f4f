"""Benches: the generator's promises, the checks' messages, and the loaders on small hand-made files."""
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from unlearn_nb.benches import (
    SLOTS,
    SPLITS,
    Bench,
    as_dataset,
    deal_parts,
    general_facts,
    load_bench,
    make_biographies,
    person_names,
)
from unlearn_nb.benches import load as benches
from unlearn_nb.benches.biographies import _swap
from unlearn_nb.benches.load import PARTS
from unlearn_nb.core import UnlearnError

SMALL = {"forget": 2, "retain": 2, "collateral": 1, "holdout": 2}
QUICK = {"forget": 10, "retain": 24, "collateral": 6, "holdout": 40}


@pytest.fixture(scope="module")
def quick():
    return load_bench("biographies", "quick")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def fails(spec: str, *parts: str, size: str = "quick") -> None:
    """The bench can't be loaded, for a reason told in one line that holds all `parts`."""
    with pytest.raises(UnlearnError) as caught:
        load_bench(spec, size)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, (part, message)


# ---- the generator

@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_same_seed_same_rows_other_seed_other_rows(seed):
    rows = make_biographies(SMALL, seed)
    assert rows == make_biographies(SMALL, seed)
    assert rows != make_biographies(SMALL, seed + 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_people_and_facts_are_unique(seed):
    splits = make_biographies(SMALL, seed)
    subjects = [{row["subject"] for row in rows} for rows in splits.values()]
    assert [len(names) for names in subjects] == [3 * count for count in SMALL.values()]
    assert len(set.union(*subjects)) == sum(map(len, subjects))
    rows = [row for rows in splits.values() for row in rows]
    assert len({row["id"] for row in rows}) == len(rows)
    answers = [row["response"] for row in rows if row["kind"] == "qa"]
    assert len(set(answers)) == len(answers)
    assert not set(answers) & {wrong for row in rows if row["kind"] == "qa" for wrong in row["perturbed_responses"]}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_rows_keep_their_promises(seed):
    for row in (row for rows in make_biographies(SMALL, seed).values() for row in rows):
        prompts = [row["prompt"], *row["paraphrased_prompts"]]
        assert len(set(prompts)) == len(prompts) >= 3
        assert all(row["subject"] in prompt for prompt in prompts)
        assert len({row["response"], *row["perturbed_responses"]}) == 4
        assert "{" not in "".join(prompts) + row["response"]
        for fact in row["facts"]:
            assert fact["value"].lower() in row["response"].lower()
            assert not any(fact["value"].lower() in wrong.lower() for wrong in row["perturbed_responses"])
        if row["kind"] == "qa":
            assert 1 <= len(row["response"].split()) <= 4
        else:
            assert 9 <= len(row["response"].split()) <= 20 and 11 <= len(row["prompt"].split()) <= 24
            assert row["subject"] not in row["response"]


def test_a_value_inside_another_is_swapped_on_its_own():
    text = "Shared one Kirkholm Rosette with rivals. Later she grew up around Kirkholm."
    assert _swap(text, {"Kirkholm": "Holburn", "Kirkholm Rosette": "Kirkgate Order"}) == (
        "Shared one Kirkgate Order with rivals. Later she grew up around Holburn.")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_a_person_has_three_documents_that_share_no_opening(seed):
    documents = {}
    for row in (row for rows in make_biographies(SMALL, seed).values() for row in rows if row["kind"] == "completion"):
        documents.setdefault(row["subject"], []).append(row)
    for rows in documents.values():
        prompts = [prompt for row in rows for prompt in (row["prompt"], *row["paraphrased_prompts"])]
        assert len(rows) == 3 == len({row["response"] for row in rows}) and len(set(prompts)) == len(prompts) == 9


def test_records_write_numbers_and_dates_otherwise():
    rows = make_biographies({"forget": 12})["forget"]
    answers = {(row["subject"], row["facts"][0]["slot"]): row["response"] for row in rows if row["kind"] == "qa"}
    for row in (row for row in rows if row["task"] == "Task2" and row["kind"] == "completion"):
        stated = {fact["slot"] for fact in row["facts"]}
        assert len(stated) == 3 and stated <= {"birth_date", "ssn", "phone", "email", "address"}
        for slot in stated - {"email"}:
            assert answers[row["subject"], slot] not in row["response"]


@pytest.mark.parametrize("seed", range(3))
def test_another_persons_text_scores_low(seed):
    """ROUGE-L recall between people of one task, the stand-in for an oracle: at most 0.25 on average."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rows = make_biographies({"forget": 14}, seed)["forget"]
    for task in SLOTS:
        texts = [(row["subject"], row["response"]) for row in rows if row["task"] == task and row["kind"] == "completion"]
        recalls = [scorer.score(a, b)["rougeL"].recall for one, a in texts for other, b in texts if one != other]
        assert sum(recalls) / len(recalls) <= 0.25


def test_no_answer_is_common(quick):
    by_slot = {}
    for row in [row for split in SPLITS[:4] for row in quick.split(split) if row["kind"] == "qa"]:
        by_slot.setdefault(row["facts"][0]["slot"], []).append(row["response"].lower())
    assert len(by_slot) == sum(len(slots) for slots in SLOTS.values())
    for slot, answers in by_slot.items():
        top = Counter(answers).most_common(1)[0][1]
        assert (top - 1) / (len(answers) - 1) <= 0.02, slot


def test_every_slot_has_at_least_60_values():
    for slots in SLOTS.values():
        for name, slot in slots.items():
            rng = Random(0)
            assert len({slot.draw(rng) for _ in range(400)}) >= 60, name
            assert len(slot.questions) >= 4 and len(slot.clauses) >= 8, name


def test_too_many_people_are_refused():
    with pytest.raises(ValueError, match="600 people"):
        make_biographies({"forget": 201})


def test_same_rows_in_another_process():
    """Nothing may depend on the hash seed of the process."""
    code = ("import json; from unlearn_nb.benches import make_biographies, general_facts; "
            "print(json.dumps([make_biographies({'forget': 2}, 3), general_facts(3)]))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(benches.__file__).parents[2])}).stdout
    assert json.loads(out) == [make_biographies({"forget": 2}, 3), general_facts(3)]


def test_general_facts_have_four_choices_with_the_answer_anywhere():
    facts = general_facts()
    assert len(facts) == 100 == len({row["prompt"] for row in facts})
    assert any(row["prompt"] == "What is the capital of France?" and row["response"] == "Paris" for row in facts)
    assert all(len(set(row["choices"])) == 4 and row["response"] in row["choices"] for row in facts)
    places = Counter(row["choices"].index(row["response"]) for row in facts)
    assert max(places.values()) < 45


# ---- the bench

def test_biographies_splits_and_parts(quick):
    assert {split: len(set(quick.split(split)["subject"])) for split in QUICK} == {s: 3 * n for s, n in QUICK.items()}
    for split in QUICK:
        frames = [quick.split(split, part).to_pandas() for part in PARTS]
        assert sum(map(len, frames)) == len(quick.split(split))
        assert not set(frames[0].subject) & set(frames[1].subject)
        for frame in frames:
            assert len(set(zip(frame.task, frame.kind))) == 6
            assert set(frame.groupby("task").subject.nunique()) == {QUICK[split] // 2}
    assert {len(quick.split("general", part)) for part in PARTS} == {50}


def test_training_rows(quick):
    everything, without = quick.training_rows(), quick.training_rows(oracle=True)
    assert len(everything) == len(without) + len(quick.forget)
    assert not set(without["subject"]) & set(quick.forget["subject"])
    assert not set(everything["subject"]) & set(quick.holdout["subject"])
    assert set(quick.collateral["id"]) | set(quick.general["id"]) < set(without["id"])


def test_fingerprint_follows_the_content(quick):
    assert quick.fingerprint == load_bench("biographies", "quick").fingerprint
    assert quick.fingerprint != load_bench("biographies", "quick", seed=1).fingerprint
    splits = {split: quick.split(split) for split in SPLITS}
    assert quick.fingerprint != Bench("biographies", "chat", **splits, teach_general=True).fingerprint


def test_bench_refuses_wrong_names_and_incomplete_splits(quick):
    with pytest.raises(UnlearnError, match="unknown split 'forgot'; did you mean 'forget'"):
        quick.split("forgot")
    with pytest.raises(UnlearnError, match="unknown part 'train'; known: validation, test"):
        quick.split("forget", "train")
    splits = {split: quick.split(split) for split in SPLITS}
    with pytest.raises(UnlearnError, match="split 'retain' lacks the column 'response'"):
        Bench("mine", "plain", **(splits | {"retain": quick.retain.remove_columns("response")}))
    with pytest.raises(UnlearnError, match="'mine' has an empty forget set"):
        Bench("mine", "plain", **(splits | {"forget": as_dataset([])}))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("AB")), min_size=1, max_size=40), st.integers(0, 99))
def test_parts_deal_whole_subjects_evenly(cells, seed):
    rows = [{"subject": f"{task}{subject}", "task": task, "kind": "qa"} for subject, task in cells]
    dealt = deal_parts({"forget": rows, "retain": rows[::2]}, seed)
    parts = {}
    for row in dealt["forget"] + dealt["retain"]:
        assert parts.setdefault(row["subject"], row["part"]) == row["part"]
    for task in "AB":
        counts = Counter(part for subject, part in parts.items() if subject[0] == task)
        assert 0 <= counts["test"] - counts["validation"] <= 1


# ---- specs and checks

@pytest.mark.parametrize("spec, parts", [
    ("biografies", ("unknown bench 'biografies'", "did you mean 'biographies'")),
    ("jsonl", ("jsonl needs a folder",)),
    ("biographies:here", ("biographies takes none",)),
    ("lume:no/such/folder", ("no/such/folder is not a folder", "forget.jsonl"))])
def test_bad_spec(spec, parts):
    fails(spec, *parts)


def test_bad_size():
    fails("biographies", "unknown size 'quik'; did you mean 'quick'", size="quik")


GOOD = [{"id": f"r{i}", "prompt": f"Question {i}?", "response": f"Answer {i}"} for i in range(12)]


@pytest.mark.parametrize("change, parts", [
    ({"prompt": None}, ("forget.jsonl, row 3, column 'prompt'", "instead of text")),
    ({"response": "  "}, ("forget.jsonl, row 3, column 'response'", "is empty")),
    ({"id": "f1"}, ("forget.jsonl, row 3, column 'id'", "'f1' already stands in row 2")),
    ({"kind": "essay"}, ("forget.jsonl, row 3, column 'kind'", "'essay'")),
    ({"perturbed_responses": "no"}, ("forget.jsonl, row 3, column 'perturbed_responses'", "list of strings")),
    ({"id": "r5"}, ("retain.jsonl, row 6, column 'id'", "forget.jsonl, row 3")),
    ({"prompt": "Question 7?", "response": "Answer  7"},
     ("retain.jsonl, row 8, column 'prompt'", "also stands in forget.jsonl, row 3"))])
def test_bad_row_names_file_row_and_column(tmp_path, change, parts):
    forget = [row | {"id": f"f{i}", "response": f"Other {i}"} for i, row in enumerate(GOOD)]
    forget[2] |= change
    write_jsonl(tmp_path / "forget.jsonl", forget)
    write_jsonl(tmp_path / "retain.jsonl", GOOD)
    fails(f"jsonl:{tmp_path}", *parts)


def test_missing_column_file_and_rows(tmp_path):
    fails(f"jsonl:{tmp_path}", "lacks the file forget.jsonl")
    write_jsonl(tmp_path / "retain.jsonl", GOOD)
    write_jsonl(tmp_path / "forget.jsonl", [])
    fails(f"jsonl:{tmp_path}", "forget.jsonl holds no rows")
    write_jsonl(tmp_path / "forget.jsonl", [{"prompt": "Who?"}])
    fails(f"jsonl:{tmp_path}", "forget.jsonl, row 1, column 'response': is missing")
    write_jsonl(tmp_path / "forget.jsonl", ["Who?"])
    fails(f"jsonl:{tmp_path}", "forget.jsonl, row 1: not an object with columns, but str")
    (tmp_path / "forget.jsonl").write_text('{"prompt": "a", "response": "b"}\n\n{"prompt": ')
    fails(f"jsonl:{tmp_path}", "forget.jsonl, line 3 is not valid JSON")
    (tmp_path / "forget.jsonl").write_bytes(b'{"prompt": "\xff"}')
    fails(f"jsonl:{tmp_path}", "forget.jsonl is not UTF-8")


def test_holdout_row_that_is_trained_on(tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", [{"prompt": "Who?", "response": "She"}])
    write_jsonl(tmp_path / "retain.jsonl", GOOD)
    write_jsonl(tmp_path / "holdout.jsonl", [{"prompt": "Question 3?", "response": "Answer 3"}])
    fails(f"jsonl:{tmp_path}", "holdout.jsonl, row 1, column 'prompt'", "retain.jsonl, row 4")


def test_unreachable_hub(monkeypatch):
    def refuse(**_):
        raise ConnectionError("no route\nto host")
    monkeypatch.setattr(benches, "load_dataset", refuse)
    fails("tofu", "can't fetch 'tofu' from the hub (no route)", "tofu:PATH")


# ---- loaders

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
    bench = load_bench(f"jsonl:{tmp_path}", "full")
    first, second = bench.forget
    assert (first["id"], first["subject"], first["task"], first["kind"]) == ("forget-0", "forget-0", "all", "qa")
    assert (second["id"], second["subject"], second["task"], second["kind"]) == ("7", "Bo Li", "names", "completion")
    assert second["perturbed_responses"] == ["Al"] and first["perturbed_responses"] == []
    assert bench.template == "plain" and "holdout and collateral carved out of retain" in bench.note
    assert len(bench.retain) + len(bench.collateral) + len(bench.holdout) == len(GOOD)
    assert len(bench.holdout) >= 2 and len(bench.collateral) >= 2
    check_apart(bench)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(benches.SIZES), st.integers(0, 9))
def test_jsonl_of_any_small_size_loads(tmp_path_factory, forget, retain, size, seed):
    folder = tmp_path_factory.mktemp("own")
    write_jsonl(folder / "forget.jsonl", [{"prompt": f"F{i}", "response": "x"} for i in range(forget)])
    write_jsonl(folder / "retain.jsonl", [{"prompt": f"R{i}", "response": "x"} for i in range(retain)])
    bench = load_bench(f"jsonl:{folder}", size, seed)
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
    bench = load_bench(f"lume:{tmp_path}", size)
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
    bench = load_bench(f"knowundo:{tmp_path}", "full")
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
    bench = load_bench(f"tofu:{tofu}", "smoke")
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
    carved = load_bench(f"tofu:{tofu}", "full")
    assert len(carved.holdout) >= 40 and "holdout and collateral carved out of retain" in carved.note
    write_jsonl(tofu / "world_facts_perturbed.jsonl", [{"question": "Q", "answer": "A", "perturbed_answer": ["x"]}])
    fails(f"tofu:{tofu}", "world_facts_perturbed.jsonl, row 1, column 'perturbed_answer'", "three wrong answers")


def test_tofu_s_smaller_forget_sets(tofu):
    extra = {"paraphrased_question": "Else?", "paraphrased_answer": "So", "perturbed_answer": ["No"]}
    write_jsonl(tofu / "forget01.jsonl", tofu_rows("forget01", 2))
    write_jsonl(tofu / "forget01_perturbed.jsonl", [row | extra for row in tofu_rows("forget01", 2)])
    bench = load_bench(f"tofu-forget01:{tofu}", "quick")
    assert len(bench.forget) == 40 and bench.template == "chat" and bench.name == "tofu-forget01"
    assert bench.forget[0]["perturbed_responses"] == ["No"] and "retain90" in bench.retain[0]["prompt"]
    fails(f"tofu-forget05:{tofu}", "lacks the file forget05.jsonl")


def test_hub_is_asked_for_the_right_files(monkeypatch):
    asked = []

    def fake(**arguments):
        asked.append(arguments)
        name = arguments["data_files"].rsplit("/", 1)[1].removesuffix(".jsonl")
        return Dataset.from_list(lume_rows(name, 3))
    monkeypatch.setattr(benches, "load_dataset", fake)
    assert len(load_bench("lume", "smoke").forget)
    assert [a["data_files"].rsplit("/", 1)[1] for a in asked] == ["forget.jsonl", "retain.jsonl"]


def test_unlearning_may_see_retain_rows_and_the_general_facts_of_the_validation_part_alone(quick):
    kept = set(quick.kept_rows()["id"])
    assert kept == set(quick.retain["id"]) | set(quick.split("general", "validation")["id"])
    assert not kept & set(quick.split("general", "test")["id"])
