"""A message on its way to a relay: read once if it is small, in pieces if it is not.

Fails with what reading the message raises.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from zope.sendmail.message.headers import header_block, wire

#: Octets of a message that is sent in one piece and kept in memory meanwhile: what the buffers between us and a
#: relay hold (Linux: 16 KiB to send and 128 KiB to receive at first), so that neither side waits for the other.
WINDOW = 64 * 1024


class Body:
    """What `wire` makes of a message.  Nothing is read before it is needed."""

    def __init__(self, message: BinaryIO) -> None:
        self._message = message
        self._start: int | None = None
        #: What has been read of it, and what comes behind; None: nothing was read yet.
        self._rest: Iterator[bytes] | None = None
        self._head: list[bytes] = []
        self._whole: bytes | None = None

    @classmethod
    def of_octets(cls, octets: bytes) -> Body:
        """Return a body made of `octets`, which `wire` has made already, or something that it would not change."""
        return cls(BytesIO(octets))

    @property
    def whole(self) -> bytes | None:
        """All of it if it fits into `WINDOW`, else None."""
        if self._rest is None:
            self._whole = self._read()
        return self._whole

    @functools.cached_property
    def measure(self) -> tuple[int, bool]:
        """The octets on the wire without the dots that DATA doubles (RFC 1870, 3), and whether one is not ASCII."""
        whole = self.whole
        if whole is not None:
            return len(whole), not whole.isascii()
        size, is_8bit = 0, False
        for piece in self.pieces():
            size += len(piece)
            is_8bit = is_8bit or not piece.isascii()
        return size, is_8bit

    @property
    def has_utf8_header(self) -> bool:
        """Whether a header field is written in UTF-8 beyond ASCII, which is what SMTPUTF8 is for (RFC 6531, 3.2)."""
        head = header_block(self.whole or b"".join(self._head))
        try:
            head.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return not head.isascii()

    def pieces(self) -> Iterator[bytes]:
        """Return the message from its beginning; more than once only if it is small or can be read again."""
        whole = self.whole
        if whole is not None:
            return iter((whole,))
        if self._start is None:
            assert self._rest is not None
            return itertools.chain(self._head, self._rest)
        self._message.seek(self._start)
        return wire(self._message)

    def _read(self) -> bytes | None:
        self._start = _position(self._message)
        self._rest = wire(self._message)
        size = 0
        for piece in self._rest:
            self._head.append(piece)
            size += len(piece)
            if size > WINDOW:
                return None
        return b"".join(self._head)


def _position(message: BinaryIO) -> int | None:
    try:
        return message.tell()
    except OSError:  # io.UnsupportedOperation: it can be read only once
        return None
