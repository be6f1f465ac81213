"""Mail with a relay of its own for each message, from any Python program: no ZCML, no Zope, no database.

::

    with MailSender("/var/spool/shop", "mail.example.org", relays=["news.example.org:25"]) as sender:
        sender.send("shop@example.org", ["one@example.org"], message)
        sender.send("news@example.org", readers, letter, hostname="news.example.org")

`MailSender` writes mail into a Maildir, from which its thread sends it.  If one process writes and another one sends,
use its halves, `MailWriter` and `MailReader`.  ``send()`` returns when the mail is on disk; with a transaction manager,
the mail follows the transaction.  In asyncio call ``await asyncio.to_thread(sender.send, ...)``.

A program may end right after its last mail.  Due mail is still sent, for up to 30 seconds at the end of the ``with``
block, or for up to five seconds at the end of a program without one.  The rest waits for the next start.

Fails with `InvalidMail` before anything is written, and with `OSError` if the disk refuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Unpack

from zope.sendmail.config.location import MEMORY
from zope.sendmail.interfaces import SendOptions, type_of_message, type_of_recipients, type_of_relay, type_of_sender
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.message.terms import TermDefaults
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.sender.namedrelays import DEFAULT, addresses_of, make_routes
from zope.sendmail.sender.reader import MailReader, Options, ReaderOptions, Sending
from zope.sendmail.sender.writer import MailWriter
from zope.sendmail.system.greenthreads import refuse_green_threads

__all__ = [
    "DEFAULT",
    "BoundSender",
    "MailReader",
    "MailSender",
    "MailWriter",
    "Options",
    "ReaderOptions",
    "SenderOptions",
    "make_routes",
    "type_of_relay",
]


class SenderOptions(Options, TermDefaults, total=False):
    """Further keywords of a sender: those of `Options`, and the defaults of what ``send()`` can ask for."""


def _without_terms(options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what a reader is told, and what the writer asks for."""
    names = TermDefaults.__annotations__
    others = {name: value for name, value in options.items() if name not in names}
    return others, {name: value for name, value in options.items() if name in names}


class MailSender(Sending):
    """A `MailWriter` and a `MailReader` on one directory, or on a queue in memory of its own (``memory:``), for tests.

    All senders of a queue in one process need the same relays.  While one of them sends, another one with a different
    relay refuses to start and to take mail (`InvalidSettings`), but may be asked about the queue.

    `relays` are the addresses that mail may name besides `hostname` and `port`; see `make_routes` for these and for the
    routes, and `MailReader` for the options.  The first mail, `start` or ``with`` starts the reader.

    The reader has 30 seconds to send due mail at the end of a ``with`` block, and five at the end of a program.  After
    Ctrl-C in a ``with`` block it only finishes the message in hand.  The rest waits for the next start.

    After a fork, only the parent sends; a child that sends mail starts its own reader.  A queue in memory stays with
    the parent, and is lost when the program ends.
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
            [*relays, *([(hostname, port)] if mailer is None else addresses_of([mailer]))],
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
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """See `MailWriter.send`."""
        refuse_green_threads()  # before the mail is written
        self.reader.refuse_other_relay()
        message_id = self.writer.write(fromaddr, toaddrs, message, hostname, port, **options)
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
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Hand over one mail, which leaves if the transaction commits.  See `MailWriter.send`."""
        refuse_green_threads()
        self._sender.reader.refuse_other_relay()
        message_id = self._writer.send(fromaddr, toaddrs, message, hostname, port, **options)
        self._sender._start_if_possible()
        return message_id

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`."""
        return self._sender.queue

    def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        return self._sender.status(message_id)
