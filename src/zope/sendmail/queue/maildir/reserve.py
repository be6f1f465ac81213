"""Owner files that are kept in reserve, so that a processor or an operator can start on a full disk.

Three are made with the queue, and anew whenever a processor starts: with room for some leases, synced.  On a full disk
one of them becomes an owner file by a rename, which needs no space; if there is none, the file of a dead owner does,
with all that it says.  The lock of a file says whether a process has it already.  One in which a death has left a part
of something else is made empty by the next process that locks it.
"""

from __future__ import annotations

import contextlib
import errno
import os

from zope.sendmail.queue.maildir.heartbeat import shows_its_locks
from zope.sendmail.queue.maildir.layout import BELL, RESERVE, Layout
from zope.sendmail.queue.maildir.ownertext import EMPTY, FIRST_SLOTS, HEADER, SLOT, Identity
from zope.sendmail.system.disk import Disk, remove_quietly, same_file

#: One for a processor, one for an operator who makes room, and one that is given up for what must be written down.
_COUNT = 3


def make(layout: Layout, disk: Disk) -> None:
    """Make what is missing of the reserve.  Raises nothing: without room there is none."""
    with contextlib.suppress(OSError):
        present = disk.names(layout.locks)
        for path in _paths(layout):
            if os.path.basename(path) not in present:
                disk.create_in_place(path, EMPTY * (FIRST_SLOTS + 1))


def take(layout: Layout, disk: Disk) -> tuple[str, int] | None:
    """Return path and descriptor of a file that can become an owner file, locked by us; None if there is none."""
    with contextlib.suppress(OSError):
        names = sorted(disk.names(layout.locks))
        dead = [name for name in names if not name.startswith(".") and not name.endswith(BELL)]
        for path in (*_paths(layout), *(os.path.join(layout.locks, name) for name in dead)):
            with contextlib.suppress(OSError):
                if (fd := _locked(disk, path)) is not None:
                    return path, fd
    return None


def _locked(disk: Disk, path: str) -> int | None:
    """Lock a file and return its descriptor; None if it is locked, or cannot be used.  Raises `OSError`."""
    fd = disk.lock_existing(path)
    if fd is None:
        return None
    is_usable = False
    try:
        is_usable = _is_usable(disk, path, fd)
    finally:
        if not is_usable:
            os.close(fd)
    return fd if is_usable else None


def give_up(layout: Layout, disk: Disk) -> bool:
    """Remove one file of the reserve, which makes room for a record; return whether there was one."""
    for path in reversed(_paths(layout)):
        with contextlib.suppress(OSError):
            disk.unlink(path)
            return True
    return False


def become(layout: Layout, disk: Disk, path: str, *pieces: bytes) -> bool:
    """Let a file of the reserve be another one, for what must be written down; return whether that went.

    Some file systems (XFS) may refuse to make a file while some blocks are free, but rename one.  The last file of the
    reserve is left for a processor.

    Guarantee: whatever fails, and at whatever point a death or a loss of power comes, there is nothing at ``path``, or
    all of ``pieces``, durably, with empty lines behind them if the end came before these were cut off.
    """
    text = b"".join(pieces)
    for spare in reversed(_paths(layout)[1:]):
        with contextlib.suppress(OSError):
            fd = _locked(disk, spare)
            if fd is None:
                continue
            try:
                if len(text) > os.fstat(fd).st_size or os.pread(fd, SLOT, 0) != EMPTY:
                    continue
                # 1. The content, in the place of what was there, so that it needs no room.  2. The name.  3. The end:
                # a file that was cut off, and did not get the name, would be none of the reserve any more.
                disk.write_at(fd, text, 0)
                disk.sync_open(fd)
                disk.rename(spare, path)
                _end(disk, path, fd, len(text))
                return True
            finally:
                os.close(fd)
    return False


def _end(disk: Disk, path: str, fd: int, size: int) -> None:
    """Cut off what is behind the content of a file that was renamed; if that fails, remove it.  Raises `OSError`."""
    try:
        if not same_file(os.fstat(fd), disk.stat(path)):  # another process has given one back in this moment
            raise FileNotFoundError(errno.ENOENT, "another file was renamed", path)
        disk.sync_directory(os.path.dirname(path))
        disk.truncate(path, size)
    except OSError:
        disk.unlink(path)
        raise


def give_back(layout: Layout, disk: Disk, path: str) -> None:
    """Let an owner file that ends become a part of the reserve again, or remove it if that is complete.

    What it says of locks that are still out stays in it: the process that takes it next, or takes these locks over,
    reads that.
    """
    remove_quietly(disk, path + BELL)
    present = disk.names(layout.locks)
    for free in _paths(layout):
        if os.path.basename(free) not in present:
            disk.rename(path, free)
            return
    disk.unlink(path)


def _paths(layout: Layout) -> list[str]:
    return [os.path.join(layout.locks, f"{RESERVE}{number}") for number in range(_COUNT)]


def _is_usable(disk: Disk, path: str, fd: int) -> bool:
    """Return whether a locked file can become an owner file; one of the reserve that says nothing is empty then."""
    status = os.fstat(fd)
    if not same_file(status, disk.stat(path)) or status.st_size < SLOT * (FIRST_SLOTS + 1):
        return False
    text = os.pread(fd, SLOT, 0)
    if text.startswith(HEADER):
        owner = Identity.of(text)
        return owner is not None and (owner.host == Identity.here().host or shows_its_locks(disk, text, status))
    if text != EMPTY and os.path.basename(path).startswith(RESERVE):  # it was to `become` another one
        disk.write_at(fd, EMPTY * (status.st_size // SLOT), 0)
        return True
    return text == EMPTY
