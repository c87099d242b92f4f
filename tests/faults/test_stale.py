"""A stage is reused only while everything is as it was that its result depends on; what can't be seen is said."""

import importlib
import importlib.metadata
import itertools
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from unlearn_nb.augmentation import load_prompts
from unlearn_nb.benches import load_bench, load_generic
from unlearn_nb.core import MODELLING, code_key, content_hash, read_code
from unlearn_nb.models import Adapter, Recipe, load, model_identity, origin, tiny, training_key
from unlearn_nb.models.memorisation import Recipe as _Recipe
from unlearn_nb.runs import Run
from unlearn_nb.runs.keys import modules_key, path_key
from unlearn_nb.runs.report import facts_html

numbers = itertools.count()


def cell(*sources: str) -> dict:
    """The space of a notebook whose cells were run."""
    space = {"__name__": "__main__"}
    for source in sources:
        exec(source, space)
    return space


CALLS = "def build(folder): (folder / 'x').write_text(str(a()))"
WAYS = {  # what is changed: cells before and after, and the rest of the notebook
    "a helper": ("def a(): return 1", "def a(): return 2", CALLS),
    "a helper's helper": ("def b(): return 1", "def b(): return 2", "def a(): return b()\n" + CALLS),
    "a default argument": ("def a(k=1): return k", "def a(k=2): return k", CALLS),
    "a bound argument": ("import functools\na = functools.partial(max, 1, 0)",
                         "import functools\na = functools.partial(max, 2, 0)", CALLS),
    "a closure": ("def hold(v): return lambda: v\na = hold(1)", "def hold(v): return lambda: v\na = hold(2)", CALLS),
    "a global": ("N = 1", "N = 2", "def a(): return N\n" + CALLS),
    "a decorator": ("def d(f): return lambda: 1 * f()", "def d(f): return lambda: 2 * f()",
                    "@d\ndef a(): return 1\n" + CALLS),
    "a method": ("class A:\n    def f(self): return 1", "class A:\n    def f(self): return 2",
                 "def a(): return A().f()\n" + CALLS),
    "a lambda in a container": ("F = {'a': [lambda: 1]}", "F = {'a': [lambda: 2]}",
                                "def a(): return F['a'][0]()\n" + CALLS),
    "under torch.no_grad()": ("import torch\n@torch.no_grad()\ndef a(): return 1",
                              "import torch\n@torch.no_grad()\ndef a(): return 2", CALLS),
    "under contextmanager": ("import contextlib\n@contextlib.contextmanager\ndef b(): yield 1",
                             "import contextlib\n@contextlib.contextmanager\ndef b(): yield 2",
                             "def a():\n    with b() as x: return x\n" + CALLS),
    "under singledispatch": ("import functools\n@functools.singledispatch\ndef b(x): return 1",
                             "import functools\n@functools.singledispatch\ndef b(x): return 2",
                             "def a(): return b(0)\n" + CALLS),
    "what a decorator that is a class holds": (
        "N = 1", "N = 2", "import functools\nclass D:\n    def __init__(self, f, n):\n"
        "        functools.update_wrapper(self, f); self.n = n\n    def __call__(self): return self.n\n"
        "a = D(len, N)\n" + CALLS),
    "a metaclass": ("class M(type):\n    def f(c): return 1", "class M(type):\n    def f(c): return 2",
                    "class A(metaclass=M): pass\ndef a(): return A.f()\n" + CALLS),
    "a method of a pattern": ("import re\nm = re.compile('a').findall", "import re\nm = re.compile('b').findall",
                              "def a(): return m('ab')\n" + CALLS),
    "more than a dict": ("class D(dict): pass\no = D(); o.x = 1", "class D(dict): pass\no = D(); o.x = 2",
                         "def a(): return o.x\n" + CALLS),
    "a field beside one called identity": (
        "N = 1", "N = 2", "from dataclasses import dataclass\n@dataclass\nclass A:\n    identity: str\n    _x: int\n"
        "o = A('o', N)\ndef a(): return o._x\n" + CALLS),
}


