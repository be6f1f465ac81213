"""The committed mails of a transaction, and how they become single files: a group, and the bundle in it.

A group is a directory; the later mails of a large transaction stand in one file of it, the *bundle*, which costs a
fraction of as many files.  A process that finds a committed group unfolds it; how, and why a crash does no harm,
stands in ``docs/explanation/internals.rst``.  Fails with `OSError`, also where a bundle is no bundle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from zope.sendmail.queue.maildir.bundleprogress import GONE, SETTLED, steps_in
from zope.sendmail.queue.maildir.layout import BUNDLE, PARTS, PROGRESS, SENDING, SPLITTING, WANTED, Layout
from zope.sendmail.system.disk import NO_ROOM, Disk, remove_quietly, same_file
from zope.sendmail.system.hostname import host_name

#: A host that said so many seconds ago that it makes files of a bundle died with it.
_LONG_DEAD = 600.0

#: Where there is no room for a second copy of all mails, so many are made files at a time.
_AT_ONCE = 64

#: What stands beside a bundle and means nothing without it.
_BESIDE = (SPLITTING, PROGRESS, WANTED)

#: A file name has 255 bytes at most, a length 20 digits.
_LONGEST_LINE = 300


def entry_line(name: str, length: int) -> bytes:
    """Return what stands before a mail of so many bytes."""
    return b"%s %d\n" % (os.fsencode(name), length)


def entries(stream: BinaryIO, path: str) -> Iterator[tuple[str, int]]:
    """Yield name and length of each mail; the stream stands at its first byte.  Raises `OSError` at a torn one."""
    size = stream.seek(0, os.SEEK_END)
    position = 0
    while position < size:
        stream.seek(position)
        line = stream.readline(_LONGEST_LINE)
        name, _, length = line.rstrip(b"\n").partition(b" ")
        whole = line.endswith(b"\n") and name and length.isdigit()
        start = position + len(line)
        position = start + int(length) if whole else size + 1
        if position > size or b"/" in name or name.startswith(b"."):
            raise OSError(errno.EBADMSG, "not a whole bundle of mails", path)
        stream.seek(start)
        yield os.fsdecode(name), int(length)


def names_in(disk: Disk, group: str, *, strict: bool = False) -> list[str]:
    """Return the names of the mails in a group.  What cannot be read of a bundle is left out, or raises if `strict`."""
    found = disk.names(group)
    names = [name for name in found if not name.startswith(".")]
    if BUNDLE in found:
        path = os.path.join(group, BUNDLE)
        with contextlib.suppress(*() if strict else (OSError,)), disk.open(path) as stream:
            steps = steps_in(disk, group) or b""
            numbered = enumerate(entries(stream, path))
            names.extend(name for number, (name, _) in numbered if steps[number : number + 1] != GONE)
    if PARTS in found:
        names.extend(disk.names(os.path.join(group, PARTS)))
    return sorted(set(names))


def mail_in(disk: Disk, group: str, name: str) -> tuple[bytes, bytes] | None:
    """Return how far a mail of a bundle is, and what its file would be; None if there is no such mail, or it is gone.

    :returns: its byte of the progress, empty if there is none, and its lines and message
    """
    path = os.path.join(group, BUNDLE)
    with contextlib.suppress(OSError), disk.open(path) as stream:
        steps = steps_in(disk, group) or b""
        for number, (each, length) in enumerate(entries(stream, path)):
            step = steps[number : number + 1]
            if each == name and step != GONE:
                return step, stream.read(length)
    return None


def may_be_drained(names: Sequence[str]) -> bool:
    """Return whether a group with these names has a bundle of which no process is making files."""
    return BUNDLE in names and PARTS not in names and not any(name.startswith(SPLITTING) for name in names)


def is_taken_up(disk: Disk, group: str) -> bool:
    """Return whether a processor has begun to drain a bundle, or is about to; False if the disk does not say."""
    try:
        return any(name.startswith(PROGRESS) for name in disk.names(group))
    except OSError:
        return False


def gather_out(layout: Layout, disk: Disk, group: str) -> None:
    """Move those mails of a group out to ``new/`` that are files."""
    _move_out(layout, disk, group)


def unfold(layout: Layout, disk: Disk, group: str) -> bool:
    """Move the mails of a committed group out to ``new/``, in order.  Any number of processes may do it at once.

    Returns False if another process is making files of its bundle, or is draining it where it lies; what is missing is
    done later then.
    """
    parts = os.path.join(group, PARTS)
    try:
        names = disk.names(group)
        bundled = not {BUNDLE, PARTS}.isdisjoint(names)
        _move_out(layout, disk, group)
        if BUNDLE in names and not _split(layout, disk, group):
            return False
        if bundled:
            # Else a power loss might bring the bundle back beside mails that have left already.
            disk.sync_directory(group)
            with contextlib.suppress(FileNotFoundError):
                _move_out(layout, disk, parts)
    except FileNotFoundError:  # another process has finished it
        return True
    # Else a crash might remember that the directory is gone, but not where its mails are.
    disk.sync_directory(layout.new)
    if bundled or any(name.startswith(_BESIDE) for name in names):
        with contextlib.suppress(OSError):
            left = [name for name in disk.names(group) if name.startswith(_BESIDE)]
            remove_quietly(disk, *(os.path.join(group, name) for name in left))
    for directory in (parts, group) if bundled else (group,):
        with contextlib.suppress(OSError):
            disk.remove_directory(directory)
    return True


def _move_out(layout: Layout, disk: Disk, directory: str) -> None:
    for name in sorted(disk.names(directory)):
        if not name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                disk.rename(os.path.join(directory, name), os.path.join(layout.new, name))


class _OneAtATime:
    """Lets a process split one bundle at a time: a second thread waits, and finds the files."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        #: The descriptor whose lock it holds just now.
        self.fd = -1

    def forget_after_fork(self) -> None:
        """Be free in a forked child: the thread that held it is not here, and the lock must not outlive our parent."""
        self.mutex = threading.Lock()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


