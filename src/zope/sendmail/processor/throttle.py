"""How many connections and how many mails a second a relay takes, as its replies tell."""

from __future__ import annotations

import re
import threading

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: A relay that took something so many seconds ago works; what fails now is one connection too many.
_WORKS = 10.0

#: Seconds for which a relay that did not like so many connections is asked for no more.
_MODEST = 300.0

#: Refusals within so many seconds are about the same connections.
_AT_ONCE = 1.0

_TOO_MANY = re.compile(r"too many|concurren|throttl|rate.?limit|slow down", re.IGNORECASE)


class Throttle:
    """The limits of one relay.  Concurrency: any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._worked_at = self._modest_until = self._next_turn = float("-inf")
        self._modest = 0

    def heard(self, outcome: Outcome, workers: int) -> bool:
        """Learn from an outcome.

        :param workers: how many connections are at work
        :returns: whether it was a complaint about how much we want, and so no fault of the relay
        """
        now = self._clock.monotonic()
        if workers > 1 and (_is_too_many(outcome) or (outcome.fault and now - self._worked_at < _WORKS)):
            if now >= self._modest_until - _MODEST + _AT_ONCE:  # several that are refused at once are one refusal
                self._modest, self._modest_until = max(1, workers // 2), now + _MODEST
                maillog.fewer_connections(outcome.relay, self._modest, _what_was_said(outcome))
            return True
        if outcome.fault is None:
            self._worked_at = now
        return False

    def limit(self, limit: int) -> int:
        """Return how many connections may be open, where `limit` are allowed by the configuration."""
        return min(limit, self._modest) if self._modest and self._clock.monotonic() < self._modest_until else limit

    def turn(self, rate: float | None) -> float:
        """Take the next place in the row that `rate` (mails a second) allows.

        :returns: seconds until then
        """
        if not rate:
            return 0.0
        with self._mutex:
            now = self._clock.monotonic()
            at = max(now, self._next_turn)
            self._next_turn = at + 1.0 / rate
            return at - now

    @property
    def is_ahead(self) -> bool:
        """Whether all turns until now are taken."""
        return self._next_turn > self._clock.monotonic()


def _is_too_many(outcome: Outcome) -> bool:
    """Whether the relay complains about how much we want of it; many recipients of one mail are no such thing."""
    replies = [*outcome.having(Answer.DEFERRED).values(), *([outcome.fault] if outcome.fault else [])]
    return any(
        each.code == 421 or (each.code and not each.is_one_too_many and _TOO_MANY.search(each.text)) for each in replies
    )


def _what_was_said(outcome: Outcome) -> Reply:
    return outcome.fault or next(iter(outcome.having(Answer.DEFERRED).values()))
