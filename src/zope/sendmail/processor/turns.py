"""The rate that all processors of a queue keep together: `SMTPMailer.shared_rate`.

Turns are taken from the queue for a fifth of a second at a time, so that a fast relay costs few journeys; what was
taken and not used in its time is lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.processor.relay import Relay
from zope.sendmail.system.clock import Clock

#: Seconds for which turns are taken at a time, and after which one that was not used is lost.
_SPAN = 0.2


@dataclass(slots=True)
class _Taken:
    """Turns that are ours."""

    next: float
    left: int
    rate: float


class SharedTurns:
    """The turns that one processor has taken.  Concurrency: any thread."""

    def __init__(self, queue: IMailQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._mutex = threading.Lock()
        self._taken: dict[str, _Taken] = {}

    def turn(self, relay: Relay) -> float:
        """Take the turn of a mail, if it has come.

        :returns: 0.0 if the mail may go now, else the seconds after which to ask again.
        :raises QueueTrouble: if the queue does not give any.
        """
        rate = relay.shared_rate
        if rate is None:
            return 0.0
        with self._mutex:
            now = self._clock.monotonic()
            taken = self._taken.get(relay.address)
            if taken is None or not taken.left or taken.rate != rate or now - taken.next > _SPAN:
                taken = self._take(relay, rate, now)
            if taken.next > now:
                return taken.next - now
            taken.left -= 1
            taken.next += 1.0 / rate
            return 0.0

    def _take(self, relay: Relay, rate: float, now: float) -> _Taken:
        count = max(1, int(rate * _SPAN))
        taken = _Taken(now + self._queue.take_turns(relay.address, rate, count), count, rate)
        self._taken[relay.address] = taken
        return taken

    def is_ahead(self, relay: Relay) -> bool:
        """Return whether all turns until now are taken, so that further connections would only wait."""
        taken = self._taken.get(relay.address) if relay.shared_rate is not None else None
        return taken is not None and taken.next > self._clock.monotonic()
