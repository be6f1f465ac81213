"""What a `MailTransaction` asks its connection and its session for, and how it fails.  Pure."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from zope.sendmail.smtp.protocol.commands import CommandName
from zope.sendmail.smtp.protocol.replies import Response

#: Commands of one flight.  Their replies have to fit into the buffers between us, or both sides wait for ever (RFC
#: 2920, 3.1): a hundred have at most 50 KiB.
MAX_FLIGHT = 100


class TimeoutName(StrEnum):
    """How long to wait; the names are those of `Timeouts`."""

    COMMAND = "command"
    DATA = "data"
    BLOCK = "block"
    FINAL = "final"
    QUIT = "quit"


# Steps for the connection.


class Send(NamedTuple):
    """Send these bytes.

    `is_command`: everything that was said before must have been answered.
    """

    data: bytes
    timeout: TimeoutName
    is_command: bool = False


class Receive(NamedTuple):
    """Wait for the next reply and give it, a `Response`."""

    timeout: TimeoutName


@dataclass(frozen=True, slots=True)
class Poll:
    """Give a reply that is there already, or None if the relay is quiet."""


# Requests to the session.


@dataclass(frozen=True, slots=True)
class Intend:
    """The next bytes end the message."""


@dataclass(frozen=True, slots=True)
class TakeNext:
    """Give the next mail (`Overlapping`) if its envelope may go together with the end of this one, else None."""


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """All has gone, and the reply is awaited: the time to prepare the next mail."""


class Overlapping(Protocol):
    """The next mail, whose envelope goes together with the end of the mail in hand (RFC 2920, 3.1)."""

    def first_flight(self) -> bytes:
        """Return the first commands of its envelope, which go now."""

    def not_sent(self, error: SendFailed) -> None:
        """Say that these commands have not gone, or not all of them."""


Request = Intend | TakeNext | ReadAhead
Step = Send | Receive | Poll | Request
#: What a step is answered with: `Response` for `Receive`, that or None for `Poll`, a mail or None for `TakeNext`.
StepAnswer = Any
Steps = Generator[Step, StepAnswer, None]
Replying = Generator[Step, StepAnswer, Response]


class ConnectionLost(Exception):
    """The connection is of no use any more: it ended, no reply came in time, or what came makes no sense."""


class OutOfSync(ConnectionLost):
    """The relay said more than it was asked: its replies cannot be told apart any more."""


class SendFailed(ConnectionLost):
    """Not all could be sent, only `sent` octets or fewer; replies may still be there."""

    def __init__(self, text: str, sent: int = 0) -> None:
        super().__init__(text)
        self.sent = sent


class Refused(Exception):
    """The relay refused `command`: MAIL, RCPT (for all, or as a whole with the reply to `recipient`), or DATA for the
    message.
    """

    def __init__(self, command: CommandName, response: Response | None, recipient: str = "") -> None:
        super().__init__(f"{command.name}: {response}")
        self.command = command
        self.response = response
        self.recipient = recipient

    @property
    def is_leaving(self) -> bool:
        """Whether the relay closes the connection now (RFC 5321, 3.8)."""
        return self.response is not None and self.response.code == 421
