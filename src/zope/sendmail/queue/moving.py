"""Moves mail from one queue to another, with its history and its state.

Nothing is there twice, whenever a process dies: a mail is in the one queue, until it has left it in one step, and from
then on in the other.  What a death leaves between is finished by the next move of the same queues; until then the
doctors of both tell of it.  Processors of both queues may be at work.

Which keys are taken, and what has left, is known in both queues afterwards: an application that still writes to the one
sends nothing twice either.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.transit import Transit

#: So many names are looked at together; how many mails are locked at a time is up to their queue.
_AT_ONCE = 50

#: So many keys, or mails that have left, are copied together.
_COPIED = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one mail."""

    name: str
    #: What the other queue calls it.
    there: str
    #: Why it stays where it is; empty: it has moved.
    error: str = ""


def transits_of(queue: object, location: str) -> Sequence[Transit]:
    """Return the ways in and out of a queue: one for each of its places.

    :raises QueueError: if it has none, because it lives in one process only.
    """
    transits: Sequence[Transit] | None = getattr(queue, "transits", None)
    if transits is None:
        raise QueueError(f"mail cannot be moved from or to {location}")
    return transits


def move(sources: Sequence[Transit], target: Transit) -> Iterator[Moved]:
    """Move all mail; yield what became of each, as soon as that is sure.

    Mail that comes in meanwhile stays.

    :raises QueueError: if both are the same queue, or one of them refuses.
    """
    _refuse_itself(sources, target)
    for source in sources:
        _copy(source.keys(), target.take_keys)
        yield from _finish(source, target)
        names = iter(list(source.names()))
        while batch := list(itertools.islice(names, _AT_ONCE)):
            while batch:
                done, count = _move_some(source, target, batch)
                yield from done
                batch = batch[count:]
        _copy(source.keys(), target.take_keys)  # of what was written meanwhile
        _copy(source.departures(), target.note_departures)


def _copy(known: Iterable[_T], keep: Callable[[Sequence[_T]], None]) -> None:
    """Let one queue keep what the other knows."""
    rest = iter(known)
    while batch := list(itertools.islice(rest, _COPIED)):
        keep(batch)


def rehearse(sources: Sequence[Transit], target: Transit) -> Iterator[Moved]:
    """Yield what `move` would do, as far as can be seen; nothing is changed."""
    _refuse_itself(sources, target)
    for source in sources:
        left = [Moved(each.name, target.name_for(*each, source.origin)) for each in source.traces()]
        yield from left
        yield from (Moved(name, "") for name in source.names())


def _refuse_itself(sources: Sequence[Transit], target: Transit) -> None:
    if any(source.origin == target.origin for source in sources):
        raise QueueError("both are the same queue; nothing can be moved")


def _finish(source: Transit, target: Transit) -> Iterator[Moved]:
    """Finish what another move began that was killed, or is at work besides."""
    arrived = list(target.arrived(source.origin))
    yield from _come_up(source, target, [(each.name, each.since) for each in source.traces()])
    for there, name in arrived:
        # In this order: a mail that has left since has a trace, or has appeared.
        if not source.has(name) and name not in {each.name for each in source.traces()}:
            target.discard([there])  # it was sent, or removed, from where it came


def _move_some(source: Transit, target: Transit, names: Sequence[str]) -> tuple[list[Moved], int]:
    """Move the first of these mails together; return what became of them, and how many they were."""
    with source.at_hand(names) as group:
        refused = {mail.name: why for mail in group.mails if (why := target.refusal(mail, source.origin))}
        mails = [mail for mail in group.mails if mail.name not in refused]
        if mails:
            target.arrive(mails, source.origin)
            source.leave(group, mails)
    stay = [Moved(name, "", why) for name, why in (group.refused | refused).items()]
    return [*stay, *_come_up(source, target, [(mail.name, mail.since) for mail in mails])], group.seen


def _come_up(source: Transit, target: Transit, mails: Iterable[tuple[str, float]]) -> Iterator[Moved]:
    """Let what has left one queue appear in the other; then nothing is left of it here."""
    mails = iter(mails)
    while batch := list(itertools.islice(mails, _AT_ONCE)):
        there = [target.name_for(name, since, source.origin) for name, since in batch]
        target.appear(there)
        source.forget([name for name, _ in batch])
        yield from (Moved(name, new) for (name, _), new in zip(batch, there, strict=True))
