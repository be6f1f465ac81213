"""The thread that drains a queue.

Nothing that a message, a relay, a disk or a subscriber does ends it: trouble is charged to what failed, told in the
log, and tried again.  What it does is in `zope.sendmail.processor.run`.
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

from zope.sendmail.config.settings import LONGEST
from zope.sendmail.errors import InvalidSettings, MalformedEnvelope
from zope.sendmail.events import MailEvent
from zope.sendmail.interfaces import IMailQueue, IMailQueueProcessor
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import WAITING, State
from zope.sendmail.maildir import Maildir, make_maildir
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor import shutdown
from zope.sendmail.processor.context import Context
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.processor.refusals import RefusedRecipients
from zope.sendmail.processor.registry import RelayRegistry
from zope.sendmail.processor.run import Run
from zope.sendmail.processor.statereport import StateReport
from zope.sendmail.processor.stopsignal import StopSignal
from zope.sendmail.queue import is_maildir, open_queue, put
from zope.sendmail.reporting import maillog, notifier
from zope.sendmail.reporting.reporter import Reporter, Tally
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.system.greenthreads import refuse_green_threads


@implementer(IMailQueueProcessor)
class QueueProcessorThread(threading.Thread):
    """Drains one queue: ``start()`` in a thread of its own until `stop`, ``run(forever=False)`` once in the caller's.

    :param interval: seconds between two looks when nothing wakes it
    :param queue: what is drained; see also `setQueuePath`
    :param mailer: speaks with the relay of mails that name none; see also `setMailer`
    :param concurrency: connections to a relay at most; None: as many as are worth while, up to 20, or one if the
        mailer keeps no sessions
    :param schedule: when deferred mail is tried again; None: the queue's, or the usual one
    :param notify_sender: whether senders get a report (RFC 3464) about rejected recipients
    :param keep_rejected: seconds after which rejected mail is removed; None: an operator removes it
    :param suppress_refused: whether a recipient that does not exist, as a relay says, gets no mail any more
    :param routes: which relay serves which mail
    :param mailers: the other mailers, by name
    :param tell: called with events; by default subscribers of ``zope.event`` get them
    :raises InvalidSettings: for numbers that cannot be meant, and for routes to mailers that are not given
    """

    log = maillog.processor_log
    interval = 3.0
    queue: IMailQueue | None = None
    _trouble: QueueBackoff | None = None

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
        keep_rejected: float | None = None,
        suppress_refused: bool = False,
        routes: Routes | None = None,
        mailers: Mapping[str, Any] | None = None,
        tell: Callable[[Iterable[MailEvent]], None] = notifier.tell,
    ) -> None:
        super().__init__(name="zope.sendmail.queue.QueueProcessorThread", daemon=True)
        if not 0 < interval <= LONGEST or (concurrency is not None and concurrency < 1):
            raise InvalidSettings(
                f"interval {interval} s must be more than 0 and no more than {LONGEST:.0f}, concurrency {concurrency} "
                "at least 1"
            )
        self.interval = interval
        self.queue = queue
        self.schedule = schedule or getattr(queue, "schedule", None) or Schedule()
        self.clock = clock or Clock()
        self.notify_sender = notify_sender
        self.keep_rejected = keep_rejected
        self.suppress_refused = suppress_refused
        self.tell = tell
        self._signal = StopSignal()
        self.relays = RelayRegistry(
            mailer, mailers or {}, routes or Routes(), self.clock, concurrency, signal=self._signal
        )
        self._tally = Tally()
        self._lock = threading.Lock()  # BBB: in 7.3 held while a message was being sent

    # what to drain, and through what

    @property
    def mailer(self) -> Any:
        """The `IMailer` for mails that name no other."""
        return self.relays.default.mailer

    @mailer.setter
    def mailer(self, mailer: Any) -> None:
        self.relays.default.mailer = mailer

    def setMailer(self, mailer: Any) -> None:
        """Use this `IMailer`; only its ``send`` is needed.

        :raises ValueError: if the mailer redirects all mail, and mail may name relays that do not
        """
        before, self.mailer = self.mailer, mailer
        try:
            self.relays.refuse_detours()
        except ValueError:
            self.mailer = before
            raise

    def setQueuePath(self, path: str) -> None:
        """Drain the queue at `path` (see `open_queue`); a Maildir is made if there is none.

        :raises ValueError: if there is something else
        """
        if is_maildir(path):
            make_maildir(Disk(), os.path.abspath(path))
        self.queue = open_queue(path, schedule=self.schedule)

    @property
    def queuePath(self) -> str:
        """What names the queue for people; see `IMailQueueProcessor`."""
        return self.queue.location if self.queue is not None else ""

    @property
    def pollingInterval(self) -> int:
        """Milliseconds between two looks when nothing wakes the processor; see `IMailQueueProcessor`."""
        return int(self.interval * 1000)

    @property
    def concurrency(self) -> int | None:
        """Connections to each relay at most; None: as many as are worth while."""
        return self.relays.connections

    @concurrency.setter
    def concurrency(self, concurrency: int | None) -> None:
        self.relays.connections = concurrency

    @property
    def tally(self) -> Counter[Answer]:
        """Recipients by answer, since the start; a copy."""
        return self._tally.snapshot()

    @property
    def fault(self) -> Reply | None:
        """Why a relay could not be used at the last attempt; None if all could."""
        return next((relay.fault for relay in self.relays if relay.fault is not None), None)

    @property
    def queue_trouble(self) -> str:
        """Why the queue could not be used at the last look; empty if it could."""
        return self._trouble.why if self._trouble is not None else ""

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._signal.stopped

    @property
    def is_ending(self) -> bool:
        """Whether `stop` or `finish` was called."""
        return self._signal.is_ending

    # running

    def start(self) -> None:
        """Begin to drain the queue.  Raises ``GreenThreads`` where eventlet has replaced the threads."""
        refuse_green_threads()
        super().start()

    def run(self, forever: bool = True) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        """Drain the queue until `stop`, or once.  Raises as `start`.

        :raises ValueError: if there is no queue or no mailer
        """
        refuse_green_threads()
        run = self.new_run(forever=forever)
        maillog.started(self.queuePath, str(getattr(self.mailer, "hostname", type(self.mailer).__name__)))
        shutdown.expect(self)
        try:
            if forever:
                run.until_stopped()
            else:
                run.once()
        finally:
            run.end()
            maillog.stopped(self.queuePath)
            if self._signal.finishing:
                self._tell(WAITING - {State.SENDING})  # that mail is in another processor's hands, and leaves now

    def new_run(self, trouble: QueueBackoff | None = None, *, forever: bool = True) -> Run:
        """Return what `run` does, with what is set now.

        :param forever: whether operators are told that the processor goes on when nothing is due
        :raises ValueError: if there is no queue or no mailer
        """
        queue = self.queue
        if queue is None or self.mailer is None:
            raise ValueError("the processor needs a queue and a mailer: call setQueuePath() and setMailer() first")
        self.relays.refuse_detours()
        self._trouble = trouble or QueueBackoff(queue.location, self.clock)
        state_report = StateReport(queue, self.relays, self.relays.routes, self.clock, forever=forever)
        self.relays.call_on_change(state_report.write, state_report.hurry)
        context = Context(
            signal=self._signal,
            clock=self.clock,
            schedule=self.schedule,
            reporter=self._reporter(queue),
            trouble=self._trouble,
            state_report=state_report,
            **({"suppress": RefusedRecipients(queue, self.clock)} if self.suppress_refused else {}),
        )
        return Run(
            context,
            queue,
            self.relays,
            interval=self.interval,
            name=self.name,
            before_rest=self.about_to_rest,
            keep_rejected=self.keep_rejected,
        )

    def about_to_rest(self) -> None:
        """Do nothing: called before the processor waits for something to do, for subclasses."""

    def tell_what_waits(self) -> None:
        """Say in the log how many mails wait in the queue, or are in hand, if any do."""
        self._tell(WAITING)

    def _tell(self, states: Iterable[State]) -> None:
        with contextlib.suppress(OSError):
            counts = self.queue.admin.count() if self.queue is not None else {}
            count = sum(counts.get(state, 0) for state in states)
            if count:
                maillog.mails_left(self.queuePath, count)

    def stop(self) -> None:
        """Stop after the message in hand.  Returns at once; may be called from any thread and from a signal handler."""
        self._signal.stopped = True
        if self.queue is not None:
            self.queue.wake()

    def finish(self) -> None:
        """Send what is due, then stop; what cannot be sent now stays in the queue.  Returns at once, like `stop`."""
        self._signal.finishing = True
        if self.queue is not None:
            self.queue.wake()

    def _reporter(self, queue: IMailQueue) -> Reporter:
        def enqueue(envelope: Envelope, message: bytes) -> None:
            put(queue, [envelope], message)

        return Reporter(
            self._tally,
            self.tell,
            self.clock,
            enqueue=enqueue if self.notify_sender else None,
            queue=queue.location,
        )

    # BBB: names of zope.sendmail 3.5 to 7.3.  None of them is called from within any more.

    @property
    def _stopped(self) -> bool:
        """Whether `stop` was called; programs set it from signal handlers."""
        return self._signal.stopped

    @_stopped.setter
    def _stopped(self, stopped: bool) -> None:
        self._signal.stopped = stopped

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
        """Return the Maildir at `path`, made if there is none."""
        return Maildir(path, create=True)

    def _parseMessage(self, message: bytes) -> tuple[str, tuple[str, ...], bytes]:
        """Sender, recipients and message of a queue file; empty ones if it is none."""
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
