"""The process that drains a queue; runs with either release.

Its mailer sends nothing and remembers when it was called.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

from serve import serve

from zope.sendmail.queue import QueueProcessorThread


class Witness:
    """A mailer that only notes the time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._times: list[float] = []

    def send(self, fromaddr: str, toaddrs: list[str], message: bytes) -> None:
        """Note the time."""
        with self._changed:
            self._times.append(time.monotonic())
            self._changed.notify_all()

    def after(self, count: int, timeout: float) -> list[float]:
        """The times of all mails, as soon as there are `count`, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._times) >= count, timeout)
            return list(self._times)


_witness = Witness()
_processors: list[Any] = []
_opened: Counter[str] = Counter()


def start(queue: str, trace: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - an argument in JSON
    """Start a processor; say when that began."""
    if trace:
        tracemalloc.start()
    processor = QueueProcessorThread()
    processor.mailer = _witness
    began = time.monotonic()
    processor.setQueuePath(queue)
    processor.start()
    _processors.append(processor)
    return {"began": began}


def sent(count: int, timeout: float = 60.0) -> dict[str, Any]:
    """Wait until so many mails were handed over, or so many seconds; say when each was."""
    return {"times": _witness.after(count, timeout)}


def idle(seconds: float) -> dict[str, Any]:
    """What the waiting processor costs in so many seconds, CPU and files."""
    before, cpu = Counter(_opened), time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - cpu
    return {"cpu": cpu / seconds, "opened": dict(_opened - before)}


def watch() -> dict[str, Any]:
    """From now on count the files that are opened for reading; this cannot be undone."""

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or arguments[2] & os.O_ACCMODE != os.O_RDONLY:  # what it tells operators is written
            return
        if isinstance(arguments[0], str) and not os.path.isdir(arguments[0]):
            _opened[os.path.basename(os.path.dirname(arguments[0]))] += 1

    sys.addaudithook(count)
    return {}


def looks(count: int) -> dict[str, Any]:
    """CPU of a look at a queue in which nothing has changed: what this release's processor does each time."""
    queue = _processors[0].queue
    costs = []
    for _ in range(count):
        began = time.thread_time()
        queue.claim(1)
        queue.next_due()
        costs.append(time.thread_time() - began)
    return {"median": statistics.median(costs), "worst": max(costs)}


def memory() -> dict[str, Any]:
    """Bytes in use now: of the process, and of Python objects if they are traced."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            resident = int(line.split()[1]) * 1024
    traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    return {"resident": resident, "traced": traced}


def stop() -> dict[str, Any]:
    """Stop the processor."""
    for processor in _processors:
        processor.stop()
    return {}


if __name__ == "__main__":
    serve({"start": start, "sent": sent, "idle": idle, "watch": watch, "looks": looks, "memory": memory, "stop": stop})
