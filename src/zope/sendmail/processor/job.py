"""A message, and the part of its envelope that one relay gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import BinaryIO

from zope.interface import implementer

from zope.sendmail.interfaces import ILease, IOrdinaryJob
from zope.sendmail.lifecycle.record import Part
from zope.sendmail.message.envelope import Envelope


@contextlib.contextmanager
def given_back_in_trouble(leases: Iterable[ILease]) -> Iterator[None]:
    """Release the leases that are still among these if the block raises, as if nothing had been tried.

    Trouble with that is passed over: that of the block is told.
    """
    try:
        yield
    except BaseException:
        for lease in leases:
            with contextlib.suppress(Exception):
                lease.release()
        raise


@implementer(IOrdinaryJob)
@dataclass(slots=True, eq=False)
class Job:
    """One attempt that is to be made: a lease on a message, and the recipients that one relay is asked about."""

    lease: ILease
    envelope: Envelope
    #: The name of this part of the message, if the message has, or had, several; else None.
    part: str | None = None
    #: How it stands with the other parts of the message that are not done.
    others: Mapping[str, Part] = field(default_factory=dict)
    #: Seconds after which another part may go if this one cannot.
    patience: float = inf
    #: When a worker took it, on the monotonic clock.
    taken_at: float = 0.0
    #: Whether the last byte of the message may have gone.
    intended: bool = False
    #: The message, if its lease is an `IOrdinaryLease` and all of it goes to one relay; see `IOrdinaryJob`.
    text: bytes | None = None

    def open(self) -> BinaryIO:
        """Return the message as a seekable stream at its beginning; see `IJob`."""
        return self.lease.open()

    def intend(self) -> None:
        """Note that the last byte is about to go; see `IJob`.

        :raises LeaseLost: if it must not go
        """
        self.lease.intend()
        self.intended = True

    def park(self, relay: str) -> None:
        """End the lease until the relay of this name can take the message."""
        self.lease.park(relay, self.patience)

    def give_way(self, relay: str) -> bool:
        """Park the message if one that is parked for the relay goes before it; return whether that was so."""
        return self.lease.give_way(relay, self.patience)
