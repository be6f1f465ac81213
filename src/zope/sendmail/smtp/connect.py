"""From a hostname to a connection on which MAIL can be said: greeted, encrypted, logged in.

With ``smtplib.LMTP`` the hostname may be the path of a Unix socket; smtplib says LHLO then (RFC 2033, 4.1).

Fails with what smtplib and ssl raise, and leaves no socket open then.  RFC 5321, 4.1.1.1 (EHLO); RFC 3207
(STARTTLS); RFC 7435 (opportunistic security); RFC 8314 (implicit TLS).
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - the first name that is resolved imports it; a fork then has its lock for ever
import smtplib
import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime
from smtplib import LMTP, SMTP  # by name: a test that patches ``smtplib.SMTP`` must not blind us
from typing import Any, TypeGuard

from zope.sendmail.config.settings import RelaySettings, Timeouts, Tls
from zope.sendmail.smtp.auth.login import login, redacted, token_of
from zope.sendmail.smtp.dialing import Dialer, Factory, dialer_for, introduce, leave_address, makes_tls
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.smtp.replylines import has_unread, read_by_lines, set_timeout, telling_alerts
from zope.sendmail.smtp.tls import cure_for_alert, cure_for_time, is_about_time, tls_context

__all__ = [
    "EncryptionFailed",
    "Factory",
    "connect",
    "drop",
    "hang_up",
    "has_unread",
    "leave",
    "leave_address",
    "makes_tls",
    "set_timeout",
]


class EncryptionFailed(Exception):
    """STARTTLS was offered and did not work; `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def connect(settings: RelaySettings, factory: Factory) -> Any:
    """Return a connection, ready for MAIL.  It is an ``smtplib.SMTP`` unless the factory makes something else.

    If TLS is only a matter of opportunity and fails, a second connection without it is made: encryption that
    does not work must not be worse than none offered (RFC 7435, 3).

    :raises OSError: the relay cannot be used; smtplib's and ssl's errors are kin.  Where TLS is the reason, a note of
        the error says what to do.
    """
    try:
        return _opened(settings, factory)
    except OSError as error:
        if isinstance(error, ssl.SSLCertVerificationError) and is_about_time(error):
            error.add_note(cure_for_time(error, _certificate(settings, factory), datetime.now(UTC)))
        raise


def _opened(settings: RelaySettings, factory: Factory) -> Any:
    try:
        return _open(settings, factory)
    except EncryptionFailed as failure:
        if settings.must_encrypt or settings.must_verify or settings.logs_in:
            raise failure.error from None
    return _open(replace(settings, tls=Tls.NEVER), factory)


def _certificate(settings: RelaySettings, factory: Factory) -> bytes:
    """Return the relay's certificate, which was not good, from a connection that tells the relay nothing."""
    if settings.ssl_context is not None:
        return b""
    asking = replace(
        settings, verify=False, username=None, password=None, token=None, auth=(), cafile=None, timeouts=_ASKING
    )
    try:
        connection = _reached(asking, dialer_for(asking, factory))
        shown: bytes | None = connection.sock.getpeercert(binary_form=True)
    except Exception:  # noqa: BLE001 - it would only be one more detail
        return b""
    hang_up(connection, _ASKING.quit)
    return shown or b""


#: The times for a connection that is made only to look at a certificate.
_ASKING = Timeouts(connect=5.0, greeting=5.0, command=5.0, quit=1.0)


def hang_up(connection: Any, seconds: float) -> None:
    """Say QUIT, wait that long for the answer, and close.  Never raises: what was accepted stays so."""
    set_timeout(connection, seconds)
    with contextlib.suppress(Exception):
        connection.quit()
    drop(connection)


def leave(connection: Any, seconds: float) -> None:
    """Say QUIT and close, without the answer, which costs a round trip and tells nothing.  Never raises.

    A class with a way of its own to say QUIT is left to that.

    :param seconds: for which it may take
    """
    if not isinstance(connection, SMTP) or type(connection).quit is not SMTP.quit or "quit" in vars(connection):
        hang_up(connection, seconds)
        return
    set_timeout(connection, seconds)
    with contextlib.suppress(Exception):
        connection.putcmd("QUIT")
    drop(connection)


def drop(connection: Any) -> None:
    """Close without a word.  Never raises."""
    with contextlib.suppress(Exception):
        connection.close()


def _open(settings: RelaySettings, factory: Factory) -> Any:
    dialer = dialer_for(settings, factory)
    while True:
        connection = _reached(settings, dialer)
        try:
            _log_in(connection, settings)
        except BaseException as error:
            drop(connection)
            if not _may_do_elsewhere(error) or not dialer.may_go_on(error):
                raise
        else:
            return connection


def _may_do_elsewhere(error: BaseException) -> TypeGuard[Exception]:
    """Return whether a login failed because of the server that was asked; a refusal would only be counted twice."""
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code in {421, 454}
    return isinstance(error, smtplib.SMTPServerDisconnected)


def _reached(settings: RelaySettings, dialer: Dialer) -> Any:
    """Return a connection that was greeted and encrypted, to whichever address of the relay serves."""
    while True:
        connection: Any = None
        try:
            connection = dialer.dial()
            set_timeout(connection, settings.timeouts.command)
            introduce(connection, settings)
            _greet(connection, settings)
            _encrypt(connection, settings)
        except BaseException as error:
            if connection is not None:
                drop(connection)
            _note_alert(error, settings)
            if not isinstance(error, (OSError, EncryptionFailed)) or _is_left_to_clear(error, settings):
                raise
            if not dialer.may_go_on(error):
                raise dialer.first_error or error from None
        else:
            dialer.succeeded()
            return connection


def _note_alert(error: BaseException, settings: RelaySettings) -> None:
    """Note on an error what to do if the relay has ended TLS because of our certificate."""
    reason = error.error if isinstance(error, EncryptionFailed) else error
    if words := cure_for_alert(reason, shows_certificate=settings.certfile is not None):
        reason.add_note(words)


def _is_left_to_clear(error: Exception, settings: RelaySettings) -> bool:
    """Return whether this address is to be asked without TLS, which does not work with it."""
    return isinstance(error, EncryptionFailed) and not (settings.must_encrypt or settings.must_verify)


def _greet(connection: Any, settings: RelaySettings) -> None:
    read_by_lines(connection)
    begin = time.monotonic()
    with telling_alerts(connection):
        code, text = connection.ehlo()
    DISTANCES.note(str(settings), time.monotonic() - begin)
    if not 200 <= code < 300 and code != 421 and not isinstance(connection, LMTP):
        code, text = connection.helo()
    if not 200 <= code < 300:
        raise smtplib.SMTPHeloError(code, text)
    if isinstance(connection, SMTP):
        for name in settings.discard_extensions:
            connection.esmtp_features.pop(name.lower(), None)


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
    """Return what is no smtplib connection has no socket to look at, and is trusted to be what was ordered."""
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
    try:
        _greet(connection, settings)
    except smtplib.SMTPServerDisconnected as error:  # with TLS 1.3 a relay can refuse the handshake only now
        raise EncryptionFailed(error) from error


def _check_verified(connection: Any, settings: RelaySettings) -> None:
    """Check a connection whose class, in the place of smtplib's, may have made its own TLS context."""
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
