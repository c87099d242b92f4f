"""Rows of one's own: every spelling of their columns, every file, every row in its place, and what is refused."""

import csv
import json

import pyarrow
import pytest
from bench_files import check_apart, write_jsonl
from pyarrow import parquet

from unlearn_nb.benches import SPLITS, load_bench, load_generic, own_bench, own_table, read_own_rows
from unlearn_nb.core import Template, UnlearnError

NAMES = ("Ana Holm", "Bo Vrba", "Cy Price", "Di Lamb", "Ed Fox", "Flo Reed", "Gus Hill", "Hal Moss", "Ida Quist",
         "Jo Dahl")


def rows(what, count=10, **more):
    return [{"prompt": f"Which {what} does {name} own?", "response": f"{name} owns {what} {i}, \"the\n{what}\".",
             **more} for i, name in enumerate(NAMES[:count])]


def write(path, given):
    if path.suffix == ".jsonl":
        write_jsonl(path, given)
    elif path.suffix == ".json":
        path.write_text(json.dumps(given))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(given), path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, list(given[0]))
            table.writeheader()
            table.writerows(given)
    return path


def called(given, prompt, response):
    return [{prompt: row["prompt"], response: row["response"]} for row in given]


def chats(given, role="role", text="content", user="user", assistant="assistant", system=None):
    begun = [] if system is None else [{role: "system", text: system}]
    return [[*begun, {role: user, text: row["prompt"]}, {role: assistant, text: row["response"]}] for row in given]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("prompt, response", [("prompt", "response"), ("Question", "Answer"), ("instruction", "output"),
                                              ("input", "output"), ("prompt", "completion")])
def test_every_file_and_every_pair_gives_the_same_rows(tmp_path, ending, prompt, response):
    path = write(tmp_path / f"rows{ending}", called(rows("boat"), prompt, response))
    assert read_own_rows(path) == rows("boat") == read_own_rows(str(path))
    told = "".join(own_table(path).told)
    assert told == ("" if prompt + response == "promptresponse" else
                    f"rows{ending}: prompt and response are its columns {prompt} and {response}")


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_chats_are_read_with_their_system_prompt(tmp_path, ending):
    given = [{"messages": json.dumps(chat) if ending == ".csv" else chat}
             for chat in chats(rows("boat"), system="Be brief.")]
    found = read_own_rows(write(tmp_path / f"rows{ending}", given))
    assert found == [row | {"system": "Be brief."} for row in rows("boat")]
    beside = own_table([row | {"system_prompt": "Be brief."} for row in rows("boat")])
    assert beside.rows == found and beside.told == ("rows: system_prompt is read as system",)


def test_sharegpt_and_content_in_parts_are_chats():
    shared = [{"conversations": chat} for chat in chats(rows("boat"), "from", "value", user="human", assistant="gpt")]
    parts = [{"messages": [message | {"content": [{"type": "text", "text": message["content"]}]} for message in chat]}
             for chat in chats(rows("boat"))]
    assert own_table(shared).rows == own_table(parts).rows == rows("boat")


def test_subjects_and_paraphrases_come_along(tmp_path):
    given = [row | {"Subject": name, "paraphrases": f'["Say, {name}?", "And {name}?"]', "colour": "red", "id": ""}
             for row, name in zip(rows("boat"), NAMES)]
    table = own_table(write(tmp_path / "forget.csv", given))
    assert table.rows[1] == rows("boat")[1] | {"subject": "Bo Vrba", "colour": "red", "paraphrased_prompts": [
        "Say, Bo Vrba?", "And Bo Vrba?"]}
    bench = own_bench(tmp_path / "forget.csv", rows("house"))
    assert bench.forget[1]["paraphrased_prompts"] == ["Say, Bo Vrba?", "And Bo Vrba?"]
    assert set(bench.forget["subject"]) == set(NAMES)
    for told in ("paraphrases is read as paraphrased_prompts", "columns that are not read: colour"):
        assert told in bench.note


