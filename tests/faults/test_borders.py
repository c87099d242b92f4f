"""Failures of the system, of libraries and of people at the border: one sentence with what, where and what to do."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small_study import write_study

from unlearn_nb.benches import load_bench, load_generic
from unlearn_nb.cli import main
from unlearn_nb.core import UnlearnError, boundary, first_line, meaning, placeless, unknown
from unlearn_nb.models import load_model
from unlearn_nb.runs import Run, check_parameters, explain, find_study, list_runs, read_run, run_study, why_dead
from unlearn_nb.unlearning import world


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "some/file")


FAILURES = [
    (of_system(errno.ENOSPC), "free some space"), (of_system(errno.EDQUOT), "quota"),
    (of_system(errno.EROFS), "read-only"), (of_system(errno.EACCES), "change the permissions"),
    (of_system(errno.EMFILE), "ulimit -n"), (of_system(errno.ENFILE), "ulimit -n"),
    (of_system(errno.ENAMETOOLONG), "give a shorter one"), (of_system(errno.ENOMEM), "take a smaller model"),
    (of_system(errno.EIO), "some/file"), (MemoryError(), "take a smaller model"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "take a smaller model"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"), "take a smaller"),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "take a smaller model"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "free some space"),
    (ValueError("embedded null byte"), "zero byte"),
]


@pytest.mark.parametrize("error, part", FAILURES, ids=lambda value: str(value)[:40])
def test_what_the_system_refuses_is_a_sentence(error, part):
    with pytest.raises(UnlearnError, match="^it can't be saved: ") as caught, boundary("it can't be saved"):
        raise error
    assert part in str(caught.value) and "\n" not in str(caught.value) and caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), RuntimeError("shapes differ"), KeyError("a"),
                                   KeyboardInterrupt(), UnlearnError("no rows; give rows")])
def test_a_bug_an_interrupt_and_a_sentence_pass_the_border_as_they_are(error):
    with pytest.raises(type(error)) as caught, boundary("x"):
        raise error
    assert caught.value is error


def test_a_torn_file_of_tensors_is_a_sentence(tmp_path):
    save_file({"a": torch.ones(100)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for size in (0, 5, 60, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:size])
        with pytest.raises(UnlearnError, match="cut or damaged: copy it again"), boundary("x"):
            load_file(tmp_path / "a.safetensors")


LONG = "x" * 5000


@pytest.mark.parametrize("call", [
    lambda: load_generic(f"jsonl:{LONG}", 1), lambda: load_bench(f"jsonl:{LONG}"), lambda: load_model(LONG),
    lambda: load_generic("jsonl:a\0b", 1), lambda: load_bench("jsonl:a\0b"), lambda: find_study(f"{LONG}.ipynb"),
    lambda: unknown("bench", "x" * 10**7, ["tofu"]),
], ids=["generic", "bench", "model", "zero in generic", "zero in bench", "study", "name"])
def test_overlong_names_and_zero_bytes_are_refused_in_a_short_sentence(call):
    with pytest.raises(UnlearnError) as caught:
        raise call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 7000


def test_rows_that_the_system_does_not_give_are_a_sentence(tmp_path, monkeypatch):
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "a", "response": "b"}')

    def refuse(path, *arguments, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("unlearn_nb.benches.tables.open", refuse, raising=False)
    with pytest.raises(UnlearnError, match="the bench can't be loaded: too many files are open: raise the limit"):
        load_bench(f"jsonl:{tmp_path}")


@pytest.mark.parametrize("name, value", [("model", LONG), ("bench", f"jsonl:{LONG}"), ("model", "a\0b"),
                                         ("bench", "jsonl:a\0b"), ("model", "~no-such-user/x")])
def test_parameters_that_no_path_can_be(tmp_path, name, value):
    study = write_study(tmp_path / "s.ipynb", 'model = "tiny"\nbench = "biographies"\nrun_dir = ""')
    with pytest.raises(UnlearnError, match=f"parameter '{name}' can't be") as caught:
        check_parameters(study, {name: value})
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"MASTER_PORT": "x"}, {"MASTER_PORT": "70000"}, {"RANK": "x"}, {"WORLD_SIZE": "1.5"},
                                   {"LOCAL_RANK": "٣x"}])
def test_garbage_in_torchruns_variables_is_a_sentence(monkeypatch, wrong):
    good = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in (good | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnlearnError, match="start the processes with torchrun"):
        world()


# --- studies


def test_a_figure_that_cant_be_drawn_is_named(tmp_path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.set_title(r"$\frac{$")  # no formula
    with pytest.raises(UnlearnError, match="figure 'scores' can't be drawn: "):
        Run.open(tmp_path).figure(figure, "scores")
    plt.close(figure)


@pytest.mark.parametrize("status, kills, sentence", [
    (-9, 0, "killed by signal 9 (SIGKILL)"), (-11, 1, "killed by signal 11 (SIGSEGV)"), (None, 0, "nothing says why"),
    (-9, 1, f"killed by the system; {meaning('MemoryError', '')}"), (3, 0, "it ended with status 3"),
])
def test_lack_of_memory_is_named_only_where_the_system_counted_it(status, kills, sentence):
    assert why_dead(status, kills) == sentence


def test_an_error_as_long_as_a_file_ends_in_short_texts(tmp_path):
    sentence, text = explain("s", tmp_path, ValueError("x" * 30_000_000))
    assert len(sentence) < 3000 and len(text) < 1_100_000 and len(first_line(ValueError("x" * 10**7))) < 1100


@pytest.mark.parametrize("number, part", [(errno.EROFS, "read-only"), (errno.ENOSPC, "disk is full")])
def test_a_folder_of_reports_that_takes_nothing_is_one_sentence(tmp_path, monkeypatch, number, part):
    def refuse(folder):
        raise of_system(number)

    monkeypatch.setattr("unlearn_nb.runs.execute.begin_try", refuse)
    study = write_study(tmp_path / "s.ipynb", 'run_dir = ""')
    with pytest.raises(UnlearnError, match=f"can't be written .*{part}.*--out"):
        run_study(study, out=tmp_path / "out")


# --- the command


def command(*arguments: str, **environment: str):
    return CliRunner().invoke(main, arguments, env=environment)


def test_a_bug_is_one_line_and_its_trace_is_shown_when_asked_for(monkeypatch):
    monkeypatch.setattr("unlearn_nb.cli.looking.find_studies", lambda: 1 / 0)
    result = command("list")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "ZeroDivisionError" in result.stderr
    for shown in (command("--debug", "list"), command("list", UNLEARN_NB_DEBUG="1")):
        assert shown.exit_code == 1 and "Traceback" in shown.stderr and shown.stderr.endswith(result.stderr)


@pytest.mark.parametrize("stop, status, said", [
    (KeyboardInterrupt(), 130, "stopped\n"), (SystemExit(143), 143, "stopped\n"),
    (BrokenPipeError(errno.EPIPE, "x"), 141, ""), (of_system(errno.EMFILE), 1, "Error: too many files are open"),
    (MemoryError(), 1, "Error: there is not enough memory"),
])
def test_how_a_command_ends(monkeypatch, stop, status, said):
    def end(out):
        raise stop

    monkeypatch.setattr("unlearn_nb.cli.looking.list_runs", end)
    result = command("list")
    assert result.exit_code == status and result.stderr.startswith(said) and result.stderr.count("\n") == bool(said)


def test_a_report_whose_path_cant_be_printed_is_a_success(tmp_path, monkeypatch):
    import click

    def echo(text, err=False, echo=click.echo):
        if not err:
            raise of_system(errno.ENOSPC)
        echo(text, err=True)

    monkeypatch.setattr("unlearn_nb.cli.running.run_study", lambda *arguments, **options: tmp_path / "report.html")
    monkeypatch.setattr("unlearn_nb.cli.running.click.echo", echo)
    result = command("run", "merging")
    assert result.exit_code == 0 and f"the report is {tmp_path}/report.html" in result.stderr


# what a job in the background inherits, which ignores interrupts, is not what is tested
PROGRAM = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
           "from unlearn_nb.start import main; main()")


def test_an_interrupt_while_modules_load_is_one_line(tmp_path):
    (tmp_path / "click.py").write_text("import time\nopen('loading', 'w').close()\ntime.sleep(60)")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {PROGRAM}", "list"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "loading", process)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "stopped\n" and process.returncode == 130


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, "it must not end before"
        time.sleep(0.05)


def test_sigterm_stops_a_run_with_its_kernel_and_the_run_is_interrupted(tmp_path):
    study = write_study(tmp_path / "small.ipynb")
    command = [sys.executable, "-c", PROGRAM, "run", str(study), "-p", "fault", "hang", "--name", "x"]
    folder = tmp_path / "reports" / "small" / "x"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(folder / "hung", process)
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate()
    assert process.returncode == 143 and not stdout and stderr.splitlines()[-1].startswith("interrupted"), stderr
    assert "Traceback" not in stderr and kernels and not any(kernel.is_running() for kernel in kernels)
    assert [run.state for run in list_runs(tmp_path / "reports")] == ["interrupted"]
    assert read_run(folder).params["fault"] == "hang"


def test_a_current_folder_that_was_removed_is_one_sentence(tmp_path, monkeypatch):
    study = write_study(tmp_path / "s.ipynb", 'run_dir = ""')
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UnlearnError, match="^the current folder was removed: change into one that is there$"):
        run_study(study, out=tmp_path / "out")
    assert placeless("x") == "x"
