"""Pyramid: ``config.include("zope.sendmail.contrib.pyramid")`` gives every request a ``request.mailer``.

The settings of the application have the names of pyramid_mailer's, such as ``mail.host``.  Mail follows the transaction
of ``request.tm`` (pyramid_tm, also with an explicit manager); without one it is in the queue when ``send()`` returns.
The first request starts the thread that sends: ``pshell`` and other scripts send nothing that they did not write.

Fails with `pyramid.exceptions.ConfigurationError` where a setting is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationError

from zope.sendmail.config.options import (
    QUEUE,
    RELAY,
    Parser,
    boolean,
    mailer_keywords,
    merge,
    one_of,
    processor_keywords,
    read_settings,
)
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.config.settings import Tls
from zope.sendmail.errors import InvalidAddress
from zope.sendmail.interfaces import type_of_message
from zope.sendmail.lifecycle.status import MailStatus
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.address import parse_sender
from zope.sendmail.sender import BoundSender, MailSender, MailWriter, type_of_relay
from zope.sendmail.startup import switched_off

#: The setting that says how the others begin.
PREFIX = "zope.sendmail.prefix"

_REGISTRY_KEY = "zope.sendmail.contrib.pyramid"


class Start(StrEnum):
    """What starts the thread that sends."""

    #: The first request, and each mail.
    REQUEST = "request"
    #: Nothing: another process sends, such as ``zope-sendmail --daemon``.
    NEVER = "never"


def _tls(text: str) -> Tls | None:
    """Return what pyramid_mailer says by yes and no, and the words of this package."""
    try:
        return Tls.REQUIRED if boolean(text) else None
    except ValueError:
        word: Tls = one_of(Tls)(text)
        return word


#: Names of pyramid_mailer -> ours.
_RENAMED = {"host": "hostname", "ssl": "implicit_tls"}
#: Names of pyramid_mailer that mean nothing here, and what does.
_INSTEAD = {
    "debug": "a FileMailer, see docs/mailers.rst, or queue_path = memory: in tests",
    "debug_include_bcc": "nothing: Bcc is never sent",
    "sendmail_app": "a ProgramMailer, see docs/mailers.rst",
    "sendmail_template": "a ProgramMailer, see docs/mailers.rst",
}
_SETTINGS: dict[str, Parser] = {
    **{name: parse for name, parse in {**RELAY, **QUEUE}.items() if name not in ("hostname", "tls")},
    "host": RELAY["hostname"],
    "ssl": boolean,
    "tls": _tls,
    "default_sender": parse_sender,
    "start": one_of(Start),
}


class RequestMailer:
    """What ``request.mailer`` is."""

    def __init__(self, sender: MailSender | BoundSender | MailWriter, default_sender: str | None) -> None:
        self._sender = sender
        self._default_sender = default_sender

    def send(
        self,
        fromaddr: str | bytes | None,
        toaddrs: str | bytes | Sequence[str | bytes],
        message: type_of_message,
        hostname: str | None = None,
        port: int | None = None,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
    ) -> str:
        """Hand over one mail, which leaves if the transaction of the request commits.

        :param fromaddr: the envelope sender; None: that of the setting ``mail.default_sender``.
        :returns: the Message-Id without angle brackets.
        :raises InvalidMail: before anything is written.  The other arguments are those of `MailWriter.send`.
        """
        if fromaddr is None and self._default_sender is None:
            raise InvalidAddress("the mail has no sender; pass one, or set mail.default_sender")
        sender = self._default_sender if fromaddr is None else fromaddr
        assert sender is not None
        return self._sender.send(sender, toaddrs, message, hostname, port, relay=relay, verp=verp)

    @property
    def queue(self) -> Any:
        """The queue, an `IMailQueue`."""
        return self._sender.queue

    def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        status: MailStatus = self.queue.status(message_id)
        return status


class SiteMailer:
    """The mail of one application: its sender, and what it makes for requests."""

    def __init__(self, sender: MailSender, *, default_sender: str | None = None, start: Start = Start.REQUEST) -> None:
        self.sender = sender
        self._default_sender = default_sender
        self._start = start

    @property
    def starts(self) -> bool:
        """Whether this process sends; ``ZOPE_SENDMAIL_START=never`` in the environment forbids it as well."""
        return self._start is not Start.NEVER and not switched_off()

    def start(self, event: object = None) -> None:
        """Start the thread that sends, unless it runs or shall not."""
        if self.starts and not self.sender.running():
            self.sender.start()

    def for_transactions(self, transaction_manager: Any) -> RequestMailer:
        """Return a mailer for the transactions of a manager; None: for mail that follows no transaction."""
        sender: MailSender | MailWriter = self.sender if self.starts else self.sender.writer
        bound = sender if transaction_manager is None else sender.bind(transaction_manager)
        return RequestMailer(bound, self._default_sender)


def read_site_mailer(settings: Mapping[str, Any], prefix: str = "mail.") -> SiteMailer:
    """Return what the settings of an application describe.

    :param settings: those of Pyramid; names that do not begin with `prefix` are other people's.
    :raises ValueError: for a setting that is unknown, missing, or cannot be meant.
    """
    texts = {
        name.removeprefix(prefix): str(value)
        for name, value in settings.items()
        if name.startswith(prefix) and value is not None
    }
    for name in texts.keys() & _INSTEAD.keys():
        raise ValueError(f"{name} is not known here; instead: {_INSTEAD[name]}")
    said = {_RENAMED.get(name, name): value for name, value in read_settings(texts, _SETTINGS).items()}
    if said.get("implicit_tls"):
        said.pop("tls", None)  # as in pyramid_mailer, ssl is the stronger word
    own = {name: said.pop(name) for name in ("default_sender", "start") if name in said}
    merged = merge((said,))
    if "queue_path" not in merged:
        raise ValueError(f"there is no queue; write {prefix}queue_path = /var/lib/application/mail")
    mailer = follow_password_file(SMTPMailer(**mailer_keywords(merged)), merged)
    return SiteMailer(MailSender(merged["queue_path"], mailer=mailer, **processor_keywords(merged)), **own)


def site_mailer(registry: Any) -> SiteMailer:
    """Return the mail of an application, given its registry: for scripts and threads, which have no request."""
    mailer: SiteMailer = registry[_REGISTRY_KEY]
    return mailer


def request_mailer(request: Any) -> RequestMailer:
    """Return ``request.mailer``."""
    return site_mailer(request.registry).for_transactions(getattr(request, "tm", None))


def includeme(config: Any) -> None:
    """Add ``request.mailer``; called by ``config.include("zope.sendmail.contrib.pyramid")``."""
    settings = config.registry.settings
    prefix = settings.get(PREFIX, "mail.")
    try:
        mailer = read_site_mailer(settings, prefix)
    except ValueError as error:
        raise ConfigurationError(f"the settings {prefix}*: {error}") from error
    config.registry[_REGISTRY_KEY] = mailer
    config.add_request_method(request_mailer, "mailer", reify=True)
    config.add_subscriber(mailer.start, NewRequest)
