"""The locks of messages: the ``.sending-`` files of a Maildir queue.

A processor has one owner file, flock'ed as long as it lives; a lock is a hard link from it.  Taken, seen and taken over
as ``docs/internals.rst``, *Locks*, says.  Guarantee: of any number of processors, one gets a message.  Fails with
`QueueNotSafe` where links or locks do not work, otherwise with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from zope.sendmail.errors import QueueNotSafe, QueueTrouble
from zope.sendmail.maildir import make_maildir, unique_name
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.heartbeat import OtherHosts, heart
from zope.sendmail.queue.maildir.layout import BELL, EXTRA, RESERVE, Layout
from zope.sendmail.queue.maildir.ownertext import (
    EMPTY,
    FIRST_SLOTS,
    HEADER,
    SLOT,
    UNKNOWN,
    Identity,
    Inherited,
    Phase,
    boot_id,
    header,
    read_slot,
    slot,
    slots,
)
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk, identity, remove_quietly, same_file

#: Seconds after which a lock of zope.sendmail 3.5 to 7.3 is given up: their own number.
MAX_SEND_TIME = 60 * 60 * 3

#: Seconds after which another's living lock is looked at again; a survivor must be there within five.
LOOK_AGAIN = 2.0

#: The same for another host's, whose file lock cannot be trusted.
_LOOK_AT_OTHERS = 10.0

#: The same for an older release's lock, which an admin may have removed.
_LOOK_AT_OLD = 300.0

#: Seconds after which a hidden file in ``locks/`` whose maker is dead is swept.
_LITTER = 60.0

_NO_SUPPORT = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.ENOLCK}

#: Seconds for which an owner file that is not written to is fresh enough; older releases look at its time stamp.
_FRESH = 60.0

#: Why a message cannot be locked because of its own name; whatever else refuses a lock refuses all of them: no
#: permission, no space, no inodes, a disk that is read-only.
_ABOUT_ONE = frozenset({errno.ENAMETOOLONG, errno.ELOOP})


class CannotClaim(QueueTrouble):
    """No message of the queue can be locked or opened now."""

    @classmethod
    def because_of(cls, error: OSError) -> CannotClaim:
        """Return one that says what `error` says."""
        return cls(error.errno, error.strerror, error.filename, None, error.filename2)


class OneAtATime(CannotClaim):
    """There is room for the lock of one message, and that is out: when it has ended, the next one can be locked."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another owner has the message; it is worth while to look again in so many seconds."""

    seconds: float


