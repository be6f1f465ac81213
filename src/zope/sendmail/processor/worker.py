"""One attempt at one message: hand over -> judge -> settle -> report.

A worker is a conversation with a relay, and the messages that go through it one after the other; `Worker.steps` is the
way of each.  An error is charged to what failed (``docs/explanation/internals.rst``, *The processor*).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost
from zope.sendmail.interfaces import IJobSource, ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.throttling import complaints_in
from zope.sendmail.message.terms import Priority
from zope.sendmail.processor.context import Context
from zope.sendmail.processor.convoy import Convoy
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.sentbatch import SentBatch
from zope.sendmail.processor.throttle import Hearing, MailInHand
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.reporter import MailId, Measures
from zope.sendmail.smtp.pipeline import one_by_one, stream_in_steps
from zope.sendmail.system.clock import Clock

#: Gives a worker its next job, claimed for it; None if there is none now.
Claim = Callable[[], Job | None]


def _claims_nothing() -> None:
    """Claim nothing ahead."""


#: As `Step`, with our jobs.
_JobStep = tuple[Job, Outcome | BaseException] | int | None

#: The end of a stream.
_OVER: Any = object()

#: Seconds after which recipients are asked for again who were too many beside others that were taken.
_AFTER_A_PART = 10.0


def is_wish_to_end(error: BaseException) -> bool:
    """Return whether Ctrl-C was pressed: that reaches the main thread only."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


@implementer(IJobSource)
class JobsInHand:
    """The jobs that a worker has taken from its source and not ended yet; see `IJobSource`.

    :param claim: gives the next one; None if there is none now
    :param finish: ends a job whose recipients are all malformed, which goes to no relay
    :param may_wait: says whether the next job may have to wait for its turn
    :param clock: says when a job was taken
    """

    #: See `IJobSource`.
    let_go: Callable[[], None]
    meanwhile: Callable[[], None]

    def __init__(
        self, claim: Claim, finish: Callable[[Job, Outcome], None], may_wait: Callable[[], bool], clock: Clock
    ) -> None:
        self._claim = claim
        self._finish = finish
        self.may_wait = may_wait
        self._clock = clock
        self.in_hand: deque[Job] = deque()

    def next(self) -> Job | None:
        """Return the next job that has a recipient to be asked about, or None."""
        while (job := self._claim()) is not None:
            job.taken_at = self._clock.monotonic()
            if job.envelope.recipients:
                self.in_hand.append(job)
                return job
            self._finish(job, Outcome(""))
        return None


