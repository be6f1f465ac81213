"""The process that commits mail; runs with either release."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import transaction
from serve import serve

from zope.sendmail.delivery import QueuedMailDelivery

SENDER, RECIPIENT = "sender@example.org", "recipient@example.org"
_LINE = b"The quick brown fox jumps over the lazy dog, and nobody ever asks the dog what it thinks.\n"


def text_of(size: int) -> bytes:
    """A message of about so many bytes."""
    head = b"From: sender@example.org\nTo: recipient@example.org\nSubject: Benchmark\n\n"
    return head + _LINE * max(1, (size - len(head)) // len(_LINE))


def commit(queue: str, transactions: int, mails: int = 1, threads: int = 1, size: int = 2000) -> dict[str, Any]:
    """Commit so many transactions in all, each with so many mails.  One more is not timed: it makes the queue."""
    delivery = QueuedMailDelivery(queue)
    text = text_of(size)
    delivery.send(SENDER, [RECIPIENT], text)
    transaction.commit()

    def work() -> None:
        for _ in range(transactions // threads):
            for _ in range(mails):
                delivery.send(SENDER, [RECIPIENT], text)
            transaction.commit()

    return _timed(work, threads, queue)


def raw(queue: str, transactions: int, threads: int = 1, size: int = 2000) -> dict[str, Any]:
    """What the disk itself can do: write, fsync, rename, fsync the directory, and nothing else."""
    text = text_of(size)
    tmp, new = os.path.join(queue, "tmp"), os.path.join(queue, "new")
    for path in (tmp, new):
        os.makedirs(path)

    def work() -> None:
        directory = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
        for number in range(transactions // threads):
            name = f"{threading.get_ident()}.{number}"
            fd = os.open(os.path.join(tmp, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(fd, text)
            os.fsync(fd)
            os.close(fd)
            os.rename(os.path.join(tmp, name), os.path.join(new, name))
            os.fsync(directory)
        os.close(directory)

    return _timed(work, threads, queue)


def moment(queue: str) -> dict[str, Any]:
    """Commit one mail, and say when that began and when it had been done."""
    QueuedMailDelivery(queue).send(SENDER, [RECIPIENT], text_of(2000))
    began = time.monotonic()
    transaction.commit()
    return {"began": began, "done": time.monotonic()}


def _timed(work: Callable[[], None], threads: int, queue: str) -> dict[str, Any]:
    others = [threading.Thread(target=work) for _ in range(threads - 1)]
    cpu, began = time.process_time(), time.perf_counter()
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    answer = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    files = _files(queue)
    whole = {"whole": time.perf_counter() - began, "whole_cpu": time.process_time() - cpu}
    return answer | whole | {"files": files}


def _files(queue: str) -> int:
    """How many mails there are, once each is a file that any Maildir reader sees."""
    new = os.path.join(queue, "new")
    while any(name.startswith(".group-") for name in os.listdir(new)):
        time.sleep(0.005)
    return len(os.listdir(new))  # again: a list that was made while the last mails moved need not have them


if __name__ == "__main__":
    serve({"commit": commit, "raw": raw, "moment": moment})
