"""The rules of CONTRIBUTING that a program can check.

Each function gives the offences of a tree, as sentences that begin with the place. A tree is a folder
with `nbs/` (numbered folders of notebooks) and `unlearn_nb/` (what they export).
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """A code cell."""

    source: str
    number: int  # counted from 1 among all cells

    @property
    def exported(self) -> bool:
        return self.source.startswith("#| export")

    @property
    def lines(self) -> list[str]:
        """Its lines, without those that tell nbdev what to do."""
        return [line for line in self.source.splitlines() if not line.startswith("#|")]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse("\n".join(self.lines))


@dataclass(frozen=True)
class Notebook:
    """A notebook of a module, `nbs/NN_package/NN_module.ipynb` or `nbs/NN_module.ipynb`, or of a study."""

    path: Path
    place: str  # its path below nbs

    @cached_property
    def cells(self) -> list[Cell]:
        cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        return [Cell("".join(cell["source"]), number) for number, cell in enumerate(cells, start=1)
                if cell["cell_type"] == "code"]

    @property
    def module(self) -> str:
        """The module that it must export by its name."""
        return ".".join(re.sub(r"^\d+_", "", part) for part in Path(self.place).with_suffix("").parts)

    @property
    def number(self) -> tuple[int, ...]:
        """Its place in the reading order."""
        return tuple(int(part.split("_")[0]) for part in Path(self.place).parts)


def notebooks(root: Path) -> list[Notebook]:
    """The module notebooks of a tree in reading order."""
    paths = [*(root / "nbs").glob("[0-9]*.ipynb"), *(root / "nbs").glob("[0-9]*/[0-9]*.ipynb")]
    found = [Notebook(path, str(path.relative_to(root / "nbs"))) for path in paths]
    return sorted(found, key=lambda notebook: notebook.number)


def studies(root: Path) -> list[Notebook]:
    paths = sorted((root / "nbs" / "studies").glob("*.ipynb"))
    return [Notebook(path, str(path.relative_to(root / "nbs"))) for path in paths]


# --- imports


def library_imports(tree: ast.AST, package: str = "") -> Iterator[tuple[str, int]]:
    """What code in `unlearn_nb.<package>` imports of the library, as dotted names below it, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["unlearn_nb", *filter(None, [package])][:3 - node.level] if node.level else []
            names = [".".join([*base, *filter(None, [node.module]), name.name]) for name in node.names]
        else:
            continue
        for name in names:
            if name.startswith("unlearn_nb."):
                yield name.removeprefix("unlearn_nb."), node.lineno


