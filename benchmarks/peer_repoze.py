"""repoze.sendmail as a measured sender; its processor ``qp`` is a job for cron, so nothing stands by."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import transaction
from letters import RECIPIENT, SENDER, measured, message, text
from repoze.sendmail.delivery import QueuedMailDelivery
from repoze.sendmail.mailer import SMTPMailer
from repoze.sendmail.queue import QueueProcessor
from serve import serve

_now: dict[str, Any] = {}


def prepare(place: str, relay: dict[str, Any], **_: object) -> dict[str, Any]:
    """Set up queue and mailer."""
    logging.disable(logging.CRITICAL)
    login = {"username": "name", "password": "secret"} if relay["login"] else {}
    processor = QueueProcessor(SMTPMailer("127.0.0.1", relay["port"], **login), place)
    _now.update(place=place, processor=processor, delivery=QueuedMailDelivery(place))
    return {}


def enqueue(first: int, transactions: int, mails: int, size: int) -> dict[str, Any]:
    """Commit so many transactions, each with so many mails."""
    made = [message(number, size) for number in range(first, first + transactions * mails)]

    def work() -> None:
        for start in range(0, len(made), mails):
            for each in made[start : start + mails]:
                _now["delivery"].send(SENDER, [RECIPIENT], each)
            transaction.commit()

    return measured(work)


def fill(first: int, mails: int, size: int) -> dict[str, Any]:
    """Write files with its two headers, and let the disk come to rest."""
    new, now = os.path.join(_now["place"], "new"), int(time.time())
    for name in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(_now["place"], name), mode=0o700, exist_ok=True)
    for number in range(first, first + mails):
        with open(os.path.join(new, f"{now}.{os.getpid()}.relay.{number:08}"), "wb") as stream:
            stream.write(f"X-Actually-From: {SENDER}\nX-Actually-To: {RECIPIENT}\n".encode() + text(number, size))
    os.sync()
    return {}


def drain(**_: object) -> dict[str, Any]:
    """Send what is there, then return."""
    return measured(_now["processor"].send_messages)


def moment(number: int, size: int) -> dict[str, Any]:
    """Commit one mail; return when that began, and when it was done."""
    _now["delivery"].send(SENDER, [RECIPIENT], message(number, size))
    began = time.monotonic()
    transaction.commit()
    return {"began": began, "done": time.monotonic()}


def waiting() -> dict[str, Any]:
    """Return how many mails are left in the queue."""
    return {"mails": len([name for name in os.listdir(os.path.join(_now["place"], "new")) if name[0] != "."])}


if __name__ == "__main__":
    serve({each.__name__: each for each in (prepare, enqueue, fill, drain, moment, waiting)})
