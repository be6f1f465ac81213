"""The process that drains a queue; runs with either release, with default settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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


def fill(queue: str, mails: int, size: int) -> dict[str, Any]:
    """Write so many mails as single files, with two lines of envelope, which both releases read."""
    for name in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(queue, name), mode=0o700, exist_ok=True)
    head = f"X-Zope-From: {SENDER}\nX-Zope-To: {RECIPIENT}\n".encode()
    for number in range(mails):
        path = os.path.join(queue, "new", f"{int(time.time())}.{os.getpid()}.relay.{number:08}")
        with open(path, "wb") as stream:
            stream.write(head + text_of(size))
    return {}


def drain_in(queue: str, port: int, processes: int) -> dict[str, Any]:
    """Send what is in the queue, in so many processes, as ``zope-sendmail --processes`` of this release does."""
    cpu, began, died = _cpu(), time.monotonic(), False
    try:
        if processes == 1:
            _processor(queue, port).run(forever=False)
        else:
            _supervise(queue, port, processes)
    except FileNotFoundError:  # the other release does not expect that another process was faster
        died = True
    return {"began": began, "cpu": _cpu() - cpu, "died": died}


def _supervise(queue: str, port: int, processes: int) -> None:
    from zope.sendmail.cli.processes import Report, Supervisor

    def work(share: int) -> Report:
        processor = _processor(queue, port)
        processor.queue.prefer(share, processes)
        processor.run(forever=False)
        return Report(processor.tally, processor.fault)

    Supervisor(work, processes, forever=False).run()


def _processor(queue: str, port: int) -> Any:
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    return processor


def _cpu() -> float:
    """Seconds of a processor that this process and its children have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


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


def beside(queue: str, mails: int, port: int, size: int, seconds: float) -> dict[str, Any]:
    """Serve requests in this thread, alone and beside a processor that drains a queue; rates a second."""
    delivery, text = QueuedMailDelivery(queue), text_of(size)
    for _ in range(mails):  # each in a transaction of its own would take long; they become files before it begins
        delivery.send(SENDER, [RECIPIENT], text)
    transaction.commit()
    while _waiting(queue) < mails:
        time.sleep(0.05)
    alone_until = time.perf_counter() + seconds
    alone = _serve_requests(lambda: time.perf_counter() < alone_until and _waiting(queue) > 0)  # which takes its time
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    processor.start()
    until = time.perf_counter() + seconds
    working = _serve_requests(lambda: time.perf_counter() < until and _waiting(queue) > 0)
    left = _waiting(queue)
    processor.stop()
    processor.join()
    return {"alone": alone["rate"], "beside": working["rate"], "mails": (mails - left) / working["seconds"]}


def _serve_requests(goes_on: Callable[[], bool]) -> dict[str, float]:
    """Serve requests as long as `goes_on`, which is asked every tenth of a second; return their rate."""
    count, began = 0, time.perf_counter()
    while goes_on():
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            _request()
            count += 1
    took = time.perf_counter() - began
    return {"rate": count / took, "seconds": took}


def _request() -> int:
    """Do what a small page does: some milliseconds of Python, in which it waits for a database a few times."""
    found = 0
    for _ in range(4):
        found += sum(len(str(number)) for number in range(2000))
        time.sleep(0.0005)
    return found


def _waiting(queue: str) -> int:
    """How many mails are files in ``new/``."""
    return len([name for name in os.listdir(os.path.join(queue, "new")) if name[0] != "."])


if __name__ == "__main__":
    serve({"drain": drain, "fill": fill, "drain_in": drain_in, "newsletter": newsletter, "beside": beside})
