"""Which mails of a Maildir queue have a Message-Id: an index in memory, which any use brings up to date.

Each file is read once by a queue object, for the message of a mail never changes; what is new or gone is learnt from
the names in the directory.  So what the index says is right after a crash, beside other processes, and beside older
releases.  Concurrency: any thread.
"""

from __future__ import annotations

import contextlib

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.queue.maildir.layout import REJECTED
from zope.sendmail.queue.maildir.store import Listing, Store
from zope.sendmail.system.forklock import ForkLock

#: So many mails are kept in mind, at less than 200 bytes each; what is beyond that is read each time.
_MOST = 200_000

#: A mail that has none, or cannot be read.
_NONE = 0


class MessageIds:
    """The index of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = ForkLock()
        #: The hash of its Message-Id by the path of a mail below the queue: a hash takes less room, and a reader sees
        #: whether it lies.
        self._hashes: dict[str, int] = {}

    def find(self, message_id: str, listing: Listing) -> list[tuple[str, bool]]:
        """Return the mails that have this Message-Id, and perhaps others, as pairs of key and whether it was set aside.

        :param message_id: without angle brackets.
        :param listing: what is in the queue.
        """
        wanted = hash(message_id) or 1
        set_aside = {self._path(key): key for key in listing.rejected}
        with self._mutex:
            present = {*listing.keys, *set_aside}
            for path in self._hashes.keys() - present:
                del self._hashes[path]
            beyond = self._learn(present - self._hashes.keys())
            found = [path for each in (self._hashes, beyond) for path, value in each.items() if value == wanted]
        return [(set_aside.get(path, path), path in set_aside) for path in found]

    def _learn(self, paths: set[str]) -> dict[str, int]:
        """Read mails that are new; return the hashes of those for which there is no room."""
        beyond: dict[str, int] = {}
        for path in paths:
            (self._hashes if len(self._hashes) < _MOST else beyond)[path] = self._hash(path)
        return beyond

    def _path(self, key: str) -> str:
        """Return where a mail that was set aside is, below the queue's directory."""
        directory, _, name = key.rpartition("/")
        return f"{directory}/{REJECTED}{name}"

    def _hash(self, path: str) -> int:
        with contextlib.suppress(OSError, MalformedEnvelope):
            _, stream = self._store.open(path)
            with stream:
                if found := message_id_in(stream):
                    return hash(found) or 1
        return _NONE
