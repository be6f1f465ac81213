"""A large message object written in pieces: the standard library's generator, without its copies of each part.

Its octets are those of ``as_bytes()``.  What is long in them stays the text of the object, which is made into octets
a piece at a time when it is wanted.  Pure.  Fails as ``as_bytes()`` does.
"""

from __future__ import annotations

from email.generator import BytesGenerator
from email.message import Message
from typing import Any, cast

from zope.sendmail.message.pieces import Piece, Text, texts

#: A text of so many characters is worth the trouble.
LARGE = 64 * 1024

#: Characters of a piece.
_SIZE = 64 * 1024


def in_pieces(message: Message, *, large: int = LARGE) -> tuple[Piece, ...]:
    """Return the octets of a message object in pieces; its whole header is in the first one.

    What changes how it is written (a class with an ``as_bytes`` of its own, a signature) is written as ever.

    :param large: so many characters of a text are not copied.
    """
    if not _is_usual(message, large):
        return (message.as_bytes(),)
    _give_boundaries(message)
    buffer = _Buffer()
    _Generator(buffer, large, message.policy).flatten(message)
    return tuple(buffer.getvalue())


def _is_usual(message: Message, large: int) -> bool:
    """Return whether there is a long text in the message, and nothing that the generator treats in a way of its own."""
    if getattr(message.as_bytes, "__func__", None) is not Message.as_bytes:
        return False
    longest = 0
    for part in message.walk():
        payload = _payload(part)
        if isinstance(payload, str):
            longest = max(longest, len(payload))
        is_ours = getattr(part.get_payload, "__func__", None) is Message.get_payload
        if not is_ours or part.get_content_type() in ("multipart/signed", "message/delivery-status"):
            return False
    return longest >= large


def _payload(part: Message) -> Any:
    """Return the payload as the generator finds it: ``get_payload`` decodes what is not ASCII."""
    return part._payload  # type: ignore[attr-defined]  # as the generator reads it


def _give_boundaries(message: Message) -> None:
    """Give each part that has none the boundary that the generator would give it, which wants to see its octets."""
    payload = _payload(message)
    if isinstance(payload, list):
        for part in payload:
            _give_boundaries(part)
    if message.get_content_maintype() == "multipart" and not isinstance(payload, str) and not message.get_boundary():
        boundary = _Generator.new_boundary()
        while _has(message, boundary):
            boundary = _Generator.new_boundary()
        message.set_boundary(boundary)


def _has(message: Message, boundary: str) -> bool:
    """Return whether the boundary is anywhere in what stands in the parts of a message."""
    return any(
        isinstance(text, str) and boundary in text
        for part in message.walk()
        for text in (_payload(part), part.preamble, part.epilogue, *(str(value) for _, value in part.raw_items()))
    )


class _Buffer:
    """What a generator writes, in pieces; serves as the files that it writes to."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        #: What is short, and goes into one piece.
        self._short = bytearray()

    def write(self, data: bytes | list[Piece]) -> None:
        """Take octets, or what another one has."""
        if isinstance(data, list):
            for piece in data:
                if isinstance(piece, Text):
                    self.put(piece)
                else:
                    self._short += piece
        else:
            self._short += data

    def put(self, text: Text) -> None:
        """Take a long text as it is."""
        if self._short:
            self._pieces.append(bytes(self._short))
            self._short.clear()
        self._pieces.append(text)

    def getvalue(self) -> list[Piece]:
        """Return all of it."""
        return [*self._pieces, bytes(self._short)] if self._short else self._pieces


class _Generator(BytesGenerator):
    """Writes a long text in pieces, and all else as ever."""

    _fp: Any
    _NL: str

    def __init__(self, outfp: Any, large: int, policy: Any) -> None:
        super().__init__(outfp, mangle_from_=False, policy=policy)
        self._large = large

    @classmethod
    def new_boundary(cls) -> str:
        """Return a boundary by chance."""
        return cast("str", cls._make_boundary())  # type: ignore[attr-defined]  # not in the stubs

    def clone(self, fp: Any) -> _Generator:
        """Return the same generator for another file."""
        return type(self)(fp, self._large, self.policy)

    def _new_buffer(self) -> _Buffer:
        return _Buffer()

    def _handle_text(self, msg: Message) -> None:
        payload = _payload(msg)
        if isinstance(payload, str) and self._is_long(payload):
            self._write_lines(payload)  # the standard library copies it to see whether it is ASCII
        else:
            super()._handle_text(msg)  # type: ignore[misc]  # not in the stubs

    _writeBody = _handle_text

    def _write_lines(self, lines: str) -> None:
        if self._is_long(lines):
            for text in texts(lines, self._NL, _SIZE):
                self._fp.put(text)
        else:
            super()._write_lines(lines)  # type: ignore[misc]  # not in the stubs

    def _is_long(self, text: str) -> bool:
        """Return whether it is not to be copied; what is not ASCII is none of our business."""
        return len(text) >= self._large and text.isascii()
