"""The right of a processor to one mail in memory."""

from __future__ import annotations

import io
from math import inf
from typing import BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost
from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.memory.store import MemoryMail, MemoryStore


@implementer(ILease)
class MemoryLease:
    """See `ILease`."""

    problem = ""
    inherited: Outcome | None = None

    def __init__(self, store: MemoryStore, mail: MemoryMail) -> None:
        self._store = store
        self._mail = mail
        self.record = mail.record
        self.name = mail.name
        self.message_id = mail.message_id
        self.written: float | None = mail.since
        self.size: int | None = len(mail.message)
        self.envelope = mail.record.left_of(mail.envelope)
        mail.lease, mail.parked = self, ""

    def open(self) -> BinaryIO:
        """See `ILease`."""
        return io.BytesIO(self._mail.message)

    def told(self) -> None:
        """See `ILease`.  Nothing is inherited here."""

    def intend(self) -> None:
        """See `ILease`."""
        if self._mail.lease is not self:
            raise LeaseLost(f"mail {self.name}: the lease has ended")

    def settle(self, record: Record) -> None:
        """See `ILease`."""
        with self._store.changed:
            if record.state is State.SENT:
                self._store.mails_by_name.pop(self.name, None)
                self._store.note_departure(self.message_id, record)
            else:
                self._store.write(self._mail, record)
            self.release()

    def release(self) -> None:
        """See `ILease`."""
        with self._store.changed:
            if self._mail.lease is self:
                self._mail.lease = None

    def park(self, relay: str, patience: float = inf) -> None:
        """See `ILease`."""
        with self._store.changed:
            self.release()
            self._mail.parked = relay
            self._mail.parked_until = self._store.clock.monotonic() + patience
            self._mail.in_turn = False

    def give_way(self, relay: str, patience: float = inf) -> bool:
        """See `ILease`."""
        with self._store.changed:
            if not self._store.is_behind(self._mail, relay):
                return False
            self.park(relay, patience)
            self._store.unpark(relay, 1)
            return True
