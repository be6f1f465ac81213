"""The addresses that get no mail of a queue in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zope.interface import implementer

from zope.sendmail.interfaces import ISuppressions
from zope.sendmail.lifecycle.suppression import Suppression, SuppressionTable, normalized
from zope.sendmail.queue.memory.store import MemoryStore


@implementer(ISuppressions)
class MemorySuppressions:
    """The addresses that get no mail of a `MemoryQueue`; see `ISuppressions`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._table = SuppressionTable()

    def among(self, recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """See `ISuppressions.among`."""
        return self._table.among(recipients, self._store.clock.time())

    def add(self, *entries: Suppression) -> None:
        """See `ISuppressions.add`."""
        with self._store.changed:
            for entry in entries:
                self._table.put(entry)

    def remove(self, *addresses: str) -> int:
        """See `ISuppressions.remove`."""
        wanted = [normalized(address) for address in addresses]
        with self._store.changed:
            return sum(map(self._table.drop, wanted))

    def entries(self) -> Sequence[Suppression]:
        """See `ISuppressions.entries`."""
        with self._store.changed:
            return self._table.entries(self._store.clock.time())
