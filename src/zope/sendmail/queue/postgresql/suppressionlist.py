"""The addresses that get no mail of a queue in a database: its rows, and a table of them in memory.

Each change has the next version of its queue, so that only what is new is read.  Changes of one queue come one after
the other, for each has the queue's row locked until it has committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from zope.interface import implementer

from zope.sendmail.interfaces import ISuppressions
from zope.sendmail.lifecycle.suppression import Suppression, SuppressionTable, normalized
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock

#: Seconds for which what is in memory is believed.
_EVERY = 1.0

#: Entries that are written with one statement.
_AT_ONCE = 1000


@implementer(ISuppressions)
class PostgreSQLSuppressions:
    """See `ISuppressions`.

    :param find: returns the number of the queue in its database, None if it was never used.
    :param make: does the same, and makes one if there is none.
    """

    def __init__(
        self, connections: Connections, clock: Clock, find: Callable[[], int | None], make: Callable[[], int]
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._find = find
        self._make = make
        self._mutex = ForkLock()
        self._table = SuppressionTable()
        self._version = 0
        self._next = -inf

    def among(self, recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """See `ISuppressions.among`."""
        if self._clock.monotonic() >= self._next:
            self._refresh()
        return self._table.among(recipients, self._clock.time())

    def add(self, *entries: Suppression) -> None:
        """See `ISuppressions.add`.  Of very many, the first may have been added when the database refuses."""
        unique = list({each.address: each for each in entries}.values())
        for at in range(0, len(unique), _AT_ONCE):
            some = unique[at : at + _AT_ONCE]
            self._connections.execute(
                "suppress",
                queue=self._make(),
                addresses=[each.address for each in some],
                reasons=[each.reason.replace("\0", " ") for each in some],
                since=[each.since for each in some],
                until=[each.until if each.until < inf else None for each in some],
            )
        self._refresh()

    def remove(self, *addresses: str) -> int:
        """See `ISuppressions.remove`."""
        wanted = list({normalized(each) for each in addresses})
        queue = self._find()
        rows = [] if queue is None else self._connections.execute("unsuppress", queue=queue, addresses=wanted)
        self._refresh()
        return len(rows)

    def entries(self) -> Sequence[Suppression]:
        """See `ISuppressions.entries`."""
        self._refresh()
        with self._mutex:
            return self._table.entries(self._clock.time())

    def _refresh(self) -> None:
        """Bring the table up to date.  If that fails, it is done before the next question is answered."""
        with self._mutex:
            queue = self._find()
            rows = [] if queue is None else self._connections.execute("suppressed", queue=queue, known=self._version)
            for address, reason, since, until, version, removed in rows:
                self._version = max(self._version, version)
                if removed:
                    self._table.drop(address)
                else:
                    self._table.put(Suppression(address, reason, since, inf if until is None else until))
            self._next = self._clock.monotonic() + _EVERY
