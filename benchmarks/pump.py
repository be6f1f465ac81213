"""The process that drains a queue; runs with either release, with default settings."""

from __future__ import annotations

import os
import time
from typing import Any

import transaction
from committer import RECIPIENT, SENDER, text_of
from serve import serve

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.queue import QueueProcessorThread


def drain(  # noqa: PLR0917 - arguments in JSON
    queue: str, mails: int, port: int, size: int, cafile: str = "", beside: int = 0, *, login: bool = False
) -> dict[str, Any]:
    """Send so many mails to the relay at `port`; what it took does not count the way in, `commit.py` does that.

    `beside` are mails in the queue that are not due.
    """
    delivery = QueuedMailDelivery(queue)
    for _ in range(mails):
        delivery.send(SENDER, [RECIPIENT], text_of(size))
    transaction.commit()
    while _waiting(queue) < beside + mails:  # this release makes the files of a large transaction behind the commit
        time.sleep(0.05)
    mailer = (
        SMTPMailer("127.0.0.1", port, username="name", password="secret") if login else SMTPMailer("127.0.0.1", port)
    )
    if login and hasattr(SMTPMailer, "cafile"):
        mailer.cafile = cafile  # ours verifies to whom it tells a password; the other one does not
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(mailer)
    cpu, began = time.process_time(), time.perf_counter()
    processor.run(forever=False)
    answer = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    return answer | {"left": _waiting(queue) - beside}


def newsletter(queue: str, mails: int, port: int, size: int) -> dict[str, Any]:
    """Send so many mails in one transaction, from the first ``send()`` until the relay has taken the last one.

    One mail more, in a transaction before, makes the queue and is sent untimed.
    """
    delivery, text = QueuedMailDelivery(queue), text_of(size)
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    delivery.send(SENDER, [RECIPIENT], text)
    transaction.commit()
    processor.run(forever=False)
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(mails):
        delivery.send(SENDER, [RECIPIENT], text)
    transaction.commit()
    committed = time.perf_counter() - began
    processor.run(forever=False)
    answer = {"seconds": time.perf_counter() - began, "committed": committed, "cpu": time.process_time() - cpu}
    return answer | {"left": _waiting(queue)}


def _waiting(queue: str) -> int:
    """How many mails are files in ``new/``."""
    return len([name for name in os.listdir(os.path.join(queue, "new")) if name[0] != "."])


if __name__ == "__main__":
    serve({"drain": drain, "newsletter": newsletter})
