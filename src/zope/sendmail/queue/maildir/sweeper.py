"""Removes sent messages beside the way, where the disk lets one wait for it.

A file system that tells its disk at once what is free (mount option ``discard``) takes up to a millisecond to remove a
file.  As long as that is quick, or there are few, it is done on the spot; else a thread does it, and more of them where
one falls behind: that is counted, and not timed, since on a busy machine everything takes long.  Where other threads of
the process are busy it is done on the spot as well: they would wait longer for the interpreter.  What is not removed
yet is locked, and its slot says *accepted*: a death costs nothing but the rest of the removal.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from zope.sendmail.queue.maildir.bystanders import Bystanders
from zope.sendmail.system.clock import Clock

#: Removes a message; returns its key, or None if it could not.
Removal = Callable[[], str | None]

#: Seconds that the removals of a worker take together from which on they are done beside the way: sixteen of a tenth of
#: a millisecond, but not one of half a millisecond, for which waking a thread costs more than is gained.
_SLOW = 0.0016

#: Threads at most, and messages that wait for them at most; a worker that brings more removes them itself.
_THREADS, _MOST = 8, 512

#: Messages that wait for each thread before there is a further one: each asks for the interpreter thrice a message.
_PER_THREAD = 48

#: Seconds after which a thread without work ends.
_IDLE = 1.0

#: So many removals a thread takes at a time: as many as a worker brings.
_AT_A_TIME = 16

#: How much the newest removal counts for what is usual.
_WEIGHT = 1 / 16


class Sweeper:
    """Removes what it is given.

    :param removed: told the keys of what is gone

    Concurrency: any thread.
    """

    def __init__(self, clock: Clock, removed: Callable[[Sequence[str]], None]) -> None:
        self._clock = clock
        self._removed = removed
        self._bystanders = Bystanders(clock)
        self.forget_after_fork()

    def forget_after_fork(self) -> None:
        """Begin anew in a forked child: what waits is its parent's."""
        self._bystanders.forget_after_fork()
        self._mutex = threading.Lock()
        #: Told that there is something to do, and that everything was done: of the one a single thread is told.
        self._has_work, self._is_done = threading.Condition(self._mutex), threading.Condition(self._mutex)
        self._waiting: deque[Removal] = deque()
        self._under_way = 0
        self._threads = 0
        self._usual = 0.0

    def take(self, removals: Sequence[Removal]) -> None:
        """Remove these soon, or now."""
        self._bystanders.note()
        if self._bystanders.are_busy or len(removals) * self._usual < _SLOW or not self._leave(removals):
            self._sweep(removals)

    def flush(self) -> None:
        """Return when all that was taken is removed; help with it."""
        while removals := self._next(_AT_A_TIME):
            self._sweep_counted(removals)
        with self._mutex:
            self._is_done.wait_for(lambda: not self._under_way and not self._waiting)

    def _leave(self, removals: Sequence[Removal]) -> bool:
        """Leave them to threads; return False if there are none, or they have too much to do."""
        with self._mutex:
            if len(self._waiting) >= _MOST:
                return False
            wanted = min(_THREADS, len(self._waiting) // _PER_THREAD + 1)
            begins = self._threads < wanted
            self._threads += begins
            if begins and not self._begin() and not self._threads:
                return False
            self._waiting.extend(removals)
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
                self._sweep_counted(self._next(_AT_A_TIME))
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

    def _next(self, limit: int) -> list[Removal]:
        with self._mutex:
            removals = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            self._under_way += len(removals)
        return removals

    def _sweep_counted(self, removals: list[Removal]) -> None:
        try:
            if removals:  # else another thread was faster
                self._sweep(removals)
        finally:
            with self._mutex:
                self._under_way -= len(removals)
                if not self._under_way and not self._waiting:
                    self._is_done.notify_all()

    def _sweep(self, removals: Sequence[Removal]) -> None:
        began = self._clock.monotonic()
        keys = [key for remove in removals if (key := remove()) is not None]
        took = (self._clock.monotonic() - began) / len(removals)
        self._usual += (took - self._usual) * min(1.0, _WEIGHT * len(removals))
        if keys:
            self._removed(keys)