@pytest.mark.parametrize("before, after, rest", WAYS.values(), ids=WAYS)
def test_a_change_of_a_studys_code_builds_the_stage_anew(tmp_path, before, after, rest):
    run, found = Run.open(tmp_path), []
    for source in (before, before, after):
        folder = run.stage("s", cell(source, rest)["build"])
        found.append((folder, (folder / "x").read_text()))
    assert found[0] == found[1]
    assert found[2][0] != found[0][0] and found[2][1] != found[0][1]


FILES = {  # a module beside the notebook, one that it imports, and how the notebook reaches it
    "imported on top": ("from {deep} import g\ndef f(): return g()", "import {near}\ndef build(): return {near}.f()"),
    "imported inside": ("import {deep}\ndef f(): return {deep}.g()",
                        "def build():\n    import {near}\n    return {near}.f()"),
    "each inside": ("def f():\n    import {deep}\n    return {deep}.g()",
                    "def build():\n    from {near} import f\n    return f()"),
    "data of a module": ("from {deep} import g\nN = g()\ndel g", "import {near}\ndef build(): return {near}.N"),
}


def near_key(folder: Path, near: str, notebook: str, deep: str) -> tuple[str, object]:
    """Key and result of a notebook's build, with a module `near` that imports the module `deep`."""
    names = dict.fromkeys(("near", "deep"))
    number = next(numbers)
    for name in names:
        names[name] = f"{name}_{folder.name.replace('-', '_')}"
        sys.modules.pop(names[name], None)
    (folder / f"{names['near']}.py").write_text(near.format(**names))
    (folder / f"{names['deep']}.py").write_text(deep + "\n" * number)  # another size: Python's own cache looks at it
    importlib.invalidate_caches()
    build = cell(notebook.format(**names))["build"]
    return code_key(build), build()


@pytest.mark.parametrize("near, notebook", FILES.values(), ids=FILES)
def test_a_change_of_a_module_of_a_local_module_is_seen_and_a_comment_is_not(tmp_path, monkeypatch, near, notebook):
    monkeypatch.syspath_prepend(tmp_path)
    one = near_key(tmp_path, near, notebook, "def g(): return 1")
    comment = near_key(tmp_path, "# why\n" + near, notebook, "def g():\n    'What.'\n    return 1  # why")
    two = near_key(tmp_path, near, notebook, "def g(): return 2")
    assert one == comment and one[0] != two[0] and one[1] != two[1]


def test_a_relative_import_inside_a_function_is_followed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for value in (1, 2):
        for name in [name for name in sys.modules if name.partition(".")[0] == "stale_package"]:
            del sys.modules[name]
        folder = tmp_path / "stale_package"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        (folder / "one.py").write_text("def f():\n    from .two import g\n    return g()")
        (folder / "two.py").write_text(f"def g(): return {value}" + "\n" * value)
        importlib.invalidate_caches()
        keys.append(code_key(cell("from stale_package.one import f\ndef build(): return f()")["build"]))
    assert keys[0] != keys[1]


def spoil(path: Path) -> None:
    """Another content of the same size and the same time."""
    about, content = path.stat(), bytearray(path.read_bytes())
    place = max(content.find(b"Ada"), content.rfind(b"a")) if path.suffix == ".txt" else content.find(b"Ada")
    place = place if place >= 0 else len(content) - 2
    content[place] ^= 3
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)


