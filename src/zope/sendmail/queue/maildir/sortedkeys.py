"""Keys of messages in an order, in little memory.  Pure.  Concurrency: that of what has them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class SortedKeys:
    """Keys in an order: by number, and within a number by `order`.  Costs eight bytes a key.

    Only the keys of the first number are kept in order; those that come later and do not fit at its
    end stand in a heap.
    """

    def __init__(self, order: Callable[[str], Any]) -> None:
        self._order = order
        self._buckets: dict[int, list[str]] = {}
        #: Those of which there is a key, as a heap.
        self.numbers: list[int] = []
        #: The number whose keys are in order, how many of them are used up, and those that came out of order.
        self._sorted: int | None = None
        self._used = 0
        self._late: list[tuple[Any, str]] = []

    def add(self, number: int, key: str) -> None:
        """Add a key."""
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [key]
            heapq.heappush(self.numbers, number)
        elif number != self._sorted or (order := self._order(key)) >= self._order(bucket[-1]):
            bucket.append(key)
        else:
            heapq.heappush(self._late, (order, key))

    def count(self, limit: int) -> int:
        """Return how many keys there are, counted up to about so many."""
        found = len(self._late) - self._used
        for bucket in self._buckets.values():
            if found >= limit:
                break
            found += len(bucket)
        return found

    def first(self) -> tuple[int, str] | None:
        """Return the first number and key, or None."""
        if not self.numbers:
            return None
        number = self.numbers[0]
        if number != self._sorted:
            self._sort(number)
        return number, self._late[0][1] if self._late and self._is_late_first() else self._buckets[number][self._used]

    def pop(self) -> None:
        """Remove what `first` said."""
        number = self.numbers[0]
        if self._late and self._is_late_first():
            heapq.heappop(self._late)
        else:
            self._used += 1
        if self._used == len(self._buckets[number]) and not self._late:
            del self._buckets[number]
            heapq.heappop(self.numbers)
            self._sorted, self._used = None, 0

    def _is_late_first(self) -> bool:
        bucket = self._buckets[self.numbers[0]]
        return self._used == len(bucket) or bool(self._late[0][0] < self._order(bucket[self._used]))

    def _sort(self, number: int) -> None:
        """Bring the keys of `number` in order; those of a number that is no longer the first go back."""
        if self._sorted is not None:
            bucket = self._buckets[self._sorted]
            self._buckets[self._sorted] = bucket[self._used :] + [key for _, key in self._late]
            self._used, self._late = 0, []
        self._buckets[number].sort(key=self._order)
        self._sorted = number
