"""What operators can see and do in a database queue while processors run.

Whatever changes a mail is one transaction that has its row locked; a mail that a living processor has is left alone.
"""

from __future__ import annotations

import contextlib
import heapq
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from psycopg import Connection
from zope.interface import implementer

from zope.sendmail.errors import MalformedEnvelope, NoSuchMail, NotPossible, QueueError
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, MailStatus, status_of
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule, after_death, sent_before_death, set_aside
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.diagnosis import HELD, waits_for_a_person
from zope.sendmail.queue.postgresql import departures, doctor, keys
from zope.sendmail.queue.postgresql.database import Connections, run
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope, write_envelope
from zope.sendmail.queue.postgresql.lease import ACCEPTED, INTENDED
from zope.sendmail.queue.postgresql.names import parse_name, shown
from zope.sendmail.queue.postgresql.processorstates import ProcessorStateTable
from zope.sendmail.queue.postgresql.rows import (
    NUMBERS,
    SCHEDULED,
    SENDING,
    STAGED,
    STATES,
    line_of,
    mail_of,
    record_of,
    state_of,
)
from zope.sendmail.queue.postgresql.storedbody import open_body
from zope.sendmail.queue.queuefindings import relay_down, relay_left_out
from zope.sendmail.system.clock import Clock

#: Mails that are read at a time.
_PAGE = 500

_BEFORE_ALL = uuid.UUID(int=0)


@dataclass(slots=True)
class _Taken:
    """A mail whose row is locked."""

    id: uuid.UUID
    record: Record
    state: State
    envelope: str


