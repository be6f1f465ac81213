"""Which mails of a Maildir queue have a Message-Id: an index in memory, which any use brings up to date.

Each mail is read once, for its message never changes; what is new or gone is learnt from the names in the directory.
So what the index says is right after a crash, beside other processes, and beside older releases.  What was learnt of
many mails is kept in a file, with which the next process begins.  Concurrency: any thread.
"""

from __future__ import annotations

import contextlib
from hashlib import blake2b

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.queue.maildir.layout import REJECTED
from zope.sendmail.queue.maildir.messageidfile import MessageIdFile
from zope.sendmail.queue.maildir.store import Listing, Store
from zope.sendmail.system.forklock import ForkLock

#: So many mails are kept in mind, at less than 200 bytes each; what is beyond that is read each time.
_MOST = 200_000

#: A mail that has none, or cannot be read.
_NONE = 0

#: The file is written when so many mails were read that it does not name, and as many as this part of those it does.
_NEW, _SHARE = 256, 8


class MessageIds:
    """The index of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = ForkLock()
        #: The hash of its Message-Id by the path of a mail below the queue: a hash takes less room, and a reader sees
        #: whether it lies.
        self._hashes: dict[str, int] = {}
        self._file = MessageIdFile(store.layout, store.disk)
        #: Mails that the file does not name; None before it was read.
        self._unwritten: int | None = None

    def find(self, message_id: str, listing: Listing) -> list[tuple[str, bool]]:
        """Return the mails that have this Message-Id, and perhaps others, as pairs of key and whether it was set aside.

        :param message_id: without angle brackets.
        :param listing: what is in the queue.
        """
        wanted = _hash_of(message_id)
        set_aside = {self._path(key): key for key in listing.rejected}
        with self._mutex:
            present = {*listing.keys, *set_aside}
            if self._unwritten is None and len(present) >= _NEW:
                self._hashes.update(self._file.read())
                self._unwritten = 0
            for path in self._hashes.keys() - present:
                del self._hashes[path]
            beyond = self._learn(present - self._hashes.keys())
            found = [path for each in (self._hashes, beyond) for path, value in each.items() if value == wanted]
        return [(set_aside.get(path, path), path in set_aside) for path in found]

    def _learn(self, paths: set[str]) -> dict[str, int]:
        """Read mails that are new; return the hashes of those for which there is no room."""
        beyond: dict[str, int] = {}
        before = len(self._hashes)
        for path in paths:
            with contextlib.suppress(OSError):  # it is gone, or cannot be read now
                (self._hashes if len(self._hashes) < _MOST else beyond)[path] = self._hash(path)
        self._unwritten = (self._unwritten or 0) + len(self._hashes) - before
        if self._unwritten >= max(_NEW, len(self._hashes) // _SHARE):
            self._file.write(self._hashes)
            self._unwritten = 0
        return beyond

    def _path(self, key: str) -> str:
        """Return where a mail that was set aside is, below the queue's directory."""
        directory, _, name = key.rpartition("/")
        return f"{directory}/{REJECTED}{name}"

    def _hash(self, path: str) -> int:
        with contextlib.suppress(MalformedEnvelope):
            _, stream = self._store.open(path)
            with stream:
                if found := message_id_in(stream):
                    return _hash_of(found)
        return _NONE


def _hash_of(message_id: str) -> int:
    """Return the same number in every process."""
    return int.from_bytes(blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=7).digest()) or 1
