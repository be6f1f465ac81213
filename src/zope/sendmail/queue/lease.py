"""The right to work on one message of a Maildir queue.

Adds to the contract: trouble with the disk while settling does not raise.  The lease is kept then, so that nobody
sends the message again, and the queue settles it later.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from zope.interface import implementer

from zope.sendmail import maillog
from zope.sendmail.headers import message_id
from zope.sendmail.history import Record
from zope.sendmail.interfaces import ILease, InvalidMessage, LeaseLost, MalformedEnvelope
from zope.sendmail.message import Envelope, read_envelope
from zope.sendmail.outcome import Outcome
from zope.sendmail.queue.locks import Lock, Phase
from zope.sendmail.queue.places import name_of
from zope.sendmail.queue.states import State

if TYPE_CHECKING:
    from zope.sendmail.queue.maildir import MaildirQueue

_HEAD = 64 * 1024


@implementer(ILease)
class MaildirLease:
    """See `ILease`."""

    def __init__(self, queue: MaildirQueue, key: str, lock: Lock, record: Record) -> None:
        self.queue = queue
        self.key = key
        self.lock = lock
        self.record = record
        self.inherited: Outcome | None = None
        self.problem = ""
        self._stream = queue.disk.open(queue.places.message(key))
        try:
            self._whole = read_envelope(self._stream)
        except MalformedEnvelope as error:
            self._whole = Envelope("", ())
            self.problem = str(error)
        self._start = self._stream.tell()
        self._message_id: str | None = None

    @property
    def name(self) -> str:
        """See `ILease`."""
        return name_of(self.key)

    @property
    def envelope(self) -> Envelope:
        """See `ILease`."""
        outstanding = self.record.outstanding(self._whole.recipients)
        malformed = self.record.outstanding(self._whole.malformed)
        return replace(self._whole, recipients=outstanding, malformed=malformed)

    @property
    def message_id(self) -> str:
        """See `ILease`."""
        if self._message_id is None:
            try:
                head = os.pread(self._stream.fileno(), _HEAD, self._start)  # the stream stays where it is
                self._message_id = message_id(head)
            except (InvalidMessage, OSError):
                self._message_id = ""
        return self._message_id

    def open(self) -> BinaryIO:
        """See `ILease`."""
        self.lock.note(Phase.OPENED, self.record.attempts)
        self._stream.seek(self._start)
        return self._stream

    def told(self) -> None:
        """See `ILease`."""
        with contextlib.suppress(OSError):  # at worst it is told a second time
            self.lock.note(Phase.CLAIMED, self.record.attempts)

    def intend(self) -> None:
        """See `ILease`."""
        if not self.lock.is_ours():
            raise LeaseLost(f"mail {self.name}: another processor removed the lock; it is not sent from here")
        self.lock.note(Phase.INTENDED, self.record.attempts)

    def settle(self, record: Record) -> None:
        """See `ILease`."""
        try:
            if record.state is not State.SENT and not self.lock.is_ours():
                maillog.lease_lost(self.name, "another processor has it now; what we heard is not written down")
            else:
                self.queue.store.settle(self.key, record)
        except OSError as error:
            maillog.settling_failed(self.name, error)
            self.queue.settle_later(self, record)
            return
        self._end(record)

    def release(self) -> None:
        """See `ILease`."""
        self._end(self.record)

    def park(self, relay: str) -> None:
        """See `ILease`."""
        self._end(self.record)
        self.queue.park(self.key, relay)

    def is_alive(self) -> bool:
        """Whether the lease can still be settled."""
        return not self._stream.closed

    def abandon(self) -> None:
        """The queue is closed; nothing can be written any more."""
        self._stream.close()

    def _end(self, record: Record) -> None:
        """Let go of the message, which is as `record` says."""
        try:
            self._stream.close()
            self.lock.release()
        except OSError as error:
            maillog.unlocking_failed(self.name, error)
        finally:
            self.queue.settled(self.key, record)
