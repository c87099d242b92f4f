"""Studies at the smoke budget through the command line: a run that must succeed, and one that must be refused."""

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from forked import forked_kernels

from unlearn_nb.cli import main


def command(study: str, out: Path, name: str, *arguments: str) -> list[str]:
    program = str(Path(sys.executable).with_name("unlearn-nb"))
    return [program, "run", study, "--budget", "smoke", "--out", str(out), "--name", name, *arguments]


def finish(study: str, out: Path, name: str, *arguments: str) -> Path:
    """Run a study to its end; returns the run's folder."""
    result = subprocess.run(command(study, out, name, *arguments), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().splitlines()[-1].endswith("report.html")
    return out / study / name


def refused_as_a_program(study: str, out: Path, arguments: list[str], part: str) -> None:
    """A run must end with one sentence that holds `part`, a failure, and no result."""
    result = subprocess.run(command(study, out, "bad", *arguments), capture_output=True, text=True)
    _was_refused(study, out, part, result.returncode, result.stderr)


def refused(study: str, out: Path, arguments: list[str], part: str) -> None:
    """The same in this process and a forked kernel: nothing heavy is loaded again."""
    said = out / "kernel.txt"
    with forked_kernels(said):
        result = CliRunner().invoke(main, command(study, out, "bad", *arguments)[1:])
    _was_refused(study, out, part, result.exit_code, result.stderr + (said.read_text() if said.exists() else ""))


def _was_refused(study: str, out: Path, part: str, code: int, said: str) -> None:
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert code != 0 and len(errors) == 1 and part in errors[0], said[-2000:]
    assert "Traceback" not in said
    folder = out / study / "bad"
    assert not (folder / "metrics.json").exists() and not (folder / "report.html").exists()
