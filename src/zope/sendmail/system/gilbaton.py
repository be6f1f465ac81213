"""Which one has the interpreter to itself among the conversations of a process.

CPython runs one thread at a time, and each short system call lets another one in.  A mail needs a dozen such calls, so
conversations that all have something to do hand the interpreter over a dozen times for each mail, which costs more than
the mail.  So a conversation that has heard its relay takes the baton, and puts it down before it waits for the relay
again (``docs/explanation/decisions/relays.rst``).  It is a courtesy and no lock: a thread that does not get it soon
goes on without.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

#: Seconds for which the baton is waited for: twenty others have their turn in less, and the one that has it may be held
#: up by a disk, or by foreign code.
PATIENCE = 0.02

#: Whether threads have to hand one interpreter to one another; not in a Python without that lock.
IS_NEEDED: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class GilBaton:
    """See the module.  Concurrency: any thread; only those within `running` ever have it."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self.renew()

    def renew(self) -> None:
        """Be free, in a forked child: the thread that had it is in the parent."""
        self._mutex = threading.Lock()
        self._runner = threading.local()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let this thread take part until the end of the block; it has put the baton down then."""
        self._runner.holds = False if IS_NEEDED else None
        try:
            yield
        finally:
            self.put_down()
            self._runner.holds = None

    def take(self) -> None:
        """Go on: with the baton, or after a while without it."""
        if getattr(self._runner, "holds", None) is False:
            self._runner.holds = self._mutex.acquire(timeout=self._patience)

    def put_down(self) -> None:
        """Said before anything that may take long; does nothing if this thread does not have it."""
        if getattr(self._runner, "holds", None):
            self._runner.holds = False
            self._mutex.release()


#: There is one interpreter in a process.
baton = GilBaton()

os.register_at_fork(after_in_child=baton.renew)
