"""How many connections a relay takes, as its refusals tell.

Each one that is refused leaves, and no more than are left are opened for a while; then one more is tried, then two, and
so on.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

#: Seconds after which one connection more is tried; twice as long after each time that it was refused, up to an hour.
_MODEST, _MODEST_MOST = 60.0, 3600.0

#: Seconds after which a refusal says nothing about the one before.
_RECENT = 60.0


@dataclass(slots=True)
class ConnectionLimit:
    """How many connections a relay has shown to take."""

    most: float = inf
    raised_at: float = inf
    #: How many more are tried next, and after how many seconds.
    step: int = 1
    after: float = _MODEST
    #: When the last crowd was refused, and how many of it are left at least: a relay that counts what is open refuses
    #: all of them at once, so refusals of mails that had been begun before are about the same crowd.
    crowded_at: float = -inf
    least: int = 1
    #: How many of it had worked side by side before, if it was no larger than that.
    suspect: int = 0
    #: So many are not too many, whatever the relay's words.
    trusted: int = 0

    def limit(self, limit: int, now: float) -> int:
        """Return how many may be open, where `limit` are allowed by the configuration."""
        if self.most == inf:
            return limit
        if now >= self.raised_at:
            self.most, self.step, self.raised_at = self.most + self.step, self.step * 2, now + self.after
            if self.most >= limit:
                self.forget()
                return limit
        return min(limit, int(self.most))

    def crowded(self, workers: int, proven: int, begun: float, now: float) -> bool:
        """Note that one of so many was refused for their number; return whether it can be meant so.

        Some relays have the same words for mails (Microsoft 365): if fewer than had worked are refused again, it is
        about the mails.

        :param proven: connections that have worked side by side since the last refusal
        :param begun: when the mail was begun that met it
        """
        if begun >= self.crowded_at:
            if workers < self.suspect and now - self.crowded_at < _RECENT:
                self.most, self.trusted, self.suspect = max(self.most, self.suspect), self.suspect, 0
            if workers <= max(1, self.trusted) or self.most <= 1:
                return False
            self.crowded_at, self.least = now, max(1, int(min(self.most, workers)) // 2)
            self.suspect = proven if workers <= proven else 0
        self.refused(max(min(self.most, workers) - 1, self.least), now)
        return True

    def refused(self, most: float, now: float) -> None:
        """Note that no more than `most` are taken."""
        if self.step > 1:  # the relay was asked for more, and still does not want more
            self.after = min(self.after * 2, _MODEST_MOST)
        self.most, self.step, self.raised_at = max(1.0, most), 1, now + self.after

    def forget(self) -> None:
        """Note that the relay was not refused for the number of connections."""
        self.most, self.step, self.after = inf, 1, _MODEST
