"""What a mail takes along from one queue to another, and what `zope.sendmail.queue.moving` needs of both.

Steps of one mail: *arrive* in the other queue, unseen; *leave* this one (the instant of the move); *appear* there; and
its trace here is forgotten.  Each step is durable before the next begins, and may be repeated.  What is known of mail
that has left, and the keys that are taken, are copied: as often as is wanted, for nothing is noted twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol

from zope.sendmail.lifecycle.mailstatus import SentMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope

#: Octets of a message that are read at a time.
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Traveller:
    """A mail that moves."""

    #: What the queue that it leaves calls it.
    name: str
    #: When it was written, in seconds since the epoch.
    since: float
    state: State
    #: All that happened to it, oldest first.
    records: Sequence[Record]
    envelope: Envelope
    #: Octets of the message.
    size: int
    open: Callable[[], BinaryIO] = field(repr=False)

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the message, of which only a piece is in memory."""
        with self.open() as stream:
            yield from iter(lambda: stream.read(_PIECE), b"")


class Trace(NamedTuple):
    """What a mail that has left leaves behind until it has appeared."""

    name: str
    since: float


class TakenKey(NamedTuple):
    """A key that a committed mail has, which may have left."""

    key: str
    message_id: str
    #: Seconds since the epoch; then it is free.
    until: float


class Departure(NamedTuple):
    """What is known of a mail that has left its queue."""

    message_id: str
    sent: SentMail


@dataclass(slots=True)
class Group:
    """Mails that no processor has, as long as the block lasts that they were given for."""

    mails: list[Traveller] = field(default_factory=list)
    #: Why others cannot be moved now, by their names.
    refused: dict[str, str] = field(default_factory=dict)
    #: How many names were looked at; what was not there any more is nowhere else.
    seen: int = 0

    def is_full(self, most: int, octets: int) -> bool:
        """Return whether no further mail is taken into it."""
        return len(self.mails) >= most or sum(mail.size for mail in self.mails) >= octets


class Transit(Protocol):
    """One queue as mails leave it, or come to it.  Concurrency: any number of processes; what `at_hand` has is locked.

    Trouble with the queue is an `OSError`.
    """

    #: Tells this queue from others, wherever it is looked at from.
    origin: str

    # where mails leave

    def names(self) -> Iterable[str]:
        """Return the mails that are not staged, oldest first."""

    def has(self, name: str) -> bool:
        """Return whether a mail is there."""

    def at_hand(self, names: Sequence[str]) -> AbstractContextManager[Group]:
        """Have the first of these mails locked for the block, as many as are worth while."""

    def leave(self, group: Group, mails: Sequence[Traveller]) -> None:
        """Let these mails of the group be gone, durably, and each leave a trace.  For each of them it is one step."""

    def traces(self) -> Iterable[Trace]:
        """Return what has left and is not forgotten."""

    def forget(self, names: Sequence[str]) -> None:
        """Forget that these have left."""

    # what is known beside the mails

    def keys(self) -> Iterable[TakenKey]:
        """Return the keys that are taken now."""

    def take_keys(self, keys: Sequence[TakenKey]) -> None:
        """Let these keys be taken, durably.  One that is taken or in use here stays as it is."""

    def departures(self) -> Iterable[Departure]:
        """Return what is known of the mails that have left, in pieces of a day."""

    def note_departures(self, departures: Sequence[Departure]) -> None:
        """Keep what is known of these mails; what is noted already, or too old to be kept, is passed over."""

    # where they come to

    def name_for(self, name: str, since: float, origin: str) -> str:
        """Return what a mail is called here that has this name there; always the same."""

    def refusal(self, mail: Traveller, origin: str) -> str:
        """Return why a mail cannot come here; nothing if it can."""

    def arrive(self, mails: Sequence[Traveller], origin: str) -> None:
        """Keep these mails, durably, where neither processors nor operators see them; in the place of what arrived
        under the same names.
        """

    def arrived(self, origin: str) -> Iterable[tuple[str, str]]:
        """Return what has arrived from there and did not appear: its name here, its name there."""

    def appear(self, names: Sequence[str]) -> None:
        """Let these be mails like all others, durably.  Others than those that have arrived are passed over."""

    def discard(self, names: Sequence[str]) -> None:
        """Remove what has arrived and did not appear."""


def digest(name: str) -> str:
    """Return what stands for a name in the name that its mail gets elsewhere: 64 hexadecimal digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
