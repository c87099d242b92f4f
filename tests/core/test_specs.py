"""Specs: what is written comes back, nothing is evaluated, and a registry grows in three ways."""

import keyword
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_nb.core import Registry, UnlearnError, check_arguments, parse_expression, read_call

WORDS = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(lambda word: not keyword.iskeyword(word))
NUMBERS = st.integers(-10**12, 10**12) | st.floats(allow_nan=False, allow_infinity=False)
LITERALS = NUMBERS | st.booleans() | st.none() | st.text(max_size=8) | st.lists(NUMBERS, max_size=3)


def read_text(text):
    return read_call(parse_expression(text, "term", "npo(beta=0.1)"))


@given(WORDS, st.dictionaries(WORDS, LITERALS, max_size=4), st.sampled_from(["", " "]))
def test_calls_come_back(name, arguments, blank):
    inside = f",{blank}".join(f"{key}{blank}={blank}{value!r}" for key, value in arguments.items())
    assert read_text(f"{blank}{name}({inside}){blank}") == (name, arguments)


@given(WORDS, WORDS, WORDS)
def test_bare_words_are_strings(name, key, word):
    assert read_text(f"{name}({key}={word})") == (name, {key: word})
    assert read_text(name) == (name, {}) == read_text(f"{name}()")


@given(st.text(max_size=40) | st.text("abc(=,)'*-[]{}:1. ", max_size=40))
def test_any_text_is_read_or_refused(text):
    registry = Registry("thing")
    registry.register(lambda: None, name="abc")
    try:
        name, arguments = read_text(text)
    except UnlearnError as error:
        assert str(error)
    else:
        assert isinstance(name, str) and isinstance(arguments, dict)
    try:
        registry.read(text)
    except UnlearnError as error:
        assert str(error)


@pytest.mark.parametrize("text, part", [
    ("", "can't read the term ''"), ("npo(", "near column 4: write e.g. npo(beta=0.1)"), ("a b", "can't read the term"),
    ("npo(1)", "npo: name the argument '1', e.g. npo(key=1)"), ("npo(*x)", "name the argument '*x'"),
    ("npo(**x)", "name the argument 'x'"),
    ("npo(a=1, b=2, a=3)", "npo: the argument 'a' is given twice; leave one out"),
    ("npo(a=f(1))", "an argument must be a number, True, False or a word, not 'f(1)'"),
    ("npo(a=x.y)", "not 'x.y'"), ("npo(a={[]: 1})", "an argument must be"), ("npo(a=9**9**9)", "an argument must be"),
    ("npo(a=" + "-" * 900 + "1)", "an argument must be"), ("npo(a=" + "(" * 3000, "can't read the term"),
    ("npo(a=" + "9" * 5000 + ")", "can't read the term"), ("npo\0", "can't read the term")])
def test_what_is_no_call_is_refused(text, part):
    with pytest.raises(UnlearnError) as error:
        read_text(text)
    assert part in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 2500


# ---- registries

@dataclass(frozen=True)
class Box:
    height: float
    width: float = 1.0


def scaled(x, *, by=2.0):
    return x * by


@pytest.fixture
def shapes():
    registry = Registry("odd shape")
    registry.register(Box)
    registry.register(scaled)
    return registry


@given(NUMBERS, NUMBERS)
def test_read_gives_what_was_written(height, width):
    registry = Registry("shape")
    registry.register(Box)
    registry.register(scaled, name="by")
    assert registry.read(repr(Box(height, width))) == Box(height, width) == registry.read(Box(height, width))
    assert registry.read(f"by(by={width!r})")(1) == width and registry.read("by") is scaled


def test_names_come_in_order(shapes):
    shapes.register(scaled, name="a")
    assert list(shapes) == ["Box", "a", "scaled"] and "Box" in shapes and "x" not in shapes and shapes["Box"] is Box


@pytest.mark.parametrize("spec, part", [
    ("boks(height=1)", "unknown odd shape 'boks'; did you mean 'Box'?"), ("zzz", "known: Box, scaled"),
    ("Box", "Box needs the argument 'height': write Box(height=...)"),
    ("scaled(x=1)", "unknown argument of scaled 'x'"),
    ("Box(height=1, widht=2)", "unknown argument of Box 'widht'; did you mean 'width'?"),
    ("Box-1", "unknown odd shape 'Box - 1'"), ("Box.mro(a=1)", "unknown odd shape 'Box.mro'"),
    ("Box(", "can't read the odd shape 'Box(' near column 4: write e.g. Box(key=value)")])
def test_bad_specs_are_told(shapes, spec, part):
    with pytest.raises(UnlearnError) as error:
        shapes.read(spec)
    assert part in str(error.value)


def test_arguments_of_all_kinds_of_entries():
    check_arguments("any", lambda **options: None, {"anything": 1})
    check_arguments("needs", lambda x, *, tol: None, {})  # what a function needs may be given when it is called
    with pytest.raises(UnlearnError, match="len takes no arguments, and 'a' was given: leave it out"):
        check_arguments("len", len, {"a": 1})

    class Loose:
        def __init__(self, *values, size=1):
            pass

    with pytest.raises(UnlearnError, match="unknown argument of Loose 'values'; known: size"):
        check_arguments("Loose", Loose, {"values": 1})


