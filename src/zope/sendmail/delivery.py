"""The deliveries to which applications hand over mail: `IMailDelivery`, queued and direct.

A delivery refuses invalid mail before anything is written, adds a Message-Id, and makes the mail follow the
transaction.  Fails with `InvalidMail` and, if a disk refuses, with `OSError`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from email.utils import formatdate
from typing import Any, Self, Unpack

import transaction
import zope.event
from zope.interface import implementer

from zope.sendmail.config.location import DATABASES, check_location, scheme_of
from zope.sendmail.datamanager import MailDataManager, current_of, joined_mails
from zope.sendmail.directmail import DirectMail, OnRefused
from zope.sendmail.errors import InvalidRelay, InvalidSettings, InvalidTerms, KeyTaken, QueueError, telling_refusals
from zope.sendmail.events import MailHandOverEvent
from zope.sendmail.interfaces import (
    IDirectMailDelivery,
    IMailDelivery,
    IMailQueue,
    IQueuedMailDelivery,
    IStagedMail,
    SendOptions,
    type_of_message,
    type_of_recipients,
    type_of_sender,
)
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.mailer import conversation_of
from zope.sendmail.message.address import parse_sender
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import completed
from zope.sendmail.message.mime import message_pieces
from zope.sendmail.message.pieces import Piece, joined
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import NO_DEFAULTS, PLAIN, Defaults, TermDefaults, TermOptions, Terms
from zope.sendmail.message.verp import one_by_one
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue import absolute, open_queue, put
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.sendtraces import is_traced, sending, traced
from zope.sendmail.submission import QueueSubmission, Reserve, refuse_unknown, tell_if_unattended, telling_conflicts
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.hostname import host_name

_opening = ForkLock()


class AbstractMailDelivery:
    """What both deliveries have in common.

    Mail follows the current transaction of `transaction_manager`; None: that of the thread.  `envelope_sender` replaces
    the sender that callers pass, for a site with one address for bounces.  Raises `InvalidAddress`.
    """

    transaction_manager: Any = None
    envelope_sender: str | None = None
    #: Signs the return paths of mail that is sent with ``verp=True``; None: they stay as they are.
    verp_key: VerpKey | None = None

    def __init__(self, *, transaction_manager: Any = None, envelope_sender: str | None = None) -> None:
        self.transaction_manager = transaction_manager
        if envelope_sender is not None:
            self.envelope_sender = parse_sender(envelope_sender)

    def newMessageId(self) -> str:
        """Return a Message-Id that no other message has (RFC 5322, 3.6.4), without brackets."""
        moment = time.strftime("%Y%m%d%H%M%S")
        return f"{moment}.{os.getpid()}.{random.randrange(2**63)}@{host_name()}"  # noqa: S311 - unique, not secret

    def bind(self, transaction_manager: Any) -> Self:
        """Return this delivery for mail that follows the transactions of another manager.

        :param transaction_manager: such as ``request.tm`` of Pyramid.  An explicit one has to have begun a transaction
            when mail is sent; else it raises `transaction.interfaces.NoTransaction`.
        """
        bound = type(self).__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.transaction_manager = transaction_manager
        return bound

    def send(
        self,
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        **options: Unpack[SendOptions],
    ) -> str:
        """See `IMailDelivery`."""
        with sending(self._destination()) as span:
            envelopes, pieces, message_id = self._checked(fromaddr, toaddrs, message, options)
            envelopes = traced(span, envelopes, pieces, message_id)
            manager = self.transaction_manager or transaction.manager
            if type(self).createDataManager in _OURS:
                mails = joined_mails(self._group(current_of(manager)), manager, self._stage, self._what())
                try:
                    mails.add_all(envelopes, *pieces)
                except KeyTaken as taken:
                    return taken.message_id
            else:  # BBB: a subclass that makes its own data managers
                for each in envelopes:
                    if each.relay is not None:
                        raise InvalidRelay(f"{type(self).__name__} makes its own data managers, which know no relay")
                    if each.terms != PLAIN:
                        raise InvalidTerms(f"{type(self).__name__} makes its own data managers; no {each.terms}")
                    manager.get().join(self.createDataManager(each.sender, list(each.recipients), joined(pieces)))
            return message_id

    def _checked(
        self, fromaddr: object, toaddrs: object, message: object, options: SendOptions
    ) -> tuple[list[Envelope], tuple[Piece, ...], str]:
        """Return what goes out: one envelope, or with ``verp`` one for each recipient; the message; its Message-Id.

        Raises `InvalidMail`.
        """
        refuse_unknown(options)
        relay, verp = options.pop("relay", None), options.pop("verp", False)
        sender = fromaddr if self.envelope_sender is None else self.envelope_sender
        envelope = Envelope.of(sender, toaddrs)
        if relay is not None:
            envelope = replace(envelope, relay=self._named(relay))
        if zope.event.subscribers:
            envelope = self._as_subscribers_want(envelope, message)
        terms = self._terms(envelope, options)
        if terms is not PLAIN:
            envelope = replace(envelope, terms=terms)
        envelopes = list(one_by_one(envelope, self.verp_key, int(time.time() // 86400))) if verp else [envelope]
        mail = completed(message_pieces(message), self.newMessageId(), _date_of_now())
        if not mail.has_from:
            _tell_once_that_from_is_missing(mail.message_id)
        return envelopes, mail.pieces, mail.message_id

    def _as_subscribers_want(self, envelope: Envelope, message: object) -> Envelope:
        """Tell that a mail is handed over; return its envelope, which subscribers may have changed."""
        event = MailHandOverEvent(envelope.sender, envelope.recipients, message, self)
        zope.event.notify(event)
        if event.sender == envelope.sender and event.recipients is envelope.recipients:
            return envelope
        return replace(Envelope.of(event.sender, event.recipients), relay=envelope.relay)

    def _named(self, relay: object) -> RelayName:
        """Return the relay that a mail asks for."""
        raise InvalidRelay(
            f"{type(self).__name__} has one relay; leave relay={relay!r} out, or use a queue with routes"
        )

    def _terms(self, envelope: Envelope, asked: TermOptions) -> Terms:
        """Return what is asked for with a mail.  Raises `InvalidTerms`."""
        if not asked:
            return PLAIN
        NO_DEFAULTS.terms(time.time(), **asked)  # what can never be is told first
        given = [name for name, value in asked.items() if value is not None]
        if given:
            raise InvalidTerms(
                f"{type(self).__name__} sends while the transaction commits; leave {', '.join(given)} out, or use a "
                "queued delivery"
            )
        return PLAIN

    def _group(self, current: Any) -> object:
        """Return what the mails of a transaction are kept together by."""
        return self

    def _stage(self) -> IStagedMail:
        """Return an empty group for the mails of a transaction."""
        raise TypeError(f"{type(self).__name__} does not say where its mail goes")

    def _what(self) -> str:
        """Return what names the delivery in the log."""
        return type(self).__name__

    def _destination(self) -> str:
        """Return what names the delivery in a trace: the location of its queue, empty if it has none."""
        return ""

    def createDataManager(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> Any:
        """BBB: a data manager for one mail."""
        staged = self._stage()
        staged.add(Envelope.of(fromaddr, toaddrs), *message_pieces(message))
        return MailDataManager(_publish, (staged,), vote=_prepare, onAbort=staged.abort)


@implementer(IQueuedMailDelivery)
class QueuedMailDelivery(AbstractMailDelivery):
    """See `IQueuedMailDelivery`.  `routes` says which relays a mail may name; its processor has to have the same.

    `schedule` is that of its processor; a direct delivery with this one behind it goes by it.  `terms` is what the
    delivery asks for where its callers say nothing, see `TermDefaults`.

    With a `connection` (see `zope.sendmail.queue.postgresql.joining`) the mail is written on that, and commits with
    what the application writes there; the queue has to be in the same database.
    """

    _schedule: Schedule | None = None
    _queue: IMailQueue | None = None
    _place = ""
    _connection: Any = None
    routes: Routes = Routes()
    _defaults: Defaults = NO_DEFAULTS

    def __init__(
        self,
        queuePath: str,
        *,
        transaction_manager: Any = None,
        routes: Routes | None = None,
        envelope_sender: str | None = None,
        connection: Any = None,
        schedule: Schedule | None = None,
        **terms: Unpack[TermDefaults],
    ) -> None:
        super().__init__(transaction_manager=transaction_manager, envelope_sender=envelope_sender)
        if terms:
            self._defaults = Defaults.of(**terms)
        self._queuePath = check_location(queuePath)
        if schedule is not None:
            self._schedule = schedule
        self._connection = connection
        if connection is not None:
            _check_connection(connection, queuePath)
        if routes is not None:
            self.routes = routes

    @property
    def queuePath(self) -> str:
        """See `IQueuedMailDelivery`."""
        return self._queuePath

    @property
    def queue(self) -> IMailQueue:
        """The queue at `queuePath`, whatever that is now."""
        path = self._queuePath
        place = absolute(path)
        with _opening:  # else a second thread might put another one in its place, with mail in it
            if self._queue is None or self._place != place:
                options = {} if self._schedule is None else {"schedule": self._schedule}
                self._queue, self._place = open_queue(path, **options), place
            return self._queue

    def use(self, queue: IMailQueue) -> None:
        """Put mail into this open queue, as long as `queuePath` stays what it is."""
        with _opening:
            self._queue, self._place = queue, absolute(self._queuePath)

    def bind(self, transaction_manager: Any) -> Self:
        """Return this delivery, with the same open queue, for mail that follows another manager's transactions."""
        self.queue  # noqa: B018 - opens it, so that both have one
        return super().bind(transaction_manager)

    def send_now(
        self,
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        **options: Unpack[SendOptions],
    ) -> str:
        """See `IQueuedMailDelivery`."""
        message_id = self.put(fromaddr, toaddrs, message, **options)
        self.tell_if_unattended()
        return message_id

    def put(
        self,
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        **options: Unpack[SendOptions],
    ) -> str:
        """Do as `send_now`, for a caller that sees to it that the queue is drained."""
        with sending(self._destination()) as span:
            envelopes, pieces, message_id = self._checked(fromaddr, toaddrs, message, options)
            envelopes = traced(span, envelopes, pieces, message_id)
            try:
                with telling_refusals(self._queuePath), telling_conflicts():
                    if self._connection is None:
                        put(self.queue, envelopes, *pieces)
                    else:
                        self._put_on_connection(envelopes, *pieces)
            except KeyTaken as taken:
                return taken.message_id
            return message_id

    def tell_if_unattended(self) -> None:
        """Log it, once in a process, if no processor drains the queue."""
        tell_if_unattended(self.queue, self._queuePath)

    def _terms(self, envelope: Envelope, asked: TermOptions) -> Terms:
        terms = PLAIN
        if asked or self._defaults is not NO_DEFAULTS:
            terms = self._defaults.terms(time.time(), **asked)
        known = self._queue  # a whole path leads to the same queue as before
        with telling_refusals(self._queuePath):
            queue = known if known is not None and self._queuePath[:1] == "/" else self.queue
            found = queue.suppressions.among(envelope.recipients)
        return replace(terms, suppressed=tuple(found)) if found else terms

    def _put_on_connection(self, envelopes: Iterable[Envelope], *message: Piece) -> None:
        """Let the application's connection have a mail for each envelope: all of them, or none."""
        staged = self._new_group()
        try:
            for envelope in envelopes:
                staged.add(envelope, *message)
        except BaseException:  # the caller may go on and commit
            staged.abort()
            raise

    def status(self, message_id: str) -> MailStatus:
        """See `IQueuedMailDelivery`."""
        return self.queue.status(message_id)

    def __getstate__(self) -> dict[str, Any]:
        """Return what may be pickled: an open queue may not."""
        return {name: value for name, value in self.__dict__.items() if name != "_queue"}

    def _named(self, relay: object) -> RelayName:
        return self.routes.named(relay)

    def _stage(self) -> IStagedMail:
        with telling_refusals(self._queuePath):
            return QueueSubmission(self._new_group(), self.queue, self._queuePath)

    def _new_group(self) -> IStagedMail:
        queue: Any = self.queue
        staged: IStagedMail = queue.stage() if self._connection is None else queue.stage_on(self._connection)
        return staged

    def _what(self) -> str:
        return f"mail for the queue {self._queuePath}"

    def _destination(self) -> str:
        if not is_traced():
            return ""
        with telling_refusals(self._queuePath):
            return self.queue.location


