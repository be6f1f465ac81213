"""The lease on a mail that has no file of its own yet: it stands in a bundle, which is drained where it lies.

Its lock is that of the chunk in which it stands; how far we are with it says a byte of the bundle's progress.  It does
all that any lease does.  What is not sent at once stays in the bundle, with a history, until that is unfolded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from zope.interface import implementer

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.queue.maildir.bundleprogress import ACCEPTED, GONE, INTENDED, KEPT, OPENED, WAITING, BundleProgress
from zope.sendmail.queue.maildir.lease import LeaseHolder
from zope.sendmail.queue.maildir.locks import Lock
from zope.sendmail.queue.maildir.ownertext import Inherited, Phase
from zope.sendmail.queue.maildir.readlease import ReadLease
from zope.sendmail.queue.maildir.store import UNTRIED, Store
from zope.sendmail.reporting import maillog

_STEPS = {Phase.CLAIMED: WAITING, Phase.OPENED: OPENED, Phase.INTENDED: INTENDED, Phase.ACCEPTED: ACCEPTED}
_PHASES = {step[0]: Phase(phase) for phase, step in _STEPS.items()}


class BundledMail:
    """What is ours in a bundle of one mail, while we have its chunk; a lease uses it as its lock.

    See `zope.sendmail.queue.maildir.locks.Lock`.
    """

    __slots__ = ("_chunk", "_progress", "_store", "inherited", "key", "number", "step")

    def __init__(self, chunk: Lock, progress: BundleProgress, store: Store, key: str, number: int, step: int) -> None:  # noqa: PLR0917 - one for each mail
        self._chunk = chunk
        self._progress = progress
        self._store = store
        self.key = key
        self.number = number
        #: What is written.
        self.step = bytes((step,))
        phase = _PHASES.get(step, Phase.INTENDED)
        self.inherited = None if phase is Phase.CLAIMED else Inherited(phase, 0)

    def note(self, phase: Phase, attempts: int) -> None:
        """Write down how far we are; every attempt in a bundle is the first."""
        self.write(_STEPS[phase])

    def accepted(self) -> None:
        """See `Lock.accepted`."""
        self.note(Phase.ACCEPTED, 0)

    def write(self, step: bytes) -> None:
        """Write down how it stands."""
        self._progress.note(self.number, step)
        self.step = step

    def lost(self, attempts: int) -> Phase | None:
        """Return how far the dead owner was; None if its attempt had ended."""
        return None if self.inherited is None or attempts else self.inherited.phase

    def is_ours(self) -> bool:
        """Return whether the chunk is still ours."""
        return self._chunk.is_ours()

    def intend(self, attempts: int) -> bool:
        """Write down that the last byte of the mail may go, if the chunk is still ours; return whether it is."""
        is_ours = self._chunk.is_ours()
        if is_ours:
            self.note(Phase.INTENDED, attempts)
        return is_ours

    def release(self) -> None:
        """Let the mail be as if untried, or as its history says; one that is no longer ours is left alone."""
        if self.is_ours():
            self.write(WAITING if self._store.record(self.key) is UNTRIED else KEPT)

    def remove(self) -> None:
        """Let the mail be gone: nothing else has to be removed."""
        self.write(GONE)

    def keep(self) -> None:
        """Leave what is written."""


class BundleHolder(LeaseHolder, Protocol):
    """What gives out such leases, and hears how they end."""

    def ended(self, mail: BundledMail, record: Record) -> None:
        """Take note that a lease has ended; what is written of the mail is as it shall be."""

    def give_up(self) -> None:
        """Drain no more here: what is left shall become files."""


@implementer(ILease)
class BundledLease(ReadLease):
    """See `ILease`, and the module.

    :param text: what stands in the bundle of this mail
    """

    lock: Any

    def __init__(self, holder: BundleHolder, mail: BundledMail, record: Record, text: bytes) -> None:
        self.claims = self._holder = holder
        self.key = mail.key
        self.name = mail.key.rpartition("/")[2]
        self.lock = mail
        self.record = record
        stream = io.BytesIO(text)
        try:
            self._whole = read_envelope(stream)
        except MalformedEnvelope as error:
            self._whole = Envelope("", ())
            self.problem = str(error)
        self.text = text[stream.tell() :]
        self._is_tried = record is not UNTRIED

    def settle(self, record: Record) -> None:
        """See `ILease`."""
        if record.state is State.SENT:
            self.settle_sent([(self, Outcome(""), record)])
        else:
            super().settle(record)

    def park(self, relay: str, patience: float = inf) -> None:
        """See `ILease`.  The mail waits for its relay as a file of its own, and so do the others."""
        self._holder.give_up()
        self.release()

    def _end(self, record: Record, give_back: Callable[[], None]) -> None:
        self._is_over = True
        try:
            give_back()
        except OSError as error:
            maillog.unlocking_failed(self.name, error)
        finally:
            self._holder.ended(self.lock, record)

    def settle_sent(self, together: Sequence[tuple[Any, Outcome, Record]]) -> None:
        """Settle several leases that are `accepted`; see `IOrdinaryLease`."""
        for lease, _, _ in together:
            lease.accepted()
        self.claims.sent_log.note_all((lease.name, lease.message_id, record) for lease, _, record in together)
        for lease, _, record in together:
            lease.leave(record)

    def leave(self, record: Record, held: list[int] | None = None) -> str | None:
        """Let the mail be gone, and its history; return None if the disk refuses: then it is settled later.

        Holds nothing: the space of a bundle is free when its last mail has gone.
        """
        try:
            if self._is_tried:
                self.claims.store.settle(self.key, record)
            self.lock.remove()
        except OSError as error:
            self.claims.settle_later(self, record, error)
            return None
        self._is_over = True
        self._holder.ended(self.lock, record)
        return self.key


def key_of(name: str) -> str:
    """Return the key that a mail of a bundle will have as a file."""
    return os.path.join("new", name)
