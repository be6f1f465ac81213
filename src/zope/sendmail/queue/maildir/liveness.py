"""Which of the processes behind a Maildir queue live.

Owner files tell it of processors: the kernel keeps their locks.  Names tell it of those who stage mail: they carry
time, process and host.  Changes nothing; the lock of a dead owner is held for the moment of the test only.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir.heartbeat import seems_alive
from zope.sendmail.queue.maildir.layout import BELL, RESERVE, Layout
from zope.sendmail.queue.maildir.ownertext import SLOT, phase_of
from zope.sendmail.system.disk import Disk, identity

#: A process may be a little older than /proc says, clocks are corrected, and an owner file is made in less.
_SLACK = 60.0


class Liveness(StrEnum):
    """What is known about the process that made a file."""

    ALIVE = "alive"
    DEAD = "dead"
    #: It was on another host, which cannot be asked.
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Origin:
    """When, by which process and on which host a name was made."""

    seconds: float
    pid: int
    host: str

    @classmethod
    def of(cls, name: str) -> Origin | None:
        """Return what ``<seconds>.<pid>.<host>.<digits>`` says; None for other names."""
        seconds, _, rest = name.partition(".")
        pid, _, rest = rest.partition(".")
        host = rest.rpartition(".")[0]
        if not (host and _is_number(seconds) and _is_number(pid)):
            return None
        return cls(float(seconds), int(pid), host)

    @property
    def liveness(self) -> Liveness:
        """Whether the process lives, as far as its number tells; only those of this host can be asked."""
        if self.host != _here():
            return Liveness.ELSEWHERE
        return Liveness.ALIVE if _is_running(self.pid, self.seconds) else Liveness.DEAD


@dataclass(frozen=True, slots=True)
class LocksFolder:
    """What lies in ``locks/``."""

    #: Device and inode of the owner files of living processes.
    living: set[tuple[int, int]] = field(default_factory=set)
    #: Those of processors: they have a bell.  Operators, consoles and direct deliveries have an owner file only.
    processors: set[tuple[int, int]] = field(default_factory=set)
    #: Names of owner files of dead ones.
    dead: list[str] = field(default_factory=list)
    #: Further names of these, and other things that a death left.
    left: list[str] = field(default_factory=list)
    #: What no processor makes.
    foreign: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, layout: Layout, disk: Disk, now: float) -> LocksFolder:
        """Look."""
        owners = cls()
        seen: set[tuple[int, int]] = set()
        every = (name for name in disk.names(layout.locks) if not name.startswith(RESERVE))
        names = sorted(every, key=len)  # an owner file has a shorter name than what belongs to it
        bells = {name for name in names if name.endswith(BELL)}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if name.endswith(BELL):
                    owners._add_bell(name, layout, disk)
                elif not _is_in_the_making(name, layout, disk, now):
                    inode = owners._add(name, os.path.join(layout.locks, name), disk, seen, now)
                    if inode in owners.living and name + BELL in bells:
                        owners.processors.add(inode)
        return owners

    def _add(self, name: str, path: str, disk: Disk, seen: set[tuple[int, int]], now: float) -> tuple[int, int]:
        status = disk.stat(path)
        inode = identity(status)
        if not stat.S_ISREG(status.st_mode):
            self.foreign.append(name)
        elif inode in seen:
            self.left.append(name)
        elif inode not in self.living:
            with disk.locked(path) as fd:
                if fd is None:
                    self.living.add(inode)
                    return inode
                header = os.pread(fd, SLOT, 0)
                if seems_alive(disk, header, os.fstat(fd), now):
                    self.living.add(inode)
                    return inode
            seen.add(inode)
            if name.startswith("."):
                self.left.append(name)
            else:
                (self.foreign if phase_of(header, "") is None else self.dead).append(name)
        return inode

    def _add_bell(self, name: str, layout: Layout, disk: Disk) -> None:
        """Note a trigger, which goes with its owner."""
        try:
            disk.stat(os.path.join(layout.locks, name.removesuffix(BELL)))
        except FileNotFoundError:
            disk.stat(os.path.join(layout.locks, name))
            self.left.append(name)


def _here() -> str:
    """Return the name of this host, as names of files have it."""
    own = Origin.of(unique_name())
    return own.host if own else ""


def _is_in_the_making(name: str, layout: Layout, disk: Disk, now: float) -> bool:
    """Return whether a process may be about to lock this file for the first time: no process must be faster."""
    return name.startswith(".") and now - disk.stat(os.path.join(layout.locks, name)).st_mtime < _SLACK


def _is_running(pid: int, since: float) -> bool:
    """Return whether there is a process with this number, and it was there at that time."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another's
        pass
    return all(started <= since + _SLACK for started in _started(pid))


def _started(pid: int) -> Iterator[float]:
    """Yield when a process started, where /proc tells it (Linux): numbers are given again, above all after a reboot."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/stat", "rb") as boot:
        [since] = [float(line.split()[1]) for line in boot if line.startswith(b"btime ")]
        with open(f"/proc/{pid}/stat", "rb") as process:
            ticks = int(process.read().rpartition(b")")[2].split()[19])
        yield since + ticks / os.sysconf("SC_CLK_TCK")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