@implementer(IDirectMailDelivery)
class DirectMailDelivery(AbstractMailDelivery):
    """See `IDirectMailDelivery`.

    :param mailer: any `IMailer`.
    :param onRefused: what a refused recipient means for the transaction: ``"tell"`` or ``"abort"``.
    :param queue: a queued delivery, or the name of one, that takes what the relay defers and what could not be sent.
    :raises InvalidSettings: `onRefused` is neither.
    """

    onRefused: OnRefused = OnRefused.TELL
    queue: Any = None

    def __init__(
        self,
        mailer: Any,
        *,
        transaction_manager: Any = None,
        envelope_sender: str | None = None,
        onRefused: OnRefused | str | None = None,
        queue: Any = None,
    ) -> None:
        super().__init__(transaction_manager=transaction_manager, envelope_sender=envelope_sender)
        self.mailer = mailer
        if onRefused is not None:
            self.onRefused = _on_refused(onRefused)
        if queue is not None:
            self.queue = queue

    def _stage(self) -> IStagedMail:
        return DirectMail(self.mailer, OnRefused(self.onRefused), None if self.queue is None else self._reserve)

    def _reserve(self) -> Reserve:
        delivery = queued_delivery(self.queue)
        return Reserve(delivery.queue, delivery.queuePath)

    def _group(self, current: Any) -> object:
        """Return the delivery whose mails these are: the first in the transaction that speaks with the same relay.

        Products.MailHost makes a mailer and a delivery for each mail; so they share a connection.
        """
        conversation = conversation_of(self.mailer)
        if conversation is self.mailer:
            return self
        queue = self.queue if isinstance(self.queue, str) else id(self.queue)
        try:
            known = current.data(_CONVERSATIONS)
        except KeyError:
            known = {}
            current.set_data(_CONVERSATIONS, known)
        return known.setdefault((type(self), conversation, self.onRefused, queue), self)

    def _what(self) -> str:
        return f"mail through {type(self.mailer).__name__}"


