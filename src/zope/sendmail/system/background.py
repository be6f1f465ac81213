"""Work that others need not wait for: a thread that gives way to every other one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable

#: Of 19: a program beside it gets nine tenths, and it goes on all the same, so that it holds up no thread of its own
#: process for long that needs the interpreter.
_NICENESS = 10


def start_in_background(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread that does `work`.

    On Linux, where a thread has a priority of its own, it gives way to whatever else is to be computed.
    """
    thread = threading.Thread(target=_give_way, args=(work,), name=name, daemon=True)
    thread.start()
    return thread


def _give_way(work: Callable[[], object]) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    work()
