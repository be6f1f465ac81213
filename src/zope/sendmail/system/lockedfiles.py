"""Locks on files, and what is done to files that are open.

A lock is on an open file, so that the kernel ends it with the process.  Each method does one thing and raises
`OSError`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from zope.sendmail.system.systemcalls import keep_in_place

#: What others may do with a file of ours: nothing.
FILE_MODE = 0o600


class LockedFiles:
    """The part of a `Disk` that is about open files.  Concurrency: any thread."""

    def open_locked(self, path: str) -> int:
        """Make a new private file, locked by us; return its descriptor.

        Where the file system writes what changes elsewhere (btrfs), it does not with this file, so that writing over
        what is there needs no room.
        """
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.fchmod(fd, FILE_MODE)
            keep_in_place(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        return fd

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[int | None]:
        """Hold the lock of an existing file; give its descriptor, or None if another process holds the lock."""
        # For writing as well: over NFS an exclusive flock on a read-only descriptor is refused.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                try:
                    yield fd
                finally:
                    # Closing is not enough: a child that another thread forked meanwhile has this descriptor as well.
                    fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def lock_existing(self, path: str) -> int | None:
        """Lock an existing file; return its descriptor, or None if another process holds the lock."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_existing(self, path: str) -> int:
        """Return a descriptor for reading and writing a file that is there, at any place in it."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Return so many bytes from ``offset`` on; fewer at the end of the file."""
        return os.pread(fd, size, offset)

    def touch(self, fd: int) -> float:
        """Set the time stamp of an open file to now, by the clock of the file system; return it."""
        os.utime(fd)
        return os.fstat(fd).st_mtime

    def stamp_open(self, fd: int, modified: int) -> None:
        """Set the time stamp of an open file, nanoseconds since the epoch."""
        os.utime(fd, ns=(modified, modified))

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write ``data`` at ``offset``, in one call."""
        os.pwrite(fd, data, offset)