def rows_file(path: Path, name: str) -> Path:
    row = {"prompt": f"Who is {name}?", "response": "Ada.", "subject": name, "task": "t", "kind": "qa", "id": name}
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("read", ["input", "global", "bench", "generic", "prompts"])
def test_an_edited_file_of_the_same_size_and_time_is_seen(tmp_path, read):
    files = [rows_file(tmp_path / f"{name}.jsonl", name) for name in ("forget", "retain")]

    def prompts() -> str:
        return content_hash(load_prompts(tmp_path))

    if read == "prompts":
        from unlearn_nb.augmentation import load as package
        folder = Path(package.__file__).parent / "prompts"
        files = [tmp_path / file.name for file in sorted(folder.glob("*.txt"))]
        for file in files:
            file.write_bytes((folder / file.name).read_bytes())
    key = {"input": lambda: path_key(files[0]), "global": lambda: code_key(partial(open, files[0])),
           "bench": lambda: load_bench(f"jsonl:{tmp_path}").identity, "prompts": prompts,
           "generic": lambda: load_generic(f"jsonl:{files[0]}", 1).to_list()}[read]
    before = key()
    assert key() == before
    spoil(files[0])
    assert key() != before


def test_an_edited_model_of_the_same_size_and_time_is_another(tmp_path, untrained):
    for part in untrained:
        part.save_pretrained(tmp_path)
    before = model_identity(tmp_path)
    spoil(tmp_path / "model.safetensors")
    assert model_identity(tmp_path) != before


def test_a_converted_model_is_kept_under_the_content_of_its_file(tmp_path, monkeypatch):
    file, made = tmp_path / "m.gguf", []
    file.write_bytes(b"weights")
    monkeypatch.setattr(load, "smollm2_package", lambda: file)
    monkeypatch.setattr(load, "build_folder", lambda folder, build: made.append(folder) or folder)
    load._smollm2(), load._smollm2()
    spoil(file)
    load._smollm2()
    assert made[0] == made[1] != made[2]


ROWS = [{"prompt": "Who?", "response": "Ada."}]


@pytest.mark.parametrize("package", MODELLING)
def test_another_version_of_a_library_makes_another_model_and_another_stage(tmp_path, monkeypatch, package):
    def keys() -> list:
        return [training_key("org/m", ROWS, recipe=Recipe(steps=1)), Run.open(tmp_path).stage("s", Path.touch).name]

    monkeypatch.setattr(origin, "hub_commit", lambda *name: "1" * 40)
    before, version = keys(), importlib.metadata.version
    assert keys() == before
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9" if name == package else version(name))
    assert not set(keys()) & set(before)


def test_a_method_of_the_recipe_is_code_of_a_training(monkeypatch):
    monkeypatch.setattr(origin, "hub_commit", lambda *name: "1" * 40)
    before = training_key("org/m", ROWS, recipe=Recipe(steps=1))
    monkeypatch.setattr(_Recipe, "rates", lambda self, n_rows: [0.0])
    assert training_key("org/m", ROWS, recipe=Recipe(steps=1)) != before


def test_the_tokeniser_of_tiny_follows_the_code_that_trains_it(monkeypatch):
    made = []
    monkeypatch.setattr(tiny, "build_folder", lambda folder, build: made.append(folder.name))
    monkeypatch.setattr(tiny.AutoTokenizer, "from_pretrained", lambda *folder, **options: None)
    monkeypatch.setattr(tiny, "load_bench", lambda *name, **options: load_bench("biographies", "smoke"))
    tiny.tiny_tokenizer(), tiny.tiny_tokenizer()
    monkeypatch.setattr(tiny, "train_tokenizer", lambda texts, size: None)
    tiny.tiny_tokenizer()
    assert made[0] == made[1] != made[2]


def test_an_adapter_of_the_hub_follows_the_commit_of_its_base(tmp_path, monkeypatch):
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": "org/base", "revision": "v1"}))
    commits = {("org/adapter", None): "1" * 40, ("org/base", "v1"): "2" * 40}
    monkeypatch.setattr(origin, "hub_commit", lambda name, revision=None: commits[name, revision])
    monkeypatch.setattr(origin, "try_to_load_from_cache",
                        lambda name, file, revision=None: str(config) if name == "org/adapter" else None)
    before = model_identity("org/adapter")
    commits["org/base", "v1"] = "3" * 40
    assert model_identity("org/adapter") != before


