"""Floods, endless templates and texts that make a pattern go back and forth: bounded, with a sentence."""

import time
from types import SimpleNamespace

import pytest
from nbclient.exceptions import CellControlSignal
from nbformat.v4 import new_code_cell, new_notebook
from small_study import write_study

from unlearn_nb.augmentation.leaks import identifiers, plain_words
from unlearn_nb.benches.twins import _NUMBER
from unlearn_nb.core import Kept, UnlearnError, frame_of, toy_tokenizer
from unlearn_nb.models import tiny_tokenizer
from unlearn_nb.runs import RunFailed, kernel, run_study


@pytest.fixture
def client():
    made = kernel._Client(SimpleNamespace(nb=new_notebook(cells=[new_code_cell("")]), autosave_cell=lambda: None))
    made.record_timing = False
    made.clear_before_next_output, made._streams, made._first = False, kernel._Streams(), None
    return made


def tell(client, kind: str, number: int = 1, **content):
    header = {"msg_type": kind, "msg_id": f"kernel_1_{number}"}
    message = {"msg_type": kind, "content": content, "header": header, "parent_header": {"msg_id": "1"}}
    return client.process_message(message, client.nb.cells[0], 0)


def stored(client) -> list:
    client._streams.settle()
    return client.nb.cells[0].outputs


def test_a_flood_of_prints_is_cut_in_the_middle(client):
    echoed = 0
    for i in range(30):
        echoed += len(tell(client, "stream", name="stdout", text=f"{i} " + "x" * 100_000 + "\n").text)
    (output,) = stored(client)
    assert len(output.text) < 2_100_000 and "characters are left out here" in output.text
    assert output.text.startswith("0 x") and "29 xxx" in output.text and echoed < 101_000


def test_a_bar_of_progress_is_one_line(client):
    for i in range(2000):
        tell(client, "stream", name="stderr", text=f"\r{i} of 2000")
    assert stored(client)[0].text == "1999 of 2000"


def test_a_huge_picture_and_a_huge_error_are_said(client):
    tell(client, "display_data", data={"image/png": "A" * 9_000_000, "text/plain": "<Figure>"}, metadata={})
    tell(client, "error", ename="KeyError", evalue="x" * 10**6, traceback=["y" * 10**6])
    picture, error = stored(client)
    assert list(picture.data) == ["text/plain"] and "image/png of 9000000 characters" in picture.data["text/plain"]
    assert len(error.evalue) < 11_000 and len("".join(error.traceback)) < 11_000


def test_too_many_outputs_are_counted(client):
    for i in range(kernel.OUTPUTS_MOST + 10):
        tell(client, "display_data", data={"text/plain": str(i)}, metadata={})
    assert len(stored(client)) == kernel.OUTPUTS_MOST + 1
    assert stored(client)[-1].text.count("an output is left out here") == 10


def test_a_lost_message_is_noticed(client):
    tell(client, "status", number=10, execution_state="busy")
    tell(client, "stream", number=11, name="stdout", text="one")
    with pytest.raises(CellControlSignal):
        tell(client, "status", number=400, execution_state="idle")
    assert client._missing


def test_a_cell_that_runs_too_long_is_stopped(tmp_path):
    study = write_study(tmp_path / "slow.ipynb", 'run_dir = ""', "import time\ntime.sleep(600)")
    with pytest.raises(RunFailed, match="code cell 2.*2 seconds that --cell-timeout"):
        run_study(study, out=tmp_path / "reports", progress=False, cell_timeout=2)


@pytest.mark.parametrize("source", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='ab') %}" + "{% set y = n.x ~ n.x %}{% set n.x = y ~ y %}" * 15,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
])
def test_a_chat_template_without_end_is_refused(source):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = source
    with pytest.raises(UnlearnError, match="chat template"):
        frame_of(tokenizer, "chat")


def test_a_chat_template_of_hundreds_of_pages_is_refused():
    tokenizer = tiny_tokenizer()
    frame_of(tokenizer, "chat")
    tokenizer.chat_template += "{# " + "x" * 200_000 + " #}"
    with pytest.raises(UnlearnError, match="chat template .*characters"):
        frame_of(tokenizer, "chat")


@pytest.mark.parametrize("read", [lambda text: list(_NUMBER.finditer(text)), identifiers, plain_words],
                         ids=["numbers", "identifiers", "accents"])
@pytest.mark.parametrize("text", ["a" * 30_000, "a" + "\u0301" * 30_000, "a-" * 15_000, "_" * 30_000])
def test_patterns_take_time_in_proportion_to_the_text(read, text):
    """Of a quadratic pattern these would take minutes."""
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 5


def test_kept_bounds_a_line_without_an_end():
    kept = Kept(1000)
    for _ in range(100):
        kept.add("x" * 1000)
    assert len(kept.text) < 3000
