"""When a relay may get the next mail, for all processes of a host that send from one queue directory.

A file in ``processors/`` for each relay has the time, and the one at which that was noted, and is locked for the moment
in which turns are taken.  Nothing is synced: after a crash of the machine the turns begin anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from zope.sendmail.errors import QueueTrouble
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk

#: Seconds between two tries to have the lock, and how many tries.
_PAUSE, _TRIES = 0.005, 200

#: A turn in more seconds than this is none.
_FAR = 3600.0


class Turns:
    """The turns of all relays.  Concurrency: any thread and any process."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self._layout = layout
        self._disk = disk
        self._clock = clock

    def take(self, relay: str, rate: float, count: int) -> float:
        """See `zope.sendmail.interfaces.IMailQueue.take_turns`."""
        path = os.path.join(self._layout.processors, f"turns-{hashlib.sha256(relay.encode()).hexdigest()[:24]}")
        try:
            for _ in range(_TRIES):
                self._make(path)
                with self._disk.locked(path) as fd:
                    if fd is not None:
                        return self._take(fd, count / rate)
                self._clock.sleep(_PAUSE)
        except OSError as error:
            raise QueueTrouble(f"the turns of relay {relay} cannot be written down: {error}") from error
        raise QueueTrouble(f"the turns of relay {relay} cannot be had: another process keeps the lock of {path}")

    def _make(self, path: str) -> None:
        if not os.path.exists(path):
            self._disk.make_directory(self._layout.processors)
            with contextlib.suppress(FileExistsError):  # another process was faster
                self._disk.create(path)

    def _take(self, fd: int, seconds: float) -> float:
        now = self._clock.time()
        begin = now
        with contextlib.suppress(ValueError, IndexError):
            words = os.pread(fd, 64, 0).split()
            begin, noted = float(words[0]), float(words[1]) if len(words) > 1 else now
            begin -= max(0.0, noted - now)  # the clock was set back
        if not now < begin < now + _FAR:
            begin = now
        self._disk.write_at(fd, f"{begin + seconds:<30.6f}\n{now:<30.6f}\n".encode("ascii"), 0)
        return begin - now
