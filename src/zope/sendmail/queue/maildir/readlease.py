"""What the leases on messages that have been read have in common: no file stays open.

They know the short way out of the queue, on which the relay's yes is noted at once, see `IOrdinaryLease`.
"""

from __future__ import annotations

import functools
import io
from typing import BinaryIO

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.message.headers import HEAD, message_id
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.store import UNTRIED


class ReadLease(MaildirLease):
    """A lease with the whole message at hand.  What is as with most mail stands in the class: one is made for each."""

    record: Record = UNTRIED
    inherited: Outcome | None = None
    problem: str = ""
    #: The message; see `IOrdinaryLease`.
    text: bytes
    _start = 0
    _is_tried = False
    _message_id: str | None = None
    _is_over = False

    @functools.cached_property
    def _stream(self) -> BinaryIO:  # type: ignore[override]  # made when something is unusual
        return io.BytesIO(self.text)

    def _reopened(self) -> BinaryIO:
        return io.BytesIO(self.text)

    @property
    def size(self) -> int:
        """Bytes of the message; see `ILease`."""
        return len(self.text)

    def _read_message_id(self) -> str:
        try:
            return message_id(self.text[:HEAD])
        except InvalidMessage:
            return ""

    def accepted(self) -> None:
        """Note that the relay has the message for all recipients; see `IOrdinaryLease`."""
        try:  # noqa: SIM105 - once for each mail
            self.lock.accepted()
        except OSError:  # at worst it is unknown
            pass

    def is_alive(self) -> bool:
        """Return whether the lease can still be settled."""
        return not self._is_over

    def abandon(self) -> None:
        """Do nothing but end: no file is open."""
        self._is_over = True
