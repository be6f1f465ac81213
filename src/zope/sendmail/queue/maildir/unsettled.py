"""The leases whose end the disk has refused to write down: they keep their locks, and are settled again later."""

from __future__ import annotations

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock


class UnsettledLeases:
    """Leases that wait for the disk, each with what is to be written down.  Concurrency: with the queue's mutex."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: list[tuple[MaildirLease, Record]] = []
        #: When to write them down again, how many seconds behind the last time, and of which the log has told.
        self._settle_at, self._patience = float("-inf"), 0.5
        self._told: set[str] = set()

    def add(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """Settle the lease later; the log tells it once."""
        if lease.name not in self._told:
            self._told.add(lease.name)
            maillog.settling_failed(lease.name, error)
        self._leases.append((lease, record))

    def settle_again(self) -> None:
        """Write down what the disk has refused so far: at once, then after a second, two, four, at most a minute."""
        now = self._clock.monotonic()
        if not self._leases or now < self._settle_at:
            return
        again, self._leases = self._leases, []
        for lease, record in again:
            lease.settle(record)
        self._patience = min(2 * self._patience, 60.0) if self._leases else 0.5
        self._settle_at = now + self._patience
        if not self._leases:
            self._settle_at = now
            self._told.clear()

    def keep_alive_ones(self) -> None:
        """Forget those that can no longer be settled."""
        self._leases = [each for each in self._leases if each[0].is_alive()]

    def forget_after_fork(self) -> None:
        """Forget all in a forked child: every lease is its parent's."""
        self._leases = []

    def abandon(self) -> None:
        """Leave them to the next processor."""
        for lease, _ in self._leases:
            lease.abandon()
