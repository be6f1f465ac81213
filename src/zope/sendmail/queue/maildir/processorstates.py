"""What the processors of a Maildir queue tell operators: a file for each, in ``processors/``.

A file is called like the owner file of its processor, whose lock says whether that processor lives.  Nothing depends
on these files: they are written as well as the disk allows, without fsync, and trouble with them harms no mail.

``processors/probe`` holds the relays that operators want to be tried now, each with the time of the request.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace

from zope.sendmail.lifecycle.relaystate import (
    ProcessorState,
    read_processor_state,
    write_processor_state,
)
from zope.sendmail.queue.maildir.layout import BELL, Layout
from zope.sendmail.queue.maildir.liveness import LocksFolder, Origin
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk, identity, remove_quietly
from zope.sendmail.system.forklock import ForkLock

#: The file with the relays that are to be tried.
_PROBE = "probe"

#: A file that is larger was not written by a processor.
_LARGEST = 1_000_000

#: Requests are forgotten after so many seconds: no pause of a relay is as long.
_REQUEST_LIFE = 3600.0


class ProcessorStateFiles:
    """The files in ``processors/``.  Concurrency: any thread and any process; the last writer of a file counts."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self._layout = layout
        self._disk = disk
        self._clock = clock
        self._mutex = ForkLock()
        #: The owner file of the processor that writes here, and what it took over from dead ones.
        self._absorbed: tuple[str, list[ProcessorState]] = ("", [])

    def write(self, owner: str, state: ProcessorState) -> None:
        """Replace the file of the processor whose owner file is called `owner`.

        The first time, what dead processors left is taken over into it.  Raises nothing: a disk that refuses keeps the
        former file.
        """
        with self._mutex, contextlib.suppress(OSError):
            dead: dict[str, ProcessorState] = {}
            if self._absorbed[0] != owner:
                dead = {name: each for name, each in self._read() if not each.alive and name != owner}
                self._absorbed = (owner, list(dead.values()))
            self._replace(owner, write_processor_state(state.absorb(self._absorbed[1])))
            remove_quietly(self._disk, *map(self._path, dead))
            if dead:
                self._sweep()

    def read(self) -> list[ProcessorState]:
        """Return what all processors told, each with whether it lives; nothing if that cannot be read."""
        with contextlib.suppress(OSError):
            return self.examine()
        return []

    def examine(self) -> list[ProcessorState]:
        """Do as `read`, but raise `OSError` for what cannot be read."""
        return [state for _, state in self._read()]

    def ask_probe(self, relay: str) -> None:
        """Ask every processor to try a relay now.  Raises `OSError` if the request cannot be written."""
        now = self._clock.time()
        asked = {name: at for name, at in self._requests().items() if now - at < _REQUEST_LIFE}
        with self._mutex:
            self._replace(_PROBE, json.dumps({**asked, relay: now}).encode("ascii") + b"\n")

    def probe_asked(self, relay: str) -> float:
        """Return when an operator asked last for a try of this relay, seconds since the epoch; 0.0 for never."""
        return self._requests().get(relay, 0.0)

    def _requests(self) -> dict[str, float]:
        with contextlib.suppress(OSError, ValueError, AttributeError, OverflowError, RecursionError):
            known = json.loads(self._text(_PROBE))
            return {str(name): float(at) for name, at in known.items() if isinstance(at, int | float)}
        return {}

    def _read(self) -> Iterator[tuple[str, ProcessorState]]:
        """Yield what each processor told, and of those that have told nothing yet that they live."""
        with contextlib.suppress(FileNotFoundError):
            names = {name for name in self._disk.names(self._layout.processors) if name[:1].isdigit()}
            owners = LocksFolder.at(self._layout, self._disk, self._clock.time())
            for name in sorted(names):
                with contextlib.suppress(FileNotFoundError):
                    state = read_processor_state(self._text(name))
                    if state is not None:
                        yield name, replace(state, alive=not state.ended and self._lives(name, owners.living))
            yield from self._silent(names, owners.processors)

    def _silent(self, told: set[str], processors: set[tuple[int, int]]) -> Iterator[tuple[str, ProcessorState]]:
        """Yield the living processors that wait for a first reply: their names have process and host."""
        for name in sorted(set(self._disk.names(self._layout.locks)) - told) if processors else ():
            origin = Origin.of(name)
            if origin is not None and not name.endswith(BELL) and self._lives(name, processors):
                yield name, ProcessorState(origin.pid, origin.host, started=origin.seconds, alive=True)

    def _lives(self, owner: str, living: set[tuple[int, int]]) -> bool:
        try:
            return identity(self._disk.stat(os.path.join(self._layout.locks, owner))) in living
        except FileNotFoundError:
            return False

    def _sweep(self) -> None:
        """Remove what processes left that died while they wrote."""
        for name in self._disk.names(self._layout.processors):
            path = self._path(name)
            if name.startswith(".") and self._clock.time() - self._disk.stat(path).st_mtime > _REQUEST_LIFE:
                self._disk.unlink(path)

    def _text(self, name: str) -> bytes:
        with self._disk.open(self._path(name)) as stream:
            return stream.read(_LARGEST)

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the former content or this one."""
        temporary = self._path(f".{name}")
        try:
            self._disk.create(temporary, content)
        except FileNotFoundError:
            self._disk.make_directory(self._layout.processors)
            self._disk.create(temporary, content)
        except FileExistsError:  # of a process that died here; two that ask for a probe at once do not harm each other
            self._disk.unlink(temporary)
            self._disk.create(temporary, content)
        try:
            self._disk.rename(temporary, self._path(name))
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.unlink(temporary)
            raise

    def _path(self, name: str) -> str:
        return os.path.join(self._layout.processors, name)
