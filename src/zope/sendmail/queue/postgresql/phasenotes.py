"""How far mails have come, written down without waiting: that one is about to go, and that a relay has taken it.

A short statement on a connection of its own, which touches nothing but the slots of this processor.  Workers look with
each mail whether the last one is answered, and send the next with all that was said meanwhile; so no thread has to wake
up for that.  If no worker comes, a thread does it.

What fails here is asked again by the worker that needs the answer (`RoundTrips.intend`); that a relay has taken a mail
is not, so a death may leave it unknown.  A slot is given to another mail only when nothing about it is under way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from math import inf
from typing import Any

import psycopg
from psycopg import Connection

from zope.sendmail.errors import LeaseLost
from zope.sendmail.queue.postgresql.arrays import array, values_of
from zope.sendmail.queue.postgresql.asyncquery import AsyncQuery
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.phasemark import PhaseMark
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

#: Seconds after which no worker is waited for to look for an answer.
_PACE = 0.001


class PhaseNotes:
    """See the module.  Concurrency: any thread.

    :param clock: that of the beats.
    """

    def __init__(self, connections: Connections, liveness: Registration, clock: Clock) -> None:
        self._connections = connections
        self._liveness = liveness
        self._clock = clock
        #: Held by the one that speaks with the server.
        self._speaking = threading.Lock()
        self._connection: Connection[Any] | None = None
        self._query: AsyncQuery | None = None
        #: Held for moments only.
        self._mutex = threading.Lock()
        #: What is to be said next, and what was said and is not answered yet: the last word about each slot.
        self._pending: dict[int, PhaseMark] = {}
        self._under_way: dict[int, PhaseMark] = {}
        #: Slots whose mails have ended while something about them was under way.
        self._left: set[int] = set()
        #: When a worker looked last.
        self._went_on_at = -inf
        self._thread: threading.Thread | None = None
        #: Whether something was said, so that the thread has to see to it; and whether all is over.
        self._is_wanted, self._is_over = threading.Event(), threading.Event()

    # what is said

    def say(self, mark: PhaseMark) -> None:
        """Write this down soon: with the next `go_on`, or within some thousandths of a second."""
        with self._mutex:
            self._pending[mark.slot] = mark
        self._wake()

    def go_on(self) -> None:
        """Hear what is answered, and say what is to be said, as far as that needs no waiting.  Raises nothing."""
        self._went_on_at = self._clock.monotonic()
        if self._speaking.acquire(blocking=False):
            try:
                if self._query is not None and self._hears(self._query):
                    self._begin(self._query)
            finally:
                self._speaking.release()

    @property
    def goes_on(self) -> bool:
        """Whether workers do that often enough, so that `flush` need not."""
        return self._query is not None and self._clock.monotonic() < self._went_on_at + _PACE

    def wait_for(self, mark: PhaseMark) -> None:
        """Wait until a mark is written down, or is known not to be."""
        self.go_on()
        if not mark.done:
            baton.put_down()
            with self._speaking:
                if not mark.done:
                    self._speak()

    def flush(self) -> None:
        """Write down what has been said until now, as far as the database lets us.  Raises nothing."""
        if self._pending or self._under_way:
            with self._speaking:
                self._speak()

    def free_slot(self, slot: int) -> None:
        """Free a slot: its mail is settled, or given back."""
        with self._mutex:
            self._pending.pop(slot, None)
            if slot in self._under_way:
                self._left.add(slot)
                return
        self._liveness.free_slot(slot)

    def close(self) -> None:
        """Write down what was said, and let go of the connection."""
        self._is_over.set()
        self._is_wanted.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        with self._speaking:
            self._drop()

    # the thread

    def _wake(self) -> None:
        if self._is_wanted.is_set():
            return
        self._is_wanted.set()
        with self._mutex:
            if self._thread is None and not self._is_over.is_set():
                thread = threading.Thread(target=self._run, name="zope.sendmail.postgresql.notes", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system has none: workers do what they can
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._is_wanted.wait()
            self._is_over.wait(_PACE)
            if not self.goes_on:
                self._is_wanted.clear()
                self.flush()

    # how it is said

    def _speak(self) -> None:
        """Say all that waits, and wait for the answer."""
        try:
            query = self._connected()
        except Exception as error:  # noqa: BLE001 - those who need the answer meet it
            with self._mutex:
                lost, self._pending = list(self._pending.values()), {}
            _end(lost, error)
            return
        if self._under_way:
            self._hear(query)
        if self._query is query:
            self._begin(query)
        if self._under_way:
            self._hear(query)

    def _connected(self) -> AsyncQuery:
        if self._query is None:
            self._connection = self._connections.connect()
            self._query = AsyncQuery(self._connection)
        return self._query

    def _begin(self, query: AsyncQuery) -> None:
        """Say what waits, without waiting for the answer."""
        with self._mutex:
            if not self._pending:
                return
            self._under_way, self._pending = self._pending, {}
        marks, asked_at = self._under_way.values(), self._clock.monotonic()
        for mark in marks:
            mark.asked_at = asked_at
        parameters = {
            "me": self._liveness.id,
            "slots": array(self._under_way),
            "mails": array([mark.mail.hex for mark in marks]),
            "leases": array([mark.lease for mark in marks]),
            "phases": array([mark.phase for mark in marks]),
        }
        self._guarded(lambda: query.ask(STATEMENTS["note"], parameters))

    def _hears(self, query: AsyncQuery) -> bool:
        """Return whether nothing is under way, or not any more.  Does not wait."""
        if self._under_way and self._guarded(query.is_answered):
            self._hear(query)
        return not self._under_way and self._query is not None

    def _hear(self, query: AsyncQuery) -> None:
        """Wait for the answer."""
        answer = self._guarded(query.answer)
        if answer is not None:
            slots = values_of(answer[0], self._under_way, int)
            lost = LeaseLost("this processor was taken for dead; another one has its mails")
            self._over(lambda mark: None if mark.slot in slots else lost)

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        """Return what this returns; None if it fails: then the connection is given up."""
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - those who need the answer meet it
            trouble = error
        self._drop()
        self._over(lambda _: trouble)
        return None

    def _over(self, trouble: Callable[[PhaseMark], Exception | None]) -> None:
        """Take note that nothing is under way any more, and of what became of each."""
        with self._mutex:
            marks, self._under_way = self._under_way, {}
            left, self._left = self._left, set()
        for mark in marks.values():
            mark.error, mark.done = trouble(mark), True
        for slot in left:
            self._liveness.free_slot(slot)

    def _drop(self) -> None:
        connection, self._connection, self._query = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()


def _end(marks: list[PhaseMark], error: Exception) -> None:
    for mark in marks:
        mark.error, mark.done = error, True
