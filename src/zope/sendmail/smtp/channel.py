"""Bytes to a relay and replies from it, over a connection that smtplib has set up.

`SocketChannel` takes over the socket, so that several replies can be under way at once.  `SmtplibChannel` asks smtplib
for each reply: for classes that changed how smtplib speaks.  Both fail with `OSError`, to which smtplib's errors
belong, with `SendFailed` and `MalformedReply`.  Concurrency: one thread at a time.
"""

from __future__ import annotations

import select
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from smtplib import SMTP
from typing import Protocol

from zope.sendmail.smtp.protocol.replies import ReplyReader, Response
from zope.sendmail.smtp.protocol.steps import SendFailed
from zope.sendmail.smtp.replylines import has_unread, set_timeout
from zope.sendmail.system.gilbaton import baton

_RECEIVE = 64 * 1024

#: On the straight way, where a moment's replies are few: to make room for 64 KiB costs 1 to 2 us more for each mail.
#: As long as a record of TLS, so that nothing stays decrypted where poll(2) does not see it.
_RECEIVE_FEW = 16 * 1024

#: Seconds for which a relay is waited for on the straight way; see `zope.sendmail.smtp.ordinary`.
MOMENT = 0.25

#: How a socket says that its buffer is full; the last two if nothing is waited for, as behind `SocketChannel.is_quiet`.
_FULL = (TimeoutError, BlockingIOError, ssl.SSLWantWriteError)

#: A subclass or an instance that replaces one of these wants it to be used.
_SPEAKING = ("send", "putcmd", "getreply", "docmd", "mail", "rcpt", "data", "sendmail")


class Channel(Protocol):
    """What carries the commands and replies of one connection."""

    #: Whether several commands may be sent at once.
    pipelines: bool

    def send(self, data: bytes, seconds: float) -> None:
        """Send all of `data`; if not `pipelines`, commands one by one.

        Raises `SendFailed` with the number of octets that have certainly gone.
        """

    def receive(self, seconds: float) -> Response:
        """Return the next reply, if it comes in so many seconds."""

    def has_unasked(self) -> bool:
        """Return whether something is left of what was read already: more than was asked for."""

    def is_quiet(self) -> bool:
        """Return whether the connection is open and nothing waits to be read, as it should be between two mails."""


class StraightChannel(Channel, Protocol):
    """A channel that gives bytes as they come as well; see `zope.sendmail.smtp.ordinary`."""

    #: The file descriptor of the connection, which can be read when the relay has said something.
    descriptor: int

    def take_heard(self) -> bytes:
        """Return what has been received and was not given as a reply; `put_back` what is not used of it."""

    def put_back(self, data: bytes) -> None:
        """Have this received first, once more."""

    def hear_more(self) -> bytes:
        """Return what the relay says within a moment, as it comes.

        Nothing, if it says nothing, hangs up, or cannot be heard: `receive` meets that again.
        """

    def send_at_once(self, data: bytes, seconds: float) -> None:
        """Do as `send`, for what the buffers between us and the relay hold most often."""


def open_channel(connection: SMTP) -> Channel:
    """Return the channel over a connection.  Raises `smtplib.SMTPServerDisconnected` if it is out of step already."""
    kind = type(connection)
    is_smtplibs = all(
        getattr(kind, name, None) is getattr(SMTP, name) and name not in vars(connection) for name in _SPEAKING
    )
    if not is_smtplibs or connection.debuglevel or not isinstance(connection.sock, socket.socket):
        return SmtplibChannel(connection)
    if has_unread(connection):
        raise smtplib.SMTPServerDisconnected("the relay said more than it was asked")
    return SocketChannel(connection)


