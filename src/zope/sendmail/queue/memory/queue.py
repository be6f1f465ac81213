"""The queue contract in its smallest form: mail waits in this process and is lost with it.

For tests of applications, and to read what a queue is.  Concurrency: one mutex.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import InvalidMessage, KeyTaken, LeaseLost, NoSuchMail, QueueError
from zope.sendmail.interfaces import IFirstAttempts, ILease, IMailQueue, IMailQueueAdmin, IStagedMail, ISuppressions
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.outcome import Outcome, printable
from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard
from zope.sendmail.lifecycle.retry import Schedule, set_aside
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import WAITING, Action, State, after
from zope.sendmail.lifecycle.status import KEPT_DAYS, MailStatus, SentMail, status_of
from zope.sendmail.lifecycle.suppression import Suppression, SuppressionTable, normalized
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.pieces import Piece, joined
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.diagnosis import HELD, relay_down, relay_left_out, waits_for_a_person
from zope.sendmail.queue.keys import id_of, in_use, patiently
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.ownprocess import OwnProcess

#: States in which a mail waits for a processor, as histories have them.
_TO_BE_SENT = (State.READY, State.DEFERRED)


class _Mail:
    """One message and all that is known about it."""

    def __init__(self, name: str, envelope: Envelope, message: bytes, since: float) -> None:
        self.name = name
        self.envelope = envelope
        self.message = message
        self.since = since
        self.history: list[Record] = []
        self.lease: MemoryLease | None = None
        self.parked = ""
        self.parked_until = inf
        self.due = 0.0  # monotonic, so that no jump of the clock delays it

    @property
    def record(self) -> Record:
        return self.history[-1] if self.history else Record()

    @property
    def state(self) -> State:
        return State.SENDING if self.lease is not None else self.record.state

    @property
    def message_id(self) -> str:
        try:
            return message_id(self.message)
        except InvalidMessage:
            return ""


def open_memory(rest: str, **options: Any) -> MemoryQueue:
    """Return a new queue in memory; `rest`, what stands behind ``memory:``, has to be empty.

    :raises QueueError: if it is not.
    """
    if rest:
        raise QueueError(f"memory:{printable(rest)} is no queue: a queue in memory has no name; write memory:")
    return MemoryQueue(**options)


def shared_memory() -> MemoryQueue:
    """Return the queue that the writers and readers of this process share."""
    global _shared
    if _shared is None:
        _shared = MemoryQueue()
    return _shared


def forget_shared_memory() -> None:
    """Let the next writer and the next reader of this process share a new queue; those that there are keep theirs."""
    global _shared
    _shared = None


_shared: MemoryQueue | None = None


@implementer(IMailQueue)
class MemoryQueue:
    """See `IMailQueue`.  Nothing survives the process, so nothing is taken over."""

    def __init__(self, *, schedule: Schedule | None = None, clock: Clock | None = None) -> None:
        self.location = "memory:"
        self.schedule = schedule or Schedule()
        self.clock = clock or Clock()
        self.changed = threading.Condition(threading.RLock())
        self.mails_by_name: dict[str, _Mail] = {}
        self.staged = 0
        #: When mails left, by Message-Id.
        self.departed: dict[str, SentMail] = {}
        #: What the processor told, and the relays that operators want to be tried.
        self.reported: list[ProcessorState] = []
        self.probes: dict[str, float] = {}
        #: When each relay may get the next mail, by the monotonic clock.
        self.turns: dict[str, float] = {}
        self.admin = MemoryAdmin(self)
        self.suppressions = MemorySuppressions(self)
        #: The keys: the transaction that has it, or None for a committed mail; its Message-Id; until when.
        self.keys: dict[str, tuple[MemoryStagedMail | None, str, float]] = {}
        self._numbers = itertools.count(1)
        self._precedence = Precedence()
        self._woken = False
        _queues.add(self)

    def forget_after_fork(self) -> None:
        """Begin empty in a forked child: what the parent has in memory is sent by the parent."""
        self.changed = threading.Condition(threading.RLock())
        self.mails_by_name = {}
        self.departed, self.keys = {}, {}

    def stage(self) -> MemoryStagedMail:
        """See `IMailQueue.stage`."""
        return MemoryStagedMail(self)

    def first_attempts(self) -> MemoryFirstAttempts:
        """See `IMailQueue.first_attempts`."""
        return MemoryFirstAttempts(self)

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MemoryLease]:
        """See `IMailQueue.claim`.  Claims nothing `ahead`."""
        with self.changed:
            due = (mail for mail in self.mails_by_name.values() if self._wait(mail) == 0.0)
            return [MemoryLease(self, mail) for mail in self._in_turn(due, limit)]

    def _in_turn(self, mails: Iterable[_Mail], limit: int) -> list[_Mail]:
        """Return up to `limit` of the mails, as their priorities take turns."""
        lines: dict[int, deque[_Mail]] = {}
        for mail in mails:
            lines.setdefault(mail.envelope.terms.priority.rank, deque()).append(mail)
        chosen: list[_Mail] = []
        while lines and len(chosen) < limit:
            rank = self._precedence.next(sorted(lines))
            chosen.append(lines[rank].popleft())
            if not lines[rank]:
                del lines[rank]
        return chosen

    def claim_expired(self, limit: int = 100) -> list[MemoryLease]:
        """See `IMailQueue.claim_expired`."""
        with self.changed:
            over = (mail for mail in self._untaken() if mail.envelope.terms.expires <= self.clock.time())
            return [MemoryLease(self, mail) for mail in list(itertools.islice(over, limit))]

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        with self.changed:
            soonest = min((mail.envelope.terms.expires for mail in self._untaken()), default=inf)
            return max(0.0, soonest - self.clock.time()) if soonest < inf else None

    def _untaken(self) -> Iterator[_Mail]:
        """Yield what is to be sent, and that no processor has."""
        return (mail for mail in self.mails_by_name.values() if mail.state in _TO_BE_SENT)

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`."""
        with self.changed:
            self.changed.wait_for(lambda: self._woken, timeout)
            self._woken = False

    def wake(self) -> None:
        """See `IMailQueue.wake`.  Not for signal handlers, because of its mutex; use a `MaildirQueue` there."""
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def next_due(self) -> float | None:
        """See `IMailQueue.next_due`."""
        with self.changed:
            waits = [wait for mail in self.mails_by_name.values() if (wait := self._wait(mail)) is not None]
            return min(waits, default=None)

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue.unpark`."""
        with self.changed:
            parked = (mail for mail in self.mails_by_name.values() if mail.parked == relay)
            mails = self._in_turn(parked, limit)
            for mail in mails:
                mail.parked = ""
            return len(mails)

    def parked(self) -> Collection[str]:
        """See `IMailQueue.parked`."""
        with self.changed:
            return {mail.parked for mail in self.mails_by_name.values() if mail.parked}

    def close(self) -> None:
        """See `IMailQueue.close`."""
        with self.changed:
            for mail in self.mails_by_name.values():
                mail.lease = None
                mail.parked = ""

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`."""
        mails = [mail for mail in self.admin.mails() if mail.message_id == message_id]
        return status_of(message_id, mails, self.departed.get(message_id), KEPT_DAYS, now=self.clock.time())

    def report(self, state: ProcessorState) -> None:
        """See `IMailQueue.report`.  The processors of this process tell of one queue as if they were one."""
        with self.changed:
            others = [each for each in self.reported if each.started != state.started]
            told = state.absorb(each for each in others if each.ended)
            self.reported = [*others[-1:], replace(told, alive=not state.ended)]

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`."""
        return self.probes.get(relay, 0.0)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`.  Other processes know nothing of this queue."""
        with self.changed:
            now = self.clock.monotonic()
            begin = max(now, self.turns.get(relay, now))
            self.turns[relay] = begin + count / rate
            return begin - now

    def reveal(self, mails: Iterable[tuple[Envelope, bytes, str]]) -> None:
        """Put committed mails into the queue."""
        with self.changed:
            for envelope, message, name in mails:
                self.mails_by_name[name] = _Mail(name, envelope, message, self.clock.time())
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

    def _wait(self, mail: _Mail) -> float | None:
        """Seconds until the mail is due; None if it waits for a person."""
        if mail.state not in _TO_BE_SENT:
            return None
        due = mail.parked_until if mail.parked else mail.due
        if due == inf:
            return None
        planned = mail.record.before_time(mail.envelope.terms, self.clock.time())
        return max(planned, due - self.clock.monotonic())

    def write(self, mail: _Mail, record: Record) -> None:
        """Add to the history of a mail."""
        mail.history.append(record)
        mail.due = self.clock.monotonic() + record.wait(self.clock.time())


@implementer(ISuppressions)
class MemorySuppressions:
    """The addresses that get no mail of a `MemoryQueue`; see `ISuppressions`."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._table = SuppressionTable()

    def among(self, recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """See `ISuppressions.among`."""
        return self._table.among(recipients, self._queue.clock.time())

    def add(self, *entries: Suppression) -> None:
        """See `ISuppressions.add`."""
        with self._queue.changed:
            for entry in entries:
                self._table.put(entry)

    def remove(self, *addresses: str) -> int:
        """See `ISuppressions.remove`."""
        wanted = [normalized(address) for address in addresses]
        with self._queue.changed:
            return sum(map(self._table.drop, wanted))

    def entries(self) -> Sequence[Suppression]:
        """See `ISuppressions.entries`."""
        with self._queue.changed:
            return self._table.entries(self._queue.clock.time())


@implementer(IMailQueueAdmin)
class MemoryAdmin:
    """What operators see and do in a `MemoryQueue`; see `IMailQueueAdmin`."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`."""
        with self._queue.changed:
            counts = Counter(self._seen(mail).state for mail in self._queue.mails_by_name.values())
            counts[State.STAGED] = self._queue.staged
            return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        return min((mail.waits_since for mail in self.mails(WAITING - {State.SCHEDULED})), default=None)

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`."""
        with self._queue.changed:
            seen = [self._told(self._seen(mail)) for mail in self._queue.mails_by_name.values()]
        return filter(Selection(frozenset(states), sender, recipient, **more).matches, seen)

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        with self._queue.changed:
            return iter(list(self._queue.mails_by_name))

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        with self._queue.changed:
            known = (self._queue.mails_by_name.get(name) for name in names)
            return iter([self._told(self._seen(mail)) for mail in known if mail is not None])

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`.  Nothing can go wrong here but relays."""
        now = self._queue.clock.time()
        for mail in self.mails((State.HELD, State.REJECTED)):
            yield waits_for_a_person(mail.name, mail.envelope, mail.history[-1], now=now)
        blocked = [mail for mail in self.mails((State.READY, State.DEFERRED)) if mail.blocked is not None]
        board = RelayBoard(self.processors())
        for relay in board:
            if not relay.is_usable:
                waiting = [mail.name for mail in blocked if mail.blocked == relay]
                yield relay_down(relay, len(waiting), waiting[0] if waiting else "", now)
        yield from (relay_left_out(*each, now) for each in board.left_out())

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`.  Whatever is here is a mail."""
        return iter(())

    def in_doubt(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.in_doubt`.  Staged mail ends with the process that could commit it."""
        return iter(())

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        with self._queue.changed:
            return self._told(self._seen(self._find(name)))

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        with self._queue.changed:
            return io.BytesIO(self._find(name).message)

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        with self._for(name, Action.HOLD) as mail:
            self._queue.write(mail, replace(mail.record, state=State.HELD, time=self._queue.clock.time(), note=HELD))

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        with self._for(name, Action.RELEASE) as mail:
            self._queue.write(mail, mail.record.released(self._queue.clock.time()))

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        with self._for(name, Action.RETRY) as mail:
            self._queue.write(mail, mail.record.again(self._queue.clock.time(), "retried by an operator"))

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        with self._for(name, Action.REMOVE) as mail:
            del self._queue.mails_by_name[mail.name]

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        with self._for(name, Action.REROUTE) as mail:
            mail.envelope = replace(mail.envelope, relay=relay)
            now, record = self._queue.clock.time(), mail.record
            state = record.state if record.state is State.HELD else State.READY
            self._queue.write(mail, replace(record, state=state, time=now, due=now, parts={}))

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        with self._for(name, Action.BOUNCE) as mail:
            left = mail.envelope.only(mail.record.outstanding(mail.envelope.recipients))
            self._queue.write(mail, set_aside(mail.record, left, why, now=self._queue.clock.time()))

    def processors(self) -> Sequence[ProcessorState]:
        """See `IMailQueueAdmin.processors`."""
        return list(self._queue.reported)

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`."""
        with self._queue.changed:
            self._queue.probes[relay] = self._queue.clock.time()
            self._queue.wake()

    def _seen(self, mail: _Mail) -> QueuedMail:
        return QueuedMail.at(
            self._queue.clock.time(),
            mail.name,
            mail.state,
            mail.envelope,
            message_id=mail.message_id,
            since=mail.since,
            size=len(mail.message),
            history=tuple(mail.history),
        )

    def _told(self, mail: QueuedMail) -> QueuedMail:
        return mail.on(RelayBoard(self.processors()), self._queue.clock.time())

    def forget_keys(self) -> int:
        """See `IMailQueueAdmin.forget_keys`."""
        with self._queue.changed:
            now, keys = self._queue.clock.time(), self._queue.keys
            over = [key for key, (holder, _, until) in keys.items() if holder is None and until <= now]
            for key in over:
                del keys[key]
            return len(over)

    def expire_rejected(self, before: float) -> int:
        """See `IMailQueueAdmin.expire_rejected`."""
        with self._queue.changed:
            old = [mail.name for mail in self.mails([State.REJECTED]) if mail.history[-1].time < before]
            for name in old:
                self.remove(name)
            return len(old)

    def _find(self, name: str) -> _Mail:
        try:
            return self._queue.mails_by_name[name]
        except KeyError:
            raise NoSuchMail(f"there is no mail {name!r} in the queue; it may have been sent in the meantime") from None

    @contextlib.contextmanager
    def _for(self, name: str, verb: Action) -> Iterator[_Mail]:
        """Yield the mail, if `verb` can be done to it; processors are woken afterwards."""
        with self._queue.changed:
            mail = self._find(name)
            after(mail.state, verb, name)
            mail.parked = ""
            yield mail
            self._queue.wake()


@implementer(IStagedMail)
class MemoryStagedMail:
    """See `IStagedMail`."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._mails: list[tuple[Envelope, bytes, str]] = []
        self._process = OwnProcess()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mails."""
        return tuple(name for *_, name in self._mails)

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        if envelope.terms.key:
            patiently(self._queue.clock, lambda: self._take_key(envelope.terms, id_of(message)))
        name = self._queue.new_name()
        self._mails.append((envelope, joined(message), name))
        self._queue.staged += 1
        return name

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        while len(self._mails) > count:
            envelope, *_ = self._mails.pop()
            self._queue.staged -= 1
            holder, *_ = self._queue.keys.get(envelope.terms.key, (None,))
            if holder is self:
                del self._queue.keys[envelope.terms.key]

    def _take_key(self, terms: Terms, identifier: str) -> None:
        """Let the next mail have its key.  Raises `KeyTaken`, `KeyInUse`."""
        with self._queue.changed:
            holder, known, until = self._queue.keys.get(terms.key, (None, "", 0.0))
            if holder is not None and holder is not self:
                raise in_use(terms.key)
            if holder is self or self._queue.clock.time() < until:
                raise KeyTaken(terms.key, known)
            self._queue.keys[terms.key] = self, identifier, terms.key_until

    def _keep_keys(self) -> None:
        """Let the mails keep their keys: they are committed."""
        with self._queue.changed:
            for envelope, *_ in self._mails:
                if envelope.terms.key:
                    _, identifier, until = self._queue.keys[envelope.terms.key]
                    self._queue.keys[envelope.terms.key] = None, identifier, until

    def prepare(self) -> None:
        """See `IStagedMail`.  Memory needs no preparation."""
        self._process.check(len(self))

    def commit(self) -> None:
        """See `IStagedMail`."""
        self._process.check(len(self))
        mails = list(self._mails)
        self._keep_keys()
        self.rollback(0)
        self._queue.reveal(mails)

    def abort(self) -> None:
        """See `IStagedMail`."""
        self.rollback(0)


@implementer(IFirstAttempts)
class MemoryFirstAttempts:
    """See `IFirstAttempts`."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._leases: dict[str, MemoryLease] = {}

    def commit(self, staged: Any) -> None:
        """See `IFirstAttempts`."""
        with self._queue.changed:
            names = staged.names
            staged.commit()
            self._leases |= {name: MemoryLease(self._queue, self._queue.mails_by_name[name]) for name in names}

    def claim(self, name: str) -> MemoryLease | None:
        """See `IFirstAttempts`."""
        return self._leases.pop(name, None)

    def leave(self, name: str) -> None:
        """See `IFirstAttempts`."""
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.release()
            self._queue.wake()

    def close(self) -> None:
        """See `IFirstAttempts`."""
        for name in list(self._leases):
            self.leave(name)


@implementer(ILease)
class MemoryLease:
    """See `ILease`."""

    problem = ""
    inherited: Outcome | None = None

    def __init__(self, queue: MemoryQueue, mail: _Mail) -> None:
        self._queue = queue
        self._mail = mail
        self.record = mail.record
        self.name = mail.name
        self.message_id = mail.message_id
        self.written: float | None = mail.since
        self.size: int | None = len(mail.message)
        recipients = mail.record.outstanding(mail.envelope.recipients)
        malformed = mail.record.outstanding(mail.envelope.malformed)
        self.envelope = replace(mail.envelope, recipients=recipients, malformed=malformed)
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
        with self._queue.changed:
            if record.state is State.SENT:
                self._queue.mails_by_name.pop(self.name, None)
                self._queue.note_departure(self.message_id, record)
            else:
                self._queue.write(self._mail, record)
            self.release()

    def release(self) -> None:
        """See `ILease`."""
        with self._queue.changed:
            if self._mail.lease is self:
                self._mail.lease = None

    def park(self, relay: str, patience: float = inf) -> None:
        """See `ILease`."""
        with self._queue.changed:
            self.release()
            self._mail.parked = relay
            self._mail.parked_until = self._queue.clock.monotonic() + patience


_queues: weakref.WeakSet[MemoryQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
