"""Which messages a processor knows, and when each is due.

Keeps names and times only, in less than 200 bytes a message.  Each priority has a lane with two lines, for fresh
messages and for such that were tried before, so that neither can starve the other.  Times are monotonic seconds, but
for those that senders set.  Concurrency: the queue's mutex.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from math import inf

from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.message.terms import Priority, marks_in
from zope.sendmail.queue.maildir.layout import by_age, second_of
from zope.sendmail.queue.maildir.sortedkeys import SortedKeys

#: Of so many messages taken, one is from the line of those tried before, while there are fresh ones.
_TURN = 4

# What stands for a time: in a line, leased, parked.
_READY, _TAKEN, _PARKED = 0.0, -1.0, -2.0

#: Messages that are due within the same so many seconds are sorted only when their time comes.
_SPAN = 8.0


class _Lane:
    """What is due of one priority."""

    def __init__(self) -> None:
        self.fresh = SortedKeys(by_age)
        self.again = SortedKeys(by_age)
        self.turn = 0


_NORMAL = Priority.NORMAL.rank


def _rank_of(key: str) -> int:
    """Return the rank of the priority that the name tells; most names tell none."""
    return marks_in(key).priority.rank if "," in key else _NORMAL


class Index:
    """The names in a queue with the time at which each is due."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._normal = _Lane()
        #: All lanes, by rank; those of other priorities are made with the first message of theirs.
        self._lanes: dict[int, _Lane] = {_NORMAL: self._normal}
        #: Whose turn it is; shared with what else gives out messages.
        self.precedence = Precedence()
        self._later = SortedKeys(lambda key: self._due.get(key, 0.0))
        #: Whether the message that was taken last stood among those tried before.
        self.was_tried = False
        #: Whether there was a message whose name tells what its sender asked for.
        self.knows_marked = False
        #: By relay and rank.
        self._parked: dict[str, dict[int, SortedKeys]] = {}
        #: When messages are to be given up, in seconds since the epoch, and their names; those that are gone are passed
        #: over.
        self._expiring: list[tuple[float, str]] = []
        #: The same for messages whose names do not tell it.
        self._expiries: dict[str, float] = {}
        #: What is in those lines and will not wait longer than until it is due: relay and key.
        self._impatient: set[tuple[str, str]] = set()
        #: Those unparked, as their turn has come, and not parked or tried since.
        self._in_turn: set[str] = set()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due

    def update(self, keys: Iterable[str], when: Callable[[str], float | None]) -> None:
        """Make `keys` the messages that are there.

        `when` says of a new one at what time it is probably due, or None if it was never tried.
        """
        count = 0
        present = keys if isinstance(keys, list) else list(keys)
        for key in present:
            count += 1
            if key not in self._due:
                due = when(key)
                self._note_expiry(key)
                if due is None:
                    self._ready(key)
                else:
                    self.put(key, due)
        if count < len(self._due):
            self._forget_others(set(present))

    def _forget_others(self, present: set[str]) -> None:
        for key in [key for key, due in self._due.items() if key not in present and due != _TAKEN]:
            del self._due[key]
            self._in_turn.discard(key)

    def add(self, key: str) -> None:
        """Make a message due now: it was committed, or an operator has changed it."""
        due = self._due.get(key)
        if due is None:
            self._note_expiry(key)
        if due not in (_TAKEN, _READY):
            self._ready(key)

    def first_fresh(self, rank: int = _NORMAL) -> str | None:
        """Return the oldest message of a priority that is due and was never tried."""
        return self._first(self._lanes[rank].fresh) if rank in self._lanes else None

    def is_usual(self, now: float) -> bool:
        """Return whether no message is due that has another priority than the usual one."""
        if not self.knows_marked:
            return True
        self._ripen(now)
        return len(self._lanes) == 1 or not any(
            self._has_due(self._lanes[rank]) for rank in self._lanes if rank != _NORMAL
        )

    def due_ranks(self, now: float) -> list[int]:
        """Return the ranks of the priorities of which a message is due, ascending."""
        self._ripen(now)
        return [rank for rank in sorted(self._lanes) if self._has_due(self._lanes[rank])]

    def has_fresh(self) -> bool:
        """Return whether a message that was never tried is due."""
        return any(self._first(lane.fresh) is not None for lane in self._lanes.values())

    def count_due(self, limit: int) -> int:
        """Return about how many messages are due, counted up to so many; of those that are gone some may count."""
        lines = [line for lane in self._lanes.values() for line in (lane.fresh, lane.again)]
        return min(limit, sum(line.count(limit) for line in lines))

    def take(self, now: float, rank: int | None = None) -> str | None:
        """Return the message whose turn it is, or None; it stays out of sight until `put` or `drop`.

        :param rank: that of the priority whose turn it is; None: whichever it is.
        """
        if self._later.numbers:
            self._ripen(now)
        if rank is not None:
            lane = self._lanes.get(rank, self._normal)
        else:
            lane = self._normal if len(self._lanes) == 1 else self._next_lane()
        fresh, again = self._first(lane.fresh), self._first(lane.again) if lane.again.numbers else None
        lane.turn = (lane.turn + 1) % _TURN
        if again is not None and (fresh is None or lane.turn == 0):
            key, line, self.was_tried = again, lane.again, True
        elif fresh is not None:
            key, line, self.was_tried = fresh, lane.fresh, False
        else:
            return None
        line.pop()
        self._due[key] = _TAKEN
        return key

    def _next_lane(self) -> _Lane:
        """Return the lane whose turn it is; any if nothing is due."""
        waiting = [rank for rank in sorted(self._lanes) if self._has_due(self._lanes[rank])]
        return self._lanes[self.precedence.next(waiting)] if waiting else self._normal

    def _has_due(self, lane: _Lane) -> bool:
        return self._first(lane.fresh) is not None or self._first(lane.again) is not None

    def restore(self, key: str) -> None:
        """Put a message that was taken and not touched back among the fresh ones."""
        if self._due.get(key) == _TAKEN:
            if "," in key or self._expiries:
                self._note_expiry(key)
            self._ready(key)

    def put(self, key: str, due: float) -> None:
        """Make a message due at this time."""
        due = max(due, _SPAN)  # smaller numbers stand for something else
        self.knows_marked = self.knows_marked or "," in key
        if ("," in key or self._expiries) and self._due.get(key) == _TAKEN:
            self._note_expiry(key)
        self._in_turn.discard(key)
        self._due[key] = due
        self._later.add(int(due // _SPAN), key)

    def park(self, key: str, relay: str, due: float = inf) -> None:
        """Let a message wait until `unpark`, or until it is due."""
        if due < inf:
            self.put(key, due)
            if (relay, key) in self._impatient:  # it stands there since it was parked before
                return
            self._impatient.add((relay, key))
        else:
            if ("," in key or self._expiries) and self._due.get(key) == _TAKEN:
                self._note_expiry(key)
            self._in_turn.discard(key)
            self._due[key] = _PARKED
        self._parked.setdefault(relay, {}).setdefault(_rank_of(key), SortedKeys(by_age)).add(by_age(key)[0], key)

    def unpark(self, relay: str, limit: int) -> int:
        """Make up to `limit` messages parked for `relay` due now; return how many they were."""
        lines, count = self._parked.get(relay, {}), 0
        while lines and count < limit:
            rank = self.precedence.next(sorted(lines)) if len(lines) > 1 else next(iter(lines))
            key = self._first_parked(relay, lines[rank])
            if key is None:
                del lines[rank]
                continue
            self._leave_line(relay, lines[rank], key)
            self._ready(key)
            self._in_turn.add(key)
            count += 1
        if relay in self._parked and all(line.first() is None for line in lines.values()):
            del self._parked[relay]
        return count

    def _first_parked(self, relay: str, line: SortedKeys) -> str | None:
        """Return the first message of a line of a relay; what is gone, or was wanted meanwhile, is passed over."""
        while (first := line.first()) is not None and not self._is_parked(relay, first[1]):
            self._leave_line(relay, line, first[1])
        return None if first is None else first[1]

    def _leave_line(self, relay: str, line: SortedKeys, key: str) -> None:
        line.pop()
        self._impatient.discard((relay, key))

    def _is_parked(self, relay: str, key: str) -> bool:
        due = self._due.get(key, _READY)
        return due not in (_READY, _TAKEN) if (relay, key) in self._impatient else due == _PARKED

    def is_behind(self, key: str, relay: str) -> bool:
        """Return whether a message that is parked for `relay` goes before this one; see `ILease.give_way`."""
        lines = self._parked.get(relay)
        if lines is None:
            return False
        rank = _rank_of(key)
        own = self._first_parked(relay, lines[rank]) if rank in lines else None
        if own is not None and by_age(own) < by_age(key):
            return True
        higher = [] if key in self._in_turn else [line for each, line in lines.items() if each < rank]
        return any(self._first_parked(relay, line) is not None for line in higher)

    def parked(self) -> Collection[str]:
        """Return the relays for which messages are parked."""
        return list(self._parked)

    def move(self, key: str, new: str) -> None:
        """Take note that a message that was taken has another key now."""
        if key in self._expiries:
            self._expiries[new] = self._expiries[key]
        self.drop(key)
        self._due[new] = _TAKEN

    def drop(self, key: str) -> None:
        """Forget a message that is gone."""
        self._due.pop(key, None)
        self._expiries.pop(key, None)
        self._in_turn.discard(key)

    def drop_all(self, keys: Iterable[str]) -> None:
        """Forget messages that are gone."""
        if self._expiries or self._in_turn:
            for key in keys:
                self.drop(key)
        else:
            for key in keys:
                self._due.pop(key, None)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the next message is due, or None if none is waiting."""
        self._ripen(now)
        if any(self._has_due(lane) for lane in self._lanes.values()):
            return 0.0
        later = self._later.first()
        return None if later is None else max(0.0, self._due[later[1]] - now)

    def _first(self, line: SortedKeys) -> str | None:
        """Return the first key that is still in the line; what was dropped or taken meanwhile is passed over."""
        while (first := line.first()) is not None:
            if self._due.get(first[1]) == _READY:
                return first[1]
            line.pop()
        return None

    def _ripen(self, now: float) -> None:
        """Move what has become due to those tried before, and pass over what no longer counts."""
        while (first := self._later.first()) is not None:
            number, key = first
            due = self._due.get(key, _READY)
            counts = due >= _SPAN and int(due // _SPAN) == number
            if counts and due > now:
                return
            self._later.pop()
            if counts:
                self._ready(key, tried=True)

    def _ready(self, key: str, *, tried: bool = False) -> None:
        self._due[key] = _READY
        if "," not in key:
            lane = self._normal
        else:
            self.knows_marked = True
            lane = self._lanes.setdefault(_rank_of(key), _Lane())
        (lane.again if tried else lane.fresh).add(second_of(key), key)

    # what is given up

    def _note_expiry(self, key: str) -> None:
        expires = marks_in(key).expires if "," in key else inf
        if self._expiries:
            expires = self._expiries.get(key, expires)
        if expires < inf:
            heapq.heappush(self._expiring, (expires, key))

    def expect(self, key: str, expires: float) -> None:
        """Take note that a message is to be given up at this moment, in seconds since the epoch."""
        if marks_in(key).expires != expires:
            self._expiries[key] = expires

    def spare(self, key: str, due: float, moment: float) -> None:
        """Make a message due at this time that cannot be given up before `moment`, seconds since the epoch."""
        self._due[key] = _PARKED
        self.put(key, due)
        heapq.heappush(self._expiring, (moment, key))

    def next_expiry(self) -> float | None:
        """Return when the next message is to be given up, in seconds since the epoch."""
        while self._expiring and self._due.get(self._expiring[0][1], _TAKEN) == _TAKEN:
            heapq.heappop(self._expiring)
        return self._expiring[0][0] if self._expiring else None

    def take_expired(self, moment: float) -> str | None:
        """Return a message that is to be given up at this moment or before, or None.

        It stays out of sight until `put` or `drop`.
        """
        expires = self.next_expiry()
        if expires is None or expires > moment:
            return None
        _, key = heapq.heappop(self._expiring)
        self._due[key] = _TAKEN
        return key

    def planned(self) -> list[str]:
        """Return the messages whose names tell when they leave, and that wait."""
        return [key for key, due in self._due.items() if due >= _SPAN and ",T=" in key]
