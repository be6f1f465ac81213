"""`zope.sendmail.smtp.channel`: what happens at each call of a socket, where it fails, waits, or does a part only."""

from __future__ import annotations

import select
import smtplib
import socket
import ssl
import struct
import threading
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.smtp.channel import SmtplibChannel, SocketChannel, open_channel
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import SendFailed
from zope.sendmail.smtp.replylines import read_by_lines
from zope.sendmail.tests.support.conversation import authority, right_tls

#: Long enough for a loaded machine.
SECONDS = 60.0


class Faulty(socket.socket):
    """A socket that does at each `send` what it was told: so many octets only, or an error; everything after that."""

    def will(self, *faults: int | OSError) -> None:
        """Say what happens next."""
        self.faults = list(faults)

    def send(self, data: Any, flags: int = 0, /) -> int:
        """See `socket.socket`."""
        fault = self.faults.pop(0) if self.faults else len(data)
        if isinstance(fault, OSError):
            raise fault
        return super().send(bytes(data)[:fault], flags)


class Encrypted(ssl.SSLSocket):
    """A socket with TLS; `error` is what its `recv` fails with."""

    error: OSError | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """See `socket.socket`."""
        if self.error is not None:
            raise self.error
        return super().recv(buflen, flags)


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, which can be reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def reset(sock: socket.socket) -> None:
    """End the connection so that the other side's next call fails."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class AChannel(unittest.TestCase):
    def setUp(self) -> None:
        ours, self.relay = connected()
        self.addCleanup(self.relay.close)
        self.sock = Faulty(fileno=ours.detach())
        self.sock.will()
        self.connection = smtplib.SMTP()
        self.connection.sock = self.sock
        self.addCleanup(self.connection.close)
        self.channel = SocketChannel(self.connection)

    def heard(self, count: int) -> bytes:
        """Return so many octets as the relay gets them."""
        data = b""
        while len(data) < count:
            data += self.relay.recv(count - len(data))
        return data


class WeSend(AChannel):
    def test_all_of_it(self) -> None:
        """However little the system takes at a time."""
        self.sock.will(1, 2)
        self.channel.send(b"NOOP\r\n", SECONDS)
        self.assertEqual(self.heard(6), b"NOOP\r\n")

    def test_and_it_breaks(self) -> None:
        """The octets that have gone are told."""
        self.sock.will(4, ConnectionResetError("reset"))
        with self.assertRaises(SendFailed) as caught:
            self.channel.send(b"NOOP\r\n", SECONDS)
        self.assertEqual(caught.exception.sent, 4)

    def test_at_once(self) -> None:
        """What the buffers do not hold goes as soon as they do, whatever the system calls it that they are full."""
        for full in (TimeoutError(), BlockingIOError(), ssl.SSLWantWriteError(), 3):
            with self.subTest(full):
                self.sock.will(full)
                self.channel.send_at_once(b"NOOP\r\n", SECONDS)
                self.assertEqual(self.heard(6), b"NOOP\r\n")

    def test_at_once_and_it_breaks(self) -> None:
        """All octets that have gone are told."""
        for faults, sent in (((ConnectionResetError(),), 0), ((3, 1, ConnectionResetError()), 4)):
            with self.subTest(faults):
                self.sock.will(*faults)
                with self.assertRaises(SendFailed) as caught:
                    self.channel.send_at_once(b"NOOP\r\n", SECONDS)
                self.assertEqual(caught.exception.sent, sent)


class WeListen(AChannel):
    def test_bytes_are_given_as_they_come(self) -> None:
        """What was put back is a reply all the same."""
        self.relay.sendall(b"250 ok\r\n")
        self.channel.put_back(self.channel.hear_more())
        self.channel.put_back(b"")
        self.assertTrue(self.channel.has_unasked())
        self.assertEqual(self.channel.receive(SECONDS), Response(250, b"ok"))
        self.assertEqual(self.channel.take_heard(), b"")

    def test_there_is_no_time_left(self) -> None:
        """The time is for a whole reply; a part of one does not lengthen it."""
        self.channel.put_back(b"250-a part")
        with self.assertRaises(TimeoutError):
            self.channel.receive(0.0)

    def test_nothing_comes_for_a_moment(self) -> None:
        """That is no error, and changes nothing for the reply that is waited for then."""
        self.assertEqual(self.channel.hear_more(), b"")
        self.relay.sendall(b"250 ok\r\n")
        self.assertEqual(self.channel.receive(SECONDS), Response(250, b"ok"))

    def test_the_connection_breaks_meanwhile(self) -> None:
        """That is told to the one that waits for a reply."""
        reset(self.relay)
        self.assertEqual(self.channel.hear_more(), b"")
        with self.assertRaises(ConnectionResetError):
            self.channel.receive(SECONDS)

    def test_the_connection_is_closed(self) -> None:
        """By whatever else used it: nothing is sent, and nothing comes."""
        self.connection.close()
        self.assertFalse(self.channel.is_quiet())
        with self.assertRaises(SendFailed):
            self.channel.send(b"NOOP\r\n", SECONDS)
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            self.channel.receive(SECONDS)


class BetweenTwoMails(AChannel):
    """The relay is quiet, or it is not."""

    def test_in_clear(self) -> None:
        """Whatever comes is too much."""
        self.assertTrue(self.channel.is_quiet())
        self.relay.sendall(b"421 bye\r\n")
        self.assertFalse(self.channel.is_quiet())

    def test_without_poll(self) -> None:
        """As under eventlet, which takes it away."""
        with mock.patch.object(select, "poll"):
            del select.poll
            self.channel = SocketChannel(self.connection)
            self.test_in_clear()

    def test_the_relay_has_said_more_already(self) -> None:
        """Than it was asked: it is not quiet, even if nothing new comes."""
        self.channel.put_back(b"250 more\r\n")
        self.assertFalse(self.channel.is_quiet())


class BetweenTwoMailsInTls(AChannel):
    """The tickets of TLS 1.3 wait to be read behind the handshake; they are no words of the relay."""

    def setUp(self) -> None:
        super().setUp()
        accepted: list[ssl.SSLSocket] = []
        theirs = right_tls()
        handshake = threading.Thread(
            target=lambda: accepted.append(theirs.wrap_socket(self.relay, server_side=True)), daemon=True
        )
        handshake.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = Encrypted
        authority().configure_trust(context)
        self.connection.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        handshake.join(SECONDS)
        self.relay = accepted[0]
        self.addCleanup(self.relay.close)
        self.channel = SocketChannel(self.connection)

    def test_tickets_are_nothing(self) -> None:
        """And what is sent then goes as ever."""
        self.assertTrue(self.channel.is_quiet())
        self.channel.send_at_once(b"NOOP\r\n", SECONDS)
        self.assertEqual(self.heard(6), b"NOOP\r\n")

    def test_words_are_kept(self) -> None:
        """They are the next reply."""
        self.relay.sendall(b"421 bye\r\n")
        while self.channel.is_quiet():
            pass  # the tickets come first
        self.assertEqual(self.channel.receive(SECONDS), Response(421, b"bye"))

    def test_the_relay_has_gone(self) -> None:
        """The connection is of no use, however that is told: as an end, or as an error."""
        reset(self.relay)
        for error in (None, ConnectionResetError("reset")):
            with self.subTest(error):
                Encrypted.error = error
                self.addCleanup(setattr, Encrypted, "error", None)
                self.assertFalse(self.channel.is_quiet())


class AClassThatSpeaksByItself(AChannel):
    """A class with a `getreply` of its own is asked for each reply."""

    def setUp(self) -> None:
        super().setUp()
        read_by_lines(self.connection)
        self.through = SmtplibChannel(self.connection)

    def test_is_found(self) -> None:
        """Also where only one connection has it, and where smtplib is to tell what it says."""
        self.assertIsInstance(open_channel(self.connection), SocketChannel)
        self.connection.set_debuglevel(1)
        self.assertIsInstance(open_channel(self.connection), SmtplibChannel)

    def test_a_line_has_no_end(self) -> None:
        """smtplib tells that as a refusal with 500; the relay has not said that."""
        self.relay.sendall(b"250 " + b"x" * 10_000 + b"\r\n")
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            self.through.receive(SECONDS)

    def test_the_connection_breaks_at_a_command(self) -> None:
        """Nothing is known to have gone."""
        self.sock.shutdown(socket.SHUT_WR)
        with self.assertRaises(SendFailed) as caught:
            self.through.send(b"NOOP\r\n", SECONDS)
        self.assertEqual(caught.exception.sent, 0)

    def test_it_is_closed_when_the_text_is_wanted(self) -> None:
        """That is a connection that broke, and no error of ours."""
        self.relay.sendall(b"354 go on\r\n")
        self.through.receive(SECONDS)
        self.connection.close()
        with self.assertRaises(SendFailed):
            self.through.send(b"Subject: x\r\n\r\n.\r\n", SECONDS)

    def test_the_relay_has_hung_up(self) -> None:
        """It has said nothing more; that it is gone turns out with the next command."""
        reset(self.relay)
        self.assertTrue(self.through.is_quiet())
        self.assertFalse(self.through.has_unasked())


if __name__ == "__main__":
    unittest.main()
