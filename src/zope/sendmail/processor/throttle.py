"""How many connections and how many mails a second a relay takes, as its replies tell.

Connections are a `ConnectionLimit`, mails a `MailRate`; here is decided what a reply is about, which worker has to
wait, and which mail steps aside.

A single refusal says nothing about the rate: it may be about its mail (a recipient who gets too much), so the next mail
is tried at once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from weakref import WeakSet

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.lifecycle.throttling import TooMuch, too_much
from zope.sendmail.processor.connectionlimit import ConnectionLimit
from zope.sendmail.processor.mailrate import MailRate
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: A relay that took something so many seconds ago works; what fails now is one connection too many.
_WORKS = 10.0

#: Faults within so many seconds are about the same connections.
_AT_ONCE = 1.0

#: After so many refusals in a row it may be about connections after all.
_DOUBTFUL = 12

#: A hold of more seconds than this pauses the relay; workers wait for the end of a shorter one.
_PATIENCE = 60.0

#: A mail that was refused so often is deferred for so many seconds, so that another one is tried.
_STRIKES, _ASIDE = 3, 30.0

#: Strikes of so many mails are remembered.
_REMEMBERED = 1000

#: A relay that took nothing for so many seconds is in trouble, and not only asked too often.
_WINDOW = 180.0


@dataclass(frozen=True, slots=True)
class MailInHand:
    """The mail that an outcome is about.

    :param name: of the mail in its queue
    :param begun: when it was begun, on the monotonic clock
    :param session: the conversation over which it went
    """

    name: str = ""
    begun: float = inf
    session: object = None


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


class Throttle:
    """The limits of one relay.  Concurrency: any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.RLock()
        self._connections = ConnectionLimit()
        #: Those over which a mail went since one was refused; what is closed is gone from here.
        self._proven: WeakSet[object] = WeakSet()
        self._rate = MailRate()
        self._worked_at = self._told_at = -inf
        #: Faults of connections while others worked are one: when the last began, and what was known before.
        self._fault_at = -inf
        self._next_turn = self._not_before = -inf
        #: The mail that was refused last, since one was taken.
        self._refused = ""
        #: Why mails were refused last.
        self.reason: Reply | None = None
        #: Mails that were refused: how often, and how many had been taken then.
        self._strikes: dict[str, tuple[int, int]] = {}
        self._taken = 0
        #: Mails that were refused beside another one, which says nothing about them.
        self._spared: set[str] = set()

    # what the relay says

    def heard(self, outcome: Outcome, complaints: Mapping[str, Reply], workers: int, hand: MailInHand) -> Hearing:
        """Learn from an outcome.

        :param complaints: what `complaints_in` found in it
        :param workers: how many connections are at work
        """
        with self._mutex:
            now = self._clock.monotonic()
            complaint = _complaint(outcome, complaints)
            if complaint is not None:
                return self._complaint(complaint, outcome, workers, hand, now)
            if outcome.fault is not None:
                return self._fault(outcome.relay, outcome.fault, workers, now)
            if hand.session is not None:
                self._proven.add(hand.session)
            self._took(outcome.relay, hand.begun, now)
            return Hearing.USUAL

    def _complaint(self, complaint: Reply, outcome: Outcome, workers: int, hand: MailInHand, now: float) -> Hearing:
        relay = outcome.relay
        if too_much(complaint) is TooMuch.CONNECTIONS and self._is_crowded(complaint, relay, workers, hand, now):
            return Hearing.FEWER_CONNECTIONS
        self.reason = complaint
        if hand.name and hand.name == self._refused and self.is_in_doubt:
            return Hearing.SLOWER  # it may be about this one; no other was tried
        self._refused = hand.name
        if now - self._worked_at > _WINDOW:  # there was nothing that could have been too much
            self._rate.refusals += 1
            return Hearing.DOWN if self._rate.refusals > 1 or not outcome.replies else Hearing.SLOWER
        self._slow_down(complaint, relay, hand, now)
        return Hearing.SLOWER

    def _is_crowded(self, complaint: Reply, relay: str, workers: int, hand: MailInHand, now: float) -> bool:
        """Note that the relay speaks of connections; return whether it can mean them."""
        if self._rate.refusals > _DOUBTFUL:
            self._connections.trusted = 0
        before, proven = self._connections.most, len(self._proven)
        self._proven.clear()
        if not self._connections.crowded(workers, proven, hand.begun, now):
            return False
        self.reason = complaint
        if self._connections.most < before:
            maillog.fewer_connections(relay, int(self._connections.most), complaint)
        return True

    def _slow_down(self, complaint: Reply, relay: str, hand: MailInHand, now: float) -> None:
        refusals = self._rate.refusals
        hold = self._rate.refused(hand.begun, now)
        if self._rate.refusals == refusals:
            self._spared.add(hand.name)
        self._not_before = now + hold
        if hold and now - self._told_at > _PATIENCE:
            self._told_at = now
            maillog.fewer_mails(relay, self._rate.rate, complaint)

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

    def _took(self, relay: str, begun: float, now: float, mails: int = 1) -> None:
        self._worked_at = now
        self._taken += mails
        self._refused = ""
        if self._rate.taken(begun, now, mails):
            self._not_before = -inf
            if self._rate.rate is not None and self.reason is not None and now - self._told_at > 1.0:
                self._told_at = now
                maillog.fewer_mails(relay, self._rate.rate, self.reason)

    @property
    def is_usual(self) -> bool:
        """Whether nothing was refused because of how much is sent, as far as is remembered."""
        return self._rate.is_usual and not self._strikes and self._connections.most == inf

    def took(self, mails: int, relay: str) -> None:
        """Learn that so many mails were taken, some moments ago."""
        with self._mutex:
            self._took(relay, -inf, self._clock.monotonic(), mails)

    def again(self, name: str) -> float | None:
        """Return what becomes of a mail that was refused because of how much is sent.

        :param name: of the mail in its queue
        :returns: 0.0 if it is to be given back as if untried; the seconds after which it is to be tried again, so that
            others have their turn; None if it is to be charged with an attempt, because others were taken meanwhile
        """
        with self._mutex:
            if name in self._spared:
                self._spared.discard(name)
                return 0.0
            strikes, taken = self._strikes.get(name, (0, self._taken))
            is_alone = self.is_in_doubt
            if strikes >= _STRIKES:
                self._strikes[name] = strikes, self._taken
                return None if is_alone or self._taken > taken else _ASIDE
            if len(self._strikes) >= _REMEMBERED:
                self._strikes.clear()
            self._strikes[name] = strikes + 1, self._taken
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
