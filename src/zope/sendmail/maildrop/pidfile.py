"""Which process is the daemon of a configuration: a pid file that its owner keeps locked.

The kernel says which process holds the lock and gives it up with the process, so none other is ever taken for the
daemon, whatever stands in the file.  The number in it is for people and for monitoring programs.  Fails with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import time

from zope.sendmail.errors import MailError
from zope.sendmail.system.disk import NO_ROOM

# struct flock, of fcntl(2): Linux has the kind of lock in front, the BSDs and macOS have it behind.
_FLOCK, _PID = ("hhqqi", 4) if sys.platform == "linux" else ("qqihh", 2)

#: Seconds between two looks where the system cannot wait for a process that is not our child.
_LOOK = 0.1


class AlreadyRunning(MailError):
    """There is a daemon of this configuration."""


class PidFile:
    """The pid file at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def hold(self) -> None:
        """Be the daemon, until `release` or the end of this process.  Raises `AlreadyRunning`."""
        while self._fd < 0:
            fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                self._lock(fd)
                if _is_at(self.path, fd):
                    _check_older_daemon(fd)
                    _write_number(fd)
                    self._fd, fd = fd, -1
            finally:
                if fd >= 0:
                    os.close(fd)

    def release(self) -> None:
        """Remove the file: the daemon ends."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if _is_at(self.path, self._fd):
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1

    def holder(self) -> int | None:
        """Return the daemon's process, or None if there is none.  Not for the daemon itself."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            return self._holder(fd)
        finally:
            os.close(fd)

    def check_older_daemon(self) -> None:
        """Raise `AlreadyRunning` if the file names a daemon of 2.3, which locks nothing: none must send beside it."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _check_older_daemon(fd)
            finally:
                os.close(fd)

    def terminate(self, number: signal.Signals, timeout: float) -> bool:
        """Send a signal to the daemon and wait until it has ended; False if it has not, after `timeout` seconds.

        Raises `ProcessLookupError` if there is no daemon, `PermissionError` if it is another's.
        """
        pid = self.holder()
        if pid is None:
            raise ProcessLookupError(errno.ESRCH, "there is no daemon")
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return self._wait(timeout)
        fd = os.pidfd_open(pid)
        try:
            if self.holder() != pid:  # it ended meanwhile, and its number may be another's
                return self.holder() is None
            signal.pidfd_send_signal(fd, number)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(timeout * 1000))
        finally:
            os.close(fd)

    def _wait(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while self.holder() is not None:
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK)
        return True

    def _lock(self, fd: int) -> None:
        while not _is_locked_by_us(fd):
            pid = self._holder(fd)
            if pid is not None:  # else it ended in this moment
                raise AlreadyRunning(f"it is already running, process {pid}")

    def _holder(self, fd: int) -> int | None:
        asked = [fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0] if _PID == 4 else [0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET]
        answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, *asked)))
        if answer[0 if _PID == 4 else 3] == fcntl.F_UNLCK:
            return None
        pid = int(answer[_PID])
        if pid <= 0:
            raise OSError(errno.ESRCH, "the daemon runs on another host or in another container", self.path)
        return pid


def _write_number(fd: int) -> None:
    """Write our number down.  On a full disk the lock alone has to do: sending the mail there makes room."""
    os.ftruncate(fd, 0)
    try:
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def _is_locked_by_us(fd: int) -> bool:
    """Lock the file; False if another process has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _is_at(path: str, fd: int) -> bool:
    """Return whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _check_older_daemon(fd: int) -> None:
    """2.3 locks nothing, neither its pid file nor the mail that it is sending."""
    text = os.pread(fd, 20, 0).strip()
    with contextlib.suppress(OSError):
        if text.isdigit() and int(text) != os.getpid():
            with open(f"/proc/{int(text)}/cmdline", "rb") as file:
                if b"maildrop.py" in file.read():
                    raise AlreadyRunning(
                        f"process {int(text)} is a daemon of Products.MaildropHost, and both would send the same "
                        f"mail; stop it first: kill {int(text)}"
                    )