#: The Date of this second, which many mails may have, and the second.
_date = (0, "")


def _date_of_now() -> str:
    """Return the time as a Date field has it, by the local clock."""
    global _date
    now = int(time.time())
    second, date = _date
    if second != now:
        date = formatdate(now, localtime=True)
        _date = now, date
    return date


#: Whether it was told that a mail says not whom it is from.
_missing_from_told = threading.Event()


def _tell_once_that_from_is_missing(message_id: str) -> None:
    """Log it for the first such mail of a process: its program makes them all alike."""
    if not _missing_from_told.is_set():
        _missing_from_told.set()
        maillog.from_missing(message_id)


#: Keeps the conversations of a transaction; see `DirectMailDelivery`.
_CONVERSATIONS = object()


def _on_refused(word: str) -> OnRefused:
    try:
        return OnRefused(word)
    except ValueError:
        raise InvalidSettings(f"onRefused: {word!r} is not one of {', '.join(OnRefused)}") from None


def queued_delivery(queue: Any) -> Any:
    """Return a queued delivery, without the security proxy that asks callers for a permission.

    :raises QueueError: there is no delivery of this name, or it is not a queued one.
    """
    delivery = _bare(_found(queue) if isinstance(queue, str) else queue)
    if not isinstance(delivery, QueuedMailDelivery):
        raise QueueError(
            f"the direct delivery leaves what it cannot send to {queue!r}, which is no queued delivery; "
            "define it with mail:queuedDelivery, or name another one"
        )
    return delivery


