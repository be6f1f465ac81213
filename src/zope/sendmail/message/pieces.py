"""A message in pieces, so that a large one is in memory once and not once for each thing that is done to it.  Pure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO, cast

#: A part of a message.  A memoryview is a part of somebody's bytes that is not copied.
Piece = bytes | memoryview


class _Pieces(io.RawIOBase):
    """The pieces one behind the other, for reading."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._pieces = [memoryview(piece) for piece in pieces]
        self._length = sum(map(len, self._pieces))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        start = self._position
        for piece in self._pieces:
            if start < len(piece):
                part = piece[start : start + len(buffer)]
                buffer[: len(part)] = part
                self._position += len(part)
                return len(part)
            start -= len(piece)
        return 0


def open_pieces(pieces: Sequence[Piece]) -> BinaryIO:
    """Return the message as a stream at its beginning."""
    return cast("BinaryIO", io.BufferedReader(_Pieces(pieces)))
