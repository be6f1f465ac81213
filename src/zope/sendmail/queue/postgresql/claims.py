"""The way out of a database: which mails one processor gets.

Claims several mails at a time, durably, and gives them out one by one.  An empty answer is given only after a look from
the beginning.  What it looks for is said by `lines`, what becomes of the mails by `hand`, and what dead processors left
by `inheritance`.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.postgresql.database import Connections, NotConnected
from zope.sendmail.queue.postgresql.hand import Hand
from zope.sendmail.queue.postgresql.inheritance import Inheritance
from zope.sendmail.queue.postgresql.lease import PostgreSQLLease
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.mailsource import MailSource
from zope.sendmail.queue.postgresql.phasenotes import PhaseNotes
from zope.sendmail.queue.postgresql.replenishing import Replenisher
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.system.clock import Clock


class Claims:
    """What one processor knows of a queue, and the leases that it has.

    Concurrency: any thread.

    :param clean: what is done every ten minutes.
    """

    def __init__(
        self,
        connections: Connections,
        queue: int,
        schedule: Schedule,
        clock: Clock | None,
        clean: Callable[[], object],
    ) -> None:
        self._connections = connections
        self._queue = queue
        self._given = clock
        self._clock = clock = clock or Clock()
        self._start = clock.time() - clock.monotonic()
        self._mutex = threading.Lock()
        #: Held by the worker that claims; `_mutex` is held for moments only.
        self._claiming = threading.RLock()
        #: What was claimed ahead, and how many are wanted there.
        self._ahead: deque[PostgreSQLLease] = deque()
        self._wanted = 0
        self._replenisher = Replenisher(self._claim_ahead)
        #: The numbers of claims whose answer was lost, or that came to nothing else: what they got is claimed again.
        self._unanswered: list[int] = []
        #: Those that were there at the last cleaning: none of them is still being committed.
        self._long_unanswered: frozenset[int] = frozenset()
        self._clean_queue = clean
        beats = Clock()  # others see a beat by their own clocks, whatever the clock of this queue is set to
        self._liveness = liveness = Registration(
            connections, self._flush_safely, self._clean, self._resume, clock=beats
        )
        self._notes = notes = PhaseNotes(connections, liveness, beats)
        self._progress = RoundTrips(connections, liveness, queue, self.now, clock=beats, free_slot=notes.free_slot)
        self._inheritance = Inheritance(connections, liveness, schedule, clock)
        #: Which mails there are for this processor, as far as is known.
        self.lines = MailSource(connections, queue, liveness, clock, take=self._take, now=self.now)
        self._hand = self._new_hand(schedule.on_unknown)

    def _new_hand(self, on_unknown: OnUnknown) -> Hand:
        return Hand(
            self._connections,
            self._liveness,
            self._progress,
            self.lines,
            self._clock,
            on_unknown=on_unknown,
            now=self.now,
            is_idle=lambda: not self.has_ahead(),
            notes=self._notes,
        )

    # the beginning and the end

    def start(self) -> None:
        """Register as a processor.

        :raises QueueError: if the database refuses.
        """
        self._liveness.start()

    @property
    def processor(self) -> int:
        """The number of this processor."""
        return self._liveness.id

    @property
    def has_ended(self) -> bool:
        """Whether this processor was taken for dead: a new one has to begin."""
        return self._liveness.ended

    def shortest_wait(self) -> float:
        """See `PostgreSQLQueue.shortest_wait`."""
        return self._progress.shortest

    def close(self) -> None:
        """Give back what no worker has touched, and leave; what workers have in hand can be taken over."""
        self._replenisher.close()
        self.give_back_ahead()
        self._hand.give_back()
        self._liveness.stop()
        self._notes.close()
        has_said_all = self._progress.flush_safely()
        self._liveness.leave(has_mail=bool(self._unanswered) or not has_said_all)
        self._progress.close()

    def give_back_ahead(self) -> None:
        """Give back what was claimed ahead: this processor rests."""
        self._wanted = 0
        with self._claiming:
            for lease in self._take_reserved(len(self._ahead)):
                lease.release()

    def has_before(self, rank: int) -> bool:
        """Return whether there is mail of a higher priority, as far as that is known."""
        with self._mutex:
            has_reserved = bool(self._ahead) and self._ahead[0].terms.priority.rank < rank
        return has_reserved or self.lines.has_before(rank)

    def has_ahead(self) -> bool:
        """Return whether a mail is in reserve, so that the next claim asks the database for none."""
        return bool(self._ahead)

    def now(self) -> float:
        """Return the time of the queue: the server's, carried on by our monotonic clock; a given clock is taken
        as it is.
        """
        if self._given is None:
            return self._clock.monotonic() + self._liveness.offset
        return self._clock.monotonic() + self._start

    # claiming

    def claim(self, limit: int, ahead: int) -> list[PostgreSQLLease]:
        """See `zope.sendmail.interfaces.IMailQueue`.

        A thread claims ahead for all workers, which go on meanwhile.
        """
        self._hand.settle_again()
        self._look_out_in_time()
        if self.lines.has_wanted and self._ahead:
            self._let_wanted(limit)
        if self.lines.are_several():  # nothing is reserved: what has come meanwhile may go first
            ahead = 0
            self._let_first()
        leases = self._take_reserved(limit)
        if len(leases) == limit:
            self._want_ahead(ahead)
            return _in_a_row(leases)
        with self._claiming:
            leases += self._take_reserved(limit - len(leases))
            if len(leases) < limit:
                try:
                    self._progress.flush()
                    self._reserve(limit - len(leases), ahead, is_last_word=not leases)
                except QueueError:  # the next claim meets it again
                    if not leases:
                        raise
                leases += self._take_reserved(limit - len(leases))
        return _in_a_row(leases)

    def claim_expired(self, limit: int) -> list[PostgreSQLLease]:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        with self._claiming:
            self._progress.flush()  # what was given back
            leases = self._take("claim_expired", limit, now=self.now())
            try:
                self._look_out()
            except QueueError:  # the next claim meets it again
                if not leases:
                    raise
        return leases

    def next_expiry(self) -> float | None:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        expiry = self.lines.expiry
        return None if expiry is None else max(0.0, expiry - self.now())

    def _look_out_in_time(self) -> None:
        """Look out if that was done too long ago; of several workers one does, and the others go on meanwhile."""
        if self.lines.is_outdated() and self._claiming.acquire(blocking=self.lines.has_low):
            try:
                if self.lines.is_outdated():
                    self.lines.look_out()
            finally:
                self._claiming.release()

    def _look_out(self) -> None:
        with self._claiming:
            self.lines.look_out()

    def _let_first(self) -> None:
        """Let a mail of high priority go before what was claimed ahead."""
        with self._claiming:
            if self._ahead and not _is_high(self._ahead[0]):
                first = self.lines.take_high()
                with self._mutex:
                    self._ahead.extendleft(first)

    def _let_wanted(self, limit: int) -> None:
        """Let mails that were left alone for a relay, and are wanted now, go before what was claimed ahead."""
        with self._claiming:
            self._progress.flush()  # what was given back
            wanted = self.lines.take_wanted(limit)
            with self._mutex:
                self._ahead.extendleft(reversed(wanted))

    def _take_reserved(self, limit: int) -> list[PostgreSQLLease]:
        found: list[PostgreSQLLease] = []
        lost: list[PostgreSQLLease] = []
        with self._mutex:
            while self._ahead and len(found) < limit:
                lease = self._ahead.popleft()
                (lost if lease.is_lost else found).append(lease)
        for lease in lost:
            lease.release()
        return found

    def _want_ahead(self, ahead: int) -> None:
        """Let more be claimed before all that was claimed ahead is gone."""
        self._wanted = ahead
        if self._needs_more():
            self._replenisher.ask()

    def _needs_more(self) -> bool:
        return self.lines.may_be_more and len(self._ahead) < self._wanted // 3

    def _claim_ahead(self) -> None:
        """Claim ahead, unless another one has, or this processor rests since."""
        with self._claiming, contextlib.suppress(Exception):  # a worker that finds nothing in reserve meets it
            if self._needs_more():
                self._reserve(0, self._wanted - len(self._ahead), is_last_word=False)

    def _reserve(self, limit: int, ahead: int, *, is_last_word: bool) -> None:
        """Claim up to `limit` mails for a worker that waits, and so many ahead.

        :param is_last_word: whether none are found only if a look from the beginning finds none.
        """
        found = self.lines.look(limit + ahead, limit)
        if not found and is_last_word:
            found = self.lines.look_everywhere(limit + ahead)
        self.lines.may_be_more = bool(found)
        parked = [lease for lease in found if self.lines.is_parked(lease.id)]  # since the question was asked
        with self._mutex:
            self._ahead.extend(lease for lease in found if lease not in parked)
            if any(map(_is_high, found)):  # it goes before what was in reserve
                self._ahead = deque(sorted(self._ahead, key=_is_high, reverse=True))
        for lease in parked:
            lease.release()

    def claim_these(self, mails: Collection[uuid.UUID]) -> list[PostgreSQLLease]:
        """Claim those of these mails that no other processor has.

        :raises QueueError: if the database refuses.
        """
        return self._take("claim_these", len(mails), ids=list(mails), now=self.now())

    def _take(self, line: str, count: int, **parameters: Any) -> list[PostgreSQLLease]:
        """Claim up to `count` mails of a line, all with the same lease."""
        if count <= 0:
            return []
        lease, resumed = random.getrandbits(63), self._liveness.resumed  # unique, not secret
        try:
            rows = self._connections.execute(
                line,
                queue=self._queue,
                me=self._liveness.id,
                lease=lease,
                mine=[lease, *self._unanswered],
                dead=self._liveness.dead,
                limit=count,
                **parameters,
            )
            leases = [PostgreSQLLease(self._hand, row, lease) for row in rows]
            self._inheritance.take(leases)
        except NotConnected:  # so the server was not asked
            raise
        except QueueError:
            self._unanswered.append(lease)
            raise
        self._hand.take(leases)
        if self._liveness.resumed != resumed:  # it did not see these
            self._hand.resume(leases)
        return leases

    # what is known

    def next_due(self) -> float | None:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        return 0.0 if self._ahead else self.lines.next_due()

    def parked(self) -> Collection[str]:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        return self.lines.parked()

    def flush(self) -> None:
        """Write down what workers have said.

        :raises QueueError: if the database refuses.
        """
        self._progress.flush()

    def _resume(self) -> None:
        self._hand.resume()

    def _clean(self) -> None:
        """Do what is done every ten minutes; forget lost answers that left no mail here."""
        self._clean_queue()
        asked = list(self._long_unanswered)
        if asked:
            rows = self._connections.execute("unanswered", me=self._liveness.id, leases=asked)
            for lease in self._long_unanswered.difference(lease for (lease,) in rows):
                self._unanswered.remove(lease)
        self._long_unanswered = frozenset(self._unanswered)

    def _flush_safely(self) -> None:
        self._progress.flush_safely()


def _is_high(lease: PostgreSQLLease) -> bool:
    return lease.terms.priority is Priority.HIGH


def _in_a_row(leases: list[PostgreSQLLease]) -> list[PostgreSQLLease]:
    """Return leases that one worker gets; each knows which is the next."""
    for lease, follower in itertools.pairwise(leases):
        lease.follower = follower
    return leases
