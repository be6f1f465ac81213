"""A relay for tests, on real sockets on 127.0.0.1, with every misbehaviour on demand.

::

    with Relay() as relay:
        relay.on("RCPT", "550 5.1.1 no such user", about="nobody@")
        relay.on("DOT", Drop(), nth=1)
        ...                                   # send to relay.host, relay.port
        relay.mails[0].recipients, relay.commands

What it offers in EHLO follows from its arguments; whatever it answers can be replaced with `Relay.on`.
Nothing in it sleeps: a test waits for `Hang.reached` or with `Relay.wait_until`.  RFC 5321; RFC 3207
(STARTTLS); RFC 4954 (AUTH).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from zope.sendmail.testing.dialogue import Dialogue
from zope.sendmail.testing.relayscript import Action, Chosen, Drop, Hang, InTurn, ReceivedMail, Script

__all__ = ["KEYWORDS", "Action", "Drop", "Hang", "InTurn", "ReceivedMail", "Relay"]

#: What a modern relay says of itself.  ``STARTTLS`` and ``AUTH`` come by themselves.
KEYWORDS = ("PIPELINING", "SIZE 33554432", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Relay:
    """See the module.  Concurrency: any thread; what the properties give are copies.

    With `tls` it offers STARTTLS, or speaks TLS from the first byte if `implicit`.  With `users` (name -> password) it
    offers AUTH PLAIN and LOGIN, with `tokens` (name -> token) XOAUTH2 and OAUTHBEARER, or else the `mechanisms`.
    `keywords`, `users`, `tokens` and `mechanisms` may be changed at any time.  If `strict`, it hangs up on a
    client that does not wait for its replies, whatever it offers.  BDAT is always understood.  If
    `lmtp`, it speaks LMTP (RFC 2033): LHLO, and a mail and a reply for each recipient.  With `path` it listens on this
    Unix socket.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        keywords: Iterable[str] = KEYWORDS,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        users: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        mechanisms: Iterable[str] | None = None,
        strict: bool = False,
        lmtp: bool = False,
        path: str | None = None,
    ) -> None:
        self.keywords = list(keywords)
        self.tls = tls
        self.implicit = implicit
        self.users = dict(users or {})
        self.tokens = dict(tokens or {})
        usual = [*(("PLAIN", "LOGIN") if users else ()), *(("XOAUTH2", "OAUTHBEARER") if tokens else ())]
        self.mechanisms = usual if mechanisms is None else list(mechanisms)
        self.strict = strict
        self.lmtp = lmtp
        self.path = path
        #: TCP port; kept when the relay is stopped and started again.  On Linux nothing else gets it meanwhile.
        self.port = 0
        self._place: socket.socket | None = None
        self._changed = threading.Condition()
        #: What is to happen when; see `on`.
        self.script = Script()
        self._mails: list[ReceivedMail] = []
        self._dialogues: list[list[str]] = []
        self._responses: list[bytes] = []
        self._open: dict[int, Dialogue] = {}
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread()
        self._threads: list[threading.Thread] = []

    # the script

    def on(self, point: str, action: Chosen, *, about: str = "", nth: int = 0) -> Chosen:
        """Do `action` at `point` and return it; the latest rule that fits wins.

        `about` restricts it to commands in which this text occurs, `nth` to the n-th of these (0: to all).
        """
        return self.script.on(point, action, about=about, nth=nth)

    def forgive(self) -> None:
        """Forget all rules and let go of clients that hang."""
        self.script.forgive()

    def hang_up(self, farewell: str = "") -> None:
        """End all connections that are open now; return when they are gone."""
        with self._changed:
            talking = list(self._open.values())
        for dialogue in talking:
            dialogue.hang_up(farewell)
        self.wait_until(lambda: not any(each in self._open.values() for each in talking))

    # what happened

    @property
    def mails(self) -> list[ReceivedMail]:
        """The mails that were taken, in order; also those after whose dot it dropped or hung."""
        with self._changed:
            return list(self._mails)

    @property
    def dialogues(self) -> list[list[str]]:
        """The command lines of each connection, in the order in which the connections were made."""
        with self._changed:
            return [list(each) for each in self._dialogues]

    @property
    def commands(self) -> list[str]:
        """The command lines of all connections."""
        return [command for dialogue in self.dialogues for command in dialogue]

    @property
    def responses(self) -> list[bytes]:
        """What clients answered to the challenges of their logins, decoded."""
        with self._changed:
            return list(self._responses)

    def verbs(self, connection: int = 0) -> list[str]:
        """Return the commands of one connection without their arguments."""
        return [command.partition(" ")[0].upper() for command in self.dialogues[connection]]

    @property
    def open(self) -> int:
        """How many connections there are now."""
        with self._changed:
            return len(self._open)

    def wait_until(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Return as soon as `condition` holds; it is asked again whenever something happened at the relay.

        Raises `TimeoutError`.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                last = [dialogue[-3:] for dialogue in self._dialogues[-3:]]
                raise TimeoutError(
                    f"waited {timeout} s for the relay; it took {len(self._mails)} mails on {len(self._dialogues)} "
                    f"connections and heard last {last}"
                )

    # life

    def start(self) -> None:
        """Listen; return when connections are possible."""
        self._listener = self._listen()
        self._acceptor = self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Stop listening and end everything.  Harmless when repeated."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            self._knock()  # accept() wakes up for nothing less
        self._acceptor.join(10.0)
        self.forgive()
        self.hang_up()
        for thread in self._threads:
            thread.join(10.0)
        self._threads = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self) -> socket.socket:
        if self.path is None:
            self._hold_port()
            listener = socket.create_server((self.host, self.port))
            self.port = listener.getsockname()[1]
            return listener
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # where it listened before
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        return listener

    def _hold_port(self) -> None:
        """Take the address for good: what is sent to a relay that was stopped comes to no other test's.

        Linux lets one socket listen while another only has the address; elsewhere that is an error.
        """
        if sys.platform != "linux" or self._place is not None:
            return
        self._place = socket.socket()
        weakref.finalize(self, self._place.close)
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind((self.host, self.port))
        self.port = self._place.getsockname()[1]

    def _knock(self) -> None:
        if self.path is None:
            socket.create_connection((self.host, self.port), 1.0).close()
        else:
            with socket.socket(socket.AF_UNIX) as knocker:
                knocker.connect(self.path)

    # for the dialogues

    def _run(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name=f"relay:{self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = listener.accept()
                if self._listener is not listener:
                    client.close()
                    return
                if client.family != socket.AF_UNIX:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # replies do not wait for each other
                with self._changed:
                    dialogue = Dialogue(self, self, client, len(self._dialogues))
                    self._dialogues.append([])
                    self._open[dialogue.number] = dialogue
                    self._changed.notify_all()
                self._run(dialogue.run)

    def closed(self, dialogue: Dialogue) -> None:
        """Take note that a dialogue has ended."""
        with self._changed:
            del self._open[dialogue.number]
            self._changed.notify_all()

    def heard(self, dialogue: Dialogue, command: str) -> None:
        """Take note that the client said `command`."""
        with self._changed:
            self._dialogues[dialogue.number].append(command)
            self._changed.notify_all()

    def was_answered(self, dialogue: Dialogue, response: bytes) -> None:
        """Take note that the client answered to a challenge."""
        with self._changed:
            self._responses.append(response)
            self._changed.notify_all()

    def took(self, mail: ReceivedMail) -> None:
        """Take note that the relay took responsibility for `mail`."""
        with self._changed:
            self._mails.append(mail)
            self._changed.notify_all()
