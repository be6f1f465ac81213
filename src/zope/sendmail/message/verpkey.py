"""A signature in a return path: a bounce to it was caused by mail of ours, and is no forgery.

``list+one=example.com@example.org`` becomes ``list+one=example.com=123k7tq2m4xpa@example.org``: the day, modulo 1000,
and 50 bits of an HMAC (RFC 2104) of the path and the day.  Pure.  The idea is that of BATV
(draft-levine-smtp-batv-01).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from zope.sendmail.errors import InvalidAddress, InvalidSettings

#: Octets of the secret at least.
_LEAST = 16

#: Days for which a signature is good: relays try for five, and some that are relayed to try again.
DAYS = 30

_CYCLE = 1000
_TAG = re.compile(r"(?P<day>[0-9]{3})(?P<signature>[a-z2-7]{10})")

#: Octets that the part before the ``@`` may have (RFC 5321, 4.5.3.1.1).
_MAX_LOCAL = 64


class VerpKey:
    """Signs return paths, and says which ones it has signed.

    :param secret: at least 16 random octets, the same wherever mail is sent and bounces are read.
    :raises InvalidSettings: it is shorter.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _LEAST:
            raise InvalidSettings(
                f"the key for return paths has {len(secret)} octets, not {_LEAST}; make one: openssl rand -base64 24"
            )
        self._secret = secret

    def signed(self, return_path: str, day: int) -> str:
        """Return the path with a signature.

        :param day: since the epoch.
        :raises InvalidAddress: it would be too long.
        """
        local, _, domain = return_path.rpartition("@")
        made = f"{local}={day % _CYCLE:03d}{self._signature(return_path, day % _CYCLE)}"
        if len(made.encode()) > _MAX_LOCAL:
            raise InvalidAddress(
                f"the return path {return_path!r} cannot be signed: its local part would be longer than {_MAX_LOCAL}"
            )
        return f"{made}@{domain}"

    def checked(self, return_path: str, day: int) -> str:
        """Return the path that was signed, without its signature.

        :param day: today, since the epoch.
        :raises InvalidAddress: there is no signature, it is forged, or older than `DAYS`.
        """
        local, _, domain = return_path.rpartition("@")
        made, _, tag = local.rpartition("=")
        match = _TAG.fullmatch(tag.lower())
        path = f"{made}@{domain}"
        if not made or match is None:
            raise InvalidAddress(f"{return_path!r} has no signature")
        then = int(match["day"])
        if not hmac.compare_digest(self._signature(path, then), match["signature"]):
            raise InvalidAddress(f"the signature of {return_path!r} is not ours")
        if (day - then) % _CYCLE > DAYS:
            raise InvalidAddress(f"the signature of {return_path!r} is older than {DAYS} days")
        return path

    def _signature(self, path: str, day: int) -> str:
        # Relays change the case of a domain, and some that of a local part.
        digest = hmac.digest(
            self._secret, f"verp {day:03d} {path.lower()}".encode("utf-8", "surrogatepass"), hashlib.sha256
        )
        return base64.b32encode(digest)[:10].decode("ascii").lower()

    def __repr__(self) -> str:
        return "VerpKey(...)"
