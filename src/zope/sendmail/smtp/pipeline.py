"""A run of mails through one conversation, where the time for which the relay is waited for is used.

The next job is pulled right before the final dot of the mail in hand if its envelope can ride with that (RFC 2920,
3.1); else behind the end, before the reply is awaited, if the relay was quick with the mail before; else after the
outcome was taken.  A job that was pulled ahead is opened, read and ready to be said, but not intended.  What happens to
a job never changes the outcome of another.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from zope.sendmail.interfaces import IJob, IJobSource, ISession
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.smtp.connection import Attempt, Following
from zope.sendmail.smtp.protocol.progress import Progress

#: The outcome of a job, or what reading its message, or its `intend`, has raised.
Result = Outcome | Exception


class Carrier(Protocol):
    """What a stream needs of a session."""

    def carry(self, attempt: Attempt, following: Following) -> Outcome:
        """Send one mail; `following` gives who is next."""

    def may_ride(self) -> bool:
        """Whether the connection is good for one more mail behind the one in hand."""

    def take_along(self, attempt: Attempt) -> None:
        """Prepare a mail for riding.  Raises smtplib's errors, and what reading the message raises."""

    def is_quick(self) -> bool:
        """Whether the relay answers so soon that the next mail may wait here for its turn."""

    def prepare(self, attempt: Attempt) -> None:
        """Prepare a mail for its turn.  Raises as `take_along` does."""

    def part(self) -> None:
        """Nobody goes on with what has ridden: the connection is of no use."""


@dataclass(slots=True)
class _Waiting:
    job: IJob
    attempt: Attempt | None = None
    error: Exception | None = None


class Stream:
    """See `IStreamingSession.stream`."""

    def __init__(self, session: Carrier, jobs: IJobSource) -> None:
        self._session = session
        self._jobs = jobs
        self._next: _Waiting | None = None
        self._trouble: Exception | None = None

    def results(self) -> Generator[tuple[IJob, Result], None, None]:
        """Each job with how it went.  Raises what pulling a job raises, when its turn has come."""
        try:
            while (waiting := self._take()) is not None:
                yield waiting.job, self._result(waiting)
        finally:
            self._session.part()

    # who is next; see `zope.sendmail.smtp.connection.Following`

    def rider(self) -> Attempt | None:
        """The mail that rides with the end of the one in hand."""
        return self._ahead(self._session.take_along) if self._session.may_ride() else None

    def spare(self) -> None:
        """The one in hand has gone, and its reply is awaited."""
        if self._session.is_quick():
            self._ahead(self._session.prepare)

    def _ahead(self, prepare: Callable[[Attempt], None]) -> Attempt | None:
        """Pull the next job and prepare it, unless that was done before; None if it cannot be said now."""
        if self._next is not None or self._trouble is not None:
            return None
        try:
            self._next = waiting = self._pull()
        except Exception as error:  # noqa: BLE001 - raised again when its turn has come
            self._trouble = error
            return None
        if waiting is None or waiting.attempt is None:
            return None
        try:
            prepare(waiting.attempt)
        except smtplib.SMTPException:  # it cannot be said to this relay; that is told when its turn has come
            return None
        except Exception as error:  # noqa: BLE001 - likewise; the message may be read in part, so it is not read again
            waiting.error = error
            return None
        return waiting.attempt

    # one after the other

    def _take(self) -> _Waiting | None:
        waiting, self._next = self._next, None
        if self._trouble is not None:
            raise self._trouble
        return waiting or self._pull()

    def _pull(self) -> _Waiting | None:
        job = self._jobs.next()
        if job is None:
            return None
        try:
            return _Waiting(job, Attempt(Progress(job.envelope), job.open(), job.intend))
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            return _Waiting(job, error=error)

    def _result(self, waiting: _Waiting) -> Result:
        if waiting.error is not None or waiting.attempt is None:
            return waiting.error or RuntimeError("there is nothing to send")
        try:
            return self._session.carry(waiting.attempt, self)
        except Exception as error:  # noqa: BLE001 - likewise
            return error


def stream(session: ISession, jobs: IJobSource) -> Iterator[tuple[IJob, Result]]:
    """`IStreamingSession.stream` with any session."""
    found = getattr(session, "stream", None)
    return one_by_one(session, jobs) if found is None else found(jobs)


def one_by_one(session: ISession, jobs: IJobSource) -> Iterator[tuple[IJob, Result]]:
    """The same, but a job is pulled only when the one before it has ended."""
    while (job := jobs.next()) is not None:
        result: Result
        try:
            result = session.transfer(job.envelope, job.open(), job.intend)
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            result = error
        yield job, result
