"""The mail that lies in a spool directory as operators see it, before a daemon has taken it in.

Looking changes nothing, in the directory or in the queue: no file is moved, no lock given up.  A mail has already the
name that it gets in the queue.  Files that cannot be read are left out; `DropBox.examine` tells of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from zope.sendmail.disk import Disk
from zope.sendmail.headers import message_id
from zope.sendmail.interfaces import InvalidMessage, MalformedEnvelope
from zope.sendmail.message import read_envelope
from zope.sendmail.queue.desk import QueuedMail
from zope.sendmail.queue.dropbox import DropBox, Dropped
from zope.sendmail.queue.selection import Selection
from zope.sendmail.queue.states import State

#: So much of a message is looked at for its Message-Id.
_HEAD = 64 * 1024


class DroppedMail:
    """The complete mail in one spool directory."""

    def __init__(self, dropbox: DropBox, disk: Disk) -> None:
        self._dropbox = dropbox
        self._disk = disk

    def count(self) -> int:
        """How many there are."""
        return sum(1 for _ in self._dropbox.complete())

    def oldest(self) -> float | None:
        """When the oldest was written."""
        return next((each.since for each in self._dropbox.complete()), None)

    def names(self) -> Iterator[str]:
        """The names that they will have in the queue, oldest first."""
        return (each.name for each in self._dropbox.complete())

    def mails(self, selection: Selection) -> Iterator[QueuedMail]:
        """Those that are meant, oldest first."""
        for each in self._dropbox.complete():
            if selection.may_match(each.since, rejected=False):
                with contextlib.suppress(MalformedEnvelope, OSError):  # somebody took or changed it in this moment
                    mail = self.show(each)
                    if selection.matches(mail):
                        yield mail

    def find(self, name: str) -> Dropped | None:
        """The mail that will have this name in the queue."""
        return self._dropbox.find(name)

    def show(self, dropped: Dropped) -> QueuedMail:
        """What can be said of it.  Raises `MalformedEnvelope` or `OSError` if it is not there any more as it was."""
        with self._disk.open(dropped.path) as stream:
            envelope = read_envelope(stream)
            head = stream.read(_HEAD)
        identifier = ""
        with contextlib.suppress(InvalidMessage):
            identifier = message_id(head)
        return QueuedMail(dropped.name, State.READY, envelope, identifier, dropped.since, dropped.size, 0.0, ())

    def read(self, dropped: Dropped) -> BinaryIO:
        """The message, without the envelope.  Raises as `show`."""
        stream = self._disk.open(dropped.path)
        try:
            read_envelope(stream)
        except BaseException:
            stream.close()
            raise
        return stream
