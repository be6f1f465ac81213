"""What is known of attempts for which a full disk has no room: plain deferrals, whose loss costs no more than a count.

Kept in the memory of the process and, where there is a history file, be it empty, in its time stamp: when the message
is due, and in the nanoseconds how many attempts there were.  Raises nothing.
"""

from __future__ import annotations

import contextlib
import os

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.system.disk import Disk

#: What the nanoseconds of a stamp begin with that tells of attempts; three digits for their number follow.
_MARK = 777_770_000

_MANY, _SECOND = 999, 10**9


def record_in_stamp(status: os.stat_result) -> Record | None:
    """Return what the time stamp of an empty history tells; None if it tells nothing."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, _SECOND)
    attempts = nanoseconds - _MARK
    if status.st_size or not 0 < attempts <= _MANY:
        return None
    return Record(State.DEFERRED, attempts=attempts, time=min(status.st_ctime, float(seconds)), due=float(seconds))


class UnwrittenRecords:
    """Those of one process.  Concurrency: one message, one caller."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._records: dict[str, Record] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def note(self, key: str, record: Record, history: str) -> None:
        """Remember an attempt that was deferred.

        :param history: the path at which it would have been written down.
        """
        self._records[key] = record
        stamp = int(record.due) * _SECOND + _MARK + min(record.attempts, _MANY)
        with contextlib.suppress(OSError):
            fd = self._disk.open_existing(history)
            try:
                self._disk.stamp_open(fd, stamp)
            finally:
                os.close(fd)

    def or_later(self, key: str, written: Record) -> Record:
        """Return how it stands with a message of which `written` is on disk."""
        if not self._records:
            return written
        known = self._records.get(key)
        return written if known is None or written.time >= known.time else known

    def forget(self, key: str) -> None:
        """Take note that the message is gone, or that what is on disk rules again."""
        if self._records:
            self._records.pop(key, None)
