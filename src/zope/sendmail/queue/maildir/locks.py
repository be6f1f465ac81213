"""The locks of messages: the ``.sending-`` files of a Maildir queue.

A processor has one owner file, flock'ed as long as it lives; a lock is a hard link from it, or, where there is no room
for the file, from the message (`zope.sendmail.queue.maildir.ownerless`).  Taken, seen and taken over as
``docs/explanation/internals.rst``, *Locks*, says.  Guarantee: of any number of processors, one gets a message.  Fails
with `QueueNotSafe` where links or locks do not work, otherwise with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from zope.sendmail.errors import QueueTrouble
from zope.sendmail.maildir import SUBDIRECTORIES, unique_name
from zope.sendmail.queue.maildir import ownerless
from zope.sendmail.queue.maildir.layout import EXTRA, Layout
from zope.sendmail.queue.maildir.ownerfile import OwnerFile
from zope.sendmail.queue.maildir.ownerless import InPlaceLock, OwnerlessLock
from zope.sendmail.queue.maildir.ownertext import (
    HEADER,
    UNKNOWN,
    Inherited,
    Phase,
    read_slot,
)
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk, same_file

#: Seconds after which a lock of zope.sendmail 3.5 to 7.3 is given up: their own number.
MAX_SEND_TIME = 60 * 60 * 3

#: Seconds after which another's living lock is looked at again; a survivor must be there within five.
LOOK_AGAIN = 2.0

#: The same for another host's, whose file lock cannot be trusted.
_LOOK_AT_OTHERS = 10.0

#: The same for an older release's lock, which an admin may have removed.
_LOOK_AT_OLD = 300.0

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

    #: Whether *intended*, at the first attempt, is what was written last.
    _is_intended = False

    def __init__(self, owner: Owner, path: str, inherited: Inherited | None) -> None:
        self._owner = owner
        self._path = path
        #: Of the dead owner from which the lock was taken over; None if it was free.
        self.inherited = inherited

    def note(self, phase: Phase, attempts: int) -> None:
        """Write down how far we are, in the attempt after so many others, for the process that takes over."""
        self._is_intended = False
        self._owner.write_slot(self._path, phase, attempts)

    def intend(self, attempts: int) -> bool:
        """Write down that the last byte of the message may go, if the lock is still ours; return whether it is."""
        owner, path = self._owner, self._path
        is_ours = owner.owns(path)
        if is_ours:
            owner.write_slot(path, Phase.INTENDED, attempts)
            self._is_intended = not attempts
        return is_ours

    def accepted(self) -> None:
        """Write down that the relay has the message, which had no attempt before."""
        if self._is_intended:
            self._owner.write_accepted(self._path)
        else:
            self._owner.write_slot(self._path, Phase.ACCEPTED, 0)

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
            self._owner.unlock(self._path)
        except FileNotFoundError:
            pass
        except OSError:
            self.keep()
            raise
        self._owner.forget_lock(self._path)

    def keep(self) -> None:
        """Let go without giving back: only we can lock the message again, and inherit what is written about it."""
        self._owner.let_go(self._path)


class Owner(OwnerFile):
    """The owner file of one processor, with what the processor does to locks.  Concurrency: any thread."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        super().__init__(layout, disk, clock)
        #: Locks that are in use, or being taken; a lock of ours that is not among them could not be removed.
        self._held: set[str] = set()

    def take(self, key: str, *, is_last_resort: bool = True) -> Lock | Busy:
        """Lock a message, or say how long it is in use.

        :param is_last_resort: whether room for one lock may be made in a way that leaves none for a second.
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
            if self._identity is None or self._layout.is_in_place(key):
                got = self._take_without(key, path, is_last_resort=is_last_resort)
            else:
                got = self._take(path, is_last_resort=is_last_resort)
            if key.startswith("cur/") and isinstance(got, Lock) and self.is_locked_in_new(key):
                got.release()
                got = Busy(LOOK_AGAIN)
        finally:
            if not isinstance(got, Lock):
                self.let_go(path)
        return got

    def is_locked_in_new(self, key: str) -> bool:
        """Return whether a message that is in ``cur/`` was locked where it may have been before."""
        return self.disk.exists(self._layout.sending("new/" + key.removeprefix("cur/")))

    def _take(self, path: str, *, is_last_resort: bool) -> Lock | Busy:
        try:
            self._link(path)
            self._is_crammed = False
        except FileExistsError:
            return self._take_over(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _ABOUT_ONE:
                raise
            if not is_last_resort and error.errno in NO_ROOM:
                raise CannotClaim.because_of(error) from error
            if not (error.errno in NO_ROOM and self._lend(path)):
                raise self._why_none(error) from error
        return self._lock(path, None)

    @property
    def is_lent(self) -> bool:
        """See `OwnerFile.is_lent`."""
        return super().is_lent or (self._is_crammed and bool(self._held))

    def _why_none(self, error: OSError) -> CannotClaim:
        """Return why no message can be locked, when the disk has refused one more name, beside the one being taken."""
        if error.errno not in NO_ROOM:
            return CannotClaim.because_of(error)
        self._is_crammed = self._is_crammed or len(self._held) > 1
        return (OneAtATime if self._lent or self._ownerless or len(self._held) > 1 else CannotClaim).because_of(error)

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
        said = ownerless.said_by(theirs)
        if (text and self.may_live(text, theirs)) or (said and ownerless.may_live(self.disk, theirs, self.may_live)):
            return Busy(_LOOK_AT_OTHERS)
        if text:
            inherited = read_slot(text, os.path.basename(path))
        elif said is not None:
            inherited = said
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

    # without an owner file

    def _take_without(self, key: str, path: str, *, is_last_resort: bool) -> Lock | Busy:
        """Lock a message for whose lock there is no owner file to be linked."""
        kind = InPlaceLock if self._layout.is_in_place(key) else OwnerlessLock
        lock = kind(self.disk, self._layout.message(key), path, self._clock.time)
        try:
            self._drop_lost(path)
            if path in self._ownerless:  # it could not be removed
                return self._lock(path, self._read_own(path))
            if not lock.open():
                return Busy(LOOK_AGAIN)
            got = (
                self._lock_in_place(lock)
                if isinstance(lock, InPlaceLock)
                else self._lock_without(lock, path, is_last_resort=is_last_resort)
            )
            if isinstance(got, Inherited):
                self._ownerless[path] = lock
                return Lock(self, path, None if got.phase is Phase.CLAIMED else got)
            return got
        finally:
            if self._ownerless.get(path) is not lock:
                lock.close()

    def _lock_without(self, lock: OwnerlessLock, path: str, *, is_last_resort: bool) -> Inherited | Busy:
        """Make the lock of a message that we have flock'ed, or inherit it; return what is inherited.

        What another kind of owner has left stays until there is room for an owner file.
        """
        try:
            theirs = self.disk.stat(path)
        except FileNotFoundError:
            try:
                self._make_without(lock) if is_last_resort else self._make_at_once(lock)
            except FileExistsError:  # a process that has an owner file was faster
                return Busy(0.0)
            return lock.said
        if not same_file(theirs, lock.status):
            return Busy(_LOOK_AT_OTHERS)
        said = ownerless.said_by(theirs)
        if said is None:
            if (wait := self._age_wait(theirs.st_mtime)) > 0:
                return Busy(min(wait, _LOOK_AT_OLD))
            said = Inherited(Phase.CLAIMED, 0)
        elif ownerless.may_live(self.disk, theirs, self.may_live):
            return Busy(_LOOK_AT_OTHERS)
        lock.inherit(said)
        return said

    def _lock_in_place(self, lock: InPlaceLock) -> Inherited | Busy:
        """Lock a message in a spool that we have flock'ed, or inherit its lock; return what is inherited."""
        said = ownerless.said_by(lock.status)
        if said is None:
            lock.make()
            return lock.said
        if ownerless.may_live(self.disk, lock.status, self.may_live):
            return Busy(_LOOK_AT_OTHERS)
        lock.inherit(said)
        return said

    @staticmethod
    def _make_at_once(lock: OwnerlessLock) -> None:
        """Make a lock, if there is room for it.  Raises `CannotClaim` if there is none."""
        try:
            lock.make()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise CannotClaim.because_of(error) from error

    def _make_without(self, lock: OwnerlessLock) -> None:
        """Make a lock; an empty directory makes room for its name if there is none.

        :raises CannotClaim: if that is not enough.
        """
        try:
            lock.make()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._is_crammed = True
            if self._ownerless or not self._remove_empty_directory():
                raise self._why_none(error) from error
            try:
                lock.make()
            except OSError as again:
                raise self._why_none(again) from again

    def _remove_empty_directory(self) -> bool:
        """Remove a directory that is made anew as soon as there is room, and return whether there was one.

        ``cur/``, for mail that another Maildir program has seen, only if nothing foreign stands beside it: without it,
        that would be no Maildir.
        """
        names = [each for each in EXTRA if each != "locks"]
        with contextlib.suppress(OSError):
            if not set(self.disk.names(self._layout.root)) - {*SUBDIRECTORIES, *EXTRA}:
                names.append("cur")
        for name in names:
            with contextlib.suppress(OSError):
                self.disk.remove_directory(os.path.join(self._layout.root, name))
                return True
        return False

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

    def forget_lock(self, path: str) -> None:
        """Forget a lock that is not there any more."""
        with self._mutex:
            self._free_slot(path)
            self._held.discard(path)

    def let_go(self, path: str) -> None:
        """Take note that a lock is not in use any more."""
        self._drop_lost(path)
        with self._mutex:
            self._held.discard(path)

    def _read_own(self, path: str) -> Inherited | None:
        """Return what we wrote about a lock that we hold but do not use: its lease could not be ended."""
        said = self.read_own(path)
        return said if said.phase is not Phase.CLAIMED else None
