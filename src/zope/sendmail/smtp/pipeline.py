"""A run of mails through one session, where the time for which the relay is waited for is used.

The source is asked for the next job right before the final dot of the mail in hand if its envelope can go together
with that (RFC 2920, 3.1); else behind the end, before the reply is awaited, if the relay was quick with the one before;
else after the outcome was taken.  A job that was taken ahead is opened, read and ready to be sent, but not intended.
What happens to a job never changes the outcome of another.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from zope.sendmail.interfaces import IJob, IJobSource, ISession
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.smtp.onemail import Attempt, Following
from zope.sendmail.smtp.ordinary import OrdinaryAttempt
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.steps import Overlapping

#: The outcome of a job, or what reading its message, or its `intend`, has raised.
Result = Outcome | Exception

#: What a stream in steps yields; see `Stream.steps`.
Step = tuple[IJob, Result] | int | None


class StreamingSession(Protocol):
    """What a stream needs of a session."""

    def carry(self, attempt: Attempt, following: Following) -> Outcome:
        """Send one mail; `following` gives the next ones."""

    def carry_ordinary(self, attempt: OrdinaryAttempt, following: Following) -> Generator[int, bool, Outcome | None]:
        """Send an ordinary mail whose envelope has gone ahead; None: `carry` has to go on.  Yields as steps do."""

    def may_overlap(self) -> bool:
        """Return whether the envelope of the next mail may go with the end of the one in hand."""

    def is_quick(self) -> bool:
        """Return whether the relay answers so soon that the next mail may wait here for its turn."""

    def prepare(self, attempt: Attempt, *, overlaps: bool) -> Overlapping | None:
        """Make ready the next mail.  Raises smtplib's errors, and what reading the message raises."""

    def part(self) -> None:
        """Give up a mail whose envelope has gone ahead."""


@dataclass(slots=True)
class _Taken:
    """A job that the source has given; `error`: it cannot be sent."""

    job: IJob
    attempt: Attempt | None = None
    error: Exception | None = None


class Stream:
    """See `IStreamingSession.stream`.  To its session it is `Following`."""

    def __init__(self, session: StreamingSession, jobs: IJobSource) -> None:
        self._session = session
        self._jobs = jobs
        self._let_go: Callable[[], None] = getattr(jobs, "let_go", _nothing)
        #: See `Following`.
        self.meanwhile: Callable[[], None] = getattr(jobs, "meanwhile", _nothing)
        self._may_wait: Callable[[], object] = getattr(jobs, "may_wait", _nothing)
        self._next: _Taken | None = None
        self._trouble: Exception | None = None

    def results(self) -> Generator[tuple[IJob, Result], None, None]:
        """Yield each job with its result.  Raises what the source raises, when the turn of that job has come."""
        return results_of(self.steps())

    def steps(self) -> Generator[Step, bool | None, None]:
        """Do as `results`, but yield also where something has to be waited for, so that a thread can carry several.

        What is yielded is a job with its result; or the descriptor of the connection, when the relay is to be waited
        for: the answer says whether the next step may listen for a moment, which it should if there is something to be
        heard, and False when the relay has been silent for longer; or None, when the next step may take long.
        """
        try:
            while True:
                if self._next is None and self._may_wait():
                    yield None
                if (taken := self._in_turn()) is None:
                    return
                result = yield from self._result(taken)
                yield taken.job, result
        finally:
            self._session.part()

    # the mails behind the one in hand; see `Following`

    def take_next(self) -> Overlapping | None:
        """See `Following`."""
        return self._take_ahead(overlaps=True) if self._session.may_overlap() else None

    def read_ahead(self) -> None:
        """See `Following`."""
        if self._session.is_quick():
            self._take_ahead(overlaps=False)

    def _take_ahead(self, *, overlaps: bool) -> Overlapping | None:
        """Take the next job and prepare it, unless that was done before; None if it cannot be sent now."""
        if self._next is not None or self._trouble is not None:
            return None
        try:
            self._next = taken = self._take()
        except Exception as error:  # noqa: BLE001 - raised again when its turn has come
            self._trouble = error
            return None
        if taken is None or taken.attempt is None:
            return None
        try:
            return self._session.prepare(taken.attempt, overlaps=overlaps)
        except smtplib.SMTPException:  # it cannot be sent to this relay; that is told when its turn has come
            return None
        except Exception as error:  # noqa: BLE001 - likewise; the message may be read in part, so it is not read again
            taken.error = error
            return None

    # one after the other

    def _in_turn(self) -> _Taken | None:
        taken, self._next = self._next, None
        if self._trouble is not None:
            raise self._trouble
        return taken or self._take()

    def _take(self) -> _Taken | None:
        job = self._jobs.next()
        if job is None:
            return None
        try:
            text = getattr(job, "text", None)
            if isinstance(text, bytes) and text.isascii():
                return _Taken(job, OrdinaryAttempt(job, text))
            return _Taken(job, Attempt(Progress(job.envelope), job.open(), job.intend))
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            return _Taken(job, error=error)

    def _result(self, taken: _Taken) -> Generator[int | None, bool, Result]:
        if taken.error is not None or taken.attempt is None:
            return taken.error or RuntimeError("there is nothing to send")
        attempt = taken.attempt
        try:
            if isinstance(attempt, OrdinaryAttempt):
                outcome = yield from self._session.carry_ordinary(attempt, self)
                if outcome is not None:
                    return outcome
            self._let_go()  # it may take long
            yield None
            return self._session.carry(attempt, self)
        except Exception as error:  # noqa: BLE001 - likewise
            return error


