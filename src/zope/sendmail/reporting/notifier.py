"""Subscribers are told what happened to mail: after the commit, in a thread and a transaction of their own.

So a subscriber may use the database, and one that raises or hangs harms no mail and delays none.  Events are told
in order. What a subscriber raises is logged; what waits is bounded.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterable

import transaction
import zope.event

from zope.sendmail.events import MailEvent
from zope.sendmail.reporting import maillog

#: So many events wait for slow subscribers; further ones are dropped, and the log says so.
MAX_WAITING = 100_000


def is_heard() -> bool:
    """Return whether there is any subscriber at all."""
    return bool(zope.event.subscribers)


class Notifier:
    """A thread that tells events.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._waiting: queue.SimpleQueue[MailEvent] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._told = threading.Condition(self._mutex)
        self._pending = 0

    def tell(self, events: Iterable[MailEvent]) -> None:
        """Tell these events soon.  Returns at once, never raises."""
        if not is_heard():
            return
        for event in events:
            with self._mutex:
                if self._pending >= MAX_WAITING:
                    maillog.events_lost(self._pending)
                    return
                self._pending += 1
                self._waiting.put(event)
                if self._thread is None:
                    self._begin()

    def _begin(self) -> None:
        """Have a thread; if the system has none now, the next event asks for one again."""
        thread = threading.Thread(target=self._run, name="zope.sendmail.reporting.notifier", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def flush(self, timeout: float) -> bool:
        """Wait until all events were told.

        :param timeout: seconds to wait at most
        :returns: whether all of them were told
        """
        if self._thread is threading.current_thread():
            return False
        deadline = time.monotonic() + timeout
        with self._told:
            while self._pending and (left := deadline - time.monotonic()) > 0:
                self._told.wait(left)
            return not self._pending

    def _run(self) -> None:
        while True:
            event = self._waiting.get()
            _notify(event)
            with self._told:
                self._pending -= 1
                self._told.notify_all()

    def forget_after_fork(self) -> None:
        """Begin without a thread in a forked child, whose parent tells the events."""
        self._start()


def _notify(event: MailEvent) -> None:
    try:
        transaction.begin()
        zope.event.notify(event)
        transaction.commit()
    except BaseException as error:  # noqa: BLE001 - even SystemExit must not end the thread
        maillog.subscriber_failed(event, error)
        _abort()


def _abort() -> None:
    try:
        transaction.abort()
    except Exception as error:  # noqa: BLE001 - likewise
        maillog.abort_failed("the transaction of a mail event", error)


_notifier = Notifier()
tell = _notifier.tell
flush = _notifier.flush
os.register_at_fork(after_in_child=_notifier.forget_after_fork)
