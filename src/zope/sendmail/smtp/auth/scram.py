"""SCRAM: the password is proved, not sent, and the relay proves that it knows it, too.  Pure.

RFC 5802; RFC 7677 (SHA-256).  There is no channel binding, so no mechanism ends in ``-PLUS``, and the relay is told
"n": what may be bound to with TLS 1.3 is ``tls-exporter`` (RFC 9266), and Python's `ssl` does not give it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.smtp.auth.mechanisms import Credentials, MechanismUnusable, RelayNotProven, SaslExchange
from zope.sendmail.smtp.auth.saslprep import saslprep

#: A relay that asks for fewer wants an answer from which the password is easily guessed (RFC 7677, 4), one that asks
#: for more wants to keep us busy: a million take about half a second.
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 1_000_000

_HEADER = "n,,"


class Scram(SaslExchange):
    """One login; `nonce` must be new for each, printable, and without a comma."""

    hash_name = "sha256"

    def __init__(self, credentials: Credentials, nonce: str) -> None:
        super().__init__(credentials)
        name = _prepared(credentials.username, "username").replace("=", "=3D").replace(",", "=2C")
        self._password = _prepared(credentials.password, "password").encode()
        self._nonce = nonce
        self._bare = f"n={name},r={nonce}"
        self._signature = b""
        self._proved = False

    def first(self) -> bytes:
        """See `SaslExchange`."""
        return (_HEADER + self._bare).encode()

    def answer(self, challenge: bytes) -> bytes:
        """See `SaslExchange`."""
        if self._proved or self.complaint:
            return super().answer(challenge)
        if self._signature:
            self._verify(challenge)
            return b""
        return self._prove(challenge)

    def check_success(self) -> None:
        """See `SaslExchange`."""
        if not self._proved:
            raise RelayNotProven(
                "the relay did not prove that it knows the password; it may not be the one that was meant"
            )

    def _prove(self, challenge: bytes) -> bytes:
        nonce, salt, iterations = self._understood(challenge)
        salted = hashlib.pbkdf2_hmac(self.hash_name, self._password, salt, iterations)
        without_proof = f"c={_base64(_HEADER.encode())},r={nonce}"
        # RFC 5802, 3
        message = b",".join((self._bare.encode(), challenge, without_proof.encode()))
        client_key = self._hmac(salted, b"Client Key")
        signature = self._hmac(hashlib.new(self.hash_name, client_key).digest(), message)
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        self._signature = self._hmac(self._hmac(salted, b"Server Key"), message)
        return f"{without_proof},p={_base64(proof)}".encode()

    def _understood(self, challenge: bytes) -> tuple[str, bytes, int]:
        """Return nonce, salt and iterations.  Raises `RelayError`."""
        try:
            attributes = _attributes(challenge)
            nonce, salt = attributes["r"], base64.b64decode(attributes["s"], validate=True)
            iterations = int(attributes["i"])
        except (KeyError, ValueError):
            raise RelayError("the relay's SCRAM challenge cannot be understood") from None
        if "m" in attributes:  # RFC 5802, 5.1: a client that does not know the extension must fail
            raise RelayError("the relay wants an extension of SCRAM that is not known here")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise RelayNotProven(
                "the relay's SCRAM nonce does not belong to this login; another program may be replaying an older one"
            )
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise RelayError(
                f"the relay wants {iterations} SCRAM iterations; between {MIN_ITERATIONS} and {MAX_ITERATIONS} are done"
            )
        return nonce, salt, iterations

    def _verify(self, challenge: bytes) -> None:
        try:
            attributes = _attributes(challenge)
            signature = base64.b64decode(attributes.get("v", ""), validate=True)
        except ValueError:
            attributes, signature = {}, b""
        if "e" in attributes:
            self.complaint = printable(attributes["e"], len(attributes["e"])) or "no reason given"
            return
        self._proved = hmac.compare_digest(signature, self._signature)
        self.check_success()

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self.hash_name)


class ScramSha1(Scram):
    """The older hash."""

    hash_name = "sha1"


def _prepared(text: str, what: str) -> str:
    try:
        return saslprep(text)
    except ValueError as error:
        raise MechanismUnusable(
            f"the {what} cannot be used with SCRAM: {error}; choose another mechanism with auth"
        ) from None


def _attributes(message: bytes) -> dict[str, str]:
    """Return the attributes in ``a=...,b=...``.  Raises `ValueError`."""
    pairs = [each.partition("=") for each in message.decode("utf-8").split(",")]
    if not all(len(name) == 1 and equals for name, equals, _ in pairs):
        raise ValueError("not a list of attributes")
    return {name: value for name, _, value in pairs}


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
