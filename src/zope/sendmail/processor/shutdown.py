"""The end of the process: running processors finish the message in hand, and its events are told.

Those of a `MailSender` also send what is due, so that a script may end right after its last mail.

Daemon threads are cut off in the middle of whatever they do when Python ends, so this one exit handler stops every
processor and waits for it, whatever started it: `zope.sendmail.startup`, Products.MailHost, or a program of its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from typing import Generic, Protocol, TypeVar

from zope.sendmail.reporting import maillog, notifier
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock

#: Seconds that processors have at the end of the process to finish the message in hand.
EXIT_TIMEOUT = 30.0

#: Seconds that a `MailSender` has at the end of the program to send what is due.
FINISH_TIMEOUT = 5.0

#: Seconds between two looks whether the main thread has ended, when it is about to.
_LOOK = 0.005


class Stoppable(Protocol):
    """A processor's thread."""

    @property
    def queuePath(self) -> str:
        """What names it in the log."""

    def stop(self) -> None:
        """Stop after the message in hand."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def is_alive(self) -> bool:
        """Return whether it runs as a thread; one that works in its caller's does not."""


class Finishing(Stoppable, Protocol):
    """A processor that can also send what is due."""

    def finish(self) -> None:
        """Send what is due, then stop."""

    def tell_what_waits(self) -> None:
        """Say in the log how many mails wait in its queue."""


_Thread = TypeVar("_Thread", bound=Stoppable)


class Threads(Generic[_Thread]):
    """Threads, for as long as something else refers to them.

    Concurrency: any thread; one may begin while others end.
    """

    def __init__(self) -> None:
        self._mutex = ForkLock()
        self._threads: weakref.WeakSet[_Thread] = weakref.WeakSet()

    def add(self, thread: _Thread) -> None:
        """Remember one more."""
        with self._mutex:
            self._threads.add(thread)

    def alive(self) -> list[_Thread]:
        """Return those that run now."""
        with self._mutex:
            return [thread for thread in self._threads if thread.is_alive()]


_running: Threads[Stoppable] = Threads()


def expect(thread: Stoppable) -> None:
    """Wait for this thread at the end of the process, if it still runs then."""
    _running.add(thread)


def running() -> list[Stoppable]:
    """Return the threads of this process that drain a queue now."""
    return _running.alive()


def stop_all(timeout: float = EXIT_TIMEOUT) -> bool:
    """Stop all processors of this process after the message in hand.

    :param timeout: seconds for all of them, and for the events of their last mails
    :returns: whether they ended in time
    """
    clock = Clock()
    deadline = clock.monotonic() + timeout
    threads = _running.alive()
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    late = [thread for thread in threads if thread.is_alive()]
    for thread in late:
        maillog.did_not_end(thread.queuePath, timeout)
    notifier.flush(max(0.0, deadline - clock.monotonic()))
    return not late


atexit.register(stop_all)


class Keeper:
    """What lets processors send what is due when the main thread has ended.

    Exit handlers come too late for that: no thread can be started any more, and each relay has threads of its own.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Expect no processor; also in a forked child, whose parent sends."""
        self._mutex = threading.Lock()
        self._expected: Threads[Finishing] = Threads()
        self._thread: threading.Thread | None = None

    def expect(self, thread: Finishing) -> None:
        """Let this one finish at the end of the program."""
        with self._mutex:
            self._expected.add(thread)
            if self._thread is None:
                keeper = threading.Thread(target=self._keep, name="zope.sendmail.processor.shutdown")
                keeper.start()
                self._thread = keeper

    def _keep(self) -> None:
        _wait_for_the_main_thread()
        self.let_finish(FINISH_TIMEOUT)

    def let_finish(self, timeout: float) -> bool:
        """Let all of them send what is due.

        :param timeout: seconds for all of them
        :returns: whether that was enough

        Each tells in the log what it leaves; for one that is not ready in time it is told here.
        """
        clock = Clock()
        deadline = clock.monotonic() + timeout
        threads = self._expected.alive()
        for thread in threads:
            thread.finish()
        for thread in threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        late = [thread for thread in threads if thread.is_alive()]
        for thread in late:
            thread.tell_what_waits()
        return not late


def _wait_for_the_main_thread() -> None:
    """Return when the main thread has ended.

    Until Python 3.12 `Thread.join` holds a lock of that thread for a moment.  If the interpreter looks at the lock just
    then, an assertion of it fails, and it ends without waiting for any thread.  So that lock is not touched.
    """
    main = threading.main_thread()
    if sys.version_info >= (3, 13):
        main.join()  # pragma: no cover - coverage is measured with an older one
        return  # pragma: no cover - coverage is measured with an older one
    end = threading.Event()
    try:
        vars(threading)["_register_atexit"](end.set)  # it comes just before
    except RuntimeError:  # the main thread has come to its end already
        end.set()
    end.wait()
    while not vars(main)["_is_stopped"]:  # until executors have done what they have
        time.sleep(_LOOK)  # pragma: no cover - a moment that most programs do not have


_keeper = Keeper()
let_finish_at_exit = _keeper.expect
os.register_at_fork(after_in_child=_keeper.forget)
