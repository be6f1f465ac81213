"""A processor in a process of its own that is killed, stopped and cut off: ``python -m ... URL FILE THREADS``.

The relay is a file: what is appended to it is accepted, once for each line.  A line has the name of the mail, and how
often its record says by then that nobody knows whether a relay has it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections import deque

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import Schedule, judge
from zope.sendmail.queue.postgresql.lease import PostgreSQLLease
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.system.clock import Clock

_OK = Reply(Answer.ACCEPTED, "ok", 250)

#: So many are claimed together; of those that are left so many go soon.
_TOGETHER, _SOON = 12, 8


def main(url: str, path: str, threads: str) -> None:
    """Send until killed."""
    schedule = Schedule(first=0.5)
    queue = PostgreSQLQueue(url, schedule=schedule)
    relay = os.open(path, os.O_WRONLY | os.O_APPEND)
    for _ in range(int(threads) - 1):
        threading.Thread(target=work, args=(queue, schedule, relay), daemon=True).start()
    work(queue, schedule, relay)


def work(queue: PostgreSQLQueue, schedule: Schedule, relay: int) -> None:
    """One worker."""
    while True:
        try:
            some(queue, schedule, relay)
        except QueueError:
            Clock().sleep(0.2)


def some(queue: PostgreSQLQueue, schedule: Schedule, relay: int) -> None:
    """Send a few mails that are claimed together, as a worker whose relay is fast does; or wait for one."""
    leases = deque(queue.claim(_TOGETHER, ahead=16))
    if not leases:
        queue.wait(0.2)
    try:
        while leases:
            for each in itertools.islice(leases, _SOON):
                each.soon()
            one(leases.popleft(), schedule, relay)
    finally:
        for lease in leases:
            lease.release()


def one(lease: PostgreSQLLease, schedule: Schedule, relay: int) -> None:
    """Send one mail; remove one that another worker had sent before it died."""
    if not lease.envelope.recipients:
        lease.settle(lease.record)
        return
    try:
        if lease.text is None:
            lease.open().read()
        lease.intend()
    except (LeaseLost, QueueError):
        lease.release()
        return
    os.write(relay, f"{lease.name} {lease.record.unknowns} {os.getpid()}\n".encode())
    outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, _OK))
    record = judge(lease.record, lease.envelope, outcome, schedule, now=Clock().time(), chance=0.5)
    lease.settle(record)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
