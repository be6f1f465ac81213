"""How busy the threads of this process are that have nothing to do with sending its mail.

All that the process uses of processors, without what those threads use that tell of themselves.  Concurrency: any
thread.
"""

from __future__ import annotations

import threading

from zope.sendmail.system.clock import Clock

#: Seconds over which it is measured, at least.
_SPAN = 0.05

#: They are busy if they use more than this part of a processor.
_BUSY = 0.1


class Bystanders:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.forget_after_fork()

    def forget_after_fork(self) -> None:
        """Begin anew in a forked child, which has other threads."""
        self._mutex = threading.Lock()
        #: Whether they were busy when it was measured last.
        self.are_busy = False
        self._noted = threading.local()
        #: When it was measured last, what the process had used then, and what our threads have used since.
        self._since: tuple[float, float] | None = None
        self._ours = 0.0

    def note(self) -> None:
        """Take note that what the calling thread has used since it was here before was for mail.

        At first that is all that it has used: most threads that send mail do nothing else.
        """
        used = self._clock.thread_cpu()
        before = getattr(self._noted, "used", 0.0)
        self._noted.used = used
        with self._mutex:
            self._ours += used - before
            now = self._clock.monotonic()
            if self._since is None:
                self._since, self._ours = (now, self._clock.cpu()), 0.0
            elif now - self._since[0] >= _SPAN:
                self._measure(now)

    def _measure(self, now: float) -> None:
        assert self._since is not None, "it was noted"
        (since, before), used = self._since, self._clock.cpu()
        self.are_busy = used - before - self._ours > _BUSY * (now - since)
        self._since, self._ours = (now, used), 0.0
