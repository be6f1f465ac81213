"""Unfolds bundles soon after their commit, in a thread of the process that committed them.

A courtesy to readers that know no bundles, and to processors, which would do it themselves: nothing depends on it.
Nothing here raises.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time

from zope.sendmail.queue.maildir.bundle import is_taken_up, unfold
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.trigger import ring
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import Disk

#: Seconds for which processors, which have heard the bell, and further commits go first.
_PAUSE = 0.2

#: So many further pauses are made for a bundle that a processor has taken up: it may not have begun yet.
_PATIENCE = 5

#: Seconds for which the end of a process waits; what is not done then is done by the next look of a processor.
_AT_EXIT = 5.0


class Unfolder:
    """One thread that unfolds groups in the order of their commits.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[float, int, Layout, Disk, str]] = queue.SimpleQueue()
        self._done = threading.Condition()
        #: A person waits for the end: no pauses.
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._pending = 0

    def later(self, layout: Layout, disk: Disk, group: str) -> None:
        """Unfold this group soon.  Returns at once."""
        with self._done:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="zope.sendmail.unfolder", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter shuts down, or the system is full
                    return
                self._thread = thread
            self._pending += 1
        self._waiting.put((time.monotonic() + _PAUSE, _PATIENCE, layout, disk, group))

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all is unfolded; return whether it is."""
        deadline = time.monotonic() + timeout
        self._hurry.set()
        with self._done:
            while self._pending and (left := deadline - time.monotonic()) > 0:
                self._done.wait(left)
            self._hurry.clear()
            return not self._pending

    def _run(self) -> None:
        while True:
            begin, patience, layout, disk, group = self._waiting.get()
            is_hurry = self._hurry.wait(max(0.0, begin - time.monotonic()))
            if patience and not is_hurry and is_taken_up(disk, group):
                self._waiting.put((time.monotonic() + _PAUSE, patience - 1, layout, disk, group))
                continue
            unfold_now(layout, disk, group)
            with self._done:
                self._pending -= 1
                self._done.notify_all()

    def forget_after_fork(self) -> None:
        """Begin without thread and work in a forked child: its parent does that."""
        self._start()


def unfold_now(layout: Layout, disk: Disk, group: str) -> None:
    """Unfold a group and ring; trouble is logged, and the next look tries again."""
    try:
        unfold(layout, disk, group)
    except OSError as error:
        maillog.group_stuck(os.path.relpath(group, layout.root), error)
    except Exception as error:  # noqa: BLE001 - the thread has to go on
        maillog.finish_failed(f"mail for the queue {layout.root}", error)
    ring(layout, disk, ())


_unfolder = Unfolder()
later = _unfolder.later
flush = _unfolder.flush
os.register_at_fork(after_in_child=_unfolder.forget_after_fork)
atexit.register(flush, _AT_EXIT)
