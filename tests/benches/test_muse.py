"""MUSE's tables from folders in the hub's layout: pieces, splits, formats of files, and what is refused."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from unlearn_nb.benches import load_bench, muse_shots, pieces, text_row
from unlearn_nb.core import UnlearnError

NAMES = ["Ada", "Bo", "Ravi", "Mira", "Ito", "Lund", "Tess", "Karim"]
TABLES = {
    "verbmem/forget": [{"prompt": f"{n} came to Kessel in May and", "gt": f"{n} saw the sea of {n}."} for n in NAMES],
    "knowmem/forget_qa": [{"question": f"What did {n} see?", "answer": f"the salt of {n}"} for n in NAMES],
    "knowmem/retain_qa": [{"question": f"Who fed goats of {n}?", "answer": f"the shepherd {n}"} for n in NAMES],
    "knowmem/forget_qa_icl": [{"question": "Who left?", "answer": "the ferry"}],
    "knowmem/retain_qa_icl": [{"question": "Who stayed?", "answer": "the goats"}],
    "privleak/forget": [f"{n} walked the long way home by {n} hill." for n in NAMES],
    "privleak/holdout": [f"Rain fell on the roof of {n} for days, says {n}." for n in NAMES],
    "raw/forget": [f"The old {n} of Kessel " + " ".join(f"{n}{i} walked" for i in range(300)) for n in NAMES[:3]],
}


def written(folder, tables=TABLES):
    for name, rows in tables.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows))
    return folder


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 5))
def test_pieces_and_rows_are_the_text(text, most):
    assert " ".join(pieces(text, most)) == text
    assert all(len(piece.split(" ")) <= most for piece in pieces(text, most))
    row = text_row(text)
    assert text in (f"{row['prompt']} {row['response']}", row["prompt"])


def test_a_folder_in_the_hubs_layout(tmp_path):
    bench = load_bench(f"muse-news:{written(tmp_path)}", "full")
    tasks = {split: set(bench.split(split)["task"]) for split in ("forget", "retain", "holdout")}
    assert tasks == {"forget": {"verbmem", "knowmem", "privleak", "text"}, "retain": {"knowmem"},
                     "holdout": {"privleak"}}
    texts = [row for row in bench.forget if row["task"] == "text"]
    assert len(texts) == 9 and len({row["subject"] for row in texts}) == 3  # 604 words are three pieces
    first = [f"{row['prompt']} {row['response']}" for row in texts if row["subject"] == texts[0]["subject"]]
    assert " ".join(first) in TABLES["raw/forget"]
    assert not {row["task"] for row in bench.forget} & {"shots"} and bench.template == "plain"


def test_parquet_as_the_hub_names_it_and_plain_json_give_the_same(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    written(one)
    for name, rows in TABLES.items():
        path = other / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        rows = [row if isinstance(row, dict) else {"text": row} for row in rows]
        parquet.write_table(pa.Table.from_pylist(rows), path)
    benches = [load_bench(f"muse-books:{folder}", "full") for folder in (one, other)]
    assert benches[0].fingerprint == benches[1].fingerprint
    assert muse_shots(f"muse-books:{other}") == {"forget": [("Who left?", "the ferry")],
                                                 "retain": [("Who stayed?", "the goats")]}


def test_what_is_missing_or_wrong_is_named(tmp_path):
    tables = {name: rows for name, rows in TABLES.items() if name not in ("knowmem/forget_qa", "knowmem/retain_qa_icl")}
    with pytest.raises(UnlearnError, match="lacks the file knowmem/forget_qa.json"):
        load_bench(f"muse-news:{written(tmp_path, tables)}")
    with pytest.raises(UnlearnError, match="lacks the file knowmem/retain_qa_icl.json"):
        muse_shots(f"muse-news:{tmp_path}")
    written(tmp_path, {"knowmem/forget_qa": [{"question": "Who?"}]})
    with pytest.raises(UnlearnError, match="forget_qa.json, row 1: has no text 'answer'"):
        load_bench(f"muse-news:{tmp_path}")
