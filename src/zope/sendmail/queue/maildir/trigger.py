"""How processors on one host learn at once that mail was committed.

Each processor has a FIFO in ``locks/``; a process that commits writes the names into all of them.  That is a hint:
where FIFOs do not work, or one is full, the periodic look finds the mail.  Nothing here raises because of a FIFO.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence

from zope.sendmail.queue.maildir.layout import BELL, Layout
from zope.sendmail.system.disk import Disk

#: A write of up to this many bytes is not mixed with others (POSIX: PIPE_BUF is at least 512).
_ATOMIC = select.PIPE_BUF

#: Said instead of names: look yourself.
_LOOK = b"\n"


class Trigger:
    """The FIFO of one processor.  Concurrency: `ring` and `wake` from any thread and from signal handlers."""

    _read = _write = -1

    def __init__(self, layout: Layout, name: str) -> None:
        self.path = os.path.join(layout.locks, name + BELL)
        self._rest = b""
        with contextlib.suppress(OSError):  # no FIFOs here: the periodic look has to do
            os.mkfifo(self.path, 0o600)
            self._read = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._write = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if self._write < 0:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        #: Asked by one thread at a time only, and so often that it is made once.
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def __del__(self) -> None:
        self.close_descriptors()

    def wait(self, timeout: float) -> list[str] | None:
        """Wait at most `timeout` seconds until the queue is said to have changed.

        :returns: the keys of messages that are new or have changed, each once; the empty text among them asks for a
            look at the directory.  None: nothing was said.
        """
        if self._read < 0:
            return None
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return None
        text = self._rest + self._drain()
        lines = text.split(b"\n")
        self._rest = lines.pop()[-_ATOMIC:]
        return [os.fsdecode(line) for line in dict.fromkeys(lines or [b""])]

    def is_ringing(self) -> bool:
        """Return whether `wait` has something to say at once.  Concurrency: one thread at a time."""
        return self._read >= 0 and bool(self._poll.poll(0))

    def wake(self) -> None:
        """Let `wait` return."""
        with contextlib.suppress(OSError):
            if self._write >= 0:
                os.write(self._write, _LOOK)

    def close(self) -> None:
        """Remove the FIFO."""
        if self._read >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Let go of the FIFO, as a forked child has to."""
        ends, self._read, self._write = (self._read, self._write), -1, -1
        for fd in ends:
            if fd >= 0:
                os.close(fd)

    def _drain(self) -> bytes:
        text = b""
        with contextlib.suppress(OSError):  # nothing more, or closed meanwhile
            while len(text) < 1_000_000 and (part := os.read(self._read, 65536)):
                text += part
        return text


def ring(layout: Layout, disk: Disk, keys: Sequence[str]) -> None:
    """Tell every processor of the queue the names of what is new; without names, ask it to look."""
    text = b"".join(os.fsencode(key) + b"\n" for key in keys[:32])
    if not 0 < len(keys) <= 32 or len(text) > _ATOMIC:
        text = _LOOK
    with contextlib.suppress(OSError):
        for name in disk.names(layout.locks):
            if name.endswith(BELL):
                _ring_one(os.path.join(layout.locks, name), text)


def _ring_one(path: str, text: bytes) -> None:
    with contextlib.suppress(OSError):  # no process hears it (ENXIO), or it has been ringing for long (EAGAIN)
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
