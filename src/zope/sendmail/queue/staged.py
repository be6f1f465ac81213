"""The mails of one transaction on their way into a Maildir queue.

One mail goes ``tmp/<name>`` -> ``new/<name>``; several stand in ``tmp/<group>/``, and renaming that directory
reveals them all or none.  The numbered steps are those of ``docs/internals.rst``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from zope.interface import implementer

from zope.sendmail.disk import Disk, remove_quietly
from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.maildir import unique_name
from zope.sendmail.message import Envelope, envelope_lines
from zope.sendmail.queue.bell import ring
from zope.sendmail.queue.places import GROUP, Places


@implementer(IStagedMail)
class StagedMail:
    """See `IStagedMail`."""

    def __init__(self, places: Places, disk: Disk, late: list[StagedMail], make: Callable[[], None]) -> None:
        self._places = places
        self._disk = disk
        self._late = late
        #: Makes the queue directory; somebody may have removed it.
        self._make = make
        self._names: list[str] = []
        self._group = ""
        self._prepared = self._committed = self._finished = False

    def __len__(self) -> int:
        return len(self._names)

    def add(self, envelope: Envelope, message: bytes) -> str:
        """See `IStagedMail`."""
        self._prepared = False
        if self._names and not self._group:
            self._make_group()
        name = unique_name()
        self._create(name, envelope_lines(envelope, message), message)
        self._names.append(name)
        return name

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        while len(self._names) > count:
            remove_quietly(self._disk, self._path(self._names[-1]))
            self._names.pop()

    def prepare(self) -> None:
        """See `IStagedMail`."""
        if self._prepared or not self._names:
            return
        self._disk.sync_files([self._path(name) for name in self._names])
        if self._group:
            self._disk.sync_directory(os.path.join(self._places.tmp, self._group))
        self._disk.sync_directory(self._places.tmp)
        self._prepared = True

    def commit(self) -> None:
        """See `IStagedMail`.

        If the disk refuses even now, it raises and the mails stay staged; the queue tries again at its next use.
        """
        if not self._names:
            self._remove_group()
        elif not self._finished:
            try:
                self._reveal()
                self._finish()
            except OSError:
                self._late.append(self)
                raise

    def _reveal(self) -> None:
        """One rename, the instant of success."""
        if not self._committed and self._group:
            self._disk.rename(os.path.join(self._places.tmp, self._group), self._new(GROUP + self._group))
        elif not self._committed:
            self._disk.rename(self._path(self._names[0]), self._new(self._names[0]))
        self._committed = True

    def _finish(self) -> None:
        """Make it durable, let the mails of a group stand as single files, and say so."""
        self._disk.sync_directory(self._places.new)
        if self._group:
            unfold(self._places, self._disk, self._new(GROUP + self._group))
        self._finished = True
        ring(self._places, self._disk, [f"new/{name}" for name in self._names])

    def abort(self) -> None:
        """See `IStagedMail`."""
        if not self._committed:
            self.rollback(0)
            self._remove_group()

    def _create(self, name: str, *pieces: bytes) -> None:
        try:
            self._disk.create(self._path(name), *pieces)
        except FileNotFoundError:
            if self._group:
                raise
            self._make()
            self._disk.create(self._path(name), *pieces)

    def _make_group(self) -> None:
        """The second mail has come: from now on the mails stand in a directory of their own."""
        group = unique_name()
        directory = os.path.join(self._places.tmp, group)
        self._disk.make_directory(directory)
        try:
            self._disk.rename(self._path(self._names[0]), os.path.join(directory, self._names[0]))
        except OSError:
            self._disk.remove_directory(directory)
            raise
        self._group = group

    def _remove_group(self) -> None:
        if self._group and not self._committed:
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove_directory(os.path.join(self._places.tmp, self._group))
            self._group = ""

    def _path(self, name: str) -> str:
        return os.path.join(self._places.tmp, self._group, name)

    def _new(self, name: str) -> str:
        return os.path.join(self._places.new, name)


def unfold(places: Places, disk: Disk, group: str) -> None:
    """Move the mails of a committed group out to ``new/``, in order.  Any number of processes may do it at once."""
    try:
        names = sorted(disk.names(group))
    except FileNotFoundError:  # somebody else has finished it
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            disk.rename(os.path.join(group, name), os.path.join(places.new, name))
    # Else a crash might remember that the directory is gone, but not where its mails are.
    disk.sync_directory(places.new)
    with contextlib.suppress(OSError):
        disk.remove_directory(group)
