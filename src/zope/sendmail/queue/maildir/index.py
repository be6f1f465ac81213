"""Which messages a processor knows, and when each is due.

Keeps names and times only, in less than 200 bytes a message.  Fresh messages and such that were tried before stand in
two lines, so that neither can starve the other.  Times are monotonic seconds.  Concurrency: the queue's mutex.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Any

from zope.sendmail.queue.maildir.layout import by_age

#: Of so many messages taken, one is from the line of those tried before, while there are fresh ones.
_TURN = 4

# What stands for a time: in a line, leased, parked.
_READY, _TAKEN, _PARKED = 0.0, -1.0, -2.0

#: Messages that are due within the same so many seconds are sorted only when their time comes.
_SPAN = 8.0


class _Line:
    """Keys in an order: by number, and within a number by `order`.  Costs eight bytes a key.

    Only the keys of the first number are kept in order; those that come later and do not fit at its
    end stand in a heap.
    """

    def __init__(self, order: Callable[[str], Any]) -> None:
        self._order = order
        self._buckets: dict[int, list[str]] = {}
        self._numbers: list[int] = []
        #: The number whose keys are in order, how many of them are used up, and those that came out of order.
        self._sorted: int | None = None
        self._used = 0
        self._late: list[tuple[Any, str]] = []

    def add(self, number: int, key: str) -> None:
        """Add a key."""
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [key]
            heapq.heappush(self._numbers, number)
        elif number != self._sorted or (order := self._order(key)) >= self._order(bucket[-1]):
            bucket.append(key)
        else:
            heapq.heappush(self._late, (order, key))

    def first(self) -> tuple[int, str] | None:
        """Return the first number and key, or None."""
        if not self._numbers:
            return None
        number = self._numbers[0]
        if number != self._sorted:
            self._sort(number)
        return number, self._late[0][1] if self._late and self._is_late_first() else self._buckets[number][self._used]

    def pop(self) -> None:
        """Remove what `first` said."""
        number = self._numbers[0]
        if self._late and self._is_late_first():
            heapq.heappop(self._late)
        else:
            self._used += 1
        if self._used == len(self._buckets[number]) and not self._late:
            del self._buckets[number]
            heapq.heappop(self._numbers)
            self._sorted, self._used = None, 0

    def _is_late_first(self) -> bool:
        bucket = self._buckets[self._numbers[0]]
        return self._used == len(bucket) or bool(self._late[0][0] < self._order(bucket[self._used]))

    def _sort(self, number: int) -> None:
        """Bring the keys of `number` in order; those of a number that is no longer the first go back."""
        if self._sorted is not None:
            bucket = self._buckets[self._sorted]
            self._buckets[self._sorted] = bucket[self._used :] + [key for _, key in self._late]
            self._used, self._late = 0, []
        self._buckets[number].sort(key=self._order)
        self._sorted = number


class Index:
    """The names in a queue with the time at which each is due."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._fresh = _Line(by_age)
        self._again = _Line(by_age)
        self._later = _Line(lambda key: self._due.get(key, 0.0))
        self._turn = 0
        #: Whether the message that was taken last stood among those tried before.
        self.was_tried = False
        self._parked: dict[str, _Line] = {}
        #: What is in those lines and will not wait longer than until it is due: relay and key.
        self._impatient: set[tuple[str, str]] = set()

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
                if due is None:
                    self._ready(key, self._fresh)
                else:
                    self.put(key, due)
        if count < len(self._due):
            self._forget_others(set(present))

    def _forget_others(self, present: set[str]) -> None:
        for key in [key for key, due in self._due.items() if key not in present and due != _TAKEN]:
            del self._due[key]

    def add(self, key: str) -> None:
        """Make a message due now: it was committed, or an operator has changed it."""
        if self._due.get(key) not in (_TAKEN, _READY):
            self._ready(key, self._fresh)

    def has_fresh(self) -> bool:
        """Return whether a message that was never tried is due."""
        return self._first(self._fresh) is not None

    def take(self, now: float) -> str | None:
        """Return the message whose turn it is, or None; it stays out of sight until `put` or `drop`."""
        self._ripen(now)
        fresh, again = self._first(self._fresh), self._first(self._again)
        self._turn = (self._turn + 1) % _TURN
        if again is not None and (fresh is None or self._turn == 0):
            key, line, self.was_tried = again, self._again, True
        elif fresh is not None:
            key, line, self.was_tried = fresh, self._fresh, False
        else:
            return None
        line.pop()
        self._due[key] = _TAKEN
        return key

    def put(self, key: str, due: float) -> None:
        """Make a message due at this time."""
        due = max(due, _SPAN)  # smaller numbers stand for something else
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
            self._due[key] = _PARKED
        self._parked.setdefault(relay, _Line(by_age)).add(by_age(key)[0], key)

    def unpark(self, relay: str, limit: int) -> int:
        """Make up to `limit` messages parked for `relay` due now; return how many they were."""
        line, count = self._parked.get(relay), 0
        while line is not None and count < limit and (first := line.first()) is not None:
            line.pop()
            if self._is_parked(relay, first[1]):  # else it is gone, or it was wanted meanwhile
                self._ready(first[1], self._fresh)
                count += 1
        if line is not None and line.first() is None:
            del self._parked[relay]
        return count

    def _is_parked(self, relay: str, key: str) -> bool:
        due = self._due.get(key, _READY)
        if (relay, key) not in self._impatient:
            return due == _PARKED
        self._impatient.discard((relay, key))
        return due not in (_READY, _TAKEN)

    def parked(self) -> Collection[str]:
        """Return the relays for which messages are parked."""
        return list(self._parked)

    def drop(self, key: str) -> None:
        """Forget a message that is gone."""
        self._due.pop(key, None)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the next message is due, or None if none is waiting."""
        self._ripen(now)
        if self._first(self._fresh) is not None or self._first(self._again) is not None:
            return 0.0
        later = self._later.first()
        return None if later is None else max(0.0, self._due[later[1]] - now)

    def _first(self, line: _Line) -> str | None:
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
                self._ready(key, self._again)

    def _ready(self, key: str, line: _Line) -> None:
        self._due[key] = _READY
        line.add(by_age(key)[0], key)
