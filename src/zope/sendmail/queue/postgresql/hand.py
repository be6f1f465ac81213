"""The mails that a processor has in hand: what its workers say of them, and what of that is written down."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.lease import ACCEPTED, INTENDED, OPENED, PostgreSQLLease
from zope.sendmail.queue.postgresql.liveness import REMEMBERED, Registration
from zope.sendmail.queue.postgresql.mailsource import MailSource
from zope.sendmail.queue.postgresql.phasemark import PhaseMark
from zope.sendmail.queue.postgresql.phasenotes import PhaseNotes
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.queue.postgresql.rows import NUMBERS, line_of
from zope.sendmail.queue.postgresql.storedbody import ROW
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: How often a mail is intended whose answer comes too late to be relied on.
_TRIES = 2


class Hand:
    """See the module.  Concurrency: any thread.

    :param on_unknown: what becomes of mail of which it is not known whether it was sent.
    :param notes: where it is said ahead of its time how far mails come.
    :param is_idle: says whether nothing is claimed ahead, so that a worker has the time to speak.
    """

    def __init__(
        self,
        connections: Connections,
        liveness: Registration,
        progress: RoundTrips,
        lines: MailSource,
        clock: Clock,
        *,
        on_unknown: OnUnknown,
        now: Callable[[], float],
        is_idle: Callable[[], bool],
        notes: PhaseNotes,
    ) -> None:
        self.connections = connections
        self._liveness = liveness
        self._progress = progress
        self._notes = notes
        self._lines = lines
        self._clock = clock
        self._now = now
        self._is_idle = is_idle
        #: Where what is unknown waits for a person, nothing is intended ahead of its time.
        self._foresees = on_unknown is OnUnknown.RESEND
        self._mutex = threading.Lock()
        #: The leases that have not ended.
        self._out: set[PostgreSQLLease] = set()
        #: The mails that stay and were given up lately: when, which, and the number of the lease.
        self._ended: deque[tuple[float, uuid.UUID, int]] = deque()
        self._unsettled: list[tuple[PostgreSQLLease, Record]] = []

    def take(self, leases: list[PostgreSQLLease]) -> None:
        """Have these, too."""
        self._out.update(leases)

    def give_back(self) -> None:
        """Give back what no worker has touched."""
        for lease in [each for each in list(self._out) if each.slot < 0]:
            lease.release()

    def resume(self, leases: Iterable[PostgreSQLLease] = ()) -> None:
        """After a crash of the server, see which claims hold; those that do not must not be sent.

        :param leases: of these; of all if none are given.
        :raises QueueError: if the database refuses.
        """
        asked = [lease for lease in leases or list(self._out) if not lease.is_over]
        if asked:
            self._ask_for(asked)
        with self._mutex:
            ended = list(self._ended)
        for _, mail, lease in ended:  # that may not have reached the disk
            self._progress.back(mail, lease, -1)

    def _ask_for(self, asked: list[PostgreSQLLease]) -> None:
        rows = self.connections.execute(
            "resume",
            me=self._liveness.id,
            ids=[lease.id for lease in asked],
            leases=[lease.lease for lease in asked],
            records=[lease.line for lease in asked],
        )
        held = {mail for (mail,) in rows}
        for lease in asked:
            lease.is_lost = lease.id not in held

    def settle_again(self) -> None:
        """Settle what the database refused."""
        if self._unsettled:
            with self._mutex:
                again, self._unsettled = self._unsettled, []
            for lease, record in again:
                lease.settle(record)

    # what leases say

    def opened(self, lease: PostgreSQLLease) -> None:
        """Note that a worker reads the mail; at once, if the mail may have killed a processor before."""
        self._with_slot(lease)
        if lease.is_suspect:
            self._progress.intend(PhaseMark(lease.id, lease.lease, lease.slot, OPENED))
        else:
            self._progress.opened(lease.id, lease.lease, lease.slot)

    def intend(self, lease: PostgreSQLLease) -> None:
        """Note that the last byte is about to go.

        :raises LeaseLost: if it must not.
        """
        if self._liveness.ended:
            raise LeaseLost(f"mail {lease.name}: this processor was taken for dead; another one has it")
        if lease.mark is not None:
            self._notes.wait_for(lease.mark)
        if lease.mark is None or lease.is_lost or not self._progress.holds(lease.mark):
            self._write_down(lease)
            if lease.is_lost:
                lease.phase = OPENED
                raise LeaseLost(f"mail {lease.name}: the server crashed, and another processor may have it since")

    def intend_soon(self, lease: PostgreSQLLease) -> None:
        """Begin to note that the last byte is about to go; `intend` waits for the rest."""
        if self._foresees and not (self._liveness.ended or lease.is_lost):
            with contextlib.suppress(LeaseLost):  # `intend` meets it again
                mark = self._mark(lease)
                mark.is_ahead = True
                self._notes.say(mark)
                self._notes.go_on()

    def _write_down(self, lease: PostgreSQLLease) -> None:
        """Intend a mail that is about to go; again if this worker stood still after another one had heard the answer.

        :raises LeaseLost: if it must not go.
        """
        before = lease.phase
        try:
            for _ in range(_TRIES):
                mark = self._mark(lease)
                self._progress.intend(mark)
                if self._progress.holds(mark):
                    return
            raise LeaseLost("the database answers too slowly: this processor may be taken for dead by now")
        except LeaseLost as error:
            lease.phase = before
            raise LeaseLost(f"mail {lease.name}: {error}") from error

    def _mark(self, lease: PostgreSQLLease) -> PhaseMark:
        self._with_slot(lease)
        lease.phase = INTENDED
        lease.mark = PhaseMark(lease.id, lease.lease, lease.slot, INTENDED)
        return lease.mark

    def _with_slot(self, lease: PostgreSQLLease) -> None:
        if lease.slot < 0:
            try:
                lease.slot = self._liveness.take_slot(lease)
            except QueueError as error:
                raise LeaseLost(f"mail {lease.name}: {error}") from error

    def accepted(self, lease: PostgreSQLLease) -> None:
        """Note that the relay has the mail, so that a death leaves nothing of it unknown."""
        if lease.phase == INTENDED:
            lease.phase = ACCEPTED
            self._notes.say(PhaseMark(lease.id, lease.lease, lease.slot, ACCEPTED))

    def sent(self, lease: PostgreSQLLease, record: Record) -> None:
        """Note that the mail has left: with what is said next of other mails, within 20 ms."""
        self._out.discard(lease)
        self._liveness.remember(lease.id)
        line = line_of(record) if lease.message_id else ""
        is_simple = lease.is_fresh and (lease.size or 0) <= ROW
        self._progress.sent(lease.id, lease.lease, lease.slot, line, is_simple=is_simple)
        if self._is_idle() and (lease.follower is None or lease.follower.is_over):
            self._progress.flush_safely()
        else:
            if lease.mark is not None and lease.mark.is_ahead:  # else it goes with the next that is intended
                self.accepted(lease)
            self._liveness.hurry()

    def back(self, lease: PostgreSQLLease) -> None:
        """Give the mail back."""
        self._end(lease)
        self._progress.back(lease.id, lease.lease, lease.slot)
        self._lines.may_be_more = True
        self._liveness.hurry()
        if self._liveness.ended:
            self._progress.flush_safely()

    def park(self, lease: PostgreSQLLease, relay: str, patience: float) -> None:
        """Let the mail wait for its relay."""
        self._lines.park(lease, relay, patience)

    def give_way(self, lease: PostgreSQLLease, relay: str, patience: float) -> bool:
        """Let the mail wait for its relay, and want what goes before it, if there is that; return whether there is."""
        return self._lines.give_way(lease, relay, patience)

    def keep(self, lease: PostgreSQLLease, record: Record) -> None:
        """Write down that an attempt has ended and the mail stays.

        :raises QueueError: if the database refuses.
        """
        due = self._now() + record.wait(self._clock.time()) if record.state is State.DEFERRED else None
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
        self._end(lease)
        if not count:
            maillog.lease_lost(lease.name, "another processor has it now; what we heard is not written down")
        self._notes.free_slot(lease.slot)
        if due is not None:
            self._lines.due_at(due)
        elif record.state is State.READY:
            self._lines.may_be_more = True

    def _end(self, lease: PostgreSQLLease) -> None:
        """Take note that a mail which stays is not ours any more."""
        now = self._clock.monotonic()
        with self._mutex:
            self._out.discard(lease)
            self._ended.append((now, lease.id, lease.lease))
            while self._ended[0][0] < now - REMEMBERED:
                self._ended.popleft()

    def settle_later(self, lease: PostgreSQLLease, record: Record) -> None:
        """Settle a lease with the next claim, since the database refused."""
        with self._mutex:
            self._unsettled.append((lease, record))
