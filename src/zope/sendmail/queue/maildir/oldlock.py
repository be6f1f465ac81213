"""The lock of an older release: a second name of the message, which counts by its time stamp alone."""

from __future__ import annotations

from zope.sendmail.queue.maildir.locks import MAX_SEND_TIME
from zope.sendmail.queue.maildir.ownerless import said_by
from zope.sendmail.queue.maildir.ownertext import phase_of
from zope.sendmail.system.disk import Disk


def made_at(disk: Disk, path: str) -> float | None:
    """Return when an older release made a lock, seconds since the epoch; None if it is a lock of this one.

    :raises OSError: it cannot be read; `FileNotFoundError`: there is none.
    """
    with disk.open(path) as stream:
        status = disk.stat(path)
        if phase_of(stream.read(512), "") is not None or said_by(status) is not None:
            return None
    return status.st_mtime


def given_up_at(made: float, now: float) -> float:
    """Return when such a lock is given up, seconds since the epoch: three hours after it was made."""
    return min(made, now) + MAX_SEND_TIME
