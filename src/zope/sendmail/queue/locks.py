"""Who works on which message: the ``.sending-`` files of a Maildir queue.

A processor has one owner file, flock'ed as long as it lives; a lock is a hard link from it.  Taken, seen and taken
over as ``docs/internals.rst``, *Locks*, says.  Guarantee: of any number of processors, one gets a message.  Fails
with `QueueNotSafe` where links or locks do not work, otherwise with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from dataclasses import dataclass
from enum import StrEnum

from zope.sendmail.clock import Clock
from zope.sendmail.disk import Disk, remove_quietly, same_file
from zope.sendmail.interfaces import QueueNotSafe
from zope.sendmail.maildir import make_maildir, unique_name
from zope.sendmail.queue.places import BELL, EXTRA, Places

#: Seconds after which a lock of zope.sendmail 3.5 to 7.3 is given up: their own number.
MAX_SEND_TIME = 60 * 60 * 3

#: Seconds after which somebody else's living lock is looked at again; a survivor must be there within five.
LOOK_AGAIN = 2.0

_NO_SUPPORT = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.ENOLCK}
_SLOT = 512
_FIRST_SLOTS = 15

#: How an owner file begins; a message cannot begin like this, and the links of older releases are messages.
_HEADER = b"zope.sendmail owner: host "


class Phase(StrEnum):
    """How far an owner has come with a message."""

    CLAIMED = "claimed"
    OPENED = "opened"
    INTENDED = "intended"


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody has the message; look again in so many seconds."""

    seconds: float


class Lock:
    """Our lock on one message."""

    def __init__(self, owner: Owner, path: str, name: str, slot: int, inherited: Phase | None) -> None:
        self._owner = owner
        self._path = path
        self._name = name
        self._slot = slot
        #: How far the dead owner had come from whom the lock was taken over; None if it was free.
        self.inherited = inherited

    def note(self, phase: Phase) -> None:
        """Write down how far we are, for whoever takes over."""
        self._owner.write_slot(self._slot, phase, self._name)

    def is_ours(self) -> bool:
        """Whether nobody took the lock away."""
        return self._owner.owns(self._path)

    def release(self) -> None:
        """Give the lock back; one that is no longer ours is left alone.

        If the disk refuses, the file stays; we ourselves can lock the message again then, and nobody else.
        """
        self._owner.let_go(self._path)
        if self.is_ours():
            self._owner.disk.unlink(self._path)
        self._owner.free_slot(self._slot)


