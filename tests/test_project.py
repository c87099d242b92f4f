"""The project as a whole: library and notebooks agree, notebooks are clean and run, the wheel is complete."""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from chatty import verbatim
from forked import forked_kernels
from nbclient import NotebookClient
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_nb.benches import read_own_rows

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MODULES = sorted((ROOT / "nbs").rglob("[0-9]*.ipynb"))
STUDIES = sorted((ROOT / "nbs" / "studies").glob("*.ipynb"))
# what exports nothing: the index, what else is told in one go, and the tutorials
GUIDES = [*sorted((ROOT / "nbs").glob("[a-z]*.ipynb")), *sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))]
NOTEBOOKS = [*MODULES, *STUDIES, *GUIDES]


def place(path: Path) -> str:
    return str(path.relative_to(ROOT / "nbs").with_suffix(""))


def tracked() -> list[Path]:
    """The project's files, uncommitted ones included, ignored ones not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file() and not name.startswith("reports/")]


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the project that a test may change."""
    for name in tracked():
        target = tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return tmp_path / "copy"


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def differing(copy: Path, *folders: str) -> list[str]:
    """Files below ``folders`` that differ between the project and its copy, or exist in one only."""
    bases = {base / folder: base for base in (ROOT, copy) for folder in folders}
    names = {path.relative_to(base) for folder, base in bases.items() for path in folder.rglob("*")
             if path.suffix in (".py", ".ipynb", ".md")}
    names = {name for name in names if not re.search(r"/[._](?!_|modidx)", f"/{name}")}
    both = {name for name in names if (ROOT / name).is_file() and (copy / name).is_file()}
    same = {name for name in both if filecmp.cmp(ROOT / name, copy / name, shallow=False)}
    return sorted(str(name) for name in names - same)


def test_the_library_is_what_the_notebooks_export(copy):
    for module in (copy / "unlearn_nb").rglob("[a-z]*.py"):
        module.unlink()
    run(BIN / "nbdev_export", cwd=copy)
    run(sys.executable, "tools/packages.py", cwd=copy)
    assert differing(copy, "unlearn_nb") == [], "run make export"


def test_a_change_of_the_library_alone_is_noticed(copy):
    module = copy / "unlearn_nb" / "runs" / "execute.py"
    module.write_text(module.read_text() + "\nchanged = True\n")
    assert differing(copy, "unlearn_nb") == ["unlearn_nb/runs/execute.py"]


def test_notebooks_are_clean(copy):
    run(BIN / "nbdev_clean", cwd=copy)
    assert differing(copy, "nbs") == [], "run make clean-notebooks"


def test_cleaning_keeps_the_parameters_tag(copy):
    path = copy / "nbs" / "studies" / "example.ipynb"
    path.parent.mkdir(exist_ok=True)
    cell = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"], "collapsed": True})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    run(BIN / "nbdev_clean", cwd=copy)
    assert nbformat.read(path, 4).cells[0].metadata == {"tags": ["parameters"]}


def test_the_readme_is_the_index_notebook(copy):
    shutil.copytree(ROOT / "reports", copy / "reports", ignore=shutil.ignore_patterns("stages", "*.html", "figures"))
    run(sys.executable, "tools/readme.py", cwd=copy)
    for name in ("README.md", "nbs/index.ipynb"):
        assert (copy / name).read_text() == (ROOT / name).read_text(), "run make readme"


@pytest.mark.parametrize("path", STUDIES, ids=place)
def test_a_study_has_one_parameters_cell(path):
    cells = nbformat.read(path, 4).cells
    assert [cell.cell_type for cell in cells if "parameters" in cell.metadata.get("tags", [])] == ["code"]
    assert not [cell for cell in cells if cell.source.startswith("#| export")], "a study exports nothing"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=place)
