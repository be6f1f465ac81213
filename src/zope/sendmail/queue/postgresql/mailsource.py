"""Which mails a processor looks for: those of each priority, fresh ones and those that were tried, in their order.

Fresh mails go in the order in which they were written; behind a cursor, so that what has just gone is not passed over
again and again.  Mails that wait for a relay are left alone (`Parking`), until they are wanted.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from math import inf

from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.lease import PostgreSQLLease
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.parking import Parking
from zope.sendmail.system.clock import Clock

_NONE = uuid.UUID(int=0)

_LOW, _NORMAL, HIGH = Priority.LOW.rank, Priority.NORMAL.rank, Priority.HIGH.rank

#: Seconds between two looks for mail of other priorities, and for what is to be given up, while there is work.
_LOOK_OUT = 0.1

#: Seconds between two looks from the beginning while there is work; and so many times as long as the last one took.
_FROM_THE_BEGINNING, _SHARE = 1.0, 20.0


class MailSource:
    """See the module.

    Concurrency: one caller at a time looks; what has no underscore and is not a look, any thread.

    :param take: claims up to so many mails by the statement of that name, with these parameters.
    :param now: the time of the queue, in seconds.
    """

    def __init__(
        self,
        connections: Connections,
        queue: int,
        liveness: Registration,
        clock: Clock,
        *,
        take: Callable[..., list[PostgreSQLLease]],
        now: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._queue = queue
        self._liveness = liveness
        self._clock = clock
        self._take = take
        self._now = now
        self._mutex = threading.RLock()
        self._parking = Parking()
        #: Whether the last look found something, so that there may be more.
        self.may_be_more = False
        #: When the next mail is to be given up, by the queue's clock.
        self.expiry: float | None = None
        self._turns = _Turns()
        #: Behind which fresh mails are looked for, by the rank of their priority.
        self._cursors: dict[int, uuid.UUID] = {}
        #: When the next mail that was tried is due, by the queue's clock.
        self._again = -inf
        self._looked_out_at = self._began_at = -inf
        self._until_next = _FROM_THE_BEGINNING
        #: How often this process has committed mail of high priority: an answer on its way knows of none.
        self._hurried = 0
        #: How often operators had changed mail, when that was looked at last.
        self._changes = -1

    # looking

    def look(self, count: int, enough: int) -> list[PostgreSQLLease]:
        """Return up to `count` leases, in the order in which they go; not all that there are, perhaps.

        :param enough: with so many, one of high priority does not wait until others are claimed.
        """
        now = self._clock.monotonic()
        with self._mutex:
            self._parking.expire(now)
        is_first = now >= self._began_at + self._until_next
        if is_first:
            self.begin()
        found = self._look(count, enough)
        if is_first:  # beside a long snapshot it passes over all that has gone since
            self._until_next = max(_FROM_THE_BEGINNING, _SHARE * (self._clock.monotonic() - now))
        return found

    def look_everywhere(self, count: int) -> list[PostgreSQLLease]:
        """Return up to `count` leases; none only if there are none."""
        self._liveness.look()
        self.begin()
        found = self._look(count, count)
        if not found:
            self._learn_when()
        return found

    def begin(self) -> None:
        """Look from the beginning: a transaction may commit what was written before others."""
        self._cursors = {}
        self._again = -inf
        self._began_at = self._clock.monotonic()
        self.look_out()

    def look_out(self) -> None:
        """Learn of which priorities there is mail, what operators changed, and when the next mail is to be given up."""
        self._looked_out_at = self._clock.monotonic()
        hurried = self._hurried
        rows = self._connections.execute("outlook", queue=self._queue, dead=self._liveness.dead)
        [(self.expiry, others, changes)] = rows
        with self._mutex:
            self._turns.found({*others, HIGH} if self._hurried != hurried else set(others))
        self.see_changes(changes)

    @property
    def has_low(self) -> bool:
        """Whether there may be mail of low priority: what goes before it is looked for with each mail."""
        return _LOW in self._turns.ranks

    def is_outdated(self) -> bool:
        """Return whether `look_out` was called too long ago."""
        # Behind mail of low priority there is a look for each: so what goes before it waits for no second one.
        return self.has_low or self._clock.monotonic() >= self._looked_out_at + _LOOK_OUT

    def look_out_soon(self) -> None:
        """Let the next claim learn of which priorities there is mail: a process has committed some."""
        self._looked_out_at = -inf

    def has_before(self, rank: int) -> bool:
        """Return whether there is mail of a higher priority, as far as that is known."""
        return any(each < rank for each in self._turns.known)

    def are_several(self) -> bool:
        """Return whether there may be mail of several priorities."""
        return len(self._turns.ranks) > 1

    @property
    def has_wanted(self) -> bool:
        """Whether there is mail that was left alone, and is wanted now."""
        return bool(self._parking.wanted)

    def take_wanted(self, count: int) -> list[PostgreSQLLease]:
        """Return up to so many leases of such mail, oldest first."""
        return sorted(self._take_wanted(count), key=lambda lease: lease.id)

    def take_high(self) -> list[PostgreSQLLease]:
        """Return a lease of a mail of high priority, if there is one."""
        return self._take_one([HIGH]) if HIGH in self._turns.ranks else []

    def _look(self, count: int, enough: int) -> list[PostgreSQLLease]:
        if self._turns.are_usual:
            return sorted(self._take_usual(count), key=lambda lease: lease.id)
        found: list[PostgreSQLLease] = []
        while len(found) < count and self._turns.ranks:
            one = self._take_one(self._turns.next())
            if not one:
                break
            rank = one[0].terms.priority.rank
            self._turns.precedence.served(rank)
            found += one
            if rank == HIGH and len(found) >= enough:
                break
        return found

    def _take_usual(self, count: int) -> list[PostgreSQLLease]:
        """Return what is wanted first; then fresh mails and those that were tried take turns."""
        found = self._take_wanted(count)
        half = (count - len(found) + self._turns.is_fresh_first()) // 2
        found += self._take_again(half, _NORMAL)
        found += self._take_fresh(count - len(found), _NORMAL)
        if len(found) < count:
            found += self._take_again(count - len(found), _NORMAL)
        self._turns.is_normal_known = bool(found)
        return found

    def _take_one(self, ranks: list[int]) -> list[PostgreSQLLease]:
        """Return a mail of the first of these priorities that has one; those that have none are passed over for a
        while.
        """
        if wanted := self._take_wanted(1):
            return wanted
        lines = [self._take_again, self._take_fresh]
        if self._turns.is_fresh_first():
            lines.reverse()
        for rank in ranks:
            hurried = self._hurried
            for line in lines:
                if found := line(1, rank):
                    self._turns.is_normal_known |= rank == _NORMAL
                    return found
            with self._mutex:
                if rank != HIGH or self._hurried == hurried:
                    self._turns.missed(rank)
        return []

    def _take_wanted(self, count: int) -> list[PostgreSQLLease]:
        with self._mutex:
            wanted = self._parking.take_wanted(count)
        leases = self._take("claim_these", count, ids=wanted, now=self._now()) if wanted else []
        for lease in leases:
            lease.in_turn = True
        return leases

    def _take_fresh(self, count: int, rank: int) -> list[PostgreSQLLease]:
        cursor = self._cursors.get(rank, _NONE)
        leases = self._take("claim_fresh", count, priority=rank, cursor=cursor, parked=self.parked_mails())
        if leases:
            self._cursors[rank] = max(lease.id for lease in leases)
        return leases

    def _take_again(self, count: int, rank: int) -> list[PostgreSQLLease]:
        now, is_alone = self._now(), self._turns.are_usual
        if is_alone and now < self._again:
            return []
        if is_alone:
            with self._mutex:  # what is deferred meanwhile is due earlier
                self._again = inf
        leases = self._take("claim_again", count, priority=rank, now=now, parked=self.parked_mails())
        if len(leases) == count and is_alone:
            self._again = -inf
        return leases

    def _learn_when(self) -> None:
        """Learn when the next mail that was tried is due."""
        rows = self._connections.execute(
            "next_due",
            queue=self._queue,
            now=self._now(),
            dead=self._liveness.dead,
            parked=self.parked_mails(),
        )
        with self._mutex:
            known = inf if self._again == -inf else self._again  # of several priorities, that was left open
            self._again = min(known, rows[0][0] if rows else inf)

    # what is told

    def hurry(self) -> None:
        """Take note that mail of high priority was committed by this process."""
        with self._mutex:
            self._hurried += 1
            if HIGH not in self._turns.ranks:
                self._turns.ranks = [HIGH, *self._turns.ranks]
            self.may_be_more = True

    def due_at(self, due: float) -> None:
        """Take note that a mail is to be tried again then, by the queue's clock."""
        with self._mutex:
            self._again = min(self._again, due)

    def see_changes(self, changes: int) -> bool:
        """Take note of which mails operators changed, of those that are left alone; return whether there are any.

        :param changes: how often they changed mail of this queue.
        """
        if changes == self._changes:
            return False
        parked = self.parked_mails()
        found = self._connections.execute("changed", parked=parked) if parked else []
        self._changes = changes
        if found:
            self.want(mail for (mail,) in found)
        return bool(found)

    def want(self, mails: Iterable[uuid.UUID]) -> None:
        """Take note that an operator changed these."""
        with self._mutex:
            self._parking.want(mails)
            self.may_be_more = True

    def park(self, lease: PostgreSQLLease, relay: str, patience: float) -> None:
        """Let a mail wait for its relay, for so many seconds at most."""
        with self._mutex:
            until = self._clock.monotonic() + patience
            self._parking.park(lease.id, relay, until, lease.terms.priority.rank)

    def give_way(self, lease: PostgreSQLLease, relay: str, patience: float) -> bool:
        """Let a mail wait for its relay, and want what goes before it, if there is that; return whether there is."""
        rank = lease.terms.priority.rank
        with self._mutex:
            if not self._parking.is_behind(lease.id, rank, relay, in_turn=lease.in_turn):
                return False
            self._parking.park(lease.id, relay, self._clock.monotonic() + patience, rank)
            self._parking.unpark(relay, 1)
            return True

    def unpark(self, relay: str, limit: int) -> int:
        """Want up to so many that wait for a relay; return how many there were."""
        with self._mutex:
            return self._parking.unpark(relay, limit)

    # what is known

    def next_due(self) -> float | None:
        """Return in how many seconds there may be something, None for never."""
        with self._mutex:
            if self.may_be_more or self._parking.wanted:
                return 0.0
            waits = [] if self._again in (inf, -inf) else [self._again - self._now()]
            expiry = self._parking.next_expiry()
            if expiry is not None:
                waits.append(expiry - self._clock.monotonic())
            return max(0.0, min(waits)) if waits else None

    def parked(self) -> list[str]:
        """Return the relays that mails wait for."""
        with self._mutex:
            return self._parking.relays()

    def parked_mails(self) -> list[uuid.UUID]:
        """Return the mails that no claim may give out."""
        with self._mutex:
            return self._parking.parked()

    def is_parked(self, mail: uuid.UUID) -> bool:
        """Return whether a mail is left alone."""
        with self._mutex:
            return self._parking.has(mail)


