"""The text of a message: its header block, its Message-Id, its line ends.

Works on bytes and changes nothing that it was not asked to change.  A lone CR counts as a line end everywhere,
because that is what it becomes on the wire; so no header can hide behind one.  Pure.  Fails with `InvalidMessage`.
RFC 5322; RFC 5321, 2.3.8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.message.pieces import Piece

#: How much of a message is looked at for its header block.
MAX_HEADER = 16 * 1024 * 1024

#: A Message-Id with its comments: four times the longest line (RFC 5322, 2.1.1).
MAX_ID = 4 * 998

#: So many bytes of a message are looked at for its Message-Id, and go into a report about it.
HEAD = 64 * 1024

_CHUNK = 64 * 1024
_CHANGED = {b"message-id", b"bcc", b"resent-bcc"}
_USUAL_EOL = re.compile(rb"\r\n|\n")
_MAX_LINE = 998  # RFC 5322, 2.1.1
_EOL = rb"(?>\r\n|\n|\r)"
# One header field with its continuation lines and line ends.  A field name is printable ASCII without colon (RFC
# 5322, 2.2).
_FIELD = re.compile(
    rb"(?P<name>[\x21-\x39\x3b-\x7e]+)[ \t]*:(?P<value>[^\r\n]*(?:" + _EOL + rb"[ \t][^\r\n]*)*)(?:" + _EOL + rb"|\Z)"
)
_MBOX_FROM = re.compile(rb">?From [^\r\n]*" + _EOL)
_LINE = re.compile(rb"[^\r\n]*(?>\r\n|\n|\r(?!\Z))")  # a CR at the end may be half of a CRLF
_COMMENT = re.compile(rb"\((?:[^()\\]|\\.)*\)")
_ID = re.compile(rb"<([^<>\s\x00-\x1f\x7f]+)>")
# Most often it stands in front of all, where `completed` puts it, and is nothing that has to be looked at closely.
_USUAL_ID = re.compile(rb"(?i:Message-Id): <([\x21-\x27\x2a-\x3b\x3d\x3f-\x7e]{1,900})>(?>\r\n|\n)(?![ \t])")


def message_id(head: bytes) -> str:
    """Return the Message-Id without brackets, or the empty string if there is none.

    Raises `InvalidMessage` for a malformed one.
    """
    usual = _USUAL_ID.match(head)
    if usual:
        return usual[1].decode("ascii")
    for match in fields_of(head):
        if match["name"].lower() == b"message-id":
            return _parse_id(match["value"])
    return ""


def message_id_in(stream: BinaryIO) -> str:
    """Return the Message-Id of the message at whose beginning the stream stands, or the empty string.

    A malformed one counts as none.  Reads `HEAD` bytes at most and leaves the stream behind them.
    """
    try:
        return message_id(stream.read(HEAD))
    except InvalidMessage:
        return ""


def with_message_id(message: bytes, new_id: str) -> tuple[bytes, str]:
    """Return the message with a Message-Id, and that id.

    A given one is kept; `new_id` is put in front if there is none: behind a ``From `` line of an mbox, which is no
    header field and would end the header block.
    """
    given = message_id(message)
    if given:
        return message, given
    field = b"Message-Id: <" + new_id.encode("ascii") + b">" + line_end(message)
    return in_front(_without(message, b"message-id"), field), new_id


def in_front(message: bytes, fields: bytes) -> bytes:
    """Return the message with whole lines in front of its header: behind a ``From `` line of an mbox."""
    start = _start(message)
    if message[start : start + 1] not in (b"", b"\r", b"\n") and next(fields_of(message), None) is None:
        fields += line_end(fields)  # a text without headers: what follows is the body
    return message[:start] + fields + message[start:]


def without_bcc(message: bytes) -> bytes:
    """Return the message without ``Bcc`` and ``Resent-Bcc`` fields (RFC 5322, 3.6.3); the body is left alone."""
    return _without(message, b"bcc", b"resent-bcc")


@dataclass(frozen=True, slots=True)
class Completed:
    """A message that can be handed on: in pieces, with its Message-Id."""

    pieces: tuple[Piece, ...]
    message_id: str
    #: Whether it has a From field.
    has_from: bool


def completed(pieces: Sequence[Piece], new_id: str, date: str) -> Completed:
    """Return the message without Bcc, with a Message-Id and a Date (RFC 6409, 8).  The body is not copied.

    :param pieces: the message; its whole header is in the first piece.
    :param new_id: the Message-Id for a message without one.
    :param date: the Date for a message without one.
    :raises InvalidMessage: the Message-Id that it has is malformed.
    """
    message, rest = bytes(pieces[0]), pieces[1:]
    fields = list(fields_of(message))
    names = {match["name"].lower() for match in fields}
    eol = line_end(message)
    date_field = b"" if b"date" in names else b"Date: " + date.encode("ascii") + eol
    has_from = b"from" in names
    if fields and names.isdisjoint(_CHANGED):  # the usual message: one scan, and only the new fields are made
        start = fields[0].start()
        header = b"Message-Id: <" + new_id.encode("ascii") + b">" + eol + date_field
        return Completed((message[:start] + header, memoryview(message)[start:], *rest), new_id, has_from)
    behind = _USUAL_EOL.search(message, fields[-1].end() if fields else _start(message))
    cut = behind.end() if behind else len(message)  # as far as `with_message_id` looks
    head = without_bcc(message[:cut])
    identifier = message_id(head)
    if not identifier:
        identifier = new_id
        head = _without(head, b"message-id")
        date_field = b"Message-Id: <" + new_id.encode("ascii") + b">" + eol + date_field
    if date_field:
        head = in_front(head, date_field)
    return Completed((head, memoryview(message)[cut:], *rest), identifier, has_from)


def line_end(message: bytes) -> bytes:
    """Return the line end that the message uses first, LF if it has none."""
    match = _USUAL_EOL.search(message)
    return match[0] if match else b"\n"


def wire(message: BinaryIO) -> Iterator[bytes]:
    """Return the message as a relay gets it, in pieces: lines end with CRLF, Bcc is left out (RFC 5321, 2.3.8)."""
    head = message.read(_CHUNK)
    while (more := message.read(len(head))) and len(head) < MAX_HEADER and not _is_whole(head):
        head += more
    head += more
    if b"bcc" in head.lower():
        head = without_bcc(head)
    return _crlf(_chunks(head, message))


def header_block(text: bytes) -> bytes:
    """Return the header fields of a message, or of its beginning."""
    return text[: _end(text)]


def dot_stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Put a dot before each dot at the start of a line, and the final dot behind the text (RFC 5321, 4.5.2).

    Takes pieces that `wire` made.
    """
    at_line_start = True
    for piece in pieces:
        stuffed = piece.replace(b"\n.", b"\n..")
        yield b"." + stuffed if at_line_start and stuffed.startswith(b".") else stuffed
        at_line_start = piece.endswith(b"\n")
    yield b".\r\n"


