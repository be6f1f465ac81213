"""How many connections and how many mails a second a relay takes, as its replies tell.

Connections: each one that is refused leaves, and no more than are left are opened for a while; then one more is
tried, then two, and so on.  Mails: after refusals nothing is sent for a moment that grows until a mail is taken again;
what was taken between tells the rate, which is kept from then on, and raised little by little up to where the relay
refused.

A single refusal says nothing about the rate: it may be about its mail (a recipient who gets too much), so the next mail
is tried at once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.lifecycle.throttling import TooMuch, too_much
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: A relay that took something so many seconds ago works; what fails now is one connection too many.
_WORKS = 10.0

#: Seconds after which one connection more is tried; twice as long after each time that it was refused, up to an hour.
_MODEST, _MODEST_MOST = 300.0, 3600.0

#: Faults within so many seconds are about the same connections.
_AT_ONCE = 1.0

#: Seconds for which nothing is sent after the second refusal in a row; longer by the factor after each further one.
_HOLD, _HOLD_FACTOR, _HOLD_MOST = 0.5, 1.5, 300.0

#: A hold of more seconds than this pauses the relay; workers wait for the end of a shorter one.
_PATIENCE = 60.0

#: A mail that was refused so often is deferred for so many seconds, so that another one is tried.
_STRIKES, _ASIDE = 3, 30.0

#: Strikes of so many mails are remembered.
_REMEMBERED = 1000

#: A relay that took nothing for so many seconds is in trouble, and not only asked too often.
_WINDOW = 180.0

#: After so many mails that were taken the rate is raised by the factor: by the second one as long as no rate is known
#: at which the relay refuses; else up to this part of that one, which is doubted after so many seconds.
_RAISE_AFTER, _RAISE, _RAISE_BLINDLY, _CEILING, _DOUBT = 10, 1.03, 1.2, 0.98, 300.0

#: A refusal at the known rate lowers it by this factor; two in a row to no less than the first part, more of them to no
#: less than the second.
_LOWER, _LEAST = 0.95, (0.8, 0.5)

#: Seconds within which what was taken tells the rate.
_RECENT = 60.0

#: From so many mails a second on there is no rate to be kept.
_UNLIMITED = 200.0


class Hearing(Enum):
    """What an outcome says about the relay."""

    #: Nothing about how much is sent.
    USUAL = "usual"
    #: The connection is one too many; others work.
    FEWER_CONNECTIONS = "fewer connections"
    #: Mails come too fast, or this one is too much for the moment.
    SLOWER = "slower"
    #: The relay takes nothing at all for the moment.
    DOWN = "down"


@dataclass(slots=True)
class _Connections:
    """How many connections a relay has shown to take."""

    most: float = inf
    raised_at: float = inf
    #: How many more are tried next, and after how many seconds.
    step: int = 1
    after: float = _MODEST

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

    def refused(self, most: float, now: float) -> None:
        """Note that no more than `most` are taken."""
        if self.step > 1:  # the relay was asked for more, and still does not want more
            self.after = min(self.after * 2, _MODEST_MOST)
        self.most, self.step, self.raised_at = max(1.0, most), 1, now + self.after

    def forget(self) -> None:
        """Note that the relay was not refused for the number of connections."""
        self.most, self.step, self.after = inf, 1, _MODEST


class _Rate:
    """How many mails a second a relay has shown to take."""

    def __init__(self) -> None:
        #: Mails a second, or None as long as there is no need for a rate.
        self.rate: float | None = None
        self._ceiling, self._ceiling_at = inf, -inf
        #: When the first mail was taken since the last refusal, and how many were.
        self._since, self._taken = -inf, 0.0
        self._to_raise = 0
        #: Refusals since a mail was taken, and the time of the last one.
        self.refusals, self._refused_at = 0, -inf
        self.hold = 0.0

    @property
    def is_usual(self) -> bool:
        """Whether there is no rate, and nothing was refused since a mail was taken."""
        return self.rate is None and not self.refusals and not self.hold

    def taken(self, now: float) -> bool:
        """Note that a mail was taken; return whether that ended a hold."""
        if self.hold > 0.0:
            self._learn(now)
            self._since, self._taken, self.refusals, self.hold = now, 1.0, 0, 0.0
            return True
        self.refusals = 0
        if not self._taken:
            self._since = now
        self._taken += 1.0
        if self.rate is not None:
            self._raise(now)
        elif now - self._since > _RECENT:  # what was taken long ago counts less
            self._since, self._taken = (self._since + now) / 2, self._taken / 2
        return False

    def refused(self, now: float) -> float:
        """Note a refusal; return for how many seconds nothing is to be sent."""
        self.refusals += 1
        self._refused_at, self._to_raise = now, 0
        if self.rate is not None and self.refusals == 1:
            if self._taken >= _RAISE_AFTER:  # else what was sent before the hold may be the cause
                self._ceiling, self._ceiling_at = self.rate, now
            self.rate *= _LOWER
            self.hold = min(1.0 / self.rate, _HOLD_MOST)
        elif self.refusals > 1:
            self.hold = min(max(_HOLD, self.hold * _HOLD_FACTOR), _HOLD_MOST)
        return self.hold

    def _learn(self, now: float) -> None:
        """Tell the rate from what was taken: it was too much before the last refusal, and is not any more now."""
        seconds = (self._refused_at + now) / 2 - self._since
        found = self._taken / seconds if self._taken and seconds > 0.0 else inf
        if self.rate is None:
            self.rate = found if found < _UNLIMITED else None
        elif self.refusals > 1:  # the rate is far too high, the more so the longer the hold was
            self.rate = max(min(self.rate, found), self.rate * _LEAST[self.refusals > 2])

    def _raise(self, now: float) -> None:
        self._to_raise += 1
        if self.rate is None or self._to_raise < _RAISE_AFTER:
            return
        self._to_raise = 0
        raised = self.rate * (_RAISE if self._ceiling < inf else _RAISE_BLINDLY)
        if raised <= self._ceiling * _CEILING:
            self.rate = raised
        elif now - self._ceiling_at > _DOUBT:
            self._ceiling, self._ceiling_at = self._ceiling * _RAISE_BLINDLY, now
        if self.rate >= _UNLIMITED:
            self.rate, self._ceiling = None, inf


class Throttle:
    """The limits of one relay.  Concurrency: any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.RLock()
        self._connections = _Connections()
        self._rate = _Rate()
        self._worked_at = self._told_at = -inf
        #: Faults of connections while others worked are one: when the last began, and what was known before.
        self._fault_at = -inf
        self._next_turn = self._not_before = -inf
        #: The mail that was refused last, since one was taken.
        self._refused = ""
        #: Why mails were refused last.
        self.reason: Reply | None = None
        #: Mails that were refused: how often, and how many were taken when that began.
        self._strikes: dict[str, tuple[int, int]] = {}
        self._taken = 0

    # what the relay says

    def heard(self, outcome: Outcome, complaints: Mapping[str, Reply], workers: int, name: str) -> Hearing:
        """Learn from an outcome.

        :param complaints: what `complaints_in` found in it
        :param name: of the mail in its queue
        :param workers: how many connections are at work
        """
        with self._mutex:
            now = self._clock.monotonic()
            complaint = _complaint(outcome, complaints)
            if complaint is not None:
                return self._complaint(complaint, outcome, workers, name, now)
            if outcome.fault is not None:
                return self._fault(outcome.relay, outcome.fault, workers, now)
            self._took(outcome.relay, now)
            return Hearing.USUAL

    def _complaint(self, complaint: Reply, outcome: Outcome, workers: int, name: str, now: float) -> Hearing:
        relay = outcome.relay
        if too_much(complaint) is TooMuch.CONNECTIONS and workers > 1 and self._connections.most > 1:
            self._connections.refused(min(self._connections.most, workers) - 1, now)
            self.reason = complaint
            maillog.fewer_connections(relay, int(self._connections.most), complaint)
            return Hearing.FEWER_CONNECTIONS
        self.reason = complaint
        if name and name == self._refused and self.is_in_doubt:
            return Hearing.SLOWER  # it may be about this one; no other was tried
        self._refused = name
        if now - self._worked_at > _WINDOW:  # there was nothing that could have been too much
            self._rate.refusals += 1
            return Hearing.DOWN if self._rate.refusals > 1 or not outcome.replies else Hearing.SLOWER
        hold = self._rate.refused(now)
        self._not_before = now + hold
        if hold and now - self._told_at > _PATIENCE:
            self._told_at = now
            maillog.fewer_mails(relay, self._rate.rate, complaint)
        return Hearing.SLOWER

    def _fault(self, relay: str, fault: Reply, workers: int, now: float) -> Hearing:
        """While other connections work, a fault is about this one: the relay wants fewer."""
        if workers <= 1 or now - self._worked_at >= _WORKS:
            if now - self._fault_at < _WORKS:  # it was down for all of them
                self._connections.forget()
            return Hearing.USUAL
        if now - self._fault_at > _AT_ONCE:
            self._fault_at = now
            self._connections.refused(min(self._connections.most, workers // 2), now)
            self.reason = fault
            maillog.fewer_connections(relay, int(self._connections.most), fault)
        return Hearing.FEWER_CONNECTIONS

    def _took(self, relay: str, now: float) -> None:
        self._worked_at = now
        self._taken += 1
        self._refused = ""
        if self._rate.taken(now):
            self._not_before = -inf
            if self._rate.rate is not None and self.reason is not None and now - self._told_at > 1.0:
                self._told_at = now
                maillog.fewer_mails(relay, self._rate.rate, self.reason)

    @property
    def is_usual(self) -> bool:
        """Whether nothing was refused because of how much is sent, as far as is remembered."""
        return self._rate.is_usual and not self._strikes and self._connections.most == inf

    def took(self, mails: int, relay: str) -> None:
        """Learn that so many mails were taken."""
        with self._mutex:
            now = self._clock.monotonic()
            for _ in range(mails):
                self._took(relay, now)

    def again(self, name: str) -> float | None:
        """Return what becomes of a mail that was refused because of how much is sent.

        :param name: of the mail in its queue
        :returns: 0.0 if it is to be given back as if untried; the seconds after which it is to be tried again, so that
            others have their turn; None if it is to be charged with an attempt, because others were taken meanwhile
        """
        with self._mutex:
            strikes, taken = self._strikes.get(name, (0, self._taken))
            is_alone = self.is_in_doubt
            if strikes >= _STRIKES:
                return None if is_alone or self._taken > taken else _ASIDE
            if len(self._strikes) >= _REMEMBERED:
                self._strikes.clear()
            self._strikes[name] = strikes + 1, taken
            return _ASIDE if is_alone and strikes else 0.0

    def forget(self, name: str) -> None:
        """Forget that a mail was refused: it was taken."""
        if self._strikes:
            self._strikes.pop(name, None)

    # what may be done

    def limit(self, limit: int) -> int:
        """Return how many connections may be open, where `limit` are allowed by the configuration."""
        if self._connections.most == inf:
            return limit
        with self._mutex:
            return self._connections.limit(limit, self._clock.monotonic())

    def pause(self) -> float:
        """Return the seconds for which the relay is not to be asked at all."""
        return max(0.0, self._not_before - self._clock.monotonic()) if self._rate.hold > _PATIENCE else 0.0

    def end_pause(self) -> None:
        """Let the relay be asked now."""
        with self._mutex:
            self._not_before = -inf

    @property
    def shown(self) -> tuple[int, float, str]:
        """Connections and mails a second that the relay has shown to take, and what it said; 0 for no limit."""
        with self._mutex:
            connections = 0 if self._connections.most == inf else int(self._connections.most)
            rate = self._rate.rate or 0.0
            words = printable(str(self.reason)) if self.reason is not None and (connections or rate) else ""
            return connections, rate, words

    @property
    def has_rate(self) -> bool:
        """Whether mails have to wait for their turn."""
        return self._rate.rate is not None or self._rate.refusals > 1

    def turn(self, rate: float | None) -> float:
        """Take the turn of a mail, if it has come.

        :param rate: mails a second that the configuration allows; None: any number
        :returns: 0.0 if the mail may go now, else the seconds after which to ask again
        """
        with self._mutex:
            now = self._clock.monotonic()
            wait = max(self._not_before, self._next_turn) - now
            if wait > 0:
                return wait
            least = min(rate or inf, self._rate.rate or inf)
            if least < inf:  # in step with the turn before, unless that was missed
                step = 1.0 / least
                self._next_turn = self._next_turn + step if now - self._next_turn < step else now + step
            if self._rate.refusals > 1:  # one mail goes first; the others wait for what becomes of it
                self._not_before = now + _PATIENCE
            return 0.0

    @property
    def is_in_doubt(self) -> bool:
        """Whether one mail was refused, and it is not known whether others would be."""
        return self._rate.refusals == 1 and not self._rate.hold

    @property
    def is_ahead(self) -> bool:
        """Whether all turns until now are taken, so that further connections would only wait."""
        return max(self._next_turn, self._not_before) > self._clock.monotonic()


def _complaint(outcome: Outcome, complaints: Mapping[str, Reply]) -> Reply | None:
    """Return what the relay complained of, if it took no recipient with this mail."""
    if complaints:
        return None if outcome.having(Answer.ACCEPTED) else next(iter(complaints.values()))
    return outcome.fault if outcome.fault is not None and too_much(outcome.fault) else None
