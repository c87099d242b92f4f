"""Kernels and scripts forked from one process in which the heavy libraries are loaded, each a process of its own.

Loading torch, transformers and peft takes five seconds; the notebooks of modules are a hundred. Nothing of the library
itself is loaded before the fork, so what a notebook imports from it is loaded by that notebook.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver
from pathlib import Path
from unittest import mock

LIBRARIES = ["torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "pandas", "scipy.stats",
             "matplotlib.pyplot", "matplotlib_inline.backend_inline", "ipykernel.kernelapp", "IPython.core.display"]

_context = multiprocessing.get_context("forkserver")


def _ready() -> None:
    """Start the process that forks, if it is not there."""
    # a kernel would have set it before it loads matplotlib
    with mock.patch.dict(os.environ, MPLBACKEND="module://matplotlib_inline.backend_inline"):
        _context.set_forkserver_preload(LIBRARIES)
        forkserver.ensure_running()


def _kernel(command: list[str], folder: str, environment: dict[str, str], output: Path | None, ready) -> None:
    """What a forked process does: be the kernel that `command` would start."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    ready.send(True)
    if output is not None:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    IPKernelApp.launch_instance(command[command.index("ipykernel_launcher") + 1:])


class Forked:
    """A forked kernel, to be used like a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], *, env: dict[str, str], cwd: str | None = None, output: Path | None = None,
                 **_):
        _ready()
        ready, told = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_kernel, args=(command, cwd or os.getcwd(), env, output, told))
        self.process.start()
        told.close()
        ready.recv()  # from now on, a signal to its group reaches nobody else
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextmanager
def forked_kernels(output: Path | None = None) -> Iterator[None]:
    """Whoever starts a kernel here gets a forked one; what it prints itself is added to the file `output`."""
    with mock.patch("jupyter_client.provisioning.local_provisioner.launch_kernel", partial(Forked, output=output)):
        yield


def _script(path: Path, arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def run_as_two_processes(path: Path, *arguments: str | Path) -> None:
    """Run a script as `torchrun --nproc_per_node=2` does: two processes that find each other by their environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    _ready()
    processes = [_context.Process(target=_script, args=(path, [str(argument) for argument in arguments],
                                                        group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
                 for rank in range(2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        connection.wait([process.sentinel for process in processes if process.is_alive()])
        if any(process.exitcode for process in processes):
            [process.kill() for process in processes]  # the other one would wait for it
    assert [process.exitcode for process in processes] == [0, 0]
