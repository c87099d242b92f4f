"""Tables: bad rows are told with their file, row and column."""

import pytest
from bench_files import fails, write_jsonl

from unlearn_nb.benches import tables

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
    monkeypatch.setattr(tables, "load_dataset", refuse)
    fails("tofu", "can't fetch 'tofu' from the hub (no route)", "tofu:PATH")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\u2060\u00ad", "\x00", " \u00a0\t", "\u3164"])
@pytest.mark.parametrize("column", ["prompt", "response"])
def test_text_that_shows_nothing_is_no_text(tmp_path, column, text):
    write_jsonl(tmp_path / "forget.jsonl", [GOOD[0] | {column: text}])
    write_jsonl(tmp_path / "retain.jsonl", GOOD[1:])
    fails(f"jsonl:{tmp_path}", f"forget.jsonl, row 1, column '{column}': is empty")


@pytest.mark.parametrize("line, problem", [
    ('{"prompt": "a?", "response": "b", "response": "c"}', "'response' stands twice"),
    ('{"prompt": "a?", "response": "b", "x": {"y": 1, "y": 1}}', "'y' stands twice"),
    ('{"prompt": "a?", "response": "b", "id": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    ('{"prompt": "a?", "response": "b", "x": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deeply"),
    ("[" * 100_000, "nested too deeply")])
def test_a_line_that_json_reads_in_no_sound_way_is_refused(tmp_path, line, problem):
    (tmp_path / "forget.jsonl").write_text('{"prompt": "q?", "response": "r"}\n' + line)
    write_jsonl(tmp_path / "retain.jsonl", GOOD)
    fails(f"jsonl:{tmp_path}", "forget.jsonl, line 2", problem)