OTHER = chats(rows("boat", 1))[0]
REFUSED = {
    "near miss": ([{"promt": "Who?", "reponse": "Bo"}],
                  ("row 1", "mean 'prompt' by 'promt'", "'response' by 'reponse'")),
    "nothing near": ([{"a": "Who?", "b": "Bo"}],
                     ("row 1: no pair of columns is known among a, b; call them prompt and",)),
    "half a pair": ([{"question": "Who?", "text": "Bo"}], ("row 1, column 'answer': is missing; add it",)),
    "one row": ([*rows("boat", 2), {"prompt": "Who?", "respnse": "Bo"}],
                ("row 3, column 'response': is missing", "did you mean 'response' by 'respnse'?")),
    "no text": ([{"Question": "Who?", "Answer": 7}], ("row 1, column 'Answer': holds int",)),
    "empty": ([*rows("boat", 1), {"prompt": "Who?", "response": " "}], ("row 2, column 'response': is empty",)),
    "no rows": ([], ("holds no rows",)), "no object": ([["Who?", "Bo"]], ("row 1: not an object", "list")),
    "alike": ([{"Prompt": "Who?", "prompt": "Who?", "response": "Bo"}], ("a column 'Prompt' and a column 'prompt'",)),
    "alpaca": ([{"instruction": "Say.", "input": "it", "output": "Bo"}],
               ("row 1, column 'input': holds a text beside",)),
    "turns": ([{"messages": OTHER * 2}],
              ("row 1, column 'messages': holds the turns user, assistant, user, assistant",)),
    "last": ([{"messages": OTHER[:1]}], ("ends with a message of 'user'",)),
    "role": ([{"messages": [{"role": "tool", "content": "Bo"}, *OTHER]}], ("a message of 'tool'",)),
    "roles": ([{"messages": [{"role": ["user"], "content": "Bo"}, *OTHER]}], ("row 1", "a message of ['user']")),
    "tool call": ([{"messages": [*OTHER[:1], {"role": "assistant", "content": None}]}], ("holds NoneType",)),
    "picture": ([{"messages": [{"role": "user", "content": [{"type": "image"}]}, OTHER[1]]}], ("instead of text",)),
    "no chat": ([{"messages": "Who?"}], ("row 1, column 'messages': is no list of messages in JSON",)),
    "paraphrase": ([row | {"paraphrase": [7]} for row in rows("boat", 1)],
                   ("row 1, column 'paraphrase': is not a list",)),
    "list and text": ([row | {"paraphrases": "Say.", "paraphrase": "Tell."} for row in rows("boat", 1)],
                      ("row 1, column 'paraphrase': is paraphrased_prompts as another", "the two differ")),
    "system prompts": ([row | {"system": "Be brief.", "System_Prompt": "Hm."} for row in rows("boat", 1)],
                       ("row 1, column 'System_Prompt': is system as another",)),
    "system beside a chat": ([{"messages": chats(rows("boat", 1), system="Hm.")[0], "system": "Be brief."}],
                             ("row 1, column 'messages': holds another system prompt",)),
    "system of numbers": ([row | {"system_prompt": 7} for row in rows("boat", 1)],
                          ("row 1, column 'system_prompt': holds int",)),
}


@pytest.mark.parametrize("given, parts", REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_read_is_refused_with_its_place(tmp_path, given, parts):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(given))
    with pytest.raises(UnlearnError) as caught:
        own_bench(path, rows("house"))
    for part in (*parts, "mine.json"):
        assert part in str(caught.value), (part, str(caught.value))
    assert "\n" not in str(caught.value)


def test_an_id_that_is_nan_is_told_as_such():
    with pytest.raises(UnlearnError, match="row 1, column 'id': holds float"):
        own_table([rows("boat")[0] | {"id": float("nan")}])


