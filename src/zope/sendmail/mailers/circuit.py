"""Whether one of several relays is worth a try."""

from __future__ import annotations

from zope.sendmail import maillog
from zope.sendmail.clock import Clock
from zope.sendmail.mutex import Mutex
from zope.sendmail.outcome import Outcome, Reply
from zope.sendmail.retry import probe_delay


class Circuit:
    """A relay that could not be used is left out for a growing time.  Concurrency: any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = Mutex()
        self._failures = 0
        self._until = float("-inf")
        #: Why the relay could not be used when it was asked last, or None.
        self.fault: Reply | None = None

    def pause(self) -> float:
        """Seconds until the relay is to be tried again."""
        return max(0.0, self._until - self._clock.monotonic())

    def heard(self, outcome: Outcome) -> None:
        """Learn from an outcome of this relay."""
        with self._mutex:
            self.fault = outcome.fault
            if outcome.fault is None:
                if self._failures:
                    maillog.relay_up(outcome.relay)
                self._failures, self._until = 0, float("-inf")
            elif self.pause() == 0.0:  # several conversations that fail at once are one failure
                self._failures += 1
                seconds = probe_delay(self._failures)
                self._until = self._clock.monotonic() + seconds
                maillog.relay_left_out(outcome.relay, outcome.fault, seconds)
