"""The way out of a database: which mails one processor gets, and what its leases say of them.

Claims several mails at a time, durably, and gives them out one by one.  Fresh mails go in the order in which they were
written; behind a cursor, so that what has just gone is not passed over again and again.  An empty answer is given only
after a look from the beginning.
"""

from __future__ import annotations

import contextlib
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Any

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.precedence import Precedence
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import Schedule, after_death
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.postgresql.body import ROW
from zope.sendmail.queue.postgresql.connection import Connections
from zope.sendmail.queue.postgresql.lease import INTENDED, OPENED, PostgreSQLLease
from zope.sendmail.queue.postgresql.liveness import Liveness
from zope.sendmail.queue.postgresql.parking import Parking
from zope.sendmail.queue.postgresql.progress import Progress
from zope.sendmail.queue.postgresql.rows import NUMBERS, line_of
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

_NONE = uuid.UUID(int=0)

_LOW, _NORMAL, HIGH = Priority.LOW.rank, Priority.NORMAL.rank, Priority.HIGH.rank

#: Seconds between two looks for mail of other priorities, and for what is to be given up, while there is work.
_LOOK_OUT = 0.1

#: Seconds between two looks from the beginning while there is work; and so many times as long as the last one took.
_FROM_THE_BEGINNING, _SHARE = 1.0, 20.0


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
        self.connections = connections
        self.mutex = threading.RLock()
        #: Held by the worker that claims; `mutex` is held for moments only.
        self._claiming = threading.RLock()
        self._queue = queue
        self._schedule = schedule
        self._given = clock
        self._clock = clock or Clock()
        self._start = self._clock.time() - self._clock.monotonic()
        self._liveness = Liveness(connections, self._flush_safely, clean)
        self._progress = Progress(connections, self._liveness, queue)
        self._progress.now = self.now
        self.parking = Parking()
        self._ahead: deque[PostgreSQLLease] = deque()
        #: The leases that have not ended.
        self._out: set[PostgreSQLLease] = set()
        #: The numbers of claims whose answer was lost: what they may have got is claimed again.
        self._unanswered: list[int] = []
        self._unsettled: list[tuple[PostgreSQLLease, Record]] = []
        #: Behind which fresh mails are looked for, by the rank of their priority.
        self._cursors: dict[int, uuid.UUID] = {}
        #: The ranks of which there was mail at the last look out, ascending; when that was.
        self._ranks: list[int] = [_NORMAL]
        self._looked_out_at = -inf
        self._precedence = Precedence()
        #: When the next mail is to be given up, by the queue's clock.
        self._expiry: float | None = None
        self._began_at, self._until_next = -inf, _FROM_THE_BEGINNING
        #: How often operators had changed mail, when that was looked at last.
        self._changes = -1
        #: Whether the last look found something, so that there may be more.
        self._may_be_more = False
        #: When the next mail that was tried is due, by the queue's clock.
        self._again = -inf
        self._fresh_first = False

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

    def close(self) -> None:
        """Give back what no worker has touched, and leave; what workers have in hand can be taken over."""
        self.give_back_ahead()
        for lease in [each for each in list(self._out) if each.slot < 0]:
            lease.release()
        self._liveness.stop()
        self._flush_safely()
        self._liveness.leave()
        self._progress.close()

    def give_back_ahead(self) -> None:
        """Give back what was claimed ahead: this processor rests."""
        with self._claiming:
            for lease in self._take_reserved(len(self._ahead)):
                lease.release()

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

        One worker claims ahead for all, and those that find something meanwhile go on.
        """
        if self._unsettled:
            self._settle_again()
        # Behind mail of low priority there is a look for each: so what goes before it waits for no second one.
        if _LOW in self._ranks or self._clock.monotonic() >= self._looked_out_at + _LOOK_OUT:
            self._look_out()
        if len(self._ranks) > 1:  # nothing is reserved: what has come meanwhile may go first
            ahead = 0
            self._let_first()
        leases = self._take_reserved(limit)
        if len(leases) == limit:
            self._claim_ahead(ahead)
            return leases
        with self._claiming:
            leases += self._take_reserved(limit - len(leases))
            if len(leases) < limit:
                self._progress.flush()
                self._reserve(limit - len(leases) + ahead, is_last_word=not leases)
                leases += self._take_reserved(limit - len(leases))
        return leases

    def hurry(self) -> None:
        """Take note that mail of high priority was committed by this process."""
        with self.mutex:
            if HIGH not in self._ranks:
                self._ranks = [HIGH, *self._ranks]
            self._may_be_more = True

    def claim_expired(self, limit: int) -> list[PostgreSQLLease]:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        with self._claiming:
            self._progress.flush()  # what was given back
            leases = self._take("claim_expired", limit, now=self.now())
            self._look_out()
        return leases

    def next_expiry(self) -> float | None:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        expiry = self._expiry
        return None if expiry is None else max(0.0, expiry - self.now())

    def _look_out(self) -> None:
        """Learn of which priorities there is mail, and when the next one is to be given up."""
        with self._claiming:
            self._looked_out_at = self._clock.monotonic()
            rows = self.connections.execute("outlook", queue=self._queue, dead=self._liveness.dead)
            [(self._expiry, others, changes)] = rows
            with self.mutex:
                self._ranks = sorted({*others, _NORMAL})
        self.see_changes(changes)

    def _let_first(self) -> None:
        """Let a mail of high priority go before what was claimed ahead."""
        with self._claiming:
            if HIGH in self._ranks and self._ahead and self._ahead[0].terms.priority is not Priority.HIGH:
                first = self._take_one([HIGH])
                with self.mutex:
                    self._ahead.extendleft(first)

    def _take_reserved(self, limit: int) -> list[PostgreSQLLease]:
        with self.mutex:
            return [self._ahead.popleft() for _ in range(min(limit, len(self._ahead)))]

    def _claim_ahead(self, ahead: int) -> None:
        """Claim again before all that was claimed ahead is gone, unless another worker does."""
        if self._may_be_more and len(self._ahead) < ahead // 2 and self._claiming.acquire(blocking=False):
            try:
                with contextlib.suppress(QueueError):  # a worker that finds nothing in reserve is told
                    self._reserve(ahead - len(self._ahead), is_last_word=False)
            finally:
                self._claiming.release()

    def _reserve(self, count: int, *, is_last_word: bool) -> None:
        """Claim up to `count` mails.

        :param is_last_word: whether none are found only if a look from the beginning finds none.
        """
        now = self._clock.monotonic()
        with self.mutex:
            self.parking.expire(now)
        is_first = now >= self._began_at + self._until_next
        if is_first:
            self._begin()
        found = self._look(count)
        if is_first:  # beside a long snapshot it passes over all that has gone since
            self._until_next = max(_FROM_THE_BEGINNING, _SHARE * (self._clock.monotonic() - now))
        if not found and is_last_word:
            self._liveness.look()
            self._begin()
            found = self._look(count)
            if not found:
                self._learn_when()
        with self.mutex:
            parked = [lease for lease in found if self.parking.has(lease.id)]
            self._may_be_more = bool(found)
            self._ahead.extend(lease for lease in found if lease not in parked)
        for lease in parked:  # since the question was asked
            lease.release()

    def claim_these(self, mails: Collection[uuid.UUID]) -> list[PostgreSQLLease]:
        """Claim those of these mails that no other processor has.

        :raises QueueError: if the database refuses.
        """
        return self._take("claim_these", len(mails), ids=list(mails), now=self.now())

    def _begin(self) -> None:
        """Look from the beginning: a transaction may commit what was written before others."""
        self._cursors = {}
        self._again = -inf
        self._began_at = self._clock.monotonic()
        self._look_out()

    def _look(self, count: int) -> list[PostgreSQLLease]:
        """Return up to `count` leases, in the order in which they go."""
        if self._ranks == [_NORMAL]:
            return sorted(self._take_usual(count), key=lambda lease: lease.id)
        found: list[PostgreSQLLease] = []
        while len(found) < count and (ranks := self._ranks):
            first = self._precedence.next(ranks)
            one = self._take_one([first, *(rank for rank in ranks if rank != first)])
            if not one:
                break
            self._precedence.served(one[0].terms.priority.rank)
            found += one
        return found

    def _take_usual(self, count: int) -> list[PostgreSQLLease]:
        """Return what is wanted first; then fresh mails and those that were tried take turns."""
        found = self._take_wanted(count)
        self._fresh_first = not self._fresh_first
        half = (count - len(found) + self._fresh_first) // 2
        found += self._take_again(half, _NORMAL)
        found += self._take_fresh(count - len(found), _NORMAL)
        if len(found) < count:
            found += self._take_again(count - len(found), _NORMAL)
        return found

    def _take_one(self, ranks: list[int]) -> list[PostgreSQLLease]:
        """Return a mail of the first of these priorities that has one; those that have none are passed over for a
        while.
        """
        if wanted := self._take_wanted(1):
            return wanted
        self._fresh_first = not self._fresh_first
        lines = (self._take_fresh, self._take_again) if self._fresh_first else (self._take_again, self._take_fresh)
        for rank in ranks:
            for line in lines:
                if found := line(1, rank):
                    return found
            with self.mutex:
                self._ranks = [each for each in self._ranks if each != rank]
        return []

    def _take_wanted(self, count: int) -> list[PostgreSQLLease]:
        with self.mutex:
            wanted = self.parking.take_wanted(count)
        return self._take("claim_these", count, ids=wanted, now=self.now()) if wanted else []

    def _take_fresh(self, count: int, rank: int) -> list[PostgreSQLLease]:
        cursor = self._cursors.get(rank, _NONE)
        leases = self._take("claim_fresh", count, priority=rank, cursor=cursor, parked=self.parked_mails())
        if leases:
            self._cursors[rank] = max(lease.id for lease in leases)
        return leases

    def _take_again(self, count: int, rank: int) -> list[PostgreSQLLease]:
        now, is_alone = self.now(), self._ranks == [_NORMAL]
        if is_alone and now < self._again:
            return []
        if is_alone:
            with self.mutex:  # what is deferred meanwhile is due earlier
                self._again = inf
        leases = self._take("claim_again", count, priority=rank, now=now, parked=self.parked_mails())
        if len(leases) == count and is_alone:
            self._again = -inf
        return leases

    def parked_mails(self) -> list[uuid.UUID]:
        """Return the mails that no claim may give out."""
        with self.mutex:
            return self.parking.parked()

    def _take(self, line: str, count: int, **parameters: Any) -> list[PostgreSQLLease]:
        """Claim up to `count` mails of a line, all with the same lease."""
        if count <= 0:
            return []
        lease = random.getrandbits(63)  # unique, not secret
        try:
            rows = self.connections.execute(
                line,
                queue=self._queue,
                me=self._liveness.id,
                lease=lease,
                mine=[lease, *self._unanswered],
                dead=self._liveness.dead,
                limit=count,
                **parameters,
            )
        except QueueError:
            self._unanswered.append(lease)
            raise
        leases = [PostgreSQLLease(self, row, lease) for row in rows]
        self._out.update(leases)
        left = [each for each in leases if each.was is not None and each.was != self._liveness.id]
        if left:
            self._inherit(left)
        return leases

    def _learn_when(self) -> None:
        """Learn when the next mail that was tried is due."""
        rows = self.connections.execute(
            "next_due",
            queue=self._queue,
            now=self.now(),
            dead=self._liveness.dead,
            parked=self.parked_mails(),
        )
        with self.mutex:
            known = inf if self._again == -inf else self._again  # of several priorities, that was left open
            self._again = min(known, rows[0][0] if rows else inf)

    # what dead processors left

    def _inherit(self, leases: list[PostgreSQLLease]) -> None:
        """Write down what the owners before us left, before anything else is done with their mails."""
        rows = self.connections.execute(
            "inherited", dead=list({each.was for each in leases}), mails=[each.id for each in leases]
        )
        phases = {(owner, mail, lease): phase for owner, mail, lease, phase in rows}
        for each in leases:
            phase = phases.get((each.was, each.id, each.was_lease), 0)
            if each.was in self._liveness.lost:
                phase = INTENDED  # how far it had come, it is not known
            if phase:
                self._inherit_one(each, intended=phase == INTENDED)
            # Until it has gone, a mail that was in a dead processor's hands is suspected of having killed it.
            each.is_suspect = True

    def _inherit_one(self, lease: PostgreSQLLease, *, intended: bool) -> None:
        envelope = lease.envelope
        record = after_death(lease.record, envelope, self._schedule, intended=intended, now=self._clock.time())
        self.connections.execute("inherit", id=lease.id, lease=lease.lease, record=line_of(record))
        lease.record, lease.is_fresh = record, False
        if intended:
            replies = {who: record.replies[who] for who in envelope.recipients}
            lease.inherited = Outcome("", {who: said for who, said in replies.items() if said.answer is Answer.UNKNOWN})

    # what is known

    def next_due(self) -> float | None:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        with self.mutex:
            if self._ahead or self._may_be_more or self.parking.wanted:
                return 0.0
            waits = [] if self._again in (inf, -inf) else [self._again - self.now()]
            expiry = self.parking.next_expiry()
            if expiry is not None:
                waits.append(expiry - self._clock.monotonic())
            return max(0.0, min(waits)) if waits else None

    def unpark(self, relay: str, limit: int) -> int:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        with self.mutex:
            return self.parking.unpark(relay, limit)

    def parked(self) -> Collection[str]:
        """See `zope.sendmail.interfaces.IMailQueue`."""
        with self.mutex:
            return self.parking.relays()

    def heard(self, mails: Iterable[uuid.UUID]) -> None:
        """Take note that an operator changed these."""
        with self.mutex:
            self.parking.want(mails)
            self._may_be_more = True

    def see_changes(self, changes: int) -> bool:
        """Take note of which mails operators changed, of those that are left alone; return whether there are any.

        :param changes: how often they changed mail of this queue.
        """
        if changes == self._changes:
            return False
        parked = self.parked_mails()
        found = self.connections.execute("changed", parked=parked) if parked else []
        self._changes = changes
        if found:
            self.heard(mail for (mail,) in found)
        return bool(found)

    def flush(self) -> None:
        """Write down what workers have said.

        :raises QueueError: if the database refuses.
        """
        self._progress.flush()

    def _flush_safely(self) -> None:
        self._progress.flush_safely()

    # what leases say

    def opened(self, lease: PostgreSQLLease) -> None:
        """Note that a worker reads the mail; at once, if the mail may have killed a processor before."""
        self._with_slot(lease)
        if lease.is_suspect:
            self._progress.intend(lease.id, lease.lease, lease.slot, OPENED)
        else:
            self._progress.opened(lease.id, lease.lease, lease.slot)

    def intend(self, lease: PostgreSQLLease) -> None:
        """Note that the last byte is about to go.

        :raises LeaseLost: if it must not.
        """
        if self._liveness.ended:
            raise LeaseLost(f"mail {lease.name}: this processor was taken for dead; another one has it")
        before = lease.phase
        lease.phase = INTENDED
        self._with_slot(lease)
        try:
            self._progress.intend(lease.id, lease.lease, lease.slot)
        except LeaseLost as error:
            lease.phase = before
            raise LeaseLost(f"mail {lease.name}: {error}") from error

    def _with_slot(self, lease: PostgreSQLLease) -> None:
        if lease.slot < 0:
            try:
                lease.slot = self._liveness.take_slot(lease)
            except QueueError as error:
                raise LeaseLost(f"mail {lease.name}: {error}") from error

    def sent(self, lease: PostgreSQLLease, record: Record) -> None:
        """Note that the mail has left: with what is said next of other mails, within 20 ms."""
        self._out.discard(lease)
        self._liveness.remember(lease.id)
        line = line_of(record) if lease.message_id else ""
        is_simple = lease.is_fresh and (lease.size or 0) <= ROW
        self._progress.sent(lease.id, lease.lease, lease.slot, line, is_simple=is_simple)
        if self._ahead:
            self._liveness.hurry()
        else:
            self._flush_safely()

    def back(self, lease: PostgreSQLLease) -> None:
        """Give the mail back."""
        self._out.discard(lease)
        self._progress.back(lease.id, lease.lease, lease.slot)
        self._may_be_more = True
        self._liveness.hurry()
        if self._liveness.ended:
            self._flush_safely()

    def park(self, lease: PostgreSQLLease, relay: str, patience: float) -> None:
        """Let the mail wait for its relay."""
        with self.mutex:
            self.parking.park(lease.id, relay, self._clock.monotonic() + patience, lease.terms.priority.rank)

    def keep(self, lease: PostgreSQLLease, record: Record) -> None:
        """Write down that an attempt has ended and the mail stays.

        :raises QueueError: if the database refuses.
        """
        due = self.now() + record.wait(self._clock.time()) if record.state is State.DEFERRED else None
        durable = record.state is not State.DEFERRED or bool(record.having(Answer.ACCEPTED)) or record.unknowns > 0
        [(count, _)] = self.connections.execute(
            "keep",
            id=lease.id,
            lease=lease.lease,
            state=NUMBERS.get(record.state, 0),
            due=due,
            record=line_of(record),
            durable=durable,
        )
        lease.is_over = True
        self._out.discard(lease)
        if not count:
            maillog.lease_lost(lease.name, "another processor has it now; what we heard is not written down")
        self._liveness.free_slot(lease.slot)
        with self.mutex:
            if due is not None:
                self._again = min(self._again, due)
            elif record.state is State.READY:
                self._may_be_more = True

    def settle_later(self, lease: PostgreSQLLease, record: Record) -> None:
        """Settle a lease with the next claim, since the database refused."""
        with self.mutex:
            self._unsettled.append((lease, record))

    def _settle_again(self) -> None:
        with self.mutex:
            again, self._unsettled = self._unsettled, []
        for lease, record in again:
            lease.settle(record)