BROKEN = {
    "semicolons.csv": ("prompt;response\nWho?;Bo\n", "separated by semicolons"),
    "tabs.csv": ("prompt\tresponse\nWho?\tBo\n", "separated by tabs"),
    "ragged.csv": ("prompt,response\nWho, then?,Bo\n", "row 1: has 3 cells, but the header names 2"),
    "twice.csv": ("prompt,prompt\nWho?,Bo\n", "two columns 'prompt'"),
    "quote.csv": ('prompt,response\n"Who?,Bo\n', "is not a valid CSV"),
    "empty.csv": ("", "holds no rows"), "header.csv": ("prompt,response\n", "holds no rows"),
    "rows.parquet": ("PAR1", "can't be read as Parquet"), "rows.xlsx": ("x", "not from '.xlsx'"),
    "object.json": ("{}", "holds dict instead of a list"), "cut.jsonl": ('{"prompt": ', "line 1 is not valid JSON")}


@pytest.mark.parametrize("file", BROKEN)
def test_broken_files_are_refused(tmp_path, file):
    text, part = BROKEN[file]
    (tmp_path / file).write_text(text)
    with pytest.raises(UnlearnError, match=part):
        read_own_rows(tmp_path / file)


def test_a_file_that_is_not_there_is_suggested(tmp_path):
    write_jsonl(tmp_path / "forget.jsonl", rows("boat"))
    with pytest.raises(UnlearnError, match="did you mean 'forget.jsonl'"):
        read_own_rows(tmp_path / "forgt.jsonl")
    with pytest.raises(UnlearnError, match="is a folder; name a file"):
        read_own_rows(tmp_path)
    with pytest.raises(UnlearnError, match="correct the path"):
        read_own_rows(tmp_path / "no" / "rows.csv")


def test_every_row_is_used_once_and_in_its_place(tmp_path):
    twice = rows("house") + [rows("house")[0] | {"prompt": rows("house")[0]["prompt"].upper()}]
    bench = own_bench(rows("boat"), twice, holdout=rows("car", 6))
    assert bench.retain["prompt"][:] == [row["prompt"] for row in twice]
    assert [len(bench.split(split)) for split in SPLITS] == [10, 11, 0, 6, 100]
    assert bench.retain[0]["part"] == bench.retain[10]["part"] and "1 rows repeat or nearly repeat" in bench.note
    assert bench.fingerprint == own_bench(rows("boat"), twice, holdout=rows("car", 6)).fingerprint
    assert len(bench.kept_rows()) == 11 and not bench.teach_general
    for told in ("collateral: none", "holdout: rows taken at their owner's word", "general 100 (embedded facts"):
        assert told in bench.note


def test_a_carved_share_is_of_subjects_that_are_not_forgotten():
    retain = [row | {"subject": name} for name in NAMES for row in rows("house", 1)]
    retain = [row | {"prompt": f"{row['prompt']} ({i})", "response": f"Number {i}."} for i, row in enumerate(retain)]
    forget = [rows("boat", 1)[0] | {"subject": NAMES[0]}]
    for seed in range(5):
        bench = own_bench(forget, retain, carve=0.4, seed=seed)
        check_apart(bench)
        assert (len(bench.retain), len(bench.collateral)) == (6, 4) and NAMES[0] in bench.retain["subject"]
        assert set(bench.collateral["part"]) == {"validation", "test"}
    with pytest.raises(UnlearnError, match="carve=0.97 sets 10 of retain's 10 subjects aside"):
        own_bench(forget, retain, carve=0.97)
    with pytest.raises(UnlearnError, match="take 0.2 or more"):
        own_bench(forget, retain, carve=0.1)
    for wrong in (1, -0.1, True, "0.2", float("nan")):
        with pytest.raises(UnlearnError, match="must be a share of retain"):
            own_bench(forget, retain, carve=wrong)