class Lock:
    """Our lock on one message."""

    def __init__(self, owner: Owner, path: str, inherited: Inherited | None) -> None:
        self._owner = owner
        self._path = path
        #: Of the dead owner from which the lock was taken over; None if it was free.
        self.inherited = inherited

    def note(self, phase: Phase, attempts: int) -> None:
        """Write down how far we are, in the attempt after so many others, for the process that takes over."""
        self._owner.write_slot(self._path, phase, attempts)

    def lost(self, attempts: int) -> Phase | None:
        """Return how far the dead owner was with a message that has had so many attempts; None if nothing was lost.

        If there was one more attempt than it had written, its attempt had ended.
        """
        said = self.inherited
        if said is None or said.phase is Phase.CLAIMED or attempts > said.attempts:
            return None
        return said.phase

    def is_ours(self) -> bool:
        """Return whether the lock is still ours."""
        return self._owner.owns(self._path)

    def release(self) -> None:
        """Give the lock back; one that is no longer ours is left alone.

        If the disk refuses, the file stays; we ourselves can lock the message again then, and no other process.
        """
        try:
            self._owner.clear_slot(self._path)
            if self.is_ours():
                self._owner.unlock(self._path)
        finally:
            self.keep()

    def remove(self) -> None:
        """Give the lock back after the message was removed: what is written about it means nothing any more.

        If the disk refuses, the file stays, as in `release`.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                self._owner.unlock(self._path)
        except OSError:
            self.keep()
            raise
        self._owner.forget_lock(self._path)

    def keep(self) -> None:
        """Let go without giving back: only we can lock the message again, and inherit what is written about it."""
        self._owner.let_go(self._path)


class Owner:
    """The owner file of one processor: opened once, closed once.  Concurrency: any thread."""

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
        self._others = OtherHosts(clock.monotonic, self._now)
        #: Whether the file was one of the reserve, or a dead owner's.
        self._is_adopted = False
        #: The lock for which the file gave its own name, because there was no room for one more.
        self._lent = ""
        #: When the owner file was made, by the clock of the file system; no other clock stamps the files beside it.
        self.made = 0.0
        #: The slot that tells of a lock, from its first line until it is cleared: never two for one lock.
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        #: Locks that are in use, or being taken; a lock of ours that is not among them could not be removed.
        self._held: set[str] = set()

    def __del__(self) -> None:
        self.forget()

    def open(self) -> None:
        """Make the owner file and prove that links and locks work here.  Raises `QueueNotSafe`."""
        if self._identity is not None:
            return
        with self._mutex:
            if self._fd >= 0:
                return
            self._complete()
            try:
                self._make()
            except OSError as error:
                self.forget()
                if error.errno in NO_ROOM and self._adopt():
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

    def _complete(self) -> None:
        """Make what is missing of the directory; on a full disk, what is there has to do."""
        try:
            make_maildir(self.disk, self._layout.root, EXTRA)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

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
            self.forget()
            raise
        return True

    def _take_up(self, text: bytes) -> None:
        """Learn of which locks the slots tell that are now ours."""
        for number, name, _ in slots(text):
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

    def _now(self) -> float:
        """Return the time by the clock of the file system."""
        return self.disk.touch(self._fd)

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
                self.forget()

    def may_live(self, text: bytes, status: os.stat_result) -> bool:
        """Return whether the owner of another file, which is not locked, may live on another host."""
        return self._others.may_live(text, status)

    def forget(self) -> None:
        """Close the file only; a forked child must not keep its parent's lock alive."""
        fd, self._fd, self._identity = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def is_in_place(self) -> bool:
        """Return whether the owner file is still there; an operator may have removed the whole directory."""
        return self.owns(self._lent or self.path)

    def owns(self, path: str) -> bool:
        """Return whether the lock at `path` is ours."""
        if self._identity is None:
            return False
        try:
            status = self.disk.stat(path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    # taking

    def take(self, key: str) -> Lock | Busy:
        """Lock a message, or say how long it is in use.

        :raises FileNotFoundError: if the message's directory is gone
        :raises CannotClaim: if the disk refuses the lock for a reason that concerns every message
        """
        if self._identity is None:
            self.open()
        path = self._layout.sending(key)
        with self._mutex:
            if path in self._held:
                return Busy(LOOK_AGAIN)
            self._held.add(path)  # before the file is there: another thread must not take it for one that was left
        got: Lock | Busy | None = None
        try:
            got = self._take(path)
        finally:
            if not isinstance(got, Lock):
                self.let_go(path)
        return got

    def _take(self, path: str) -> Lock | Busy:
        try:
            self._link(path)
        except FileExistsError:
            return self._take_over(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _ABOUT_ONE:
                raise
            if not (error.errno in NO_ROOM and self._lend(path)):
                raise self._why_none(error) from error
        return self._lock(path, None)

    @property
    def is_lent(self) -> bool:
        """Whether the file's own name is the lock of a message; as long as it is, there is no room for others."""
        return bool(self._lent)

    def _why_none(self, error: OSError) -> CannotClaim:
        """Return why no message can be locked, when the disk has refused one more name."""
        kind = OneAtATime if error.errno in NO_ROOM and self._lent else CannotClaim
        return kind.because_of(error)

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
        """Give the file its own name again, with the mutex held."""
        if self._lent:
            self.disk.rename(self._lent, self.path)
            self._lent = ""

    def unlock(self, path: str) -> None:
        """Remove a lock of ours."""
        if self._lent == path:
            with self._mutex:
                self._come_back()
        else:
            self.disk.unlink(path)

    def _lock(self, path: str, inherited: Inherited | None) -> Lock:
        """Return the lock of a file that is ours, or will be in a moment; write down what does not go without saying.

        What is inherited stays written until it was told: if we die before, the next one inherits it again.  Nothing
        written means that the message was only claimed.
        """
        now = self._clock.monotonic()
        if inherited is not None or path in self._slots or now - self._written > _FRESH:
            said = inherited or Inherited(Phase.CLAIMED, 0)
            self.write_slot(path, said.phase, said.attempts)
            self._written = now
        return Lock(self, path, inherited)

    def _take_over(self, path: str) -> Lock | Busy:
        """Take a lock that is there: ours, that of a living owner, or that of a dead one, which we inherit."""
        if self.owns(path):
            return self._lock(path, self._read_own(path))
        try:
            with self.disk.locked(path) as fd:
                if fd is None:
                    return Busy(LOOK_AGAIN)
                return self._inherit(path, fd)
        except FileNotFoundError:  # given back in this moment
            return Busy(0.0)

    def _inherit(self, path: str, fd: int) -> Lock | Busy:
        """Inherit the lock of a dead owner, whose file we have locked.  A second process finds another file."""
        theirs = os.fstat(fd)
        if not same_file(theirs, self.disk.stat(path)):
            return Busy(0.0)
        text = os.pread(fd, theirs.st_size, 0) if os.pread(fd, len(HEADER), 0) == HEADER else b""
        if text and self.may_live(text, theirs):
            return Busy(_LOOK_AT_OTHERS)
        if text:
            inherited = read_slot(text, os.path.basename(path))
        elif theirs.st_size == 0:  # what a power loss left of an owner file
            inherited = UNKNOWN
        elif (wait := self._age_wait(theirs.st_mtime)) > 0:  # an older release's, or another program's
            return Busy(min(wait, _LOOK_AT_OLD))
        else:
            inherited = Inherited(Phase.CLAIMED, 0)
        lock = self._lock(path, inherited)
        try:
            self._replace(path)
        except OSError:
            self.clear_slot(path)
            raise
        return lock

    def _age_wait(self, modified: float) -> float:
        """Return the seconds until a lock without owner has lived three hours; all of them if it is from the future."""
        age = self._clock.time() - modified
        return MAX_SEND_TIME - age + 1.0 if age >= 0 else MAX_SEND_TIME

    def _replace(self, path: str) -> None:
        """Put a link of ours in the place of the lock at `path`, without a gap."""
        replacement = os.path.join(self._layout.locks, ".take-" + unique_name())
        try:
            self._link(replacement)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if self._lent:
                raise self._why_none(error) from error
            with self._mutex:
                self.disk.rename(self.path, path)
                self._lent = path
            return
        try:
            self.disk.rename(replacement, path)
        except OSError:
            with contextlib.suppress(OSError):
                self.disk.unlink(replacement)
            raise

    # slots

    def write_slot(self, path: str, phase: Phase, attempts: int) -> None:
        """Write how far we are with a message into the owner file; this also keeps its time stamp fresh."""
        line = slot(phase, attempts, path.rpartition("/")[2])
        self.disk.write_at(self._fd, line, (self._slots.get(path) or self._new_slot(path)) * SLOT)

    def clear_slot(self, path: str) -> None:
        """Empty the slot of a lock, so that it is not taken for a later lease's; it can be used again."""
        if self._fd >= 0 and path in self._slots:
            self.disk.write_at(self._fd, EMPTY, self._slots[path] * SLOT)
            self.free_slot(path)

    def free_slot(self, path: str) -> None:
        """Let the slot of a lock be used again; until then it says what it said."""
        with self._mutex:
            self._free_slot(path)

    def forget_lock(self, path: str) -> None:
        """Forget a lock that is not there any more."""
        with self._mutex:
            self._free_slot(path)
            self._held.discard(path)

    def _free_slot(self, path: str) -> None:
        if path in self._slots:
            self._free.append(self._slots.pop(path))

    def let_go(self, path: str) -> None:
        """Take note that a lock is not in use any more."""
        with self._mutex:
            self._held.discard(path)

    def _new_slot(self, path: str) -> int:
        with self._mutex:
            self._slots[path] = self._free.pop() if self._free else len(self._slots) + 1
            return self._slots[path]

    def _read_own(self, path: str) -> Inherited | None:
        """Return what we wrote about a lock that we hold but do not use: its lease could not be ended."""
        said = read_slot(os.pread(self._fd, os.fstat(self._fd).st_size, 0), os.path.basename(path))
        return said if said.phase is not Phase.CLAIMED else None


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
