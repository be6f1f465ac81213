"""How processors on other machines learn at once that there is something new.

One NOTIFY for all commits of 20 ms, in a transaction of its own after them: within them it would let only one commit
at a time.  Behind a pooler LISTEN reaches no one; then the queue is looked at four times a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import uuid
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import psycopg
from psycopg import Connection

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.postgresql.database import Connections, translated
from zope.sendmail.system.clock import Clock

#: Seconds between two announcements of one process.
PAUSE = 0.02

#: Seconds between two looks where nothing is heard, and where some commits are not told of: those of an application's
#: connection.
_LOOK, _LOOK_ANYWAY = 0.25, 0.5

#: Seconds between two questions of whether something was heard, as long as there is mail to send.
_ASKED = 0.005

#: Names in one announcement: a payload has less than 8000 bytes.
_NAMES = 100

#: Seconds after which an idle thread ends.
_IDLE = 1.0


class Announcer:
    """Tells the processors of a queue that something is new.  Concurrency: any thread.

    What cannot be told is found by the processors' next look.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._clock = Clock()
        self._changed = threading.Condition()
        self._pending: dict[str, None] = {}
        self._spoke_at = -inf
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def close(self) -> None:
        """Tell what has not been told, and let the thread end; what is announced later begins another one."""
        with self._changed:
            self._is_closing, thread = True, self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._changed:
            self._is_closing = False

    def announce(self, queue: int, mails: Iterable[uuid.UUID] = ()) -> None:
        """Tell of new mail, or of mails that an operator changed.  Does not wait for more than one round trip."""
        names = [mail.hex for mail in mails]
        payloads = [f"{queue} {' '.join(names[at : at + _NAMES])}".strip() for at in range(0, len(names) or 1, _NAMES)]
        with self._changed:
            now = self._clock.monotonic()
            if now < self._spoke_at + PAUSE:
                self._pending.update(dict.fromkeys(payloads))
                self._see_to_it()
                return
            self._spoke_at = now
        self._speak(payloads)

    def _see_to_it(self) -> None:
        """Let a thread tell the rest."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zope.sendmail.postgresql.announce", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # Python ends
                self._thread = None
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._is_closing, _IDLE)
                if not self._pending:
                    self._thread = None
                    return
                self._changed.wait_for(lambda: self._is_closing, PAUSE)
                payloads, self._pending = list(self._pending), {}
                self._spoke_at = self._clock.monotonic()
            self._speak(payloads)

    def _speak(self, payloads: list[str]) -> None:
        with contextlib.suppress(QueueError):
            for payload in payloads:
                self._connections.execute("notify", payload=payload)


class Listener:
    """Hears what is announced, and what `wake` says.  Concurrency: any thread; of several that wait, one hears.

    :param is_new: asked again and again while nothing is heard.
    """

    def __init__(self, connections: Connections, queue: int, is_new: Callable[[], bool]) -> None:
        self._connections = connections
        self._queue = str(queue)
        self._is_new = is_new
        self._connection: Connection[Any] | None = None
        self._clock = Clock()
        self._mutex = threading.Lock()
        self._asked_at = -inf
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def wake(self) -> None:
        """Let `wait` return.  May be called from a signal handler."""
        with contextlib.suppress(OSError):  # the pipe is full, or closed
            os.write(self._writer, b"!")

    @property
    def is_open(self) -> bool:
        """Whether `open` has nothing to do."""
        return self._connection is not None or self._connections.are_pooled()

    def open(self) -> None:
        """Listen from now on.

        :raises QueueError: if the database cannot be reached.
        """
        if self._mutex.acquire(blocking=False):  # else another thread listens
            try:
                self._open()
            finally:
                self._mutex.release()

    def _open(self) -> None:
        if self._connection is None and not self._connections.are_pooled():
            connection = self._connections.connect()
            if self._connections.are_pooled():  # which is known only now
                connection.close()
                return
            with translated():
                connection.execute("listen zope_sendmail")
            self._connection = connection

    def wait(self, timeout: float) -> list[uuid.UUID] | None:
        """Wait until there may be something new.

        :param timeout: seconds.
        :returns: the mails that an operator changed; None if nothing was heard.
        :raises QueueError: if there is no connection, and none can be had.
        """
        deadline = self._clock.monotonic() + timeout
        if not self._mutex.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            return None
        try:
            self._open()
            return self._listen_until(deadline)
        finally:
            self._mutex.release()

    def hear(self, *, again: bool) -> list[uuid.UUID] | None:
        """Return what was heard already, without a wait; see `wait`.  None, too, while another thread listens.

        :param again: ask the system even if that was done a moment ago.
        """
        now = self._clock.monotonic()
        if not again and now < self._asked_at + _ASKED:
            return None
        if not self._mutex.acquire(blocking=False):
            return None
        try:
            self._asked_at = now
            is_heard = self._connection is not None and self._connection.fileno() in self._select(0.0)
            return self._heard() if is_heard else None
        finally:
            self._mutex.release()

    def _listen_until(self, deadline: float) -> list[uuid.UUID] | None:
        look_at = self._next_look()
        while True:
            ready = self._select(min(deadline, look_at) - self._clock.monotonic())
            if self._reader in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._reader, 4096)
                return None
            heard = self._heard() if ready else None
            if heard is not None:
                return heard
            now = self._clock.monotonic()
            if now >= deadline:
                return None
            if now >= look_at:  # also where other queues of the database are never silent
                if self._is_new():
                    return []
                look_at = self._next_look()

    def _next_look(self) -> float:
        return self._clock.monotonic() + (_LOOK if self._connection is None else _LOOK_ANYWAY)

    def _select(self, seconds: float) -> list[int]:
        descriptors = [self._reader]
        if self._connection is not None:
            descriptors.append(self._connection.fileno())
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(max(0, int(seconds * 1000) + 1) if seconds > 0 else 0)]

    def _heard(self) -> list[uuid.UUID] | None:
        """Read what the server said; None if it is about other queues."""
        assert self._connection is not None
        try:
            with translated():
                payloads = [each.payload for each in self._connection.notifies(timeout=0)]
        except QueueError:  # the connection broke, and what was said meanwhile is lost
            self._drop()
            return []
        found: list[uuid.UUID] | None = None
        for payload in payloads:
            queue, _, names = payload.partition(" ")
            if queue == self._queue:
                found = [*(found or []), *map(uuid.UUID, names.split())]
        return found

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def close(self) -> None:
        """Listen no more."""
        self._drop()
        for descriptor in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)
