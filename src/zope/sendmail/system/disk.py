"""What the queue does to a disk: one small seam of system calls.

Everything that touches a queue directory goes through a `Disk`, so that a test can make the n-th call fail, record
the calls, or stop the world between two of them.  A name is a path as str.  Each method does one thing and raises
`OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from zope.sendmail.message.pieces import Piece, octets
from zope.sendmail.system.gilbaton import baton
from zope.sendmail.system.lockedfiles import FILE_MODE, LockedFiles
from zope.sendmail.system.mounts import is_local
from zope.sendmail.system.systemcalls import HAS_SYNCFS, flush, keep_in_place, rename_new, syncfs

#: Opens nothing where the system knows that; else nothing but a regular file, without waiting.
_HOLD = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_CLOEXEC | os.O_NOFOLLOW

_DIRECTORY_MODE = 0o700

#: File systems group fsyncs that are under way at the same time into one journal commit; more than 16 bring nothing.
_PARALLEL_SYNCS = 16

#: A file of up to so many bytes is read with one call; most mail is smaller.
_SMALL = 64 * 1024

#: What says that a file system has no hard links, or none for this file.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

#: Pieces that are written with one call.  Those of a large text are made for it, so they are few.
_AT_ONCE = 8

#: What says that there is no room for a file, or for one more name.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

#: From so many files on, one syncfs(2) is cheaper than an fsync each.
_MANY = 16


class NotRegular(OSError):
    """A FIFO, device or directory stands where a file was expected."""


class Disk(LockedFiles):
    """The real disk.  Concurrency: any thread."""

    # making

    def create(self, path: str, *pieces: Piece) -> None:
        """Make a new private file with ``pieces`` in it; raise `FileExistsError` if there is one.

        Leaves nothing on failure.
        """
        os.close(self._create(path, *pieces))

    def create_in_place(self, path: str, data: bytes) -> None:
        """`create`, durably, a file that can be written over without room, as ``open_locked`` does."""
        baton.put_down()
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.fchmod(fd, FILE_MODE)
            keep_in_place(fd)
            self.write(fd, data)
            flush(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)

    def create_locked(self, path: str, *pieces: Piece) -> int:
        """`create`, and return a descriptor for reading the file, on which there is a lock until it is closed.

        Where locks do not work there is none; what the lock says must be a courtesy.
        """
        os.close(self._create(path, *pieces))
        # Not the one that was written with: a file open for writing would keep the file system from being remounted.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def fill(self, path: str, *pieces: Piece) -> int:
        """`create_locked` for an empty file that is there already.  Raises `FileNotFoundError` if none is there that is
        free, and removes the file if it cannot be written.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            raise
        try:
            # 1. The lock, with which processes remove what others left.  2. The look whether one has done so before.
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileNotFoundError(errno.ENOENT, "another process has the file", path) from None
            except OSError:  # no locks here: no process removes such files
                pass
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size or status.st_nlink != 1:
                raise FileNotFoundError(errno.ENOENT, "not an empty file with one name", path)
            self._write_into(path, *pieces)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _write_into(self, path: str, *pieces: Piece) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            self.write(fd, *pieces)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)

    def _create(self, path: str, *pieces: Piece) -> int:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.fchmod(fd, FILE_MODE)  # a umask may take bits away, but must not
            self.write(fd, *pieces)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return fd

    def write(self, fd: int, *pieces: Piece) -> None:
        """Write all of ``pieces``, with as many calls as the system wants."""
        for start in range(0, len(pieces), _AT_ONCE):
            parts = [octets(piece) for piece in pieces[start : start + _AT_ONCE] if piece]
            while parts:
                written = os.writev(fd, parts)
                while parts and written >= len(parts[0]):
                    written -= len(parts.pop(0))
                if written:
                    parts[0] = memoryview(parts[0])[written:]

    def open_for_append(self, path: str) -> int:
        """Return a descriptor whose every write goes to the end of a private file, which is made if needed."""
        # A FIFO without a reader would let us wait for ever.
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags, FILE_MODE)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            os.fchmod(fd, FILE_MODE)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def append(self, path: str, *pieces: Piece) -> None:
        """Append ``pieces`` to a private file, which is made if needed."""
        fd = self.open_for_append(path)
        try:
            self.write(fd, *pieces)
        finally:
            os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        """Let a file end after ``size`` bytes."""
        os.truncate(path, size)

    def make_directory(self, path: str) -> bool:
        """Make a private directory, whatever the umask; say whether it was made now.  Parents must exist."""
        try:
            os.mkdir(path, _DIRECTORY_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return False
        os.chmod(path, _DIRECTORY_MODE)
        return True

    # making durable

    def sync_file(self, path: str) -> None:
        """Return when the content of the file is on disk."""
        baton.put_down()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flush(fd)
        finally:
            os.close(fd)

    def sync_open(self, fd: int) -> None:
        """`sync_file` for an open file."""
        baton.put_down()
        flush(fd)

    def sync_files(self, paths: Sequence[str]) -> None:
        """`sync_file` for several files; many cost about one (``docs/explanation/decisions/durability.rst``)."""
        if len(paths) >= _MANY and HAS_SYNCFS:
            self.sync_file_system(os.path.dirname(paths[0]))
            return
        if len(paths) < 2:
            for path in paths:
                self.sync_file(path)
            return
        with ThreadPoolExecutor(min(len(paths), _PARALLEL_SYNCS)) as pool:
            try:
                for _ in pool.map(self.sync_file, paths):
                    pass
                return
            except RuntimeError:  # no thread to be had: the interpreter shuts down, or the system is full
                pass
        for path in paths:
            self.sync_file(path)

    def sync_file_system(self, path: str) -> None:
        """Return when everything on the file system of ``path`` is on disk.  Linux only."""
        baton.put_down()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            syncfs(fd, path)
        finally:
            os.close(fd)

    def sync_directory(self, path: str) -> None:
        """Return when the names in the directory are on disk."""
        baton.put_down()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            flush(fd)
        finally:
            os.close(fd)

    # names

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name; a file that has it is replaced.  Atomic."""
        os.rename(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """Give a file another name; raise `FileExistsError` if the name is taken.  Atomic.  Linux only."""
        rename_new(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file one more name; raise `FileExistsError` if the name is taken.  Atomic."""
        os.link(old, new, follow_symlinks=False)

    def prove_name(self, path: str, name: str) -> None:
        """Raise what a rename of ``path`` to `name` would raise, which is a new name in a directory."""
        try:
            self.link(path, name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.create(name)  # not even a file system without links refuses that
        with contextlib.suppress(FileNotFoundError):  # another process took it for litter
            self.unlink(name)

    def unlink(self, path: str) -> None:
        """Take a name away."""
        os.unlink(path)

    def hold(self, path: str) -> int | None:
        """Hold a file, so that its space is not freed with its name; return a descriptor, or None if there is none.

        Nothing can be done with it but to close it, which frees the space.
        """
        try:
            return os.open(path, _HOLD)
        except OSError:  # it is gone, or too many are open
            return None

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def stamp(self, path: str, modified: float) -> None:
        """Set the time stamp of a file, seconds since the epoch."""
        os.utime(path, (modified, modified))

    # looking

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        return os.listdir(path)

    def stat(self, path: str) -> os.stat_result:
        """Return what the name itself is; a symbolic link is not followed."""
        return os.lstat(path)

    def check_writable(self, path: str) -> None:
        """Raise `OSError` unless names can be made in this directory and taken away from it."""
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            os.stat(path)  # which says it better if it is not there
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
            number = errno.EROFS if read_only else errno.EACCES
            raise OSError(number, os.strerror(number), path)

    def is_local(self, status: os.stat_result) -> bool:
        """Return whether a file is known to be on a file system that no other machine has, so that locks are seen."""
        return is_local(status.st_dev)

    def room(self, path: str) -> os.statvfs_result:
        """Return how much room the file system of ``path`` has."""
        return os.statvfs(path)

    def open(self, path: str) -> BinaryIO:
        """Return a regular file for reading, as it is now; a small one is in memory then.

        Raises `OSError` for a link, `NotRegular` for a directory, FIFO or device, and does not block.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotRegular(f"{path} is not a regular file")
            text = os.pread(fd, status.st_size + 1, 0) if status.st_size <= _SMALL else b""
            if len(text) != status.st_size:
                stream = os.fdopen(fd, "rb")
                fd = -1
                return stream
            return io.BytesIO(text)
        finally:
            if fd >= 0:
                os.close(fd)

    def read_small(self, path: str) -> bytes | None:
        """Return the content of a regular file of up to 64 KiB, as it is now; None for what is larger or no such file.

        Raises `OSError` for a link, and does not block.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            size = status.st_size
            if size > _SMALL or not stat.S_ISREG(status.st_mode):
                return None
            text = os.pread(fd, size + 1, 0)
            return text if len(text) == size else None
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Return whether there is a file of this name; a symbolic link is not followed."""
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> bytes:
        """Return the content of a regular file."""
        with self.open(path) as stream:
            return stream.read()

    def read_tail(self, path: str, size: int) -> tuple[bytes, bool]:
        """Return the last ``size`` bytes of a regular file, and whether that is all of it."""
        with self.open(path) as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - size))
            return stream.read(), length <= size


def remove_quietly(disk: Disk, *paths: str) -> None:
    """Unlink each path; one that is not there is no fault."""
    for path in paths:
        try:
            disk.unlink(path)
        except FileNotFoundError:
            continue


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what two names of a file have in common."""
    return status.st_dev, status.st_ino


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether both are the same file."""
    return identity(one) == identity(other)
