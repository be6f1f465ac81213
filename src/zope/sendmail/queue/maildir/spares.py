"""Spare files in ``tmp/``: empty, and their names are on disk already, so that a mail costs one sync less.

A single mail is written into one of them and goes from there to ``new/``; without a spare it makes a file of its own.
What a spare is to others, and why a loss of power does no harm, stands in ``docs/explanation/internals.rst``.  Where
the disk refuses there are none; nothing here raises because of it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections import deque

from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir.layout import SPARE, Layout
from zope.sendmail.queue.maildir.uncommitted import is_left, origin_of
from zope.sendmail.system.disk import Disk, remove_quietly
from zope.sendmail.system.forklock import ForkLock

#: So many are made at a time at most; one sync of ``tmp/`` is enough for all of them.
_MOST = 16

#: Seconds after which a spare is not used any more: other hosts remove old ones.
_FRESH = 3600.0


class Spares:
    """The spare files of one queue that this process has made.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._mutex = ForkLock()
        #: Paths, and when each was made, by the wall clock, which other hosts know as well.
        self._ready: deque[tuple[str, float]] = deque()
        #: How many are made next.  A program that sends one mail leaves none behind.
        self._next = 0
        self._disk: Disk | None = None

    def take(self) -> str:
        """Return the path of a spare file, which is the caller's from now on; the empty string if there is none."""
        while self._ready:
            try:
                path, made = self._ready.popleft()
            except IndexError:  # pragma: no cover - another thread took the last one between these two lines
                break
            if abs(time.time() - made) < _FRESH:
                return path
            self.remove([path])
        return ""

    def make(self, layout: Layout, disk: Disk) -> list[str]:
        """Make more of them, if there are none; the caller syncs ``tmp/`` then, and calls `add`, or `remove`."""
        with self._mutex:
            count, self._next = self._next, min(_MOST, 2 * self._next or 2)
            if self._ready or not count:
                return []
            if self._disk is None:
                sweep(layout, disk)
            self._disk = disk
        made: list[str] = []
        with contextlib.suppress(OSError):
            for _ in range(count):
                path = os.path.join(layout.tmp, SPARE + unique_name())
                disk.create(path)
                made.append(path)
        return made

    def add(self, paths: list[str]) -> None:
        """Take note that the names of these files are on disk."""
        now = time.time()
        self._ready.extend((path, now) for path in paths)

    def clear(self) -> None:
        """Remove all that are left."""
        paths = [path for path, _ in self._ready]
        self._ready.clear()
        self.remove(paths)

    def remove(self, paths: list[str]) -> None:
        """Remove these files, which no mail stands in."""
        for path in paths:
            with contextlib.suppress(OSError):
                remove_quietly(self._disk or Disk(), path)


def sweep(layout: Layout, disk: Disk) -> None:
    """Remove the empty files that dead processes have left."""
    with contextlib.suppress(OSError):
        for name in disk.names(layout.tmp):
            if name.startswith(SPARE):
                with contextlib.suppress(OSError):
                    _remove_if_left(disk, os.path.join(layout.tmp, name))


def _remove_if_left(disk: Disk, path: str) -> None:
    """Remove a spare file that is empty, and of a process that cannot use it any more.

    A process that begins to use a file locks it first, and sees then whether it is still there; so it is removed with
    that lock held.
    """
    origin = origin_of(os.path.basename(path))
    if origin is not None and is_left(origin, time.time()):
        with disk.locked(path) as fd:
            if fd is not None and os.fstat(fd).st_size == 0:
                disk.unlink(path)


_spares: dict[str, Spares] = {}


def spares_of(location: str) -> Spares:
    """Return those of this directory."""
    return _spares.setdefault(location, Spares())


def _clear() -> None:
    for each in list(_spares.values()):
        each.clear()


atexit.register(_clear)
# They are the parent's.
os.register_at_fork(after_in_child=_spares.clear)
