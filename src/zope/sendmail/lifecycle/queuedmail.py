"""One mail of a queue as an operator sees it.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import RelayBoard, RelayState, is_due
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """See `zope.sendmail.interfaces.IQueuedMail`, which says that this class implements it."""

    name: str
    state: State
    envelope: Envelope | None
    message_id: str
    since: float
    size: int
    due: float
    history: Sequence[Record]
    #: The names of the relays that are to get what is left of it; empty if no processor has told which.
    relays: tuple[str, ...] = ()
    #: The relay for which it waits, which cannot be used now; None if it waits for something else.
    blocked: RelayState | None = None
    #: The name of the relay at which its last attempt was; empty if no processor has told which has that address.
    tried: str = ""
    #: Until when the lock of a release before 8.0 may keep it, seconds since the epoch; 0.0: there is none.
    locked_until: float = 0.0

    @classmethod
    def at(
        cls,
        now: float,
        name: str,
        state: State,
        envelope: Envelope | None,
        *,
        message_id: str,
        since: float,
        size: int,
        history: Sequence[Record],
    ) -> QueuedMail:
        """Return a mail as it is at this moment: its sender may want it to leave later.

        :param now: seconds since the epoch.
        :param state: where it stands without that.
        """
        record = history[-1] if history else _UNTRIED
        due = record.due if state is State.DEFERRED else 0.0
        if state is State.READY and envelope is not None and record.before_time(envelope.terms, now) > 0.0:
            state, due = State.SCHEDULED, envelope.terms.not_before
        return cls(name, state, envelope, message_id, since, size, due, history)

    @property
    def waits_since(self) -> float:
        """Since when it could have left, seconds since the epoch."""
        return self.since if self.envelope is None else max(self.since, self.envelope.terms.not_before)

    def on(self, board: RelayBoard, now: float) -> QueuedMail:
        """Return the same mail with the relays that it is for, as far as the processors have told."""
        record = self.history[-1] if self.history else _UNTRIED
        tried = board.name_of(record.relay)
        if self.envelope is None or self.state not in _TO_BE_SENT:
            return replace(self, tried=tried) if tried else self
        blocked = board.blocking(self.envelope, record) if is_due(self.state, record, now) else None
        return replace(self, relays=board.relays_of(self.envelope, record), blocked=blocked, tried=tried)


_UNTRIED = Record()

#: States in which a mail is still for a relay.
_TO_BE_SENT = (State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED, State.HELD)
