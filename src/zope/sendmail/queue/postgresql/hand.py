"""The mails that a processor has in hand: what its workers say of them, and what of that is written down."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.postgresql.body import ROW
from zope.sendmail.queue.postgresql.connection import Connections
from zope.sendmail.queue.postgresql.lease import INTENDED, OPENED, PostgreSQLLease
from zope.sendmail.queue.postgresql.lines import Lines
from zope.sendmail.queue.postgresql.liveness import Liveness
from zope.sendmail.queue.postgresql.progress import Progress
from zope.sendmail.queue.postgresql.rows import NUMBERS, line_of
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock


class Hand:
    """See the module.  Concurrency: any thread.

    :param is_idle: says whether nothing is claimed ahead, so that a worker has the time to speak.
    """

    def __init__(
        self,
        connections: Connections,
        liveness: Liveness,
        progress: Progress,
        lines: Lines,
        clock: Clock,
        *,
        now: Callable[[], float],
        is_idle: Callable[[], bool],
    ) -> None:
        self.connections = connections
        self._liveness = liveness
        self._progress = progress
        self._lines = lines
        self._clock = clock
        self._now = now
        self._is_idle = is_idle
        self._mutex = threading.Lock()
        #: The leases that have not ended.
        self._out: set[PostgreSQLLease] = set()
        self._unsettled: list[tuple[PostgreSQLLease, Record]] = []

    def take(self, leases: list[PostgreSQLLease]) -> None:
        """Have these, too."""
        self._out.update(leases)

    def give_back(self) -> None:
        """Give back what no worker has touched."""
        for lease in [each for each in list(self._out) if each.slot < 0]:
            lease.release()

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
        if self._is_idle():
            self._progress.flush_safely()
        else:
            self._liveness.hurry()

    def back(self, lease: PostgreSQLLease) -> None:
        """Give the mail back."""
        self._out.discard(lease)
        self._progress.back(lease.id, lease.lease, lease.slot)
        self._lines.may_be_more = True
        self._liveness.hurry()
        if self._liveness.ended:
            self._progress.flush_safely()

    def park(self, lease: PostgreSQLLease, relay: str, patience: float) -> None:
        """Let the mail wait for its relay."""
        self._lines.park(lease, relay, patience)

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
        self._out.discard(lease)
        if not count:
            maillog.lease_lost(lease.name, "another processor has it now; what we heard is not written down")
        self._liveness.free_slot(lease.slot)
        if due is not None:
            self._lines.due_at(due)
        elif record.state is State.READY:
            self._lines.may_be_more = True

    def settle_later(self, lease: PostgreSQLLease, record: Record) -> None:
        """Settle a lease with the next claim, since the database refused."""
        with self._mutex:
            self._unsettled.append((lease, record))
