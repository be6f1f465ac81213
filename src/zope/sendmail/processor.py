"""Drains a queue: claim -> hand over -> judge -> settle -> tell.

One attempt at one message is one value that goes through these steps, in `Lane.attempt`.  Nothing that a message, a
relay, a disk or a subscriber does ends the thread: trouble is charged to what failed, told in the log, and tried
again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from zope.sendmail import maillog, teller
from zope.sendmail.clock import Clock
from zope.sendmail.events import MailEvent, MailUnknownEvent, events_of
from zope.sendmail.history import Record
from zope.sendmail.interfaces import ILease, IMailQueue, IMailQueueProcessor, ISession, LeaseLost
from zope.sendmail.mailer import open_session
from zope.sendmail.outcome import Answer, Outcome, Reply
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.states import State
from zope.sendmail.retry import Schedule, judge, probe_delay

if TYPE_CHECKING:
    from zope.sendmail.maildir import Maildir

#: The queue itself is in trouble (disk, permissions): seconds until the next look, and how long a stop may go
#: unnoticed then.
_TROUBLE = (1.0, 60.0)
_SLICE = 0.2


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
        lease.settle(record)
        for event in events_of(message_id, envelope.sender, outcome, record):
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

    def _tell(self, event: MailEvent) -> None:
        try:
            self._processor.tell([event])
        except Exception as error:  # noqa: BLE001 - whatever `tell` is, it harms no mail
            maillog.subscriber_failed(event, error)


@implementer(IMailQueueProcessor)
class QueueProcessorThread(threading.Thread):
    """See `IMailQueueProcessor`.  `interval`: seconds between two looks when nothing wakes it; `concurrency`:
    connections at most.

    ``start()`` drains in a thread of its own until ``stop()``; ``run(forever=False)`` drains once what is due, in
    the caller's.
    """

    log = maillog.processor_log
    interval = 3.0
    mailer: Any = None
    queue: IMailQueue | None = None
    _stopped = False

    def __init__(
        self,
        interval: float = 3.0,
        *,
        queue: IMailQueue | None = None,
        mailer: Any = None,
        concurrency: int = 1,
        schedule: Schedule | None = None,
        clock: Clock | None = None,
        tell: Callable[[Iterable[MailEvent]], None] = teller.tell,
    ) -> None:
        super().__init__(name="zope.sendmail.queue.QueueProcessorThread", daemon=True)
        if not interval > 0 or concurrency < 1:
            raise ValueError(f"interval {interval} s must be more than 0, concurrency {concurrency} at least 1")
        self.interval = interval
        self.queue = queue
        self.mailer = mailer
        self.concurrency = concurrency
        self.schedule = schedule or getattr(queue, "schedule", None) or Schedule()
        self.clock = clock or Clock()
        self.tell = tell
        self.relay = Relay(self.clock)
        #: Recipients by answer, since the start.
        self.tally: Counter[Answer] = Counter()
        self._mutex = threading.Lock()
        self._idle: list[ISession] = []
        self._helpers: set[threading.Thread] = set()
        self._troubles = 0

    # what to drain, and through what

    def setMailer(self, mailer: Any) -> None:
        """Use this `IMailer`; only its ``send`` is needed."""
        self.mailer = mailer

    def setQueuePath(self, path: str) -> None:
        """Drain the Maildir queue at `path`; it is made if there is none."""
        self.queue = open_queue(path, schedule=self.schedule)

    @property
    def queuePath(self) -> str:
        """See `IMailQueueProcessor`."""
        return self.queue.location if self.queue is not None else ""

    @property
    def pollingInterval(self) -> int:
        """See `IMailQueueProcessor`."""
        return int(self.interval * 1000)

    @property
    def fault(self) -> Reply | None:
        """Why the relay could not be used at the last attempt; None if it could."""
        return self.relay.fault

    # running

    def run(self, forever: bool = True) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        """Drain the queue until `stop`, or once.  Raises `ValueError` if there is no queue or no mailer."""
        queue = self.queue
        if queue is None or self.mailer is None:
            raise ValueError("the processor needs a queue and a mailer: call setQueuePath() and setMailer() first")
        maillog.started(queue.location, str(getattr(self.mailer, "hostname", type(self.mailer).__name__)))
        try:
            while not self._stopped:
                self._guarded(self._drain, queue)
                if not forever:
                    break
                self._guarded(self._rest, queue)
        finally:
            self._end(queue)

    def stop(self) -> None:
        """Stop after the message in hand.  Returns at once; may be called from any thread and from a signal handler."""
        self._stopped = True
        if self.queue is not None:
            self.queue.wake()

    def _guarded(self, step: Callable[[IMailQueue], None], queue: IMailQueue) -> None:
        """Do a step; trouble with the queue is told and waited for, never raised."""
        try:
            step(queue)
            self._troubles = 0
        except BaseException as error:  # noqa: BLE001 - the thread cannot die
            self._troubles += 1
            seconds = min(_TROUBLE[0] * 2.0 ** min(self._troubles - 1, 16), _TROUBLE[1])
            maillog.queue_trouble(queue.location, error, seconds)
            until = self.clock.monotonic() + seconds
            while not self._stopped and self.clock.monotonic() < until:
                self.clock.sleep(_SLICE)

    def _drain(self, queue: IMailQueue) -> None:
        """Try everything that is due, through one conversation."""
        lane = Lane(self, self._session())
        try:
            while not self._stopped and self.relay.pause() == 0.0:
                leases = queue.claim(1)
                if leases:
                    self._call_for_help(queue)
                    lane.attempt(leases[0])
                elif queue.next_due() != 0.0:
                    break
        finally:
            with self._mutex:
                self._idle.append(lane.session)

    def _call_for_help(self, queue: IMailQueue) -> None:
        """Open one more conversation if more is due than those at work have in hand."""
        if self.concurrency == 1 or queue.next_due() != 0.0:
            return
        with self._mutex:
            if len(self._helpers) + 1 >= self.concurrency:
                return
            helper = threading.Thread(target=self._help, args=(queue,), name=f"{self.name}-helper", daemon=True)
            self._helpers.add(helper)
            helper.start()

    def _help(self, queue: IMailQueue) -> None:
        try:
            self._guarded(self._drain, queue)
        finally:
            with self._mutex:
                self._helpers.discard(threading.current_thread())

    def _session(self) -> ISession:
        with self._mutex:
            return self._idle.pop() if self._idle else open_session(self.mailer)

    def _rest(self, queue: IMailQueue) -> None:
        """Wait until there may be something to do."""
        with self._mutex:
            idle = list(self._idle)
        for session in idle:
            session.rest()
        if self._stopped:
            return
        due = queue.next_due()
        wait = self.relay.pause() or (self.interval if due is None else due)
        queue.wait(min(wait, self.interval))

    def _end(self, queue: IMailQueue) -> None:
        """Let helpers finish what they have in hand, and say goodbye to the relay."""
        with self._mutex:
            helpers = list(self._helpers)
        for helper in helpers:
            helper.join()
        with self._mutex:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
        queue.close()
        maillog.stopped(queue.location)

    # BBB: names of zope.sendmail 3.5 to 7.3

    @property
    def maildir(self) -> Maildir | None:
        """The queue as a plain Maildir."""
        from zope.sendmail.maildir import Maildir

        return Maildir(self.queuePath, create=True) if self.queue is not None else None

    def setMaildir(self, maildir: Maildir) -> None:
        """Drain the queue in this Maildir."""
        self.setQueuePath(maildir.path)
