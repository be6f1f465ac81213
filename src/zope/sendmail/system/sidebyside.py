"""Steps that wait for something each, and need not wait for one another.

Concurrency: any thread; the steps are done by several at the same time.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable

#: Threads at most.
_MOST = 20


def side_by_side(steps: Iterable[Callable[[], object]]) -> None:
    """Do all steps, some of them in threads of their own, and return when all have ended.

    Where the system has no more threads, or Python ends, the caller does all by itself.

    :param steps: may be done in any order, and raise nothing
    """
    waiting = deque(steps)

    def work() -> None:
        while True:
            try:
                step = waiting.popleft()
            except IndexError:  # another thread was faster, or all is done
                return
            step()

    threads = []
    with contextlib.suppress(RuntimeError):
        for _ in range(min(len(waiting), _MOST) - 1):
            thread = threading.Thread(target=work, name="zope.sendmail-beside", daemon=True)
            thread.start()
            threads.append(thread)
    work()
    for thread in threads:
        thread.join()
