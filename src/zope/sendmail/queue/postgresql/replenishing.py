"""A thread that claims ahead while workers send what is reserved.

A claim waits for the server's disk, so none of the conversations of a processor should make it: a thread may carry all
of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Seconds after which an idle thread ends.
_IDLE = 1.0


class Replenisher:
    """See the module.  Concurrency: any thread.

    :param claim: claims; raises nothing.
    """

    def __init__(self, claim: Callable[[], object]) -> None:
        self._claim = claim
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_asked = self._is_closed = False

    def ask(self) -> None:
        """Let it claim soon; without a thread it claims at once."""
        with self._changed:
            if self._is_asked or self._is_closed:
                return
            self._is_asked = True
            self._changed.notify()
            if self._thread is not None or self._starts():
                return
            self._is_asked = False
        self._claim()

    def _starts(self) -> bool:
        """Return whether the system has a thread for it."""
        self._thread = threading.Thread(target=self._run, name="zope.sendmail.postgresql.claim", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_asked or self._is_closed, _IDLE)
                if self._is_closed or not self._is_asked:
                    self._thread = None
                    return
                self._is_asked = False
            self._claim()

    def close(self) -> None:
        """Claim nothing more; returns when what is under way has ended."""
        with self._changed:
            self._is_closed, thread = True, self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
