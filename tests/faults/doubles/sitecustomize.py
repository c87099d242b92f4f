"""A double of a poor machine, read by Python at its start: no locks, no sockets that are files, another alphabet.

POOR_MACHINE names what it lacks: "locks", "sockets"; POOR_ENCODING the encoding that files have by default.
"""

import builtins
import errno
import fcntl
import io
import os
import socket

lacks = os.environ.get("POOR_MACHINE", "").split()
encoding_of_files = os.environ.get("POOR_ENCODING")


def _flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


class _Socket(socket.socket):
    def bind(self, address):
        if self.family == socket.AF_UNIX:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().bind(address)


def _open(file, mode="r", buffering=-1, encoding=None, *rest, real=io.open, **more):
    if "b" not in mode and encoding in (None, "locale"):
        encoding = encoding_of_files
    return real(file, mode, buffering, encoding, *rest, **more)


if "locks" in lacks:
    fcntl.flock = _flock
if "sockets" in lacks:
    socket.socket = _Socket
if encoding_of_files:
    builtins.open = io.open = _open
