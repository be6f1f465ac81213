"""Locks a message beside which there is no room for its lock, by moving it to where there is: to ``cur/``.

Some file systems (XFS) keep a small directory in its inode, and want a block for one more name.  ``cur/`` is mostly
empty, has room for two names, and is read like ``new/``, by older releases as well; so a mail there is as any other.

Guarantee: a message is with one processor, although the lock of another one may have come a moment before the move.
What locks a message in ``cur/`` looks then whether there is a lock of that name in ``new/`` (`Owner.take`), and a
processor that has sent one from ``new/`` removes it from where it is (`Store.settle`).  Fails with `OSError`.
"""

from __future__ import annotations

import contextlib

from zope.sendmail.queue.maildir.locks import Busy, CannotClaim, Lock, Owner
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.system.disk import NO_ROOM

_FULL, _OTHER = "new/", "cur/"


def take(owner: Owner, store: Store, key: str) -> tuple[str, Lock | Busy]:
    """Lock a message as `Owner.take` does; return its key, which is another one if it had to be moved.

    :raises CannotClaim: if there is no room elsewhere, either; then it is where it was.
    """
    try:
        return key, owner.take(key, is_last_resort=False)
    except CannotClaim as trouble:
        if trouble.errno not in NO_ROOM:
            raise
    moved = _OTHER + key.removeprefix(_FULL)
    if not key.startswith(_FULL) or key.count("/") > 1 or not _move(store, key, moved):
        return key, owner.take(key)
    got: Lock | Busy | None = None
    with contextlib.suppress(CannotClaim):
        got = owner.take(moved, is_last_resort=False)
    if isinstance(got, Lock) or not _move(store, moved, key):
        return moved, got or owner.take(moved)
    return key, got or owner.take(key)


def _move(store: Store, old: str, new: str) -> bool:
    """Move a message that waits, or was set aside, and return whether that went."""
    for path_of in (store.layout.message, store.layout.rejected):
        with contextlib.suppress(OSError):
            store.disk.rename_new(path_of(old), path_of(new))
            return True
    return False
