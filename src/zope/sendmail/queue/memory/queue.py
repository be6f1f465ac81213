"""The queue contract in its smallest form: mail waits in this process and is lost with it.

For tests of applications, and to read what a queue is.  Concurrency: one mutex.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Collection
from dataclasses import replace
from math import inf
from typing import Any

from zope.interface import implementer

from zope.sendmail.interfaces import IMailQueue, IRankedQueue
from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, MailStatus, status_of
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.memory.admin import MemoryAdmin
from zope.sendmail.queue.memory.firstattempts import MemoryFirstAttempts
from zope.sendmail.queue.memory.lease import MemoryLease
from zope.sendmail.queue.memory.staging import MemoryStagedMail
from zope.sendmail.queue.memory.store import MemoryStore
from zope.sendmail.queue.memory.suppressionlist import MemorySuppressions
from zope.sendmail.system.clock import Clock


def open_memory(rest: str, **options: Any) -> MemoryQueue:  # noqa: ARG001 - what stands behind ``memory:``
    """Return a new queue in memory; `rest` is empty, since no location has more there."""
    return MemoryQueue(**options)


def shared_memory() -> MemoryQueue:
    """Return the queue that the writers and readers of this process share."""
    global _shared
    if _shared is None:
        _shared = MemoryQueue()
    return _shared


def forget_shared_memory() -> None:
    """Let the next writer and the next reader of this process share a new queue; those that there are keep theirs."""
    global _shared
    _shared = None


_shared: MemoryQueue | None = None


@implementer(IMailQueue, IRankedQueue)
class MemoryQueue:
    """See `IMailQueue`.  Nothing survives the process, so nothing is taken over."""

    def __init__(self, *, schedule: Schedule | None = None, clock: Clock | None = None) -> None:
        self.location = "memory:"
        self.schedule = schedule or Schedule()
        self.clock = clock or Clock()
        self.store = MemoryStore(self.clock)
        self.admin = MemoryAdmin(self.store)
        self.suppressions = MemorySuppressions(self.store)
        _queues.add(self)

    def stage(self) -> MemoryStagedMail:
        """See `IMailQueue.stage`."""
        return MemoryStagedMail(self.store)

    def first_attempts(self) -> MemoryFirstAttempts:
        """See `IMailQueue.first_attempts`."""
        return MemoryFirstAttempts(self.store)

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MemoryLease]:
        """See `IMailQueue.claim`.  Claims nothing `ahead`."""
        with self.store.changed:
            due = (mail for mail in self.store.mails_by_name.values() if self.store.wait_of(mail) == 0.0)
            return [MemoryLease(self.store, mail) for mail in self.store.in_turn(due, limit)]

    def has_before(self, priority: Priority) -> bool:
        """See `IRankedQueue.has_before`."""
        with self.store.changed:
            return any(
                mail.envelope.terms.priority.rank < priority.rank and self.store.wait_of(mail) == 0.0
                for mail in self.store.mails_by_name.values()
            )

    def claim_expired(self, limit: int = 100) -> list[MemoryLease]:
        """See `IMailQueue.claim_expired`."""
        with self.store.changed:
            over = (mail for mail in self.store.untaken() if mail.envelope.terms.expires <= self.clock.time())
            return [MemoryLease(self.store, mail) for mail in list(itertools.islice(over, limit))]

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        with self.store.changed:
            soonest = min((mail.envelope.terms.expires for mail in self.store.untaken()), default=inf)
            return max(0.0, soonest - self.clock.time()) if soonest < inf else None

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`."""
        with self.store.changed:
            self.store.changed.wait_for(lambda: self.store.woken, timeout)
            self.store.woken = False

    def wake(self) -> None:
        """See `IMailQueue.wake`.  Not for signal handlers, because of its mutex; use a `MaildirQueue` there."""
        self.store.wake()

    def next_due(self) -> float | None:
        """See `IMailQueue.next_due`."""
        with self.store.changed:
            waits = [
                wait for mail in self.store.mails_by_name.values() if (wait := self.store.wait_of(mail)) is not None
            ]
            return min(waits, default=None)

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue.unpark`."""
        with self.store.changed:
            return self.store.unpark(relay, limit)

    def parked(self) -> Collection[str]:
        """See `IMailQueue.parked`."""
        with self.store.changed:
            return {mail.parked for mail in self.store.mails_by_name.values() if mail.parked}

    def close(self) -> None:
        """See `IMailQueue.close`."""
        with self.store.changed:
            for mail in self.store.mails_by_name.values():
                mail.lease = None
                mail.parked = ""

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`."""
        mails = [mail for mail in self.admin.mails() if mail.message_id == message_id]
        return status_of(message_id, mails, self.store.departed.get(message_id), KEPT_DAYS, now=self.clock.time())

    def report(self, state: ProcessorState) -> None:
        """See `IMailQueue.report`.  The processors of this process tell of one queue as if they were one."""
        with self.store.changed:
            others = [each for each in self.store.reported if each.started != state.started]
            told = state.absorb(each for each in others if each.ended)
            self.store.reported = [*others[-1:], replace(told, alive=not state.ended)]

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`."""
        return self.store.probes.get(relay, 0.0)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`.  Other processes know nothing of this queue."""
        with self.store.changed:
            now = self.clock.monotonic()
            begin = max(now, self.store.turns.get(relay, now))
            self.store.turns[relay] = begin + count / rate
            return begin - now


_queues: weakref.WeakSet[MemoryQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.store.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
