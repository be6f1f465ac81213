"""What the doctor says of the room that a queue has, and of what takes it without being mail."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.queue import diagnosis, queuefindings
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.system.disk import Disk

#: Below so many octets, or this share of a file system that is small, the next transaction may fail.
_LITTLE, _LITTLE_SHARE = 64 * 2**20, 0.02

#: Below so many octets, or this share, a person should look: a large file system has enough left with far less than
#: that share, and a small one is not short for being small.
_SCARCE, _SCARCE_SHARE = 2**30, 0.05

#: So large is no list of a day's sent mail: it has some three hundred octets for each.
_LARGE = 2**30


def examine_room(disk: Disk, path: str) -> Iterator[Finding]:
    """Yield what is the matter with the file system of a directory.  Raises `OSError`."""
    room = disk.room(path)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    if room.f_flag & os.ST_RDONLY:
        yield diagnosis.read_only()
    elif room.f_files and not room.f_favail:
        yield queuefindings.no_room("no inodes", scarce=False)
    elif total and free < min(_SCARCE, total * _SCARCE_SHARE):
        yield queuefindings.no_room(f"{free // 2**20} MiB", scarce=free >= min(_LITTLE, total * _LITTLE_SHARE))


def examine_sent(disk: Disk, layout: Layout) -> Iterator[Finding]:
    """Yield the files of ``sent/`` that cannot be a list of what has left.  Raises `OSError`."""
    with suppress(FileNotFoundError):
        for name in sorted(disk.names(layout.sent)):
            status = disk.stat(os.path.join(layout.sent, name))
            if stat.S_ISREG(status.st_mode) and status.st_size > _LARGE:
                yield queuefindings.large_list(f"{os.path.basename(layout.sent)}/{name}", status.st_size)
