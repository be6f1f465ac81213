"""What a mailer that speaks SMTP is told, and the `RelaySettings` that its attributes make at the moment.

The attributes may be changed at any time.  Fails with `InvalidSettings` if they contradict each other.
"""

from __future__ import annotations

import copy
import operator
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from smtplib import SMTPException
from typing import Any, Self, Unpack

from zope.sendmail.config.settings import INTERACTIVE, Keep, Mechanism, Notify, RelaySettings, Timeouts, Tls, TlsVersion
from zope.sendmail.errors import InvalidSettings, RelayError
from zope.sendmail.mailer.maileroptions import (
    MAILER_OPTIONS,
    KeywordOptions,
    as_text,
    checked_options,
    checked_port,
    discarded_extensions,
    login_mechanisms,
    usual_timeouts,
)
from zope.sendmail.system.clock import Clock


def wanted_tls(mailer: MailerAttributes) -> Tls:
    """Return what the mailer's attributes say about TLS.  Raises `InvalidSettings` if they contradict each other."""
    if mailer.tls is not None:
        return Tls(mailer.tls)
    if mailer.implicit_tls:
        return Tls.IMPLICIT
    if mailer.force_tls and mailer.no_tls:
        raise InvalidSettings(f"relay {mailer.hostname}: force_tls and no_tls contradict each other; choose one")
    if mailer.force_tls:
        return Tls.REQUIRED
    return Tls.NEVER if mailer.no_tls else Tls.OPPORTUNISTIC


class ConfiguredOptions(KeywordOptions, total=False):
    """The arguments of `MailerAttributes`."""

    hostname: str
    port: int
    username: str | bytes | None
    password: str | bytes | None
    no_tls: bool
    force_tls: bool
    implicit_tls: bool
    timeout: float | None


