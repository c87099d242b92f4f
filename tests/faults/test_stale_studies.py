"""Eleven ways to change a finished study's code or data, through the command line: what depends on them is made anew.

One study has a stage for each way, so that three runs show all of them: the first, one without a change, and one after
all changes. Stages that see a comment or a plot change, or nothing, are controls.
"""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from forked import forked_kernels
from small_study import PARAMETERS, write_study

from unlearn_nb.cli import main
from unlearn_nb.core import toy_llama, toy_tokenizer

SETUP = """import functools, json, sys
sys.path.insert(0, {folder!r})
import stale_study_module
from pathlib import Path
from unlearn_nb.benches import load_bench, load_generic
from unlearn_nb.models import model_identity
from unlearn_nb.runs import Run
run, made = Run.open(run_dir), {{}}
def stage(name, value, **inputs):
    def build(folder):
        (folder / "value.json").write_text(json.dumps(value()))
    folder = run.stage(name, build, **inputs)
    made[name] = [json.loads((folder / "value.json").read_text()), folder.name]"""
CODE = {  # a cell, in which N is the number that changes, and what the stage calls
    "a helper": ("def helper(): return N", "lambda: helper()"),
    "a default argument": ("def default(k=N): return k", "lambda: default()"),
    "a partial": ("bound = functools.partial(max, N, 0)", "bound"),
    "a closure": ("def hold(v): return lambda: v\nheld = hold(N)", "held"),
    "a global": ("GLOBAL = N\ndef reads(): return GLOBAL", "lambda: reads()"),
    "a decorator": ("def d(f): return lambda: N * f()\n@d\ndef one(): return 1", "one"),
    "a method": ("class A:\n    def f(self): return N", "lambda: A().f()"),
    "a local module": ("", "stale_study_module.number"),
}
SAME = {
    "a comment": ("def told():\n    # N\n    return 1", "lambda: told()"),
    "a docstring": ("def said():\n    'N'\n    return 1", "lambda: said()"),
    "a plot": ("def plot(): return 'N'\ndef unmoved(): return 1", "lambda: unmoved()"),
}
DATA = {
    "a bench file": "bench = load_bench('jsonl:{folder}')\n"
                    "stage('a bench file', lambda: bench.forget[0]['response'], bench=bench)",
    "a generic file": "texts = load_generic('jsonl:{folder}/generic.jsonl', 1).to_list()\n"
                      "stage('a generic file', lambda: texts[0]['response'], texts=texts)",
    "a model file": "model = Path('{folder}/model')\n"
                    "stage('a model file', lambda: model_identity(model), model=model_identity(model))",
}


def write(folder: Path, number: int) -> Path:
    cells = [SETUP.format(folder=str(folder))]
    for name, (source, call) in (CODE | SAME).items():
        cells += [f"{source.replace('N', str(number))}\nstage({name!r}, {call})".lstrip()]
    cells += [source.format(folder=folder) for source in DATA.values()]
    (folder / "stale_study_module.py").write_text(f"def number():\n    return {number}\n" + "\n" * number)
    return write_study(folder / "stale.ipynb", PARAMETERS, *cells, "run.finish(made)")


def row(name: str, answer: str) -> str:
    return json.dumps({"id": name, "prompt": f"Who is {name}?", "response": answer, "subject": name, "task": "t",
                       "kind": "qa"}) + "\n"


def edited(file: Path, old: bytes, new: bytes) -> None:
    """Another content of the same size and the same time."""
    about, content = file.stat(), file.read_bytes()
    assert old in content and len(old) == len(new)
    file.write_bytes(content.replace(old, new))
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The metrics of three runs, and when each stage's folder was made."""
    folder = tmp_path_factory.mktemp("stale")
    for name in ("forget", "retain", "generic"):
        (folder / f"{name}.jsonl").write_text(row(name, "Ada."))
    for part in (toy_llama(), toy_tokenizer()):
        part.save_pretrained(folder / "model")
    weights, found = folder / "model" / "model.safetensors", []
    for number in (1, 1, 2):
        if number == 2:
            edited(folder / "forget.jsonl", b"Ada.", b"Eve.")
            edited(folder / "generic.jsonl", b"Ada.", b"Eve.")
            last = weights.read_bytes()[-64:]
            edited(weights, last, last[:-1] + bytes([last[-1] ^ 1]))
        study = write(folder, number)
        with forked_kernels(folder / "kernel.txt"):
            done = CliRunner().invoke(main, ["run", str(study), "--out", str(folder / "out"), "--name", "x"])
        assert done.exit_code == 0, done.stderr
        made = json.loads((folder / "out" / "stale" / "x" / "metrics.json").read_text())
        stages = folder / "out" / "stale" / "x" / "stages"
        found.append({name: (value, place, (stages / place / "value.json").stat().st_mtime_ns)
                      for name, (value, place) in made.items()})
    return found


@pytest.mark.parametrize("way", [*CODE, *DATA])
def test_what_is_changed_is_made_anew(runs, way):
    first, again, changed = (run[way] for run in runs)
    assert first == again and first[0] != changed[0] and first[1] != changed[1]


@pytest.mark.parametrize("way", SAME)
def test_a_comment_or_a_plot_makes_nothing_anew(runs, way):
    first, again, changed = (run[way] for run in runs)
    assert first == again == changed
