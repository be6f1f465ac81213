"""What the workers of a processor have to say to the database, in as few round trips as can be.

One statement writes down that a mail's last byte is about to go, that others have left, and that others are given back;
a worker that comes while another one speaks to the server is served by the next statement, together with all who came.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.queue.postgresql.arrays import array, quoted, values_of
from zope.sendmail.queue.postgresql.database import Connections, is_lost, translated
from zope.sendmail.queue.postgresql.departures import part_of
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.queue.postgresql.phasemark import PhaseMark
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

#: For one who only waits until all that was said before is written.
_NO_MAIL, _NO_SLOT = uuid.UUID(int=0), -1

#: Seconds after which an answer is not relied on: a processor that stood still so long may be taken for dead soon.
_TRUST = 2.0


class _Gone(NamedTuple):
    """A mail that has left, or is given back."""

    mail: uuid.UUID
    lease: int
    slot: int
    line: str = ""
    #: Whether nothing is known of it but one row of `mail` and one of `body`.
    is_simple: bool = False


@dataclass(slots=True)
class _Batch:
    """What one statement says."""

    marks: list[PhaseMark] = field(default_factory=list)
    #: How many workers wait for it.
    waiting: int = 0
    sent: list[_Gone] = field(default_factory=list)
    back: list[_Gone] = field(default_factory=list)

    @property
    def says_something(self) -> bool:
        """Whether there is more than a worker that wants to know that nothing waits."""
        return bool(self.sent or self.back) or any(mark.slot != _NO_SLOT for mark in self.marks)

    def statement(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the statement that says it, and its parameters."""
        # Of a mail that was opened and goes at once, one word.
        last = {mark.slot: mark for mark in self.marks if mark.slot != _NO_SLOT}
        if len(self.sent) == len(last) == 1 and not self.back and self.sent[0].is_simple:
            return "advance_one", _one(self.sent[0], *last.values())
        marks = last.values()
        return "advance", {
            "sent": array([each.mail.hex for each in self.sent]),
            "sent_leases": array([each.lease for each in self.sent]),
            "records": array([quoted(each.line) for each in self.sent]),
            "back": array([each.mail.hex for each in self.back]),
            "back_leases": array([each.lease for each in self.back]),
            "slots": array(last),
            "mails": array([mark.mail.hex for mark in marks]),
            "leases": array([mark.lease for mark in marks]),
            "phases": array([mark.phase for mark in marks]),
        }


def _one(sent: _Gone, mark: PhaseMark) -> dict[str, Any]:
    return {
        "sent": sent.mail,
        "sent_lease": sent.lease,
        "record": sent.line,
        "mail": mark.mail,
        "lease": mark.lease,
        "slot": mark.slot,
        "phase": mark.phase,
    }


@functools.cache
def _of_day(name: str, part: int) -> bytes:
    """Return a statement that writes into the partition of a day."""
    return STATEMENTS[name].replace(b"{part}", str(part).encode())


