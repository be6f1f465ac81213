"""Mail with a relay of its own for each message, from any Python program: no ZCML, no Zope, no database.

::

    with MailSender("/var/spool/shop", "mail.example.org", relays=["news.example.org:25"]) as sender:
        sender.send("shop@example.org", ["one@example.org"], message)
        sender.send("news@example.org", readers, letter, hostname="news.example.org")

`MailSender` writes into a Maildir and has a thread that sends what it finds there.  Where one process writes and
another sends, they use its halves: `MailWriter` and `MailReader`.  ``send()`` returns when the mail is on disk; given
a transaction manager, the mail follows its transaction.  In asyncio: ``await asyncio.to_thread(sender.send, ...)``.

A program may end right after its last mail: what is due is still sent, for up to 30 seconds at the end of the ``with``
block, for up to five at the end of a program without one.  What is not sent then waits for the next start.

Fails with `InvalidMail` before anything is written, and with `OSError` if the disk refuses.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from zope.sendmail.config.location import MEMORY
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import InvalidRelay, InvalidSettings, telling_refusals
from zope.sendmail.events import MailEvent
from zope.sendmail.interfaces import type_of_message
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import WAITING
from zope.sendmail.lifecycle.status import MailStatus
from zope.sendmail.mailer import MailerOptions, SMTPMailer
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import TermDefaults, TermOptions
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.processor.shutdown import let_finish_at_exit
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue, shared_memory
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.greenthreads import refuse_green_threads

#: The name of the relay that gets what names none.
DEFAULT = "default"

#: A relay as programs write it: ``"host:port"``, or a pair of both.
type_of_relay = str | tuple[str, int]


def make_routes(
    relays: Iterable[type_of_relay] = (),
    mailers: Mapping[str, Any] | None = None,
    *,
    recipient_routes: Mapping[str, str] | None = None,
    sender_routes: Mapping[str, str] | None = None,
    legacy_passwords: bool = False,
) -> Routes:
    """Return the relays that mail may name: `mailers` by their names and addresses, and the addresses in `relays`.

    A writer and a reader of one directory need the same.  Raises `InvalidRelay`, `ValueError`.
    """
    for name in mailers or {}:
        if RelayName(mailer=name).mailer == DEFAULT:
            raise InvalidRelay(f"no further mailer can be called {DEFAULT!r}: that is the one for mail that names none")
    addresses = set()
    for each in relays:
        relay = RelayName.of(each)
        if not relay.hostname:
            raise InvalidRelay(f"the relay {each!r} has no port; write 'host:port', or a pair of host and port")
        addresses.add((relay.hostname, relay.port))
    return Routes(
        DEFAULT,
        frozenset((DEFAULT, *(mailers or ()))),
        frozenset(addresses.union(_addresses((mailers or {}).values()))),
        recipient_routes or {},
        sender_routes or {},
        legacy_passwords=legacy_passwords,
    )


def _addresses(mailers: Iterable[Any]) -> list[tuple[str, int]]:
    """Return the addresses of those mailers that have one."""
    known = (mailer for mailer in mailers if getattr(mailer, "hostname", None))
    return [(str(mailer.hostname).lower(), int(getattr(mailer, "port", 25))) for mailer in known]


class MailWriter:
    """Writes mail into the Maildir `directory`, which is made if there is none.

    ``memory:`` is the one queue in memory that all writers and readers of this process share, for tests.  `queue` is
    one that is open already, instead of that in the directory.  `routes` are those of `make_routes`; without them
    mail cannot name a relay.  With a `transaction_manager` mail follows its current transaction; without, it is on
    its way when ``send()`` returns.  A `verp_key` signs the return paths of mail that is sent with ``verp=True``, see
    `zope.sendmail.bounces`.  With a `connection` of the application it commits with what is written there, see
    `zope.sendmail.queue.postgresql.joining`.  `terms` is asked for where `send` says nothing, see `TermDefaults`.
    Concurrency: any thread.
    """

    def __init__(
        self,
        directory: str,
        *,
        routes: Routes | None = None,
        envelope_sender: str | None = None,
        transaction_manager: Any = None,
        connection: Any = None,
        queue: Any = None,
        verp_key: VerpKey | None = None,
        **terms: Unpack[TermDefaults],
    ) -> None:
        self._delivery = QueuedMailDelivery(
            directory,
            transaction_manager=transaction_manager,
            routes=routes or make_routes(),
            envelope_sender=envelope_sender,
            connection=connection,
            **terms,
        )
        self._delivery.verp_key = verp_key
        if queue is not None or directory == MEMORY:
            self._delivery.use(queue or shared_memory())

    def bind(self, transaction_manager: Any) -> Self:
        """Return a writer into the same queue whose mail follows the transactions of `transaction_manager`."""
        bound = type(self).__new__(type(self))
        bound._delivery = self._delivery.bind(transaction_manager)
        return bound

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`, for programs that look into it."""
        return self._delivery.queue

    def send(
        self,
        fromaddr: str | bytes,
        toaddrs: str | bytes | Sequence[str | bytes],
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
        **asked: Unpack[TermOptions],
    ) -> str:
        """Hand over one mail; return its Message-Id without angle brackets.

        `hostname` and `port` (25), or `relay` (also the name of a mailer), say which relay shall get it.  The other
        arguments, ``not_before``, ``expires``, ``priority`` and ``key`` among them, are those of `IMailDelivery.send`.
        """
        message_id = self.write(fromaddr, toaddrs, message, hostname, port, relay=relay, verp=verp, **asked)
        if not self._follows:
            self._delivery.tell_if_unattended()
        return message_id

    @property
    def _follows(self) -> bool:
        """Whether mail follows a transaction."""
        return self._delivery.transaction_manager is not None

    def write(
        self,
        fromaddr: str | bytes,
        toaddrs: str | bytes | Sequence[str | bytes],
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
        **asked: Unpack[TermOptions],
    ) -> str:
        """Do as `send`, for a caller that sees to it that the queue is drained."""
        if hostname is not None:
            if relay is not None:
                raise InvalidRelay(f"hostname={hostname!r} and relay={relay!r} say the same thing twice; pass one")
            relay = (hostname, 25 if port is None else port)
        elif port is not None:
            raise InvalidRelay(f"port={port!r} without a hostname says nothing; pass both")
        send = self._delivery.send if self._follows else self._delivery.put
        return send(fromaddr, toaddrs, message, relay=relay, verp=verp, **asked)


