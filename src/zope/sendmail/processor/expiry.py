"""Removing rejected mail that was kept for long enough, and keys whose time is over."""

from __future__ import annotations

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: Seconds between two looks at what was rejected.
_EVERY = 3600.0


class RejectedExpiry:
    """Removes rejected mail of one queue, and forgets keys.

    :param keep: seconds for which it is kept; None: until an operator removes it

    Concurrency: one thread.
    """

    def __init__(self, queue: IMailQueue, clock: Clock, keep: float | None) -> None:
        self._queue = queue
        self._clock = clock
        self._keep = keep
        self._next = float("-inf")

    def expire(self) -> None:
        """Remove what is too old, if it is time to look.  Raises `OSError` if the queue refuses."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + _EVERY
        self._queue.admin.forget_keys()
        if self._keep is None:
            return
        count = self._queue.admin.expire_rejected(self._clock.time() - self._keep)
        if count:
            maillog.expired(count, self._keep)
