"""Servers: answers kept as they come, trouble that passes, trouble in one sentence."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from unlearn_nb.augmentation import CachedWriter, EndpointWriter, load_writer
from unlearn_nb.core import UnlearnError

PROMPTS = [f"prompt {i}" for i in range(12)]
REPLIES = [f"re: {prompt}" for prompt in PROMPTS]


def test_good_answers(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_NB_API_KEY", "secret")
    server = serve()
    options = dict(concurrency=3, max_tokens=9, temperature=0.2, seed=5, price_in=2.0, price_out=10.0)
    writer = load_writer(f"{server.url}#mine", cache_path=tmp_path / "answers.db", **options)
    assert writer.write(PROMPTS, attempt=2) == REPLIES
    assert server.most <= 3 and len(server.bodies) == 12
    assert {(b["model"], b["max_tokens"], b["temperature"], b["seed"], b["path"], b["key"]) for b in server.bodies} == \
        {("mine", 9, 0.2, 7, "/v1/chat/completions", "Bearer secret")}
    assert "secret" not in writer.identity
    expected = {"calls": 12, "from_cache": 0, "prompt_tokens": 84, "completion_tokens": 36,
                "cost": pytest.approx((84 * 2 + 36 * 10) / 1e6)}
    assert writer.usage == expected
    again = load_writer(f"{server.url}#mine", cache_path=tmp_path / "answers.db", **options)
    assert again.write(PROMPTS, attempt=2) == REPLIES and len(server.bodies) == 12
    assert again.usage == expected | {"calls": 0, "from_cache": 12}


@pytest.mark.parametrize("trouble", [500, 503, 429, "garbage", "html", "no choices"])
def test_trouble_that_passes(serve, trouble):
    server = serve(lambda prompt, time: trouble if time <= 2 else "good")
    assert EndpointWriter(server.url, "m").write(PROMPTS[:3]) == REPLIES[:3]
    assert set(server.asked.values()) == {3}


@pytest.mark.parametrize("trouble, sentence", [
    (500, "refuses to answer"), (401, "refuses to answer"), (404, "knows no model 'm'"),
    ("garbage", "sent no readable chat completion in 3 tries"), ("html", "sent no readable chat completion"),
    ("no choices", "sent no readable chat completion")])
def test_trouble_that_stays_keeps_what_was_answered(serve, tmp_path, trouble, sentence):
    server = serve(lambda prompt, time: trouble if prompt == PROMPTS[5] else "good")
    writer = CachedWriter(EndpointWriter(server.url, "m", retries=2, concurrency=1), tmp_path / "answers.db")
    with pytest.raises(UnlearnError, match=sentence) as error:
        writer.write(PROMPTS)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    assert writer.usage["calls"] == 5
    server.behave = lambda prompt, time: "good"
    assert writer.write(PROMPTS) == REPLIES
    assert all(server.asked[prompt] == 1 for prompt in PROMPTS if prompt != PROMPTS[5])


def test_empty_text_is_an_empty_answer(serve):
    assert EndpointWriter(serve(lambda *_: "empty").url, "m").write(["x"]) == [""]


def test_a_slow_server(serve):
    release = threading.Event()
    server = serve(lambda *_: release.wait(60) and "good")
    with pytest.raises(UnlearnError, match="did not answer within 0.2 s"):
        EndpointWriter(server.url, "m", retries=0, timeout=0.2).write(["x"])
    release.set()


def test_a_server_that_is_down(serve):
    server = serve()
    server.shutdown()
    server.server_close()
    with pytest.raises(UnlearnError, match="can't be reached") as error:
        EndpointWriter(server.url, "m", retries=0).write(["x"])
    assert server.url in str(error.value)


def test_inside_a_running_event_loop(serve):
    server = serve()

    async def cell():
        return EndpointWriter(server.url, "m").write(PROMPTS)

    assert asyncio.run(cell()) == REPLIES


def test_an_interrupt_stops_the_requests(serve, tmp_path):
    """Ctrl-C while requests run: the call ends soon, nothing more is asked, what came is kept."""
    release = threading.Event()

    def behave(prompt, time):
        if prompt == PROMPTS[3]:
            os.kill(os.getpid(), signal.SIGINT)
            release.wait(60)
        return "good"

    server = serve(behave)
    writer = CachedWriter(EndpointWriter(server.url, "m", concurrency=1), tmp_path / "answers.db")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            writer.write(PROMPTS)
    finally:
        signal.signal(signal.SIGINT, before)
    release.set()
    assert len(server.asked) == 4 and writer.usage["calls"] == 3


def test_an_interrupt_ends_the_pauses(serve):
    """Ctrl-C while a request waits for its next try: it is not made."""
    server = serve(lambda prompt, time: os.kill(os.getpid(), signal.SIGINT) or 503)
    server.pause = 300  # ms
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            EndpointWriter(server.url, "m").write(["x"])
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.6)
    assert server.asked == {"x": 1}


def test_an_error_keeps_what_is_under_way(serve, tmp_path):
    all_here = threading.Barrier(3)

    def behave(prompt, time):
        all_here.wait(30)
        if prompt == PROMPTS[0]:
            return 401
        threading.Event().wait(2)  # until the refusal has been read
        return "good"

    writer = CachedWriter(EndpointWriter(serve(behave).url, "m", concurrency=3), tmp_path / "answers.db")
    with pytest.raises(UnlearnError, match="refuses to answer"):
        writer.write(PROMPTS)
    assert writer.usage["calls"] == 2


def test_a_server_that_wants_too_long_a_pause_is_not_asked_again(serve):
    server = serve(lambda prompt, time: 429)
    server.pause = 10**7
    with pytest.raises(UnlearnError, match="refuses to answer"):
        EndpointWriter(server.url, "m").write(["x"])
    assert server.asked == {"x": 1}


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UnlearnError, match="pip install openai"):
        EndpointWriter("http://localhost:1/v1", "m")


def test_the_library_does_not_import_openai_at_start():
    code = "import sys; from unlearn_nb.augmentation import EndpointWriter; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0
