"""A relay's replies as smtplib reads them, by lines, with limits: one without end is cut off, one that trickles too."""

from __future__ import annotations

import contextlib
import math
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from smtplib import SMTP
from typing import Any

#: A reply that is longer is an attack or a bug; real ones have a few hundred bytes, an EHLO list perhaps
#: 2000.
MAX_REPLY = 64 * 1024


class ReplyLines:
    """The file that an smtplib connection reads replies from.

    The socket's timeout is for a whole reply: a byte now and then does not keep us for ever.
    """

    def __init__(self, connection: SMTP, stream: Any) -> None:
        self._connection = connection
        self._stream = stream
        self._size = 0
        self._until = math.inf

    def readline(self, limit: int) -> bytes:
        """Return the next line, or `limit` octets of it; nothing at the end of the connection."""
        sock = self._connection.sock
        assert sock is not None, "smtplib forgets its file when it closes its socket"
        seconds = sock.gettimeout()
        if not self._size:
            self._until = math.inf if seconds is None else time.monotonic() + seconds
        try:
            line = self._read_line(limit)
        finally:
            sock.settimeout(seconds)
        self._size = self._size + len(line) if line[3:4] == b"-" else 0
        if self._size > MAX_REPLY:
            raise OSError(f"a reply has more than {MAX_REPLY} octets")
        return line

    def _read_line(self, limit: int) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < limit:
            left = self._until - time.monotonic()
            if left <= 0.0:
                raise TimeoutError("timed out")
            set_timeout(self._connection, left if left < math.inf else None)
            there = self._stream.peek(1)[: limit - len(line)]  # receives at most once, and only if nothing is there
            if not there:
                break
            line += self._stream.read(there.find(b"\n") + 1 or len(there))
        return line

    def has_unread(self) -> bool:
        """Return whether there is something that `readline` has not given."""
        return bool(self._stream.peek(1))

    def close(self) -> None:
        """Close what it reads from."""
        self._stream.close()


def read_by_lines(connection: Any) -> None:
    """Let an smtplib connection read its replies so; another one reads as it likes."""
    if isinstance(connection, SMTP) and connection.sock is not None and not isinstance(connection.file, ReplyLines):
        connection.file = ReplyLines(connection, connection.file or connection.sock.makefile("rb"))


@contextlib.contextmanager
def telling_alerts(connection: Any) -> Iterator[None]:
    """Let a command that cannot be sent fail with what the relay said about it, if that is an alert of TLS.

    With TLS 1.3 a relay refuses our part of the handshake only when we have begun to speak.  smtplib closes the
    connection then without looking.
    """
    sock = getattr(connection, "sock", None)
    if not isinstance(sock, ssl.SSLSocket) or getattr(type(connection), "send", None) is not SMTP.send:
        yield
        return

    def send(data: str | bytes) -> None:
        try:
            sock.sendall(data.encode("ascii") if isinstance(data, str) else data)
        except OSError as error:
            reason = error
            with contextlib.suppress(OSError):
                reason = _alert(sock) or error
            connection.close()
            raise smtplib.SMTPServerDisconnected(f"Server not connected: {reason}") from reason

    vars(connection)["send"] = send
    try:
        yield
    finally:
        vars(connection).pop("send", None)


def _alert(sock: ssl.SSLSocket) -> ssl.SSLError | None:
    try:
        sock.recv(1)
    except ssl.SSLError as error:
        return error
    return None


def has_unread(connection: SMTP) -> bool:
    """Return whether the relay sent something that smtplib has not read, and would take for an answer later."""
    if not isinstance(connection.file, ReplyLines):
        return False
    set_timeout(connection, 0.0)
    try:
        return connection.file.has_unread()
    except (BlockingIOError, ssl.SSLWantReadError):
        return False


def set_timeout(connection: Any, seconds: float | None) -> None:
    """Set how long each read or write may take from now on; None: for ever."""
    sock = getattr(connection, "sock", None)
    if isinstance(sock, socket.socket):
        sock.settimeout(seconds)
