"""SMTP AUTH with a name and a password in any script (smtplib's own knows ASCII only).

RFC 4954 (AUTH); RFC 4616 (PLAIN); RFC 2195 (CRAM-MD5); LOGIN is draft-murchison-sasl-login.
"""

from __future__ import annotations

import base64
import hmac
import smtplib
from collections.abc import Callable
from smtplib import SMTP

_Answer = Callable[[bytes, bytes, bytes], bytes]


def _cram_md5(username: bytes, password: bytes, challenge: bytes) -> bytes:
    return username + b" " + hmac.new(password, base64.b64decode(challenge), "md5").hexdigest().encode()


#: What is answered to the relay's challenges, one after the other.  In order of preference: the connection is
#: encrypted, and CRAM-MD5, that protects where it is not, fails wherever the relay keeps passwords as hashes.
MECHANISMS: dict[str, tuple[_Answer, ...]] = {
    "PLAIN": (lambda username, password, _: b"\0" + username + b"\0" + password,),
    "LOGIN": (lambda username, _, __: username, lambda _, password, __: password),
    "CRAM-MD5": (_cram_md5,),
}

#: The relay does not mean what it offered, or wants another mechanism; none of them is about the password.
_TRY_ANOTHER = frozenset({500, 501, 502, 504, 534, 538})


def login(connection: SMTP, username: str, password: str) -> None:
    """Log in.  Raises `smtplib.SMTPAuthenticationError` and `smtplib.SMTPNotSupportedError`."""
    offered = connection.esmtp_features.get("auth", "").upper().split()
    possible = [mechanism for mechanism in MECHANISMS if mechanism in offered]
    if not possible:
        what = f"offers AUTH with {' '.join(offered)} only" if offered else "does not offer AUTH"
        raise smtplib.SMTPNotSupportedError(f"the relay {what}, but a username is set")
    # surrogateescape: a password that was given as bytes goes out as these bytes
    names = username.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    for mechanism in possible:
        code, text = _converse(connection, mechanism, *names)
        if code == 235:
            return
        if code not in _TRY_ANOTHER:
            break
    raise smtplib.SMTPAuthenticationError(code, text)


def _converse(connection: SMTP, mechanism: str, username: bytes, password: bytes) -> tuple[int, bytes]:
    answers = list(MECHANISMS[mechanism])
    command = mechanism
    if mechanism == "PLAIN":  # with an initial response: one round trip, and some relays know no other form
        command += " " + _encoded(answers.pop(0)(username, password, b""))
    code, text = connection.docmd("AUTH", command)
    for answer in answers:
        if code != 334:
            break
        code, text = connection.docmd(_encoded(answer(username, password, text)))
    return code, text


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode("ascii")