def test_stored_outputs_tell_nothing_of_the_machine(path):
    """No folder of the machine and no error."""
    notebook = nbformat.read(path, 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(str(output) for output in outputs)
    assert not re.search(r"site-packages|dist-packages|/(home|root|Users)/|(?<![\w.])/[\w./-]+/nbs\b", text)
    assert str(ROOT) not in text
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", [*MODULES, *GUIDES], ids=place)
def test_a_module_notebook_runs_in_a_kernel(path):
    """From top to bottom, where a user would run it."""
    notebook = nbformat.read(path, 4)
    where = {"metadata": {"path": str(path.parent)}}
    with forked_kernels():
        NotebookClient(notebook, timeout=600, startup_timeout=600, kernel_name="python3", resources=where).execute()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "src" / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, folder / "src", cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_library_and_the_studies(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "unlearn_nb").rglob("*.py")} <= names
    assert {f"unlearn_nb/studies/{path.name}" for path in STUDIES} <= names
    data = {name for name in tracked() if name.parts[0] == "unlearn_nb" and name.suffix != ".py"}
    assert any(name.suffix == ".html" for name in data) and set(map(str, data)) <= names, "see package_data in setup.py"
    assert not [name for name in names if name.startswith(("tests/", "nbs/", "benchmarks/"))]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel alone in it; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel,
        cwd=folder.parent)
    return folder


def of_the_wheel(installed: Path, *command: str, cwd: Path) -> list[str]:
    """The lines that a command prints which runs with the wheel, with nothing of the checkout in sight."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_installed_wheel_finds_its_studies(installed, tmp_path):
    """From an empty folder."""
    code = "import unlearn_nb, unlearn_nb.runs as p; print(unlearn_nb.__file__, *p.find_studies().values(), sep='\\n')"
    package, *studies = map(Path, of_the_wheel(installed, "-c", code, cwd=tmp_path))
    assert package.parent == installed / "unlearn_nb"
    assert studies == [package.parent / "studies" / path.name for path in STUDIES]


def test_one_command_of_the_installed_wheel_unlearns_ones_own_rows(installed, tmp_path, chatty_folder):
    """In a folder with a blank in its name: what is printed last loads the adapter, and peft alone tells what it does.

    A chat model that answers 12 forget and 30 retain rows word by word; asked in chat and in plain format.
    """
    home = tmp_path / "my own"
    shutil.copytree(chatty_folder, home)
    code = "import sys; from unlearn_nb.cli import main; sys.argv[0] = 'unlearn-nb'; main()"
    given = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
    said = of_the_wheel(installed, "-c", code, "forget", *given, cwd=home)
    adapter = next(line.removeprefix("adapter: ") for line in said if line.startswith("adapter: "))
    assert adapter in said[-1] and (home / adapter / "adapter_model.safetensors").is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        names: dict = {}
        exec("\n".join(said[-3:]), names)
        base, tokenizer = (kind.from_pretrained("model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert isinstance(names["model"], PeftModel)
    forget, retain = (read_own_rows(home / f"{name}.jsonl") for name in ("forget", "retain"))
    for form in ("chat", "plain"):
        assert verbatim(base, tokenizer, forget, form) == 12
        assert verbatim(names["model"].eval(), tokenizer, forget, form) <= 1
    assert verbatim(names["model"], tokenizer, retain, "chat") >= 28


def test_every_requirement_is_pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "versions only, no paths"
    plain = lambda requirement: re.split(r"[<>=]", requirement)[0].lower().replace("_", "-")
    text = (ROOT / "settings.ini").read_text()
    wanted = " ".join(re.findall(r"^(?:dev_)?requirements = (.*)$", text, re.M)).split()
    assert len(wanted) > 40 and set(map(plain, wanted)) <= set(map(plain, lines))


def test_the_library_needs_no_development_package():
    source = "\n".join(path.read_text() for path in (ROOT / "unlearn_nb").rglob("[a-z]*.py"))
    development = "nbdev|fastcore|execnb|sklearn|pytest|hypothesis|ruff"
    assert not re.search(rf"^\s*(?:from|import) (?:{development})\b", source, re.M)


def test_make_help_lists_the_targets():
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    assert targets >= {"run", "test", "lab", "bench", "export", "clean-notebooks", "readme"}