class SocketChannel:
    """See `StraightChannel`.

    The connection stays smtplib's for QUIT, so nothing of what follows a reply is read for good.
    """

    pipelines = True

    def __init__(self, connection: SMTP) -> None:
        self._connection = connection
        self._replies = ReplyReader()
        self._has_news = _watched(self._socket())
        self.descriptor = self._socket().fileno()
        #: What has gone wrong and was not told yet.
        self._error: OSError | None = None

    def send(self, data: bytes, seconds: float) -> None:
        """See `Channel`."""
        sent = 0
        try:
            sock = self._socket()
            if sock.gettimeout() != seconds:  # each setting is a system call
                sock.settimeout(seconds)
            sent = sock.send(data)
            while sent < len(data):
                sent += sock.send(memoryview(data)[sent:])
        except OSError as error:
            raise SendFailed(f"the connection broke while we were sending: {error}", sent) from error

    def receive(self, seconds: float) -> Response:
        """See `Channel`.  The time is for the whole reply: a byte now and then does not keep us for ever."""
        response = self._replies.next()
        if response is not None:
            return response
        until = time.monotonic() + seconds
        left = seconds
        sock = self._socket()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        while left > 0.0:
            if sock.gettimeout() != left:
                sock.settimeout(left)
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

    def take_heard(self) -> bytes:
        """See `StraightChannel`."""
        return self._replies.take()

    def put_back(self, data: bytes) -> None:
        """See `StraightChannel`."""
        if data:
            self._replies.put_back(data)

    def hear_more(self) -> bytes:
        """See `StraightChannel`."""
        try:
            sock = self._connection.sock or self._socket()
            if sock.gettimeout() != MOMENT:
                sock.settimeout(MOMENT)
            baton.put_down()
            data = sock.recv(_RECEIVE_FEW)
        except TimeoutError:
            data = b""
        except OSError as error:
            self._error, data = error, b""
        baton.take()
        return data

    def send_at_once(self, data: bytes, seconds: float) -> None:
        """See `StraightChannel`."""
        try:
            sent = (self._connection.sock or self._socket()).send(data)
        except _FULL:
            sent = 0
        except OSError as error:
            raise SendFailed(f"the connection broke while we were sending: {error}") from error
        if sent < len(data):
            try:
                self.send(data[sent:], seconds)
            except SendFailed as failed:
                raise SendFailed(str(failed), sent + failed.sent) from failed.__cause__

    def has_unasked(self) -> bool:
        """See `Channel`."""
        return not self._replies.is_empty

    def is_quiet(self) -> bool:
        """See `Channel`.  TLS's own messages, such as tickets, have to be read to be told apart; replies are kept."""
        sock = self._connection.sock
        if sock is None or self.has_unasked():
            return False
        encrypted = sock if isinstance(sock, ssl.SSLSocket) else None
        if not self._has_news() and not (encrypted and encrypted.pending()):
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


def _watched(sock: socket.socket) -> Callable[[], object]:
    """Return what says, without waiting, whether something has come from the relay, or the relay has hung up."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return lambda: select.select([sock], [], [], 0.0)[0]
    poll = select.poll()  # select.select fails with more than 1024 open files
    poll.register(sock, select.POLLIN)
    return lambda: poll.poll(0)


class SmtplibChannel:
    """See `Channel`."""

    pipelines = False

    def __init__(self, connection: SMTP) -> None:
        self._connection = connection
        self._awaits_text = False

    def send(self, data: bytes, seconds: float) -> None:
        """See `Channel`.  A text goes past smtplib, which closes on errors, when the relay may have said why."""
        set_timeout(self._connection, seconds)
        try:
            if not self._awaits_text:
                self._connection.command_encoding = "utf-8"
                self._connection.putcmd(data.decode("utf-8").removesuffix("\r\n"))
            elif self._connection.sock is None:
                raise smtplib.SMTPServerDisconnected("the connection is closed")
            else:
                self._connection.sock.sendall(data)
        except OSError as error:
            raise SendFailed(f"the connection broke while we were sending: {error}") from error

    def receive(self, seconds: float) -> Response:
        """See `Channel`."""
        set_timeout(self._connection, seconds)
        try:
            response = Response(*self._connection.getreply())
        except smtplib.SMTPResponseException as error:  # smtplib says "500" to a line without end; the relay did not
            raise smtplib.SMTPServerDisconnected(f"the relay's reply has a line without end: {error}") from error
        self._awaits_text = response.code == 354
        return response

    def has_unasked(self) -> bool:
        """See `Channel`."""
        return self._has_unread()

    def is_quiet(self) -> bool:
        """See `Channel`; that the relay has hung up turns out with the next command."""
        return not self._has_unread()

    def _has_unread(self) -> bool:
        try:
            return has_unread(self._connection)
        except OSError:  # it has hung up
            return False
