"""SMTP AUTH with a password in any script (smtplib's own knows ASCII only), with a token, or with a certificate.

Fails with what smtplib raises and with `RelayError`; neither tells a password or a token, nor a piece of one.  RFC 4954
(AUTH); the mechanisms are in `zope.sendmail.smtp.auth.mechanisms` and ``scram``.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from smtplib import SMTP
from typing import Any

from zope.sendmail.config.settings import Mechanism, RelaySettings
from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.smtp.auth.mechanisms import (
    CramMd5,
    Credentials,
    External,
    Login,
    MechanismUnusable,
    OAuthBearer,
    Plain,
    RelayNotProven,
    SaslExchange,
    XOAuth2,
    encoded,
)
from zope.sendmail.smtp.auth.redaction import Redaction
from zope.sendmail.smtp.auth.scram import Scram, ScramSha1
from zope.sendmail.smtp.recentfailures import RecentFailures

EXCHANGES: dict[Mechanism, Callable[[Credentials], SaslExchange]] = {
    Mechanism.PLAIN: Plain,
    Mechanism.LOGIN: Login,
    Mechanism.SCRAM_SHA_256: lambda credentials: Scram(credentials, _nonce()),
    Mechanism.SCRAM_SHA_1: lambda credentials: ScramSha1(credentials, _nonce()),
    Mechanism.CRAM_MD5: CramMd5,
    Mechanism.XOAUTH2: XOAuth2,
    Mechanism.OAUTHBEARER: OAuthBearer,
    Mechanism.EXTERNAL: External,
}

_SENDING = (Mechanism.PLAIN, Mechanism.LOGIN)
_PROVING = (Mechanism.SCRAM_SHA_256, Mechanism.SCRAM_SHA_1, Mechanism.CRAM_MD5)
#: On an encrypted connection the password is sent: that works everywhere, while the others fail wherever the relay
#: keeps passwords as hashes of another kind.
_ENCRYPTED = (*_SENDING, *_PROVING)
#: In clear, a listener should learn as little as possible.
_IN_CLEAR = (*_PROVING, *_SENDING)
#: Google takes both, Microsoft only the first.
_WITH_TOKEN = (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER)

#: The relay does not mean what it offered, or wants another mechanism; none of them is about the secret.
_TRY_ANOTHER = frozenset({500, 501, 502, 503, 504, 534, 538})

#: Octets of a command line with its CRLF (RFC 5321, 4.5.3.1.4); an initial response must fit in (RFC 4954, 4).
_MAX_COMMAND = 512

#: Characters of a relay's complaint that people get to read.
_MAX_COMPLAINT = 200

_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)

#: Mechanisms that a relay has lately refused where another one did: to ask for them at each connection again would
#: only be counted against us.
FAILURES = RecentFailures(3600.0)


def login(connection: SMTP, settings: RelaySettings) -> None:
    """Log in, with the first mechanism that the relay takes; each is asked for once.

    A token that is refused is replaced by a new one once.  No exchange is left half-done: what cannot be answered is
    cancelled (RFC 4954, 4).

    :raises smtplib.SMTPAuthenticationError: none was taken; this is the first refusal.
    :raises smtplib.SMTPNotSupportedError: the relay offers none that could be used.
    :raises RelayError: the token provider failed, or the relay cannot be trusted or understood.
    """
    LoginAttempt(connection, settings).run()


class LoginAttempt:
    """One login on one connection."""

    def __init__(self, connection: SMTP, settings: RelaySettings) -> None:
        self._connection = connection
        self._settings = settings
        self._is_encrypted = isinstance(connection.sock, ssl.SSLSocket)
        #: What became of each mechanism so far.
        self._refusals: list[smtplib.SMTPException | RelayError] = []
        self._refused: list[Mechanism] = []
        self._redaction = Redaction()
        #: Whether the relay may take what is said next for an answer.
        self._is_out_of_step = False

    def run(self) -> None:
        """Log in; see `login`."""
        settings = self._settings
        mechanisms = self._arranged(_possible(settings, self._connection, encrypted=self._is_encrypted))
        credentials = Credentials(
            settings.username or "", settings.password or "", hostname=settings.hostname, port=settings.port
        )
        if settings.token is not None:
            credentials = replace(credentials, token=token_of(settings))
        self._hide(credentials)
        may_renew = settings.token is not None
        waiting = list(mechanisms)
        while waiting:
            if self._ask(waiting.pop(0), credentials, others=bool(waiting)):
                self._remember()
                return
            if may_renew and _is_about_secret(self._refusals[-1]):
                may_renew = False
                fresh = token_of(settings, refused=credentials.token)
                if fresh != credentials.token:  # another refusal of the same would only count against us
                    credentials = replace(credentials, token=fresh)
                    self._hide(credentials)
                    waiting, self._refusals, self._refused = list(mechanisms), [], []
        raise self._refusals[0]

    def _ask(self, mechanism: Mechanism, credentials: Credentials, *, others: bool) -> bool:
        """Return whether the relay took this one; else the reason is the last of the refusals.

        :param others: whether there is another one to be asked for.
        :raises smtplib.SMTPException: the first refusal, if no other may be asked for now.
        """
        refusal: smtplib.SMTPException | RelayError | None
        try:
            refusal = self._refusal(mechanism, credentials)
            ends = isinstance(refusal, smtplib.SMTPResponseException) and refusal.smtp_code == 421
        except RelayError as error:
            refusal, ends = self._redacted(error), not self._may_go_on(error)
        except smtplib.SMTPServerDisconnected as error:
            refusal, ends = error, True
        if refusal is None:
            return True
        self._refusals.append(refusal)
        self._refused.append(mechanism)
        if ends:
            if others and isinstance(refusal, smtplib.SMTPServerDisconnected):
                self._remember()  # so that the next connection begins with another one
            raise self._refusals[0] from None
        return False

    def _refusal(self, mechanism: Mechanism, credentials: Credentials) -> smtplib.SMTPAuthenticationError | None:
        """Return how the relay refused this one; None: it did not.  Raises `RelayError` if it cannot be used."""
        exchange = EXCHANGES[mechanism](credentials)
        code, text = self._converse(mechanism, exchange)
        if code != 235:
            return smtplib.SMTPAuthenticationError(code, self._told(text, exchange))
        exchange.check_success()
        return None

    def _may_go_on(self, error: RelayError) -> bool:
        """Return whether another mechanism may be asked for after this one could not be used.

        A relay that did not prove itself gets nothing more; one that cannot be understood no password in clear.
        """
        if self._is_out_of_step or isinstance(error, RelayNotProven):
            return False
        return self._is_encrypted or isinstance(error, MechanismUnusable)

    def _converse(self, mechanism: Mechanism, exchange: SaslExchange) -> tuple[int, bytes]:
        """Return the code and the text at the end.  Raises `RelayError`, with the exchange cancelled."""
        first = exchange.first()
        code, text = self._begin(mechanism, first)
        while code == 334:
            challenge = _decoded(text)
            try:
                if first is not None and (not challenge or exchange.says_all_at_first):
                    answer = first  # the relay did not look at what came with the command
                else:
                    answer = exchange.answer(challenge)
            except RelayError:
                self._cancel()
                raise
            first = None
            code, text = self._say(answer)
        return code, text

    def _begin(self, mechanism: Mechanism, first: bytes | None) -> tuple[int, bytes]:
        """Say AUTH with an initial response, if there is one: for PLAIN some relays know no other form.

        One that is too long for a command, as tokens are, follows alone.
        """
        if first is None:
            return self._connection.docmd("AUTH", mechanism)
        command = f"AUTH {mechanism} {_base64(first) or '='}"
        if len(command) + 2 <= _MAX_COMMAND:
            self._redaction.hide(_base64(first).encode(), "login")
            return self._connection.docmd(command)
        code, text = self._connection.docmd("AUTH", mechanism)
        return self._say(first) if code == 334 else (code, text)

    def _say(self, response: bytes) -> tuple[int, bytes]:
        line = _base64(response)
        self._redaction.hide(line.encode(), "login")
        return self._connection.docmd(line)

    def _cancel(self) -> None:
        """Take back an exchange that cannot go on; the relay says 501 then (RFC 4954, 4)."""
        try:
            code, _ = self._connection.docmd("*")
        except OSError:  # smtplib's errors are kin
            code = 0
        self._is_out_of_step = code // 100 not in (4, 5)

    def _arranged(self, mechanisms: Sequence[Mechanism]) -> Sequence[Mechanism]:
        """Return them with those last that were refused lately; in clear, and where `auth` says it, as they are."""
        if self._settings.auth or not self._is_encrypted:
            return mechanisms
        return FAILURES.arranged(self._scope, mechanisms)

    def _remember(self) -> None:
        for mechanism in self._refused:
            FAILURES.note(self._scope, mechanism)

    @property
    def _scope(self) -> tuple[str, int, str | None]:
        return self._settings.hostname, self._settings.port, self._settings.username

    def _hide(self, credentials: Credentials) -> None:
        self._redaction.hide(encoded(credentials.password), "password")
        self._redaction.hide(encoded(credentials.token), "token")

    def _told(self, text: bytes, exchange: SaslExchange) -> bytes:
        """Return the refusal for people."""
        told = self._redaction.redact(text)
        if exchange.complaint:
            complaint = self._redaction.redact(exchange.complaint.encode())
            told += f" ({printable(complaint, _MAX_COMPLAINT)})".encode()
        return told

    def _redacted(self, error: RelayError) -> RelayError:
        words = self._redaction.redact(str(error).encode("utf-8", "backslashreplace"))
        return type(error)(printable(words), error.code)


def redacted(error: smtplib.SMTPResponseException, settings: RelaySettings, secret: str) -> Any:
    """Return the same error without our secret, for a class that logs in by itself."""
    redaction = Redaction()
    redaction.hide(encoded(secret), "password" if settings.token is None else "token")
    said = error.smtp_error
    words = said if isinstance(said, bytes) else str(said).encode("utf-8", "backslashreplace")
    return smtplib.SMTPAuthenticationError(error.smtp_code, redaction.redact(words))


def token_of(settings: RelaySettings, refused: str = "") -> str:
    """Return what the provider gives, for the first time or after `refused` was refused.

    :raises RelayError: it failed, or gave no token.
    """
    assert settings.token is not None
    renew: Callable[[str], str] | None = getattr(settings.token, "renew", None)
    try:
        token: object = renew(refused) if refused and renew is not None else settings.token()
    except RelayError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a provider is made of, it is not the mail's fault
        redaction = Redaction()
        redaction.hide(encoded(refused), "token")
        words = printable(redaction.redact(f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")))
        raise RelayError(f"there is no token: the provider failed with {words}") from None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RelayError("the token provider gave no token, but nothing, or something with blanks or other characters")
    return token


def _possible(settings: RelaySettings, connection: SMTP, *, encrypted: bool) -> list[Mechanism]:
    """Return what can be tried, in this order."""
    offered = connection.esmtp_features.get("auth", "").upper().split()
    wanted = settings.auth or _usual(settings, encrypted=encrypted)
    possible = [mechanism for mechanism in dict.fromkeys(wanted) if mechanism in offered]
    if possible:
        return possible
    what = f"offers AUTH with {' '.join(offered)} only" if offered else "does not offer AUTH"
    why = "a username is set" if settings.username is not None and not settings.auth else "the settings want it"
    raise smtplib.SMTPNotSupportedError(f"the relay {what}, but {why}; what would do: {' '.join(wanted)}")


def _usual(settings: RelaySettings, *, encrypted: bool) -> Sequence[Mechanism]:
    if settings.token is not None:
        return _WITH_TOKEN
    return _ENCRYPTED if encrypted else _IN_CLEAR


def _is_about_secret(refusal: Exception) -> bool:
    """Return whether the relay has refused what we proved, and not this way, or this moment."""
    code = refusal.smtp_code if isinstance(refusal, smtplib.SMTPAuthenticationError) else 0
    return code // 100 == 5 and code not in _TRY_ANOTHER


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text  # some relays ask for name and password in words


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _nonce() -> str:
    return secrets.token_urlsafe(24)
