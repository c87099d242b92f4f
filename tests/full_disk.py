"""A double of a disk that fills up: what Python's files write below a folder is counted, in this process and others.

FULL_DISK names the bytes that have room there, and the folder; "any" instead of a number lets all of it pass.
"""

import builtins
import errno
import io
import os
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

EACH = 100  # bytes that a file takes besides what it holds


def used(folder: Path) -> int:
    """Bytes that all files below a folder take."""
    return sum(EACH + path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check(data: bytes | str, path: str) -> None:
    room, _, folder = os.environ.get("FULL_DISK", "any").partition(" ")
    if room != "any" and Path(path).is_relative_to(folder):
        size = len(data.encode("utf-8", "replace") if isinstance(data, str) else data)
        if used(Path(folder)) + size > int(room):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open(file, mode="r", *arguments, real=io.open, **options):
    opened = real(file, mode, *arguments, **options)
    if set(mode) & set("wax+") and not isinstance(file, int):
        path = os.path.abspath(file)

        def write(data, write=opened.write):
            _check(data, path)
            count = write(data)
            opened.flush()
            return count

        opened.write = write
    return opened


def full_disk() -> ExitStack:
    """From now on, files that are opened in this process lie on such a disk, until what comes back is closed."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(io, "open", _open))
    stack.enter_context(mock.patch.object(builtins, "open", _open))
    return stack
