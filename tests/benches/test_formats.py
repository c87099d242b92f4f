"""Formats: a folder of one's own, whose rows repeat each other, come with parts, or lack what they need."""

import time

import pytest
from bench_files import check_apart, fails, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.benches import PARTS, SIZES, load_bench

GOOD = [{"id": f"r{i}", "prompt": f"Question {i}?", "response": f"Answer {i}"} for i in range(12)]


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


# ---------------------------------------------------------------- what belongs together

PEOPLE = ("Ana Holm", "Bo Vrba", "Cy Price", "Di Lamb", "Ed Fox", "Flo Reed", "Gus Hill", "Hal Moss")
PLACES = ("in Larkmere by the sea", "behind the old mill", "over a bakery", "on a boat", "with two aunts",
          "near a quarry", "under the viaduct", "at the end of Fen Lane")
KEPT = [{"prompt": f"What does {name} paint?", "response": f"{name} paints {place}."}
        for name, place in zip(reversed(PEOPLE), PLACES)]


def own(folder, forget, retain=KEPT, **others):
    folder.mkdir(exist_ok=True)
    for split, rows in {"forget": forget, "retain": retain, **others}.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return f"jsonl:{folder}"


def homes(again=lambda text: text):
    return [{"prompt": again(f"Where has {name} lived for years?"), "response": again(f"{name} has lived {place}.")}
            for name, place in zip(PEOPLE, PLACES)]


AGAIN = {"the same": str, "in capitals": str.upper, "with other blanks": lambda text: "  ".join(text.split()) + " ",
         "with other punctuation": lambda text: text.rstrip("?.") + " – !", "in full width": lambda text: "".join(
             chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text),
         "with invisible letters": lambda text: "\u200b".join(text)}
NEARLY = {"a word more": lambda text: text.replace("lived", "always lived"),
          "another word": lambda text: text.replace("years", "decades"),
          "a word less": lambda text: text.replace(" for", "")}


@pytest.mark.parametrize("again", [*AGAIN.values(), *NEARLY.values()], ids=[*AGAIN, *NEARLY])
def test_what_says_the_same_stands_in_one_part(tmp_path, again):
    bench = load_bench(own(tmp_path, homes() + homes(again)), size="full")
    parts = dict(zip(bench.forget["id"], bench.forget["part"]))
    subjects = dict(zip(bench.forget["id"], bench.forget["subject"]))
    for i in range(len(PEOPLE)):
        assert parts[f"forget-{i}"] == parts[f"forget-{i + len(PEOPLE)}"]
        assert subjects[f"forget-{i}"] == subjects[f"forget-{i + len(PEOPLE)}"]
    assert sorted(parts.values()) == ["test"] * 8 + ["validation"] * 8
    assert "8 rows repeat or nearly repeat another" in bench.note


@pytest.mark.parametrize("again", [*AGAIN.values(), *NEARLY.values()], ids=[*AGAIN, *NEARLY])
def test_a_retained_row_is_no_hold_out_row_in_another_guise(tmp_path, again):
    forget = [{"prompt": "Who sings?", "response": "Ola Berg."}]
    for seed in range(3):
        bench = load_bench(own(tmp_path, forget, homes() + homes(again)), size="full", seed=seed)
        splits = [bench.split(split) for split in ("retain", "collateral", "holdout")]
        told = [{int(row_id.split("-")[1]) % 8 for row_id in rows["id"]} for rows in splits]
        assert told[2] and sum(map(len, told)) == len(set.union(*told))


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
@pytest.mark.parametrize("split", ["retain", "holdout"])
def test_the_same_row_in_two_files_is_refused_with_both_rows(tmp_path, again, split):
    rows = {"retain": KEPT, split: KEPT[:2] + homes(again)[3:4] if split == "retain" else homes(again)[3:4]}
    number = len(rows[split])
    fails(own(tmp_path, homes(), **rows), f"{split}.jsonl, row {number}", "forget.jsonl, row 4", size="full")


