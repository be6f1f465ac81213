"""Shows other processes that a transaction which has staged mail lives.

Its first file in ``tmp/`` stays open, with a lock on it, until the transaction has ended.  The kernel ends the lock
with the process, however that dies, and shows it to every container on the host: no process is taken for dead by its
number.
A courtesy: where there is no lock, the name of the file has to do (`zope.sendmail.queue.maildir.liveness`).
"""

from __future__ import annotations

import os
import weakref

from zope.sendmail.system.disk import Disk

#: So many transactions of a process are shown at a time; a file descriptor each is too much for more.
_MOST = 64


class Hold:
    """The open file of one transaction.  Closed at its end, at the latest with this object, and in a forked child."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _all.add(self)

    @staticmethod
    def can_have_one_more() -> bool:
        """Return whether there are few enough of them in this process."""
        return len(_all) < _MOST

    def sync(self, disk: Disk) -> None:
        """Return when the content of the file is on disk."""
        disk.sync_open(self._fd)

    def close(self) -> None:
        """End the lock.  Harmless when repeated."""
        fd, self._fd = self._fd, -1
        _all.discard(self)
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


_all: weakref.WeakSet[Hold] = weakref.WeakSet()


def _after_fork() -> None:
    for hold in list(_all):
        hold.close()


os.register_at_fork(after_in_child=_after_fork)


def is_held(disk: Disk, path: str) -> bool:
    """Return whether a living process holds the staged file at `path`, or one of those in the group at `path`."""
    try:
        return _is_locked(disk, path)
    except IsADirectoryError:
        return any(_is_locked(disk, os.path.join(path, name)) for name in disk.names(path) if not name.startswith("."))


def _is_locked(disk: Disk, path: str) -> bool:
    with disk.locked(path) as fd:
        return fd is None
