"""Target and oracle are trained once, and whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from unlearn_nb.models import Recipe, load_model, memorisation, prepare, prepare_one, prepared


def test_prepare_trains_once(tmp_path, smoke_bench, monkeypatch):
    recipe = Recipe(steps=2, batch_size=4)
    first = prepare("tiny", smoke_bench, recipe, cache=tmp_path)
    monkeypatch.setattr(prepared, "memorise_into", lambda *args, **kwargs: pytest.fail("trained again"))
    assert prepare("tiny", smoke_bench, recipe, cache=tmp_path) == first
    with pytest.raises(pytest.fail.Exception):
        prepare("tiny", smoke_bench, Recipe(steps=2, batch_size=4, seed=1), cache=tmp_path)
    files = {file.name for file in first.target.iterdir()}
    assert "model.safetensors" in files and not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)


def test_two_models_of_one_name_have_targets_of_their_own(tmp_path, smoke_bench, untrained):
    model, tokenizer = untrained
    brief, made = Recipe(steps=1, batch_size=2), []
    for place in ("a/m", "b/m", "a/m"):
        if not (tmp_path / place).is_dir():
            model.save_pretrained(tmp_path / place)
            tokenizer.save_pretrained(tmp_path / place)
            model.model.norm.weight.data[0] += 1
        made.append(prepare_one(tmp_path / place, smoke_bench, "oracle", recipe=brief, cache=tmp_path / "cache"))
    assert made[0] == made[2] != made[1]
    untrained[0].save_pretrained(tmp_path / "a" / "m")  # other weights under the same name
    assert prepare_one(tmp_path / "a/m", smoke_bench, "oracle", recipe=brief, cache=tmp_path / "cache") not in made


def test_other_training_code_trains_anew(tmp_path, smoke_bench, untrained, monkeypatch):
    """Of a model in a folder: the base of `tiny` would be trained anew, too, which takes a minute."""
    for part in untrained:
        part.save_pretrained(tmp_path / "m")
    brief = Recipe(steps=1, batch_size=2)
    first = prepare_one(tmp_path / "m", smoke_bench, "oracle", recipe=brief, cache=tmp_path)
    assert prepare_one(tmp_path / "m", smoke_bench, "oracle", recipe=brief, cache=tmp_path) == first
    descend = memorisation.descend
    monkeypatch.setattr(memorisation, "descend", lambda *values, **options: descend(*values, **options))
    assert prepare_one(tmp_path / "m", smoke_bench, "oracle", recipe=brief, cache=tmp_path) != first


def test_killed_training_leaves_no_folder_and_keeps_the_first_model(tmp_path):
    code = (
        "from unlearn_nb.benches import load_bench; from unlearn_nb.models import *\n"
        "bench, recipe = load_bench('biographies', size='smoke'), Recipe(steps=150, batch_size=2)\n"
        f"prepare('tiny', bench, recipe, cache={str(tmp_path)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while not (complete := list(tmp_path.glob("tiny-*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # now inside the oracle's training
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [("target" in path.name) for path in complete] == [True]
    assert all(path.name.startswith(".") for path in tmp_path.glob("*oracle*"))
    load_model(complete[0])
