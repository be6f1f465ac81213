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
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.status import MailStatus, Standing
from zope.sendmail.maildir import age_key
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.queue.spool.queue import PREFIX, SpoolQueue

_T = TypeVar("_T")


def open_spool(directories: str, **options: Any) -> IMailQueue:
    """The queue over one spool directory, or over several with ``;`` between them: mail is written to the first."""
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
        self._turn = 0

    def stage(self) -> StagedMail:
        """See `IMailQueue`."""
        return self._queues[0].stage()

    def claim(self, limit: int = 1) -> list[MaildirLease]:
        """See `IMailQueue`; oldest first within a directory, each directory in its turn.

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

    def close(self) -> None:
        """See `IMailQueue`."""
        for queue in self._queues:
            queue.close()

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue`."""
        known = (queue.status(message_id) for queue in self._queues)
        return min(known, key=lambda status: status.standing is Standing.UNKNOWN and not status.replies)

    def count(self) -> Mapping[State, int]:
        """See `IMailQueue`."""
        total: Counter[State] = Counter()
        for queue in self._queues:
            total.update(queue.count())
        return {state: total[state] for state in State if total[state]}

    def oldest(self) -> float | None:
        """See `IMailQueue`."""
        return min((since for queue in self._queues if (since := queue.oldest()) is not None), default=None)

    def mails(self, states: Iterable[State] = (), *arguments: Any, **more: Any) -> Iterator[QueuedMail]:
        """See `IMailQueue`."""
        states = frozenset(states)
        every = (queue.mails(states, *arguments, **more) for queue in self._queues)
        return heapq.merge(*every, key=lambda mail: age_key(mail.name))

    def names(self) -> Iterator[str]:
        """See `IMailQueue`."""
        return heapq.merge(*(queue.names() for queue in self._queues), key=age_key)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueue`."""
        for queue in self._queues:
            yield from queue.examine()

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueue`."""
        return self._first(lambda queue: queue.show(name))

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueue`."""
        return self._first(lambda queue: queue.read(name))

    def hold(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.hold(name))

    def release(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.release(name))

    def retry(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.retry(name))

    def remove(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.remove(name))

    def _first(self, verb: Callable[[SpoolQueue], _T]) -> _T:
        """What the queue that has the mail makes of `verb`."""
        for queue in self._queues[:-1]:
            with contextlib.suppress(NoSuchMail):
                return verb(queue)
        return verb(self._queues[-1])