class RoundTrips:
    """See the module.  Concurrency: any thread.

    :param now: the time of the queue, at which mails are said to have left.
    :param clock: that of the beats.
    :param free_slot: told of each slot whose mail has left, or is given back.
    """

    def __init__(
        self,
        connections: Connections,
        liveness: Registration,
        queue: int,
        now: Callable[[], float],
        *,
        clock: Clock,
        free_slot: Callable[[int], object],
    ) -> None:
        self._free_slot = free_slot
        self._connections = connections
        self._liveness = liveness
        self._queue = queue
        self._clock = clock
        self._mutex = threading.Lock()
        self._is_busy = False
        self._waiting: deque[PhaseMark] = deque()
        self._pending = _Batch()
        self._connection: Connection[Any] | None = None
        self._now = now
        #: Seconds that the shortest of them took for each mail of a worker; 0.0 as long as there was none.
        self.shortest = 0.0

    # what is said

    def opened(self, mail: uuid.UUID, lease: int, slot: int) -> None:
        """Note that a worker reads the mail.  Written soon, unless it has gone by then."""
        with self._mutex:
            self._pending.marks.append(PhaseMark(mail, lease, slot, 1))
        self._liveness.hurry()

    def intend(self, mark: PhaseMark) -> None:
        """Write down that the last byte of a mail may go from now on.

        :raises LeaseLost: if it must not go.
        """
        self._be_served(mark)
        if mark.error is not None:
            raise LeaseLost(str(mark.error)) from mark.error

    def holds(self, mark: PhaseMark) -> bool:
        """Return whether a mark was written down, and not so long ago that this processor may be dead to others."""
        return mark.done and mark.error is None and self._clock.monotonic() < mark.asked_at + _TRUST

    def sent(self, mail: uuid.UUID, lease: int, slot: int, line: str, *, is_simple: bool) -> None:
        """Note that the mail has left, with this record; that is written soon.

        :param is_simple: whether it was never tried before and fits one row.
        """
        gone = _Gone(mail, lease, slot, line, is_simple)
        with self._mutex:
            self._pending.sent.append(gone)

    def back(self, mail: uuid.UUID, lease: int, slot: int) -> None:
        """Give the mail back, which is written soon."""
        with self._mutex:
            self._pending.back.append(_Gone(mail, lease, slot))

    def flush(self) -> None:
        """Write down what waits.

        :raises QueueError: if the database refuses; it waits on.
        """
        mark = PhaseMark(_NO_MAIL, 0, _NO_SLOT, 0)
        self._be_served(mark)
        if mark.error is not None:
            raise mark.error

    def flush_safely(self) -> bool:
        """Write down what waits; trouble is told, and it waits on.  Returns whether all is written."""
        try:
            self.flush()
        except QueueError as error:
            maillog.beat_failed(self._connections.location.text, error)
            return False
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self.flush_safely()
        with self._mutex:
            if not self._is_busy:
                self._drop()

    # how it is said

    def _be_served(self, mark: PhaseMark) -> None:
        """Wait until a mark is written down: with what others have to say by the one who speaks next, or by us."""
        baton.put_down()  # others go on meanwhile, and share the journey
        with self._mutex:
            self._pending.marks.append(mark)
            self._pending.waiting += 1
            if self._is_busy:
                mark.gate = threading.Lock()
                mark.gate.acquire()
                self._waiting.append(mark)
            self._is_busy = True
        if mark.gate is not None:
            mark.gate.acquire()
        if not mark.done:
            try:
                self._speak()
            finally:
                self._pass_on()

    def _pass_on(self) -> None:
        """Let those go on who were served, and the first of the others speak."""
        with self._mutex:
            served = [mark for mark in self._waiting if mark.done]
            self._waiting = deque(mark for mark in self._waiting if not mark.done)
            self._is_busy = bool(self._waiting)
            if self._waiting:
                served.append(self._waiting.popleft())
        for mark in served:
            assert mark.gate is not None
            mark.gate.release()

    def _speak(self) -> None:
        """Say all that waits.  A worker that waits for a mark is told of trouble; what others said waits on."""
        with self._mutex:
            batch, self._pending = self._pending, _Batch()
        try:
            ended, slots = self._advance(batch) if batch.says_something else (set(), set())
        except Exception as error:  # noqa: BLE001 - the waiting worker is told
            for mark in batch.marks:
                mark.done, mark.error = True, error
            with self._mutex:
                self._pending.sent[:0], self._pending.back[:0] = batch.sent, batch.back
            return
        self._heard(batch, ended, slots)

    def _heard(self, batch: _Batch, ended: set[uuid.UUID], slots: set[int]) -> None:
        for mark in batch.marks:
            if mark.slot not in slots and mark.slot != _NO_SLOT:
                mark.error = LeaseLost("this processor was taken for dead; another one has its mails")
            mark.done = True
        for each in (*batch.sent, *batch.back):
            self._free_slot(each.slot)
        missing = [each.mail for each in batch.sent if each.mail not in ended]
        for mail in missing:
            maillog.lease_lost(shown(mail), "it was sent from here, and another processor has it now")
        if missing and self._liveness.is_after_crash:
            with contextlib.suppress(QueueError):  # the next beat after the crash withdraws it again
                self._liveness.withdraw(missing)

    def _advance(self, batch: _Batch) -> tuple[set[uuid.UUID], set[int]]:
        """Execute the statement.

        Again if the connection broke, if a crash of the server has emptied the slots, or if this process stood still
        before it read the answer: it may have been taken for dead since.
        """
        repeated = False
        for attempt in range(3):  # pragma: no branch - the third attempt ends it, or raises
            asked_at = self._clock.monotonic()
            for mark in batch.marks:
                mark.asked_at = asked_at
            try:
                with translated():
                    ended, slots = self._execute(batch)
            except QueueError as error:
                self._drop()
                if attempt == 2 or error.__cause__ is None or not is_lost(error.__cause__):
                    raise
                repeated = True
                continue
            wanted = {mark.slot for mark in batch.marks} - {_NO_SLOT}
            heard_at = self._clock.monotonic()
            each = (heard_at - asked_at) * max(1, batch.waiting) / max(1, len(batch.marks))
            self.shortest = min(each, self.shortest or inf)
            is_old = heard_at >= asked_at + _TRUST
            if (wanted <= slots and not is_old) or self._liveness.ended or attempt == 2:
                break
            if not wanted <= slots:
                self._liveness.beat()  # after a crash of the server it registers with what we have in hand
            repeated = True
        if repeated:  # what the first one did is not told again
            ended |= {each.mail for each in batch.sent}
        return ended, slots

    def _execute(self, batch: _Batch) -> tuple[set[uuid.UUID], set[int]]:
        now = self._now()
        if self._connection is None:
            self._connection = self._connections.connect()
        part = part_of(now)
        name, parameters = batch.statement()
        parameters |= {"me": self._liveness.id, "queue": self._queue, "part": part, "now": now}
        [(ended, slots, _)] = self._connection.execute(_of_day(name, part), parameters)
        asked = [mark.slot for mark in batch.marks if mark.slot != _NO_SLOT]
        return values_of(ended, [each.mail for each in batch.sent], uuid.UUID), values_of(slots, asked, int)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()