def test_running_a_cell_again_replaces_its_entry():
    registry, cell = Registry("shape"), {"__name__": "__main__"}
    for number in (1, 2):
        exec(f"def made(*, by={number}): return by\nclass Made: number = {number}", cell)
        registry.register(cell["made"])
        registry.register(cell["Made"])
    assert registry.read("made")() == 2 == registry["Made"].number and list(registry) == ["Made", "made"]
    with pytest.raises(UnlearnError, match="there is already a shape 'made': give yours another name"):
        registry.register(scaled, name="made")
    assert registry.read("made")() == 2


def test_an_object_is_of_the_module_that_registers_it():
    registry = Registry("shape")
    registry.register(partial(scaled, by=3), name="triple")
    registry.register(partial(scaled, by=4), name="triple")  # the same cell, run again
    assert registry["triple"](1) == 4
    cell = {"__name__": "elsewhere", "registry": registry, "entry": partial(scaled, by=5)}
    for line in ("registry.register(entry, name='triple')", "registry.register(name='triple')(entry)"):
        with pytest.raises(UnlearnError, match="there is already a shape 'triple'"):
            exec(line, cell)


def test_unregister_frees_the_name(shapes):
    shapes.unregister("Box")
    assert list(shapes) == ["scaled"]
    shapes.register(scaled, name="Box")
    with pytest.raises(UnlearnError, match="unknown odd shape 'round'"):
        shapes.unregister("round")


def test_the_name_of_a_class_is_its_attribute_unless_that_is_no_text():
    registry = Registry("shape")

    @registry.register
    class Named:
        name = "by-name"

    @registry.register
    class Property:
        @property
        def name(self):
            return "never"

    assert list(registry) == ["Property", "by-name"]


# ---- installed packages

@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on sys.path that offers three odd shapes; one of them can't be imported."""
    (tmp_path / "odd_shapes.py").write_text("loaded = True\ndef triangle(x, *, corners=3): return x * corners\n")
    (tmp_path / "broken_shapes.py").write_text("import no_such_module_anywhere\n")
    info = tmp_path / "odd_shapes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-shapes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[unlearn_nb.odd_shape]\ntriangle = odd_shapes:triangle\nbroken = broken_shapes:star\n"
        "Box = odd_shapes:triangle\n"
        "[unlearn_nb.other]\nsquare = odd_shapes:triangle\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_entry_points_are_entries_and_load_when_asked_for(installed, shapes):
    sys.modules.pop("odd_shapes", None)
    assert list(shapes) == ["Box", "broken", "scaled", "triangle"] and "triangle" in shapes and "square" not in shapes
    assert "odd_shapes" not in sys.modules, "listing loads nothing"
    assert shapes.read("triangle(corners=4)")(2) == 8 and "odd_shapes" in sys.modules
    assert shapes["Box"] is Box, "what is registered here goes first"
    with pytest.raises(UnlearnError, match="unknown odd shape 'triangel'; did you mean 'triangle'?"):
        shapes["triangel"]


def test_an_entry_point_that_fails_names_its_package(installed, shapes):
    with pytest.raises(UnlearnError, match="the odd shape 'broken' of the package odd-shapes can't be loaded "
                                           r"\(No module named 'no_such_module_anywhere'\); repair or remove"):
        shapes.read("broken")
    shapes.register(scaled, name="broken")
    assert shapes["broken"] is scaled


def test_modules_of_the_home_are_imported_at_the_first_look_up(tmp_path, monkeypatch):
    home = tmp_path / "home_of_shapes"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "base.py").write_text("from unlearn_nb.core import Registry\nSHAPES = Registry('shape', __package__)\n")
    for word in ("one", "two"):
        (home / f"{word}.py").write_text(
            f"from home_of_shapes.base import SHAPES\n@SHAPES.register\ndef {word}(): return '{word}'\n")
    monkeypatch.syspath_prepend(tmp_path)
    from home_of_shapes.base import SHAPES

    assert "home_of_shapes.two" not in sys.modules
    assert SHAPES["two"]() == "two" and list(SHAPES) == ["one", "two"]


def test_a_name_of_the_library_is_refused_before_its_module_is_loaded():
    """In a fresh process: whoever registers it first, the library's own entry keeps its name."""
    code = ("from unlearn_nb.core import UnlearnError\nfrom unlearn_nb.regions import MASKS\n"
            "from unlearn_nb.localization import LOCALIZERS\n"
            "for registry, name in ((LOCALIZERS, 'intervention'), (MASKS, 'sure')):\n"
            "    try:\n        registry.register(lambda: None, name=name)\n"
            "    except UnlearnError as error:\n        print(error)\n"
            "print(len(list(LOCALIZERS)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "already a localizer 'intervention'" in lines[0] and "already a mask 'sure'" in lines[1] and lines[2] == "7"