@pytest.mark.parametrize("again", NEARLY.values(), ids=NEARLY)
def test_nearly_the_same_row_in_two_files_is_refused_with_both_rows(tmp_path, again):
    fails(own(tmp_path, homes(), KEPT + homes(again)[3:4]), "the retain row 'retain-8'", "the forget row 'forget-3'")
    fails(own(tmp_path, homes(), holdout=homes(again)[3:4]), "the holdout row 'holdout-0'", "the forget row 'forget-3'")


def test_general_facts_that_are_to_be_forgotten_are_no_general_facts(tmp_path):
    fact = next(row for row in load_bench("biographies", size="smoke").general if len(row["prompt"].split()) > 4)
    bench = load_bench(own(tmp_path, homes() + [{c: fact[c].upper() for c in ("prompt", "response")}]), size="full")
    assert len(bench.general) == 99 and fact["prompt"] not in bench.general["prompt"]
    assert "1 general rows that nearly repeat a row of another split are left out" in bench.note


def test_people_who_differ_in_a_number_only_are_not_the_same(tmp_path):
    rows = [{"prompt": f"In which of the many houses by the sea does person {i} live now?",
             "response": f"In the one by the sea that has the number {i}."} for i in range(12)]
    bench = load_bench(own(tmp_path, rows), size="full")
    assert len(set(bench.forget["subject"])) == 12 and "repeat" not in bench.note


# ---------------------------------------------------------------- given parts, subjects and ids

def test_given_parts_are_kept_in_every_size(tmp_path):
    rows = [row | {"part": PARTS[i < 2]} for i, row in enumerate(homes())]
    for size in SIZES:
        bench = load_bench(own(tmp_path, rows), size=size)
        assert bench.forget["part"][:] == ["test"] * 2 + ["validation"] * 6
        assert "parts as given in forget.jsonl" in bench.note
    bench = load_bench(own(tmp_path, rows, [row | {"part": "test"} for row in KEPT]), size="full")
    assert set(bench.retain["part"]) | set(bench.holdout["part"]) | set(bench.collateral["part"]) == {"test"}
    one_sided = load_bench(own(tmp_path, [row | {"part": "test"} for row in homes()]), size="full")
    assert "no forget row stands in validation" in one_sided.note


@pytest.mark.parametrize("change, parts", [
    ({"part": "train"}, ("forget.jsonl, row 3, column 'part'", "'train' is neither")),
    ({"part": None}, ("forget.jsonl, row 3, column 'part'", "give every row one")),
    ({"part": "test", "subject": "Ana"}, ("'forget-0' and 'forget-2' belong together", "give them one")),
    ({"subject": ["Ana"]}, ("forget.jsonl, row 3, column 'subject'", "holds list")),
    ({"id": 2.5}, ("forget.jsonl, row 3, column 'id'", "holds float")),
    ({"task": True}, ("forget.jsonl, row 3, column 'task'", "holds bool")),
    ({"response": ["Bo"]}, ("forget.jsonl, row 3, column 'response'", "holds list")),
    ({"response": 7}, ("forget.jsonl, row 3, column 'response'", "holds int")),
    ({"paraphrased_prompts": ["Bo \udc00"]}, ("row 3, column 'paraphrased_prompts'", "lone surrogate")),
    ({"subject": "\ud83d"}, ("row 3, column 'subject'", "lone surrogate")),
    ({"perturbed_responses": ["Bo", None]}, ("row 3, column 'perturbed_responses'", "list of strings"))])
def test_cells_that_mean_nothing_are_refused_with_their_place(tmp_path, change, parts):
    rows = [row | {"part": "validation", "subject": subject} for row, subject in zip(homes(), ["Ana", *PEOPLE[1:]])]
    rows[2] |= change
    fails(own(tmp_path, rows), *parts)