def offered(package: Path) -> dict[str, str]:
    """The public names of a package, each with its module."""
    names = {}
    for module in sorted(package.glob("[a-z]*.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names |= dict.fromkeys(ast.literal_eval(node.value), module.stem)
    return names


def imports_that_run_upward(root: Path) -> list[str]:
    """A module imports only from packages with a lower number, and in its own package only modules with a lower one.

    A name that a package offers lazily counts with its module, an import inside a function like any other. As numbers
    fall along every import, there is no circle.
    """
    library = root / "unlearn_nb"
    order = {notebook.module: notebook.number for notebook in notebooks(root)}
    lazy = {folder.name: offered(folder) for folder in library.iterdir() if folder.is_dir()}
    offences = []
    for module, number in order.items():
        file = library.joinpath(*module.split(".")).with_suffix(".py")
        package = module.split(".")[0] if "." in module else ""
        for name, line in library_imports(ast.parse(file.read_text(encoding="utf-8")), package):
            first, second = [*name.split("."), ""][:2]
            near = second if f"{first}.{second}" in order else lazy.get(first, {}).get(second)
            target = f"{first}.{near}" if near else first
            lower = target in order and (order[target] < number if first == package else order[target][0] < number[0])
            if not lower:
                what = "comes later" if target in order else "is nowhere"
                offences.append(f"{module.replace('.', '/')}.py, line {line}: imports {name}, which {what}")
    return offences


def private_imports(root: Path) -> list[str]:
    """A name that begins with `_` is used in its own module only."""
    offences = []
    for notebook in [*notebooks(root), *studies(root)]:
        for cell in notebook.cells:
            for name, _ in library_imports(cell.tree):
                if any(part.startswith("_") for part in name.split(".")):
                    offences.append(f"{notebook.place}, cell {cell.number}: imports the private {name}")
    return offences


# --- notebooks


def misnamed_notebooks(root: Path) -> list[str]:
    """`nbs/NN_package/NN_module.ipynb` exports `package.module`, and no two have the same number."""
    offences, seen = [], {}
    for notebook in notebooks(root):
        named = [name for cell in notebook.cells for name in re.findall(r"^#\| default_exp (\S+)", cell.source, re.M)]
        if named != [notebook.module]:
            offences.append(f"{notebook.place}: exports {', '.join(named) or 'nothing'}, not {notebook.module}")
        if notebook.number in seen:
            offences.append(f"{notebook.place}: has the number of {seen[notebook.number]}")
        seen[notebook.number] = notebook.place
    return offences


def notebooks_that_assert_nothing(root: Path) -> list[str]:
    """Every module notebook has an example that can fail."""
    can_fail = lambda cell: not cell.exported and any(
        isinstance(node, ast.Assert) or getattr(getattr(node, "func", None), "id", "") == "refused"
        for node in ast.walk(cell.tree))
    idle = [notebook for notebook in notebooks(root) if not any(map(can_fail, notebook.cells))]
    return [f"{notebook.place}: asserts nothing" for notebook in idle]


def long_cells(root: Path) -> list[str]:
    """An exported cell has at most 15 lines or holds one statement; a function has at most 40 lines, a class 80.

    Blank lines between definitions are not counted, and the cell with the imports may be longer.
    """
    offences = []
    for notebook in notebooks(root):
        for cell in filter(lambda cell: cell.exported, notebook.cells):
            place, body = f"{notebook.place}, cell {cell.number}", cell.tree.body
            count = sum(bool(line.strip()) for line in cell.lines)
            only_imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
            if count > 15 and len(body) > 1 and not only_imports:
                offences.append(f"{place}: {len(body)} statements on {count} lines")
            for node in ast.walk(cell.tree):
                most = 80 if isinstance(node, ast.ClassDef) else 40
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > most:
                    offences.append(f"{place}: {node.name} has {length(node)} lines")
    return offences


def length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.end_lineno - first + 1


def long_lines(root: Path) -> list[str]:
    """No line of code is longer than 120 columns."""
    return [f"{notebook.place}, cell {cell.number}: a line of {len(line)} columns"
            for notebook in [*notebooks(root), *studies(root)] for cell in notebook.cells
            for line in cell.lines if len(line) > 120]


def calls_by_position(root: Path) -> list[str]:
    """More than three values are passed by their names, where the function is the library's own."""
    offences = []
    takes_any = {node.name for notebook in notebooks(root) for cell in notebook.cells for node in ast.walk(cell.tree)
                 if isinstance(node, ast.FunctionDef) and node.args.vararg}
    for notebook in [*notebooks(root), *studies(root)]:
        own = {name.split(".")[-1] for cell in notebook.cells for name, _ in library_imports(cell.tree)}
        own |= {node.name for cell in notebook.cells if cell.exported for node in cell.tree.body
                if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for cell in notebook.cells:
            for call in ast.walk(cell.tree):
                name, count = called(call), positions(call)
                if count > 3 and name not in takes_any and (name in own or name.startswith("self.")):
                    offences.append(f"{notebook.place}, cell {cell.number}: {name} is given {count} values by position")
    return offences


def positions(call: ast.AST) -> int:
    return sum(not isinstance(value, ast.Starred) for value in call.args) if isinstance(call, ast.Call) else 0


def called(call: ast.AST) -> str:
    """The function's name, or `self.method`; a call of anything else can't be told to be the library's own."""
    name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
    return name if re.fullmatch(r"(self\.)?\w+", name) else ""


# --- files


def texts_without_encoding(root: Path) -> list[str]:
    """Who opens, reads or writes text, or asks a process in text, names the encoding: the locale's is anybody's."""
    paths = sorted(path for folder in ("unlearn_nb", "tools") for path in (root / folder).rglob("*.py"))
    return [f"{path.relative_to(root)}, line {node.lineno}: {ast.unparse(node.func)} names no encoding"
            for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and is_of_text(node) and not names_encoding(node)]


# functions of text: the place of `mode` (None: always text), the mode by default, the place of `encoding`
OF_TEXT = {"open": (1, "r", 3), ".open": (0, "r", 2), "fdopen": (1, "r", 3), "read_text": (None, "r", 0),
           "write_text": (None, "w", 1), "TextIOWrapper": (None, "w", 1), "TemporaryFile": (0, "w+b", 2),
           "NamedTemporaryFile": (0, "w+b", 2), "SpooledTemporaryFile": (1, "w+b", 3), "FileHandler": (None, "a", 2)}


def kind_of_call(call: ast.Call) -> str:
    """Its key in `OF_TEXT`, or "subprocess", or ""."""
    *owner, name = ast.unparse(call.func).rsplit(".", 1)
    if owner == ["subprocess"] or name in ("Popen", "check_output"):
        return "subprocess"
    if name == "open" and owner not in ([], ["io"]):  # a file descriptor and a class's own `open` hold no text
        return "" if owner == ["os"] or re.fullmatch(r"[A-Z]\w*", owner[0]) else ".open"
    return name if name in OF_TEXT else ""


def is_of_text(call: ast.Call) -> bool:
    kind, named = kind_of_call(call), {word.arg: word.value for word in call.keywords}
    if kind == "subprocess":
        wishes = [named.get(name) for name in ("text", "universal_newlines", "errors")]
        return any(wish is not None and getattr(wish, "value", True) for wish in wishes)
    place, mode, _ = OF_TEXT.get(kind, (None, "b", 0))
    if place is not None:
        given = named.get("mode", call.args[place] if len(call.args) > place else None)
        mode = mode if given is None else getattr(given, "value", "")
    return "b" not in mode


def names_encoding(call: ast.Call) -> bool:
    place = OF_TEXT.get(kind_of_call(call), (None, "", 99))[2]
    return any(word.arg == "encoding" for word in call.keywords) or len(call.args) > place
