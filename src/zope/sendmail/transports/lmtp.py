"""`LMTPMailer`: mail straight into a mail store (Dovecot, Cyrus), which answers for each recipient (RFC 2033).

Everything is as with `zope.sendmail.mailer.SMTPMailer`; only the connection is another.
"""

from __future__ import annotations

import os.path
from dataclasses import replace
from smtplib import LMTP
from typing import Any

from zope.interface import implementer_only

from zope.sendmail.config.settings import RelaySettings, Tls
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.interfaces import ILMTPMailer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.mailer.attributes import MailerAttributes


@implementer_only(ILMTPMailer)
class LMTPMailer(SMTPMailer):
    """See `ILMTPMailer`.

    `socket`: path of a Unix socket instead of `hostname` and `port`; it takes the place of `hostname`.  Further
    keywords are those of `SMTPMailer`.  As there, attributes may be changed at any time and count for the next
    connection, and `settings` is asked before each mail.  Raises `InvalidSettings` for what cannot be: TLS through a
    Unix socket, or from the first byte.
    """

    port: int = 24
    smtp: Any = LMTP

    def __init__(
        self, hostname: str = "localhost", port: int = 24, *, socket: str | None = None, **options: Any
    ) -> None:
        hostname = hostname if socket is None else _checked_path(socket, hostname)
        # Not super(): what Plone has put there knows a relay that speaks SMTP.
        MailerAttributes.__init__(self, hostname=hostname, port=port, **options)
        if self.settings is None:  # else it is not known yet whom they depend on
            self.relay_settings()

    @property
    def socket(self) -> str | None:
        """Path of the Unix socket, or None."""
        return self.hostname if self.hostname.startswith("/") else None

    def relay_settings(self) -> RelaySettings:
        """See `SMTPMailer`."""
        settings = super().relay_settings()
        _check_tls(settings)
        return settings

    def _make_settings(self) -> RelaySettings:
        settings = super()._make_settings()
        is_usual = self.tls is None and settings.tls is Tls.OPPORTUNISTIC
        return replace(settings, tls=Tls.NEVER) if is_usual and self.socket else settings


def _checked_path(socket: str, hostname: str) -> str:
    if not os.path.isabs(socket):
        raise InvalidSettings(f"the socket {socket!r} is no absolute path; begin it with /")
    if hostname != "localhost":
        raise InvalidSettings(f"the socket {socket} and the hostname {hostname} are two places; give one of them")
    return socket


def _check_tls(settings: RelaySettings) -> None:
    if settings.tls is Tls.IMPLICIT:
        raise InvalidSettings(
            f"{settings}: there is no LMTP with TLS from the first byte; tls = required uses STARTTLS"
        )
    if settings.hostname.startswith("/") and settings.tls is not Tls.NEVER:
        raise InvalidSettings(f"{settings}: tls = {settings.tls} makes no sense with a Unix socket; leave it out")
