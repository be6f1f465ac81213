"""What the parts of a running processor share, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.processor.statereport import StateReport
from zope.sendmail.processor.stopsignal import StopSignal
from zope.sendmail.reporting.reporter import Reporter
from zope.sendmail.system.clock import Clock

#: Longest time in seconds for which a stop may go unnoticed while a thread sleeps.
SLICE = 0.2


def _nothing(_: Mapping[str, Reply]) -> None:
    """Do nothing: refused recipients get mail nevertheless."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What dispatcher, worker pool and workers need of the processor that they belong to."""

    signal: StopSignal
    clock: Clock
    schedule: Schedule
    reporter: Reporter
    trouble: QueueBackoff
    state_report: StateReport
    #: Is given what a relay said about the recipients of a mail, for the suppression list.
    suppress: Callable[[Mapping[str, Reply]], object] = _nothing

    def sleep(self, seconds: float) -> bool:
        """Sleep, but no longer than until the processor is stopped.

        :returns: False if it was stopped
        """
        clock, signal = self.clock, self.signal
        until = clock.monotonic() + seconds
        while not signal.stopped and (left := until - clock.monotonic()) > 0:
            clock.sleep(min(left, SLICE))
        return not signal.stopped
