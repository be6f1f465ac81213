"""The Maildir format: unique names, ``tmp`` -> ``new``, fsync.

A general Maildir, for any program; the queue is built with the same pieces.  Fails with `ValueError` where
something else than a Maildir is found and with `OSError` where the disk refuses.  Format:
https://cr.yp.to/proto/maildir.html
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import socket  # noqa: F401 - BBB: tests of programs for 7.3 replace it here
import time
from collections.abc import Iterable, Iterator
from typing import IO

from zope.interface import directlyProvides, implementer

from zope.sendmail.interfaces import IMaildir, IMaildirFactory, IMaildirMessageWriter
from zope.sendmail.system.disk import Disk, remove_quietly
from zope.sendmail.system.hostname import host_name

SUBDIRECTORIES = ("tmp", "new", "cur")

_counter = itertools.count()


def unique_name() -> str:
    """Return a name no other message has: ``<seconds>.<pid>.<host>.<digits>``, four parts as in the older releases.

    The digits are microseconds, a counter and chance, so names of one process sort in the order they were made, and two
    containers with the same host name and pid do not meet.
    """
    count, microseconds = next(_counter) % 10_000, time.time_ns() // 1000
    if not count:  # else it would sort before the last one, if that was made in the same microsecond
        microseconds = _next_microsecond(microseconds)
    digits = f"{microseconds % 1_000_000:06d}{count:04d}{int(random.random() * 1000):03d}"  # noqa: S311 - no secret
    return f"{microseconds // 1_000_000}.{os.getpid()}.{_HOST}.{digits}"


def _next_microsecond(now: int) -> int:
    """Return the time as soon as it is not `now` any more, in microseconds since the epoch.

    A clock that stands still is not waited for.
    """
    for _ in range(1000):
        if (later := time.time_ns() // 1000) != now:
            return later
    return now


_HOST = host_name()


def age_key(name: str) -> tuple[int, str, str]:
    """Sorts names by age: seconds, then the last part where it is one of ours.  Foreign names come first."""
    seconds, _, rest = name.partition(".")
    last = rest.rpartition(".")[2].partition(":")[0].partition(",")[0]
    return int(seconds) if seconds.isascii() and seconds.isdigit() else 0, last if len(last) == 13 else "", name


def written_at(name: str) -> float | None:
    """Return when a message was written, as its name says, in seconds since the epoch; None if the name does not say.

    Names of older releases say it to the second.
    """
    seconds, _, rest = name.partition(".")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 12):
        return None
    digits = rest.rpartition(".")[2].partition(":")[0].partition(",")[0]
    exact = len(digits) == 13 and digits.isascii() and digits.isdigit()
    return int(seconds) + (int(digits[:6]) / 1e6 if exact else 0.0)


def make_maildir(disk: Disk, path: str, extra: Iterable[str] = ()) -> bool:
    """Make a private Maildir, or complete one: missing, empty and half-made directories are all right.

    Returns whether anything was made.

    Raises `ValueError` if there is something else.  Several processes may do it at the same time.
    """
    wanted = (*SUBDIRECTORIES, *extra)
    try:
        present = disk.names(path)
    except FileNotFoundError:
        _make_parents(disk, path)
        present = []
    except NotADirectoryError:
        raise ValueError(f"{path} is not a Maildir folder: it is not a directory") from None
    missing = [name for name in wanted if name not in present]
    if not missing:
        return False
    foreign = sorted(set(present) - {*wanted, "lost+found"})
    if foreign and set(SUBDIRECTORIES) & set(missing):
        raise ValueError(
            f"{path} is not a Maildir folder: {', '.join(missing)} missing, but there is {foreign[0]!r}; "
            "name an empty or a new directory"
        )
    for name in missing:
        disk.make_directory(os.path.join(path, name))
    disk.sync_directory(path)
    return True


def check_maildir(path: str) -> None:
    """Raise `ValueError` unless there is a Maildir."""
    for name in SUBDIRECTORIES:
        if not os.path.isdir(os.path.join(path, name)):
            raise ValueError(f"{path} is not a Maildir folder: it has no directory {name!r}")


def make_directories(disk: Disk, path: str) -> None:
    """Make a private directory, durably, and what is missing above it."""
    if not os.path.isdir(path):
        _make_parents(disk, path)


def _make_parents(disk: Disk, path: str) -> None:
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        _make_parents(disk, parent)
    if disk.make_directory(path) and parent:
        disk.sync_directory(parent)


@implementer(IMaildir)
class Maildir:
    """See `IMaildir`."""

    def __init__(self, path: str, create: bool = False) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        self.path = path
        self._disk = Disk()
        if create:
            make_maildir(self._disk, os.path.abspath(path))
        check_maildir(path)

    def __iter__(self) -> Iterator[str]:
        found: list[tuple[float, tuple[int, str, str], str]] = []
        for directory in (self._directory("new"), self._directory("cur")):
            for name in self._disk.names(directory):
                path = os.path.join(directory, name)
                if not name.startswith(".") and (modified := self._modified(path)) is not None:
                    found.append((modified, age_key(name), path))
        return iter([path for _, _, path in sorted(found)])

    def newMessage(self) -> MaildirMessageWriter:
        """See `IMaildir`."""
        name = unique_name()
        temporary = os.path.join(self._directory("tmp"), name)
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)  # a umask may take bits away, but must not
        return MaildirMessageWriter(os.fdopen(fd, "wb"), temporary, os.path.join(self._directory("new"), name))

    def _directory(self, name: str) -> str:
        return os.path.abspath(os.path.join(self.path, name))

    def _modified(self, path: str) -> float | None:
        try:
            return self._disk.stat(path).st_mtime
        except FileNotFoundError:  # another reader was faster
            return None


directlyProvides(Maildir, IMaildirFactory)


@implementer(IMaildirMessageWriter)
class MaildirMessageWriter:
    """See `IMaildirMessageWriter`.

    `fd` is the file that was made under the path `filename`, open for writing bytes; `commit` renames it to
    `new_filename`.
    """

    def __init__(self, fd: IO[bytes], filename: str, new_filename: str) -> None:
        self._disk = Disk()
        self._fd = fd
        self._filename = filename
        self._new_filename = new_filename
        self._committed = False
        self._aborted = False
        self._incomplete = False

    def write(self, data: str | bytes) -> None:
        """See `IMaildirMessageWriter`."""
        self._fd.write(_encode_utf8(data))

    def writelines(self, lines: Iterable[str | bytes]) -> None:
        """See `IMaildirMessageWriter`."""
        self._fd.writelines(map(_encode_utf8, lines))

    def close(self) -> None:
        """See `IMaildirMessageWriter`."""
        try:
            self._fd.close()
        except OSError:
            self._incomplete = True
            raise

    def commit(self) -> str:
        """See `IMaildirMessageWriter`.  The rename is the instant of success."""
        if self._aborted:
            raise RuntimeError("Cannot commit, message already aborted")
        if self._incomplete:
            raise OSError(errno.EIO, "Cannot commit, the end of the message could not be written", self._filename)
        if not self._committed:
            self.close()
            self._disk.sync_file(self._filename)
            self._disk.rename(self._filename, self._new_filename)
            self._committed = True
            self._disk.sync_directory(os.path.dirname(self._new_filename))
        return self._new_filename

    def abort(self) -> None:
        """See `IMaildirMessageWriter`."""
        if not self._committed and not self._aborted:
            self._aborted = True
            with contextlib.suppress(OSError):  # a full disk: what could not be written is not wanted any more
                self._fd.close()
            remove_quietly(self._disk, self._filename)


def _encode_utf8(data: str | bytes) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data