class _Sending(ABC):
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
    """What a reader can be told about its thread; see `QueueProcessorThread`."""

    interval: float
    concurrency: int | None
    schedule: Schedule
    notify_sender: bool
    keep_rejected: float | None
    suppress_refused: bool
    tell: Callable[[Iterable[MailEvent]], None]


class Options(MailerOptions, ReaderOptions, total=False):
    """What else a reader can be told: about its thread, and about the mailer for mail that names no relay.

    ``clock`` is that of both.
    """


class SenderOptions(Options, TermDefaults, total=False):
    """What else a sender can be told: as `Options`, and what is asked for where ``send()`` says nothing."""


class MailReader(_Sending):
    """Sends what it finds in the Maildir `directory`, in a thread of its own.

    Mail that names no relay goes to `hostname` and `port`, over verified TLS with a `username` and `password`, and as
    further keywords of `SMTPMailer` say it (``tls="implicit"``, ``cafile``, ``rate``, ...), or through `mailer`;
    `mailers` are further ones by name, each with the password of its relay.  Several readers, also in other processes,
    may share a directory.  ``memory:`` and `queue` are as for `MailWriter`.

    `start` and `stop` may be called any number of times, in turn.  Concurrency: any thread.
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
            self._mailer = SMTPMailer(hostname=hostname, port=port, **login, **about_mailer)
            if "settings" not in about_mailer:  # else they are asked for before each mail
                self._mailer.relay_settings()
        elif wrong := [*login, *(name for name in about_mailer if name != "clock")]:
            raise InvalidSettings(f"{', '.join(wrong)}: this is about hostname and port; give it to the mailer instead")
        self._mailers, self._routes = mailers or {}, routes or make_routes((), mailers)
        self._processor: QueueProcessorThread | None = None
        self._starting = ForkLock()
        self._make()  # now, so that bad options are told here

    def start(self) -> None:
        """Begin to send.  Harmless if it runs.  Raises ``GreenThreads`` where eventlet has replaced the threads."""
        refuse_green_threads()
        with self._starting:
            processor = self._processor
            # One that was told to stop is busy with its last messages.
            if processor is None or processor.is_ending or not processor.is_alive():
                self._processor = processor = self._make()
                processor.start()

    def stop(self, timeout: float | None = 30.0) -> bool:
        """Finish the message in hand, and end; say whether that was done within `timeout` seconds (None: wait)."""
        processor = self._processor
        if processor is None:
            return True
        processor.stop()
        processor.join(timeout)
        return not processor.is_alive()

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
        return not processor.is_alive()

    def let_finish_at_exit(self) -> None:
        """Let it also `finish` at the end of the program, for up to five seconds, instead of `stop`."""
        if self._processor is not None:
            let_finish_at_exit(self._processor)

    def running(self) -> bool:
        """Return whether it sends."""
        return self._processor is not None and self._processor.is_alive()

    def send_waiting(self) -> None:
        """Send what is due, in the caller's thread, and return.  Raises as `start`."""
        self._make().run(forever=False)

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


