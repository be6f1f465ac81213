"""A process of its own for tests: ``python -m zope.sendmail.tests.support.worker drain|commit QUEUE ...``.

Stands for one of several processes that share a queue.  Writes what it knows to standard output, a line each.
"""

from __future__ import annotations

import logging
import signal
import sys

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread


def commit(path: str, prefix: str, count: int, group: int) -> None:
    """Commit `count` mails, `group` in a transaction."""
    delivery = QueuedMailDelivery(path)
    for number in range(count):
        delivery.send(
            "sender@example.org",
            [f"{prefix}-{number}@example.org"],
            f"From: sender@example.org\nSubject: {prefix} {number}\n\nText\n",
        )
        if (number + 1) % group == 0:
            transaction.commit()
    transaction.commit()


def drain(path: str, port: int, concurrency: int | None = None, interval: int = 1) -> None:
    """Drain the queue until SIGTERM; `interval` is in seconds."""
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
    schedule = Schedule(first=0.5, maximum=1.0)
    processor = QueueProcessorThread(interval=float(interval), schedule=schedule, concurrency=concurrency)
    processor.setQueuePath(path)
    processor.setMailer(SMTPMailer(hostname="127.0.0.1", port=port))
    signal.signal(signal.SIGTERM, lambda *_: processor.stop())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    processor.run()


if __name__ == "__main__":
    if sys.argv[1] == "commit":
        commit(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        drain(sys.argv[2], *map(int, sys.argv[3:]))
