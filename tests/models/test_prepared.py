"""Target and oracle are trained once, and whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from unlearn_nb.models import Recipe, load_model, memorisation, prepare


def test_prepare_trains_once(tmp_path, smoke_bench, monkeypatch):
    recipe = Recipe(steps=2, batch_size=4)
    first = prepare("tiny", smoke_bench, recipe, cache=tmp_path)
    monkeypatch.setattr(memorisation, "memorise", lambda *args, **kwargs: pytest.fail("trained again"))
    assert prepare("tiny", smoke_bench, recipe, cache=tmp_path) == first
    with pytest.raises(pytest.fail.Exception):
        prepare("tiny", smoke_bench, Recipe(steps=2, batch_size=4, seed=1), cache=tmp_path)
    files = {file.name for file in first.target.iterdir()}
    assert "model.safetensors" in files and not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)


def test_killed_training_leaves_no_folder_and_keeps_the_first_model(tmp_path):
    code = (
        "from unlearn_nb.benches import load_bench; from unlearn_nb.models import *\n"
        "bench, recipe = load_bench('biographies', size='smoke'), Recipe(steps=150, batch_size=2)\n"
        f"prepare('tiny', bench, recipe, cache={str(tmp_path)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (complete := list(tmp_path.glob("tiny-*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # now inside the oracle's training
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [("target" in path.name) for path in complete] == [True]
    assert all(path.name.startswith(".") for path in tmp_path.glob("*oracle*"))
    load_model(complete[0])
