"""Trouble with the queue itself: a disk that is full or broken, permissions, bugs.

It is charged to no mail and no relay: the queue is left alone for a while.
"""

from __future__ import annotations

from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: Seconds until the next look after the first trouble, and at most.
_PAUSE = (1.0, 60.0)


class QueueTrouble:
    """What went wrong with one queue, and until when that is left alone.  Concurrency: any thread."""

    def __init__(self, location: str, clock: Clock) -> None:
        self._location = location
        self._clock = clock
        self._until = float("-inf")
        #: How often in a row a look at the queue has failed.
        self.count = 0

    @property
    def is_lasting(self) -> bool:
        """Whether the queue is left alone now."""
        return self._clock.monotonic() < self._until

    def happened(self, error: BaseException) -> None:
        """Log the trouble, and leave the queue alone: for a second, then for twice as long, at most for a minute."""
        self.count += 1
        seconds = min(_PAUSE[0] * 2.0 ** min(self.count - 1, 16), _PAUSE[1])
        maillog.queue_trouble(self._location, error, seconds)
        self._until = self._clock.monotonic() + seconds

    def ended(self) -> None:
        """Note that a look at the queue went well."""
        self.count = 0
