"""Writers: the cache survives kills, models sample reproducibly, servers fail in one sentence."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from chat_server import start
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.augmentation import CachedWriter, EndpointWriter, ModelWriter, load_writer
from unlearn_nb.core import UnlearnError
from unlearn_nb.models import load_model


class Counting:
    """Repeats prompts in scrambled order and counts; fails when `lasts` texts are written."""

    def __init__(self, lasts=10**6, identity="counting"):
        self.identity, self.lasts, self.asked = identity, lasts, []

    def write(self, prompts, attempt=0, on_text=None):
        texts = [f"{prompt} #{attempt}" for prompt in prompts]
        for i in sorted(range(len(prompts)), key=lambda i: hash((i * 7919) % 13)):
            if len(self.asked) >= self.lasts:
                raise ConnectionError("gone")
            self.asked.append((attempt, prompts[i]))
            on_text(i, texts[i])
        return texts


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.text(max_size=3), max_size=8)), max_size=6),
       st.integers(0, 20))
def test_cached_answers_are_the_writers_and_asked_once(tmp_path_factory, calls, lasts):
    path = tmp_path_factory.mktemp("cache") / "answers.db"
    asked = []
    for writer in (Counting(lasts), Counting()):  # the first may die, the second goes on
        cached = CachedWriter(writer, path)
        try:
            for attempt, prompts in calls:
                told = {}
                assert cached.write(prompts, attempt, lambda i, text: told.update({i: text})) == \
                    [f"{prompt} #{attempt}" for prompt in prompts]
                assert told == dict(enumerate(f"{prompt} #{attempt}" for prompt in prompts))
        except ConnectionError:
            assert writer.lasts == lasts == len(writer.asked)
        asked += writer.asked
    assert Counter(asked) == Counter({(attempt, prompt) for attempt, prompts in calls for prompt in prompts})


def test_another_identity_is_another_question(tmp_path):
    first, second = Counting(), Counting(identity="other")
    for writer in (first, second, first):
        CachedWriter(writer, tmp_path / "answers.db").write(["x"])
    assert len(first.asked) == len(second.asked) == 1


KILLED = """
import os, signal, sys
from unlearn_nb.augmentation import CachedWriter
class Slow:
    identity = "slow"
    def write(self, prompts, attempt=0, on_text=None):
        for i, prompt in enumerate(prompts):
            if i == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            on_text(i, prompt.upper(), prompt_tokens=3, completion_tokens=2)
CachedWriter(Slow(), sys.argv[1]).write([f"p{i}" for i in range(9)])
"""


def test_a_killed_process_loses_nothing(tmp_path):
    path = tmp_path / "answers.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=dict(os.environ), capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    writer = Counting(identity="slow")
    cached = CachedWriter(writer, path)
    texts = cached.write([f"p{i}" for i in range(9)])
    assert sorted(prompt for _, prompt in writer.asked) == ["p5", "p6", "p7", "p8"]
    assert texts == [f"P{i}" for i in range(5)] + [f"p{i} #0" for i in range(5, 9)]
    assert cached.usage == {"calls": 4, "from_cache": 5, "prompt_tokens": 15, "completion_tokens": 10, "cost": 0}


def test_a_file_that_is_no_cache(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no database, but long enough to be looked at " * 50)
    with pytest.raises(UnlearnError, match="notes.txt can't be used"):
        CachedWriter(Counting(), file)
    assert file.read_text().startswith("no database")


# ---- models

@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def test_a_text_depends_on_prompt_attempt_and_seed_only(tiny):
    prompts = ["Why?", "What is the capital of a country that nobody has heard of?", "Hello there.", "Why not?"]
    make = lambda **options: ModelWriter(*tiny, "tiny", max_new_tokens=10, **options)
    texts = make(batch_size=4).write(prompts)
    assert make(batch_size=1).write(prompts[::-1])[::-1] == texts == make(batch_size=3).write(prompts)
    assert len(set(texts)) == 4
    assert all(a != b for a, b in zip(texts, make().write(prompts, attempt=1)))
    assert all(a != b for a, b in zip(texts, make(seed=1).write(prompts)))
    greedy = make(temperature=0).write(prompts)
    assert greedy == make(temperature=0, seed=3).write(prompts, attempt=2) != texts


def test_a_text_stops_at_the_end_token(tiny):
    model, tokenizer = tiny
    writer = ModelWriter(model, tokenizer, "tiny", max_new_tokens=300, temperature=1.5, batch_size=4)
    seen = {}
    prompts = [f"Number {i}" for i in range(8)]
    writer.write(prompts, on_text=lambda i, text, **tokens: seen.update({i: tokens["completion_tokens"]}))
    assert set(seen) == set(range(8)) and max(seen.values()) <= 300
    assert min(seen.values()) < 300, "of 8 x 300 tokens of an untrained model with 2,048 one at least ends a text"


def test_identity_changes_with_settings_and_weights(tiny):
    model, tokenizer = load_model("tiny")
    variants = [dict(), dict(seed=1), dict(temperature=0.1), dict(max_new_tokens=5)]
    names = {ModelWriter(model, tokenizer, "tiny", **options).identity for options in variants}
    assert len(names) == 4
    assert ModelWriter(*tiny, "tiny").identity in names  # the same weights, loaded again
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data.mul_(1.01)
    assert ModelWriter(model, tokenizer, "tiny").identity not in names


def test_models_that_cannot_write(tiny):
    model, tokenizer = tiny
    with pytest.raises(UnlearnError, match="do not fit into the 512 of 'tiny'"):
        ModelWriter(model, tokenizer, "tiny").write(["word " * 600])
    _, other = load_model("tiny")
    other.chat_template = None
    with pytest.raises(UnlearnError, match="has no chat template"):
        ModelWriter(model, other, "tiny")
    with pytest.raises(UnlearnError, match="nobody/nothing"):
        load_writer("nobody/nothing")


# ---- servers

@pytest.fixture
def serve():
    servers = []

    def serving(behave=lambda prompt, time: "good"):
        servers.append(start(behave))
        return servers[-1]

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()


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
    server = serve(lambda *_: release.wait(5) and "good")
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
            release.wait(5)
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
    refusing = threading.Event()

    def behave(prompt, time):
        if prompt == PROMPTS[0]:
            return 401
        refusing.wait(0.3)
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


def test_an_endpoint_needs_a_model_name():
    with pytest.raises(UnlearnError, match="names no model; write URL#MODEL"):
        load_writer("http://localhost:8000/v1")


openai_missing = importlib.util.find_spec("openai") is None
if openai_missing:  # an optional package; CI has it
    for name, test in list(globals().items()):
        if name.startswith("test_") and "serve" in getattr(test, "__code__", test).co_varnames:
            globals()[name] = pytest.mark.skip("needs the package openai")(test)