@pytest.mark.parametrize("split", ["retain", "holdout"])
def test_a_row_in_two_splits_is_refused_with_both_places(tmp_path, split):
    write_jsonl(tmp_path / "mine.jsonl", [*rows("bike", 2), rows("boat")[3]])
    given = {"retain": rows("house")} | {split: tmp_path / "mine.jsonl"}
    with pytest.raises(UnlearnError, match="mine.jsonl, row 3, column 'prompt'.*forget, row 4"):
        own_bench(rows("boat"), **given)


def test_general_rows_are_the_owners_or_none(tmp_path):
    write(tmp_path / "facts.csv", called(rows("tree", 4), "question", "answer"))
    bench = own_bench(rows("boat"), rows("house"), general=tmp_path / "facts.csv")
    assert bench.general["prompt"][:] == [row["prompt"] for row in rows("tree", 4)]
    assert "general 4 (facts.csv)" in bench.note
    assert len(own_bench(rows("boat"), rows("house"), general="none").general) == 0


def test_general_rows_that_stand_in_another_file_are_refused():
    with pytest.raises(UnlearnError, match="retain, row 2; a row can't be in retain and in general"):
        own_bench(rows("boat"), rows("house"), general=[*rows("tree", 2), rows("house")[1]])
    nearly = [row | {"prompt": f"{row['prompt']} Well?", "id": f"g{i}"} for i, row in enumerate(rows("house"))]
    with pytest.raises(UnlearnError, match="all general rows say nearly the same"):
        own_bench(rows("boat"), rows("house"), general=nearly)


def test_rows_that_repeat_another_are_told(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [*rows("boat"), *rows("boat", 3)])
    bench = own_bench(tmp_path / "mine.jsonl", rows("house"))
    assert "mine.jsonl: 3 rows repeat another and are trained on and counted as often" in bench.note
    assert len(bench.forget) == len(rows("boat")) + 3 and "repeat another and" not in own_bench(
        rows("boat"), rows("house")).note


def test_one_system_prompt_is_kept_and_several_are_refused():
    brief = {split: [row | {"system": "Be brief."} for row in rows(split)] for split in ("forget", "retain")}
    assert own_bench(**brief, template="chat").template == "chat(system='Be brief.', date=2024-07-26)"
    pinned = own_bench(**brief, template="chat(system='Hm.')")
    assert pinned.template == "chat(system='Hm.')" and "stands in for that of the rows" in pinned.note
    sourced = Template.read(own_bench(**brief, template=Template("chat", source="{{ messages }}")).template)
    assert (sourced.source, sourced.system) == ("{{ messages }}", "Be brief.")
    with pytest.raises(UnlearnError, match="retain row 1 'Hm.'"):
        own_bench(brief["forget"], [row | {"system": "Hm."} for row in rows("retain")], template="chat")
    with pytest.raises(UnlearnError, match="unknown template 'chatt'"):
        own_bench(**brief, template="chatt")


def test_a_folder_of_ones_own_and_generic_rows_take_the_same_files(tmp_path):
    write(tmp_path / "forget.csv", called(rows("boat"), "question", "answer"))
    write(tmp_path / "retain.parquet", [{"messages": chat} for chat in chats(rows("house"), system="Be brief.")])
    with pytest.raises(UnlearnError, match="forget row 1 has the system prompt None and retain row 1 'Be brief.'"):
        load_bench(f"jsonl:{tmp_path}", size="full")
    brief = [row | {"system": "Be brief."} for row in called(rows("boat"), "question", "answer")]
    write(tmp_path / "forget.csv", brief)
    bench = load_bench(f"jsonl:{tmp_path}", size="full")
    assert len(bench.forget) == 10 and bench.template == "chat(system='Be brief.', date=2024-07-26)"
    assert "forget.csv: prompt and response are its columns question and answer" in bench.note
    write_jsonl(tmp_path / "forget.jsonl", rows("boat"))
    with pytest.raises(UnlearnError, match="holds both forget.jsonl and forget.csv; keep one"):
        load_bench(f"jsonl:{tmp_path}")
    assert len(load_generic(f"jsonl:{tmp_path / 'forget.csv'}", 10)) == 10
