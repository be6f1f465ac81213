"""`LMTPMailer`: mail straight into a mail store (Dovecot, Cyrus), which answers for each recipient (RFC 2033).

Everything is as with `zope.sendmail.mailer.SMTPMailer`, which does the work; only the connection is another.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from smtplib import LMTP
from typing import Any

from zope.interface import implementer

from zope.sendmail.interfaces import ILMTPMailer, ISession, type_of_message
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.settings import RelaySettings, Tls


@implementer(ILMTPMailer)
class LMTPMailer:
    """See `ILMTPMailer`.

    `socket`: path of a Unix socket instead of `hostname` and `port`.  Further keywords are those of `SMTPMailer`:
    `username`, `password`, `tls`, `verify`, `cafile`, `allow_clear_password`, `timeout`, `timeouts`, `keep`, `clock`,
    `local_hostname`, `notify`, `rate`, `connections`.  Raises `ValueError` for what cannot be: TLS through a Unix
    socket, or from the first byte.
    """

    def __init__(
        self, hostname: str = "localhost", port: int = 24, *, socket: str | None = None, **options: Any
    ) -> None:
        if socket is not None:
            hostname = _checked_path(socket, hostname)
            options.setdefault("tls", Tls.NEVER)
        self.socket = socket
        self._mailer = SMTPMailer(hostname=hostname, port=port, **options)
        self._mailer.smtp = LMTP
        _check_tls(self._mailer.relay_settings())

    @property
    def hostname(self) -> str:
        """Where mail goes: a name, or the path of the socket."""
        return self._mailer.hostname

    @property
    def port(self) -> int:
        """TCP port; without a meaning if there is a socket."""
        return self._mailer.port

    @property
    def rate(self) -> float | None:
        """Mails per second at most; see `SMTPMailer`."""
        return self._mailer.rate

    @property
    def connections(self) -> int | None:
        """Connections of a processor at most; see `SMTPMailer`."""
        return self._mailer.connections

    def open_session(self) -> ISession:
        """See `ISessionMailer`."""
        return self._mailer.open_session()

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> dict[str, tuple[int, bytes]]:
        """See `IMailer`.  Returns the recipients that were refused, at RCPT or after the message.

        Raises `smtplib.SMTPRecipientsRefused` if nobody is left, and what `SMTPMailer.send` raises.
        """
        return self._mailer.send(fromaddr, toaddrs, message)

    def vote(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> None:
        """See `IMailer`."""
        self._mailer.vote(fromaddr, toaddrs, message)

    def abort(self) -> None:
        """See `IMailer`."""
        self._mailer.abort()


def _checked_path(socket: str, hostname: str) -> str:
    if not os.path.isabs(socket):
        raise ValueError(f"the socket {socket!r} is no absolute path; begin it with /")
    if hostname != "localhost":
        raise ValueError(f"the socket {socket} and the hostname {hostname} are two places; give one of them")
    return socket


def _check_tls(settings: RelaySettings) -> None:
    if settings.tls is Tls.IMPLICIT:
        raise ValueError(f"{settings}: there is no LMTP with TLS from the first byte; tls = required uses STARTTLS")
    if settings.hostname.startswith("/") and settings.tls is not Tls.NEVER:
        raise ValueError(f"{settings}: tls = {settings.tls} makes no sense with a Unix socket; leave it out")
