"""Which of the messages that a processor has locked together have a history after all.

They had none when the directory was read; another processor may have written one until its lock ended.  To ask for a
file that is not there costs 3 us, most of it for the exception: a fifth of a claim.  So a claim of several messages
reads the directory instead, where it has few names.  Raises nothing: a closer look meets the trouble again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zope.sendmail.queue.maildir.store import Store

#: So many messages are worth while to read the directory for, and so many names in it at most.
_SEVERAL, _FEW = 3, 128

#: Seconds until it is looked again whether there are no more.
_LOOK_AGAIN = 60.0


class LockedHistories:
    """See the module.  Concurrency: the queue's mutex."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_by_one_until = float("-inf")

    def among(self, names: Sequence[str]) -> Collection[str]:
        """Return those of these messages, all of them locked by us, that have a history, or may have one."""
        if len(names) < _SEVERAL or self._store.clock.monotonic() < self._one_by_one_until:
            return [name for name in names if self._may_have(name)]
        try:
            there = self._store.disk.names(self._store.layout.history_)
        except FileNotFoundError:
            return ()
        except OSError:
            return names
        if len(there) > _FEW:
            self._one_by_one_until = self._store.clock.monotonic() + _LOOK_AGAIN
        return set(names).intersection(there) if there else ()

    def _may_have(self, name: str) -> bool:
        try:
            return self._store.disk.exists(self._store.layout.history_of(name))
        except OSError:
            return True
