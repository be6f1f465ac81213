"""What all measured senders share: the mails, and how time, CPU and memory are taken.

Only the standard library, since these modules run in the environments of other packages as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENDER, RECIPIENT, SUBJECT = "sender@example.org", "recipient@example.org", "Benchmark"
_LINE = "The quick brown fox jumps over the lazy dog, which sleeps on and dreams of it.\n"


def body(size: int) -> str:
    """Return a text of about so many bytes."""
    return _LINE * max(1, size // len(_LINE))


def text(number: int, size: int) -> bytes:
    """Return a whole message, whose number the relay can read."""
    head = f"From: {SENDER}\nTo: {RECIPIENT}\nSubject: {SUBJECT}\nX-Number: {number}\n\n"
    return (head + body(size)).encode()


def message(number: int, size: int) -> Any:
    """Return the same as an object."""
    from email.message import EmailMessage

    made = EmailMessage()
    made["From"], made["To"], made["Subject"], made["X-Number"] = SENDER, RECIPIENT, SUBJECT, str(number)
    made.set_payload(body(size))
    return made


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Do it, and return seconds, seconds of CPU of this process, and by how many bytes it grew at most."""
    _forget_peak()
    before, cpu, began = _status("VmRSS:"), time.process_time(), time.perf_counter()
    work()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu": used, "growth": float(max(0, _status("VmHWM:") - before))}


def _forget_peak() -> None:
    """Let the peak begin anew: a process starts with the greatest size that its parent ever had."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    return status(os.getpid(), name)


def status(pid: int, name: str) -> int:
    """Return what the system says of a process's memory, such as ``VmHWM:``, in bytes.

    :raises OSError: if it says nothing
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not say {name}")
