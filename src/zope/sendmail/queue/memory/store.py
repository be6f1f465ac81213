"""What one queue in memory has: its mails and what is known about each, behind one mutex."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from math import inf

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, SentMail
from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.system.clock import Clock

#: States in which a mail waits for a processor, as histories have them.
_TO_BE_SENT = (State.READY, State.DEFERRED)


class MemoryMail:
    """One message and all that is known about it."""

    def __init__(self, name: str, envelope: Envelope, message: bytes, since: float) -> None:
        self.name = name
        self.envelope = envelope
        self.message = message
        self.since = since
        self.history: list[Record] = []
        self.lease: object | None = None
        self.parked = ""
        self.parked_until = inf
        #: Whether it was unparked, as its turn has come, and not parked or tried since.
        self.in_turn = False
        self.due = 0.0  # monotonic, so that no jump of the clock delays it

    @property
    def record(self) -> Record:
        return self.history[-1] if self.history else Record()

    @property
    def rank(self) -> int:
        return self.envelope.terms.priority.rank

    @property
    def state(self) -> State:
        return State.SENDING if self.lease is not None else self.record.state

    @property
    def message_id(self) -> str:
        try:
            return message_id(self.message)
        except InvalidMessage:
            return ""


class MemoryStore:
    """The mails of a `MemoryQueue`, and what its parts share.  Concurrency: with `changed` held."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        #: Whether something has changed since a processor last waited.
        self.woken = False
        self.mails_by_name: dict[str, MemoryMail] = {}
        self.staged = 0
        #: When mails left, by Message-Id.
        self.departed: dict[str, SentMail] = {}
        #: What the processor told, and the relays that operators want to be tried.
        self.reported: list[ProcessorState] = []
        self.probes: dict[str, float] = {}
        #: When each relay may get the next mail, by the monotonic clock.
        self.turns: dict[str, float] = {}
        #: The keys: the transaction that has it, or None for a committed mail; its Message-Id; until when.
        self.keys: dict[str, tuple[object | None, str, float]] = {}
        self._numbers = itertools.count(1)
        self._precedence = Precedence()

    def forget_after_fork(self) -> None:
        """Begin empty in a forked child: what the parent has in memory is sent by the parent."""
        self.changed = threading.Condition(threading.RLock())
        self.mails_by_name = {}
        self.departed, self.keys = {}, {}

    def wake(self) -> None:
        """Let what waits for a change look again."""
        with self.changed:
            self.woken = True
            self.changed.notify_all()

    def in_turn(self, mails: Iterable[MemoryMail], limit: int) -> list[MemoryMail]:
        """Return up to `limit` of the mails, as their priorities take turns."""
        lines: dict[int, deque[MemoryMail]] = {}
        for mail in mails:
            lines.setdefault(mail.rank, deque()).append(mail)
        chosen: list[MemoryMail] = []
        while lines and len(chosen) < limit:
            rank = self._precedence.next(sorted(lines))
            chosen.append(lines[rank].popleft())
            if not lines[rank]:
                del lines[rank]
        return chosen

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue.unpark`."""
        parked = (mail for mail in self.mails_by_name.values() if mail.parked == relay)
        mails = self.in_turn(parked, limit)
        for mail in mails:
            mail.parked, mail.in_turn = "", True
        return len(mails)

    def is_behind(self, mail: MemoryMail, relay: str) -> bool:
        """Return whether a mail that is parked for `relay` goes before this one; see `ILease.give_way`."""
        is_older = True
        for each in self.mails_by_name.values():
            is_older = is_older and each is not mail
            if each.parked == relay and (
                is_older if each.rank == mail.rank else each.rank < mail.rank and not mail.in_turn
            ):
                return True
        return False

    def untaken(self) -> Iterator[MemoryMail]:
        """Yield what is to be sent, and that no processor has."""
        return (mail for mail in self.mails_by_name.values() if mail.state in _TO_BE_SENT)

    def reveal(self, mails: Iterable[tuple[Envelope, bytes, str]]) -> None:
        """Put committed mails into the queue."""
        with self.changed:
            for envelope, message, name in mails:
                self.mails_by_name[name] = MemoryMail(name, envelope, message, self.clock.time())
            self.wake()

    def note_departure(self, message_id: str, record: Record) -> None:
        """Note that a mail has left; forget those that left too long ago."""
        now = self.clock.time()
        self.departed.pop(message_id, None)  # the last one stands at the end
        self.departed[message_id] = SentMail(now, record.relay, record.replies)
        for oldest in list(
            itertools.takewhile(lambda each: self.departed[each].time < now - KEPT_DAYS * 86400, self.departed)
        ):
            del self.departed[oldest]

    def new_name(self) -> str:
        """Return a name no other mail of this queue has."""
        return f"{next(self._numbers):06d}"

    def wait_of(self, mail: MemoryMail) -> float | None:
        """Return the seconds until the mail is due; None if it waits for a person."""
        if mail.state not in _TO_BE_SENT:
            return None
        due = mail.parked_until if mail.parked else mail.due
        if due == inf:
            return None
        planned = mail.record.before_time(mail.envelope.terms, self.clock.time())
        return max(planned, due - self.clock.monotonic())

    def write(self, mail: MemoryMail, record: Record) -> None:
        """Add to the history of a mail."""
        mail.history.append(record)
        mail.due = self.clock.monotonic() + record.wait(self.clock.time())
        mail.in_turn = False
