"""What has failed lately is tried last: addresses of a relay that do not answer, mechanisms that it refuses.

So that the same trouble is not met at every connection.  Nothing is left out for good: what failed is still tried when
nothing else is left, and has its old place again after a time.  Concurrency: any thread; a process after a fork goes on
with what its parent knew.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import inf
from typing import TypeVar

from zope.sendmail.system.clock import Clock

_Thing = TypeVar("_Thing", bound=Hashable)

#: More than these are not remembered: mail may go to many relays.
_MOST = 10_000


class RecentFailures:
    """Remembers failures for `seconds`."""

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self._seconds = seconds
        self._clock = clock or Clock()
        self._until: dict[Hashable, float] = {}

    def note(self, scope: Hashable, thing: Hashable) -> None:
        """Remember that `thing` has failed within `scope`, such as a relay."""
        if len(self._until) >= _MOST:
            self._until.clear()
        self._until[scope, thing] = self._clock.monotonic() + self._seconds

    def forget(self, scope: Hashable, thing: Hashable) -> None:
        """Forget it: it works again."""
        self._until.pop((scope, thing), None)

    def has(self, scope: Hashable, thing: Hashable) -> bool:
        """Return whether `thing` has failed lately."""
        return self._until.get((scope, thing), -inf) > self._clock.monotonic()

    def clear(self) -> None:
        """Forget everything."""
        self._until.clear()

    def arranged(self, scope: Hashable, things: Iterable[_Thing]) -> list[_Thing]:
        """Return `things` in their order, those that have failed lately last."""
        now = self._clock.monotonic()
        return sorted(things, key=lambda thing: self._until.get((scope, thing), now) > now)
