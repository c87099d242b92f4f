"""The cache of a writer survives kills, and asks nothing twice."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.augmentation import CachedWriter
from unlearn_nb.core import UnlearnError


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
