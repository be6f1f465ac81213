"""A second implementation of DKIM's verifier, for tests: it shares nothing with what signs.

RFC 6376, 3 and 6.1; RFC 8463.  Public keys come from a dictionary instead of DNS.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

#: ``selector._domainkey.domain`` -> key.
Keys = Mapping[str, RSAPublicKey | Ed25519PublicKey]


def verified(message: bytes, keys: Keys) -> list[str]:
    """Return the domains and algorithms of the signatures that hold, in order; one that does not hold is left out."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields = re.findall(rb"[^\r\n]+(?:\r\n[ \t][^\r\n]*)*", head)
    found = []
    for field in fields:
        name, _, value = field.partition(b":")
        if name.strip().lower() == b"dkim-signature":
            tags = _tags(value)
            others = [each for each in fields if each is not field]
            if _holds(field, tags, others, body, keys):
                found.append(f"{tags['d']} {tags['a']}")
    return found


def _tags(value: bytes) -> dict[str, str]:
    text = re.sub(rb"\s+", b"", value).decode("ascii")
    return dict(each.split("=", 1) for each in text.split(";") if each)


def _holds(field: bytes, tags: dict[str, str], others: list[bytes], body: bytes, keys: Keys) -> bool:
    header_way, _, body_way = tags.get("c", "simple/simple").partition("/")
    hashed = hashlib.sha256(_body(body, body_way or "simple")).digest()
    if base64.b64encode(hashed).decode() != tags["bh"]:
        return False
    left = list(others)
    data = b""
    for name in tags["h"].split(":"):
        at = max((at for at, each in enumerate(left) if _name(each) == name.lower()), default=None)
        if at is not None:
            data += _field(left.pop(at), header_way) + b"\r\n"
    unsigned = re.sub(rb"([;\s]b\s*=)[^;]*", rb"\1", field, count=1)
    data += _field(unsigned, header_way)
    key = keys[f"{tags['s']}._domainkey.{tags['d']}"]
    signature = base64.b64decode(tags["b"])
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, hashlib.sha256(data).digest())
        else:
            key.verify(signature, data, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _name(field: bytes) -> str:
    return field.partition(b":")[0].strip().lower().decode("ascii")


def _field(field: bytes, way: str) -> bytes:
    if way == "simple":
        return field
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip()


def _body(body: bytes, way: str) -> bytes:
    if way == "relaxed":
        body = b"\r\n".join(re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n"))
    body = re.sub(rb"(?:\r\n)+\Z", b"", body)
    return body + b"\r\n" if body or way == "simple" else b""