def _chunks(head: bytes, rest: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := rest.read(_CHUNK):
        yield chunk


def _crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pending = b""  # a CR at the end of a chunk may be the first half of a CRLF
    last = b""
    for chunk in chunks:
        text = pending + chunk
        pending = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(pending)]
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        last = text.replace(b"\n", b"\r\n") or last
        if text:
            yield last
    if pending or not last.endswith(b"\n"):
        yield b"\r\n"


def _is_whole(head: bytes) -> bool:
    """Return whether no header field can follow: the line behind the fields is none, or too long to become one."""
    rest = head[_end(head) :]
    return len(rest) > _MAX_LINE or _LINE.match(rest) is not None


def _end(text: bytes) -> int:
    """Return where the header fields end."""
    end = _start(text)
    for match in fields_of(text):
        end = match.end()
    return end


def fields_of(text: bytes) -> Iterator[re.Match[bytes]]:
    """Yield the header fields, up to the empty line, the first line that is none, or `MAX_HEADER`."""
    position = _start(text)
    while position < MAX_HEADER and (match := _FIELD.match(text, position)):
        yield match
        position = match.end()


def _start(text: bytes) -> int:
    """Return where the header block starts."""
    if not text.startswith((b"From ", b">From ")):
        return 0
    mbox = _MBOX_FROM.match(text)
    return mbox.end() if mbox else 0


def _without(message: bytes, *names: bytes) -> bytes:
    dropped = [match for match in fields_of(message) if match["name"].lower() in names]
    if not dropped:
        return message
    kept = []
    position = 0
    for match in dropped:
        kept.append(message[position : match.start()])
        position = match.end()
    return b"".join([*kept, message[position:]])


def _parse_id(value: bytes) -> str:
    if len(value) > MAX_ID:
        raise InvalidMessage(f"Malformed Message-Id header: it has {len(value)} octets")
    bare = value
    while b"(" in bare and (shorter := _COMMENT.sub(b"", bare)) != bare:  # comments nest
        bare = shorter
    bare = bare.strip()
    if not bare:
        return ""
    match = _ID.fullmatch(bare)
    if match is None:
        raise InvalidMessage(f"Malformed Message-Id header: {value.strip()!r}; it must be one id in angle brackets")
    try:
        return match[1].decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidMessage(f"Malformed Message-Id header: {value.strip()!r} is not UTF-8") from None