def test_an_adapter_is_more_than_its_tensors():
    import torch

    one, two = (Adapter({"lora_alpha": alpha}, {"w": torch.zeros(2)}) for alpha in (1, 2))
    assert one.fingerprint == two.fingerprint and one.identity != two.identity


def test_a_setting_of_torch_counts():
    import torch

    before = code_key(spoil)
    torch.set_float32_matmul_precision("high")
    try:
        assert code_key(spoil) != before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert code_key(spoil) == before


UNSEEN = {
    "exec": ("def build(folder): exec('x = 1')", "build calls exec"),
    "a helper that evaluates": ("def a(): return eval('1')\ndef build(folder): a()", "a calls eval"),
    "a module by its name": ("import importlib\ndef build(folder): importlib.import_module('json')",
                             "build calls import_module"),
    "another program": ("import subprocess\ndef build(folder): subprocess.run(['true'])", "build calls run"),
    "a lock": ("import threading\nlock = threading.Lock()\ndef build(folder): lock.acquire(False)",
               "build holds a lock, which can't be taken apart"),
    "a module that is not there": ("def build(folder):\n    if folder is None: import no_such_module",
                                   "build imports no_such_module, which can't be imported here"),
}


@pytest.mark.parametrize("source, said", UNSEEN.values(), ids=UNSEEN)
def test_a_stage_whose_code_cannot_be_seen_is_reused_with_a_remark(tmp_path, capsys, source, said):
    run = Run.open(tmp_path)
    for _ in "ab":
        folder = run.stage("s", cell(source)["build"])
    assert f"stage s: reused, code not checked ({said})" in capsys.readouterr().err
    assert json.loads((folder / ".stage.json").read_text())["unchecked"] == said
    run.finish({})
    facts = json.loads((tmp_path / ".finished.json").read_text())
    assert facts["unchecked_stages"] == {"s": said}
    assert "code not checked: s (" in facts_html({}, {"started": "", "seconds": 1, "device": "cpu"} | facts)


SAME = {  # what changes nothing
    "a comment": ("def a():\n    return 1", "def a():\n    # why\n\n    return 1", CALLS),
    "a docstring": ("def a():\n    return 1", "def a():\n    'What.'\n    return 1", CALLS),
    "an inner docstring": ("def a():\n    def b():\n        'That.'\n        return 1\n    return b()",
                           "def a():\n    def b():\n        'What.'\n        return 1\n    return b()", CALLS),
    "a cell that draws": ("def a(): return 1", "def a(): return 1\ndef plot(): return 'red'", CALLS),
    "a docstring of a method": ("class A:\n    def f(self):\n        'That.'\n        return 1",
                                "class A:\n    def f(self):\n        'What.'\n        return 1",
                                "def a(): return A().f()\n" + CALLS),
}


@pytest.mark.parametrize("before, after, rest", SAME.values(), ids=SAME)
def test_a_comment_or_a_plot_is_no_reason_to_build_anew(tmp_path, before, after, rest):
    run = Run.open(tmp_path)
    assert len({run.stage("s", cell(source, rest)["build"]) for source in (before, after)}) == 1


def test_a_comment_in_the_library_is_no_reason_and_its_code_is(tmp_path):
    root, keys = tmp_path / "unlearn_nb", []
    (root / "metrics").mkdir(parents=True)
    for text in ("def f():\n    return 1\n",
                 '"""M."""\n\n\ndef f():\n    # why\n    return 1\n', "def f():\n    return 2\n"):
        (root / "metrics" / "m.py").write_text(text)
        modules_key.cache_clear()
        keys.append(modules_key(frozenset({"unlearn_nb.metrics.m"}), root))
    modules_key.cache_clear()
    assert keys[0] == keys[1] != keys[2]


def test_what_the_librarys_function_holds_is_told_by_its_inputs():
    def closing(value):
        def build():
            return value
        return build

    build, other = closing(1), closing(2)
    assert code_key(build) != code_key(other) and not read_code(build).unseen
