"""Whether the mail in ``tmp/`` is of a transaction under way, or of a process that died before it committed.

If a process died between the vote and the finish, it cannot be known whether its transaction committed elsewhere, so
such mail is *in doubt*: kept, shown and never sent.  Changes nothing.  Fails with `OSError` where the disk refuses.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from zope.sendmail.queue.maildir.hold import is_held
from zope.sendmail.queue.maildir.layout import SPARE, is_spare
from zope.sendmail.queue.maildir.liveness import Liveness, Origin
from zope.sendmail.system.disk import Disk

#: Seconds for which a transaction may be open; qmail cleans a ``tmp`` after 36 hours.
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """A file or a group of files in ``tmp/`` that a process has made there."""

    name: str
    path: str
    is_group: bool
    origin: Origin
    liveness: Liveness
    #: When it was written, in seconds since the epoch, and how long ago that is.
    written: float
    age: float

    @property
    def is_in_doubt(self) -> bool:
        """Whether no living process can commit it any more, or none that could be asked has done so for a day."""
        return _can_be_ended(self.liveness, self.age)


def _can_be_ended(liveness: Liveness, age: float) -> bool:
    return liveness is Liveness.DEAD or (liveness is Liveness.ELSEWHERE and age > DAY)


def is_left(origin: Origin, now: float) -> bool:
    """Return whether what was made there can be used by no living process, as far as names tell."""
    return _can_be_ended(origin.liveness, now - origin.seconds)


def origin_of(name: str) -> Origin | None:
    """Return what a name in ``tmp/`` says; None if no process of ours makes such names."""
    return Origin.of(name.removeprefix(SPARE))


def look_at(disk: Disk, path: str, now: float) -> StagedFiles | None:
    """Return what is at this path; None if no process of ours makes such things.  Raises `OSError`."""
    name = os.path.basename(path)
    origin = origin_of(name)
    status = disk.stat(path)
    mode = status.st_mode
    if origin is None or is_spare(name, status.st_size) or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return None
    liveness = origin.liveness
    if liveness is not Liveness.ALIVE:
        try:
            liveness = Liveness.ALIVE if is_held(disk, path) else liveness
        except FileNotFoundError:
            raise
        except OSError:  # not ours to open, or the disk is read-only: its name has to do
            pass
    written = status.st_mtime if name.startswith(SPARE) else origin.seconds
    return StagedFiles(name, path, stat.S_ISDIR(mode), origin, liveness, written, now - written)
