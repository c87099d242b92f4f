"""A study small enough to execute in a second, which can be told to fail in many ways."""

import json
from pathlib import Path

import nbformat

PARAMETERS = '''model = "tiny"  # target model
bench = "biographies"
seed = 0  # random seed
device = "cpu"
budget = "smoke"  # smoke, quick or full
lr = 1e-3  # learning rate
fault = ""  # what goes wrong
run_dir = ""  # filled by the runner'''

STAGES = '''import os, signal, sys, time
from pathlib import Path
from unlearn_nb.core import UnlearnError
from unlearn_nb.runs import Run

def count(folder, text):
    run_folder = folder.parent.parent  # what is written there outlives an execution
    with open(run_folder / "calls.txt", "a") as calls:
        calls.write(text + "\\n")
    if text == "second" and Path("hang").exists() and not (run_folder / "hung").exists():
        (folder / "half.txt").write_text("half")
        (run_folder / "hung").touch()
        time.sleep(600)
    (folder / "value.txt").write_text(text)

if fault == "hang":  # said by a file: a stage that read `fault` itself would depend on it
    Path("hang").touch()
run = Run.open(run_dir)
first = run.stage("first", lambda folder: count(folder, "first"), seed=seed)
second = run.stage("second", lambda folder: count(folder, "second"), first=first, seed=seed)'''

FAULTS = '''if fault == "exit": sys.exit(0)
if fault == "kill": os.kill(os.getpid(), signal.SIGKILL)
if fault == "raise": 1 / 0
if fault == "refuse": raise UnlearnError("the forget set is empty; give rows")'''

RESULT = '''if fault != "no result":
    run.finish({"headline": {"answer": 42 + seed}, "bench": bench, "lr": lr})
if fault == "raise late": 1 / 0
if fault == "exit late": sys.exit(0)'''


def write_study(path: Path, *cells: str) -> Path:
    """Write a notebook whose first cell is a title and whose second is the parameters cell."""
    sources = cells or (PARAMETERS, STAGES, FAULTS, RESULT)
    title = nbformat.v4.new_markdown_cell("# Small\n\n> A small study.")
    notebook = nbformat.v4.new_notebook(cells=[title, *map(nbformat.v4.new_code_cell, sources)])
    notebook.cells[1].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def hollow_model(folder: Path) -> None:
    """Files that pass for a small model as long as nobody loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
