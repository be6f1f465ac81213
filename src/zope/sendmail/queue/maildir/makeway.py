"""Locks a message beside which there is no room for its lock, by moving it to where there is: to ``cur/``.

Some file systems (XFS) keep a small directory in its inode, and want a block for one more name.  ``cur/`` is mostly
empty, has room for two names, and is read like ``new/``, by older releases as well; so a mail there is as any other.

Guarantee: a message is with one processor, although the lock of another one may have come a moment before the move.
The lock in ``cur/`` comes first, then the look whether there is one of that name in ``new/`` (`Owner.take`), then the
move, then that look again: if there is one, the message goes back to it.  A processor that has sent a message removes
it wherever it is just then (`Store.remove_sent`).  What this does not give beside zope.sendmail 7.3 stands in
``docs/explanation/internals.rst``, *A full disk*.  Fails with `OSError`.
"""

from __future__ import annotations

import contextlib

from zope.sendmail.queue.maildir.locks import LOOK_AGAIN, Busy, CannotClaim, Lock, Owner
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
    if not key.startswith(_FULL) or key.count("/") > 1:
        return key, owner.take(key)
    got = _take_moved(owner, store, key, moved) if owner.is_ownerless else _take_and_move(owner, store, key, moved)
    return got or (key, owner.take(key))


def _take_and_move(owner: Owner, store: Store, key: str, moved: str) -> tuple[str, Lock | Busy] | None:
    """Lock a message where it is moved to then; return None if there is no room there.  Raises `OSError`."""
    try:
        lock = owner.take(moved, is_last_resort=False)
    except CannotClaim:
        return None
    if isinstance(lock, Busy):
        return key, lock
    if not _move(store, key, moved):
        lock.release()
        return None
    if not owner.is_locked_in_new(moved):
        return moved, lock
    # Another process has locked it there between the look and the move.
    back = _move(store, moved, key)
    lock.release()
    return key if back else moved, Busy(LOOK_AGAIN)


def _take_moved(owner: Owner, store: Store, key: str, moved: str) -> tuple[str, Lock | Busy] | None:
    """Do so without an owner file, when the lock is another name of the message, and so has to come behind the move."""
    if not _move(store, key, moved):
        return None
    got: Lock | Busy | None = None
    with contextlib.suppress(CannotClaim):
        got = owner.take(moved, is_last_resort=False)
    if isinstance(got, Busy) and not owner.is_locked_in_new(moved):
        return moved, got
    if isinstance(got, Lock) or not _move(store, moved, key):
        return moved, got or owner.take(moved)
    return (key, got) if got is not None else None


def _move(store: Store, old: str, new: str) -> bool:
    """Move a message that waits, or was set aside, and return whether that went."""
    for path_of in (store.layout.message, store.layout.rejected):
        with contextlib.suppress(OSError):
            store.disk.rename_new(path_of(old), path_of(new))
            return True
    return False
