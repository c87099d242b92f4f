"""Kernels that are forked from one process in which the heavy libraries are loaded, each a process of its own.

Loading torch, transformers and peft takes a kernel five seconds; the notebooks of modules are a hundred. Nothing of the
library itself is loaded before the fork, so what a notebook imports from it is loaded by that notebook.
"""

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from unittest import mock

LIBRARIES = ["torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "pandas", "scipy.stats",
             "matplotlib.pyplot", "matplotlib_inline.backend_inline", "ipykernel.kernelapp", "IPython.core.display"]

_context = multiprocessing.get_context("forkserver")


def _kernel(command: list[str], folder: str, environment: dict[str, str], ready) -> None:
    """What a forked process does: be the kernel that `command` would start."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    ready.send(True)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    IPKernelApp.launch_instance(command[command.index("ipykernel_launcher") + 1:])


class Forked:
    """A forked kernel, to be used like a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], *, cwd: str, env: dict[str, str], **_):
        # the kernel would have set it before it loads matplotlib
        with mock.patch.dict(os.environ, MPLBACKEND="module://matplotlib_inline.backend_inline"):
            _context.set_forkserver_preload(LIBRARIES)
            forkserver.ensure_running()
        ready, told = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_kernel, args=(command, cwd, env, told))
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
