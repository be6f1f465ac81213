"""A message for a relay that takes ASCII only: what is not is written in quoted-printable or base64, part by part.

What is ASCII stays as it is, octet for octet.  Works on lines that end with CRLF.  Pure.  Fails with `CannotConvert`
where the message would mean something else, or a signature would break.  RFC 6152, 3; RFC 2045, 6; RFC 2047; RFC 2231.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from email import policy
from email.errors import MessageError
from email.headerregistry import AddressHeader
from email.message import Message
from email.parser import BytesHeaderParser

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_POLICY = policy.SMTP.clone(max_line_length=76)
_ASCII_ONLY = re.compile(rb"[\x80-\xff]")
#: Of a text, base64 is shorter than quoted-printable from this part of octets beyond ASCII on.
_SIXTH = 6


#: What the email package raises for a header field that it cannot read, such as ``From: Jürgen <``.
_UNREADABLE = (MessageError, ValueError, LookupError, TypeError, AttributeError)


class CannotConvert(Exception):
    """The message cannot be written in ASCII; says why, as the end of a sentence."""


def in_seven_bit(message: bytes) -> bytes:
    """Return the message in ASCII."""
    head, body = _split(message)
    if b"dkim-signature:" in head.lower():
        raise CannotConvert("writing it in ASCII would break its DKIM signature; sign it in ASCII")
    fields = _parsed(head)
    if not body.isascii() and fields["MIME-Version"] is None:
        head = _put(head, b"MIME-Version", b"1.0")
        if fields["Content-Type"] is None:
            head = _put(head, b"Content-Type", b"text/plain; charset=" + _charset(body))
    return _part(head, body)


def _part(head: bytes, body: bytes) -> bytes:
    """Return a message, or a part of one, in ASCII; `head` ends with the line end of its last field."""
    fields = _parsed(head)
    if not head.isascii():
        head = b"".join(_field(match) for match in _fields(head))
    if not body.isascii():
        head, body = _encoded(head, body, fields)
    return head + b"\r\n" + body


def _encoded(head: bytes, body: bytes, fields: Message) -> tuple[bytes, bytes]:
    kind = fields.get_content_maintype()
    if kind == "multipart":
        return _seven_bit(head), _multipart(body, fields)
    if kind == "message":
        if fields.get_content_subtype() != "rfc822":
            raise CannotConvert(f"it has a part of type {fields.get_content_type()}, which cannot be encoded")
        return _seven_bit(head), _part(*_split(body))
    encoding = (fields["Content-Transfer-Encoding"] or "").strip().lower()
    if encoding in {"base64", "uuencode", "x-uuencode"}:
        raise CannotConvert(f"it has a part that says it is {encoding}, and is not")
    if encoding == "quoted-printable":  # but for some octets: these only
        return head, _ASCII_ONLY.sub(lambda match: b"=%02X" % match[0][0], body)
    beyond = len(_ASCII_ONLY.findall(body))
    if kind == "text" and beyond * _SIXTH <= len(body):
        return _put(head, b"Content-Transfer-Encoding", b"quoted-printable"), _quoted(body)
    return _put(head, b"Content-Transfer-Encoding", b"base64"), _base64(body)


def _multipart(body: bytes, fields: Message) -> bytes:
    """Convert each part by itself; delimiters, preamble and epilogue stay."""
    if fields.get_content_subtype() == "signed":
        raise CannotConvert(
            "writing it in ASCII would break its signature (multipart/signed); sign what is ASCII already"
        )
    boundary = fields.get_boundary()
    if not boundary:
        raise CannotConvert("it has a multipart without a boundary")
    delimiter = re.compile(rb"(?:\A|(?<=\r\n))--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    marks = list(delimiter.finditer(body))
    if not marks:
        raise CannotConvert(f"it has a multipart in which the boundary {boundary!r} does not occur")
    pieces = [_replaced(body[: marks[0].start()])]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        pieces.append(mark[0])
        if mark[1]:
            pieces.append(_replaced(body[mark.end() :]))
            break
        text = body[mark.end() : following.start() if following else len(body)]
        pieces.append(_delimited(text, is_last=following is None))
    return b"".join(pieces)


def _delimited(text: bytes, *, is_last: bool) -> bytes:
    """Convert a part; the line end before a delimiter belongs to that (RFC 2046, 5.1.1)."""
    if text.isascii():
        return text
    end = b"\r\n" if text.endswith(b"\r\n") and not is_last else b""
    head, body = _split(text[: len(text) - len(end)])
    return _part(head, body) + end


def _split(message: bytes) -> tuple[bytes, bytes]:
    """Return header block and body, without the empty line between them."""
    end = 0
    for match in _fields(message):
        end = match.end()
    rest = message[end:]
    return message[:end], rest[2:] if rest.startswith(b"\r\n") else rest


def _fields(head: bytes) -> Iterator[re.Match[bytes]]:
    position = 0
    while match := _FIELD.match(head, position):
        yield match
        position = match.end()


def _parsed(head: bytes) -> Message:
    return BytesHeaderParser().parsebytes(head)


def _field(match: re.Match[bytes]) -> bytes:
    """Return a header field in ASCII: encoded words, or parameters as RFC 2231 has them."""
    if match[0].isascii():
        return match[0]
    name, _, value = match[0].partition(b":")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise CannotConvert(f"its header field {name.decode()} is written in an unknown charset") from None
    unfolded = re.sub(r"\r\n(?=[ \t])", "", text).strip()
    header, folded = _folded(name.decode(), unfolded)
    if isinstance(header, AddressHeader):
        foreign = [each.addr_spec for each in header.addresses if not each.addr_spec.isascii()]
        if foreign:
            raise CannotConvert(f"its header field {name.decode()} has the address {foreign[0]}, which is not ASCII")
    if not folded.isascii():  # a message id, or the name of a parameter: there are no other words for those
        raise CannotConvert(f"its header field {name.decode()} has a part that has to be ASCII, and is not")
    return folded.encode("ascii").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _folded(name: str, text: str) -> tuple[object, str]:
    """Return a header field as the email package reads it, and as it writes it."""
    try:
        header = _POLICY.header_factory(name, text)
        return header, header.fold(policy=_POLICY)
    except _UNREADABLE as error:
        raise CannotConvert(f"its header field {name} cannot be read ({type(error).__name__})") from None


def _seven_bit(head: bytes) -> bytes:
    """Return the header block of a composite, which has no other encoding than its parts (RFC 2045, 6.4)."""
    return _put(head, b"Content-Transfer-Encoding", b"7bit") if _parsed(head)["Content-Transfer-Encoding"] else head


def _put(head: bytes, name: bytes, value: bytes) -> bytes:
    """Return the header block with this field, in the place of one that it has or behind all others."""
    field = name + b": " + value + b"\r\n"
    kept = []
    for match in _fields(head):
        if match[1].lower() != name.lower():
            kept.append(match[0])
        elif field:
            kept.append(field)
            field = b""
    return b"".join(kept) + field


def _quoted(body: bytes) -> bytes:
    return binascii.b2a_qp(b"\r\n" + body)[2:]  # the first line end says which it uses


def _base64(body: bytes) -> bytes:
    lines = [binascii.b2a_base64(body[begin : begin + 57], newline=False) for begin in range(0, len(body), 57)]
    return b"\r\n".join(lines) + b"\r\n"


def _charset(body: bytes) -> bytes:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"  # RFC 1428, 3
    return b"utf-8"


def _replaced(text: bytes) -> bytes:
    """Return what no reader shows, text before the first and behind the last part, in ASCII."""
    return _ASCII_ONLY.sub(b"?", text)