class _Turns:
    """Which priority is next, and whether a fresh mail or one that was tried."""

    def __init__(self) -> None:
        #: The ranks that are looked for, ascending: those of which there was mail lately, and the usual one.
        self.ranks: list[int] = [_NORMAL]
        #: Whether the last look for mail of the usual priority found some.
        self.is_normal_known = False
        self.precedence = Precedence()
        self._is_fresh_first = False

    def found(self, others: Iterable[int]) -> None:
        """Look for mail of these ranks, and of the usual one."""
        self.ranks = sorted({*others, _NORMAL})

    def missed(self, rank: int) -> None:
        """Look for none of this rank any more, until the next look out."""
        self.ranks = [each for each in self.ranks if each != rank]
        self.is_normal_known &= rank != _NORMAL

    @property
    def known(self) -> list[int]:
        """The ranks of which there is mail, as far as is known: that some is looked for does not say so."""
        return [each for each in self.ranks if each != _NORMAL or self.is_normal_known]

    @property
    def are_usual(self) -> bool:
        """Whether there is mail of the usual priority only, as far as is known."""
        return self.ranks == [_NORMAL]

    def next(self) -> list[int]:
        """Return the ranks in the order in which they are asked for a mail."""
        ranks = self.ranks
        first = self.precedence.next(ranks)
        return [first, *(rank for rank in ranks if rank != first)]

    def is_fresh_first(self) -> bool:
        """Return it for this time; the next time it is the other way."""
        self._is_fresh_first = not self._is_fresh_first
        return self._is_fresh_first