class MailerAttributes:
    """What a mailer that speaks SMTP is told: its relay, the login there, and `KeywordOptions`.

    Everything has a default in the class, for classes and patches that replace ``__init__``.
    """

    hostname: str = "localhost"
    port: int = 25
    username: str | bytes | None = None
    password: str | bytes | None = None
    no_tls: bool = False
    force_tls: bool = False
    implicit_tls: bool = False
    #: Seconds to wait for a connection and a greeting; None: what ``socket.setdefaulttimeout`` says, or five minutes.
    timeout: float | None = 10
    #: Instead of the three flags above; None: as they say.
    tls: Tls | str | None = None
    #: Whether the relay has to prove who it is; None: wherever credentials go or TLS is required.
    verify: bool | None = None
    #: File of CA certificates (PEM) instead of the system's.
    cafile: str | None = None
    #: Whether credentials may go over a connection without TLS.
    allow_clear_password: bool = False
    #: All times to wait; None: the usual ones, with `timeout`.
    timeouts: Timeouts | None = None
    #: How long a connection is kept.
    keep: Keep = Keep()
    clock: Clock = Clock()
    #: What the relay is asked to report to the sender.
    notify: Notify = Notify()
    #: Mails per second at most, over all connections of a processor; None: as fast as it goes.
    rate: float | None = None
    #: Mails per second at most, of all processors together that share the queue, on any machine.
    shared_rate: float | None = None
    #: Connections that a processor may have open at most; None: as many as it may have anyway.
    connections: int | None = None
    #: The name in EHLO; None: this host's name, asked for once in a process.
    local_hostname: str | None = None
    #: Seconds to wait for the greeting, for the reply to each command, and for each piece of the message to go; None:
    #: as RFC 5321, 4.5.3.2 has it in a queue, 30 seconds for a caller that waits.
    greeting_timeout: float | None = None
    command_timeout: float | None = None
    data_timeout: float | None = None
    #: Recipients of one transaction at most; None: as many as the relay takes.
    recipient_limit: int | None = None
    #: Extensions that are not used although the relay offers them, such as ``pipelining``.
    discard_extensions: str | Iterable[str] = ()
    #: Instead of a password; see `ITokenProvider`.
    token: Callable[[], str] | None = None
    #: Mechanisms for the login, in order; none: those that fit, in the usual order.
    auth: str | Iterable[str] = ()
    #: Files of our certificate and its key (PEM).
    certfile: str | None = None
    keyfile: str | None = None
    tls_minimum: TlsVersion | str = TlsVersion.TLS_1_2
    #: Makes the TLS context for each connection, in place of ``cafile``, ``certfile``, ``keyfile`` and ``tls_minimum``.
    ssl_context: Callable[[], ssl.SSLContext] | None = None

    #: Asked before each mail: attributes by name that count instead of the mailer's own, or `RelaySettings`.  What it
    #: raises is trouble of the relay.
    settings: Callable[[], Mapping[str, Any] | RelaySettings] | None = None

    #: Makes connections from host and port; None: the class that the attributes ask for.
    smtp: Any = None

    #: What the attributes were when they were last looked at, and the settings that this made.
    _made: tuple[object, RelaySettings] | None = None
    #: The same with what `settings` said.
    _said_made: tuple[object, RelaySettings] | None = None

    def __init__(  # noqa: PLR0917 - the order of zope.sendmail 3.5 to 7.3
        self,
        hostname: str = "localhost",
        port: int = 25,
        username: str | bytes | None = None,
        password: str | bytes | None = None,
        no_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        force_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        implicit_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        timeout: float | None = 10,
        **options: Unpack[KeywordOptions],
    ) -> None:
        if options.get("settings") is None:  # else it is not known yet which relay it is
            checked_port(hostname, port)
        self.hostname = hostname
        self.port = port
        self.username = username
        self.password = password
        self.no_tls = no_tls
        self.force_tls = force_tls
        self.implicit_tls = implicit_tls
        self.timeout = timeout
        # What is not given stays as the class has it: a subclass may have methods in these places, and a site may set
        # there what Products.MailHost does not pass on.
        vars(self).update(checked_options(hostname, options))

    @classmethod
    def configured(cls, **options: Unpack[ConfiguredOptions]) -> Self:
        """Return a mailer with these settings, whatever has taken the place of ``__init__``.

        Plone puts the relay of a site's registry in the place of the one that it is given, and fails where there is no
        site: while ZCML is loaded, and in a thread that sends.

        :param options: the arguments of ``__init__``.
        :raises ValueError: as ``__init__``.
        """
        mailer = cls.__new__(cls)
        MailerAttributes.__init__(mailer, **options)
        return mailer

    def relay_settings(self) -> RelaySettings:
        """Return the settings that count now.

        :raises InvalidSettings: they contradict each other, or no relay can have them.
        :raises RelayError: ``settings`` has failed.
        """
        if self.settings is not None:
            return self._said(self._asked())
        try:
            return self._own_settings()
        except InvalidSettings:
            raise
        except (ValueError, TypeError) as error:  # a port that is no number, a word that is no choice
            raise InvalidSettings(f"relay {self.hostname}: {error}") from error

    def _asked(self) -> Mapping[str, Any] | RelaySettings:
        """Return what `settings` says."""
        assert self.settings is not None, "it was asked for"
        try:
            said = self.settings()
        except (OSError, SMTPException):
            raise
        except Exception as error:  # callers of send() do not know what a program may raise here
            raise RelayError(f"the settings of a relay cannot be had: {type(error).__name__}: {error}") from error
        if not isinstance(said, (Mapping, RelaySettings)):
            raise InvalidSettings(f"the settings of a mailer are {said!r}; return a dict of its attributes")
        return said

    def _own_settings(self) -> RelaySettings:
        said = (*_settable(self), socket.getdefaulttimeout())
        made = self._made
        if made is None or made[0] != said or not isinstance(self.auth, (str, tuple)):
            made = said, self._make_settings()
            self.__dict__["_made"] = made  # past Persistent, for which this would be a change
        return made[1]

    def _make_settings(self) -> RelaySettings:
        auth, token = login_mechanisms(self.auth), self._wanted_token()
        without_password = token is not None or Mechanism.EXTERNAL in auth
        # A name with nothing to prove it is no login, as in 7.3.
        username = (as_text(self.username) or None) if without_password or self.password is not None else None
        password = as_text(self.password) if username else None
        if without_password:
            password = password or None  # a form without an entry gives the empty text
        return RelaySettings(
            hostname=self.hostname,
            port=checked_port(self.hostname, self.port),
            username=username,
            password=password,
            tls=Tls.IMPLICIT if self._begins_with_tls() else wanted_tls(self),
            verify=self.verify,
            cafile=self.cafile,
            allow_clear_password=self.allow_clear_password,
            timeouts=self._times(Timeouts()),
            interactive_timeouts=self._times(INTERACTIVE),
            local_hostname=self.local_hostname or None,
            recipient_limit=self.recipient_limit,
            discard_extensions=discarded_extensions(self.discard_extensions),
            keep=self.keep,
            notify=self.notify,
            token=token,
            auth=auth,
            certfile=self.certfile,
            keyfile=self.keyfile,
            tls_minimum=TlsVersion(self.tls_minimum),
            ssl_context=self.ssl_context,
        )

    def _times(self, usual: Timeouts) -> Timeouts:
        """Return the times as the attributes say them; what none of them says is as in `usual`."""
        times = self.timeouts or usual_timeouts(self.timeout, usual)
        said = {
            "greeting": self.greeting_timeout,
            "command": self.command_timeout,
            "data": self.data_timeout,
            "block": self.data_timeout,
        }
        return replace(times, **{name: float(seconds) for name, seconds in said.items() if seconds is not None})

    def _wanted_token(self) -> Callable[[], str] | None:
        """Return the token provider; that of the class is for mailers with a username and without a password."""
        is_own = "token" in vars(self)
        return self.token if is_own or (self.username and not self.password) else None

    def _said(self, said: Mapping[str, Any] | RelaySettings) -> RelaySettings:
        if isinstance(said, RelaySettings):
            return said
        unknown = sorted(set(said) - _SETTABLE)
        if unknown:
            raise InvalidSettings(
                f"the settings of a mailer have {', '.join(unknown)}; known are {', '.join(sorted(_SETTABLE))}"
            )
        made, key = self._said_made, (dict(said), _settable(self), socket.getdefaulttimeout())
        if made is None or made[0] != key or not isinstance(self.auth, (str, tuple)):
            mailer = copy.copy(self)
            vars(mailer).update(said, settings=None)
            made = key, mailer.relay_settings()
            self.__dict__["_said_made"] = made
        return made[1]

    def _begins_with_tls(self) -> bool:
        """Say whether the chosen class of connections does so, whatever the attributes say."""
        return False


#: What `MailerAttributes.settings` may say.
_SETTABLE = {"hostname", "port", "username", "password", *MAILER_OPTIONS} - {
    "settings", "clock", "rate", "shared_rate", "connections",
}  # fmt: skip

# All of them at once, and what else makes the settings: they are looked at a hundred times a second while mail is sent.
_settable = operator.attrgetter(*sorted(_SETTABLE), "smtp")