class Worker:
    """One conversation with a relay, and the messages that go through it one after the other.

    :param session: the conversation, of this `mailer`

    Concurrency: one thread.
    """

    def __init__(self, context: Context, relay: Relay, session: ISession, mailer: Any) -> None:
        self._context = context
        self._relay = relay
        self.session = session
        self.mailer = mailer
        #: What was claimed for this worker together with the mail in hand.
        self.convoy = Convoy(context.clock, grows=getattr(session, "lets_go", False))
        self._sent = SentBatch(context, relay, session, grows=getattr(session, "lets_go", False))
        self._taken: JobsInHand | None = None
        #: How much was known of the relay when everything was asked last.
        self._news = -1
        #: When the last mail ended, on the monotonic clock: what was taken ahead has waited until then.
        self._ended_at = 0.0
        #: Whether the last mail found a relay that could be used over this connection.
        self.works = True
        #: Whether the conversation is to begin anew, because of what the relay said about how much is sent.
        self._has_to_pause = False
        #: Whether the relay has meant the connection, and not its mail.
        self._was_one_too_many = False
        #: Whether it ends behind the mail in hand, as one too many; with the relay's mutex.
        self.is_leaving = False
        #: What the stream's next step is told; see `Stream.steps`.
        self._may_go_on: bool | None = None

    @property
    def is_good(self) -> bool:
        """Whether the worker met no trouble, and the relay still has the same mailer."""
        return self.works and self._relay.mailer is self.mailer

    def asked(self) -> None:
        """Take note that everything was asked that decides whether it goes on."""
        self._news = self._relay.news
        self.convoy.asked()

    @property
    def knows_the_relay(self) -> bool:
        """Whether all that decides about the relay is as it was then."""
        return self._relay.news == self._news and self._relay.mailer is self.mailer

    @property
    def goes_on(self) -> bool:
        """Whether it goes on with its convoy without these questions."""
        return self.knows_the_relay and self.convoy.goes_on

    @property
    def has_in_hand(self) -> bool:
        """Whether a mail is with the relay, so that the next one is asked for ahead of its time."""
        return self._taken is not None and bool(self._taken.in_hand)

    @property
    def in_hand(self) -> Priority | None:
        """The priority of the mail that is with the relay; None if there is none."""
        return self._taken.in_hand[-1].envelope.terms.priority if self._taken and self._taken.in_hand else None

    def steps(
        self, claim: Claim, claim_ahead: Callable[[], None] = _claims_nothing
    ) -> Generator[int | None, bool | None, None]:
        """Try each message that `claim` gives once; end the leases.  Raises what `claim` raises.

        Yields where it would wait for its relay, and where it may take long, as `Stream.steps` does; the next step may
        be made in another thread.

        :param claim_ahead: called while the relay has a mail; may fill the convoy
        """
        taken = self._taken = self._source(claim, claim_ahead)
        self._has_to_pause = False
        steps, signal = self._stream(taken), self._context.signal
        try:
            while (step := self._step(steps, taken)) is not _OVER:
                if not isinstance(step, tuple):
                    self._may_go_on = yield step
                    continue
                self._finish(*step)
                if not self.works or self._has_to_pause or signal.stopped:
                    break
        except GeneratorExit:  # the process ends, or the carrying thread: what is in hand may have been sent
            while taken.in_hand and taken.in_hand[0].intended:
                self._break_off(taken.in_hand.popleft(), ConnectionAbortedError("it was left with the relay"))
            raise
        finally:
            steps.close()
            for job in taken.in_hand:  # it was to follow, and no relay has it
                job.lease.release()
            self.convoy.release()
            self._sent.end()

    def _source(self, claim: Claim, claim_ahead: Callable[[], None]) -> JobsInHand:
        """Return the source from which the session takes its jobs."""
        relay = self._relay
        source = JobsInHand(claim, self._finish, lambda: relay.has_rate, self._context.clock)

        def meanwhile() -> None:
            self._sent.end_in_time()
            try:  # noqa: SIM105 - once for each mail
                claim_ahead()
            except Exception:  # noqa: BLE001, S110 - a mail is in hand; `claim` meets it again
                pass

        source.let_go, source.meanwhile = self._let_go, meanwhile
        return source

    def _step(self, steps: Generator[_JobStep, bool | None, None], taken: JobsInHand) -> _JobStep:
        """Return the next step of a stream, `_OVER` at the end; a job that has ended is in hand no more."""
        may_go_on, self._may_go_on = self._may_go_on, None
        try:
            step = steps.send(may_go_on)
        except StopIteration:
            return _OVER  # type: ignore[no-any-return]  # the end is no step
        except BaseException as error:  # even SystemExit: a mailer must not end the thread
            if not taken.in_hand:
                raise
            self._break_off(taken.in_hand.popleft(), error)
            if is_wish_to_end(error):
                raise
            return _OVER  # type: ignore[no-any-return]  # the end is no step
        if isinstance(step, tuple):
            taken.in_hand.remove(step[0])
        return step

    def _let_go(self) -> None:
        """Put off nothing any more, and keep back nothing from others.  Raises nothing: a mail is in hand."""
        self.convoy.release()
        self._sent.end_quietly()

    def _break_off(self, job: Job, error: BaseException) -> None:
        """End the mail that was in hand first: what the mailer raises is about it."""
        if is_wish_to_end(error) and not job.intended:
            self.session.close()
            job.lease.release()
        else:
            self._finish(job, error)

    def _stream(self, jobs: JobsInHand) -> Generator[_JobStep, bool | None, None]:
        """Return each job with how it went.  A mail that has to wait for its turn does not ride with another."""
        streaming: Any = one_by_one if self._relay.has_rate else stream_in_steps
        steps: Generator[_JobStep, bool | None, None] = streaming(self.session, jobs)
        return steps

    def _finish(self, job: Job, result: Outcome | BaseException) -> None:
        """Judge, settle, report.  If that fails, the lease stays, so that no processor sends the mail again."""
        if isinstance(result, Outcome) and self._sent.takes(job, result):
            self._sent.add(job, result, self._measures(job) if self._context.reporter.is_observed else None)
            self.works = True
            self._has_to_pause = False
            return
        try:
            self._end(job, result)
        except Exception as error:
            maillog.not_settled(job.lease.name, error)
            raise

    def _end(self, job: Job, result: Outcome | BaseException) -> None:
        lease = job.lease
        if isinstance(result, LeaseLost):
            maillog.lease_lost(lease.name, result)
            lease.release()
            return
        outcome = self._checked(job, result)
        complaints = complaints_in(outcome)
        if job.envelope.recipients:  # else no relay was asked
            hand = MailInHand(lease.name, max(job.taken_at, self._ended_at), self.session)
            hearing = self._relay.heard(outcome, complaints, hand)
            self._relay.give_back()
            self._relay.lanes.note_other()
            self.works = outcome.fault is None and hearing is not Hearing.FEWER_CONNECTIONS
            self._has_to_pause = hearing is not Hearing.USUAL
            self._was_one_too_many = hearing is Hearing.FEWER_CONNECTIONS
        if outcome.fault is not None:
            self._context.reporter.faulted(outcome)
        again_in = self._again_in(job, outcome, complaints) if complaints else None
        if again_in == 0.0 if complaints else (outcome.fault and not outcome.replies):  # nothing else was told
            self._give_back(job)
            return
        clock = self._context.clock
        record = judge(
            lease.record,
            job.envelope,
            outcome,
            self._context.schedule,
            now=clock.time(),
            chance=clock.chance(),
            part=job.part,
            others=job.others,
            again_in=again_in,
        )
        if not complaints:
            self._relay.throttle.forget(lease.name)
        self._settle(job, outcome, record)

    def _give_back(self, job: Job) -> None:
        """Release a mail as if untried; one that may be too much by itself only after another was tried."""
        if self._relay.throttle.is_in_doubt:
            self._relay.put_by(job)
        else:
            job.lease.release()

    def _again_in(self, job: Job, outcome: Outcome, complaints: Mapping[str, Reply]) -> float | None:
        """Seconds after which those are tried again who met a relay that wants less mail; None: as ever."""
        if any(who not in complaints for who in outcome.having(Answer.DEFERRED)):
            return None
        # A connection too many says nothing about the mail that met it.
        again_in = 0.0 if self._was_one_too_many else self._relay.throttle.again(job.lease.name)
        if again_in == 0.0 and outcome.replies.keys() - complaints.keys():
            return _AFTER_A_PART
        return again_in

    def _settle(self, job: Job, outcome: Outcome, record: Record) -> None:
        lease, reporter = job.lease, self._context.reporter
        mail, before = MailId(lease.name, lease.message_id, job.envelope.sender), lease.record
        reporter.report_rejected(lease, outcome.relay, record)
        measures = self._measures(job) if reporter.is_observed else None
        lease.settle(record)
        self._context.suppress(outcome.replies)
        reporter.attempted(mail, outcome, record, before=before, measures=measures)
        self._context.state_report.count(record.state, unknown=record.unknowns > before.unknowns, written=lease.written)

    def _measures(self, job: Job) -> Measures:
        """Return what only the lease and the clock know of an attempt; the lease must not have ended."""
        now = self._context.clock.monotonic()
        begun, self._ended_at = max(job.taken_at, self._ended_at), now
        return Measures(now - begun, job.lease.written, job.lease.size, job.envelope.trace)

    def _checked(self, job: Job, result: object) -> Outcome:
        """Return what a mailer says, if that is an outcome; what it raises is an answer as well."""
        if isinstance(result, Outcome):
            if all(isinstance(each, Reply) for each in result.replies.values()):
                return result
        elif isinstance(result, BaseException):
            return self._broken(job, result)
        return self._broken(job, TypeError(f"its session returned {result!r:.200}, which is no Outcome"))

    def _broken(self, job: Job, error: BaseException) -> Outcome:
        maillog.mailer_broken(job.lease.name, error)
        self.session.close()
        return Outcome.same(
            self.session.relay,
            job.envelope.recipients,
            Reply(
                Answer.UNKNOWN if job.intended else Answer.DEFERRED,
                f"the mailer failed: {type(error).__name__}: {error}",
            ),
        )
