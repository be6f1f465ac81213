"""The half of a sender that writes mail into a queue."""

from __future__ import annotations

from typing import Any, Self, Unpack

from zope.sendmail.config.location import MEMORY
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import InvalidRelay
from zope.sendmail.interfaces import SendOptions, type_of_message, type_of_recipients, type_of_sender
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import TermDefaults
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue.memory import shared_memory
from zope.sendmail.sender.namedrelays import make_routes


class MailWriter:
    """Writes mail into the Maildir `directory`, which is made if there is none.

    ``memory:`` is a queue in memory that all writers and readers of this process share, for tests.  `queue` is an open
    queue to use instead of the one in the directory.  `routes` come from `make_routes`; without them mail cannot
    name a relay.  With a `transaction_manager`, mail follows its current transaction; without one, mail is committed
    when ``send()`` returns.  A `verp_key` signs the return paths of mail that is sent with ``verp=True``, see
    `zope.sendmail.bounces`.  With a `connection` of the application, mail commits together with its rows, see
    `zope.sendmail.queue.postgresql.joining`.  `terms` are the defaults for `send`, see `TermDefaults`.
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
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Hand over one mail; return its Message-Id without angle brackets.

        `hostname` and `port` (25), or ``relay`` (also the name of a mailer), choose its relay.  The keywords are those
        of `IMailDelivery.send`.
        """
        message_id = self.write(fromaddr, toaddrs, message, hostname, port, **options)
        if not self._follows:
            self._delivery.tell_if_unattended()
        return message_id

    @property
    def _follows(self) -> bool:
        """Whether mail follows a transaction."""
        return self._delivery.transaction_manager is not None

    def write(
        self,
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Do as `send`, for a caller that makes sure that the queue is drained."""
        if hostname is not None:
            if (relay := options.get("relay")) is not None:
                raise InvalidRelay(f"hostname={hostname!r} and relay={relay!r} say the same thing twice; pass one")
            options["relay"] = (hostname, 25 if port is None else port)
        elif port is not None:
            raise InvalidRelay(f"port={port!r} without a hostname says nothing; pass both")
        send = self._delivery.send if self._follows else self._delivery.put
        return send(fromaddr, toaddrs, message, **options)