class Owner:
    """The owner file of one processor, made when the first lock is taken.  Concurrency: any thread."""

    def __init__(self, places: Places, disk: Disk, clock: Clock) -> None:
        self.disk = disk
        self._clock = clock
        self._places = places
        self._mutex = threading.Lock()
        self.name = ""
        self._fd = -1
        self._free: list[int] = []
        self._slots = 0
        #: Locks that are in use; a lock of ours that is not among them could not be removed.
        self._held: set[str] = set()

    @property
    def path(self) -> str:
        """The owner file."""
        return os.path.join(self._places.locks, self.name)

    def open(self) -> None:
        """Make the owner file and prove that links and locks work here.  Raises `QueueNotSafe`."""
        with self._mutex:
            if self._fd >= 0:
                return
            make_maildir(self.disk, self._places.root, EXTRA)
            self.name = unique_name()
            try:
                self._make()
                self._prove()
            except OSError as error:
                self._forget()
                if error.errno in _NO_SUPPORT:
                    raise QueueNotSafe(
                        f"the queue {self._places.root} is on a file system without hard links or file locks "
                        f"({error}), so mail might be sent twice; put it on a local file system"
                    ) from error
                raise

    def _make(self) -> None:
        """Make the file under a name that `sweep` leaves alone, until its lock is ours."""
        hidden = os.path.join(self._places.locks, "." + self.name)
        self._fd = self.disk.open_locked(hidden)
        header = b"%s%s pid %d" % (_HEADER, os.fsencode(os.uname().nodename), os.getpid())
        # Room for some leases from the start, so that a full disk can still be drained.
        self.disk.write_at(self._fd, _line(header) + _EMPTY * _FIRST_SLOTS, 0)
        self.disk.rename(hidden, self.path)

    def _prove(self) -> None:
        """Another descriptor must not get the lock, and a link must be the same file."""
        proof = self.path + ".proof"
        self.disk.link(self.path, proof)
        try:
            with self.disk.locked(proof) as fd:
                if fd is not None or not same_file(self.disk.stat(proof), os.fstat(self._fd)):
                    raise OSError(errno.ENOLCK, "a locked file could be locked again", proof)
        finally:
            self.disk.unlink(proof)

    def is_in_place(self) -> bool:
        """Whether the owner file is still there; an admin may have removed the whole queue directory."""
        return self.owns(self.path)

    def take(self, key: str) -> Lock | Busy:
        """Lock a message, or say who is busy with it.

        Raises `FileNotFoundError` if the message's directory is gone.
        """
        self.open()
        path = self._places.sending(key)
        try:
            self.disk.link(self.path, path)
        except FileExistsError:
            return self._take_over(key, path)
        return self._lock(key, path, None)

    def owns(self, path: str) -> bool:
        """Whether the lock at `path` is ours."""
        try:
            return self._fd >= 0 and same_file(self.disk.stat(path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def write_slot(self, slot: int, phase: Phase, name: str) -> None:
        """Write how far we are with a message into the owner file; this also keeps its time stamp fresh."""
        self.disk.write_at(self._fd, _line(b"%s %s" % (phase.encode(), os.fsencode(name))), slot * _SLOT)

    def let_go(self, path: str) -> None:
        """A lock is not in use any more."""
        with self._mutex:
            self._held.discard(path)

    def free_slot(self, slot: int) -> None:
        """A lock was given back; what its slot said must not be taken for a later one."""
        if self._fd >= 0:
            self.disk.write_at(self._fd, _EMPTY, slot * _SLOT)
        with self._mutex:
            self._free.append(slot)

    def close(self) -> None:
        """Give up the owner file and with it every lock that is still out."""
        with self._mutex:
            if self._fd >= 0:
                with contextlib.suppress(OSError):  # what stays is swept by the next owner
                    self.disk.unlink(self.path)
                self._forget()

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._free, self._slots, self._held = [], 0, set()

    def forget_after_fork(self) -> None:
        """The child must not keep its parent's lock alive."""
        self._mutex = threading.Lock()
        self._forget()

    def _lock(self, key: str, path: str, inherited: Phase | None) -> Lock:
        name = key.rpartition("/")[2]
        with self._mutex:
            if self._free:
                slot = self._free.pop()
            else:
                self._slots += 1
                slot = self._slots
        lock = Lock(self, path, name, slot, inherited)
        # What is inherited stays written until it was told: if we die before, the next one inherits it again.
        lock.note(inherited or Phase.CLAIMED)
        with self._mutex:
            self._held.add(path)
        return lock

    def _take_over(self, key: str, path: str) -> Lock | Busy:
        """The message is locked: by us, by somebody alive, or by somebody dead whose lock we inherit."""
        if self.owns(path):
            return Busy(LOOK_AGAIN) if path in self._held else self._lock(key, path, None)
        try:
            with self.disk.locked(path) as fd:
                if fd is None:
                    return Busy(LOOK_AGAIN)
                return self._inherit(key, path, fd)
        except FileNotFoundError:  # given back in this moment
            return Busy(0.0)

    def _inherit(self, key: str, path: str, fd: int) -> Lock | Busy:
        """We hold the lock of the file that was at `path`.  Whoever comes second finds another file there."""
        theirs = os.fstat(fd)
        if not same_file(theirs, self.disk.stat(path)):
            return Busy(0.0)
        if os.pread(fd, len(_HEADER), 0) != _HEADER:  # the message itself, or another program's file
            age = self._clock.time() - theirs.st_mtime
            if 0 <= age <= MAX_SEND_TIME:
                return Busy(MAX_SEND_TIME - age + 1.0)
            if age < 0:  # the clock was set back, or that of another host is ahead
                return Busy(MAX_SEND_TIME)
            phase = Phase.CLAIMED
        else:
            phase = _phase_in(os.pread(fd, theirs.st_size, 0), os.fsencode(key.rpartition("/")[2]))
        lock = self._lock(key, path, phase)
        replacement = f"{self.path}.{os.path.basename(key)[-40:]}"
        self.disk.link(self.path, replacement)
        self.disk.rename(replacement, path)
        return lock


def sweep(places: Places, disk: Disk) -> None:
    """Remove owner files, with their bells, whose owners are dead and whose locks have all been taken over."""
    for name in disk.names(places.locks):
        if name.startswith(".") or name.endswith(BELL):
            continue
        path = os.path.join(places.locks, name)
        with contextlib.suppress(OSError), disk.locked(path) as fd:
            if fd is not None and os.fstat(fd).st_nlink == 1:
                remove_quietly(disk, path + BELL, path)


def _line(text: bytes) -> bytes:
    return text[: _SLOT - 1].ljust(_SLOT - 1) + b"\n"


_EMPTY = _line(b"")


def _phase_in(slots: bytes, name: bytes) -> Phase:
    """How far the dead owner had come with a message."""
    for start in range(_SLOT, len(slots), _SLOT):
        phase, _, whose = slots[start : start + _SLOT].rstrip().partition(b" ")
        if whose == name:
            return Phase(phase.decode()) if phase.decode("ascii", "replace") in list(Phase) else Phase.INTENDED
    return Phase.CLAIMED
