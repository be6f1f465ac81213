"""Which messages go first to which of several processes that send from one queue, so that they do not meet.

A message belongs to the share of one process by its name.  The others leave it to that one for a moment, and for longer
while they have enough of their own; a process that shows no sign of life loses its share to them.
"""

from __future__ import annotations

import os
import zlib

from zope.sendmail.queue.maildir.index import Index
from zope.sendmail.queue.maildir.layout import name_of
from zope.sendmail.queue.maildir.store import Store

#: Seconds for which a message of another process's share is left to that one: at first, while there are enough of our
#: own, and as long as that process shows no sign of life.
_OTHERS, _OTHERS_WHILE_BUSY, _OTHERS_SILENT = 2.0, 10.0, 60.0


class ProcessShare:
    """The share of one process.  Concurrency: with the queue's mutex."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clock = store.clock
        self._share, self.shares = 0, 1
        #: When a message of another share was gone, so that its process is alive.
        self._seen_alive: dict[int, float] = {}
        #: Messages of other shares that were given back here.
        self._given_back: set[str] = set()

    def prefer(self, share: int, shares: int) -> None:
        """Let this be the share, counted from 0, of so many."""
        self._share, self.shares = share, shares
        self._seen_alive = dict.fromkeys(range(shares), self._clock.monotonic())

    def grace(self, key: str) -> float:
        """Return the seconds for which a new message is left to the process whose share it is; 0.0 if that is ours."""
        return 0.0 if self.shares == 1 or self._share_of(key) == self._share else _OTHERS

    def gave_back(self, key: str) -> None:
        """Leave a message that was locked here, and not sent, to no other process any more.

        The one whose share it is may have found it locked meanwhile, and have ended since, with nothing else to do.
        """
        if self.shares > 1 and self._share_of(key) != self._share:
            self._given_back.add(key)

    def _share_of(self, key: str) -> int:
        return zlib.crc32(os.fsencode(name_of(key))) % self.shares

    def is_left_to_others(self, key: str, index: Index) -> bool:
        """Return whether the process whose share the message is may have it still; the index knows what to do then.

        :raises FileNotFoundError: that one had it.
        """
        share, now = self._share_of(key), self._clock.monotonic()
        if key in self._given_back:
            self._given_back.discard(key)
            return False
        if share == self._share or not index.has_fresh():
            return False
        try:
            self._store.disk.stat(self._store.layout.message(key))
        except FileNotFoundError:
            self._seen_alive[share] = now
            raise
        if now - self._seen_alive[share] >= _OTHERS_SILENT:
            return False
        index.put(key, now + _OTHERS_WHILE_BUSY)
        return True
