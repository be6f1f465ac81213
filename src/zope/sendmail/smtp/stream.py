"""A run of mails through one conversation, where each envelope may ride with the end of the mail before.

A job is pulled as late as possible: right before the final dot of the one before if it can ride, else after that one's
outcome.  What happens to a job never changes the outcome of another.  RFC 2920, 3.1.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from zope.sendmail.interfaces import IJob, ISession
from zope.sendmail.outcome import Outcome
from zope.sendmail.smtp.progress import Progress
from zope.sendmail.smtp.transaction import Errand, Next

#: The outcome of a job, or what reading its message, or its `intend`, has raised.
Result = Outcome | Exception


class Carrier(Protocol):
    """What a stream needs of a session."""

    def carry(self, errand: Errand, follow: Next) -> Outcome:
        """Send one mail; `follow` gives who rides with its end."""

    def may_ride(self) -> bool:
        """Whether the connection is good for one more mail behind the one in hand."""

    def take_along(self, errand: Errand) -> None:
        """Prepare a mail for riding.  Raises smtplib's errors, and what reading the message raises."""

    def part(self) -> None:
        """Nobody goes on with what has ridden: the connection is of no use."""


@dataclass
class _Waiting:
    job: IJob
    errand: Errand | None = None
    error: Exception | None = None


class Stream:
    """See `IStreamingSession.stream`."""

    def __init__(self, session: Carrier, jobs: Iterable[IJob]) -> None:
        self._session = session
        self._jobs = iter(jobs)
        self._next: _Waiting | None = None
        self._trouble: Exception | None = None

    def results(self) -> Iterator[tuple[IJob, Result]]:
        """Each job with how it went.  Raises what pulling a job raises, when its turn has come."""
        try:
            while (waiting := self._take()) is not None:
                yield waiting.job, self._result(waiting)
        finally:
            self._session.part()

    def _take(self) -> _Waiting | None:
        waiting, self._next = self._next, None
        if self._trouble is not None:
            raise self._trouble
        return waiting or self._pull()

    def _pull(self) -> _Waiting | None:
        job = next(self._jobs, None)
        if job is None:
            return None
        try:
            return _Waiting(job, Errand(Progress(job.envelope), job.open(), job.intend))
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            return _Waiting(job, error=error)

    def _result(self, waiting: _Waiting) -> Result:
        if waiting.error is not None or waiting.errand is None:
            return waiting.error or RuntimeError("there is nothing to send")
        try:
            return self._session.carry(waiting.errand, self._follow)
        except Exception as error:  # noqa: BLE001 - likewise
            return error

    def _follow(self) -> Errand | None:
        """Who rides with the end of the mail in hand.  Raises nothing: that mail has nothing to do with it."""
        if self._next is not None or not self._session.may_ride():
            return None
        try:
            self._next = waiting = self._pull()
        except Exception as error:  # noqa: BLE001 - raised again when its turn has come
            self._trouble = error
            return None
        return None if waiting is None else self._prepared(waiting)

    def _prepared(self, waiting: _Waiting) -> Errand | None:
        if waiting.errand is None:
            return None
        try:
            self._session.take_along(waiting.errand)
        except smtplib.SMTPException:  # it cannot be said to this relay; that is told when its turn has come
            return None
        except Exception as error:  # noqa: BLE001 - likewise; the message may be read in part, so it is not read again
            waiting.error = error
            return None
        return waiting.errand


def stream(session: ISession, jobs: Iterable[IJob]) -> Iterator[tuple[IJob, Result]]:
    """`IStreamingSession.stream` with any session."""
    found = getattr(session, "stream", None)
    return _one_by_one(session, jobs) if found is None else found(jobs)


def _one_by_one(session: ISession, jobs: Iterable[IJob]) -> Iterator[tuple[IJob, Result]]:
    for job in jobs:
        result: Result
        try:
            result = session.transfer(job.envelope, job.open(), job.intend)
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            result = error
        yield job, result
