"""A source of jobs for one session after the other: what one has taken and not begun, the next one gets.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zope.interface import implementer

from zope.sendmail.interfaces import IJob, IJobSource


@implementer(IJobSource)
class GivenJobs:
    """See `IJobSource`.  Raises what the source behind raises.

    :param jobs: the source behind
    """

    def __init__(self, jobs: IJobSource) -> None:
        self._jobs = jobs
        self.let_go: Callable[[], None] = getattr(jobs, "let_go", _nothing)
        self.meanwhile: Callable[[], None] = getattr(jobs, "meanwhile", _nothing)
        self.may_wait: Callable[[], object] = getattr(jobs, "may_wait", _nothing)
        #: Those that the session has taken and not ended, and those that the next one gets first.
        self._given: deque[IJob] = deque()
        self._waiting: deque[IJob] = deque()
        self._is_first = True
        self._goes_on: Callable[[], bool] = bool
        self._lets_go = False

    def has_next(self) -> bool:
        """Return whether there is a job for a session now."""
        if not self._waiting and (job := self._jobs.next()) is not None:
            self._waiting.append(job)
        return bool(self._waiting)

    def begin(self, goes_on: Callable[[], bool], *, lets_go: bool) -> None:
        """Be the source of a session, which gets the job that there is.

        :param goes_on: asked before each further job whether that session gets it as well
        :param lets_go: whether the session calls ``let_go`` itself before a mail that may take long
        """
        self._is_first, self._goes_on, self._lets_go = True, goes_on, lets_go

    def next(self) -> IJob | None:
        """See `IJobSource`."""
        is_first, self._is_first = self._is_first, False
        if not (is_first or self._goes_on()) or not self.has_next():
            return None
        job = self._waiting.popleft()
        self._given.append(job)
        if not self._lets_go:
            self.let_go()
        return job

    def ended(self, job: IJob) -> None:
        """Take note that a job has its result."""
        self._given.remove(job)

    def take_back(self) -> None:
        """Give to the next session what this one has taken and not begun."""
        self._waiting.extendleft(reversed(self._given))
        self._given.clear()


def _nothing() -> None:
    """Do nothing: the source behind keeps nothing back."""