_here = _OneAtATime()
os.register_at_fork(after_in_child=_here.forget_after_fork)


def _split(layout: Layout, disk: Disk, group: str) -> bool:
    """Make files in ``.parts`` of the bundle, then remove it; return False if another process is at it.

    What stands in the bundle is the truth, and a part of the same name is not; of what does not, the parts are.
    """
    path = os.path.join(group, BUNDLE)
    with _here.mutex:
        try:
            with disk.locked(path) as fd:
                if fd is None:
                    return False
                _here.fd = fd
                if same_file(os.fstat(fd), disk.stat(path)):
                    if not _is_first(disk, group) or _is_drained(disk, group):
                        return False
                    _take_apart(layout, disk, group)
                    disk.unlink(path)
        except FileNotFoundError:  # another process was faster
            pass
        finally:
            _here.fd = -1
    return True


def _is_first(disk: Disk, group: str) -> bool:
    """Tell other hosts, whose locks may not be seen here, that this one makes files of a bundle; False if one does.

    Each host has a file of its own, and the oldest counts, unless it is so old that its host died.  Of two that are as
    old, none counts: both come again later.
    """
    own = os.path.join(group, SPLITTING + host_name())
    try:
        disk.create(own)
    except FileExistsError:  # of a process that died here: we have its lock
        disk.unlink(own)
        disk.create(own)
    made = disk.stat(own).st_mtime
    for name in disk.names(group):
        if name.startswith(SPLITTING) and name != os.path.basename(own):
            with contextlib.suppress(FileNotFoundError):
                if made - _LONG_DEAD < disk.stat(os.path.join(group, name)).st_mtime <= made:
                    disk.unlink(own)
                    return False
    return True


def is_left(disk: Disk, group: str) -> bool:
    """Return whether processors drain a bundle where it lies, or have died before all was told that happened there."""
    names = disk.names(group)
    if BUNDLE not in names or PROGRESS not in names:
        return False
    return any(name.startswith(SENDING) for name in names) or not SETTLED.issuperset(steps_in(disk, group) or b"")


