"""The relay's half of each SASL mechanism, for `zope.sendmail.testing.relay`.

Each takes what a relay knows and one login, and returns who logged in, or None.  RFC 4616, 2195, 5802, 7677, 7628 and
4422.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: What a relay sends before it refuses a token (RFC 7628, 3.2.2).
COMPLAINT = {"status": "401", "schemes": "bearer", "scope": "https://mail.test/"}

#: How many iterations of SCRAM it asks for.
ITERATIONS = 4096


@dataclass(frozen=True)
class ServerLogin:
    """One AUTH: the initial response if there was one, how to ask for more, and what the relay knows."""

    initial: bytes | None
    ask: Callable[[bytes], bytes]
    users: Mapping[str, str]
    tokens: Mapping[str, str]
    #: The name in the client's certificate, or the empty string.
    certificate: str

    def first(self) -> bytes:
        """Return the initial response, or what the client says when it is asked for it."""
        return self.ask(b"") if self.initial is None else self.initial

    def known(self, user: str, password: str) -> str | None:
        """`user` if this is the password."""
        return user if self.users.get(user) == password else None


def plain(attempt: ServerLogin) -> str | None:
    """Name and password in one."""
    _, user, password = _text(attempt.first()).split("\0")
    return attempt.known(user, password)


def login(attempt: ServerLogin) -> str | None:
    """Name and password, one after the other."""
    user = attempt.ask(b"Username:") if attempt.initial is None else attempt.initial
    return attempt.known(_text(user), _text(attempt.ask(b"Password:")))


def cram_md5(attempt: ServerLogin) -> str | None:
    """Return a hash of password and challenge."""
    challenge = f"<{secrets.token_hex(8)}@relay.test>".encode()
    user, _, digest = _text(attempt.ask(challenge)).rpartition(" ")
    expected = hmac.new(attempt.users.get(user, "").encode(), challenge, "md5").hexdigest()
    return user if user in attempt.users and digest == expected else None


def xoauth2(attempt: ServerLogin) -> str | None:
    """Return a token."""
    fields = dict(each.split("=", 1) for each in _text(attempt.first()).split("\x01") if each)
    return _with_token(attempt, fields["user"], fields["auth"])


def oauthbearer(attempt: ServerLogin) -> str | None:
    """Return a token, with a gs2 header before it."""
    header, *fields = _text(attempt.first()).split("\x01")
    user = header.split(",")[1].removeprefix("a=").replace("=2C", ",").replace("=3D", "=")
    return _with_token(attempt, user, dict(each.split("=", 1) for each in fields if each)["auth"])


def external(attempt: ServerLogin) -> str | None:
    """Return the user that the certificate names; another one that is asked for is refused."""
    return attempt.certificate if attempt.certificate and _text(attempt.first()) in {"", attempt.certificate} else None


def scram(hash_name: str) -> Callable[[ServerLogin], str | None]:
    """Return the password is proved on both sides."""

    def scram_with_hash(attempt: ServerLogin) -> str | None:
        _, _, bare = _text(attempt.first()).split(",", 2)
        asked = _attributes(bare)
        user = asked["n"].replace("=2C", ",").replace("=3D", "=")
        salt = secrets.token_bytes(16)
        challenge = f"r={asked['r']}{secrets.token_hex(8)},s={_base64(salt)},i={ITERATIONS}"
        answer = _text(attempt.ask(challenge.encode()))
        without_proof, _, proof = answer.rpartition(",p=")
        message = f"{bare},{challenge},{without_proof}".encode()
        salted = hashlib.pbkdf2_hmac(hash_name, attempt.users.get(user, "").encode(), salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", hash_name)
        signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), message, hash_name)
        shown = bytes(one ^ other for one, other in zip(base64.b64decode(proof), signature, strict=True))
        if user not in attempt.users or shown != client_key:
            return None
        attempt.ask(
            f"v={_base64(hmac.digest(hmac.digest(salted, b'Server Key', hash_name), message, hash_name))}".encode()
        )
        return user

    return scram_with_hash


MECHANISMS: dict[str, Callable[[ServerLogin], str | None]] = {
    "PLAIN": plain,
    "LOGIN": login,
    "CRAM-MD5": cram_md5,
    "SCRAM-SHA-256": scram("sha256"),
    "SCRAM-SHA-1": scram("sha1"),
    "XOAUTH2": xoauth2,
    "OAUTHBEARER": oauthbearer,
    "EXTERNAL": external,
}


def _with_token(attempt: ServerLogin, user: str, credentials: str) -> str | None:
    if user in attempt.tokens and credentials == f"Bearer {attempt.tokens[user]}":
        return user
    attempt.ask(json.dumps(COMPLAINT).encode())
    return None


def _attributes(message: str) -> dict[str, str]:
    return {each[0]: each[2:] for each in message.split(",")}


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
