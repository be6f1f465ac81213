"""Mail that other programs drop into a spool directory, as for MaildropHost (``docs/explanation/decisions/spool.rst``).

Complete files are moved, by one rename each, to where a queue has its mail; what is locked, unfinished, or no mail
stays and is told of.  Concurrency: any number of processes may look at one directory; any thread may look, one at a
time may take.  Fails with `OSError` only if the directory itself cannot be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.message.envelope import DROPPED, read_envelope
from zope.sendmail.queue.maildir.layout import IN_PLACE, Layout
from zope.sendmail.queue.maildir.ownerless import without_mark
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk, same_file
from zope.sendmail.system.hostname import host_name

#: The directory of ours in a spool; other programs take it for nothing, for it is one.
PRIVATE = ".queue"

#: What a program has beside a file that it is writing.
LOCK = ".lck"

#: Seconds after which a lock is given up if it is not set: no transaction should be open for a day.
LOCK_AGE = 86400.0

#: A lock that is older than so many seconds is worth a word.
OLD_LOCK = 3600.0

#: Seconds for which a file that is not whole may still be in the making.
UNFINISHED = 60.0

#: Seconds between two looks at a directory that changes while there is work, and at one that does not.
_WHILE_BUSY, _UNCONDITIONAL = 1.0, 60.0

#: A directory that changed less than so many nanoseconds before a look may change again without a new time stamp.
_CLOCK_TICK = 2_000_000_000

#: Looking takes no more than this part of the time.
_SHARE = 20

#: So many files are taken at one call.
_AT_ONCE = 500

_STRANGE = re.compile(r"[^A-Za-z0-9_-]+")


_OLD = "its lock is older than an hour; the program that writes it may be dead"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file in a spool directory that may be mail."""

    path: str
    status: os.stat_result

    @property
    def name(self) -> str:
        """The name that it gets in the queue; it stays the same as long as the file is not changed."""
        return _queue_name(os.path.basename(self.path), self.status)

    @property
    def since(self) -> float:
        """When it was written."""
        return self.status.st_mtime

    @property
    def size(self) -> int:
        """Its octets, with the lines of the envelope."""
        return self.status.st_size


class _NoRoomError(Exception):
    """There is no room for a name, until other mail has left."""