@implementer(IMailQueueAdmin)
class PostgreSQLAdmin:
    """What operators see and do in one queue; see `IMailQueueAdmin`.  Concurrency: any thread.

    :param queue: returns the number of the queue in its database, None if it was never used.
    :param settle: called before a look: what workers of this process have said is written down then.
    :param changed: is told which mail an operator has changed, or None for a relay.
    """

    def __init__(
        self,
        connections: Connections,
        queue: Callable[[], int | None],
        schedule: Schedule,
        clock: Clock,
        *,
        settle: Callable[[], object],
        changed: Callable[[uuid.UUID | None], object],
    ) -> None:
        self._connections = connections
        self._queue = queue
        self.states = ProcessorStateTable(connections, queue)
        self._settle = settle
        self._changed = changed
        self._schedule = replace(schedule, on_unknown=OnUnknown.HOLD)
        self._clock = clock

    # looking

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`."""
        counts: Counter[State] = Counter()
        self._settle()
        for state, is_deferred, count in self._rows("count", now=self._clock.time()):
            if state == SENDING:
                counts[State.SENDING] += count
            elif state == SCHEDULED:
                counts[State.SCHEDULED] += count
            elif state == 0 and is_deferred:
                counts[State.DEFERRED] += count
            else:
                counts[STATES[state]] += count
        return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        self._settle()
        rows = self._rows("oldest", now=self._clock.time())
        return float(rows[0][0]) if rows else None

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`.  Reads page by page."""
        selection = Selection(frozenset(states), sender, recipient, **more)
        board, now = RelayBoard(self.processors()), self._clock.time()
        rows = heapq.merge(*self._sources(selection.states), key=lambda row: row[0])
        return filter(selection.matches, (mail_of(row, now).on(board, now) for row in rows))

    def _sources(self, states: Collection[State]) -> list[Iterator[Any]]:
        """Return the pages to be read: held, rejected, staged mails alone if these are meant, else all that is
        not staged.
        """
        numbers = {state: number for number, state in STATES.items() if number}
        apart = [numbers[state] for state in states if state in numbers]
        if states and len(apart) == len(states):
            return [self._pages("page_apart", state=number) for number in apart]
        staged = [self._pages("page_apart", state=number) for number in apart if number == STAGED]
        return [self._pages("page"), *staged]

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        return (shown(row[0]) for row in self._pages("names"))

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        self._settle()
        board, now = RelayBoard(self.processors()), self._clock.time()
        ids = [found for name in names if (found := parse_name(name)) is not None]
        rows = {row[0]: row for row in self._rows("these", ids=ids)}
        return (mail_of(rows[each], now).on(board, now) for each in ids if each in rows)

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`."""
        if not message_id or not departures.is_storable(message_id):
            return status_of(message_id, [], None, KEPT_DAYS)
        mails = [mail_of(row, self._clock.time()) for row in self._rows("by_message_id", message_id=message_id)]
        sent = departures.find(self._connections, self._queue(), message_id, self._clock.time())
        return status_of(message_id, mails, sent, KEPT_DAYS, now=self._clock.time())

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        row = self._one(name)
        lines = self._connections.execute("history", mail=row[0])
        mail = replace(mail_of(row, self._clock.time()), history=tuple(record_of(line) for (line,) in lines))
        return mail.on(RelayBoard(self.processors()), self._clock.time())

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        row = self._one(name)
        return open_body(self._connections, row[0], row[4])

    def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        """Return what a statement says about this queue; nothing if it was never used."""
        queue = self._queue()
        return [] if queue is None else self._connections.execute(statement, queue=queue, **parameters)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`."""
        yield from doctor.database(self._connections)
        queue = self._queue()
        if queue is not None:
            yield from doctor.in_doubt(self._connections, queue)
            yield from doctor.unfinished_moves(self._connections, queue)
            now = self._clock.time()
            yield from doctor.waiting(self._connections, queue, now, self.processors())
            for mail in self.mails((State.HELD, State.REJECTED)):
                record = mail.history[-1] if mail.history else None
                yield waits_for_a_person(mail.name, mail.envelope, record, now=now)
            yield from self._relays_down(now)

    def _relays_down(self, now: float) -> Iterator[Finding]:
        """Yield a finding for each relay that cannot be used, with the mails that wait for it."""
        board = RelayBoard(self.processors())
        yield from (relay_left_out(*each, now) for each in board.left_out())
        down = [relay for relay in board if not relay.is_usable]
        if not down:
            return
        blocked = [mail for mail in self.mails((State.READY, State.DEFERRED)) if mail.blocked is not None]
        for relay in down:
            waiting = [mail.name for mail in blocked if mail.blocked == relay]
            yield relay_down(relay, len(waiting), waiting[0] if waiting else "", now)

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`.  Whatever is in the tables is a mail."""
        return iter(())

    def in_doubt(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.in_doubt`."""
        queue = self._queue()
        return iter(()) if queue is None else doctor.in_doubt(self._connections, queue)

    def _pages(self, statement: str, **parameters: Any) -> Iterator[Any]:
        self._settle()
        last = _BEFORE_ALL
        while rows := self._rows(statement, after=last, limit=_PAGE, **parameters):
            yield from rows
            last = rows[-1][0]

    def _one(self, name: str) -> Any:
        self._settle()
        identifier = parse_name(name)
        rows = [] if identifier is None else self._rows("one", id=identifier)
        if not rows:
            raise _gone(name)
        return rows[0]

    # changing

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        with self.at_work(name, Action.HOLD) as (connection, mail):
            held = replace(mail.record, state=State.HELD, time=self._clock.time(), note=HELD)
            self._write(connection, mail, held)

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        with self.at_work(name, Action.RELEASE) as (connection, mail):
            if mail.state is State.STAGED:
                self._see_to_key(connection, name, mail)
            self._write(connection, mail, mail.record.released(self._clock.time()))

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        with self.at_work(name, Action.RETRY) as (connection, mail):
            self._write(connection, mail, mail.record.again(self._clock.time(), "retried by an operator"))

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        with self.at_work(name, Action.REMOVE) as (connection, mail):
            run(connection, "remove", {"id": mail.id})

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        with self.at_work(name, Action.REROUTE) as (connection, mail):
            try:
                envelope = write_envelope(replace(read_envelope(mail.envelope), relay=relay))
            except MalformedEnvelope as error:
                raise NotPossible(f"cannot reroute mail {name}: {error}") from error
            now, record = self._clock.time(), mail.record
            state = record.state if record.state is State.HELD else State.READY
            run(connection, "readdress", {"id": mail.id, "envelope": envelope})
            self._write(connection, mail, replace(record, state=state, time=now, due=now, parts={}))

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        with self.at_work(name, Action.BOUNCE) as (connection, mail):
            whole = Envelope("", ())
            with contextlib.suppress(MalformedEnvelope):
                whole = read_envelope(mail.envelope)
            left = whole.only(mail.record.outstanding(whole.recipients))
            self._write(connection, mail, set_aside(mail.record, left, why, now=self._clock.time()))

    def processors(self) -> Sequence[ProcessorState]:
        """See `IMailQueueAdmin.processors`."""
        return self.states.read()

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`."""
        self.states.ask_for_probe(relay, self._clock.time())
        self._changed(None)

    def expire_rejected(self, before: float) -> int:
        """See `IMailQueueAdmin.expire_rejected`."""
        count = 0
        for mail in self.mails([State.REJECTED]):
            given_up = mail.history[-1].time if mail.history else mail.since
            if given_up < before:
                with contextlib.suppress(QueueError):  # another process was faster
                    self.remove(mail.name)
                    count += 1
        return count

    @contextlib.contextmanager
    def at_work(self, name: str, verb: Action) -> Iterator[tuple[Connection[Any], _Taken]]:
        """Have the row of a mail to which `verb` can be done locked for the block."""
        self._settle()
        identifier, queue = parse_name(name), self._queue()
        if identifier is None or queue is None:
            raise _gone(name)
        refused: NotPossible | None = None
        with self._connections.transaction() as connection:
            rows = run(connection, "take", {"id": identifier, "queue": queue})
            if not rows:
                raise _gone(name)
            mail = self.taken(connection, identifier, rows[0], f"cannot {verb} mail {name}")
            try:
                after(mail.state, verb, name)
            except NotPossible as error:  # what a dead processor left is written down all the same
                refused = error
            else:
                yield connection, mail
        if refused is not None:
            raise refused
        self._changed(identifier)

    def taken(self, connection: Connection[Any], identifier: uuid.UUID, row: Any, what: str) -> _Taken:
        """Return how it stands with a mail; if its processor died with it, that is written down first.

        What is unknown is held, whatever processors do with it: the operator is there, and decides by the verb.
        """
        state, owner, _, line, envelope, is_alive, is_lost, may_come_back, phase, may_commit = row
        if state == STAGED and may_commit:
            raise NotPossible(f"{what}: its transaction may still commit; that is given up after an hour")
        if owner is not None and (is_alive or may_come_back):
            raise NotPossible(f"{what}: it is being sent; try again in a moment")
        record = record_of(line)
        phase = INTENDED if owner is not None and is_lost else phase
        if owner is not None and phase:
            record = self._after_death(record, envelope, phase)
            mail = _Taken(identifier, record, record.state, envelope)
            self._write(connection, mail, record)
            return mail
        is_sent = record.state is State.SENT  # a dead processor left it, and none has removed it yet
        return _Taken(identifier, record, State.SENT if is_sent else state_of(state, record), envelope)

    def _after_death(self, record: Record, envelope: str, phase: int) -> Record:
        with contextlib.suppress(MalformedEnvelope):
            whole, now = read_envelope(envelope), self._clock.time()
            left = whole.only(record.outstanding(whole.recipients))
            if phase == ACCEPTED:
                return sent_before_death(record, left, now=now)
            return after_death(record, left, self._schedule, intended=phase == INTENDED, now=now)
        return record

    def _write(self, connection: Connection[Any], mail: _Taken, record: Record) -> None:
        run(
            connection,
            "change",
            {
                "id": mail.id,
                "state": NUMBERS.get(record.state, 0),
                "due": self._due(mail, record),
                "record": line_of(record),
            },
        )

    def _see_to_key(self, connection: Connection[Any], name: str, mail: Any) -> None:
        """See that no other mail has the key of one that a person commits.  Raises `NotPossible`."""
        with contextlib.suppress(MalformedEnvelope):
            key, queue = read_envelope(mail.envelope).terms.key, self._queue()
            if key and queue is not None and keys.is_anothers(partial(run, connection), queue, key, mail.id):
                why = f"another mail has had its key {key!r} since, and both would be sent; remove this one"
                raise NotPossible(f"cannot release {name}: {why}")

    def forget_keys(self) -> int:
        """See `IMailQueueAdmin.forget_keys`.  Forgets those of all queues of the database, and counts its own."""
        queue = self._queue()
        return sum(of == queue for (of,) in self._connections.execute("forget_keys", now=self._clock.time()))

    def _due(self, mail: _Taken, record: Record) -> float | None:
        """Return when a mail leaves that its sender wants to leave later; None: at once."""
        with contextlib.suppress(MalformedEnvelope):
            terms = read_envelope(mail.envelope).terms
            if record.before_time(terms, self._clock.time()) > 0.0:
                return terms.not_before
        return None

    # keeping it clean

    def clean(self) -> None:
        """Empty the partition that tomorrow needs.

        :raises QueueError: if the database refuses.
        """
        departures.clean(self._connections, self._clock.time())


def _gone(name: str) -> NoSuchMail:
    return NoSuchMail(f"there is no mail {name!r} in the queue; it may have been sent in the meantime")
