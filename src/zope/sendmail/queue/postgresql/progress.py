"""What the workers of a processor have to say to the database, in as few round trips as can be.

One statement writes down that a mail's last byte is about to go, that others have left, and that others are given back;
whoever comes while another one speaks to the server is served by the next statement, together with all who came.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.queue.postgresql.connection import Connections, is_lost, run, translated
from zope.sendmail.queue.postgresql.liveness import Liveness
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.reporting import maillog

_DAY = 86400

#: Days, and so partitions, for what has left.
PARTITIONS = 9


@dataclass(slots=True, eq=False)
class _Mark:
    """How far a mail has come; who waits for it finds here how it went."""

    mail: uuid.UUID
    lease: int
    slot: int
    phase: int
    done: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class _Batch:
    """What one statement says."""

    marks: list[_Mark] = field(default_factory=list)
    sent: list[tuple[uuid.UUID, int, int]] = field(default_factory=list)
    back: list[tuple[uuid.UUID, int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.marks or self.sent or self.back)

    def parameters(self) -> dict[str, Any]:
        last = {mark.slot: mark for mark in self.marks}.values()  # of a mail that was opened and goes at once, one word
        return {
            "sent": [mail for mail, _, _ in self.sent],
            "sent_leases": [lease for _, lease, _ in self.sent],
            "back": [mail for mail, _, _ in self.back],
            "back_leases": [lease for _, lease, _ in self.back],
            "slots": [mark.slot for mark in last],
            "mails": [mark.mail for mark in last],
            "leases": [mark.lease for mark in last],
            "phases": [mark.phase for mark in last],
        }


class Progress:
    """See the module.  Concurrency: any thread."""

    def __init__(self, connections: Connections, liveness: Liveness, queue: int) -> None:
        self._connections = connections
        self._liveness = liveness
        self._queue = queue
        self._mutex = threading.Lock()
        self._speaking = threading.Lock()
        self._pending = _Batch()
        self._connection: Connection[Any] | None = None
        #: When mails are said to have left, by the queue's clock; set by the queue.
        self.now: Callable[[], float] = lambda: 0.0

    # what is said

    def opened(self, mail: uuid.UUID, lease: int, slot: int) -> None:
        """A worker reads the mail.  Written soon, unless it has gone by then."""
        with self._mutex:
            self._pending.marks.append(_Mark(mail, lease, slot, 1))
        self._liveness.hurry()

    def intend(self, mail: uuid.UUID, lease: int, slot: int, phase: int = 2) -> None:
        """Write down that the last byte may go from now on.

        :raises LeaseLost: if it must not go.
        """
        mark = _Mark(mail, lease, slot, phase)
        with self._mutex:
            self._pending.marks.append(mark)
        with self._speaking:
            if not mark.done:
                self._speak()
        if mark.error is not None:
            raise LeaseLost(str(mark.error)) from mark.error

    def sent(self, mail: uuid.UUID, lease: int, slot: int) -> None:
        """The mail has left; what is written soon."""
        with self._mutex:
            self._pending.sent.append((mail, lease, slot))

    def back(self, mail: uuid.UUID, lease: int, slot: int) -> None:
        """The mail is given back; what is written soon."""
        with self._mutex:
            self._pending.back.append((mail, lease, slot))

    def flush(self) -> None:
        """Write down what waits.

        :raises QueueError: if the database refuses; it waits on.
        """
        if self._pending:
            with self._speaking:
                self._speak()

    def flush_safely(self) -> None:
        """Write down what waits; trouble is told, and it waits on."""
        try:
            self.flush()
        except QueueError as error:
            maillog.beat_failed(self._connections.location.text, error)

    def close(self) -> None:
        """Let go of the connection."""
        with self._speaking:
            self._drop()

    # how it is said

    def _speak(self) -> None:
        """Say all that waits.  Whoever waits for a mark is told of trouble; what others said waits on."""
        with self._mutex:
            batch, self._pending = self._pending, _Batch()
        if not batch:
            return
        try:
            ended, slots = self._advance(batch)
        except Exception as error:
            for mark in batch.marks:
                mark.done, mark.error = True, error
            with self._mutex:
                self._pending.sent[:0], self._pending.back[:0] = batch.sent, batch.back
            if not batch.marks:
                raise
            return
        self._heard(batch, ended, slots)

    def _heard(self, batch: _Batch, ended: set[uuid.UUID], slots: set[int]) -> None:
        for mark in batch.marks:
            if mark.slot not in slots:
                mark.error = LeaseLost("this processor was taken for dead; another one has its mails")
            mark.done = True
        missing = [mail for mail, _, _ in batch.sent if mail not in ended]
        if missing and self._liveness.is_after_crash:
            self._liveness.withdraw(missing)
        for mail in missing:
            maillog.lease_lost(shown(mail), "it was sent from here, and another processor has it now")
        for _, _, slot in (*batch.sent, *batch.back):
            self._liveness.free_slot(slot)

    def _advance(self, batch: _Batch) -> tuple[set[uuid.UUID], set[int]]:
        """Execute the statement; a second time if the connection broke, or if a crash has emptied the slots."""
        repeated = False
        for attempt in range(3):
            try:
                with translated():
                    ended, slots = self._execute(batch)
            except QueueError as error:
                self._drop()
                if attempt == 2 or error.__cause__ is None or not is_lost(error.__cause__):
                    raise
                repeated = True
                continue
            wanted = {mark.slot for mark in batch.marks}
            if wanted <= slots or self._liveness.ended or attempt == 2:
                break
            self._liveness.beat()  # after a crash of the server it registers with what we have in hand
            repeated = True
        if repeated:  # what the first one did is not told again
            ended |= {mail for mail, _, _ in batch.sent}
        return ended, slots

    def _execute(self, batch: _Batch) -> tuple[set[uuid.UUID], set[int]]:
        now = self.now()
        if self._connection is None:
            self._connection = self._connections.connect()
        [(ended, slots, _)] = run(
            self._connection,
            "advance",
            {
                **batch.parameters(),
                "me": self._liveness.id,
                "queue": self._queue,
                "part": int(now // _DAY) % PARTITIONS,
                "now": now,
            },
        )
        return set(ended), set(slots)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()
