"""Several queues as one: spools on one disk, or shards in several databases.

A queue in trouble does not keep what is in the others.  Concurrency: as that of the queues.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

from zope.interface import implementer

from zope.sendmail.errors import NoSuchMail
from zope.sendmail.interfaces import IFirstAttempts, ILease, IMailQueue, IMailQueueAdmin, IRankedQueue, IStagedMail
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.mailstatus import MailStatus, Standing
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.transit import Transit

_T = TypeVar("_T")


@implementer(IMailQueue, IRankedQueue)
class SeveralQueues:
    """Several queues as one: written to the first, read from all.  See `IMailQueue`.

    :param location: what all of them are called together.
    """

    def __init__(self, queues: Sequence[Any], location: str) -> None:
        self._queues = tuple(queues)
        self.schedule = queues[0].schedule
        self.location = location
        self.suppressions = queues[0].suppressions
        self.admin = SeveralAdmin([queue.admin for queue in self._queues])
        self._turn = 0

    @property
    def transits(self) -> list[Transit]:
        """How mail is moved from these queues, and to the first of them."""
        return [transit for queue in self._queues for transit in queue.transits]

    def stage(self) -> IStagedMail:
        """See `IMailQueue`."""
        staged: IStagedMail = self._queues[0].stage()
        return staged

    def first_attempts(self) -> IFirstAttempts:
        """See `IMailQueue`."""
        attempts: IFirstAttempts = self._queues[0].first_attempts()
        return attempts

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[ILease]:
        """See `IMailQueue.claim`; oldest first within a queue, each queue in its turn.

        A queue in trouble does not keep what is in the others: it raises when there is nothing else to do.
        """
        self._turn += 1
        turn = self._turn % len(self._queues)
        return self._leases(
            (*self._queues[turn:], *self._queues[:turn]),
            limit,
            lambda queue, left: queue.claim(left, ahead=ahead),
        )

    @staticmethod
    def _leases(queues: Iterable[Any], limit: int, claim: Callable[[Any, int], Iterable[ILease]]) -> list[ILease]:
        """Return what `claim` gives of each queue; trouble is raised if there is nothing else."""
        leases: list[ILease] = []
        trouble: OSError | None = None
        for queue in queues:
            try:
                leases.extend(claim(queue, limit - len(leases)))
            except OSError as error:
                trouble = error
        if trouble is not None and not leases:
            raise trouble
        return leases

    def has_before(self, priority: Priority) -> bool:
        """See `IRankedQueue.has_before`; in whichever queue."""
        return any(queue.has_before(priority) for queue in self._queues)

    def claim_expired(self, limit: int = 100) -> list[ILease]:
        """See `IMailQueue.claim_expired`; trouble is as with `claim`."""
        return self._leases(self._queues, limit, lambda queue, left: queue.claim_expired(left))

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        known = [expiry for queue in self._queues if (expiry := queue.next_expiry()) is not None]
        return min(known, default=None)

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`; the first of them that hears something ends it for all."""
        others = [threading.Thread(target=self._wait_for, args=(queue, timeout)) for queue in self._queues[1:]]
        for thread in others:
            thread.start()
        try:
            self._queues[0].wait(timeout)
        finally:
            for queue in self._queues[1:]:
                queue.wake()
            for thread in others:
                thread.join()

    def _wait_for(self, queue: Any, timeout: float) -> None:
        with contextlib.suppress(OSError):  # the next claim tells of it
            queue.wait(timeout)
            self._queues[0].wake()

    def wake(self) -> None:
        """See `IMailQueue`."""
        self._queues[0].wake()

    def next_due(self) -> float | None:
        """See `IMailQueue`."""
        known = [due for queue in self._queues if (due := queue.next_due()) is not None]
        return min(known, default=None)

    @property
    def awaits_files(self) -> bool:
        """Whether another process is making files of committed mail in one of them; see `MaildirQueue`."""
        return any(getattr(queue, "awaits_files", False) for queue in self._queues)

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue`."""
        count = 0
        for queue in self._queues:
            count += queue.unpark(relay, limit - count)
        return count

    def parked(self) -> Collection[str]:
        """See `IMailQueue`."""
        return {relay for queue in self._queues for relay in queue.parked()}

    def report(self, state: ProcessorState) -> None:
        """See `IMailQueue.report`; each queue tells it."""
        for queue in self._queues:
            queue.report(state)

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`; in whichever queue."""
        return max(float(queue.probe_asked(relay)) for queue in self._queues)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`; those of all queues are in the first."""
        return float(self._queues[0].take_turns(relay, rate, count))

    def close(self) -> None:
        """See `IMailQueue`."""
        for queue in self._queues:
            queue.close()

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue`."""
        known = (queue.status(message_id) for queue in self._queues)
        found: MailStatus = min(known, key=lambda status: status.standing is Standing.UNKNOWN and not status.replies)
        return found


@implementer(IMailQueueAdmin)
class SeveralAdmin:
    """What operators see and do in several queues as if they were one; see `IMailQueueAdmin`."""

    def __init__(self, admins: Sequence[IMailQueueAdmin]) -> None:
        self._admins = tuple(admins)

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`."""
        total: Counter[State] = Counter()
        for admin in self._admins:
            total.update(admin.count())
        return {state: total[state] for state in State if total[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        return min((since for admin in self._admins if (since := admin.oldest()) is not None), default=None)

    def mails(self, states: Iterable[State] = (), *arguments: Any, **more: Any) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`."""
        states = frozenset(states)
        every = (admin.mails(states, *arguments, **more) for admin in self._admins)
        return heapq.merge(*every, key=lambda mail: age_key(mail.name))

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        return heapq.merge(*(admin.names() for admin in self._admins), key=age_key)

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        wanted = list(names)
        found = {mail.name: mail for admin in self._admins for mail in admin.these(wanted)}
        return (found[name] for name in wanted if name in found)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`."""
        for admin in self._admins:
            yield from admin.examine()

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`."""
        for admin in self._admins:
            yield from admin.unusable()

    def in_doubt(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.in_doubt`."""
        for admin in self._admins:
            yield from admin.in_doubt()

    def forget_keys(self) -> int:
        """See `IMailQueueAdmin.forget_keys`."""
        return sum(admin.forget_keys() for admin in self._admins)

    def expire_rejected(self, before: float) -> int:
        """See `IMailQueueAdmin.expire_rejected`."""
        return sum(admin.expire_rejected(before) for admin in self._admins)

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        return self._first(lambda admin: admin.show(name))

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        return self._first(lambda admin: admin.read(name))

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        self._first(lambda admin: admin.hold(name))

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        self._first(lambda admin: admin.release(name))

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        self._first(lambda admin: admin.retry(name))

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        self._first(lambda admin: admin.remove(name))

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        self._first(lambda admin: admin.reroute(name, relay))

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        self._first(lambda admin: admin.give_up(name, why))

    def processors(self) -> Sequence[ProcessorState]:
        """See `IMailQueueAdmin.processors`; a processor of all these queues is told once."""
        told = {(each.pid, each.host, each.started): each for admin in self._admins for each in admin.processors()}
        return list(told.values())

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`; a processor of all these queues looks into the first."""
        for admin in reversed(self._admins):
            admin.probe(relay)

    def _first(self, verb: Callable[[IMailQueueAdmin], _T]) -> _T:
        """Return what the queue that has the mail makes of `verb`."""
        for admin in self._admins[:-1]:
            with contextlib.suppress(NoSuchMail):
                return verb(admin)
        return verb(self._admins[-1])
