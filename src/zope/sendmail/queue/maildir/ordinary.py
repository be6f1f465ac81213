"""The lease on an ordinary message: fresh, small, with plain addresses.  It has been read, so no file stays open.

Does all that any lease does.  Adds the short way out of the queue (`IOrdinaryLease`): the relay's yes is noted at once,
and what follows from it is done for several messages together, their removal behind the way.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

from zope.interface import implementer

from zope.sendmail.interfaces import IOrdinaryLease
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.message.envelope import Envelope, usual_envelope
from zope.sendmail.queue.maildir.layout import name_of
from zope.sendmail.queue.maildir.lease import LeaseHolder
from zope.sendmail.queue.maildir.locks import Lock
from zope.sendmail.queue.maildir.readlease import ReadLease
from zope.sendmail.queue.maildir.sweeper import Sweeper
from zope.sendmail.reporting import maillog


class OrdinaryLeaseHolder(LeaseHolder, Protocol):
    """What gives out such leases, and hears how they end."""

    sweeper: Sweeper

    def restore(self, key: str) -> None:
        """Take note that a lease has ended and the message is as if it had not been claimed."""

    def removed(self, keys: Sequence[str]) -> None:
        """Take note that these messages are gone."""


@implementer(IOrdinaryLease)
class OrdinaryLease(ReadLease):
    """See `IOrdinaryLease`.

    :param text: the whole file
    :param start: where the message begins in it
    """

    #: All of it, as no relay was asked yet.  Each lease has its own, which is no property: it is asked for five times.
    envelope: Envelope = Envelope("", ())

    def __init__(  # noqa: PLR0917 - one for each mail, made by `ordinary_lease` only
        self, holder: OrdinaryLeaseHolder, key: str, lock: Lock, envelope: Envelope, text: bytes, start: int
    ) -> None:
        self.claims = self._holder = holder
        self.key = key
        self.name = name_of(key)
        self.lock = lock
        self.text = text[start:]
        self.envelope = self._whole = envelope

    def release(self) -> None:
        """See `ILease`.  The message stands where it stood."""
        self._give_back()
        self._holder.restore(self.key)

    def _give_back(self) -> None:
        self._is_over = True
        try:
            self.lock.release()
        except OSError as error:
            maillog.unlocking_failed(self.name, error)

    def settle_sent(self, together: Sequence[tuple[Any, Outcome, Record]]) -> None:
        """See `IOrdinaryLease`."""
        self._holder.sent_log.note_all([(lease.name, lease.message_id, record) for lease, _, record in together])
        for lease, _, _ in together:
            lease.text = b""  # many may wait for their removal
        self._holder.sweeper.take([functools.partial(lease.leave, record) for lease, _, record in together])

    def leave(self, record: Record, held: list[int] | None = None) -> str | None:
        """Remove message and lock, whose slot says *accepted* until both are gone.

        :param held: see `Store.remove_sent`
        :returns: the key of the message, or None if the disk refuses; then it is settled later.
        """
        try:
            ours = self.lock.is_ours()
            if not self.claims.store.remove_sent(self.key, held) or not ours:
                self.claims.store.settle(self.key, record)  # another process had it: there may be a history
        except OSError as error:
            self.claims.settle_later(self, record, error)
            return None
        self._is_over = True
        try:
            (self.lock.remove if ours else self.lock.release)()
        except OSError as error:
            maillog.unlocking_failed(self.name, error)
        return self.key


def ordinary_lease(holder: OrdinaryLeaseHolder, key: str, lock: Lock) -> OrdinaryLease | None:
    """Return the lease on a message that we have locked if it is an ordinary one; None: it is to be looked at closer.

    Whether it has a history is asked then, for several together (`LockedHistories`).  Raises nothing: a disk that
    refuses is met again at the closer look.
    """
    store = holder.store
    try:
        text = store.disk.read_small(store.layout.message(key))
    except OSError:
        return None
    usual = None if text is None else usual_envelope(text)
    return None if text is None or usual is None else OrdinaryLease(holder, key, lock, usual[0], text, usual[1])