def _found(name: str) -> Any:
    from zope.component import queryUtility  # programs without components have no deliveries with names

    return queryUtility(IMailDelivery, name)


def _bare(delivery: Any) -> Any:
    """Return the object without a security proxy: a transaction may commit where there is no user."""
    try:
        from zope.security.proxy import removeSecurityProxy
    except ImportError:
        return delivery
    return removeSecurityProxy(delivery)


def _prepare(staged: IStagedMail) -> None:
    staged.prepare()


def _publish(staged: IStagedMail) -> None:
    """Commit mails, also without a vote before, as some callers do it."""
    staged.prepare()
    staged.commit()


_OURS = (AbstractMailDelivery.createDataManager,)


log = maillog.transaction_log  # BBB

# BBB: in zope.sendmail 3.5 to 7.3 these could be imported from here.
_MOVED = {"QueueProcessorThread": "zope.sendmail.processor.thread", "Maildir": "zope.sendmail.maildir"}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        from importlib import import_module

        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _check_connection(connection: Any, place: str) -> None:
    """Refuse what no mail of this queue could be written on, before there is any."""
    if scheme_of(place) not in DATABASES:
        raise ValueError("mail follows the transactions of a connection only into a queue in its database")
    if not (hasattr(connection, "stage") or all(hasattr(connection, name) for name in ("execute", "on_commit"))):
        what = type(connection).__name__
        raise TypeError(
            f"a {what} is not a connection for mail; wrap it in PsycopgConnection, SQLAlchemySession or "
            "DjangoConnection of zope.sendmail.queue.postgresql.joining"
        )
