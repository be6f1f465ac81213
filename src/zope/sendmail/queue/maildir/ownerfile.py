"""The owner file of one processor, which it keeps flock'ed as long as it lives, and from which its locks are links.

What the owner is doing with each message stands in it, in slots; ``docs/explanation/internals.rst``, *Locks*, says how.
On a full disk a file of the reserve, or a dead owner's, becomes it; if there is none, messages are locked without an
owner file (`zope.sendmail.queue.maildir.ownerless`) until there is room for one.  Fails with `QueueNotSafe` where links
or locks do not work, otherwise with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable

from zope.sendmail.errors import QueueNotSafe
from zope.sendmail.maildir import make_maildir, unique_name
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.heartbeat import OtherHosts, heart
from zope.sendmail.queue.maildir.layout import BELL, EXTRA, RESERVE, Layout
from zope.sendmail.queue.maildir.ownerless import OwnerlessLock
from zope.sendmail.queue.maildir.ownertext import (
    EMPTY,
    FIRST_SLOTS,
    SLOT,
    Identity,
    Inherited,
    Phase,
    boot_id,
    header,
    read_slot,
    slot,
    used_slots,
)
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk, identity, remove_quietly, same_file

#: Seconds after which a hidden file in ``locks/`` whose maker is dead is swept.
_LITTER = 60.0

#: What is written in the place of the other word, which is as long.
_ACCEPTED = Phase.ACCEPTED.encode("ascii")
assert len(Phase.ACCEPTED) == len(Phase.INTENDED), "one is written over the other"

_NO_SUPPORT = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.ENOLCK}


class OwnerFile:
    """One owner file: opened once, closed once.  Concurrency: any thread."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self.disk = disk
        self._clock = clock
        self._layout = layout
        self._mutex = threading.Lock()
        self.name = unique_name()
        #: The owner file.
        self.path = os.path.join(layout.locks, self.name)
        self._fd = -1
        #: Device and inode of the owner file while it is open and proved good, and since when it is fresh at least.
        self._identity: tuple[int, int] | None = None
        self._written = 0.0
        self._others = OtherHosts(disk, clock.monotonic, self._now)
        #: Whether the file was one of the reserve, or a dead owner's.
        self._is_adopted = False
        #: The lock for which the file gave its own name, because there was no room for one more.
        self._lent = ""
        #: When the owner file was made, by the clock of the file system; no other clock stamps the files beside it.
        self.made = 0.0
        #: The slot that tells of a lock, from its first line until it is cleared: never two for one lock.
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        #: Locks that were taken while there was no room for an owner file, by their paths.
        self._ownerless: dict[str, OwnerlessLock] = {}
        #: Why there is no owner file; None if there is one, or none was wanted yet.
        self._without: OSError | None = None
        #: Whether there was no room even for the link of a lock.
        self._is_crammed = False

    def __del__(self) -> None:
        self._close_all()

    def open(self) -> None:
        """Make the owner file and prove that links and locks work here.  Raises `QueueNotSafe`.

        Where there is no room for one, go on without; then it is asked for again before each lock.
        """
        if self._identity is not None:
            return
        with self._mutex:
            if self._fd >= 0:
                return
            full = self._complete()
            try:
                self._make()
                self._end_without()
            except OSError as error:
                self._close_file()
                no_room = full if isinstance(error, FileNotFoundError) else error
                if no_room is not None and no_room.errno in NO_ROOM:
                    if self._could_adopt():
                        self._without = None
                    else:
                        self._begin_without(no_room)
                    return
                if error.errno in _NO_SUPPORT:
                    raise QueueNotSafe(
                        f"the queue {self._layout.root} is on a file system without hard links or file locks "
                        f"({error}), so mail might be sent twice; put it on a local file system"
                    ) from error
                raise

    def _make(self) -> None:
        """Make the file under a name that is not believed, and prove it good, before it gets its own."""
        hidden, proof = (os.path.join(self._layout.locks, prefix + self.name) for prefix in (".new-", ".proof-"))
        try:
            self._fd = self.disk.open_locked(hidden)
            self.disk.write_at(self._fd, header(boot_id()) + EMPTY * FIRST_SLOTS, 0)
            self.disk.sync_file(hidden)  # a link to it that outlives a power loss must not look like another's
            self.disk.link(hidden, proof)
            with self.disk.locked(proof) as fd:
                if fd is not None or not same_file(self.disk.stat(proof), os.fstat(self._fd)):
                    raise OSError(errno.ENOLCK, "a locked file could be locked again", proof)
            self.disk.rename(hidden, self.path)
            self._identity = identity(os.fstat(self._fd))
            self._begin()
        finally:
            with contextlib.suppress(OSError):
                remove_quietly(self.disk, proof, hidden)

    def _complete(self) -> OSError | None:
        """Make what is missing of the directory; on a full disk, what is there has to do; return the trouble."""
        try:
            make_maildir(self.disk, self._layout.root, EXTRA)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return error
        return None

    def _begin_without(self, error: OSError) -> None:
        """Go on without an owner file, if the queue itself is there."""
        if not self._is_there():
            raise error
        if self._without is None:
            self.made = self._clock.time()
            heart.add(self)
        self._without = error

    def _end_without(self) -> None:
        """Take note that there is an owner file now; a reserve is made for the next time."""
        if self._without is not None:
            self._without = None
            reserve.make(self._layout, self.disk)

    def _could_adopt(self) -> bool:
        """Do as `_adopt`; a file that cannot be written to for want of room is none."""
        try:
            return self._adopt()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False

    def _adopt(self) -> bool:
        """Go on with a file of the reserve, or a dead owner's with its locks; return False if there is none."""
        found = reserve.take(self._layout, self.disk)
        if found is None:
            return False
        path, self._fd = found
        try:
            text = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
            before = Identity.of(text)
            status = os.fstat(self._fd)
            self._identity = identity(status)
            self._take_up(text)
            # What was locked before the machine was started last stays unknown.
            boot = before.boot if before is not None and status.st_nlink > 1 else boot_id()
            self.disk.write_at(self._fd, header(boot), 0)
            self.disk.rename(path, self.path)
            remove_quietly(self.disk, path + BELL)
            self._is_adopted = True
            self._begin()
        except BaseException:
            self._close_file()
            raise
        return True

    def _take_up(self, text: bytes) -> None:
        """Learn of which locks the slots tell that are now ours."""
        for number, name, _ in used_slots(text):
            for directory in (self._layout.new, self._layout.cur):
                if self.owns(path := os.path.join(directory, name)):
                    self._slots[path] = number
        used = set(self._slots.values())
        self._free = [number for number in range(len(text) // SLOT - 1, 0, -1) if number not in used]

    def _begin(self) -> None:
        """Live, and show it."""
        self.made = self.disk.touch(self._fd)
        self._written = self._clock.monotonic()
        heart.add(self)

    def beat(self) -> None:
        """Show processors of other hosts that this one lives.  Raises nothing."""
        with self._mutex, contextlib.suppress(OSError):
            if self._identity is not None:
                self.disk.touch(self._fd)
        for lock in list(self._ownerless.values()):
            with contextlib.suppress(OSError):
                lock.beat()

    def _now(self) -> float:
        """Return the time by the clock of the file system; by that of this host where there is no file to ask it."""
        return self.disk.touch(self._fd) if self._fd >= 0 else self._clock.time()

    def close(self) -> None:
        """Give up the owner file and with it every lock that is still out."""
        with self._mutex:
            if self._fd >= 0:
                with contextlib.suppress(OSError):  # what stays is swept by the next owner
                    self._come_back()
                    if self._is_adopted:
                        if not self._slots and os.fstat(self._fd).st_nlink == 1:
                            self.disk.write_at(self._fd, EMPTY * (FIRST_SLOTS + 1), 0)
                        reserve.give_back(self._layout, self.disk, self.path)
                    else:
                        self.disk.unlink(self.path)
            heart.discard(self)
            self._close_all()

    def may_live(self, text: bytes, status: os.stat_result) -> bool:
        """Return whether the owner of another file, which is not locked, may live on another host."""
        return self._others.may_live(text, status)

    def forget(self) -> None:
        """Close the files only, in a forked child, which must not keep its parent's locks alive."""
        for lock in list(self._ownerless.values()):
            lock.forget()
        self._close_all()

    def _close_all(self) -> None:
        self._close_file()
        for lock in list(self._ownerless.values()):
            lock.close()
        self._ownerless.clear()

    def _drop_lost(self, path: str) -> None:
        """Close a message whose lock is not ours any more: else it would stay locked for all others."""
        with contextlib.suppress(OSError):  # it is not known, so it may be ours
            if (lock := self._ownerless.get(path)) is not None and lock.is_lost():
                del self._ownerless[path]
                lock.close()

    def _close_file(self) -> None:
        fd, self._fd, self._identity = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def is_in_place(self) -> bool:
        """Return whether the owner file is still there; an operator may have removed the whole directory."""
        if self.is_ownerless:
            return self._is_there()
        return self.owns(self._lent or self.path)

    def _is_there(self) -> bool:
        """Return whether there is a place in which mail waits."""
        return any(self.disk.exists(path) for path in (self._layout.new, self._layout.spool) if path)

    def owns(self, path: str) -> bool:
        """Return whether the lock at `path` is ours."""
        if path in self._ownerless:
            return self._ownerless[path].is_in_place()
        if self._identity is None:
            return False
        try:
            status = self.disk.stat(path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    # names

    @property
    def is_ownerless(self) -> bool:
        """Whether there is no room for an owner file, so that each message is locked by itself."""
        return self._identity is None and self._without is not None

    @property
    def is_lent(self) -> bool:
        """Whether the lock that is out took the last room for a name, so that there is none for others.

        It is the file's own name; without an owner file, a link for which an empty directory made room.
        """
        return bool(self._lent) or (self._is_crammed and bool(self._ownerless))

    def _link(self, path: str) -> None:
        """Give the file one more name."""
        try:
            self.disk.link(self.path, path)
        except FileNotFoundError:  # the file may be where its own name was lent to, or back from there in this moment
            with self._mutex:
                self.disk.link(self._lent or self.path, path)

    def _lend(self, path: str) -> bool:
        """Lock a message with the file's own name, where there is no room for one more; return whether that went.

        So one message at a time can be sent on a file system without inodes for links (tmpfs), and makes room.
        """
        with self._mutex:
            if self._lent:
                return False
            try:
                self.disk.rename_new(self.path, path)
            except OSError:
                return False
            self._lent = path
            return True

    def _come_back(self) -> None:
        """Give the file its own name again, with the mutex held; not if the lock is another processor's by now."""
        if self._lent:
            if self.owns(self._lent):
                self.disk.rename(self._lent, self.path)
            self._lent = ""

    def unlock(self, path: str) -> None:
        """Remove a lock of ours."""
        if (ownerless := self._ownerless.get(path)) is not None:
            ownerless.remove()
            del self._ownerless[path]
        elif self._lent == path:
            with self._mutex:
                self._come_back()
        else:
            self.disk.unlink(path)

    # slots

    def write_slot(self, path: str, phase: Phase, attempts: int) -> None:
        """Write how far we are with a message into the owner file; this also keeps its time stamp fresh."""
        if (ownerless := self._ownerless.get(path)) is not None:
            ownerless.note(phase, attempts)
            return
        line = slot(phase, attempts, path.rpartition("/")[2])
        self.disk.write_at(self._fd, line, (self._slots.get(path) or self._new_slot(path)) * SLOT)

    def write_accepted(self, path: str) -> None:
        """Write that a relay has the message of a lock of which *intended* was written last: only that word changes."""
        number = self._slots.get(path)
        if number is None or path in self._ownerless:
            self.write_slot(path, Phase.ACCEPTED, 0)
        else:
            self.disk.write_at(self._fd, _ACCEPTED, number * SLOT)

    def read_own(self, path: str) -> Inherited:
        """Return what we wrote about a lock of ours."""
        if (ownerless := self._ownerless.get(path)) is not None:
            return ownerless.said
        return read_slot(os.pread(self._fd, os.fstat(self._fd).st_size, 0), os.path.basename(path))

    def clear_slot(self, path: str) -> None:
        """Empty the slot of a lock, so that it is not taken for a later lease's; it can be used again."""
        if self._fd >= 0 and path in self._slots:
            self.disk.write_at(self._fd, EMPTY, self._slots[path] * SLOT)
            self.free_slot(path)

    def free_slot(self, path: str) -> None:
        """Let the slot of a lock be used again; until then it says what it said."""
        with self._mutex:
            self._free_slot(path)

    def _free_slot(self, path: str) -> None:
        number = self._slots.pop(path, None)
        if number is not None:
            self._free.append(number)

    def _new_slot(self, path: str) -> int:
        with self._mutex:
            self._slots[path] = self._free.pop() if self._free else len(self._slots) + 1
            return self._slots[path]


def sweep(layout: Layout, disk: Disk, now: float, may_live: Callable[[bytes, os.stat_result], bool]) -> None:
    """Remove owner files, with their bells, whose owners are dead and whose locks have all been taken over.

    :param now: the time by the file system's clock, such as `Owner.made`: this host's may be minutes ahead of it.
    :param may_live: says of an unlocked owner file, by its text and status, whether its owner may live on another host.
    """
    names = [name for name in disk.names(layout.locks) if not name.endswith(BELL) and not name.startswith(RESERVE)]
    for name in sorted(names, key=lambda name: not name.startswith(".")):  # hidden links first: they count as links
        path = os.path.join(layout.locks, name)
        hidden = name.startswith(".")
        with contextlib.suppress(OSError):
            if hidden and now - disk.stat(path).st_mtime < _LITTER:
                continue  # its maker may be about to lock it
            with disk.locked(path) as fd:
                if fd is None or not (hidden or os.fstat(fd).st_nlink == 1):
                    continue
                if not may_live(os.pread(fd, SLOT, 0), os.fstat(fd)):
                    remove_quietly(disk, path + BELL, path)
