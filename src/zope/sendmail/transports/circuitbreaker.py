"""Whether a relay is worth a try: one that could not be used is left alone for a growing time."""

from __future__ import annotations

from collections.abc import Callable

from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.lifecycle.retry import probe_delay
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock


class CircuitBreaker:
    """What is known about one relay.

    :param tell: called with the relay's name, why it cannot be used, and for how many seconds it is left alone

    Concurrency: any thread.
    """

    def __init__(self, clock: Clock, tell: Callable[[str, Reply, float], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._mutex = ForkLock()
        self._until = float("-inf")
        self._is_probed = False
        #: How often in a row it could not be used.
        self.failures = 0
        #: Why it could not be used when it was asked last, or None.
        self.fault: Reply | None = None

    def pause(self) -> float:
        """Return the seconds until it is to be tried again."""
        return max(0.0, self._until - self._clock.monotonic()) if self.failures else 0.0

    def end_pause(self) -> None:
        """Let it be tried now; if it fails again, the next pause is as long as it would have been."""
        with self._mutex:
            if self.failures:
                self._until = float("-inf")

    def admits(self) -> bool:
        """Return whether to try it now.  After a pause the first caller is to, and the others go on as if it lasted."""
        if not self.failures:
            return True
        with self._mutex:
            if self.pause():
                return False
            # A relay that says nothing may take long to fail; the thread that tries may die, and the next one has its
            # turn.
            self._until = self._clock.monotonic() + probe_delay(self.failures)
            self._is_probed = True
            return True

    def heard(self, outcome: Outcome) -> None:
        """Learn from an outcome: a fault pauses the relay, anything else ends the pause."""
        if outcome.fault is None and self.fault is None and not self.failures:
            return  # as usual; a fault that another thread tells of right now stays
        with self._mutex:
            self.fault = outcome.fault
            if outcome.fault is None:
                if self.failures:
                    maillog.relay_up(outcome.relay)
                self.failures, self._until = 0, float("-inf")
            elif self._is_probed or self.pause() == 0.0:  # several conversations that fail at once are one failure
                self.failures += 1
                seconds = probe_delay(self.failures)
                self._until = self._clock.monotonic() + seconds
                self._tell(outcome.relay, outcome.fault, seconds)
            self._is_probed = False
