"""The mails that one processor leaves alone until their relay can be used again.  Pure; times are monotonic seconds."""

from __future__ import annotations

import heapq
import uuid
from collections import Counter
from collections.abc import Iterable

from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.message.terms import Priority


class Parking:
    """Mails by the relay that they wait for.  Concurrency: one caller at a time."""

    def __init__(self) -> None:
        self._relays: dict[uuid.UUID, tuple[str, float]] = {}
        #: By relay, and by the rank of the priority.
        self._heaps: dict[str, dict[int, list[uuid.UUID]]] = {}
        self._precedence = Precedence()
        self._ranks: dict[uuid.UUID, int] = {}
        self._counts: Counter[str] = Counter()
        self._until: list[tuple[float, uuid.UUID]] = []
        #: These may be claimed; no other claim sees them again.
        self.wanted: dict[uuid.UUID, None] = {}

    def park(self, mail: uuid.UUID, relay: str, until: float, rank: int = Priority.NORMAL.rank) -> None:
        """Leave a mail alone until `unpark`, and not longer than until then.

        :param rank: that of its priority.
        """
        self._leave(mail)
        self._relays[mail] = (relay, until)
        self._counts[relay] += 1
        self._ranks[mail] = rank
        heapq.heappush(self._heaps.setdefault(relay, {}).setdefault(rank, []), mail)
        self.wanted.pop(mail, None)
        if until < float("inf"):
            heapq.heappush(self._until, (until, mail))

    def unpark(self, relay: str, limit: int) -> int:
        """Want up to `limit` mails that wait for a relay, oldest first in each priority; return how many there were."""
        heaps, count = self._heaps.get(relay, {}), 0
        while heaps and count < limit:
            rank = self._precedence.next(sorted(heaps))
            mail = heapq.heappop(heaps[rank])
            if not heaps[rank]:
                del heaps[rank]
            if self._relays.get(mail, ("", 0.0))[0] == relay:  # else it has left this heap in another way
                self.want([mail])
                count += 1
        return count

    def is_behind(self, mail: uuid.UUID, rank: int, relay: str, *, in_turn: bool) -> bool:
        """Return whether a mail that waits for a relay goes before this one; see `ILease.give_way`.

        :param rank: that of the priority of this one.
        :param in_turn: whether this one was unparked.
        """
        for each in sorted(self._heaps.get(relay, ())):
            if each > rank or (each < rank and in_turn):
                continue
            first = self._first(relay, each)
            if first is not None and (each < rank or first < mail):
                return True
        return False

    def _first(self, relay: str, rank: int) -> uuid.UUID | None:
        """Return the oldest of a priority that waits for a relay; what has left in another way is passed over."""
        heap = self._heaps[relay][rank]
        while heap and self._relays.get(heap[0], ("", 0.0))[0] != relay:
            heapq.heappop(heap)
        if not heap:
            del self._heaps[relay][rank]
            return None
        return heap[0]

    def want(self, mails: Iterable[uuid.UUID]) -> None:
        """Do not leave these alone any more."""
        for mail in mails:
            if self._leave(mail):
                self.wanted[mail] = None

    def _leave(self, mail: uuid.UUID) -> bool:
        """Return whether it was parked; it is not any more."""
        relay, _ = self._relays.pop(mail, (None, 0.0))
        if relay is None:
            return False
        self._counts[relay] -= 1
        if not self._counts[relay]:
            del self._counts[relay], self._heaps[relay]
        return True

    def expire(self, now: float) -> None:
        """Want those whose time is over."""
        while self._until and self._until[0][0] <= now:
            until, mail = heapq.heappop(self._until)
            if self._relays.get(mail, ("", 0.0))[1] == until:
                self.want([mail])

    def next_expiry(self) -> float | None:
        """Return when the first one is wanted by itself."""
        while self._until and self._relays.get(self._until[0][1], ("", 0.0))[1] != self._until[0][0]:
            heapq.heappop(self._until)
        return self._until[0][0] if self._until else None

    def has(self, mail: uuid.UUID) -> bool:
        """Return whether a mail is parked."""
        return mail in self._relays

    def relays(self) -> list[str]:
        """Return the relays for which mails are parked."""
        return list(self._counts)

    def parked(self) -> list[uuid.UUID]:
        """Return all that is parked."""
        return list(self._relays)

    def take_wanted(self, limit: int) -> list[uuid.UUID]:
        """Return the oldest that are wanted; they are not known here any more."""
        mails = heapq.nsmallest(limit, self.wanted, key=lambda mail: (self._ranks.get(mail, 0), mail))
        for mail in mails:
            del self.wanted[mail]
            self._ranks.pop(mail, None)
        return mails
