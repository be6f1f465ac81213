"""Replies of a relay: from bytes, cut anywhere, to codes and texts.

A reply has limits, and what is no reply is told apart from a refusal (`MalformedReply`).  Pure.  RFC 5321, 4.2.1 and
4.5.3.1.5; a line may end with LF alone, as smtplib takes it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Octets of a line; real ones keep to 512 (RFC 5321, 4.5.3.1.5), smtplib has the same limit.
MAX_LINE = 8192
#: Lines and octets of a reply: more is an attack or a bug.  The longest real ones have some twenty lines.
MAX_LINES = 500
MAX_REPLY = 64 * 1024

# What most replies are: one line, short, and whole.
_USUAL = re.compile(rb"([2-5][0-9]{2}) ([^\s][^\r\n]{0,510}(?<![ \t]))\r\n")

# ``250OK`` and ``250<TAB>OK`` are replies, too, as in smtplib: a mail would be sent twice if that after the final dot
# were none.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:(-)(.*)|([^0-9-].*))?", re.DOTALL)


class MalformedReply(Exception):
    """What the relay sent is no reply, or has no end.  Nothing after it can be understood either."""


class Response(NamedTuple):
    """One reply: its code, and its lines without the codes, joined by LF."""

    code: int
    text: bytes

    @property
    def digit(self) -> int:
        """The first digit of the code, which decides (RFC 5321, 4.2.1)."""
        return self.code // 100

    def __str__(self) -> str:
        return f"{self.code} {self.text[:200].decode('utf-8', 'backslashreplace')}"


class ReplyReader:
    """A reader that takes what comes over the wire, in pieces of any size, and gives whole replies."""

    def __init__(self) -> None:
        self._buffer = b""
        #: Where the next reply begins, and how far from there no line ends.
        self._begin = self._scanned = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._code = b""

    def feed(self, data: bytes) -> None:
        """Take one more piece."""
        self._buffer = self._buffer[self._begin :] + data
        self._scanned -= self._begin
        self._begin = 0

    def take(self) -> bytes:
        """Return what was fed and belongs to no reply yet, and forget it.  Not to be asked for within a reply."""
        buffer = self._buffer
        taken = buffer[self._begin :] if self._begin else buffer
        self._buffer = b""
        self._begin = self._scanned = 0
        return taken

    def put_back(self, data: bytes) -> None:
        """Let this come before what is left, as if it had been fed first.  Not to be asked for within a reply."""
        self._buffer = data + self._buffer[self._begin :]
        self._begin = self._scanned = 0

    @property
    def is_empty(self) -> bool:
        """Whether `next` has given everything: no reply is left, and no part of one."""
        return self._begin == len(self._buffer) and not self._lines

    def next(self) -> Response | None:
        """Return the next reply, or None if it is not whole yet.  Raises `MalformedReply`."""
        if self._begin == len(self._buffer):
            return None
        usual = _USUAL.match(self._buffer, self._begin)
        if usual and not self._lines:
            self._begin = self._scanned = usual.end()
            code, text = usual.groups()
            return Response(int(code), text)
        while (line := self._next_line()) is not None:
            if self._take(line):
                response = Response(int(self._code), b"\n".join(self._lines))
                self._lines, self._size = [], 0
                return response
        return None

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        if (end if end >= 0 else len(self._buffer)) - self._begin > MAX_LINE:
            raise MalformedReply(f"a line of the relay's reply has more than {MAX_LINE} octets")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = self._buffer[self._begin : end].removesuffix(b"\r")
        self._begin = self._scanned = end + 1
        return line

    def _take(self, line: bytes) -> bool:
        """Take one more line; return whether it is the last of its reply."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise MalformedReply(f"the relay's reply is none: {line[:200]!r}")
        code, goes_on, more, last = match.groups()
        if self._lines and code != self._code:
            raise MalformedReply(f"the relay's reply begins with {self._code!r} and goes on with {line[:200]!r}")
        self._code = code
        self._lines.append((more or last or b"").strip(b" \t\r"))
        self._size += len(line)
        if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
            raise MalformedReply(f"a reply has more than {MAX_LINES} lines or {MAX_REPLY} octets")
        return goes_on is None
