"""One attempt at one message: hand over -> judge -> settle -> tell.

A lane is a conversation with the relay, and the messages that go through it one after the other; `Lane.attempt` is
the way of each.  An error is charged to what failed (``docs/internals.rst``, *The processor*).
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zope.sendmail import maillog
from zope.sendmail.clock import Clock
from zope.sendmail.dsn import notification
from zope.sendmail.events import MailEvent, MailUnknownEvent, events_of
from zope.sendmail.history import Record
from zope.sendmail.interfaces import ILease, ISession, LeaseLost
from zope.sendmail.maildir import host_name
from zope.sendmail.message import Envelope
from zope.sendmail.outcome import Answer, Outcome, Reply
from zope.sendmail.queue.states import State
from zope.sendmail.retry import judge, probe_delay

if TYPE_CHECKING:
    from zope.sendmail.processor import QueueProcessorThread

#: So much of a message is looked at for its header when a report about it is made.
_HEAD = 64 * 1024


class Relay:
    """Whether the relay of a processor can be used.  Concurrency: any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._failures = 0
        self._until = float("-inf")
        self.fault: Reply | None = None

    def pause(self) -> float:
        """Seconds until the relay may be tried again."""
        return max(0.0, self._until - self._clock.monotonic())

    def heard(self, outcome: Outcome) -> None:
        """Learn from an outcome: a fault pauses the relay, anything else ends the pause."""
        with self._mutex:
            if outcome.fault is not None:
                if self.pause() == 0.0:  # several connections that fail at once are one failure
                    self._failures += 1
                    self._until = self._clock.monotonic() + probe_delay(self._failures)
                    maillog.relay_down(outcome.relay, outcome.fault, probe_delay(self._failures))
            elif self._failures:
                self._failures, self._until = 0, float("-inf")
                maillog.relay_up(outcome.relay)
            self.fault = outcome.fault


class Lane:
    """One conversation with the relay, and the messages that go through it one after the other."""

    def __init__(self, processor: QueueProcessorThread, session: ISession) -> None:
        self._processor = processor
        self._schedule = processor.schedule
        self._clock = processor.clock
        self.session = session

    def attempt(self, lease: ILease) -> None:
        """Try one message once.  Ends the lease."""
        self._tell_inherited(lease)
        if lease.record.state is State.HELD:
            maillog.held(lease.name, lease.record.note)
            lease.release()
            return
        if lease.problem:
            self._set_aside(lease)
            return
        try:
            outcome = self._hand_over(lease)
        except LeaseLost as error:
            maillog.lease_lost(lease.name, error)
            lease.release()
            return
        self._processor.relay.heard(outcome)
        if outcome.fault is not None and not outcome.replies:
            lease.release()
            return
        record = judge(
            lease.record, lease.envelope, outcome, self._schedule, now=self._clock.time(), chance=self._clock.chance()
        )
        self._settle_and_tell(lease, outcome, record)

    def _set_aside(self, lease: ILease) -> None:
        """A file that no relay can be asked about: a person has to look at it."""
        maillog.set_aside(lease.name, lease.problem)
        lease.settle(Record(State.REJECTED, time=self._clock.time(), note=lease.problem))
        self._processor.tally[Answer.REJECTED] += 1

    def _hand_over(self, lease: ILease) -> Outcome:
        """Let the mailer send; what it raises is an answer as well."""
        envelope = lease.envelope
        if not envelope.recipients:
            return Outcome("")
        intended = False

        def intend() -> None:
            nonlocal intended
            lease.intend()
            intended = True

        try:
            return self.session.transfer(envelope, lease.open(), intend)
        except LeaseLost:
            raise
        except BaseException as error:  # noqa: BLE001 - even SystemExit: a mailer must not end the thread
            maillog.mailer_broken(lease.name, error)
            self.session.close()
            answer = Answer.UNKNOWN if intended else Answer.DEFERRED
            return Outcome.same(
                self.session.relay,
                envelope.recipients,
                Reply(answer, f"the mailer failed: {type(error).__name__}: {error}"),
            )

    def _settle_and_tell(self, lease: ILease, outcome: Outcome, record: Record) -> None:
        name, message_id, envelope = lease.name, lease.message_id, lease.envelope
        self._notify_sender(lease, outcome, record)
        lease.settle(record)
        for event in events_of(message_id, envelope.sender, outcome, record, before=lease.record):
            for recipient, reply in event.replies.items():
                maillog.answered(
                    name=name,
                    message_id=message_id,
                    sender=envelope.sender,
                    recipient=recipient,
                    reply=reply,
                    relay=outcome.relay,
                )
                self._processor.tally[reply.answer] += 1
            self._tell(event)
        if record.state is State.DEFERRED:
            maillog.deferred(name, record.attempts, record.due)
        elif record.state is State.HELD:
            maillog.held(name, record.note)

    def _notify_sender(self, lease: ILease, outcome: Outcome, record: Record) -> None:
        """Queue a report about those who were rejected now, before that is settled; never one about a report.

        A crash in between makes a second report with the same Message-Id; the other order would lose it.
        """
        before = lease.record.having(Answer.REJECTED)
        rejected = {who: reply for who, reply in record.having(Answer.REJECTED).items() if who not in before}
        if not rejected or not lease.envelope.sender or not self._processor.notify_sender:
            return
        host = host_name()
        text = notification(
            sender=lease.envelope.sender,
            head=lease.open().read(_HEAD),
            replies=rejected,
            relay=outcome.relay,
            host=host,
            message_id=f"report.{lease.name}.{record.attempts}@{host}",
            moment=datetime.fromtimestamp(self._clock.time(), UTC),
        )
        self._processor.enqueue(Envelope("", (lease.envelope.sender,)), text)

    def _tell_inherited(self, lease: ILease) -> None:
        """Whoever had the message before us died between the last byte and the reply."""
        if lease.inherited is None:
            return
        message_id, sender = lease.message_id, lease.envelope.sender
        for recipient, reply in lease.inherited.replies.items():
            maillog.answered(
                name=lease.name, message_id=message_id, sender=sender, recipient=recipient, reply=reply, relay=""
            )
            self._processor.tally[Answer.UNKNOWN] += 1
        self._tell(MailUnknownEvent(message_id, sender, lease.inherited.replies))
        lease.told()

    def _tell(self, event: MailEvent) -> None:
        try:
            self._processor.tell([event])
        except Exception as error:  # noqa: BLE001 - whatever `tell` is, it harms no mail
            maillog.subscriber_failed(event, error)
