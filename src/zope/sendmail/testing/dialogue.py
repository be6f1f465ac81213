"""One connection of a `zope.sendmail.testing.relay.Relay`: the server's half of SMTP."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from typing import Any, Protocol

from zope.sendmail.testing.relayscript import POINTS, Action, Drop, Hang, InTurn, ReceivedMail, Script
from zope.sendmail.testing.saslserver import MECHANISMS, ServerLogin

_MAX_LINE = 64 * 1024


class Behaviour(Protocol):
    """What a relay offers and how it answers; see `zope.sendmail.testing.relay.Relay`."""

    script: Script
    keywords: list[str]
    tls: ssl.SSLContext | None
    implicit: bool
    users: dict[str, str]
    tokens: dict[str, str]
    mechanisms: list[str]
    strict: bool
    lmtp: bool


class DialogueListener(Protocol):
    """What hears of the course of a dialogue, and what was said in it."""

    def heard(self, dialogue: Dialogue, command: str) -> None:
        """Take note of a command of the client."""

    def was_answered(self, dialogue: Dialogue, response: bytes) -> None:
        """Take note of what the client answered to a challenge."""

    def took(self, mail: ReceivedMail) -> None:
        """Take note of a mail for which the relay took responsibility."""

    def closed(self, dialogue: Dialogue) -> None:
        """Take note that the dialogue has ended."""


class _Gone(ConnectionError):
    """The conversation is over."""


class Dialogue:
    """One connection, in a thread of its own."""

    def __init__(self, relay: Behaviour, listener: DialogueListener, client: socket.socket, number: int) -> None:
        self.relay = relay
        self._listener = listener
        self.number = number
        self._socket = client
        self._file = client.makefile("rb")
        self._encrypted = False
        self._user = ""
        self._forget()

    def run(self) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):  # the client left, or the relay was stopped
                if self.relay.implicit:
                    self._encrypt()
                self._answer("GREETING", "", "220 relay.test ESMTP")
                while line := self._file.readline(_MAX_LINE):
                    self._obey(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        finally:
            self._file.close()
            self._socket.close()
            self._listener.closed(self)

    def hang_up(self, farewell: str) -> None:
        with contextlib.suppress(OSError):
            if farewell:
                self._say(farewell)
        with contextlib.suppress(OSError):
            # not SSLSocket.shutdown: it would take the TLS away under the reader and let it see ciphertext
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _obey(self, line: str) -> None:
        self._listener.heard(self, line)
        if self.relay.strict and self._has_more():
            self._say("500 5.5.1 Pipelining is not supported")
            raise _Gone
        verb = line.partition(" ")[0].upper()
        obey = getattr(self, f"_do_{verb.lower()}", None) if self._knows(verb) else None
        if obey is None:
            self._say("500 5.5.1 there is no such command")
        else:
            obey(line)

    def _knows(self, verb: str) -> bool:
        return verb in POINTS - ({"EHLO", "HELO"} if self.relay.lmtp else {"LHLO"})

    def _has_more(self) -> bool:
        """Return whether the client went on without waiting."""
        self._socket.settimeout(0.0)
        try:
            return bool(self._file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._socket.settimeout(None)

    def _answer(self, point: str, command: str, usual: str) -> int:
        """Do what the script says, or answer as usual; return the code of the answer."""
        return self._perform(self.relay.script.action(point, command), usual)

    def _perform(self, action: Action | None, usual: str) -> int:
        if isinstance(action, Hang):
            action.wait()
        if isinstance(action, InTurn):
            action = self._take_turns(action)
        reply = usual if action is None else action if isinstance(action, str) else action.reply
        if isinstance(action, Hang):
            reply = reply or usual
        if reply:
            self._say(reply)
        if isinstance(action, Drop) or reply.startswith("421"):
            raise _Gone
        return int(reply[:3]) if reply[:3].isdigit() else 0

    def _take_turns(self, action: InTurn) -> str:
        """Say all replies but the last one, and hear what the client says to each."""
        *replies, last = action.replies
        for reply in replies:
            self._say(reply)
            line = self._file.readline(_MAX_LINE)
            if not line:
                raise _Gone
            self._listener.heard(self, line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        return last

    def _say(self, reply: str) -> None:
        self._socket.sendall(reply.encode() + b"\r\n")

    def _forget(self) -> None:
        self._sender: str | None = None
        self._options = ""
        self._recipients: list[str] = []
        self._chunks = b""

    def _encrypt(self) -> None:
        assert self.relay.tls is not None
        self._file.close()
        self._socket = self.relay.tls.wrap_socket(self._socket, server_side=True)
        self._file = self._socket.makefile("rb")
        self._encrypted = True
        self._forget()

    # commands

    def _do_lhlo(self, line: str) -> None:
        self._do_ehlo(line)

    def _do_ehlo(self, line: str) -> None:
        keywords = list(self.relay.keywords)
        if self.relay.tls is not None and not self._encrypted:
            keywords.append("STARTTLS")
        if self.relay.mechanisms:
            keywords.append(f"AUTH {' '.join(self.relay.mechanisms)}")
        lines = ["relay.test", *keywords]
        self._forget()
        usual = "\r\n".join([*(f"250-{each}" for each in lines[:-1]), f"250 {lines[-1]}"])
        self._answer("LHLO" if self.relay.lmtp else "EHLO", line, usual)

    def _do_helo(self, line: str) -> None:
        self._forget()
        self._answer("HELO", line, "250 relay.test")

    def _do_starttls(self, line: str) -> None:
        usual = "220 2.0.0 go ahead" if self.relay.tls and not self._encrypted else "503 5.5.1 no TLS here"
        if self._answer("STARTTLS", line, usual) == 220:
            self._encrypt()

    def _do_auth(self, line: str) -> None:
        action = self.relay.script.action("AUTH", line)
        mechanism, _, initial = line[5:].partition(" ")
        check = MECHANISMS.get(mechanism.upper())
        if action is not None:
            self._perform(action, "")
        elif check is None:
            self._say("504 5.5.4 there is no such mechanism")
        else:
            first = None if not initial else b"" if initial == "=" else base64.b64decode(initial)
            self._log_in(check(ServerLogin(first, self._ask, self.relay.users, self.relay.tokens, self._certificate())))

    def _ask(self, challenge: bytes) -> bytes:
        self._say("334 " + base64.b64encode(challenge).decode())
        response = base64.b64decode(self._file.readline(_MAX_LINE).strip())
        self._listener.was_answered(self, response)
        return response

    def _certificate(self) -> str:
        """Return the name in the client's certificate that was verified, or the empty string."""
        shown = self._socket.getpeercert() if isinstance(self._socket, ssl.SSLSocket) else None
        names: Any = (shown or {}).get("subjectAltName", ())
        return str(names[0][1]) if names else ""

    def _log_in(self, user: str | None) -> None:
        if user is None:
            self._say("535 5.7.8 wrong name or password")
        else:
            self._user = user
            self._say("235 2.7.0 welcome")

    def _do_mail(self, line: str) -> None:
        if self._sender is not None:
            self._say("503 5.5.1 one mail at a time")
        elif self._answer("MAIL", line, "250 2.1.0 Ok") // 100 == 2:
            self._sender, self._options = _path(line)

    def _do_rcpt(self, line: str) -> None:
        if self._sender is None:
            self._say("503 5.5.1 MAIL comes first")
        elif self._answer("RCPT", line, "250 2.1.5 Ok") // 100 == 2:
            self._recipients.append(_path(line)[0])

    def _do_data(self, line: str) -> None:
        if not self._recipients:
            self._say("503 5.5.1 RCPT comes first")
        elif self._answer("DATA", line, "354 go ahead") == 354:
            self._take(self._body())

    def _do_bdat(self, line: str) -> None:
        """RFC 3030, 2: the octets are read even if they cannot be used, so that both sides stay in step."""
        action = self.relay.script.action("BDAT", line)
        if action is not None:
            self._perform(action, "500 5.5.1 there is no such command")
            return
        _, size, *last = line.upper().split(" ")
        octets = self._file.read(int(size))
        if len(octets) < int(size):
            raise _Gone
        if not self._recipients:
            self._say("503 5.5.1 RCPT comes first")
            return
        self._chunks += octets
        if last == ["LAST"]:
            self._take(self._chunks)
        else:
            self._say("250 2.0.0 Ok: so far")

    def _body(self) -> bytes:
        lines: list[bytes] = []
        while (line := self._file.readline()) != b".\r\n":
            if not line:
                raise _Gone
            lines.append(line[1:] if line.startswith(b".") else line)
            if len(lines) == 1:
                self._answer("BODY", "", "")
        return b"".join(lines)

    def _take(self, data: bytes) -> None:
        """Answer once, or by LMTP for each recipient (RFC 2033, 4.2)."""
        groups = [(each,) for each in self._recipients] if self.relay.lmtp else [tuple(self._recipients)]
        sender, options = self._sender or "", self._options
        self._forget()
        for recipients in groups:
            action = self.relay.script.action("DOT", recipients[0] if self.relay.lmtp else "")
            if not isinstance(action, str) or action.startswith("2"):
                self._listener.took(
                    ReceivedMail(sender, recipients, data, options, self._encrypted, self._user, self.number)
                )
            self._perform(action, "250 2.0.0 Ok: queued")

    def _do_rset(self, line: str) -> None:
        self._forget()
        self._answer("RSET", line, "250 2.0.0 Ok")

    def _do_noop(self, line: str) -> None:
        self._answer("NOOP", line, "250 2.0.0 Ok")

    def _do_quit(self, line: str) -> None:
        self._answer("QUIT", line, "221 2.0.0 Bye")
        raise _Gone


def _path(line: str) -> tuple[str, str]:
    """Return the address in a MAIL or RCPT command, and what follows it."""
    address, _, options = line.partition("<")[2].rpartition(">")
    return address, options.strip()