def test_one_person_in_several_spellings_is_one_subject(tmp_path):
    given = ["Élodie Holm", "E\u0301lodie  Holm", "élodie holm ", "Bo", "ＢＯ", "Elodie Holm", "a-1-11", "a-11-1"]
    bench = load_bench(own(tmp_path, [row | {"subject": name} for row, name in zip(homes(), given)]), size="full")
    assert bench.forget["subject"][:] == [*["Élodie Holm"] * 3, "Bo", "Bo", "Elodie Holm", "a-1-11", "a-11-1"]
    assert len(set(bench.forget["part"][:3])) == len(set(bench.forget["part"][3:5])) == 1


def test_blank_ids_are_none(tmp_path):
    spec = own(tmp_path, [row | {"id": ""} for row in homes()], [row | {"id": " "} for row in KEPT])
    bench = load_bench(spec, size="full")
    assert bench.forget["id"][:] == [f"forget-{i}" for i in range(8)]


def test_a_row_without_a_subject_is_one_by_itself(tmp_path):
    rows = [row | {"subject": given, "id": None, "kind": None, "task": None, "perturbed_responses": None}
            for row, given in zip(homes(), [None, "", " ", None, None, "Ed", "Ed", 7])]
    bench = load_bench(own(tmp_path, rows), size="full")
    assert bench.forget["subject"][:] == [*(f"forget-{i}" for i in range(5)), "Ed", "Ed", "7"]
    assert set(bench.forget["kind"]) == {"qa"} and set(bench.forget["task"]) == {"all"}
    assert len(set(bench.split("forget", "validation")["subject"])) == 3


@pytest.mark.parametrize("change, parts", [
    ({"id": "forget-3"}, ("'forget-3'", "forget row 1", "forget row 4")),
    ({"id": "retain-2"}, ("'retain-2'", "forget row 1", "retain row 3")),
    ({"id": "general007"}, ("'general007'", "forget row 1", "general row 8"))])
def test_a_given_id_that_equals_a_made_up_one_is_refused(tmp_path, change, parts):
    rows = homes()
    rows[0] |= change
    fails(own(tmp_path, rows), *parts)


def test_columns_that_nobody_reads_are_told(tmp_path):
    bench = load_bench(own(tmp_path, [row | {"colour": "red"} for row in homes()]), size="full")
    assert "columns that are not read: colour" in bench.note


def test_thousands_of_rows_take_seconds(tmp_path):
    rows = [{"prompt": f"{a} {b} asks {c}, what?", "response": f"{c} tells {b} of {a}."}
            for a in map(str.lower, PEOPLE) for b in PLACES
            for c in (f"w{x}{y}" for x in "abcdef" for y in "abcdefghij")]
    start = time.process_time()
    bench = load_bench(own(tmp_path, rows), size="full")
    assert len(bench.forget) == 3840 and time.process_time() - start < 20


@pytest.mark.parametrize("column, texts, problem", [
    ("perturbed_responses", ["Bo", ""], "empty text"), ("perturbed_responses", ["\u2060"], "empty text"),
    ("perturbed_responses", ["Bo", "ANSWER\u00a00"], "holds the right answer"),
    ("perturbed_responses", ["Bo", "Cy", "bo "], "a wrong one twice"), ("paraphrased_responses", [" "], "empty text"),
    ("paraphrased_prompts", ["\ufeff"], "empty text")])
def test_lists_of_texts_hold_texts_and_wrong_answers_are_wrong(tmp_path, column, texts, problem):
    row = {"prompt": "Question 0?", "response": "Answer 0"}
    fails(own(tmp_path, [row | {column: texts}]), "forget.jsonl, row 1", f"column '{column}'", problem)


def test_wrong_answers_that_differ_in_punctuation_are_two(tmp_path):
    bench = load_bench(own(tmp_path, [{"prompt": "How cold?", "response": "5", "perturbed_responses": ["-5", ".5"]}]))
    assert bench.forget[0]["perturbed_responses"] == ["-5", ".5"]


def test_a_folder_whose_name_no_system_takes_is_refused():
    fails("jsonl:" + "a" * 5000, "is not a folder")
