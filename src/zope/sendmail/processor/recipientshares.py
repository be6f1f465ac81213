"""Which relay is next to get a message that goes to several, and which part of it.

Concurrency: called by one thread at a time for each message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.record import Part
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay

#: Seconds after which a message that waits for one of its relays is looked at again for the sake of another.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several relays gets of a message, and how it stands with that."""

    name: str
    relay: Relay
    envelope: Envelope
    part: Part


def next_share(lease: ILease, shares: list[Share], now: float) -> tuple[Relay, Job]:
    """Choose the share that is due and whose relay can take it; else one that is due.

    :param shares: all that are not done, at least one
    :param now: seconds since the epoch
    """
    open_ones = sorted([each for each in shares if not each.part.held] or shares, key=lambda each: each.part.due)
    soonest = min(each.part.wait(now) for each in open_ones)
    due = [each for each in open_ones if each.part.wait(now) <= soonest]
    share = next((each for each in due if each.relay.room()), due[0])
    others: Mapping[str, Part] = {each.name: each.part for each in shares if each is not share}
    patience = min((_patience(each, now) for each in open_ones if each is not share), default=inf)
    return share.relay, Job(lease, share.envelope, share.name, others, patience)


def _patience(share: Share, now: float) -> float:
    """Seconds until this share may go; one that is due now, but whose relay cannot take it, is tried again then."""
    return share.part.wait(now) or max(share.relay.pause(), _PATIENCE)
