"""A message on its way to a relay: read once if it is small, in pieces if it is not.

Fails with what reading the message raises.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

from zope.sendmail.message.headers import wire

#: Octets of a message that is sent in one piece and kept in memory meanwhile: what the buffers between us and a
#: relay hold (Linux: 16 KiB to send and 128 KiB to receive at first), so that nobody waits for anybody.
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
        self._measure: tuple[int, bool] | None = None

    @property
    def whole(self) -> bytes | None:
        """All of it if it fits into `WINDOW`, else None."""
        if self._rest is None:
            self._whole = self._read()
        return self._whole

    @property
    def measure(self) -> tuple[int, bool]:
        """The octets on the wire without the dots that DATA doubles (RFC 1870, 3), and whether one is not ASCII."""
        if self._measure is None:
            size, is_8bit = 0, False
            for piece in self.pieces():
                size += len(piece)
                is_8bit = is_8bit or not piece.isascii()
            self._measure = size, is_8bit
        return self._measure

    def pieces(self) -> Iterator[bytes]:
        """The message from its beginning; more than once only if it is small or can be read again."""
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