def _without_terms(options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what a reader is told, and what the writer asks for."""
    names = TermDefaults.__annotations__
    others = {name: value for name, value in options.items() if name not in names}
    return others, {name: value for name, value in options.items() if name in names}


def _divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is about the thread, and what is about the mailer."""
    about_mailer = {name: value for name, value in options.items() if name in MailerOptions.__annotations__}
    about_thread = {name: value for name, value in options.items() if name not in about_mailer or name == "clock"}
    return about_thread, about_mailer


class MailSender(_Sending):
    """A `MailWriter` and a `MailReader` on one directory, or on a queue in memory of its own (``memory:``), for tests.

    `relays` are the addresses that mail may name besides `hostname` and `port`; see `make_routes` for these and the
    routes, `MailReader` for the options.  The reader is started by the first mail, by `start`, and by ``with``.

    At the end of a ``with`` block it has 30 seconds for what is due, at the end of a program five; after Ctrl-C in a
    ``with`` block only the message in hand is finished.  What is left waits for the next start.

    After a fork only the parent sends; a child that sends mail starts a reader of its own.  What is in memory
    stays with the parent, and is lost with the program unless it was sent.
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
        relays: Iterable[type_of_relay] = (),
        recipient_routes: Mapping[str, str] | None = None,
        sender_routes: Mapping[str, str] | None = None,
        legacy_passwords: bool = False,
        envelope_sender: str | None = None,
        transaction_manager: Any = None,
        connection: Any = None,
        verp_key: VerpKey | None = None,
        **options: Unpack[SenderOptions],
    ) -> None:
        about_reader, terms = _without_terms(options)
        routes = make_routes(
            [*relays, *([(hostname, port)] if mailer is None else _addresses([mailer]))],
            mailers,
            recipient_routes=recipient_routes,
            sender_routes=sender_routes,
            legacy_passwords=legacy_passwords,
        )
        self.writer = MailWriter(
            directory,
            routes=routes,
            envelope_sender=envelope_sender,
            transaction_manager=transaction_manager,
            connection=connection,
            queue=MemoryQueue() if directory == MEMORY else None,
            verp_key=verp_key,
            **terms,
        )
        self.reader = MailReader(
            directory,
            hostname,
            port,
            username=username,
            password=password,
            mailer=mailer,
            mailers=mailers,
            routes=routes,
            queue=self.writer.queue if directory == MEMORY else None,
            **about_reader,
        )

    def bind(self, transaction_manager: Any) -> BoundSender:
        """Return a sender of the same mail queue whose mail follows the transactions of `transaction_manager`.

        :param transaction_manager: that of a request, such as ``request.tm`` of Pyramid.
        """
        return BoundSender(self, transaction_manager)

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`, for programs that look into it."""
        return self.writer.queue

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`."""
        status: MailStatus = self.queue.status(message_id)
        return status

    def send(
        self,
        fromaddr: str | bytes,
        toaddrs: str | bytes | Sequence[str | bytes],
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
        **asked: Unpack[TermOptions],
    ) -> str:
        """See `MailWriter.send`."""
        refuse_green_threads()  # before the mail is written
        message_id = self.writer.write(fromaddr, toaddrs, message, hostname, port, relay=relay, verp=verp, **asked)
        self._start_if_possible()
        return message_id

    def _start_if_possible(self) -> None:
        with contextlib.suppress(RuntimeError):  # Python ends, or the system has no more threads; the mail waits
            self.start()

    def start(self) -> None:
        """See `MailReader.start`."""
        self.reader.start()
        self.reader.let_finish_at_exit()

    def stop(self, timeout: float | None = 30.0) -> bool:
        """See `MailReader.stop`."""
        return self.reader.stop(timeout)

    def finish(self, timeout: float | None = 30.0) -> bool:
        """See `MailReader.finish`."""
        return self.reader.finish(timeout)

    def running(self) -> bool:
        """See `MailReader.running`."""
        return self.reader.running()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.stop()
        else:
            self.finish()


class BoundSender:
    """A `MailSender` for one transaction manager; see `MailSender.bind`.  It is made quickly, for each request."""

    def __init__(self, sender: MailSender, transaction_manager: Any) -> None:
        self._sender = sender
        self._writer = sender.writer.bind(transaction_manager)

    def send(
        self,
        fromaddr: str | bytes,
        toaddrs: str | bytes | Sequence[str | bytes],
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
        **asked: Unpack[TermOptions],
    ) -> str:
        """Hand over one mail, which leaves if the transaction commits.  See `MailWriter.send`."""
        refuse_green_threads()
        message_id = self._writer.send(fromaddr, toaddrs, message, hostname, port, relay=relay, verp=verp, **asked)
        self._sender._start_if_possible()
        return message_id

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`."""
        return self._sender.queue

    def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        return self._sender.status(message_id)
