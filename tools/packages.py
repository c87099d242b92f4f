"""Write each package's `__init__.py` from its modules' `__all__`: public names import from the package, when asked for.

Run by `make export` after nbdev_export. The docstring of an `__init__.py` is written by hand and kept.
"""

import ast
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = '''"""{doc}"""

# Written by tools/packages.py from the modules' __all__; only the line above is edited by hand.
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={{
{modules}
}})
'''


def public_names(module: Path) -> list[str]:
    """The `__all__` of a module, read without importing it."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []


def clashes(package: Path) -> list[str]:
    """Names that are public in two modules of a package or equal a module's name; the package can't offer them."""
    modules = sorted(package.glob("[a-z]*.py"))
    names = [name for module in modules for name in public_names(module)]
    return sorted({name for name in names if names.count(name) > 1 or name in {module.stem for module in modules}})


def init_text(package: Path) -> str:
    """What `__init__.py` of a package must say. Raises ValueError for a name that is public twice, or a module's."""
    wrong = clashes(package)
    if wrong:
        raise ValueError(f"{package.name}: {', '.join(wrong)} is public in two modules, or called like a module")
    init = package / "__init__.py"
    doc = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.exists() else None
    lines = []
    for module in sorted(package.glob("[a-z]*.py")):
        names = ", ".join(f'"{name}"' for name in public_names(module))
        lines += textwrap.wrap(f'"{module.stem}": [{names}],', 116, initial_indent="    ", subsequent_indent="        ",
                               break_long_words=False)
    return HEAD.format(doc=doc or package.name, modules="\n".join(lines))


def main() -> None:
    for package in sorted(path.parent for path in (ROOT / "unlearn_nb").glob("*/__init__.py")):
        text, init = init_text(package), package / "__init__.py"
        if init.read_text(encoding="utf-8") != text:
            init.write_text(text, encoding="utf-8")
            print(f"wrote {init.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
