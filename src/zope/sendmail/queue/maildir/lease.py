"""The right to work on one message of a Maildir queue.

Adds to the contract: trouble with the disk while settling does not raise.  The lease is kept then, so that no processor
sends the message again, and the queue settles it later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from math import inf
from typing import BinaryIO, Protocol

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost, MalformedEnvelope
from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import written_at
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir.layout import name_of
from zope.sendmail.queue.maildir.locks import Lock
from zope.sendmail.queue.maildir.ownertext import Phase
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import UNTRIED, Store, can_be_forgotten
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import NO_ROOM


class LeaseHolder(Protocol):
    """What gives out leases, and hears how they end."""

    store: Store
    sent_log: SentLog

    def settled(self, key: str, record: Record) -> None:
        """Take note that a lease has ended and the message is as `record` says."""

    def settle_later(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """Settle the lease again later, since the disk refused."""

    def park(self, key: str, relay: str, patience: float) -> None:
        """Take note that a lease has ended because its relay cannot be used now."""

    def give_way(self, lease: MaildirLease, relay: str, patience: float) -> bool:
        """Park a lease, and unpark what goes before it, if there is that; return whether there is."""


@implementer(ILease)
class MaildirLease:
    """See `ILease`."""

    _is_over = False

    def __init__(self, claims: LeaseHolder, key: str, lock: Lock, record: Record) -> None:
        self.claims = claims
        self.key = key
        self.name = name_of(key)
        self.lock = lock
        self.record = record
        self.inherited: Outcome | None = None
        self.problem = ""
        self._stream = claims.store.disk.open(claims.store.layout.message(key))
        try:
            self._whole = read_envelope(self._stream)
        except MalformedEnvelope as error:
            self._whole = Envelope("", ())
            self.problem = str(error)
        self._start = self._stream.tell()
        #: No other process may write a history now.
        self._is_tried = record is not UNTRIED
        self._message_id: str | None = None

    @property
    def envelope(self) -> Envelope:
        """See `ILease`."""
        if not self.record.replies:
            return self._whole
        return self.record.left_of(self._whole)

    @property
    def terms(self) -> Terms:
        """What the sender asked for."""
        return self._whole.terms

    @property
    def message_id(self) -> str:
        """See `ILease`."""
        if self._message_id is None:
            self._message_id = self._read_message_id()
        return self._message_id

    @property
    def written(self) -> float | None:
        """When the mail was written, as its name says; see `ILease`."""
        return written_at(self.name)

    @property
    def size(self) -> int | None:
        """Bytes of the message; see `ILease`."""
        with contextlib.suppress(OSError, ValueError):  # the disk refuses, or the lease has ended
            stream = self._open_stream()
            position = stream.tell()
            size = stream.seek(0, os.SEEK_END) - self._start
            stream.seek(position)
            return size
        return None

    def _read_message_id(self) -> str:
        """Return the Message-Id; the stream stays where it is."""
        try:
            stream = self._open_stream()
            position = stream.tell()
            stream.seek(self._start)
            found = message_id_in(stream)
            stream.seek(position)
        except OSError:
            return ""
        return found

    def open(self) -> BinaryIO:
        """See `ILease`."""
        self.lock.note(Phase.OPENED, self.record.attempts)
        stream = self._open_stream()
        stream.seek(self._start)
        return stream

    def _open_stream(self) -> BinaryIO:
        """Return the file of the message, opened again if a mailer has closed it while the lease lasts."""
        if self._stream.closed and not self._is_over:
            self._stream = self._reopened()
        return self._stream

    def _reopened(self) -> BinaryIO:
        return self.claims.store.disk.open(self.claims.store.layout.message(self.key))

    def told(self) -> None:
        """See `ILease`."""
        with contextlib.suppress(OSError):  # at worst it is told a second time
            self.lock.note(Phase.CLAIMED, self.record.attempts)

    def intend(self) -> None:
        """See `ILease`."""
        if not self.lock.intend(self.record.attempts):
            raise LeaseLost(f"mail {self.name}: another processor removed the lock; it is not sent from here")

    def settle(self, record: Record) -> None:
        """See `ILease`."""
        end = self.lock.release
        try:
            ours = self.lock.is_ours()
            if record.state is State.SENT:
                self._leaves(record, ours=ours)
            if ours or record.state is State.SENT:
                self.claims.store.settle(self.key, record, tried=self._is_tried or not ours)
            else:
                maillog.lease_lost(self.name, "another processor has it now; what we heard is not written down")
            if ours and record.state is State.SENT:
                end = self.lock.remove
        except OSError as error:
            if error.errno in NO_ROOM and can_be_forgotten(record):
                maillog.not_noted(self.name, error)
                self.claims.store.note_delay(self.key, record)
                self._end(record, self.lock.release)
                return
            self.claims.settle_later(self, record, error)
            return
        self._end(record, end)

    def _leaves(self, record: Record, *, ours: bool) -> None:
        """Write down, before anything that takes time, that only the removal of the message is left."""
        if ours:
            with contextlib.suppress(OSError):  # at worst it is unknown
                self.lock.note(Phase.ACCEPTED, self.record.attempts)
        self.claims.sent_log.note(self.name, self.message_id, record)

    def release(self) -> None:
        """See `ILease`."""
        self._end(self.record, self.lock.release)

    def wrote(self, record: Record) -> None:
        """Take note that the history has one more record."""
        self.record = record
        self._is_tried = True

    def park(self, relay: str, patience: float = inf) -> None:
        """See `ILease`."""
        self._end(self.record, self.lock.release)
        self.claims.park(self.key, relay, patience)

    def give_way(self, relay: str, patience: float = inf) -> bool:
        """See `ILease`."""
        return self.claims.give_way(self, relay, patience)

    def is_alive(self) -> bool:
        """Return whether the lease can still be settled."""
        return not self._is_over

    def abandon(self) -> None:
        """Let go of the file: the queue is closed, and nothing can be written any more."""
        self._is_over = True
        self._stream.close()

    def _end(self, record: Record, give_back: Callable[[], None]) -> None:
        """Let go of the message, which is as `record` says."""
        self._is_over = True
        try:
            self._stream.close()
            give_back()
        except OSError as error:
            maillog.unlocking_failed(self.name, error)
        finally:
            self.claims.settled(self.key, record)
