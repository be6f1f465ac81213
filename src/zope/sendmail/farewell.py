"""The end of the process: running processors finish the message in hand, and its events are told.

Daemon threads are cut off in the middle of whatever they do when Python ends, so this one exit handler stops every
processor and waits for it, whoever started it: `zope.sendmail.startup`, Products.MailHost, or a program of its own.
"""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol

from zope.sendmail import maillog, teller
from zope.sendmail.clock import Clock

#: Seconds that processors have at the end of the process to finish the message in hand.
EXIT_TIMEOUT = 30.0


class Stoppable(Protocol):
    """A processor's thread."""

    @property
    def queuePath(self) -> str:
        """Names it in the log."""

    def stop(self) -> None:
        """Stop after the message in hand."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def is_alive(self) -> bool:
        """Whether it runs as a thread; who runs in the caller's does not."""


_running: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def expect(thread: Stoppable) -> None:
    """Wait for this thread at the end of the process, if it still runs then."""
    _running.add(thread)


def say_farewell(timeout: float = EXIT_TIMEOUT) -> bool:
    """Stop all processors of this process after the message in hand; say whether they ended in time.

    `timeout`: seconds for all of them, and for the events of their last mails.
    """
    clock = Clock()
    deadline = clock.monotonic() + timeout
    threads = [thread for thread in _running if thread.is_alive()]
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    late = [thread for thread in threads if thread.is_alive()]
    for thread in late:
        maillog.did_not_end(thread.queuePath, timeout)
    teller.flush(max(0.0, deadline - clock.monotonic()))
    return not late


atexit.register(say_farewell)
