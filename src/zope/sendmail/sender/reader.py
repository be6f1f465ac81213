"""The half of a sender that sends what it finds in a queue."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from zope.sendmail.config.location import MEMORY
from zope.sendmail.errors import InvalidSettings, telling_refusals
from zope.sendmail.events import MailEvent
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import WAITING
from zope.sendmail.mailer import MailerOptions, SMTPMailer
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.shutdown import let_finish_at_exit
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import shared_memory
from zope.sendmail.reporting import notifier
from zope.sendmail.sender.namedrelays import make_routes
from zope.sendmail.sender.samequeue import QueueUse, note_begin, refuse_other_relay
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.greenthreads import refuse_green_threads

#: Seconds at most that the end of sending also waits for subscribers to mail events.
_TELLING = 5.0


class Sending(ABC):
    """What sends between `start` and `stop`, as long as a ``with`` block lasts."""

    @abstractmethod
    def start(self) -> None:
        """Begin to send.  Harmless if it runs."""

    @abstractmethod
    def stop(self, timeout: float | None = 30.0) -> bool:
        """Finish the message in hand, and end; say whether that was done within `timeout` seconds (None: wait)."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class ReaderOptions(TypedDict, total=False):
    """The keywords of a reader's thread; see `QueueProcessorThread`."""

    interval: float
    concurrency: int | None
    schedule: Schedule
    notify_sender: bool
    keep_rejected: float | None
    suppress_refused: bool
    tell: Callable[[Iterable[MailEvent]], None]


class Options(MailerOptions, ReaderOptions, total=False):
    """Further keywords of a reader: for its thread, and for the mailer for mail that names no relay.

    ``clock`` is that of both.
    """


#: What `MailReader` takes, by name.
_KNOWN = (*MailerOptions.__annotations__, *ReaderOptions.__annotations__, "username", "password", "hostname", "port")


class MailReader(Sending):
    """Sends what it finds in the Maildir `directory`, in a thread of its own.

    Mail that names no relay goes to `hostname` and `port`, over verified TLS if there are `username` and `password`,
    with any further keywords of `SMTPMailer` (``tls="implicit"``, ``cafile``, ``rate``, ...); or through `mailer`.
    `mailers` are further mailers by name, each with the password of its relay.  Several readers, also in other
    processes, may share a directory if all have the same relays.  A reader with a different relay refuses to start
    while another one of the same process sends (`InvalidSettings`), but may be asked about the queue.  ``memory:`` and
    `queue` are as for `MailWriter`.

    `start` and `stop` may be called any number of times, in turn.  Concurrency: any thread.

    Guarantee: when `stop`, `finish`, `send_waiting` or a ``with`` block returns, subscribers have received all events,
    unless they took more than five seconds.
    """

    def __init__(
        self,
        directory: str,
        hostname: str = "localhost",
        port: int = 25,
        *,
        username: str | None = None,
        password: str | None = None,
        mailer: Any = None,
        mailers: Mapping[str, Any] | None = None,
        routes: Routes | None = None,
        queue: Any = None,
        **options: Unpack[Options],
    ) -> None:
        self._directory, self._queue = directory, queue or (shared_memory() if directory == MEMORY else None)
        self._mailer = mailer
        login: dict[str, Any] = {
            name: value for name, value in (("username", username), ("password", password)) if value is not None
        }
        self._options, about_mailer = _divided(options)
        if mailer is None:
            self._mailer = SMTPMailer.configured(hostname=hostname, port=port, **login, **about_mailer)
            if "settings" not in about_mailer:  # else they are asked for before each mail
                self._mailer.relay_settings()
        elif wrong := [*login, *(name for name in about_mailer if name != "clock")]:
            raise InvalidSettings(f"{', '.join(wrong)}: this is about hostname and port; give it to the mailer instead")
        self._mailers, self._routes = mailers or {}, routes or make_routes((), mailers)
        self._processor: QueueProcessorThread | None = None
        self._starting = ForkLock()
        #: What it does with the mail of its queue.
        self.use = QueueUse.of(directory, self._queue, self._mailer, self._routes)
        self._make()  # now, so that bad options are told here

    def start(self) -> None:
        """Begin to send.  Harmless if it runs.

        Raises ``GreenThreads`` where eventlet has replaced the threads, and as `refuse_other_relay`.
        """
        refuse_green_threads()
        self.refuse_other_relay()
        with self._starting:
            processor = self._processor
            # One that was told to stop is busy with its last messages.
            if processor is None or processor.is_ending or not processor.is_alive():
                self._processor = processor = self._make()
                processor.start()
                note_begin(processor, self.use)

    def stop(self, timeout: float | None = 30.0) -> bool:
        """Finish the message in hand, and end; say whether that was done within `timeout` seconds (None: wait)."""
        processor = self._processor
        if processor is None:
            return True
        processor.stop()
        processor.join(timeout)
        return _has_ended(processor)

    def finish(self, timeout: float | None = 30.0) -> bool:
        """Send what is due, and end; say whether that was done within `timeout` seconds (None: wait).

        Mail whose relay cannot be used, or which was deferred, waits for the next start.  After the timeout it still
        ends, after the message in hand.
        """
        processor = self._processor
        if processor is None:
            return True
        processor.finish()
        processor.join(timeout)
        if processor.is_alive():
            processor.stop()
        return _has_ended(processor)

    def let_finish_at_exit(self) -> None:
        """Let it also `finish` at the end of the program, for up to five seconds, instead of `stop`."""
        if self._processor is not None:
            let_finish_at_exit(self._processor)

    def refuse_other_relay(self) -> None:
        """Look whether another reader of this process sends from the same queue; nothing, if this one sends.

        :raises InvalidSettings: if its relay or its routes are others
        """
        if not self.running():
            refuse_other_relay(self.use)

    def running(self) -> bool:
        """Return whether it sends."""
        return self._processor is not None and self._processor.is_alive()

    def send_waiting(self) -> None:
        """Send what is due, in the caller's thread, and return.  Raises as `start`."""
        self.refuse_other_relay()
        self._make().run(forever=False)
        notifier.flush(_TELLING)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until nothing is left to be sent, at most `timeout` seconds; say whether that is so."""
        clock = Clock()
        queue = self._make().queue
        assert queue is not None
        deadline = clock.monotonic() + timeout
        while queue.admin.oldest() is not None or not queue.admin.count().keys().isdisjoint(WAITING):
            if clock.monotonic() >= deadline:
                return False
            clock.sleep(0.05)
        return True

    def _make(self) -> QueueProcessorThread:
        processor = QueueProcessorThread(mailers=self._mailers, routes=self._routes, **self._options)
        processor.setMailer(self._mailer)
        if self._queue is None:
            with telling_refusals(self._directory):
                processor.setQueuePath(self._directory)
        else:
            processor.queue, self._queue.schedule = self._queue, processor.schedule
        return processor


def _has_ended(processor: QueueProcessorThread) -> bool:
    """Return whether it has, when subscribers were told of its last mails."""
    ended = not processor.is_alive()
    if ended:
        notifier.flush(_TELLING)
    return ended


def _divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is about the thread, and what is about the mailer."""
    for name in options:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, 1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(_KNOWN))}"
            raise TypeError(f"a sender has no option {name!r}{meant}")
    about_mailer = {name: value for name, value in options.items() if name in MailerOptions.__annotations__}
    about_thread = {name: value for name, value in options.items() if name not in about_mailer or name == "clock"}
    return about_thread, about_mailer
