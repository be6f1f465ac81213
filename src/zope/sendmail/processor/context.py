"""What the parts of a running processor share, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.processor.statereport import StateReport
from zope.sendmail.processor.stopsignal import StopSignal
from zope.sendmail.processor.trouble import QueueTrouble
from zope.sendmail.reporting.reporter import Reporter
from zope.sendmail.system.clock import Clock

#: Longest time in seconds for which a stop may go unnoticed while a thread sleeps.
SLICE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What dispatcher, worker pool and workers need of the processor that they belong to."""

    signal: StopSignal
    clock: Clock
    schedule: Schedule
    reporter: Reporter
    trouble: QueueTrouble
    state_report: StateReport

    def sleep(self, seconds: float) -> bool:
        """Sleep, but no longer than until the processor is stopped.

        :returns: False if it was stopped
        """
        clock, signal = self.clock, self.signal
        until = clock.monotonic() + seconds
        while not signal.stopped and (left := until - clock.monotonic()) > 0:
            clock.sleep(min(left, SLICE))
        return not signal.stopped
