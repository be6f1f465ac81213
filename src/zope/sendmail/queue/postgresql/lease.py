"""The right to work on one mail of a database.

Adds to the contract: trouble with the database while settling does not raise.  The mail stays this processor's then,
and the queue writes the outcome down as soon as it can.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from math import inf
from typing import Any, BinaryIO, Protocol

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost, MalformedEnvelope, QueueError
from zope.sendmail.interfaces import IForeseenLease
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.queue.postgresql.phasemark import PhaseMark
from zope.sendmail.queue.postgresql.rows import record_of
from zope.sendmail.queue.postgresql.storedbody import open_body
from zope.sendmail.reporting import maillog

_FRESH = Record()

#: How far a worker has come with a mail.
CLAIMED, OPENED, INTENDED, ACCEPTED = 0, 1, 2, 3


class LeaseHolder(Protocol):
    """What the leases of one processor are a part of; see `zope.sendmail.queue.postgresql.hand`."""

    connections: Connections

    def opened(self, lease: PostgreSQLLease) -> None:
        """Note that a worker reads the mail."""

    def intend(self, lease: PostgreSQLLease) -> None:
        """Note that the last byte is about to go."""

    def intend_soon(self, lease: PostgreSQLLease) -> None:
        """Begin to note that, without waiting."""

    def accepted(self, lease: PostgreSQLLease) -> None:
        """Note that the relay has the mail."""

    def sent(self, lease: PostgreSQLLease, record: Record) -> None:
        """Note that the mail has left."""

    def back(self, lease: PostgreSQLLease) -> None:
        """Give the mail back."""

    def park(self, lease: PostgreSQLLease, relay: str, patience: float) -> None:
        """Let the mail wait for its relay."""

    def give_way(self, lease: PostgreSQLLease, relay: str, patience: float) -> bool:
        """Do so, and want what goes before it, if there is that; return whether there is."""

    def keep(self, lease: PostgreSQLLease, record: Record) -> None:
        """Write down that an attempt has ended and the mail stays."""

    def settle_later(self, lease: PostgreSQLLease, record: Record) -> None:
        """Settle again later, since the database refused."""


@implementer(IForeseenLease)
class PostgreSQLLease:
    """See `ILease`; and `IForeseenLease`, where `text` is not None.

    :param row: what a claim returns.
    """

    def __init__(self, hand: LeaseHolder, row: Any, lease: int) -> None:
        self._hand = hand
        self.id: uuid.UUID
        self.id, envelope, record, self.message_id, size, since, self.was, self.was_lease, self._data = row
        self.size: int | None = size
        self.written: float | None = since
        self.lease = lease
        self.name = shown(self.id)
        #: Whether nothing was ever written down about it.
        self.is_fresh = record is None
        self.record = _FRESH if record is None else record_of(record)
        #: The record as it stands in the row.
        self.line: str | None = record
        self.inherited: Outcome | None = None
        self.problem = ""
        self.phase = CLAIMED
        self.slot = -1
        #: What was written down about `phase`, and when.
        self.mark: PhaseMark | None = None
        #: The mail that goes behind this one, if it was claimed for the same worker.
        self.follower: PostgreSQLLease | None = None
        self.is_over = False
        #: Whether it was left alone for its relay, and is wanted again, so that its turn has come.
        self.in_turn = False
        #: Whether the claim does not hold any more, after a crash of the server.
        self.is_lost = False
        #: Whether a processor died with it.
        self.is_suspect = False
        try:
            self._whole = read_envelope(envelope)
        except MalformedEnvelope as error:
            self._whole = Envelope("", ())
            self.problem = str(error)

    @property
    def envelope(self) -> Envelope:
        """See `ILease.envelope`."""
        if not self.record.replies:
            return self._whole
        return self.record.left_of(self._whole)

    @property
    def terms(self) -> Terms:
        """What the sender asked for."""
        return self._whole.terms

    @property
    def text(self) -> bytes | None:
        """The message; None if it was tried, did not come with its row, or a processor died with it.

        None of low priority, for what goes before it is looked for in the database with each such mail.
        """
        is_fresh = self.is_fresh and not self.is_suspect and self.inherited is None and not self.problem
        return self._data if is_fresh and self.terms.priority is not Priority.LOW else None

    def accepted(self) -> None:
        """See `IOrdinaryLease.accepted`.  That is written within some thousandths of a second."""
        if not self.is_over:
            self._hand.accepted(self)

    def settle_sent(self, together: Sequence[tuple[Any, Outcome, Record]]) -> None:
        """See `IOrdinaryLease.settle_sent`."""
        for lease, _, record in together:
            lease.settle(record)

    def open(self) -> BinaryIO:
        """See `ILease.open`."""
        if self.phase == CLAIMED:
            self.phase = OPENED
            self._hand.opened(self)
        if self._data is not None:
            return io.BytesIO(self._data)
        return open_body(self._hand.connections, self.id, self.size or 0)

    def told(self) -> None:
        """See `ILease.told`.  What was inherited is written down when the lease is made."""

    def intend(self) -> None:
        """See `ILease.intend`."""
        if self.is_over:
            raise LeaseLost(f"mail {self.name}: the lease has ended")
        self._hand.intend(self)

    def soon(self) -> None:
        """See `IForeseenLease.soon`."""
        if self.phase == CLAIMED and not self.is_over and self.text is not None:
            self._hand.intend_soon(self)

    def settle(self, record: Record) -> None:
        """See `ILease.settle`."""
        if self.is_over:
            maillog.lease_lost(self.name, "the lease had ended; what we heard is not written down")
            return
        if record.state is State.SENT:
            self.is_over = True
            self._hand.sent(self, record)
            return
        try:
            self._hand.keep(self, record)
        except QueueError as error:
            maillog.settling_failed(self.name, error)
            self._hand.settle_later(self, record)

    def release(self) -> None:
        """See `ILease.release`."""
        if not self.is_over:
            self.is_over = True
            self._hand.back(self)

    def park(self, relay: str, patience: float = inf) -> None:
        """See `ILease.park`."""
        if not self.is_over:
            self._hand.park(self, relay, patience)
            self.release()

    def give_way(self, relay: str, patience: float = inf) -> bool:
        """See `ILease.give_way`."""
        gives_way = not self.is_over and self._hand.give_way(self, relay, patience)
        if gives_way:
            self.release()
        return gives_way
