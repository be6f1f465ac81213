"""Trouble with the queue itself: a disk that is full or broken, permissions, bugs.

It is charged to no mail and no relay: the queue is left alone for a while, and the log tells it once.
"""

from __future__ import annotations

import threading
from math import inf

from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: Seconds until the next look after the first trouble, and at most: a person who has mended the disk looks on.
_PAUSE = (1.0, 15.0)

#: Seconds after which trouble that lasts is told again.
_REMIND = 3600.0


class QueueBackoff:
    """What went wrong with one queue, and until when that is left alone.  Concurrency: any thread."""

    def __init__(self, location: str, clock: Clock) -> None:
        self._location = location
        self._clock = clock
        self._mutex = threading.Lock()
        self._until = self._told_at = -inf
        #: What the log has told, and whether that is over.
        self._told: tuple[object, ...] | None = None
        #: How often in a row a look at the queue has failed.
        self.count = 0
        #: What the last one said; empty if the queue can be used.
        self.why = ""

    @property
    def is_lasting(self) -> bool:
        """Whether the queue is left alone now."""
        return self._clock.monotonic() < self._until

    def happened(self, error: BaseException) -> None:
        """Leave the queue alone: for a second, then for twice as long, at most for 15 seconds.

        Several workers that meet the same trouble at the same time are one.
        """
        with self._mutex:
            now = self._clock.monotonic()
            if now < self._until:
                return
            self.count += 1
            self.why = f"{type(error).__name__}: {error}"
            self._until = now + min(_PAUSE[0] * 2.0 ** min(self.count - 1, 16), _PAUSE[1])
            kind = (type(error), getattr(error, "errno", None) or str(error))
            if kind != self._told or now - self._told_at >= _REMIND:
                self._told, self._told_at = kind, now
                maillog.queue_trouble(self._location, error, _PAUSE[1])

    def ended(self) -> None:
        """Note that messages could be claimed again."""
        if not self.count:
            return
        with self._mutex:
            self.count, self.why, told = 0, "", self._told
            self._told = None
        if told is not None:  # pragma: no branch - else two threads have found it usable again at the same moment
            maillog.queue_usable(self._location)
