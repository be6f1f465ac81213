"""The suppression list of a Maildir queue: the file ``suppressed/list``, which is appended to, and its table in memory.

A line is a JSON array: an address, a reason, since and until when, in seconds since the epoch; or an address alone,
which takes it off the list.  The last line about an address counts; a torn one is left out.  A writer has
``suppressed/lock`` locked.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import ISuppressions
from zope.sendmail.lifecycle.suppression import Suppression, SuppressionTable, normalized
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk, identity, remove_quietly
from zope.sendmail.system.forklock import ForkLock

#: Seconds for which what is in memory is believed.
_EVERY = 1.0

#: Seconds for which a writer waits for another one.
_PATIENCE = 30.0

#: A file of so many lines, and of so many times more than there are entries, is written anew.
_LONG, _FACTOR = 1000, 3


@implementer(ISuppressions)
class MaildirSuppressions:
    """See `ISuppressions`.

    :param make: makes the directory of the queue.
    """

    def __init__(self, layout: Layout, disk: Disk, clock: Clock, make: Callable[[], object]) -> None:
        self._make = make
        self._directory = layout.suppressed
        self._path = os.path.join(self._directory, "list")
        self._lock = os.path.join(self._directory, "lock")
        self._root = layout.root
        self._disk = disk
        self._clock = clock
        self._mutex = ForkLock()
        self._table = SuppressionTable()
        self._next = float("-inf")
        #: The file that is in the table, up to which byte, and how many lines that are.
        self._file: tuple[int, int] | None = None
        self._end = self._lines = 0

    def among(self, recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """See `ISuppressions.among`."""
        if self._clock.monotonic() >= self._next:
            self._refresh()
        return self._table.among(recipients, self._clock.time())

    def add(self, *entries: Suppression) -> None:
        """See `ISuppressions.add`."""
        self._write([_line(each) for each in entries])

    def remove(self, *addresses: str) -> int:
        """See `ISuppressions.remove`."""
        self._refresh()
        present = [each for each in map(normalized, addresses) if self._table.get(each) is not None]
        self._write([_encoded([each]) for each in dict.fromkeys(present)])
        return len(set(present))

    def entries(self) -> Sequence[Suppression]:
        """See `ISuppressions.entries`."""
        self._refresh()
        with self._mutex:
            return self._table.entries(self._clock.time())

    # reading

    def _refresh(self) -> None:
        """Bring the table up to date; until that is done, and if it fails, it says what it said.

        What is asked behind a failure reads the file again: a list that cannot be read is not an empty one.
        """
        with self._mutex:
            try:
                status = self._disk.stat(self._path)
            except (FileNotFoundError, NotADirectoryError):
                self._file, self._table, self._end, self._lines = None, SuppressionTable(), 0, 0
            else:
                if self._file != identity(status) or status.st_size < self._end:
                    table = SuppressionTable()
                    self._end, self._lines = self._read(table, 0)
                    self._file, self._table = identity(status), table
                elif status.st_size > self._end:
                    end, lines = self._read(self._table, self._end)
                    self._end, self._lines = end, self._lines + lines
            self._next = self._clock.monotonic() + _EVERY

    def _read(self, table: SuppressionTable, begin: int) -> tuple[int, int]:
        """Do what the whole lines from `begin` on say; return where they end, and how many they are."""
        with self._disk.open(self._path) as stream:
            stream.seek(begin)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.splitlines()
        for line in lines:
            _heed(line, table)
        return begin + len(whole), len(lines)

    # writing

    def _write(self, lines: Sequence[bytes]) -> None:
        """Append lines, durably."""
        if not lines:
            return
        with self._locked():
            # A line feed first: a death may have left a line without its end.
            self._disk.append(self._path, b"\n", *lines)
            self._disk.sync_file(self._path)
            self._disk.sync_directory(self._directory)
            self._refresh()
            if self._lines > _LONG + _FACTOR * len(self._table):
                with contextlib.suppress(OSError):  # then it stays long; what was added is there
                    self._compact()

    def _compact(self) -> None:
        """Put a file without what does not count any more in the place of the file."""
        shorter = self._path + ".new"
        remove_quietly(self._disk, shorter)
        self._disk.create(shorter, *map(_line, self._table.entries(self._clock.time())))
        self._disk.sync_file(shorter)
        self._disk.rename(shorter, self._path)
        self._disk.sync_directory(self._directory)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Write alone, among all processes of this host."""
        self._make()
        if self._disk.make_directory(self._directory):
            self._disk.sync_directory(self._root)
        with contextlib.suppress(FileExistsError):
            self._disk.create(self._lock)
        deadline = self._clock.monotonic() + _PATIENCE
        while True:
            with self._disk.locked(self._lock) as fd:
                if fd is not None:
                    yield
                    return
            if self._clock.monotonic() >= deadline:
                raise QueueError(f"another process has been writing {self._path} for {_PATIENCE:.0f} s; try again")
            self._clock.sleep(0.01)


def _line(entry: Suppression) -> bytes:
    return _encoded([entry.address, entry.reason, entry.since, entry.until if entry.until < inf else None])


def _encoded(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def _heed(line: bytes, table: SuppressionTable) -> None:
    """Do what a line says; a torn or foreign one is left out."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
        address, *rest = json.loads(line)
        if not isinstance(address, str):
            return
        if not rest:
            table.drop(address)
            return
        reason, since, until = rest
        table.put(Suppression(address, str(reason), float(since), inf if until is None else float(until)))
