"""System calls of Linux and macOS that `os` does not have.

Each raises `OSError`, with the paths that it is about; one that a signal has interrupted is made again, as those of
`os` are (PEP 475).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import struct
import sys
from collections.abc import Callable
from typing import cast

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1

#: ioctl(2): the attributes of a file (chattr(1)), and that which keeps a file where it is when it is written to.
_GET_FLAGS, _SET_FLAGS, _NO_COPY = 0x80086601, 0x40086602, 0x00800000


def _find_syncfs() -> Callable[[int], int] | None:
    """syncfs(2), where it reports write errors: Linux 5.8 and newer."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if sys.platform != "linux" or release is None or (int(release[1]), int(release[2])) < (5, 8):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):
        return None
    return cast("Callable[[int], int]", function)


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """renameat2(2), which can refuse to replace a file: Linux 3.15 with glibc 2.28, or musl 1.2.5, and newer."""
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    return cast("Callable[[int, bytes, int, bytes, int], int]", function)


_syncfs, _renameat2 = _find_syncfs(), _find_renameat2()

#: Whether `syncfs` can be used.
HAS_SYNCFS = _syncfs is not None


def syncfs(fd: int, path: str) -> None:
    """Return when everything on the file system of an open file, which has this path, is on disk.  Linux only."""
    if _syncfs is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)
    while _syncfs(fd) != 0:
        _raise_errno(path)


def rename_new(old: str, new: str) -> None:
    """Give a file another name; raise `FileExistsError` if the name is taken.  Atomic.  Linux only."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), old, None, new)
    while _renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) != 0:
        _raise_errno(old, new)


def _raise_errno(path: str, other: str | None = None) -> None:
    """Raise what the last call has failed with; return if a signal has interrupted it."""
    number = ctypes.get_errno()
    if number != errno.EINTR:
        raise OSError(number, os.strerror(number), path, None, other)


def keep_in_place(fd: int) -> None:
    """Let an empty file not be copied when it is written to, where the file system knows that.  Raises nothing."""
    if sys.platform == "linux" and sys.maxsize > 2**32:
        with contextlib.suppress(OSError):
            flags = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))[0]
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _NO_COPY))


def flush(fd: int) -> None:
    """fsync(2), and on macOS what fsync is elsewhere: the drive's cache too."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)
