"""Messages that were claimed together, and wait for one worker.

As many as go to the relay within a hundredth of a second, so that nothing waits behind a relay that is slow.  The
leases of those that go within a thousandth are told so, if that is of use to their queue (`IForeseenLease`).
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from zope.sendmail.message.terms import Priority
from zope.sendmail.processor.job import Job
from zope.sendmail.system.clock import Clock

#: So many seconds of work are claimed together, and so many messages at most.
_SPAN, _MOST = 0.01, 32

#: Those are told that go within so many seconds, and the next one and so many more at most: a queue in a database has
#: written that down by then, and what is intended without need would be unknown after a death.
_SOON, _MOST_SOON = 0.001, 4


class Convoy:
    """The jobs of one worker that it has not begun.

    :param grows: whether the worker's session says when a mail may take long (``lets_go``); else there is no more than
        one job

    Concurrency: one thread.
    """

    def __init__(self, clock: Clock, *, grows: bool) -> None:
        self._clock = clock
        self.jobs: deque[Job] = deque()
        self._grows = grows
        self._at = clock.monotonic()
        #: How many seconds one has taken lately, until the next one could go; how many of the first are told that they
        #: go soon, and how many of them were; whether they want to be.
        self.each = _SPAN
        self._soon = self._told = 0
        self._foresees = False
        #: How many were claimed last, and whether all of them were ordinary.
        self._size = 1
        self._are_ordinary = False
        #: Whether they have different priorities, which have taken turns then.
        self.are_mixed = False
        #: When it was asked last whether they may go, and whether each may go without a question of its own.
        self._asked_at = float("-inf")
        self._are_alike = True

    def size(self) -> int:
        """Return how many messages are to be claimed now: by and by more, as long as all of them go quickly."""
        now = self._clock.monotonic()
        each = (now - self._at) / self._size
        self._at, self.each = now, each
        self._soon = min(_MOST_SOON, int(_SOON / each)) if each > 0.0 else _MOST_SOON
        fitting = int(_SPAN / each) if each > 0.0 else _MOST
        self._size = max(1, min(_MOST, 2 * self._size, fitting)) if self._are_ordinary else 1
        self._are_ordinary = self._grows
        return self._size

    @property
    def is_low(self) -> bool:
        """Whether it is time to claim more."""
        return len(self.jobs) <= (self._soon if self._foresees else 0)

    def is_behind(self, priority: Priority) -> bool:
        """Return whether all of them go behind a message of this priority: those of several have taken turns."""
        return bool(self.jobs) and not self.are_mixed and priority.rank < self.jobs[0].envelope.terms.priority.rank

    def next(self) -> Job:
        """Take the first one out."""
        job = self.jobs.popleft()
        if not self._are_alike:
            self._see_priorities()
        if self._foresees:
            if self._told:
                self._told -= 1
            else:
                _tell(job)
            self.foresee()
        return job

    def _see_priorities(self) -> None:
        """Learn whether there are several still: those that are told ahead never come to an end."""
        found = {job.envelope.terms.priority for job in self.jobs}
        self.are_mixed, self._are_alike = len(found) > 1, found <= {Priority.NORMAL}

    def foresee(self) -> None:
        """Tell those that go soon behind the one that was taken out last."""
        if self._foresees:
            for job in itertools.islice(self.jobs, self._told, self._soon):
                _tell(job)
            self._told = max(self._told, min(len(self.jobs), self._soon))

    def asked(self) -> None:
        """Take note that it was asked whether its worker may go on, and that nothing speaks against it."""
        self._asked_at = self._clock.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether the next one goes without that question, but for what goes before it.

        That is so for a hundredth of a second, and for mail of the usual priority.
        """
        return bool(self.jobs) and self._are_alike and self._clock.monotonic() - self._asked_at < _SPAN

    def add(self, job: Job) -> None:
        """Add one more; behind one that is not ordinary no others are claimed.

        A low one goes by itself, as its envelope never rides with the end of the mail before.
        """
        priority, is_first = job.envelope.terms.priority, not self.jobs
        self.are_mixed = not is_first and (self.are_mixed or priority is not self.jobs[0].envelope.terms.priority)
        self._are_alike = priority is Priority.NORMAL and (is_first or self._are_alike)
        self.jobs.append(job)
        self._foresees = job.text is not None and hasattr(job.lease, "soon")
        if job.text is None or priority is Priority.LOW:
            self._are_ordinary = False

    def release(self) -> None:
        """Give all of them back, as if untried."""
        self._are_ordinary = self._foresees = False
        self._told = 0
        jobs = self.jobs
        while jobs:
            jobs.popleft().lease.release()


def _tell(job: Job) -> None:
    """Tell the lease of one that it goes soon."""
    lease: Any = job.lease
    lease.soon()
