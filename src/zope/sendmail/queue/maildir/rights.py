"""Which users can get at the directories and files of a Maildir queue, as far as their modes and owners tell.

For the doctor; changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from zope.sendmail.lifecycle.finding import Finding, Severity
from zope.sendmail.queue import diagnosis, queuefindings
from zope.sendmail.system.disk import Disk

#: What a queue consists of.
DIRECTORIES = ("tmp", "new", "cur", "history", "locks", "processors")

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a file",
}


class First:
    """How often something was seen, and where first."""

    def __init__(self) -> None:
        self.name = ""
        self.count = 0
        self.value = 0.0

    def add(self, name: str, value: float) -> None:
        """Count one more; the one with the smallest `value` is the first."""
        if not self.count or value < self.value:
            self.name, self.value = name, value
        self.count += 1


class Rights:
    """What was seen of permission bits on one walk through a queue.

    :param root: the status of its directory.
    """

    def __init__(self, root: os.stat_result) -> None:
        self._root = root
        self._modes: dict[str, int] = {}
        self._readable, self._writable = First(), First()
        self._note("", root.st_mode, 0o077)

    def note_directory(self, name: str, mode: int) -> None:
        """Note the mode of a directory of the queue."""
        self._modes[name] = mode
        self._note(name, mode, _reach(self._root.st_mode) * 0o7)

    def note(self, name: str, mode: int) -> None:
        """Note the mode of a file, which can be used only if its directory, noted before, lets others through.

        :param name: relative to the queue.
        """
        directory = self._modes.get(name.partition("/")[0], 0)
        self._note(name, mode, _reach(self._root.st_mode & directory) * 0o6)

    def _note(self, name: str, mode: int, reach: int) -> None:
        """Note permission bits; `reach` has those that can be used at all, as the directories above are."""
        mode = stat.S_IMODE(mode)
        if mode & reach & 0o022:
            self._writable.add(name, mode)
        elif mode & reach & 0o044:
            self._readable.add(name, mode)

    def is_anothers(self, status: os.stat_result) -> bool:
        """Return whether the queue's owner cannot read the file although this process may."""
        return status.st_uid != self._root.st_uid != 0 and not status.st_mode & 0o004

    def findings(self) -> Iterator[Finding]:
        """Yield what there is to say of all that was noted."""
        for first, writable in ((self._readable, False), (self._writable, True)):
            if first.count:
                yield queuefindings.open_to_others(first.name, int(first.value), first.count, writable=writable)


def closed_directories(disk: Disk, path: str, root: os.stat_result) -> Iterator[Finding]:
    """Yield the directories that are not their owner's any more, or in which the owner cannot do everything."""
    if not stat.S_ISDIR(root.st_mode):
        return
    if root.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        yield diagnosis.closed_to_its_owner(".", stat.S_IMODE(root.st_mode))
    for name in DIRECTORIES:
        with suppress(FileNotFoundError):
            status = disk.stat(os.path.join(path, name))
            if not stat.S_ISDIR(status.st_mode):
                yield diagnosis.foreign(name, kind_of(status), Severity.PROBLEM)
            elif status.st_uid != root.st_uid and status.st_mode & stat.S_IRWXG != stat.S_IRWXG:
                yield diagnosis.somebody_elses(name, status.st_uid, root.st_uid)
            elif status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                yield diagnosis.closed_to_its_owner(name, stat.S_IMODE(status.st_mode))


def _reach(mode: int) -> int:
    """Return who beside the owner can go through a directory: one bit for the group, one for others."""
    return mode & 0o011


def kind_of(status: os.stat_result) -> str:
    """Return what a name is, in words."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
