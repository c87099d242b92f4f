"""Runs of studies that are killed at moments of their work, told by the stages of an undisturbed run."""

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from studies import command

WHO = ("the program", "the kernel", "both")  # who is killed, in turn


@dataclass(frozen=True)
class Stage:
    """A stage of the undisturbed run: its folder's name, and when it was begun and ended, in seconds of the run."""

    folder: str
    begun: float
    ended: float


def timeline(run: Path) -> tuple[list[Stage], float]:
    """The stages of a finished run, and how long all of it took."""
    start, found = (run / "params.yaml").stat().st_mtime, []
    for facts in (run / "stages").glob("*/.stage.json"):
        ended = facts.stat().st_mtime - start
        found.append(Stage(facts.parent.name, ended - json.loads(facts.read_text())["seconds"], ended))
    return sorted(found, key=lambda stage: stage.ended), (run / "report.html").stat().st_mtime - start


def moments(seed: str, count: int, end: float) -> list[float]:
    """As many random moments up to `end`, one in each of equal parts."""
    dice = random.Random(seed)
    return [end * (part + dice.random()) / count for part in range(count)]


def finished_stages(folder: Path) -> dict[str, int]:
    """Folders of a run's finished stages, and when they were finished."""
    return {facts.parent.name: facts.stat().st_mtime_ns for facts in (folder / "stages").glob("[!.]*/.stage.json")}


class Victim:
    """One run of a study in an environment of its own, which is killed time and again."""

    def __init__(self, study: str, place: Path, models: Path, arguments: list[str]):
        """`place` gets the reports, `tmp` and what kernels need; its path must be short, as paths of sockets are."""
        self.out = place / "reports"
        self.command = command(study, self.out, "killed", *arguments)
        self.folder = self.out / study / "killed"
        self.apart = [place / "tmp", place / "runtime"]
        for folder in self.apart:
            folder.mkdir(parents=True)
        self.environment = os.environ | {"TMPDIR": str(place / "tmp"), "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
                                         "UNLEARN_NB_CACHE": str(models)}

    def start(self) -> psutil.Popen:
        with open(self.out.parent / "said.txt", "w") as said:
            return psutil.Popen(self.command, env=self.environment, stdout=said, stderr=said)

    def said(self) -> str:
        return (self.out.parent / "said.txt").read_text()

    def leftovers(self) -> list[str]:
        """Temporary files, sockets and half-written folders, and processes of this run that are alive."""
        files = [str(path) for folder in self.apart for path in folder.rglob("*")
                 if not path.name.startswith("torchinductor_")]  # an empty folder that PyTorch makes for each user
        files += [str(path) for path in self.out.rglob("*") if path.name.endswith(".tmp")]
        return files + [" ".join(process.cmdline()) for process in self.processes()]

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == self.environment["TMPDIR"]:
                    found.append(process)
            except psutil.Error:
                continue  # it has ended, or is not ours
        return found

    def kill_at(self, moment: float, stages: list[Stage], who: str, hurry: float = 1.0) -> str | None:
        """Run until `moment` of the undisturbed run's work, and kill; returns where it hit, None if the run had ended.

        A run that goes on begins a stage anew that it had not finished, and needs a while to begin at all. `hurry`
        shortens the wait for what the undisturbed run took its time for.
        """
        before, launched = finished_stages(self.folder), time.monotonic()
        old = self.stages_seen()
        begun = [stage for stage in stages if stage.begun <= moment]
        with self.start() as program:
            if begun and begun[-1].folder not in before:
                while program.poll() is None and not any(begun[-1].folder in name for name in self.stages_seen() - old):
                    time.sleep(0.02)
                due = time.monotonic() + hurry * (moment - begun[-1].begun)
            else:
                due = launched + hurry * (stages[0].begun + moment - begun[-1].ended if begun else moment)
            while program.poll() is None and time.monotonic() < due:
                time.sleep(0.02)
            if program.poll() is not None:
                assert program.returncode == 0, self.said()
                return None
            self.kill(program, who)
        return self.where(before)

    def kill(self, program: psutil.Popen, who: str) -> None:
        kernels = program.children(recursive=True)
        chosen = {"the program": [program], "the kernel": kernels or [program], "both": [program, *kernels]}
        for process in chosen[who]:
            process.kill()
        program.wait()

    def stages_seen(self) -> set[str]:
        """Names of all stages' folders, finished or not."""
        return {path.name for path in (self.folder / "stages").glob("*")}

    def where(self, before: dict[str, int]) -> str:
        """Where a run was killed that had finished the stages `before` when it was started."""
        half = [path.name for path in (self.folder / "stages").glob(".*.tmp")]
        new = [name for name in finished_stages(self.folder) if name not in before]
        if any((self.folder / place / "metrics.json").exists() for place in (".", "last-try")):
            return "after the last cell"
        if half:
            return f"in {', '.join(half)}"
        return f"after {len(new)} new stages, between stages" if new else "before its first new stage"
