"""What `zope.sendmail.testing.relay.Relay` can be told to do, and when."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TypeVar

#: The moments at which something can be made to happen: commands, and what lies between them.  ``BODY`` is
#: behind the first line of a message, ``DOT`` behind its last, with BDAT, too; with LMTP that is once for each
#: recipient, and about its address.  ``BDAT`` is before the octets of a chunk, and after a refusal there they are read
#: as commands: that is what a relay does that lies about CHUNKING.
POINTS = frozenset(
    {
        "GREETING",
        "EHLO",
        "HELO",
        "LHLO",
        "STARTTLS",
        "AUTH",
        "MAIL",
        "RCPT",
        "DATA",
        "BDAT",
        "BODY",
        "DOT",
        "RSET",
        "NOOP",
        "QUIT",
    }
)


@dataclass(frozen=True)
class ReceivedMail:
    """A mail that the relay took: envelope as spelled on the wire, `data` with CRLF, not dot-stuffed."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    #: What followed the sender's address in MAIL, e.g. ``SIZE=100 BODY=8BITMIME``.
    options: str = ""
    encrypted: bool = False
    user: str = ""
    #: Which of the relay's connections it came over, counted from 0.
    connection: int = 0


@dataclass(frozen=True)
class Drop:
    """End the connection, after saying `reply` if there is one."""

    reply: str = ""


@dataclass(frozen=True)
class Hang:
    """Say nothing until `release` is called or the relay stops; then go on, with `reply` if there is one."""

    reply: str = ""
    #: Set as soon as a client waits here.
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let the relay go on."""
        self._released.set()

    def wait(self) -> None:
        """Called by the relay."""
        self.reached.set()
        self._released.wait()


@dataclass(frozen=True)
class InTurn:
    """Say the first of the replies, and each other one after one more line from the client, as in a login."""

    replies: tuple[str, ...]

    def __init__(self, *replies: str) -> None:
        object.__setattr__(self, "replies", replies)


#: A reply (sent as it is, further lines separated by CRLF) or something worse.  After a reply 421 the relay
#: hangs up.
Action = str | Drop | Hang | InTurn

Chosen = TypeVar("Chosen", bound=Action)


@dataclass
class _Rule:
    point: str
    action: Action
    about: str
    nth: int
    seen: int = 0


class Script:
    """What is to happen when.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []

    def on(self, point: str, action: Chosen, *, about: str, nth: int) -> Chosen:
        """See `Relay.on`."""
        if point not in POINTS:
            raise ValueError(f"there is no point {point!r}; one of {', '.join(sorted(POINTS))} is needed")
        with self._lock:
            self._rules.append(_Rule(point, action, about, nth))
        return action

    def action(self, point: str, command: str) -> Action | None:
        """Return what is to happen now; None: the usual thing."""
        found: Action | None = None
        with self._lock:
            for rule in self._rules:
                if rule.point == point and rule.about in command:
                    rule.seen += 1
                    if rule.nth in (0, rule.seen):
                        found = rule.action
        return found

    def forgive(self) -> None:
        """See `Relay.forgive`."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            if isinstance(rule.action, Hang):
                rule.action.release()
