"""Removes sent messages, and lets the disk free their space beside the way where that takes long.

A file system that tells its disk at once what is free (mount option ``discard``) waits up to a millisecond for each
file.  Only the space has to wait: the name is gone at once where the file is held open.  As long as a disk is quick,
or there are few, the space is freed on the spot; else a thread does it for many files with one call
(`zope.sendmail.system.batchclose`), and more of them where one falls behind: that is counted, and not timed, since on a
busy machine everything takes long.  Where other threads of the process are busy it is freed on the spot as well: they
would wait longer for the interpreter, which a disk that lets the worker wait leaves to them.  A death frees the space
too.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from zope.sendmail.queue.maildir.bystanders import Bystanders
from zope.sendmail.system.batchclose import BatchClose
from zope.sendmail.system.clock import Clock

#: Removes a message; returns its key, or None if it could not.  May hold the file open, and then adds it to the list.
Removal = Callable[[list[int] | None], str | None]

#: Seconds that it usually takes to remove a message, lock and all, from which on a disk is slow; and to free the space
#: of one by itself, from which on it stays slow.  To hold a file, and close it with others, takes some microseconds.
_REMOVING, _CLOSING = 0.00006, 0.00002

#: So many files are worth a thread on a slow disk, or so many seconds that fewer take together: not one of half a
#: millisecond, as they come from a relay that is far, for which waking a thread costs more than is gained.
_FEW, _LONG = 4, 0.0016

#: Threads at most, and files that they have to do with at most; a worker that brings more frees their space itself.
_THREADS, _MOST = 8, 512

#: Files for each thread before there is a further one: as many as a worker brings.
_PER_THREAD = 16

#: Seconds after which a thread without work ends.
_IDLE = 1.0

#: How much the newest file counts for what is usual.
_WEIGHT = 1 / 16


class Sweeper:
    """Removes what it is given.

    :param removed: told the keys of what is gone
    :param freed: called when the space of some of it is free that was not at once

    Concurrency: any thread.
    """

    def __init__(self, clock: Clock, removed: Callable[[Sequence[str]], None], freed: Callable[[], None]) -> None:
        self._clock = clock
        self._removed = removed
        self._freed = freed
        self._waiting: deque[BatchClose] = deque()
        self._under_way: set[BatchClose] = set()
        self._bystanders = Bystanders(clock)
        self.forget_after_fork()

    def forget_after_fork(self) -> None:
        """Begin anew in a forked child: the space is its parent's, and free when the child does not hold it either."""
        for batch in (*self._waiting, *self._under_way):
            batch.close()
        self._bystanders.forget_after_fork()
        self._mutex = threading.Lock()
        #: Told that there is something to do, and that everything was done: of the one a single thread is told.
        self._has_work, self._is_done = threading.Condition(self._mutex), threading.Condition(self._mutex)
        self._waiting.clear()
        self._under_way.clear()
        #: Files that wait, or whose space is being freed by a thread.
        self._files = 0
        self._threads = 0
        #: Seconds that one file usually takes, and whether that is its space by itself, since the disk is slow.
        self._usual, self._is_slow = 0.0, False
        #: Whether a name is gone as long as its file is held open.  NFS gives it another one, which is no use.
        self._may_hold = True

    def take(self, removals: Sequence[Removal]) -> None:
        """Remove these now; their space may be free a little later."""
        self._bystanders.note()
        are_many = len(removals) >= _FEW or len(removals) * self._usual >= _LONG
        if self._may_hold and self._is_slow and are_many and not self._bystanders.are_busy:
            held: list[int] = []
            try:
                keys = _keys(removals, held)
            finally:
                self._free(held)
        else:
            began = self._clock.monotonic()
            keys = _keys(removals, None)
            if not self._is_slow:
                self._note(len(removals), self._clock.monotonic() - began)
                self._is_slow = self._usual >= _REMOVING
        if keys:
            self._removed(keys)

    def flush(self) -> None:
        """Return when all space is free; help with it."""
        while batch := self._next():
            self._close(batch)
        with self._mutex:
            self._is_done.wait_for(lambda: not self._under_way and not self._waiting)

    def _free(self, held: Sequence[int]) -> None:
        if not held:
            return
        self._may_hold = os.fstat(held[0]).st_nlink == 0
        batch = BatchClose(held)
        if not self._may_hold or not self._leave(batch):
            self._close_timed(batch)

    def _note(self, files: int, seconds: float) -> None:
        """Take note how long so many files have taken together."""
        self._usual += (seconds / files - self._usual) * min(1.0, _WEIGHT * files)

    def _leave(self, batch: BatchClose) -> bool:
        """Leave files to threads; return False if there are none, or they have too much to do."""
        with self._mutex:
            if self._files >= _MOST:
                return False
            wanted = min(_THREADS, self._files // _PER_THREAD + 1)
            begins = self._threads < wanted
            self._threads += begins
            if begins and not self._begin() and not self._threads:
                return False
            self._waiting.append(batch)
            self._files += batch.count
            self._has_work.notify()
        return True

    def _begin(self) -> bool:
        try:
            threading.Thread(target=self._run, name="zope.sendmail.sweeper", daemon=True).start()
        except RuntimeError:  # the system has none, or Python ends
            self._threads -= 1
            return False
        return True

    def _run(self) -> None:
        try:
            while self._is_wanted():
                self._bystanders.note()
                if batch := self._next():  # pragma: no branch - else another thread was faster
                    self._close(batch)
        except BaseException:
            with self._mutex:
                self._threads -= 1
            raise

    def _is_wanted(self) -> bool:
        """Return True when there is something to do; if nothing comes for a while, False, and count a thread less."""
        with self._mutex:
            if self._has_work.wait_for(lambda: bool(self._waiting), _IDLE):
                return True
            self._threads -= 1
            return False

    def _next(self) -> BatchClose | None:
        with self._mutex:
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._under_way.add(batch)
        return batch

    def _close(self, batch: BatchClose) -> None:
        try:
            self._close_timed(batch)
        finally:
            with self._mutex:
                self._under_way.discard(batch)
                self._files -= batch.count
                if not self._under_way and not self._waiting:
                    self._is_done.notify_all()

    def _close_timed(self, batch: BatchClose) -> None:
        began = self._clock.monotonic()
        batch.close()
        self._freed()
        self._note(batch.count, self._clock.monotonic() - began)
        self._is_slow = self._usual >= _CLOSING


def _keys(removals: Sequence[Removal], held: list[int] | None) -> list[str]:
    return [key for remove in removals if (key := remove(held)) is not None]
