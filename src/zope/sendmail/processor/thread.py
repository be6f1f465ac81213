"""The thread that drains a queue.

It lets a `Dispatcher` claim what is due and a `WorkerPool` try it; when nothing is due it waits.  With one relay it
works in the pool itself; with several it finds out whose each message is, and each relay has threads of its own.
Nothing that a message, a relay, a disk or a subscriber does ends it: trouble is charged to what failed, told in the
log, and tried again.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.events import MailEvent
from zope.sendmail.interfaces import IMailQueue, IMailQueueProcessor
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.maildir import Maildir, make_maildir
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor import shutdown
from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.pool import WorkerPool
from zope.sendmail.processor.relay import Relay, Relays
from zope.sendmail.processor.worker import is_wish_to_end
from zope.sendmail.queue import is_maildir, open_queue, put
from zope.sendmail.reporting import maillog, notifier
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk

#: The queue itself is in trouble (disk, permissions): seconds until the next look, and how long a stop may go
#: unnoticed then.
_TROUBLE = (1.0, 60.0)
_SLICE = 0.2


@implementer(IMailQueueProcessor)
class QueueProcessorThread(threading.Thread):
    """See `IMailQueueProcessor`.

    `interval`: seconds between two looks when nothing wakes it; `concurrency`: connections to a relay at most, None: as
    many as are worth while, up to 20, or one if the mailer keeps no sessions; `notify_sender`: whether senders get a
    report (RFC 3464) about rejected recipients; `routes` and `mailers`: which relay serves which mail, and the mailers
    by name; `mailer` is the default.

    ``start()`` drains in a thread of its own until ``stop()``; ``run(forever=False)`` drains once what is due, in
    the caller's.
    """

    log = maillog.processor_log
    interval = 3.0
    mailer: Any = None
    queue: IMailQueue | None = None
    _stopped = False
    _finishing = False

    def __init__(
        self,
        interval: float = 3.0,
        *,
        queue: IMailQueue | None = None,
        mailer: Any = None,
        concurrency: int | None = None,
        schedule: Schedule | None = None,
        clock: Clock | None = None,
        notify_sender: bool = False,
        routes: Routes | None = None,
        mailers: Mapping[str, Any] | None = None,
        tell: Callable[[Iterable[MailEvent]], None] = notifier.tell,
    ) -> None:
        super().__init__(name="zope.sendmail.queue.QueueProcessorThread", daemon=True)
        if not interval > 0 or (concurrency is not None and concurrency < 1):
            raise ValueError(f"interval {interval} s must be more than 0, concurrency {concurrency} at least 1")
        self.interval = interval
        self.queue = queue
        self.mailer = mailer
        self.concurrency = concurrency
        self.schedule = schedule or getattr(queue, "schedule", None) or Schedule()
        self.clock = clock or Clock()
        self.notify_sender = notify_sender
        self.tell = tell
        self.relays = Relays(
            lambda: self.mailer, mailers or {}, routes or Routes(), self.clock, lambda: self.concurrency
        )
        #: Recipients by answer, since the start.
        self.tally: Counter[Answer] = Counter()
        self._pool = WorkerPool(self)
        self._lock = threading.Lock()  # BBB: in 7.3 held while a message was being sent
        self._troubles = 0
        self._calm_at = float("-inf")

    # what to drain, and through what

    def setMailer(self, mailer: Any) -> None:
        """Use this `IMailer`; only its ``send`` is needed.

        Raises `ValueError` for one that redirects all mail, if mail may name relays that do not.
        """
        before, self.mailer = self.mailer, mailer
        try:
            self.relays.refuse_detours()
        except ValueError:
            self.mailer = before
            raise

    def setQueuePath(self, path: str) -> None:
        """Drain the queue at `path` (see `open_queue`); a Maildir is made if there is none.

        Raises `ValueError` if there is something else.
        """
        if is_maildir(path):
            make_maildir(Disk(), os.path.abspath(path))
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
        """Why a relay could not be used at the last attempt; None if all could."""
        return next((relay.fault for relay in self.relays if relay.fault is not None), None)

    @property
    def is_stopped(self) -> bool:
        """Whether somebody said `stop`."""
        return self._stopped

    @property
    def is_ending(self) -> bool:
        """Whether somebody said `stop` or `finish`."""
        return self._stopped or self._finishing

    def enqueue(self, envelope: Envelope, message: bytes) -> None:
        """Put a mail of our own into the queue.  Trouble is told and costs no more than this mail."""
        assert self.queue is not None
        try:
            put(self.queue, [envelope], message)
        except OSError as error:
            maillog.report_failed(envelope.recipients[0], error)

    # running

    def run(self, forever: bool = True) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        """Drain the queue until `stop`, or once.  Raises `ValueError` if there is no queue or no mailer."""
        queue = self.queue
        if queue is None or self.mailer is None:
            raise ValueError("the processor needs a queue and a mailer: call setQueuePath() and setMailer() first")
        self.relays.refuse_detours()
        maillog.started(queue.location, str(getattr(self.mailer, "hostname", type(self.mailer).__name__)))
        shutdown.expect(self)
        self._pool.dispatcher = Dispatcher(self, queue, self.relays, self._pool.call)
        try:
            while not self._stopped:
                if forever and self._finishing:
                    forever = False
                    self._guarded(self._begin_anew, queue)
                self._guarded(self._drain, queue)
                if forever:
                    self._guarded(self._rest, queue)
                    continue
                self._pool.end()
                if not self._has_more_to_do(queue):
                    break
        finally:
            self._end(queue)

    def stop(self) -> None:
        """Stop after the message in hand.  Returns at once; may be called from any thread and from a signal handler."""
        self._stopped = True
        if self.queue is not None:
            self.queue.wake()

    def finish(self) -> None:
        """Send what is due, then stop; what cannot be sent now stays in the queue.  Returns at once, like `stop`."""
        self._finishing = True
        if self.queue is not None:
            self.queue.wake()

    def guarded_work(self, relay: Relay) -> None:
        """Be a worker; trouble with the queue ends it, and nothing else."""
        try:
            self._pool.work(relay)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._trouble(error)
        if not relay.workers:
            self._cut_rest_short()

    def _cut_rest_short(self) -> None:
        """The last worker of a relay has ended: what it leaves may be due before the processor wants to look again."""
        queue = self.queue
        if queue is not None and self._seconds_to_rest(queue) < self.interval:
            queue.wake()

    @property
    def is_troubled(self) -> bool:
        """Whether the queue is left alone for a while."""
        return self.clock.monotonic() < self._calm_at

    @property
    def is_heard(self) -> bool:
        """Whether an event may interest anybody.  Whom a `tell` of somebody's own reaches is not known."""
        return self.tell is not notifier.tell or notifier.is_heard()

    def tell_safely(self, event: MailEvent) -> None:
        """Tell of an event."""
        try:
            self.tell([event])
        except Exception as error:  # noqa: BLE001 - whatever `tell` is, it harms no mail
            maillog.subscriber_failed(event, error)

    def _guarded(self, step: Callable[[Any], None], argument: Any) -> None:
        """Do a step; trouble with the queue is told and waited for, never raised."""
        try:
            step(argument)
            self._troubles = 0
        except BaseException as error:  # the thread cannot die
            if is_wish_to_end(error):
                self.stop()
                raise
            self._trouble(error)
        while self.is_troubled and not self._stopped:  # here, not in a worker: a thread for each would be many
            self.clock.sleep(_SLICE)

    def _trouble(self, error: BaseException) -> None:
        self._troubles += 1
        seconds = min(_TROUBLE[0] * 2.0 ** min(self._troubles - 1, 16), _TROUBLE[1])
        maillog.queue_trouble(self.queuePath, error, seconds)
        self._calm_at = self.clock.monotonic() + seconds

    def _drain(self, queue: IMailQueue) -> None:
        """Try everything that is due."""
        assert self._pool.dispatcher is not None
        if not self.relays.is_single:
            self._pool.dispatcher.route()
            self._pool.fill_in()
        elif self._pool.joins(self.relays.default):
            self._pool.work(self.relays.default)

    def _begin_anew(self, queue: IMailQueue) -> None:
        """Forget what is known of the queue, so that everything that was committed until now is found."""
        self._pool.end()
        queue.close()

    def _has_more_to_do(self, queue: IMailQueue) -> bool:
        """After everybody has ended: whether something became due meanwhile, and its relay can be used."""
        if self._troubles:
            return False
        if self.relays.is_single:
            return queue.next_due() == 0.0 and self.relays.default.pause() == 0.0
        parked = queue.parked()
        return queue.next_due() == 0.0 or any(relay.name in parked and relay.room() for relay in self.relays)

    def _rest(self, queue: IMailQueue) -> None:
        """Wait until there may be something to do."""
        for relay in self.relays:
            relay.rest()
        if not self.is_ending:  # said since the last look; nobody heard a bell then
            queue.wait(min(self._seconds_to_rest(queue), self.interval))

    def _seconds_to_rest(self, queue: IMailQueue) -> float:
        due = queue.next_due()
        rest = self.interval if due is None else due
        if self.relays.is_single:
            relay = self.relays.default
            return self.interval if relay.workers else max(rest, relay.pause())
        parked = queue.parked()
        idle = [relay for relay in self.relays if relay.name in parked and not relay.workers]
        return min([rest, *(relay.pause() for relay in idle)])

    def _end(self, queue: IMailQueue) -> None:
        """Let everybody finish what they have in hand, and say goodbye to the relays."""
        self._pool.end()
        for relay in self.relays:
            relay.close()
        queue.close()
        maillog.stopped(queue.location)

    # BBB: names of zope.sendmail 3.5 to 7.3.  None of them is called from within any more.

    @property
    def maildir(self) -> Maildir | None:
        """The queue as a plain Maildir."""
        return self._makeMaildir(self.queuePath) if self.queue is not None else None

    @maildir.setter
    def maildir(self, maildir: Maildir) -> None:
        self.setMaildir(maildir)

    def setMaildir(self, maildir: Maildir) -> None:
        """Drain the queue in this Maildir."""
        self.setQueuePath(maildir.path)

    def _makeMaildir(self, path: str) -> Maildir:
        """The Maildir at `path`, made if there is none."""
        return Maildir(path, create=True)

    def _parseMessage(self, message: bytes) -> tuple[str, tuple[str, ...], bytes]:
        """Sender, recipients and message of a queue file; nobody and nothing if it is none."""
        stream = io.BytesIO(message)
        try:
            envelope = read_envelope(stream)
        except MalformedEnvelope:
            return "", (), message
        return envelope.sender, envelope.recipients, stream.read()

    def _process_one_file(self, filename: str) -> None:
        """Drain what is due, this file included."""
        QueueProcessorThread.run(self, forever=False)  # a subclass may call this from a ``run`` of its own

    def _action_if_exists(self, fname: str, func: Callable[[str], Any], default: Any = None) -> Any:
        """`func` of a file, or `default` if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return func(fname)
        return default

    def _unlink_if_exists(self, fname: str) -> None:
        """Remove a file that may be gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fname)