def _is_drained(disk: Disk, group: str) -> bool:
    """Go back if processors drain the bundle, and say so.

    Our own file stands beside it already, which they look for when they have locked a chunk: so one of both goes back.
    """
    if not is_left(disk, group):
        return False
    disk.unlink(os.path.join(group, SPLITTING + host_name()))
    return True


def _take_apart(layout: Layout, disk: Disk, group: str) -> None:
    """Make a part of each mail of the bundle: of all at once if there is room, else of a few at a time.

    :raises OSError: if there is no room for one mail; then nothing keeps processors from draining it where it lies.
    """
    try:
        _make_all_parts(layout, disk, group)
    except OSError as error:
        if error.errno in NO_ROOM:
            with contextlib.suppress(OSError):
                disk.remove_directory(os.path.join(group, PARTS))
                remove_quietly(disk, os.path.join(group, SPLITTING + host_name()))
        raise


def _make_all_parts(layout: Layout, disk: Disk, group: str) -> None:
    path = os.path.join(group, BUNDLE)
    steps = steps_in(disk, group) or b""
    if steps and not steps.strip(GONE) and PARTS not in disk.names(group):
        disk.make_directory(os.path.join(group, PARTS))
        disk.sync_directory(group)  # a group without both is no bundle: nothing would remove it after a loss of power
        return
    mails = _mails_of(disk, path)
    _clear_parts(layout, disk, group, mails)
    mails = [mail for number, mail in enumerate(mails) if steps[number : number + 1] != GONE]
    try:
        _make_parts(disk, group, mails)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    else:
        return
    while mails:
        _clear_parts(layout, disk, group, mails)
        cut = mails[-_make_last_parts(disk, group, mails[-_AT_ONCE:]) :]
        disk.truncate(path, cut[0].begin)  # from now on these parts count
        disk.sync_file(path)
        mails = mails[: -len(cut)]
        _move_out(layout, disk, os.path.join(group, PARTS))


@dataclass(frozen=True, slots=True)
class _Mail:
    """One mail of a bundle: where its line begins, and its text."""

    name: str
    begin: int
    text: int
    length: int


def _mails_of(disk: Disk, path: str) -> list[_Mail]:
    mails: list[_Mail] = []
    with disk.open(path) as stream:
        end = 0
        for name, length in entries(stream, path):
            mails.append(_Mail(name, end, stream.tell(), length))
            end = stream.tell() + length
    return mails


def _clear_parts(layout: Layout, disk: Disk, group: str, mails: Iterable[_Mail]) -> None:
    """Remove the parts of mails that stand in the bundle, which a death has left; move out those that were cut off."""
    parts = os.path.join(group, PARTS)
    if not disk.make_directory(parts):
        bundled = {mail.name for mail in mails}
        remove_quietly(disk, *(os.path.join(parts, name) for name in disk.names(parts) if name in bundled))
        _move_out(layout, disk, parts)


def _make_parts(disk: Disk, group: str, mails: Sequence[_Mail]) -> None:
    """Write the parts of these mails, durably."""
    made: list[str] = []
    with disk.open(os.path.join(group, BUNDLE)) as stream:
        for mail in mails:
            made.append(os.path.join(group, PARTS, mail.name))
            stream.seek(mail.text)
            disk.create(made[-1], stream.read(mail.length))
    disk.sync_files(made)
    disk.sync_directory(os.path.join(group, PARTS))
    disk.sync_directory(group)


def _make_last_parts(disk: Disk, group: str, mails: Sequence[_Mail]) -> int:
    """Write the parts of as many of the last mails as there is room for, durably; return how many they are."""
    while True:
        try:
            _make_parts(disk, group, mails)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            remove_quietly(disk, *(os.path.join(group, PARTS, mail.name) for mail in mails))
            if len(mails) == 1:
                raise
            mails = mails[len(mails) // 2 :]
        else:
            return len(mails)
