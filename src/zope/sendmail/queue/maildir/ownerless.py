"""The lock of one message without an owner file: for a full disk on which there is none, and none in reserve.

So it is with a queue that no release from 8 on has opened while there was room.  The lock is then one more name of the
message itself, as zope.sendmail 3.5 to 7.3 make it: that needs no file.  The process that holds it keeps the message
flock'ed, and how far it is stands in the nanoseconds of the message's time stamp, which need no room either.

Fails with `OSError`: where the stamps of files are too coarse, or the message is another user's, nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable

from zope.sendmail.queue.maildir.ownertext import HEADER, Inherited, Phase, line
from zope.sendmail.system.disk import Disk, same_file

#: What the nanoseconds of a stamp begin with that tells of a lock; a digit for the phase and three for the attempts
#: follow.  An older release that takes the message stamps it anew, and so takes the mark away.  By chance its stamp
#: looks like one of these in four of ten million cases.
_MARK = 888_880_000

_PHASES = (Phase.CLAIMED, Phase.OPENED, Phase.INTENDED, Phase.ACCEPTED)

#: From so many attempts on, it is not known after how many a phase was written, so what it says counts.  No stamp has
#: more: the fewer there are, the fewer are one of ours by chance.
_MANY = 99

_SECOND = 10**9

#: An older release takes a lock whose stamp is three hours old, and stamps it; less a minute, for its clock.
_TAKEN_OVER = (3 * 3600 - 60) * _SECOND

#: The beginning of an owner file of an unknown host: such locks are judged as if another host had made them.
_SOMEWHERE = line(HEADER + b"host ? pid 0 boot ")


def said_by(status: os.stat_result) -> Inherited | None:
    """Return what the time stamp of a lock tells of its owner; None if that has not made it in this way."""
    number, attempts = divmod(status.st_mtime_ns % _SECOND - _MARK, 1000)
    if not 1 <= number <= len(_PHASES) or attempts > _MANY:
        return None
    return Inherited(_PHASES[number - 1], attempts if attempts < _MANY else sys.maxsize)


def may_live(disk: Disk, status: os.stat_result, judge: Callable[[bytes, os.stat_result], bool]) -> bool:
    """Return whether the owner of such a lock, whose message is not flock'ed, may live on another host.

    On a file system that no other host has, it is dead.

    :param judge: says it of an owner file, by its text and status.
    """
    return not disk.is_local(status) and judge(_SOMEWHERE, status)


class OwnerlessLock:
    """Our lock on one message.  Concurrency: any thread.

    :param message: the path of the message.
    :param path: that of the lock.
    :param now: the time in seconds since the epoch.
    """

    def __init__(self, disk: Disk, message: str, path: str, now: Callable[[], float]) -> None:
        self._disk = disk
        self._message = message
        self._path = path
        self._now = now
        self._mutex = threading.Lock()
        self._fd = -1
        self._before = 0
        #: What we have stamped the message with; 0 before that.
        self._stamped = 0
        self.said = Inherited(Phase.CLAIMED, 0)

    def __del__(self) -> None:
        self.close()

    def open(self) -> bool:
        """Flock the message, or what a death has left of its lock; return False if another process has it.

        :raises FileNotFoundError: if there is neither.
        """
        try:
            fd = self._disk.lock_existing(self._message)
        except FileNotFoundError:
            fd = self._disk.lock_existing(self._path)
        if fd is None:
            return False
        self._fd = fd
        self._before = os.fstat(fd).st_mtime_ns
        return True

    def make(self) -> None:
        """Make the lock of a message that has none, so that older releases see it as one of theirs.

        1. A new time stamp: they take a lock for dead by its age.  2. The link.  3. The mark, which must never be seen
        on the lock of an older release.  A death before 3 leaves what such a release leaves: it is looked at after
        three hours, and nothing was sent.

        :raises FileExistsError: if there is a lock.
        :raises FileNotFoundError: if the message is gone.
        """
        self._disk.touch(self._fd)
        self._disk.link(self._message, self._path)
        try:
            if not same_file(self._disk.stat(self._path), os.fstat(self._fd)):
                raise FileNotFoundError(errno.ENOENT, "another file has its name now", self._message)
            self._stamp()
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.unlink(self._path)
            raise

    def inherit(self, said: Inherited) -> None:
        """Go on with a lock that a death has left, and with what it said."""
        self.said = said
        with self._mutex:
            self._stamp()

    @property
    def status(self) -> os.stat_result:
        """What the message is."""
        return os.fstat(self._fd)

    def note(self, phase: Phase, attempts: int) -> None:
        """Write down how far we are; on disk before a relay can have the message.

        :raises OSError: if the disk refuses, or another process has taken the lock.
        """
        with self._mutex:
            before, self.said = self.said, Inherited(phase, attempts)
            try:
                self._stamp()
                if phase is Phase.INTENDED:
                    self._disk.sync_open(self._fd)
            except OSError:
                self.said = before
                raise

    def beat(self) -> None:
        """Show processes of other hosts that we live; a lock that another process has taken is left to it."""
        with self._mutex:
            if self._fd >= 0:
                self._stamp()

    def _stamp(self) -> None:
        if self._is_taken_over():
            raise OSError(errno.ESTALE, "another process has taken the lock", self._path)
        digits = _MARK + (1 + _PHASES.index(self.said.phase)) * 1000 + min(self.said.attempts, _MANY)
        stamp = int(self._now()) * _SECOND + digits
        self._disk.stamp_open(self._fd, stamp)
        if os.fstat(self._fd).st_mtime_ns != stamp:
            raise OSError(errno.ENOTSUP, "without room for an owner file, time stamps of nanoseconds are needed")
        self._stamped = stamp

    def _is_taken_over(self) -> bool:
        """Return whether another host has marked the message, or it was stamped when our stamp was old enough for an
        older release to take the lock.

        Whatever else stamps it, such as an older release that comes too late, takes nothing away.
        """
        status = os.fstat(self._fd)
        if not self._stamped or status.st_mtime_ns == self._stamped:
            return False
        return said_by(status) is not None or status.st_mtime_ns - self._stamped >= _TAKEN_OVER

    def is_in_place(self) -> bool:
        """Return whether the lock is still ours: whatever took it has stamped the message anew."""
        with self._mutex:
            found = self._found()
            return found is not None and said_by(found) is not None and not self._is_taken_over()

    def is_lost(self) -> bool:
        """Return whether the lock will not be ours any more: it was removed, or another process has taken it."""
        with self._mutex:
            return self._found() is None or self._is_taken_over()

    def _found(self) -> os.stat_result | None:
        """Return what the lock is; None if it is not a name of our message."""
        try:
            found = self._disk.stat(self._path)
        except FileNotFoundError:
            return None
        return found if self._fd >= 0 and same_file(found, os.fstat(self._fd)) else None

    def remove(self) -> None:
        """Give the lock back.  A mark without a lock means nothing, so it may outlive it."""
        self._disk.unlink(self._path)
        self._give_stamp_back()
        self.close()

    def _give_stamp_back(self) -> None:
        """Let the message have the time stamp that it had."""
        with self._mutex, contextlib.suppress(OSError):
            if os.fstat(self._fd).st_mtime_ns == self._stamped:  # else an older release may have just locked it
                self._disk.stamp_open(self._fd, self._before)

    def close(self) -> None:
        """Let go of the message; a lock that is still there is for another process to take over."""
        with self._mutex:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def forget(self) -> None:
        """Do the same in a forked child, in which no other thread is left to give the mutex back."""
        self._mutex = threading.Lock()
        self.close()


class InPlaceLock(OwnerlessLock):
    """Our lock on a message that waits in a spool, under a name that only we make: it needs no name of its own.

    The mark is all there is of it, so a message that is not locked must have none.
    """

    def make(self) -> None:
        """Make the lock of a message that has none.  Raises `FileNotFoundError` if the message is gone."""
        if self._found() is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._message)
        self._stamp()

    def remove(self) -> None:
        """Give the lock back.  Raises `OSError` if the mark cannot be taken away."""
        with self._mutex:
            if os.fstat(self._fd).st_nlink:  # else the message was sent
                self._disk.stamp_open(self._fd, without_mark(self._before))
        self.close()


def without_mark(stamp: int) -> int:
    """Return a time stamp, in nanoseconds, that tells of no lock: the same second."""
    return stamp // _SECOND * _SECOND
