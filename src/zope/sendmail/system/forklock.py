"""A mutex for what a forked child goes on to use: mailers, tokens, readers.

Fork copies a lock as it is: held, if another thread of the parent holds it, which is not there in the child to
let go.
"""

from __future__ import annotations

import os
import threading
import weakref


class ForkLock:
    """One thread at a time, for a ``with`` block.  A forked child finds it free, whatever thread held it in the parent.

    What it guards must bear that: its holder in the parent may have been in the middle of a change.
    """

    def __init__(self) -> None:
        self.renew()
        _all.add(self)

    def renew(self) -> None:
        """Be free, in a forked child."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


_all: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _after_fork() -> None:
    for mutex in list(_all):
        mutex.renew()


os.register_at_fork(after_in_child=_after_fork)
