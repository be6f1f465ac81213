"""Telling of staged mail whose process died: it cannot be known whether its transaction committed elsewhere."""

from __future__ import annotations

from itertools import islice

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: Seconds until it is told again.
_EVERY = 86400.0

#: So many are told one by one.
_MOST = 5


class DoubtfulMail:
    """Tells of the doubtful mail of one queue when a processor starts, and once a day.

    Concurrency: one thread.
    """

    def __init__(self, queue: IMailQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._next = float("-inf")

    def tell(self) -> None:
        """Log what is in doubt, if it is time to look.  Raises `OSError` if the queue refuses."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + _EVERY
        findings = iter(self._queue.admin.in_doubt())
        for finding in islice(findings, _MOST):
            commands = "; ".join(finding.command_lines(self._queue.location))
            maillog.in_doubt(self._queue.location, finding.name, finding.text, f"{finding.cure} {commands}")
        if more := sum(1 for _ in findings):
            maillog.more_in_doubt(self._queue.location, more)
