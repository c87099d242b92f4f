"""The key of a function follows everything that it reaches, and nothing else."""

import subprocess
import sys

import pytest

from unlearn_nb.core import code_key


def cell(*sources: str) -> dict:
    """The space of a notebook whose cells were run."""
    space = {"__name__": "__main__"}
    for source in sources:
        exec(source, space)
    return space


PAIRS = {  # what a change is of: cells before it and after it; each defines `build`
    "a helper's helper": ("def a(): return 1", "def a(): return 2", "def b(): return a()\ndef build(): return b()"),
    "a global of a helper": ("N = 1", "N = 2", "def a(): return N\ndef build(): return a()"),
    "an item of a global dict": ("R = {'lr': [1, 2]}", "R = {'lr': [1, 3]}", "def build(): return R"),
    "a default of a helper": ("def a(k=1): return k", "def a(k=2): return k", "def build(): return a()"),
    "a keyword default": ("def a(*, k=1): return k", "def a(*, k=2): return k", "def build(): return a()"),
    "a method": ("class A:\n    def f(self): return 1", "class A:\n    def f(self): return 2",
                 "def build(): return A().f()"),
    "a base class": ("class A:\n    x = 1", "class A:\n    x = 2", "class B(A): pass\ndef build(): return B.x"),
    "an attribute of an object": ("class A: pass\na = A(); a.x = 1", "class A: pass\na = A(); a.x = 2",
                                  "def build(): return a.x"),
    "a field of a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1",
                               "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 2",
                               "a = A()\ndef build(): return a"),
    "what a decorator holds": ("def times(n):\n    return lambda f: lambda: n * f()\n@times(2)\ndef a(): return 1",
                               "def times(n):\n    return lambda f: lambda: n * f()\n@times(3)\ndef a(): return 1",
                               "def build(): return a()"),
    "a cached function": ("import functools\n@functools.cache\ndef a(): return 1",
                          "import functools\n@functools.cache\ndef a(): return 2", "def build(): return a()"),
    "a property": ("class A:\n    @property\n    def x(self): return 1",
                   "class A:\n    @property\n    def x(self): return 2", "def build(): return A().x"),
    "bound arguments": ("import functools\ng = functools.partial(max, 1)",
                        "import functools\ng = functools.partial(max, 2)", "def build(): return g(0)"),
    "an array": ("import numpy as np\nw = np.zeros(3)", "import numpy as np\nw = np.array([0, 0, 1.0])",
                 "def build(): return w"),
    "a table": ("import pandas as pd\nt = pd.DataFrame({'x': ['a']})",
                "import pandas as pd\nt = pd.DataFrame({'x': ['b']})", "def build(): return t"),
    "a weight": ("import torch\nm = torch.nn.Linear(2, 2, bias=False)\ntorch.nn.init.zeros_(m.weight)",
                 "import torch\nm = torch.nn.Linear(2, 2, bias=False)\ntorch.nn.init.ones_(m.weight)",
                 "def build(): return m"),
    "which function of a library": ("from math import sin as f", "from math import cos as f",
                                    "def build(): return f(1)"),
    "which errors are caught": ("def a():\n    try: return 1 / 1\n    except ZeroDivisionError: return 0",
                                "def a():\n    try: return 1 / 1\n    except ValueError: return 0",
                                "def build(): return a()"),
}


@pytest.mark.parametrize("before, after, rest", PAIRS.values(), ids=PAIRS)
def test_a_change_is_seen(before, after, rest):
    first, again, other = (code_key(cell(source, rest)["build"]) for source in (before, before, after))
    assert first == again != other


@pytest.mark.parametrize("other", [
    "def a(): return 1\n\n\ndef build():\n    # a comment\n    return a()",
    "def a():\n    'What it does.'\n    return 1\nunused = 5\ndef build(): return a()",
])
def test_place_comments_docstrings_and_what_is_not_used_do_not_count(other):
    plain = cell("def a(): return 1\ndef build(): return a()")["build"]
    assert code_key(plain) == code_key(cell(other)["build"])


def test_circles_end():
    space = cell("def a(n): return b(n - 1) if n else 0\ndef b(n): return a(n)\nL = []\nL.append(L)\n"
                 "def build(): return a(3), L")
    assert code_key(space["build"]) == code_key(space["build"])


def test_a_module_beside_the_notebook_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for value in (1, 2):
        (tmp_path / f"beside{value}.py").write_text(f"def f():\n    return {value}\n")
        exec_cell = cell(f"import beside{value} as beside\ndef build(): return beside.f()")
        keys.append(code_key(exec_cell["build"]))
    late = [code_key(cell(f"def build():\n    import late{value}\n    return late{value}.f()")["build"])
            for value in (1, 1) if (tmp_path / f"late{value}.py").write_text("f = int\n")]
    (tmp_path / "late1.py").write_text("f = float\n")
    assert keys[0] != keys[1] and late[0] == late[1]
    assert code_key(cell("def build():\n    import late1\n    return late1.f()")["build"]) != late[0]


def test_the_key_is_the_same_in_another_process():
    code = ("from unlearn_nb.core import code_key\nNAMES = {'b', 'a', 'c'}\nTABLE = {('x', 1): {2.5}}\n"
            "def build(folder): return [name for name in NAMES if name in {'a', 'c', 'z'}], TABLE\n"
            "print(code_key(build))")
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout for seed in "123"}
    assert len(found) == 1


def test_the_library_is_named_unless_it_is_asked_for(monkeypatch):
    from unlearn_nb.core import files, write_atomic

    named, inside = code_key(write_atomic), code_key(write_atomic, ours=True)
    monkeypatch.setattr(files, "_take_place", lambda *paths: None)  # two calls away
    assert code_key(write_atomic) == named and code_key(write_atomic, ours=True) != inside
    apart = code_key(write_atomic, ours=True, apart=(files.whole,))
    monkeypatch.undo()
    assert code_key(write_atomic, ours=True, apart=(files.whole,)) == apart
