"""Studies at the smoke budget through the command line: a run that must succeed, and one that must be refused."""

import subprocess
import sys
from pathlib import Path


def command(study: str, out: Path, name: str, *arguments: str) -> list[str]:
    program = str(Path(sys.executable).with_name("unlearn-nb"))
    return [program, "run", study, "--budget", "smoke", "--out", str(out), "--name", name, *arguments]


def finish(study: str, out: Path, name: str, *arguments: str) -> Path:
    """Run a study to its end; returns the run's folder."""
    result = subprocess.run(command(study, out, name, *arguments), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().splitlines()[-1].endswith("report.html")
    return out / study / name


def refused(study: str, out: Path, arguments: list[str], part: str) -> None:
    """A run must end with one sentence that holds `part`, a failure, and no result."""
    result = subprocess.run(command(study, out, "bad", *arguments), capture_output=True, text=True)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.returncode != 0 and len(errors) == 1 and part in errors[0], result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    folder = out / study / "bad"
    assert not (folder / "metrics.json").exists() and not (folder / "report.html").exists()
