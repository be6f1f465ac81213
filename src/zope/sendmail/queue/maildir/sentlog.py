"""Which mails have left a queue: a line for each, in a file for each day, kept for a week.

So that "sent" can be told from "never heard of it".  Nothing else depends on it: trouble with these files harms no
mail, and is told once.  Concurrency: any thread, and any number of processes write to one file.
"""

from __future__ import annotations

import contextlib
import datetime
import os

from zope.sendmail.lifecycle.status import KEPT_DAYS
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.system.forklock import ForkLock

_DAY = 86400.0


class SentLog:
    """See the module."""

    _fd = -1

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self._directory = layout.sent
        self._disk = disk
        self._clock = clock
        #: Until when the open file is the right one.
        self._until = 0.0
        self._in_trouble = False
        #: Nobody writes to a descriptor that another one is closing: its number may be a relay's by then.
        self._mutex = ForkLock()

    def __del__(self) -> None:
        self._close()

    def note(self, name: str, message_id: str) -> None:
        """The mail called `name` is leaving.  Never raises."""
        if not message_id:
            return
        now = self._clock.time()
        line = f"{now:.0f} {name} {message_id}\n".encode("utf-8", "surrogateescape")
        with self._mutex:
            try:
                self._write(line, now)
                self._in_trouble = False
            except OSError as error:
                self._close()
                if not self._in_trouble:
                    self._in_trouble = True
                    maillog.departures_failed(self._directory, error)

    def find(self, message_id: str) -> float | None:
        """When the last mail with this Message-Id left, in seconds since the epoch; None if none is known."""
        if not message_id or message_id.split() != [message_id]:
            return None
        end = f" {message_id}\n".encode("utf-8", "surrogateescape")
        for name in sorted(self._names(), reverse=True):
            with contextlib.suppress(OSError, ValueError):  # a foreign line
                text = self._disk.read(os.path.join(self._directory, name))
                if (at := text.rfind(end)) >= 0:
                    return float(text[text.rfind(b"\n", 0, at) + 1 : at].split(b" ")[0])
        return None

    def close(self) -> None:
        """Let go of the file; the next mail opens it again."""
        with self._mutex:
            self._close()

    def _write(self, line: bytes, now: float) -> None:
        if self._fd < 0 or not self._until - _DAY <= now < self._until:
            self._open(now)
        self._disk.write(self._fd, line)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self, now: float) -> None:
        self._close()
        today = _name(now)
        path = os.path.join(self._directory, today)
        try:
            self._fd = self._disk.open_for_append(path)
        except FileNotFoundError:
            self._disk.make_directory(self._directory)
            self._fd = self._disk.open_for_append(path)
        self._disk.write(self._fd, b"\n")  # else a line that has no end, left by a full disk, would swallow the next
        self._until = (now // _DAY + 1) * _DAY
        oldest = _name(now - KEPT_DAYS * _DAY)
        for name in self._names():
            if name < oldest:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(os.path.join(self._directory, name))

    def _names(self) -> list[str]:
        try:
            return [name for name in self._disk.names(self._directory) if name[:1].isdigit()]
        except FileNotFoundError:
            return []


def _name(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()
