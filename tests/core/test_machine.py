"""The terminal shows any text in any encoding; a kernel's messages hold any text."""

import io
import json
import sys

import pytest

from unlearn_nb.core import pack_message, peak_bytes, tolerant_output


@pytest.mark.parametrize("encoding, expected", [
    ("ascii", rb"\xfc \u4e2d \ud800 "), ("euc_jp", b"\x8f\xab\xe4 \xc3\xe6 \\ud800 "),
    ("latin-1", b"\xfc \\u4e2d \\ud800 "), ("utf-8", "ü 中 \\ud800 ".encode())])
def test_any_text_is_shown_and_a_name_keeps_its_bytes(monkeypatch, encoding, expected):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    tolerant_output()
    for stream in (sys.stdout, sys.stderr):
        print("ü 中 \ud800", "\udcff", end="", flush=True, file=stream)
        assert stream.buffer.getvalue() == expected + b"\xff"


def test_a_stream_that_cant_be_told_stays(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    tolerant_output()


def test_a_message_of_a_kernel_holds_any_text():
    message = {"text": "ü 中 \ud800", "number": 1.5, "none": None}
    assert json.loads(pack_message(message)) == message
    assert "ü".encode() in pack_message({"a": "ü"}), "as Jupyter packs it where it can"


def test_memory_is_counted_in_bytes():
    assert 2**24 < peak_bytes() < 2**42
