"""The queues that a console shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.queue import open_queue


@dataclass(frozen=True, slots=True)
class Place:
    """One queue: its number in addresses, its title for people, and the queue itself."""

    number: int
    title: str
    queue: IMailQueue


def open_places(queues: Iterable[str] | Mapping[str, str]) -> list[Place]:
    """Open queues; nothing is made where there is none.

    :param queues: locations, or a mapping of titles to locations
    :raises ValueError: for a location that is none, and if there is no queue at all
    """
    named = dict(queues) if isinstance(queues, Mapping) else {location: location for location in queues}
    if not named:
        raise ValueError("the console shows no queue; name one")
    return [Place(number, title, open_queue(location)) for number, (title, location) in enumerate(named.items())]
