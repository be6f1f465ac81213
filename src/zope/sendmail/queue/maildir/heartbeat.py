"""How processors of several hosts know of each other that they live, where file locks hold on one host only.

Some network file systems keep locks to the host that took them (NFS with ``local_lock``, some shares), so the free
lock of another host's owner file says nothing.  Its time stamp does: an owner touches its file every ten seconds.
Whether it has changed is judged by the clock of the process that looks, so no two clocks have to agree.

Containers on one machine have host names of their own, and one kernel: if that has the file system itself, it shows
each lock to all of them, so a free lock says that its owner is dead, whatever name the owner's host has.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from zope.sendmail.queue.maildir.ownertext import Identity
from zope.sendmail.system.disk import Disk, identity

#: Seconds between two beats; and seconds without one, by the clock of the process that looks, after which an owner is
#: dead: attributes of files may be a minute old over NFS.
BEAT, DEAD_AFTER = 10.0, 75.0

#: An owner whose file was touched longer ago than this, by the clock of the file system, is dead at first sight: a
#: program that runs for seconds, from cron, could not wait.
LONG_DEAD = 600.0


class Beating(Protocol):
    """What beats."""

    def beat(self) -> None:
        """Touch the file that shows others that this process lives.  Raises nothing."""


class Heart:
    """One thread that lets every owner of this process beat.  It ends when there is none.  Concurrency: any thread."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Be without a thread, as a forked child is; its parent's owners are not its own."""
        self._mutex = threading.Lock()
        self._all: weakref.WeakSet[Beating] = weakref.WeakSet()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, owner: Beating) -> None:
        """Let `owner` beat until it is discarded."""
        with self._mutex:
            self._all.add(owner)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="zope.sendmail.heartbeat", daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter shuts down, or the system is full
                    thread.start()
                    self._thread = thread

    def discard(self, owner: Beating) -> None:
        """End the beats of `owner`."""
        with self._mutex:
            self._all.discard(owner)

    def _run(self) -> None:
        while True:
            self._ended.wait(BEAT)
            if not self._beat():
                return

    def _beat(self) -> bool:
        """Let each owner beat; return False if there is none.  In the wait between two beats none is kept alive."""
        with self._mutex:
            owners = list(self._all)
            if not owners:
                self._thread = None
        for owner in owners:
            owner.beat()
        return bool(owners)


heart = Heart()
os.register_at_fork(after_in_child=heart.renew)


class OtherHosts:
    """What one process knows of the owners of other hosts.  Concurrency: any thread.

    :param disk: knows which file systems are this machine's own.
    :param monotonic: the clock of the process.
    :param now: the time by the clock of the file system.
    """

    def __init__(self, disk: Disk, monotonic: Callable[[], float], now: Callable[[], float]) -> None:
        self._disk = disk
        self._monotonic = monotonic
        self._now = now
        #: The time stamp of each owner file, and since when it is known.
        self._seen: dict[tuple[int, int], tuple[int, float]] = {}

    def may_live(self, text: bytes, status: os.stat_result) -> bool:
        """Return whether the owner of a file that is not locked may live all the same.

        :param text: how the file begins.
        :param status: of the file.
        """
        if not is_of_another_host(text, status) or shows_its_locks(self._disk, text, status):
            return False
        now = self._monotonic()
        stamp, since = self._seen.get(identity(status), (0, now))
        if stamp == status.st_mtime_ns:
            return now - since < DEAD_AFTER
        self._seen[identity(status)] = status.st_mtime_ns, now
        return self._now() - status.st_mtime < LONG_DEAD


def is_of_another_host(text: bytes, status: os.stat_result) -> bool:
    """Return whether a file is that of an owner on another host, or of one whose host has our name.

    One of our own host before it was started last is dead.
    """
    owner, here = Identity.of(text), Identity.here()
    if owner is None or owner == here:
        return False
    return owner.host != here.host or status.st_mtime > _booted()


def shows_its_locks(disk: Disk, text: bytes, status: os.stat_result) -> bool:
    """Return whether an owner's locks are seen from here: one kernel has both processes, and the file system itself.

    A file system of our own alone does not say so: this machine may export it (NFS), and a lock that a client has there
    is of another kind than ours.
    """
    owner, boot = Identity.of(text), Identity.here().boot
    return owner is not None and boot != b"" and owner.boot == boot and disk.is_local(status)


def seems_alive(disk: Disk, text: bytes, status: os.stat_result, now: float) -> bool:
    """Return whether the owner of a file that is not locked may live, as far as one look tells."""
    is_recent = abs(now - status.st_mtime) < LONG_DEAD
    return is_recent and is_of_another_host(text, status) and not shows_its_locks(disk, text, status)


def _booted() -> float:
    """Return when this machine was started, in seconds since the epoch; 0.0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/stat", "rb") as boot:
        return float(next((line.split()[1] for line in boot if line.startswith(b"btime ")), b"0"))
    return 0.0
