"""One attempt at one message: hand over -> judge -> settle -> tell.

A worker is a conversation with a relay, and the messages that go through it one after the other; `Lane.run` is the way
of each.  An error is charged to what failed (``docs/internals.rst``, *The processor*).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost
from zope.sendmail.events import events_of, news_of
from zope.sendmail.interfaces import IJobSource, ILease, ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import host_name
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.relay import Job, Relay
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.dsn import notification
from zope.sendmail.smtp.pipeline import one_by_one, stream
from zope.sendmail.system.gilbaton import baton

if TYPE_CHECKING:
    from zope.sendmail.processor.thread import QueueProcessorThread

#: So much of a message is looked at for its header when a report about it is made.
_HEAD = 64 * 1024


def is_wish_to_end(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C: that reaches the main thread only."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


class JobSource(Protocol):
    """See `IJobSource`."""

    def next(self) -> Job | None:
        """Return the next job for a worker, claimed for it; None if there is none now."""


@implementer(IJobSource)
class JobsInHand:
    """The jobs that a worker has taken from its source and not ended yet; see `IJobSource`.

    A job whose recipients are all malformed goes to no relay: `finish` ends it at once.
    """

    def __init__(self, jobs: JobSource, finish: Callable[[Job, Outcome], None]) -> None:
        self._jobs = jobs
        self._finish = finish
        self.in_hand: deque[Job] = deque()

    def next(self) -> Job | None:
        """See `IJobSource`."""
        while (job := self._jobs.next()) is not None:
            if job.envelope.recipients:
                self.in_hand.append(job)
                return job
            self._finish(job, Outcome(""))
        return None


class Worker:
    """One conversation with a relay, and the messages that go through it one after the other."""

    def __init__(self, processor: QueueProcessorThread, relay: Relay, session: ISession, mailer: Any) -> None:
        self._processor = processor
        self._relay = relay
        self._schedule = processor.schedule
        self._clock = processor.clock
        self.session = session
        self.mailer = mailer
        #: Whether the last mail found a relay that could be used.
        self.works = True

    def run(self, jobs: JobSource) -> None:
        """Try each message once; ends the leases.  Raises what `jobs` raises."""
        taken = JobsInHand(jobs, self._finish)
        results = self._results(taken)
        try:
            with baton.running():
                for job, result in results:
                    self._finish(job, result)
                    if not self.works or self._processor.is_stopped:
                        break
        finally:
            results.close()
            for job in taken.in_hand:  # it was to follow, and no relay has it
                job.lease.release()

    def _results(self, jobs: JobsInHand) -> Generator[tuple[Job, Outcome | BaseException], None, None]:
        """Each job with how it went; those that were taken and not yielded stay in hand."""
        in_hand = jobs.in_hand
        try:
            for job, result in self._stream(jobs):
                in_hand.remove(job)
                yield job, result
        except GeneratorExit:
            raise
        except BaseException as error:  # even SystemExit: a mailer must not end the thread
            if not in_hand:
                raise
            self._break_off(in_hand.popleft(), error)
            if is_wish_to_end(error):
                raise

    def _break_off(self, job: Job, error: BaseException) -> None:
        """What the mailer raises is about the mail that was in hand first."""
        if is_wish_to_end(error) and not job.intended:
            self.session.close()
            job.lease.release()
        else:
            self._finish(job, error)

    def _stream(self, jobs: JobsInHand) -> Iterator[tuple[Job, Outcome | BaseException]]:
        """Each job with how it went.  Who has to wait for a turn does not ride with another."""
        streaming: Any = one_by_one if self._relay.has_rate else stream
        results: Iterator[tuple[Job, Outcome | BaseException]] = streaming(self.session, jobs)
        return results

    def _finish(self, job: Job, result: Outcome | BaseException) -> None:
        """Judge, settle, tell.  If that fails, the lease stays, so that nobody sends the mail again."""
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
        outcome = self._broken(job, result) if isinstance(result, BaseException) else self._checked(job, result)
        if job.envelope.recipients:  # else no relay was asked
            self.works = outcome.fault is None
            self._relay.heard(outcome)
        if outcome.fault is not None and not outcome.replies:
            lease.release()
            return
        record = judge(
            lease.record,
            job.envelope,
            outcome,
            self._schedule,
            now=self._clock.time(),
            chance=self._clock.chance(),
            part=job.part,
            others=job.others,
        )
        self._settle_and_tell(job, outcome, record)

    def _checked(self, job: Job, outcome: object) -> Outcome:
        """What a mailer says, if that is an outcome."""
        if isinstance(outcome, Outcome) and all(isinstance(each, Reply) for each in outcome.replies.values()):
            return outcome
        return self._broken(job, TypeError(f"its session returned {outcome!r:.200}, which is no Outcome"))

    def _broken(self, job: Job, error: BaseException) -> Outcome:
        """What a mailer raises is an answer as well."""
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

    def _settle_and_tell(self, job: Job, outcome: Outcome, record: Record) -> None:
        lease, envelope = job.lease, job.envelope
        name, message_id = lease.name, lease.message_id
        if self._processor.notify_sender:
            self._notify_sender(lease, outcome, record)
        lease.settle(record)
        for recipient, reply in news_of(outcome, record, before=lease.record).items():
            maillog.answered(
                name=name,
                message_id=message_id,
                sender=envelope.sender,
                recipient=recipient,
                reply=reply,
                relay=outcome.relay,
            )
            self._processor.tally[reply.answer] += 1
        if self._processor.is_heard:
            for event in events_of(message_id, envelope.sender, outcome, record, before=lease.record):
                self._processor.tell_safely(event)
        if record.state is State.DEFERRED and record.due_again > record.time:
            maillog.deferred(name, record.attempts, record.due_again)
        elif record.state is State.HELD:
            maillog.held(name, record.note)

    def _notify_sender(self, lease: ILease, outcome: Outcome, record: Record) -> None:
        """Queue a report about those who were rejected now, before that is settled; never one about a report.

        A crash in between makes a second report with the same Message-Id; the other order would lose it.
        """
        sender = lease.envelope.sender
        before = lease.record.having(Answer.REJECTED)
        rejected = {who: reply for who, reply in record.having(Answer.REJECTED).items() if who not in before}
        if not rejected or not sender:
            return
        try:
            self._report(lease, outcome.relay, rejected, record.attempts)
        except Exception as error:  # noqa: BLE001 - a report that cannot be made changes nothing about the mail
            maillog.report_failed(sender, error)

    def _report(self, lease: ILease, relay: str, rejected: dict[str, Reply], attempts: int) -> None:
        sender = lease.envelope.sender
        host = host_name()
        text = notification(
            sender=sender,
            head=lease.open().read(_HEAD),
            replies=rejected,
            relay=relay,
            host=host,
            message_id=f"report.{lease.name}.{attempts}@{host}",
            moment=datetime.fromtimestamp(self._clock.time(), UTC),
        )
        self._processor.enqueue(Envelope("", (sender,)), text)
