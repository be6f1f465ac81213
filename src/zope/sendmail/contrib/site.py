"""The mail of one web application: its settings, its sender, and what each request gets of it.

What the integrations with frameworks share; each of them has the framework's own names for the settings.  Fails with
`ValueError` for settings and `InvalidMail` for mail.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from email.message import Message
from enum import StrEnum
from typing import Any, Protocol, Unpack

from zope.sendmail.config.options import (
    QUEUE,
    RELAY,
    SENDING,
    Parser,
    mailer_keywords,
    merge,
    one_of,
    processor_keywords,
    read_settings,
    term_defaults,
)
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.errors import InvalidAddress
from zope.sendmail.interfaces import SendOptions, type_of_message, type_of_recipients, type_of_sender
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.address import parse_sender
from zope.sendmail.sender import BoundSender, MailSender, MailWriter
from zope.sendmail.startup import switched_off


class ThreadStart(StrEnum):
    """What starts the thread that sends."""

    #: The first request, and each mail.
    REQUEST = "request"
    #: Nothing: another process sends, such as ``zope-sendmail --daemon``.
    NEVER = "never"


#: What can be set: all about a relay and a queue, and what a web application says besides.
SETTINGS: Mapping[str, Parser] = {
    **RELAY,
    **QUEUE,
    **SENDING,
    "default_sender": parse_sender,
    "start": one_of(ThreadStart),
}

_AS_IT_IS: Mapping[str, str] = {}


class BuiltMessage(Protocol):
    """A message that knows its envelope, such as ``pyramid_mailer.message.Message``."""

    sender: str | None

    @property
    def send_to(self) -> Any:
        """All recipients."""

    def to_message(self) -> Message:
        """Return what is sent."""


class RequestMailer:
    """What sends the mail of one request.

    :param setting: what the framework calls the setting with the default sender.
    """

    def __init__(
        self,
        sender: MailSender | BoundSender | MailWriter,
        default_sender: str | None,
        setting: str = "default_sender",
    ) -> None:
        self._sender = sender
        self._default_sender = default_sender
        self._setting = setting

    def send(
        self,
        fromaddr: type_of_sender | BuiltMessage | None,
        toaddrs: type_of_recipients = (),
        message: type_of_message | None = None,
        hostname: str | None = None,
        port: int | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Hand over one mail, which leaves if the transaction of the request commits.

        :param fromaddr: the envelope sender; None: the setting ``default_sender``; or, alone, a message that knows its
            sender and recipients.
        :returns: the Message-Id without angle brackets.
        :raises InvalidMail: before anything is written.  The other arguments are those of `MailWriter.send`.
        """
        if hasattr(fromaddr, "to_message"):
            built: Any = fromaddr
            fromaddr, toaddrs, message = built.sender, sorted(built.send_to), self._to_message(built)
        if fromaddr is None and self._default_sender is None:
            raise InvalidAddress(f"the mail has no sender; pass one, or set {self._setting}")
        sender: Any = self._default_sender if fromaddr is None else fromaddr
        text: Any = message  # None is refused with all else that is no message
        return self._sender.send(sender, toaddrs, text, hostname, port, **options)

    def _to_message(self, built: Any) -> Message:
        """Return what is sent.  The default is put in as the sender before, as pyramid_mailer does it."""
        if built.sender is None:
            built.sender = self._default_sender
        written: Message = built.to_message()
        return written

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`."""
        return self._sender.queue

    def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        status: MailStatus = self.queue.status(message_id)
        return status


class SiteMailer:
    """The mail of one application: its sender, and what it makes for requests.

    :param spell: returns what the framework calls a setting.
    """

    def __init__(
        self,
        sender: MailSender,
        *,
        default_sender: str | None = None,
        start: ThreadStart = ThreadStart.REQUEST,
        spell: Callable[[str], str] = str,
    ) -> None:
        self.sender = sender
        self._default_sender = default_sender
        self._start = start
        self._spell = spell

    @property
    def starts(self) -> bool:
        """Whether this process sends; ``ZOPE_SENDMAIL_START=never`` in the environment forbids it as well."""
        return self._start is not ThreadStart.NEVER and not switched_off()

    def start(self) -> None:
        """Start the thread that sends, unless it runs or shall not."""
        if self.starts and not self.sender.running():
            self.sender.start()

    def for_transactions(self, transaction_manager: Any) -> RequestMailer:
        """Return a mailer for the transactions of a manager; None: for mail that follows no transaction."""
        sender: MailSender | MailWriter = self.sender if self.starts else self.sender.writer
        bound = sender if transaction_manager is None else sender.bind(transaction_manager)
        return RequestMailer(bound, self._default_sender, self._spell("default_sender"))


def text_of(value: object) -> str:
    """Return a setting that a program has as a value in the form in which a file has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.timedelta):
        return str(value.total_seconds())
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(text_of(each) for each in value)
    return str(value)


def make_site_mailer(
    texts: Mapping[str, str],
    known: Mapping[str, Parser] = SETTINGS,
    renamed: Mapping[str, str] = _AS_IT_IS,
    spell: Callable[[str], str] = str,
    **options: Any,
) -> SiteMailer:
    """Return what settings describe.

    :param texts: the settings by the names in `known`; ``queue_path`` is among them.
    :param renamed: names of a framework -> ours.
    :param spell: returns what the framework calls a setting, for errors.
    :param options: further keywords of `MailSender`.
    :raises ValueError: for a setting that is unknown, missing, or cannot be meant.
    """
    own, path, keywords = site_keywords(texts, known, renamed, spell)
    return SiteMailer(MailSender(path, **keywords, **options), spell=spell, **own)


def site_keywords(
    texts: Mapping[str, str],
    known: Mapping[str, Parser] = SETTINGS,
    renamed: Mapping[str, str] = _AS_IT_IS,
    spell: Callable[[str], str] = str,
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return what `make_site_mailer` makes a mailer of: keywords of `SiteMailer`, the queue, keywords of `MailSender`.

    Makes nothing.  Takes the same arguments, and raises the same.
    """
    said = {renamed.get(name, name): value for name, value in read_settings(texts, known).items()}
    if said.get("implicit_tls"):
        said.pop("tls", None)  # frameworks with two switches take the stronger one
    own: dict[str, Any] = {name: said.pop(name) for name in ("default_sender", "start") if name in said}
    merged = merge((said,))
    if "queue_path" not in merged:
        raise ValueError(f"there is no queue; write {spell('queue_path')} = /var/lib/application/mail")
    mailer = follow_password_file(SMTPMailer.configured(**mailer_keywords(merged)), merged)
    path: str = merged["queue_path"]
    return own, path, {"mailer": mailer, **processor_keywords(merged), **term_defaults(merged)}
