"""Answers to the relay's challenges in one login, in each mechanism but SCRAM.  Pure.

RFC 4616 (PLAIN); LOGIN is draft-murchison-sasl-login; RFC 2195 (CRAM-MD5); RFC 4422, appendix A (EXTERNAL); RFC 7628
(OAUTHBEARER); XOAUTH2 is Google's and Microsoft's older form of that.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field

from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import printable


class MechanismUnusable(RelayError):
    """This mechanism cannot be used here and now; another one may, without danger."""


class RelayNotProven(RelayError):
    """The relay may not be the one that was meant: it must not be told anything more."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The login for the relay at `hostname` and `port`.

    Name and password are kept as they were given; `encoded` makes octets of them.
    """

    username: str
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    hostname: str = ""
    port: int = 25


def encoded(text: str) -> bytes:
    """Return `text` in UTF-8; a password that was given as bytes goes out as these bytes."""
    return text.encode("utf-8", "surrogateescape")


class SaslExchange:
    """The client's side of one mechanism."""

    #: What the relay said about its refusal besides the reply, for people.
    complaint = ""

    #: Whether there is nothing to be said but the first response, whatever the relay asks.
    says_all_at_first = False

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    def first(self) -> bytes | None:
        """Return what is said before any challenge; None: the relay speaks first."""
        return None

    def answer(self, challenge: bytes) -> bytes:
        """Return the answer to a challenge.

        :raises RelayError: the challenge makes no sense; the exchange has to be cancelled then.
        """
        raise MechanismUnusable("the relay asked for more than the login has to say")

    def check_success(self) -> None:
        """Raise `RelayError` if the relay has not shown that it may be believed."""


class Plain(SaslExchange):
    """The password, in one go."""

    says_all_at_first = True

    def first(self) -> bytes:
        """See `SaslExchange`."""
        return b"\0" + encoded(self.credentials.username) + b"\0" + encoded(self.credentials.password)


class Login(SaslExchange):
    """Name and password, one after the other, whatever the relay calls them."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._answers = [encoded(credentials.password), encoded(credentials.username)]

    def answer(self, challenge: bytes) -> bytes:
        """See `SaslExchange`."""
        return self._answers.pop() if self._answers else super().answer(challenge)


class CramMd5(SaslExchange):
    """A hash of the password and the challenge."""

    _answered = False

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._hash(b"")  # now, before anything is said

    def answer(self, challenge: bytes) -> bytes:
        """See `SaslExchange`."""
        if self._answered:
            return super().answer(challenge)
        self._answered = True
        return encoded(self.credentials.username) + b" " + self._hash(challenge)

    def _hash(self, challenge: bytes) -> bytes:
        try:
            return hmac.new(encoded(self.credentials.password), challenge, "md5").hexdigest().encode()
        except ValueError as error:
            raise MechanismUnusable(
                f"CRAM-MD5 needs MD5, which this system forbids ({error}); choose another mechanism with auth"
            ) from None


class External(SaslExchange):
    """Our certificate, which TLS has shown; the name, if there is one, says under which name we act."""

    def first(self) -> bytes:
        """See `SaslExchange`."""
        return encoded(self.credentials.username)


class XOAuth2(SaslExchange):
    """A token.  A challenge is the relay's complaint, and its reply comes after an empty answer."""

    _acknowledgement = b""

    def first(self) -> bytes:
        """See `SaslExchange`."""
        return encoded(f"user={self.credentials.username}\x01auth=Bearer {self.credentials.token}\x01\x01")

    def answer(self, challenge: bytes) -> bytes:
        """See `SaslExchange`."""
        if self.complaint:
            return super().answer(challenge)
        self.complaint = _complaint(challenge) or "no reason given"
        return self._acknowledgement

    def check_success(self) -> None:
        """See `SaslExchange`."""
        if self.complaint:
            raise RelayError(f"the relay refused the token ({self.complaint}) and then took it")


class OAuthBearer(XOAuth2):
    """A token, in the form of the RFC."""

    _acknowledgement = b"\x01"  # RFC 7628, 3.2.3

    def first(self) -> bytes:
        """See `SaslExchange`."""
        mine = self.credentials
        name = mine.username.replace("=", "=3D").replace(",", "=2C")
        return encoded(f"n,a={name},\x01host={mine.hostname}\x01port={mine.port}\x01auth=Bearer {mine.token}\x01\x01")


def _complaint(challenge: bytes) -> str:
    """Return ``status`` and ``scope`` of the relay's JSON (RFC 7628, 3.2.2), or what it sent instead, uncut."""
    try:
        told = json.loads(challenge)
    except (ValueError, RecursionError):
        return printable(challenge, len(challenge))
    if not isinstance(told, dict):
        return printable(challenge, len(challenge))
    said = {name: str(told[name]) for name in ("status", "scope") if told.get(name)}
    return ", ".join(f"{name} {printable(text, len(text))}" for name, text in said.items())
