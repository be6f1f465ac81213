"""Which messages a processor knows, and when each is due.

Keeps names and times only.  Fresh messages and such that were tried before stand in two lines, so that neither can
starve the other.  Times are monotonic seconds.  Concurrency: the owner's mutex.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from zope.sendmail.maildir import age_key

#: Of this many messages taken, one is from the line of those tried before, while there are fresh ones.
_TURN = 4

# What stands for a time: in a line, not due before somebody says so, leased.
_READY, _PARKED, _TAKEN = 0.0, -1.0, -2.0


class Index:
    """The names in a queue with the time at which each is due."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._fresh: list[tuple[tuple[int, str, str], str]] = []
        self._again: list[tuple[tuple[int, str, str], str]] = []
        self._later: list[tuple[float, str]] = []
        self._turn = 0

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due

    def update(self, keys: Iterable[str], tried: Callable[[str], bool]) -> None:
        """Make `keys` the messages that are there; new ones are due now, those that were `tried` in the second line."""
        present = set(keys)
        for key in [key for key, due in self._due.items() if key not in present and due != _TAKEN]:
            del self._due[key]
        for key in present:
            if key not in self._due:
                self._put(key, tried=tried(key))

    def add(self, key: str) -> None:
        """A message was committed, or somebody changed what is known about it: it is due now."""
        if self._due.get(key) != _TAKEN:
            self._put(key, tried=False)

    def take(self, now: float) -> str | None:
        """The message whose turn it is, or None; it stays out of sight until `put` or `drop`."""
        self._ripen(now)
        while self._fresh or self._again:
            self._turn = (self._turn + 1) % _TURN
            line = self._again if self._again and (self._turn == 0 or not self._fresh) else self._fresh
            key = heapq.heappop(line)[1]
            if self._due.get(key) == _READY:
                self._due[key] = _TAKEN
                return key
        return None

    def put(self, key: str, due: float) -> None:
        """The message is due at this time."""
        self._due[key] = due
        heapq.heappush(self._later, (due, key))

    def park(self, key: str) -> None:
        """The message waits for a person; only `add` brings it back."""
        self._due[key] = _PARKED

    def drop(self, key: str) -> None:
        """The message is gone."""
        self._due.pop(key, None)

    def next_due(self, now: float) -> float | None:
        """Seconds until the next message is due, or None if none is waiting."""
        self._ripen(now)
        if any(self._due.get(key) == _READY for line in (self._fresh, self._again) for _, key in line[:1]):
            return 0.0
        return max(0.0, self._later[0][0] - now) if self._later else None

    def _ripen(self, now: float) -> None:
        """Move what has become due into its line, and forget entries that no longer count."""
        while self._later and (self._later[0][0] <= now or self._due.get(self._later[0][1]) != self._later[0][0]):
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self._put(key, tried=True)
        for line in (self._fresh, self._again):
            while line and self._due.get(line[0][1]) != _READY:
                heapq.heappop(line)

    def _put(self, key: str, *, tried: bool) -> None:
        self._due[key] = _READY
        heapq.heappush(self._again if tried else self._fresh, (age_key(key.rpartition("/")[2]), key))
