"""How it stands with the messages that were tried, for operators who ask again and again.

A history is read when it is new or has changed, as its inode, length and time stamp tell; of 100,000 messages that wait
for their next attempt only a few change in between.  Concurrency: any thread.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.layout import name_of
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.system.forklock import ForkLock

#: So many messages are kept in mind, at about 200 bytes each; the histories of others are read each time.
_MOST = 200_000

#: What most messages that were tried are.
_DEFERRED = Record(State.DEFERRED)


class _Known(NamedTuple):
    stamp: tuple[int, int, int]
    record: Record


class LastStates:
    """The last record of each message, without its replies; of those that are deferred only that they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = ForkLock()
        self._known: dict[str, _Known] = {}

    def forget_others(self, names: Collection[str]) -> None:
        """Forget the messages that are not among these."""
        with self._mutex:
            for name in self._known.keys() - names:
                del self._known[name]

    def of(self, key: str) -> Record | None:
        """Return the record of a message; None if it has none that can be read."""
        name = name_of(key)
        try:
            status = self._store.disk.stat(self._store.layout.history(key))
        except OSError:
            return None
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._known.get(name)
        if known is None or known.stamp != stamp:
            try:
                known = _Known(stamp, self._read(key))
            except OSError:  # the next time it may be read
                return None
            with self._mutex:
                if name in self._known or len(self._known) < _MOST:
                    self._known[name] = known
        return None if known.record == Record() else known.record

    def _read(self, key: str) -> Record:
        record = self._store.record(key)
        if record.state is State.DEFERRED:
            return _DEFERRED
        return replace(record, replies={}, parts={})
