"""Disks for tests: one that fails when it is told to, and one that writes down what is done to it.

Both work on a real directory; everything that a queue does to its files goes through a
`zope.sendmail.system.disk.Disk`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zope.sendmail.message.pieces import Piece, joined
from zope.sendmail.system.disk import Disk

#: The calls that a disk can refuse.
CALLS = (
    "create", "create_in_place", "create_locked", "fill",
    "append", "truncate", "make_directory", "sync_file", "sync_open", "sync_files",
    "sync_file_system",
    "sync_directory",
    "rename", "link", "unlink", "remove_directory", "stamp", "names", "stat", "exists", "open", "read", "read_small",
    "read_tail", "open_locked", "lock_existing", "open_existing", "read_at", "rename_new", "write_at",
)  # fmt: skip


class FaultyDisk(Disk):
    """A disk whose `fail_at`-th call (from 1) fails with the error number `error`; later calls succeed again.

    With `for_ever` all later calls fail as well.  ``calls`` counts, ``failed`` names the call that was refused.
    """

    def __init__(self, fail_at: int = 0, error: int = errno.EIO, *, for_ever: bool = False) -> None:
        self.fail_at = fail_at
        self.error = error
        self.for_ever = for_ever
        self.calls = 0
        self.failed = ""

    def _count(self, call: str) -> None:
        self.calls += 1
        if self.calls == self.fail_at or (self.for_ever and 0 < self.fail_at < self.calls):
            self.failed = call
            raise OSError(self.error, os.strerror(self.error))


def _counted(call: str) -> Callable[..., Any]:
    original = getattr(Disk, call)

    def method(self: FaultyDisk, *arguments: Any) -> Any:
        self._count(call)
        return original(self, *arguments)

    method.__name__ = call
    method.__doc__ = original.__doc__
    return method


for _call in CALLS:
    setattr(FaultyDisk, _call, _counted(_call))


@dataclass(frozen=True)
class Op:
    """One change to a disk: what, on which path (relative to the root), with which second path or data."""

    call: str
    path: str
    other: str = ""
    data: bytes = b""
    offset: int = 0


class RecordingDisk(Disk):
    """Writes down every change in ``ops``."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.ops: list[Op] = []
        self._paths: dict[int, str] = {}

    def create(self, path: str, *pieces: Piece) -> None:
        super().create(path, *pieces)
        self._note("create", path, data=joined(pieces))

    def create_in_place(self, path: str, data: bytes) -> None:
        super().create_in_place(path, data)
        self._note("create", path, data=data)
        self._note("sync", path)

    def create_locked(self, path: str, *pieces: Piece) -> int:
        fd = super().create_locked(path, *pieces)
        self._note("create", path, data=joined(pieces))
        return fd

    def fill(self, path: str, *pieces: Piece) -> int:
        fd = super().fill(path, *pieces)
        self._paths[fd] = path
        self._note("append", path, data=joined(pieces))
        return fd

    def sync_open(self, fd: int) -> None:
        super().sync_open(fd)
        self._note("sync", self._paths[fd])

    def append(self, path: str, *pieces: Piece) -> None:
        super().append(path, *pieces)
        self._note("append", path, data=joined(pieces))

    def truncate(self, path: str, size: int) -> None:
        super().truncate(path, size)
        self._note("truncate", path, offset=size)

    def make_directory(self, path: str) -> bool:
        made = super().make_directory(path)
        if made:
            self._note("mkdir", path)
        return made

    def sync_file(self, path: str) -> None:
        super().sync_file(path)
        self._note("sync", path)

    def sync_file_system(self, path: str) -> None:
        super().sync_file_system(path)
        self._note("sync_all", path)

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._note("sync_directory", path)

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self._paths = {fd: new if path == old else path for fd, path in self._paths.items()}
        self._note("rename", old, new)

    def rename_new(self, old: str, new: str) -> None:
        super().rename_new(old, new)
        self._note("rename", old, new)

    def lock_existing(self, path: str) -> int | None:
        fd = super().lock_existing(path)
        if fd is not None:
            self._paths[fd] = path
        return fd

    def open_existing(self, path: str) -> int:
        fd = super().open_existing(path)
        self._paths[fd] = path
        return fd

    def link(self, old: str, new: str) -> None:
        super().link(old, new)
        self._note("link", old, new)

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._note("unlink", path)

    def remove_directory(self, path: str) -> None:
        super().remove_directory(path)
        self._note("rmdir", path)

    def open_locked(self, path: str) -> int:
        fd = super().open_locked(path)
        self._paths[fd] = path
        self._note("create", path)
        return fd

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        super().write_at(fd, data, offset)
        self._note("write_at", self._paths[fd], data=data, offset=offset)

    def _note(self, call: str, path: str, other: str = "", data: bytes = b"", offset: int = 0) -> None:
        relative = os.path.relpath(path, self.root)
        self.ops.append(Op(call, relative, os.path.relpath(other, self.root) if other else "", data, offset))


__all__ = ["CALLS", "FaultyDisk", "Op", "RecordingDisk"]
