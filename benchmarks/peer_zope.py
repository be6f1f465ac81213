"""zope.sendmail as a measured sender: this release and 7.3, by what both have."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import transaction
from letters import RECIPIENT, SENDER, measured, text
from serve import serve

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.queue import QueueProcessorThread

_now: dict[str, Any] = {}


def prepare(place: str, relay: dict[str, Any], settings: dict[str, Any], **_: object) -> dict[str, Any]:
    """Set up queue and mailer."""
    logging.disable(logging.CRITICAL)
    mailer = SMTPMailer("127.0.0.1", relay["port"])
    if relay["login"]:
        mailer = SMTPMailer("127.0.0.1", relay["port"], username="name", password="secret")
        if hasattr(SMTPMailer, "cafile"):
            mailer.cafile = relay["cafile"]  # ours verifies to whom it tells a password; 7.3 does not
    processor = QueueProcessorThread(**settings)
    processor.setQueuePath(place)
    processor.setMailer(mailer)
    _now.update(place=place, processor=processor, delivery=QueuedMailDelivery(place))
    return {}


def enqueue(first: int, transactions: int, mails: int, size: int) -> dict[str, Any]:
    """Commit so many transactions, each with so many mails."""
    delivery, texts = _now["delivery"], [text(number, size) for number in range(first, first + transactions * mails)]

    def work() -> None:
        for start in range(0, len(texts), mails):
            for each in texts[start : start + mails]:
                delivery.send(SENDER, [RECIPIENT], each)
            transaction.commit()

    return measured(work)


def fill(first: int, mails: int, size: int) -> dict[str, Any]:
    """Write files of two lines of envelope, which both releases read, and let the disk come to rest."""
    new, now = os.path.join(_now["place"], "new"), int(time.time())
    for name in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(_now["place"], name), mode=0o700, exist_ok=True)
    for number in range(first, first + mails):
        with open(os.path.join(new, f"{now}.{os.getpid()}.relay.{number:08}"), "wb") as stream:
            stream.write(f"X-Zope-From: {SENDER}\nX-Zope-To: {RECIPIENT}\n".encode() + text(number, size))
    os.sync()
    return {}


def drain(**_: object) -> dict[str, Any]:
    """Send what is there, then return."""
    return measured(lambda: _now["processor"].run(forever=False))


def stand() -> dict[str, Any]:
    """Begin to send whatever comes, and go on beside this."""
    _now["processor"].start()
    return {}


def moment(number: int, size: int) -> dict[str, Any]:
    """Commit one mail; return when that began, and when it was done."""
    _now["delivery"].send(SENDER, [RECIPIENT], text(number, size))
    began = time.monotonic()
    transaction.commit()
    return {"began": began, "done": time.monotonic()}


def waiting() -> dict[str, Any]:
    """Return how many mails are left in the queue."""
    return {"mails": len([name for name in os.listdir(os.path.join(_now["place"], "new")) if name[0] != "."])}


if __name__ == "__main__":
    serve({each.__name__: each for each in (prepare, enqueue, fill, drain, stand, moment, waiting)})
