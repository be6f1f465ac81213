"""Bytes to a relay and replies from it, over a connection that smtplib has set up.

`SocketChannel` takes over the socket, so that several replies can be under way at once.  `PatientChannel` asks smtplib
for each reply: for classes that changed how smtplib speaks.  Both fail with `OSError`, to which smtplib's errors
belong, and `MalformedReply`.  Concurrency: one thread at a time.
"""

from __future__ import annotations

import select
import smtplib
import socket
import ssl
import time
from smtplib import SMTP
from typing import Protocol

from zope.sendmail.smtp.connect import has_unread, set_timeout
from zope.sendmail.smtp.protocol.replies import Replies, Response
from zope.sendmail.system.gilbaton import baton

_RECEIVE = 64 * 1024

#: One packet instead of two, where the system can wait for the second (Linux).
_MORE: int = getattr(socket, "MSG_MORE", 0)

#: Who has replaced one of these in a subclass or on an instance wants it to be used.
_SPEAKING = ("send", "putcmd", "getreply", "docmd", "mail", "rcpt", "data", "sendmail")


class Channel(Protocol):
    """What carries a dialogue."""

    #: Whether several commands may be sent at once.
    pipelines: bool

    def ask(self, commands: bytes, seconds: float) -> None:
        """Send command lines; only one at a time if not `pipelines`."""

    def send(self, data: bytes, seconds: float, *, more: bool = False) -> None:
        """Send all of it.  After an error its last byte has not gone.  `more`: what comes next may go with it."""

    def receive(self, seconds: float) -> Response:
        """The next reply, if it comes in so many seconds."""

    def has_unasked(self) -> bool:
        """Whether there is something that nobody asked for among what was read already."""

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing waits to be read: what is to be expected between two mails."""


def open_channel(connection: SMTP) -> Channel:
    """The way to speak over this connection.  Raises `smtplib.SMTPServerDisconnected` if it is out of step already."""
    kind = type(connection)
    is_smtplibs = all(
        getattr(kind, name, None) is getattr(SMTP, name) and name not in vars(connection) for name in _SPEAKING
    )
    if not is_smtplibs or connection.debuglevel or not isinstance(connection.sock, socket.socket):
        return PatientChannel(connection)
    if has_unread(connection):
        raise smtplib.SMTPServerDisconnected("the relay said more than it was asked")
    return SocketChannel(connection)


class SocketChannel:
    """See `Channel`.  The connection stays smtplib's for QUIT, so nothing of what follows a reply is read for good."""

    pipelines = True

    def __init__(self, connection: SMTP) -> None:
        self._connection = connection
        self._replies = Replies()
        self._poll = select.poll()  # select.select fails with more than 1024 open files
        self._poll.register(self._socket(), select.POLLIN)

    def ask(self, commands: bytes, seconds: float) -> None:
        """See `Channel`."""
        self.send(commands, seconds)

    def send(self, data: bytes, seconds: float, *, more: bool = False) -> None:
        """See `Channel`."""
        sock = self._socket()
        _set_timeout(sock, seconds)
        if more and _MORE and not isinstance(sock, ssl.SSLSocket):
            sock.sendall(data, _MORE)
        else:
            sock.sendall(data)

    def receive(self, seconds: float) -> Response:
        """See `Channel`.  The time is for the whole reply: a byte now and then does not keep us for ever."""
        response = self._replies.next()
        if response is not None:
            return response
        until = time.monotonic() + seconds
        left = seconds
        sock = self._socket()
        while left > 0.0:
            _set_timeout(sock, left)
            baton.put_down()
            data = sock.recv(_RECEIVE)
            baton.take()
            if not data:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            self._replies.feed(data)
            response = self._replies.next()
            if response is not None:
                return response
            left = until - time.monotonic()
        raise TimeoutError("timed out")

    def has_unasked(self) -> bool:
        """See `Channel`."""
        return not self._replies.is_empty

    def is_quiet(self) -> bool:
        """See `Channel`.  What waits may be TLS's own, such as tickets, so it has to be read; replies are kept."""
        sock = self._connection.sock
        if sock is None or self.has_unasked():
            return False
        encrypted = sock if isinstance(sock, ssl.SSLSocket) else None
        if not self._poll.poll(0) and not (encrypted and encrypted.pending()):
            return True
        if encrypted is None:
            return False
        try:
            sock.settimeout(0.0)
            self._replies.feed(sock.recv(_RECEIVE))
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False

    def _socket(self) -> socket.socket:
        if self._connection.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        return self._connection.sock


class PatientChannel:
    """See `Channel`."""

    pipelines = False

    def __init__(self, connection: SMTP) -> None:
        self._connection = connection

    def ask(self, commands: bytes, seconds: float) -> None:
        """See `Channel`."""
        set_timeout(self._connection, seconds)
        self._connection.command_encoding = "utf-8"
        self._connection.putcmd(commands.decode("utf-8").removesuffix("\r\n"))

    def send(self, data: bytes, seconds: float, *, more: bool = False) -> None:
        """See `Channel`.  Past smtplib, which closes the connection on an error: the relay may have said why."""
        set_timeout(self._connection, seconds)
        if self._connection.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        self._connection.sock.sendall(data)

    def receive(self, seconds: float) -> Response:
        """See `Channel`."""
        set_timeout(self._connection, seconds)
        try:
            return Response(*self._connection.getreply())
        except smtplib.SMTPResponseException as error:  # smtplib says "500" to a line without end; the relay did not
            raise smtplib.SMTPServerDisconnected(f"the relay's reply has a line without end: {error}") from error

    def has_unasked(self) -> bool:
        """See `Channel`; smtplib does not tell."""
        return False

    def is_quiet(self) -> bool:
        """See `Channel`; that turns out with the next command."""
        return True


def _set_timeout(sock: socket.socket, seconds: float) -> None:
    """Only if it is another one: each setting is a system call."""
    if sock.gettimeout() != seconds:
        sock.settimeout(seconds)
