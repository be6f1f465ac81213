"""SMTP AUTH with a password in any script (smtplib's own knows ASCII only), with a token, or with a certificate.

Fails with what smtplib raises and with `RelayError`; neither tells a password or a token.  RFC 4954 (AUTH); the
mechanisms are in `exchange` and `scram`.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import smtplib
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from smtplib import SMTP

from zope.sendmail.config.settings import Mechanism, RelaySettings
from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.smtp.auth.mechanisms import (
    CramMd5,
    Credentials,
    Exchange,
    External,
    Login,
    OAuthBearer,
    Plain,
    XOAuth2,
    encoded,
)
from zope.sendmail.smtp.auth.scram import Scram, ScramSha1

EXCHANGES: dict[Mechanism, Callable[[Credentials], Exchange]] = {
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
#: In clear, who listens should learn as little as possible.
_IN_CLEAR = (*_PROVING, *_SENDING)
#: Google takes both, Microsoft only the first.
_WITH_TOKEN = (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER)

#: The relay does not mean what it offered, or wants another mechanism; none of them is about the password.
_TRY_ANOTHER = frozenset({500, 501, 502, 504, 534, 538})

#: Octets of a command line with its CRLF (RFC 5321, 4.5.3.1.4); an initial response must fit in (RFC 4954, 4).
_MAX_COMMAND = 512

#: A shorter password is no secret, and taking it out of a relay's words would only show where it stood.
_LEAST_SECRET = 8

_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


def login(connection: SMTP, settings: RelaySettings) -> None:
    """Log in.  Raises `smtplib.SMTPAuthenticationError`, `smtplib.SMTPNotSupportedError` and `RelayError`.

    A token that is refused is replaced by a new one once.
    """
    mechanisms = _possible(connection, settings)
    credentials = Credentials(
        settings.username or "", settings.password or "", hostname=settings.hostname, port=settings.port
    )
    if settings.token is None:
        _log_in(connection, mechanisms, credentials)
        return
    token = token_of(settings)
    try:
        _log_in(connection, mechanisms, replace(credentials, token=token))
    except smtplib.SMTPAuthenticationError as refusal:
        if refusal.smtp_code // 100 != 5:
            raise  # the relay's trouble, not the token's
        fresh = token_of(settings, refused=token)
        if fresh == token:
            raise  # another refusal of the same would only count against us
        _log_in(connection, mechanisms, replace(credentials, token=fresh))


def token_of(settings: RelaySettings, refused: str = "") -> str:
    """What the provider gives, for the first time or after `refused` was refused.  Raises `RelayError`."""
    assert settings.token is not None
    renew: Callable[[str], str] | None = getattr(settings.token, "renew", None)
    try:
        token: object = renew(refused) if refused and renew is not None else settings.token()
    except RelayError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a provider is made of, it is not the mail's fault
        words = printable(f"{type(error).__name__}: {error}")
        if refused:
            words = words.replace(refused, "[token]")
        raise RelayError(f"there is no token: the provider failed with {words}") from None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RelayError("the token provider gave no token, but nothing, or something with blanks or other characters")
    return token


def _possible(connection: SMTP, settings: RelaySettings) -> list[Mechanism]:
    """What can be tried, in this order."""
    offered = connection.esmtp_features.get("auth", "").upper().split()
    wanted = settings.auth or _usual(settings, encrypted=isinstance(connection.sock, ssl.SSLSocket))
    possible = [mechanism for mechanism in wanted if mechanism in offered]
    if possible:
        return possible
    what = f"offers AUTH with {' '.join(offered)} only" if offered else "does not offer AUTH"
    why = "a username is set" if settings.username is not None and not settings.auth else "the settings want it"
    raise smtplib.SMTPNotSupportedError(f"the relay {what}, but {why}; what would do: {' '.join(wanted)}")


def _usual(settings: RelaySettings, *, encrypted: bool) -> Sequence[Mechanism]:
    if settings.token is not None:
        return _WITH_TOKEN
    return _ENCRYPTED if encrypted else _IN_CLEAR


def _log_in(connection: SMTP, mechanisms: Sequence[Mechanism], credentials: Credentials) -> None:
    for mechanism in mechanisms:
        exchange = EXCHANGES[mechanism](credentials)
        code, text = _converse(connection, mechanism, exchange)
        if code == 235:
            exchange.check_success()
            return
        if code not in _TRY_ANOTHER:
            break
    raise smtplib.SMTPAuthenticationError(code, _told(text, exchange))


def _converse(connection: SMTP, mechanism: Mechanism, exchange: Exchange) -> tuple[int, bytes]:
    """The code and the text at the end, without what we have said: some relays repeat a command they refuse."""
    first = exchange.first()
    said = [] if first is None else [_base64(first)]
    code, text = _begin(connection, mechanism, first)
    while code == 334:
        said.append(_base64(exchange.answer(_decoded(text))))
        code, text = connection.docmd(said[-1])
    return code, _without_secrets(text, said, exchange.credentials)


def _begin(connection: SMTP, mechanism: Mechanism, first: bytes | None) -> tuple[int, bytes]:
    """AUTH with an initial response, if there is one: a round trip less, and for PLAIN some relays know no other form.

    One that is too long for a command, as tokens are, follows alone.
    """
    if first is None:
        return connection.docmd("AUTH", mechanism)
    command = f"AUTH {mechanism} {_base64(first) or '='}"
    if len(command) + 2 <= _MAX_COMMAND:
        return connection.docmd(command)
    code, text = connection.docmd("AUTH", mechanism)
    return connection.docmd(_base64(first)) if code == 334 else (code, text)


def _told(text: bytes, exchange: Exchange) -> bytes:
    """The refusal for people."""
    if not exchange.complaint:
        return text
    return _without_secrets(text + f" ({exchange.complaint})".encode(), [], exchange.credentials)


def _without_secrets(text: bytes, said: Iterable[str], credentials: Credentials) -> bytes:
    """`text` for a log.  What is too short to be told from an ordinary word stays."""
    secrets_in = {**dict.fromkeys(said, "[login]"), credentials.password: "[password]", credentials.token: "[token]"}
    for secret, instead in sorted(secrets_in.items(), key=lambda pair: -len(pair[0])):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(encoded(secret), instead.encode())
    return text


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text  # some relays ask for name and password in words


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _nonce() -> str:
    return secrets.token_urlsafe(24)
