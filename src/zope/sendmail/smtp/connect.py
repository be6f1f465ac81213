"""From a hostname to a connection on which MAIL can be said: greeted, encrypted, logged in.

With ``smtplib.LMTP`` the hostname may be the path of a Unix socket; smtplib says LHLO then (RFC 2033, 4.1).

Fails with what smtplib and ssl raise, and leaves no socket open then.  RFC 5321, 4.1.1.1 (EHLO); RFC 3207
(STARTTLS); RFC 7435 (opportunistic security); RFC 8314 (implicit TLS).
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - the first name that is resolved imports it; who forks then has its lock for ever
import functools
import inspect
import math
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from smtplib import LMTP, SMTP, SMTP_SSL  # by name: a test that patches ``smtplib.SMTP`` must not blind us
from typing import Any

from zope.sendmail.config.settings import RelaySettings, Tls, TlsVersion
from zope.sendmail.smtp.auth.login import login, redacted, token_of
from zope.sendmail.smtp.tls import show_certificate, verifying_context

#: What makes connections: ``smtplib.SMTP``, ``smtplib.SMTP_SSL``, or what somebody put in their place.
Factory = Callable[..., Any]

#: A reply that is longer is an attack or a bug; real ones have a few hundred bytes, an EHLO list perhaps
#: 2000.
MAX_REPLY = 64 * 1024

#: A relay there waits for our TLS, and says nothing (RFC 8314, 7.3).
_IMPLICIT_TLS = 465

_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}


class EncryptionFailed(Exception):
    """STARTTLS was offered and did not work; `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Replies:
    """The relay's half of a connection as smtplib reads it, by lines; replies without end are cut off.

    The socket's timeout is for a whole reply: a byte now and then does not keep us for ever.
    """

    def __init__(self, connection: SMTP, stream: Any) -> None:
        self._connection = connection
        self._stream = stream
        self._size = 0
        self._until = math.inf

    def readline(self, limit: int) -> bytes:
        sock = self._connection.sock
        seconds = None if sock is None else sock.gettimeout()
        if not self._size:
            self._until = math.inf if seconds is None else time.monotonic() + seconds
        try:
            line = self._read_line(limit)
        finally:
            if sock is not None:
                sock.settimeout(seconds)
        self._size = self._size + len(line) if line[3:4] == b"-" else 0
        if self._size > MAX_REPLY:
            raise OSError(f"a reply has more than {MAX_REPLY} octets")
        return line

    def _read_line(self, limit: int) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < limit:
            left = self._until - time.monotonic()
            if left <= 0.0:
                raise TimeoutError("timed out")
            set_timeout(self._connection, left if left < math.inf else None)
            there = self._stream.peek(1)[: limit - len(line)]  # receives at most once, and only if nothing is there
            if not there:
                break
            line += self._stream.read(there.find(b"\n") + 1 or len(there))
        return line

    def has_unread(self) -> bool:
        return bool(self._stream.peek(1))

    def close(self) -> None:
        self._stream.close()


class _Careful:
    """smtplib's class reads the greeting as soon as it is made; here, too, by `_Replies`, and keeps it."""

    greeting = b""

    def connect(self: Any, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        """Connect as smtplib does."""
        code, self.greeting = super().connect(*arguments, **options)  # type: ignore[misc]  # smtplib's class is behind
        return code, self.greeting

    @property
    def file(self) -> _Replies | None:
        return vars(self).get("file")

    @file.setter
    def file(self: Any, stream: Any) -> None:
        vars(self)["file"] = stream if stream is None or isinstance(stream, _Replies) else _Replies(self, stream)


class _CarefulSMTP(_Careful, SMTP):
    """See `_Careful`."""


class _CarefulSMTPSSL(_Careful, SMTP_SSL):
    """See `_Careful`."""


class _CarefulLMTP(_Careful, LMTP):
    """See `_Careful`."""


_CAREFUL: dict[Factory, Factory] = {SMTP: _CarefulSMTP, SMTP_SSL: _CarefulSMTPSSL, LMTP: _CarefulLMTP}


def connect(settings: RelaySettings, factory: Factory) -> Any:
    """A connection, ready for MAIL.  It is an ``smtplib.SMTP`` unless the factory makes something else.

    If TLS is only a matter of opportunity and fails, a second connection without it is made: encryption that
    does not work must not be worse than none offered (RFC 7435, 3).
    """
    try:
        return _open(settings, factory)
    except EncryptionFailed as failure:
        if settings.must_encrypt or settings.must_verify or settings.logs_in:
            raise failure.error from None
    return _open(replace(settings, tls=Tls.NEVER), factory)


def makes_tls(factory: object) -> bool:
    """Whether its connections speak TLS from the first byte."""
    return isinstance(factory, type) and issubclass(factory, SMTP_SSL)


def hang_up(connection: Any, seconds: float) -> None:
    """Say QUIT, wait that long for the answer, and close.  Never raises: what was accepted stays so."""
    set_timeout(connection, seconds)
    with contextlib.suppress(Exception):
        connection.quit()
    drop(connection)


def drop(connection: Any) -> None:
    """Close without a word.  Never raises."""
    with contextlib.suppress(Exception):
        connection.close()


def set_timeout(connection: Any, seconds: float | None) -> None:
    """How long each read or write may take from now on; None: for ever."""
    sock = getattr(connection, "sock", None)
    if isinstance(sock, socket.socket):
        sock.settimeout(seconds)


def has_unread(connection: SMTP) -> bool:
    """Whether the relay sent something that smtplib has not read: who goes on without it takes it for an answer."""
    if not isinstance(connection.file, _Replies):
        return False
    set_timeout(connection, 0.0)
    try:
        return connection.file.has_unread()
    except (BlockingIOError, ssl.SSLWantReadError):
        return False


def tls_context(settings: RelaySettings) -> ssl.SSLContext:
    """Verifies the relay's certificate and name if the settings ask for it; TLS 1.2 is the least.

    Raises `RelayError` if the authorities' certificates, or our own, cannot be used.
    """
    if settings.ssl_context is not None:
        return settings.ssl_context()
    if settings.must_verify:
        context = verifying_context(settings.cafile)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without loading authorities that nobody asks
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = _VERSIONS[settings.tls_minimum]
    if settings.certfile is not None:
        show_certificate(context, settings.certfile, settings.keyfile)
    return context


def _open(settings: RelaySettings, factory: Factory) -> Any:
    arguments = _arguments(settings, factory)
    connection = _reached(settings, factory, arguments)
    try:
        if isinstance(connection, SMTP) and connection.sock is not None and connection.sock.family != socket.AF_UNIX:
            # Each command waits for its reply; Nagle's algorithm would only delay the end of a message.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_timeout(connection, settings.timeouts.command)
        _greet(connection, settings)
        _encrypt(connection, settings)
        _log_in(connection, settings)
    except BaseException:
        drop(connection)
        raise
    return connection


def _reached(settings: RelaySettings, factory: Factory, arguments: dict[str, Any]) -> Any:
    make = _CAREFUL.get(factory, factory) if isinstance(factory, type) else factory
    try:
        return make(settings.hostname, str(settings.port), **arguments)
    except smtplib.SMTPServerDisconnected as error:
        if settings.port != _IMPLICIT_TLS or settings.tls is Tls.IMPLICIT:
            raise
        cure = f"at port {_IMPLICIT_TLS} TLS is from the first byte: say tls=implicit"
        raise smtplib.SMTPServerDisconnected(f"{error}; {cure}") from error


def _arguments(settings: RelaySettings, factory: Factory) -> dict[str, Any]:
    """What the factory is given besides host and port: no more than it takes.  Fakes often take nothing."""
    arguments: dict[str, Any] = {"timeout": settings.timeouts.connect}
    if isinstance(factory, type) and issubclass(factory, SMTP):
        arguments["local_hostname"] = settings.local_hostname or _own_name()
        if makes_tls(factory):
            arguments["context"] = tls_context(settings)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some built-in callables have no signature
        return arguments
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}


@functools.cache
def _own_name() -> str:
    """The name for EHLO.  Asked for once in a process: a resolver that hangs must not delay everything."""
    return SMTP().local_hostname


def _greet(connection: Any, settings: RelaySettings) -> None:
    if isinstance(connection, SMTP) and connection.sock is not None and not isinstance(connection.file, _Replies):
        connection.file = _Replies(connection, connection.file or connection.sock.makefile("rb"))
    code, text = connection.ehlo()
    if not 200 <= code < 300 and code != 421 and not isinstance(connection, LMTP):
        code, text = connection.helo()
    if not 200 <= code < 300:
        raise smtplib.SMTPHeloError(code, text)
    if isinstance(connection, SMTP):
        for name in settings.discard_extensions:
            connection.esmtp_features.pop(name, None)


def _encrypt(connection: Any, settings: RelaySettings) -> None:
    if settings.tls is Tls.NEVER:
        return
    if not _is_encrypted(connection, settings):
        if settings.tls is not Tls.IMPLICIT and connection.has_extn("starttls"):
            _start_tls(connection, settings)
        elif settings.must_encrypt:
            wanted = "TLS from the first byte" if settings.tls is Tls.IMPLICIT else "STARTTLS"
            cure = "; for its login to go in clear, allow_clear_password has to say so" if settings.username else ""
            raise smtplib.SMTPNotSupportedError(
                f"relay {settings} does not offer {wanted}, which its settings require; nothing was sent{cure}"
            )
        else:
            return
    _check_verified(connection, settings)


def _is_encrypted(connection: Any, settings: RelaySettings) -> bool:
    """What is no smtplib connection has no socket to look at, and is trusted to be what was ordered."""
    if isinstance(connection, SMTP):
        return isinstance(connection.sock, ssl.SSLSocket)
    return settings.tls is Tls.IMPLICIT


def _start_tls(connection: Any, settings: RelaySettings) -> None:
    arguments = {"context": tls_context(settings)} if isinstance(connection, SMTP) else {}
    try:
        connection.starttls(**arguments)
    except OSError as error:  # smtplib's and ssl's errors are kin
        raise EncryptionFailed(error) from error
    # smtplib has thrown away what came before TLS, also what was smuggled in behind the reply (RFC 3207, 6),
    # and forgotten what EHLO said (RFC 3207, 4.2).
    _greet(connection, settings)


def _check_verified(connection: Any, settings: RelaySettings) -> None:
    """A class in the place of smtplib's may have made its own TLS context."""
    sock = getattr(connection, "sock", None)
    if not settings.must_verify or not isinstance(sock, ssl.SSLSocket):
        return
    if sock.context.verify_mode is not ssl.CERT_REQUIRED or not sock.context.check_hostname:
        what = "name in the certificate" if sock.context.verify_mode is ssl.CERT_REQUIRED else "certificate"
        raise smtplib.SMTPNotSupportedError(
            f"relay {settings}: {type(connection).__name__} verified no {what}; verify=False allows that"
        )


def _log_in(connection: Any, settings: RelaySettings) -> None:
    if not settings.logs_in:
        return
    if isinstance(connection, SMTP) and type(connection).login is SMTP.login:
        login(connection, settings)
        return
    secret = settings.password if settings.token is None else token_of(settings)
    if secret is None:
        raise smtplib.SMTPNotSupportedError(
            f"relay {settings}: {type(connection).__name__} logs in by itself, and knows passwords and tokens only"
        )
    try:
        connection.login(settings.username, secret)  # its own way to log in, e.g. XOAUTH2
    except smtplib.SMTPAuthenticationError as error:
        raise redacted(error, settings, secret) from None