class _OneByOne(Stream):
    """A stream for which the source is asked only when the job before has ended."""

    def take_next(self) -> Overlapping | None:
        """See `Following`."""
        return None

    def read_ahead(self) -> None:
        """See `Following`."""


def stream(session: ISession, jobs: IJobSource) -> Iterator[tuple[IJob, Result]]:
    """Do as `IStreamingSession.stream` with any session."""
    found: Callable[[IJobSource], Iterator[tuple[IJob, Result]]] | None = getattr(session, "stream", None)
    return _transferred(session, jobs) if found is None else found(jobs)


def results_of(steps: Generator[Step, bool | None, None]) -> Generator[tuple[IJob, Result], None, None]:
    """Yield the results among the steps of a stream; whatever has to be waited for is waited for here."""
    may_go_on = None
    with contextlib.closing(steps), contextlib.suppress(StopIteration):
        while True:
            step = steps.send(may_go_on)
            may_go_on = None
            if isinstance(step, tuple):
                yield step
            else:
                may_go_on = True


def stream_in_steps(session: ISession, jobs: IJobSource) -> Generator[Step, bool | None, None]:
    """Do as `Stream.steps` with any session; one that replaces ``stream`` only wants that to be used."""
    if not _knows_steps(session):
        return _in_steps(stream(session, jobs))
    streaming: Any = session
    steps: Generator[Step, bool | None, None] = streaming.stream_in_steps(jobs)
    return steps


def _knows_steps(session: ISession) -> bool:
    """Return whether the steps of a session are those of its ``stream``, and not of one that was replaced."""
    kinds = [getattr(session, "__dict__", {}), *(vars(each) for each in type(session).__mro__)]
    names = next((kind for kind in kinds if "stream" in kind or "stream_in_steps" in kind), {})
    return "stream_in_steps" in names


def one_by_one(session: ISession, jobs: IJobSource) -> Generator[Step, bool | None, None]:
    """Do the same, but ask the source for a job only when the one before it has ended."""
    streaming: Any = session
    is_streaming = hasattr(session, "may_overlap")
    return _OneByOne(streaming, jobs).steps() if is_streaming else _in_steps(_transferred(session, jobs))


def _in_steps(results: Iterator[tuple[IJob, Result]]) -> Generator[Step, bool | None, None]:
    while True:
        yield None
        found = next(results, None)
        if found is None:
            return
        yield found


def _transferred(session: ISession, jobs: IJobSource) -> Iterator[tuple[IJob, Result]]:
    while (job := jobs.next()) is not None:
        result: Result
        try:
            result = session.transfer(job.envelope, job.open(), job.intend)
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            result = error
        yield job, result


def _nothing() -> None:
    """Do nothing: the source keeps nothing back."""
