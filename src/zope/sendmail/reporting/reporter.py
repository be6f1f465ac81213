"""What is said about a mail: log lines, the tally, events, and reports to senders, in one place.

The dispatcher and the workers of a processor call it; nothing that it does harms a mail.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from zope.sendmail.events import MailErrorEvent, MailEvent, MailSentEvent, MailUnknownEvent, events_of, news_of
from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.reporting import maillog, notifier, observers
from zope.sendmail.reporting.dsn import notification
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.hostname import host_name

#: Bytes of a message in which the header is looked for when a report about the message is made.
_HEAD_BYTES = 64 * 1024


class Tally:
    """A count of recipients by answer.

    Concurrency: any thread; no recipient is lost.
    """

    def __init__(self) -> None:
        self._mutex = ForkLock()
        self._counts: Counter[Answer] = Counter()

    def add(self, *answers: Answer) -> None:
        """Count one recipient for each of `answers`."""
        with self._mutex:
            for answer in answers:
                self._counts[answer] += 1

    def add_many(self, answer: Answer, recipients: int) -> None:
        """Count so many recipients."""
        with self._mutex:
            self._counts[answer] += recipients

    def snapshot(self) -> Counter[Answer]:
        """Return a copy of the counts."""
        with self._mutex:
            return Counter(self._counts)


class MailId(NamedTuple):
    """What names a mail in the log and in events; known for longer than its lease lasts."""

    name: str
    message_id: str
    sender: str

    @classmethod
    def of(cls, lease: ILease) -> MailId:
        """Return the names of the mail that `lease` is for.  The lease must not have ended."""
        return cls(lease.name, lease.message_id, lease.envelope.sender)


class Measures(NamedTuple):
    """What is measured of an attempt, for observers."""

    #: Seconds that it took.
    duration: float
    #: When the mail was written, seconds since the epoch; None if that is not known.
    written: float | None
    #: Bytes of the message; None if that is not known.
    size: int | None
    #: The trace that the mail belongs to.
    trace: str = ""
    #: Whether no relay was asked about the mail before.
    is_first: bool = True


class Attempted(NamedTuple):
    """An attempt at a mail that had not been tried before; see `Reporter.attempted`."""

    mail: MailId
    outcome: Outcome
    record: Record
    measures: Measures | None


class Reporter:
    """Logs, counts and tells how attempts ended, and reports rejected recipients to the sender.

    :param tally: where recipients are counted
    :param tell: called with events; what it raises is logged
    :param clock: dates the reports
    :param enqueue: puts a report (RFC 3464) into the queue; None: senders get no reports
    :param queue: the location of the queue, for observers

    Concurrency: any thread.
    """

    def __init__(
        self,
        tally: Tally,
        tell: Callable[[Iterable[MailEvent]], None],
        clock: Clock,
        *,
        enqueue: Callable[[Envelope, bytes], None] | None = None,
        queue: str = "",
    ) -> None:
        self._tally = tally
        self._tell = tell
        self._clock = clock
        self._enqueue = enqueue
        self._queue = queue

    @property
    def is_heard(self) -> bool:
        """Whether an event may have a listener.  It is not known whom a `tell` other than the notifier's reaches."""
        return self._tell is not notifier.tell or notifier.is_heard()

    @property
    def is_observed(self) -> bool:
        """Whether `attempted` is to be given measures."""
        return observers.is_observed()

    # about an attempt

    def report_rejected(self, lease: ILease, relay: str, record: Record) -> None:
        """Queue a report about the recipients who were rejected in this attempt, unless the mail is itself a report.

        Called before `record` is settled: a crash between the two makes a second report with the same Message-Id; the
        other order would lose the report.

        :param relay: the relay that was asked, for people
        :param record: what the attempt led to
        """
        if self._enqueue is None or not lease.envelope.sender:
            return
        before = lease.record.having(Answer.REJECTED)
        rejected = {who: reply for who, reply in record.having(Answer.REJECTED).items() if who not in before}
        if not rejected:
            return
        try:
            self._enqueue(*self._report(lease, relay, rejected, record.attempts))
        except Exception as error:  # noqa: BLE001 - a report that cannot be made changes nothing about the mail
            maillog.report_failed(lease.envelope.sender, error)

    def attempted(
        self, mail: MailId, outcome: Outcome, record: Record, *, before: Record, measures: Measures | None = None
    ) -> None:
        """Say how an attempt ended.

        :param record: what the attempt led to, and what has been settled
        :param before: what was known when the attempt began
        :param measures: for observers; None: they are told nothing
        """
        news = news_of(outcome, record, before=before)
        self._say(mail, outcome.relay, news)
        if measures is not None:
            self._observe(mail, outcome.relay, record, news, measures._replace(is_first=not before.relay))
        if self.is_heard:
            for event in events_of(mail.message_id, mail.sender, outcome, record, before=before):
                self._notify(event)
        if record.state is State.DEFERRED and record.due_again > record.time:
            maillog.deferred(mail.name, record.attempts, record.due_again)
        elif record.state is State.HELD:
            maillog.held(mail.name, record.note)

    def sent(self, mails: Iterable[Attempted], recipients: int) -> None:
        """Say of mails that each was taken for all its recipients at the first attempt.

        :param mails: not looked at if nothing listens
        :param recipients: of all of them
        """
        is_logged, is_heard = _is_wanted(maillog.processor_log, logging.INFO), self.is_heard
        for mail, outcome, record, measures in mails if is_logged or is_heard or self.is_observed else ():
            if is_logged:
                self._log(mail, outcome.relay, outcome.replies)
            if measures is not None:
                self._observe(mail, outcome.relay, record, outcome.replies, measures._replace(is_first=True))
            if is_heard:
                self._notify(MailSentEvent(mail.message_id, mail.sender, outcome.replies, outcome.relay))
        self._tally.add_many(Answer.ACCEPTED, recipients)

    def faulted(self, outcome: Outcome) -> None:
        """Give observers what a relay said that could not be used; the log has it from the circuit breaker."""
        if outcome.fault is not None and self.is_observed:
            observers.tell(observers.FaultRecord(self._clock.time(), self._queue, outcome.relay, outcome.fault))

    # without an attempt

    def inherited(self, lease: ILease) -> None:
        """Say what a former owner of the lease left that died between the last byte and the reply, or later."""
        if lease.inherited is None:
            return
        is_sent = lease.record.state is State.SENT
        self._without_relay(MailId.of(lease), MailSentEvent if is_sent else MailUnknownEvent, lease.inherited.replies)
        if not is_sent:
            lease.told()

    def set_aside(self, mail: MailId, replies: Mapping[str, Reply]) -> None:
        """Say that a message was set aside, because no relay can be asked about it.

        :param replies: those of its recipients; empty if not even they are known
        """
        if replies:
            self._without_relay(mail, MailErrorEvent, replies)
        else:
            self._tally.add(Answer.REJECTED)

    def _without_relay(self, mail: MailId, event: type[MailEvent], replies: Mapping[str, Reply]) -> None:
        self._say(mail, "", replies)
        self._notify(event(mail.message_id, mail.sender, replies))

    def _say(self, mail: MailId, relay: str, replies: Mapping[str, Reply]) -> None:
        self._log(mail, relay, replies)
        self._tally.add(*[reply.answer for reply in replies.values()])

    def _log(self, mail: MailId, relay: str, replies: Mapping[str, Reply]) -> None:
        for recipient, reply in replies.items():
            maillog.answered(
                name=mail.name,
                message_id=mail.message_id,
                sender=mail.sender,
                recipient=recipient,
                reply=reply,
                relay=relay,
            )

    def _observe(self, mail: MailId, relay: str, record: Record, news: Mapping[str, Reply], measures: Measures) -> None:
        now, written = self._clock.time(), measures.written
        observers.tell(
            observers.AttemptRecord(
                time=now,
                queue=self._queue,
                name=mail.name,
                message_id=mail.message_id,
                sender=mail.sender,
                relay=relay,
                attempt=record.attempts,
                state=record.state.value,
                duration=measures.duration,
                age=None if written is None else max(0.0, now - written),
                size=measures.size,
                replies=news,
                trace=measures.trace,
                is_first=measures.is_first,
            )
        )

    def _notify(self, event: MailEvent) -> None:
        try:
            self._tell([event])
        except Exception as error:  # noqa: BLE001 - whatever `tell` is, it harms no mail
            maillog.subscriber_failed(event, error)

    def _report(
        self, lease: ILease, relay: str, rejected: Mapping[str, Reply], attempts: int
    ) -> tuple[Envelope, bytes]:
        sender = lease.envelope.sender
        host = host_name()
        text = notification(
            sender=sender,
            head=lease.open().read(_HEAD_BYTES),
            replies=rejected,
            relay=relay,
            host=host,
            message_id=f"report.{lease.name}.{attempts}@{host}",
            moment=datetime.fromtimestamp(self._clock.time(), UTC),
        )
        return Envelope("", (sender,)), text


def _is_wanted(log: logging.Logger, level: int) -> bool:
    """Return whether a record of this level would reach a handler that takes it."""
    if not log.isEnabledFor(level):
        return False
    logger: logging.Logger | None = log
    handlers: list[logging.Handler] = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    if not handlers and logging.lastResort is not None:
        handlers = [logging.lastResort]
    return any(level >= handler.level for handler in handlers)
