"""What a `Dialogue` asks for and how it ends: the words between it and who runs it.  Pure."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, NamedTuple, Protocol

from zope.sendmail.smtp.protocol.commands import Offers, Verb
from zope.sendmail.smtp.protocol.replies import Response

#: Commands of one flight.  Their replies have to fit into the buffers between us, or both sides wait for ever (RFC
#: 2920, 3.1): a hundred have at most 50 KiB.
MAX_FLIGHT = 100


class Phase(StrEnum):
    """How long to wait; the names are those of `Timeouts`."""

    COMMAND = "command"
    DATA = "data"
    BLOCK = "block"
    FINAL = "final"
    QUIT = "quit"


class Send(NamedTuple):
    """Send these bytes.

    `asks`: they are commands, and everything said before must have been answered.  `more`: further bytes come at once,
    so these may wait for them.
    """

    data: bytes
    phase: Phase
    asks: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class Receive:
    """Give me the next reply."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Intend:
    """The next bytes end the message."""


@dataclass(frozen=True, slots=True)
class Look:
    """Give me a reply that is there already, None if the relay is quiet."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Give me the next mail if its envelope may go together with the end of this one, else None."""


@dataclass(frozen=True, slots=True)
class Spare:
    """All has gone, and nothing is left but to wait for the reply: whatever else there is to do has time now."""


class Rider(Protocol):
    """The next mail."""

    def board(self) -> Steps:
        """Say the first flight of its envelope."""


Step = Send | Receive | Intend | Look | Follow | Spare
#: What is given depends on the step: `Response` for `Receive`, that or None for `Look`, `Rider` or None for `Follow`.
Given = Any
Steps = Generator[Step, Given, None]
Heard = Generator[Step, Given, Response]


class Gone(Exception):
    """The connection is of no use any more: it ended, nobody answered in time, or what came makes no sense."""


class Broken(Gone):
    """What was to be sent has not gone to its end; replies may still be there."""


class Refused(Exception):
    """The relay said no to `about`: MAIL, RCPT (to all, or 421 to `recipient`), or DATA for the message."""

    def __init__(self, about: Verb, response: Response | None, recipient: str = "") -> None:
        super().__init__(f"{about.name}: {response}")
        self.about = about
        self.response = response
        self.recipient = recipient

    @property
    def is_leaving(self) -> bool:
        """Whether the relay closes the connection now (RFC 5321, 3.8)."""
        return self.response is not None and self.response.code == 421


class Manner(Enum):
    """How a mail is said."""

    #: One command, one reply.
    ONE_BY_ONE = auto()
    #: The envelope and DATA in one flight, then the text; the next mail's envelope may come with the end of the text.
    PIPELINED = auto()
    #: The envelope in one flight, then the text in chunks.
    CHUNKED = auto()
    #: Envelope and text in one flight.
    AT_ONCE = auto()


def choose_manner(offers: Offers, *, fits: bool, proven: bool) -> Manner:
    """How to say a mail to a relay with these offers.

    `fits`: envelope and text are no more than the buffers hold; `proven`: the relay took one a moment ago.

    At once only what the buffers hold, and only over a connection that has just worked: there a loss makes the
    outcome unknown for all recipients that were not refused, while otherwise it is known until the last byte.
    Chunks only together with pipelining: alone they save nothing over DATA.
    """
    if not offers.pipelining:
        return Manner.ONE_BY_ONE
    if not offers.chunking:
        return Manner.PIPELINED
    return Manner.AT_ONCE if fits and proven else Manner.CHUNKED
