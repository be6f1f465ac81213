"""A message in pieces, so that a large one is in memory once and not once for each thing that is done to it.  Pure."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, cast

_EOL = re.compile(r"\r\n|\r|\n")


class Text:
    """A part of a caller's text in ASCII, made into octets each time that they are wanted.

    Its line ends, whichever they are, become `eol`, as the generators of the email package do it.
    """

    __slots__ = ("_end", "_eol", "_length", "_start", "_text")

    def __init__(self, text: str, start: int, end: int, eol: str) -> None:
        self._text = text
        self._start = start
        self._end = end
        # None: they are right as they are, which holds for most and costs least.
        self._eol = None if eol == "\n" and text.find("\r", start, end) < 0 else eol
        self._length = end - start if self._eol is None else len(bytes(self))

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        part = self._text[self._start : self._end]
        if self._eol is not None:
            part = _EOL.sub(self._eol, part)
        return part.encode("ascii")

    def __getitem__(self, octets: slice) -> bytes:
        return bytes(self)[octets]


#: A part of a message.  A memoryview is a part of somebody's bytes that is not copied; for `Text`, see `octets`.
Piece = bytes | memoryview | Text


def texts(text: str, eol: str, size: int) -> Iterator[Text]:
    """Yield a text in ASCII as pieces of about `size` characters."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if text.startswith("\n", end) and text[end - 1] == "\r":
            end += 1
        yield Text(text, start, end, eol)
        start = end


def octets(piece: Piece) -> bytes | memoryview:
    """Return the octets of a piece; only those of a `Text` are made for it."""
    return bytes(piece) if isinstance(piece, Text) else piece


def joined(pieces: Iterable[Piece]) -> bytes:
    """Return the whole."""
    return b"".join(map(octets, pieces))


def beginning(pieces: Iterable[Piece], size: int) -> bytes:
    """Return the first `size` octets of the whole, or all if there are fewer."""
    found = b""
    for piece in pieces:
        found += bytes(piece[: size - len(found)])
        if len(found) >= size:
            break
    return found


class PieceReader(io.RawIOBase, ABC):
    """The pieces of a message one behind the other, for reading; one of them is in memory at a time.

    :param length: octets of the whole.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._position = 0
        #: The octets of the piece that was read last, and where it starts.
        self._octets, self._start = memoryview(b""), 0

    @abstractmethod
    def find(self, position: int) -> tuple[Callable[[], bytes | memoryview], int]:
        """Return what gives the octets of the piece in which a position is, and where that piece starts."""

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
        if self._position >= self._length:
            return 0
        if not self._start <= self._position < self._start + len(self._octets):
            read, start = self.find(self._position)
            self._octets = memoryview(b"")  # the old one goes before the new one comes
            self._octets, self._start = memoryview(read()), start
        start = self._position - self._start
        part = self._octets[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


class _Pieces(PieceReader):
    """Pieces that are there."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(sum(map(len, pieces)))
        self._pieces = pieces
        #: The piece that was found last, and where it begins.
        self._number, self._begin = 0, 0

    def find(self, position: int) -> tuple[Callable[[], bytes | memoryview], int]:
        """See `PieceReader.find`; most often it is the next one."""
        if position < self._begin:
            self._number, self._begin = 0, 0
        while self._begin + len(self._pieces[self._number]) <= position:
            self._begin += len(self._pieces[self._number])
            self._number += 1
        piece = self._pieces[self._number]
        return lambda: octets(piece), self._begin


def open_pieces(pieces: Sequence[Piece]) -> BinaryIO:
    """Return the message as a stream at its beginning."""
    return cast("BinaryIO", io.BufferedReader(_Pieces(pieces)))
