"""One spool directory or several as one queue: what stands behind ``spool:`` in the location of a queue.

Fails as `SpoolQueue`; a list without directories is a `QueueError`.
"""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

from zope.interface import implementer

from zope.sendmail.errors import NoSuchMail, QueueError
from zope.sendmail.interfaces import IMailQueue, IMailQueueAdmin
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.status import MailStatus, Standing
from zope.sendmail.maildir import age_key
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.maildir.firstattempts import FirstAttempts
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.queue.maildir.transit import MaildirTransit
from zope.sendmail.queue.spool.queue import PREFIX, SpoolQueue

_T = TypeVar("_T")


def open_spool(directories: str, **options: Any) -> IMailQueue:
    """Return the queue over one spool directory, or over several with ``;`` between them: mail is written to the
    first.
    """
    paths = list(dict.fromkeys(path.strip() for path in directories.split(";") if path.strip()))
    if not paths:
        raise QueueError(f"{PREFIX}{directories} names no directory; write {PREFIX}/path")
    queues = [SpoolQueue(path, **options) for path in paths]
    return queues[0] if len(queues) == 1 else SpoolQueues(queues)


@implementer(IMailQueue)
class SpoolQueues:
    """Several spool directories as one queue: written to the first, read from all.  See `IMailQueue`."""

    def __init__(self, queues: Sequence[SpoolQueue]) -> None:
        self._queues = tuple(queues)
        self.schedule = queues[0].schedule
        self.location = PREFIX + ";".join(queue.spool for queue in queues)
        self.suppressions = queues[0].suppressions
        self.admin = SpoolsAdmin([queue.admin for queue in self._queues])
        self._turn = 0

    @property
    def transits(self) -> list[MaildirTransit]:
        """How mail is moved from these spools, and to the first of them."""
        return [transit for queue in self._queues for transit in queue.transits]

    def stage(self) -> StagedMail:
        """See `IMailQueue`."""
        return self._queues[0].stage()

    def first_attempts(self) -> FirstAttempts:
        """See `IMailQueue`."""
        return self._queues[0].first_attempts()

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MaildirLease]:
        """See `IMailQueue.claim`; oldest first within a directory, each directory in its turn.

        A directory in trouble does not keep what is in the others: it raises when there is nothing else to do.
        """
        leases: list[MaildirLease] = []
        trouble: OSError | None = None
        self._turn += 1
        for number in range(len(self._queues)):
            queue = self._queues[(self._turn + number) % len(self._queues)]
            try:
                leases.extend(queue.claim(limit - len(leases)))
            except OSError as error:
                trouble = error
        if trouble is not None and not leases:
            raise trouble
        return leases

    def claim_expired(self, limit: int = 100) -> list[MaildirLease]:
        """See `IMailQueue.claim_expired`."""
        leases: list[MaildirLease] = []
        for queue in self._queues:
            leases += queue.claim_expired(limit - len(leases))
        return leases

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        known = [expiry for queue in self._queues if (expiry := queue.next_expiry()) is not None]
        return min(known, default=None)

    def wait(self, timeout: float) -> None:
        """See `IMailQueue`; only the first directory's commits ring, as only they are ours."""
        self._queues[0].wait(timeout)

    def wake(self) -> None:
        """See `IMailQueue`."""
        self._queues[0].wake()

    def next_due(self) -> float | None:
        """See `IMailQueue`."""
        known = [due for queue in self._queues if (due := queue.next_due()) is not None]
        return min(known, default=None)

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
        """See `IMailQueue.report`; each spool tells it."""
        for queue in self._queues:
            queue.report(state)

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`; in whichever spool."""
        return max(queue.probe_asked(relay) for queue in self._queues)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`; those of all spools are in the first."""
        return self._queues[0].take_turns(relay, rate, count)

    def close(self) -> None:
        """See `IMailQueue`."""
        for queue in self._queues:
            queue.close()

    def is_attended(self) -> bool:
        """Say whether the first spool is drained, into which mail is put."""
        return self._queues[0].is_attended()

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue`."""
        known = (queue.status(message_id) for queue in self._queues)
        return min(known, key=lambda status: status.standing is Standing.UNKNOWN and not status.replies)


@implementer(IMailQueueAdmin)
class SpoolsAdmin:
    """What operators see and do in several spools as if they were one; see `IMailQueueAdmin`."""

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
        """See `IMailQueueAdmin.processors`; a processor of all these spools is told once."""
        told = {(each.pid, each.host, each.started): each for admin in self._admins for each in admin.processors()}
        return list(told.values())

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`; a processor of all these spools looks into the first."""
        for admin in reversed(self._admins):
            admin.probe(relay)

    def _first(self, verb: Callable[[IMailQueueAdmin], _T]) -> _T:
        """Return what the queue that has the mail makes of `verb`."""
        for admin in self._admins[:-1]:
            with contextlib.suppress(NoSuchMail):
                return verb(admin)
        return verb(self._admins[-1])
