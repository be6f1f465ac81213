"""A message in rows of 256 KiB, of which only one is in memory at a time."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from zope.sendmail.errors import NoSuchMail
from zope.sendmail.message.pieces import Piece, PieceReader, octets
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.names import shown

#: Octets of a row; the last one may be shorter, and an empty message has one row.
ROW = 256 * 1024


def rows_of(pieces: Iterable[Piece]) -> Iterator[bytes | memoryview]:
    """Return the rows of a message that is given in pieces; octets that fit one are not copied."""
    rest: list[memoryview] = []
    room = ROW
    is_empty = True
    for piece in pieces:
        view = memoryview(octets(piece))
        while view:
            part, view = view[:room], view[room:]
            rest.append(part)
            room -= len(part)
            if not room:
                yield rest[0] if len(rest) == 1 else b"".join(rest)
                rest, room, is_empty = [], ROW, False
    if rest or is_empty:
        yield b"".join(rest)


class _Body(PieceReader):
    """The rows of a message, one behind the other."""

    def __init__(self, connections: Connections, mail: uuid.UUID, size: int) -> None:
        super().__init__(size)
        self._connections = connections
        self._mail = mail

    def find(self, position: int) -> tuple[Callable[[], bytes], int]:
        """See `PieceReader.find`."""
        no = position // ROW
        return lambda: self._read(no), no * ROW

    def _read(self, no: int) -> bytes:
        rows = self._connections.execute("piece", mail=self._mail, no=no)
        if not rows:
            raise NoSuchMail(f"the message of mail {shown(self._mail)} is not there any more")
        return bytes(rows[0][0])


def open_body(connections: Connections, mail: uuid.UUID, size: int) -> BinaryIO:
    """Return the message of a mail as a stream at its beginning."""
    return cast("BinaryIO", io.BufferedReader(_Body(connections, mail, size), 64 * 1024))