class DropBox:
    """The files in one spool directory.  `lock_age`: seconds, 0.0: a lock counts for ever."""

    def __init__(self, spool: str, layout: Layout, disk: Disk, clock: Clock, lock_age: float = LOCK_AGE) -> None:
        self.spool = spool
        self.lock_age = lock_age
        #: Whether there is room for the queue's own directories; else mail is taken where it lies.
        self.has_room = True
        #: Whether there was no room for a name that the next file needs, although other mail waits and may make some.
        self.is_short = False
        self._layout = layout
        self._disk = disk
        self._clock = clock
        self._began = float("-inf")
        self._cost = 0.0
        self._stamp = 0
        #: Something may change without a sign in the directory.
        self._again = False
        self._found: deque[Dropped] = deque()
        #: Why a file stays, as it was told.
        self._left: dict[str, str] = {}

    def take(self, make: Callable[[], None], *, busy: bool) -> list[str]:
        """Move what is complete to ``new/``; the keys, oldest first.  `make` makes the queue's directories.

        Costs one stat if nothing happened.  `busy`: there is other work, so looks may be fewer.
        """
        now = self._clock.monotonic()
        if not self._found and self._is_time(now, busy=busy):
            self._look(now)
        keys: list[str] = []
        self.is_short = False
        while self._found and len(keys) < _AT_ONCE:
            found = self._found.popleft()
            try:
                key = self._take(found, make, is_alone=not (keys or busy))
            except _NoRoomError:
                self._found.appendleft(found)
                self.is_short = True
                break
            if key is not None:
                keys.append(key)
        return keys

    def complete(self) -> Iterator[Dropped]:
        """Return the mails that lie there whole, oldest first.

        Changes nothing; a lock counts here whatever its age.
        """
        return filter(self._is_complete, self._candidates(self.names()))

    def find(self, name: str) -> Dropped | None:
        """Return the one of them that will have this name in the queue."""
        called = (each for each in self._candidates(self.names()) if each.name == name)
        return next(filter(self._is_complete, called), None)

    def take_one(self, mail: Dropped, make: Callable[[], None]) -> str | None:
        """Move a mail to ``new/`` although no daemon came; its key, or None if it is gone, locked or changed."""
        return self._take(mail, make) if self._is_complete(mail) else None

    def names(self) -> list[str]:
        """Return the names in the directory; none if it is not there."""
        try:
            return self._disk.names(self.spool)
        except FileNotFoundError:
            return []

    def age_of_lock(self, path: str) -> float | None:
        """Seconds since the file was locked; None: it is not."""
        try:
            modified = self._disk.stat(path + LOCK).st_mtime
        except FileNotFoundError:
            return None
        return max(0.0, self._clock.time() - modified)

    def fault(self, path: str) -> str:
        """Return why the file cannot be sent; the empty string if it can.  Raises `FileNotFoundError`."""
        try:
            with self._disk.open(path) as stream:
                if stream.read(len(DROPPED)) != DROPPED:
                    return "it does not begin with ##To: or ##From:"
                stream.seek(0)
                read_envelope(stream)
        except FileNotFoundError:
            raise
        except MalformedEnvelope as error:
            return str(error)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return ""

    # looking

    def _is_time(self, now: float, *, busy: bool) -> bool:
        since = now - self._began
        if since < self._cost * _SHARE or (busy and since < _WHILE_BUSY):
            return False
        return since >= _UNCONDITIONAL or (self._again and since >= _WHILE_BUSY) or self._read_stamp() != self._stamp

    def _read_stamp(self) -> int:
        """Time stamp of the directory; -1 if it is too young to be trusted, or not there."""
        try:
            stamp = self._disk.stat(self.spool).st_mtime_ns
        except FileNotFoundError:
            return -1
        return stamp if abs(self._clock.time() * 1e9 - stamp) > _CLOCK_TICK else -1

    def _look(self, now: float) -> None:
        """Find what may be mail, oldest first."""
        stamp = self._read_stamp()
        names = self.names()
        self._found.extend(self._candidates(names))
        present = set(names)
        self._left = {path: left for path, left in self._left.items() if os.path.basename(path) in present}
        self._again = False
        self._stamp = max(stamp, 0)
        self._began, self._cost = now, self._clock.monotonic() - now

    def _candidates(self, names: Iterable[str]) -> list[Dropped]:
        """Return what may be mail, oldest first."""
        found: list[Dropped] = []
        for name in filter(may_be_mail, names):
            path = os.path.join(self.spool, name)
            with contextlib.suppress(FileNotFoundError):
                status = self._disk.stat(path)
                if stat.S_ISREG(status.st_mode):
                    found.append(Dropped(path, status))
        return sorted(found, key=lambda each: (each.status.st_mtime_ns, each.path))

    def _is_complete(self, mail: Dropped) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self.age_of_lock(mail.path) is None and not self.fault(mail.path)
        return False

    def _why_not(self, mail: Dropped) -> str | None:
        """Return why a file is left alone: in words if a person should know, empty if time will help; None if it
        is a mail.
        """
        # A lock is made before its mail: if we have seen the mail and there is no lock, there is none any more.
        age = self.age_of_lock(mail.path)
        if age is not None and not 0.0 < self.lock_age <= age:
            return _OLD if age > OLD_LOCK else ""
        fault = self.fault(mail.path)
        if fault and self._clock.time() - mail.since < UNFINISHED:
            self._again = True
            return ""
        return fault or None

    # taking

    def _take(self, found: Dropped, make: Callable[[], None], *, is_alone: bool = True) -> str | None:
        """Move a file to where mail waits; return its key, or None if it stays where it is.

        :param is_alone: whether no other mail waits, which makes room when it leaves.
        :raises _NoRoomError: if other mail waits and there is no room
        """
        path = found.path
        try:
            mail = Dropped(path, self._disk.stat(path))  # it may have changed since the look
            why = self._why_not(mail)
            if why is not None:
                self._leave(path, why)
                return None
            key = self._moved(mail, make)
        except FileNotFoundError:  # another daemon was faster, or its writer removed it
            return None
        except OSError as error:  # it is not sent: else it would be sent again and again
            if error.errno in NO_ROOM and not is_alone:
                raise _NoRoomError from error
            self._leave(path, f"it cannot be taken away, so it is not sent: {error.strerror or error}")
            return None
        self._give_up_lock(path)
        return key

    def _leave(self, path: str, why: str) -> None:
        """Say once why a file stays."""
        if why and self._left.get(path) != why:
            maillog.not_taken(path, why)
        self._left[path] = why

    def _moved(self, mail: Dropped, make: Callable[[], None]) -> str:
        """Take a mail away, and return its key: in ``new/``, or in the spool if there is no room for that.

        Raises `OSError`.
        """
        key = f"new/{mail.name}"
        try:
            if self.has_room:
                self._move(mail.path, self._layout.message(key), make)
                return key
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        key = f"{IN_PLACE}/{mail.name}"
        self._take_in_place(mail.path, self._layout.message(key))
        return key

    def _take_in_place(self, path: str, target: str) -> None:
        """Let a file stay where it is, under a name of ours: that needs no room.

        Its time stamp must not look as if it were locked (`zope.sendmail.queue.maildir.ownerless`).
        """
        fd = self._disk.lock_existing(path)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, "another process is taking it", path)
        try:
            status = os.fstat(fd)
            if not same_file(status, self._disk.stat(path)):
                raise FileNotFoundError(errno.ENOENT, "another process has taken it", path)
            self._disk.stamp_open(fd, without_mark(status.st_mtime_ns))
            self._disk.rename(path, target)
        finally:
            os.close(fd)

    def _move(self, path: str, target: str, make: Callable[[], None]) -> None:
        """Rename once: from now on the file is ours."""
        try:
            self._disk.rename(path, target)
        except FileNotFoundError:
            self._disk.stat(path)
            make()
            self._disk.rename(path, target)

    def _give_up_lock(self, path: str) -> None:
        """Remove a lock whose mail was taken all the same."""
        age = self.age_of_lock(path)
        if age is not None and 0.0 < self.lock_age <= age:
            maillog.lock_given_up(path, age)
            with contextlib.suppress(OSError):  # it does no harm without a mail
                self._disk.unlink(path + LOCK)


def may_be_mail(name: str) -> bool:
    """Hidden files, locks, and what editors leave (``name~``, ``#name#``) are none."""
    is_left_by_editor = name.endswith("~") or (name.startswith("#") and name.endswith("#"))
    return not (name.startswith(".") or name.endswith(LOCK) or is_left_by_editor)


def _queue_name(name: str, status: os.stat_result) -> str:
    """Return a name for the queue, with the time stamp and the old name in it; sorts like those of `unique_name`.

    No two files have the same number at a time, and what gets a number later has another time of change (ctime).
    """
    seconds, nanoseconds = divmod(max(0, status.st_mtime_ns), 10**9)
    digits = f"{nanoseconds // 1000:06d}{status.st_ctime_ns // 1000 % 10**7:07d}"
    readable = _STRANGE.sub("_", name.encode("utf-8", "replace").decode("utf-8"))[:60]
    return f"{seconds}.drop-{readable}-{status.st_ino:x}.{_STRANGE.sub('_', host_name())}.{digits}"
