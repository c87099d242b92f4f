"""The house rules: checked on this project, and each on a small made-up one that breaks it."""

import importlib.util
from pathlib import Path

import house
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent

RULES = [house.imports_that_run_upward, house.misnamed_notebooks, house.notebooks_that_assert_nothing,
         house.private_imports, house.long_cells, house.long_lines, house.calls_by_position,
         house.texts_without_encoding]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rule(rule):
    offences = rule(ROOT)
    assert not offences, "\n".join([rule.__doc__, *offences])


def test_all_notebooks_of_modules_are_seen():
    """A rule that looks at nothing is kept by everything."""
    library = ROOT / "unlearn_nb"
    files = {str(path.relative_to(library).with_suffix("")) for path in library.rglob("[a-z]*.py")}
    assert {notebook.module.replace(".", "/") for notebook in house.notebooks(ROOT)} == files and len(files) > 50
    assert len(house.studies(ROOT)) >= 4


# --- a made-up house: `1_low` with one module, `2_high` with two


def write(root: Path, place: str, *cells: str) -> None:
    """A notebook, and the module that it exports."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = root / "nbs" / f"{place}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    if not place.startswith("studies"):
        name = house.Notebook(path, str(path.relative_to(root / "nbs"))).module.replace(".", "/")
        module = root / "unlearn_nb" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        code = "\n".join(cell.removeprefix("#| export") for cell in cells if cell.startswith("#| export"))
        public = [line.split("def ")[1].split("(")[0] for line in code.splitlines() if line.startswith("def ")]
        module.write_text(f"__all__ = {public}\n{code}\n")


@pytest.fixture
def tree(tmp_path) -> Path:
    write(tmp_path, "01_low/00_base", "#| default_exp low.base", "#| export\ndef nought(a, b, c, d):\n    return a",
          "assert nought")
    write(tmp_path, "02_high/00_first", "#| default_exp high.first",
          "#| export\nfrom unlearn_nb.low import nought\n\n\ndef one(x):\n    return nought(x, x, x, d=x)",
          "assert one(1) == 1")
    write(tmp_path, "02_high/01_second", "#| default_exp high.second",
          "#| export\nfrom unlearn_nb.high.first import one\n\n\ndef two(x):\n    return one(x)",
          "with refused():\n    two(1)")
    write(tmp_path, "studies/study", "from unlearn_nb.high import two\n\ntwo(1)")
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_made_up_house_keeps_every_rule(tree, rule):
    assert rule(tree) == []


@pytest.mark.parametrize("place, line, what", [
    ("01_low/00_base", "from unlearn_nb.high import one", "imports high.one, which comes later"),
    ("01_low/00_base", "from unlearn_nb.high.second import two", "imports high.second.two, which comes later"),
    ("01_low/00_base", "import unlearn_nb.high.first", "imports high.first, which comes later"),
    ("01_low/00_base", "def late():\n    from unlearn_nb.high import two", "imports high.two, which comes later"),
    ("01_low/00_base", "from ..high.first import one", "imports high.first.one, which comes later"),
    ("02_high/00_first", "from unlearn_nb.high.second import two", "imports high.second.two, which comes later"),
    ("02_high/00_first", "from unlearn_nb.high import two", "imports high.two, which comes later"),
    ("02_high/00_first", "from .second import two", "imports high.second.two, which comes later"),
    ("02_high/01_second", "from unlearn_nb.low import gone", "imports low.gone, which is nowhere"),
    ("02_high/01_second", "from unlearn_nb import nought", "imports nought, which is nowhere"),
])
def test_an_import_that_runs_upward(tree, place, line, what):
    module = house.Notebook(tree, f"{place}.ipynb").module
    write(tree, place, f"#| default_exp {module}", f"#| export\n{line}\n\n\ndef extra():\n    return 1")
    offences = [offence for offence in house.imports_that_run_upward(tree) if what in offence]
    assert len(offences) == 1 and offences[0].startswith(module.replace(".", "/"))


ALONE, OTHER, X115 = "03_alone", "studies/other", "x" * 115


@pytest.mark.parametrize("rule, place, cells, what", [
    (house.misnamed_notebooks, "02_high/03_third", ["#| default_exp low.third"], "exports low.third, not high.third"),
    (house.misnamed_notebooks, "02_high/01_third", ["#| default_exp high.third"], "the number of 02_high/01_second"),
    (house.misnamed_notebooks, ALONE, ["x = 1"], "exports nothing, not alone"),
    (house.notebooks_that_assert_nothing, ALONE, ["#| export\nassert True", "print('assert')"], "asserts nothing"),
    (house.private_imports, ALONE, ["from unlearn_nb.low.base import _b"], "the private low.base._b"),
    (house.private_imports, OTHER, ["from unlearn_nb.low import _base as base"], "the private low._base"),
    (house.long_cells, ALONE, ["#| export\nx = 1\ny = [\n" + "    1,\n" * 13 + "]"], "2 statements on 16 lines"),
    (house.long_cells, ALONE, ["#| export\ndef f():\n" + "    x = 1\n" * 40], "f has 41 lines"),
    (house.long_cells, ALONE, ["#| export\n@decorated\nclass C:\n" + "    x = 1\n" * 79], "C has 81 lines"),
    (house.long_lines, OTHER, [f"x = '{X115}'"], "a line of 121 columns"),
    (house.long_lines, ALONE, [f"#| export\nx = '{X115}'"], "a line of 121 columns"),
    (house.calls_by_position, OTHER, ["from unlearn_nb.low import nought\nnought(1, 2, 3, 4)"], "nought is given"),
    (house.calls_by_position, ALONE, ["#| export\ndef own(a, b, c, d):\n    return a", "own(1, 2, 3, 4)"], "own is"),
    (house.calls_by_position, ALONE, ["#| export\nclass C:\n    def f(self):\n        self.g(1, 2, 3, 4)"], "self.g"),
])
def test_a_notebook_that_breaks_a_rule(tree, rule, place, cells, what):
    write(tree, place, *cells)
    offences = rule(tree)
    assert len(offences) == 1 and offences[0].startswith(place) and what in offences[0]


@pytest.mark.parametrize("line", [
    "open(path)", "open(path, 'a')", "io.open(path, mode='w')", "path.open()", "path.open('w')", "open(path, mode)",
    "path.read_text()", "(path / 'x').write_text('text')", "os.fdopen(3)", "io.TextIOWrapper(raw)",
    "NamedTemporaryFile('w')", "tempfile.TemporaryFile(mode='w+')", "subprocess.run(['git'], text=True)",
    "subprocess.check_output(['git'], universal_newlines=True)", "Popen(['git'], errors='replace')"])
def test_text_without_its_encoding(tree, line):
    for place in ("unlearn_nb/low/base.py", "tools/tool.py"):
        file = tree / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"def f(path, mode, raw):\n    return {line}\n", encoding="utf-8")
        offence, = house.texts_without_encoding(tree)
        assert offence.startswith(f"{place}, line 2: ") and offence.endswith("names no encoding")
        named = f"{line[:-1]}{', ' * (line[-2] != '(')}encoding='utf-8')"
        file.write_text(f"def f(path, mode, raw):\n    return {named}\n", encoding="utf-8")
        assert not house.texts_without_encoding(tree)


@pytest.mark.parametrize("line", [
    "open(path, 'rb')", "path.open(mode='ab')", "path.read_text('utf-8')", "os.open(path, os.O_RDONLY)",
    "Run.open(path)", "TemporaryFile(dir=path)", "subprocess.run(['git'], capture_output=True)",
    "subprocess.run(['git'], text=False)", "open(path, 'r', -1, 'utf-8')", "path.read_bytes()"])
def test_bytes_and_encodings_by_position_are_allowed(tree, line):
    (tree / "unlearn_nb" / "low" / "base.py").write_text(line, encoding="utf-8")
    assert not house.texts_without_encoding(tree)


def test_what_the_rules_allow(tree):
    """Cells and calls at the limits."""
    write(tree, ALONE, "#| export\n" + "import os\n" * 20, "#| export\ndef f():\n" + "    x = 1\n" * 39,
          "#| export\nx = 1\ny = [\n" + "    1,\n" * 12 + "]", "#| export\nclass C:\n" + "    x = 1\n" * 79,
          f"x = '{X115[1:]}'", "f(1, 2, 3, *range(4))\nprint(1, 2, 3, 4)", "x = 1\n" * 30)
    assert not house.long_cells(tree) and not house.long_lines(tree) and not house.calls_by_position(tree)


# --- what a package offers


@pytest.fixture(scope="module")
def packages():
    """`tools/packages.py` as a module."""
    spec = importlib.util.spec_from_file_location("packages", ROOT / "tools" / "packages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_public_name_is_unique_in_its_package_and_no_modules_name(packages):
    found = {folder.name: packages.clashes(folder) for folder in (ROOT / "unlearn_nb").iterdir() if folder.is_dir()}
    assert not {name: clashes for name, clashes in found.items() if clashes}


def test_names_that_clash_are_found(packages, tree):
    assert packages.clashes(tree / "unlearn_nb" / "high") == []
    write(tree, "02_high/02_third", "#| export\ndef second():\n    return 1\n\n\ndef one():\n    return 1")
    assert packages.clashes(tree / "unlearn_nb" / "high") == ["one", "second"]
    write(tree, "02_high/02_third", "#| export\ndef third():\n    return 1")
    assert packages.clashes(tree / "unlearn_nb" / "high") == ["third"]
