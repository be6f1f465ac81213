"""How far the mails of a bundle are that is drained where it lies: a byte for each, in a file beside the bundle.

The processor writes into it that has the lock of the chunk in which a mail stands; what a death leaves is true.  The
file is durable before anything is written into it, what is written is so once a second.  Fails with `OSError`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from zope.sendmail.queue.maildir.layout import PROGRESS
from zope.sendmail.system.disk import NO_ROOM, Disk, remove_quietly

#: What a byte says: nothing was done; the mail is being read; its last byte may have gone; the relay has it for
#: all recipients; it is gone; its history says the rest, and it is to become a file.
WAITING, OPENED, INTENDED, ACCEPTED, GONE, KEPT = b"w", b"o", b"i", b"a", b"g", b"k"

#: Those of which nothing has to be told: the mail is made a file, or is not.
SETTLED = frozenset((WAITING[0], GONE[0], KEPT[0]))

_HEADER = b"zope.sendmail: one byte for each mail of .bundle\n".ljust(64, b"\n")


class BundleProgress:
    """The open file.  Concurrency: a mail, a thread."""

    def __init__(self, disk: Disk, group: str) -> None:
        self._disk = disk
        self._fd = disk.open_existing(os.path.join(group, PROGRESS))
        #: Whether something was written that is not durable yet.
        self.is_changed = False

    def steps(self, first: int, count: int) -> bytes:
        """Return the bytes of so many mails."""
        return self._disk.read_at(self._fd, count, len(_HEADER) + first)

    def note(self, number: int, step: bytes) -> None:
        """Write down how far a mail is."""
        self._disk.write_at(self._fd, step, len(_HEADER) + number)
        self.is_changed = True

    def sync(self) -> None:
        """Make durable what was written."""
        if self.is_changed and self._fd >= 0:
            self.is_changed = False
            self._disk.sync_open(self._fd)

    def close(self) -> None:
        """Close the file.  Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def make_progress(disk: Disk, group: str, count: int, maker: str, become: Callable[..., bool]) -> None:
    """Make the file for so many mails, durably, if there is none; a file of the reserve is it where there is no room.

    :param maker: a name that no other process has
    :param become: lets a file of the reserve be the one with a path and pieces; returns whether that went
    """
    hidden, path = (os.path.join(group, name) for name in (f"{PROGRESS}-{maker}", PROGRESS))
    try:
        try:
            disk.create(hidden, _HEADER, WAITING * count)
        except OSError as error:
            if error.errno not in NO_ROOM or not become(hidden, _HEADER, WAITING * count):
                raise
        disk.sync_file(hidden)
        disk.link(hidden, path)
    except FileExistsError:  # another process was faster, or we were here before
        pass
    finally:
        remove_quietly(disk, hidden)
    disk.sync_directory(group)


def steps_in(disk: Disk, group: str) -> bytes | None:
    """Return the bytes of all mails of a group; None if its bundle was never drained where it lies."""
    path = os.path.join(group, PROGRESS)
    try:
        text = disk.read(path)
    except FileNotFoundError:
        return None
    if not text.startswith(_HEADER):
        raise OSError(errno.EBADMSG, "not the progress of a bundle", path)
    return text[len(_HEADER) :]
