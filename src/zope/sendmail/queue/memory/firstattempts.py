"""First attempts of a transaction at its own mail in memory."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from zope.sendmail.interfaces import IFirstAttempts
from zope.sendmail.queue.memory.lease import MemoryLease
from zope.sendmail.queue.memory.store import MemoryStore


@implementer(IFirstAttempts)
class MemoryFirstAttempts:
    """See `IFirstAttempts`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._leases: dict[str, MemoryLease] = {}

    def commit(self, staged: Any) -> None:
        """See `IFirstAttempts`."""
        with self._store.changed:
            names = staged.names
            staged.commit()
            self._leases |= {name: MemoryLease(self._store, self._store.mails_by_name[name]) for name in names}

    def claim(self, name: str) -> MemoryLease | None:
        """See `IFirstAttempts`."""
        return self._leases.pop(name, None)

    def leave(self, name: str) -> None:
        """See `IFirstAttempts`."""
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.release()
            self._store.wake()

    def close(self) -> None:
        """See `IFirstAttempts`."""
        for name in list(self._leases):
            self.leave(name)
