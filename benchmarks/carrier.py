"""The process through which one large message passes, measured; runs with either release.

Each measurement wants a process of its own: what Python has got from the system it seldom gives back.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import transaction
from serve import serve

from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.queue import QueueProcessorThread

SENDER, RECIPIENT = "sender@example.org", "recipient@example.org"
_HEAD = b"From: sender@example.org\nTo: recipient@example.org\nSubject: Benchmark\n%s\n"
_LINE = b"QSBsaW5lIG9mIGFuIGF0dGFjaG1lbnQsIGFzIGxvbmcgYXMgYmFzZTY0IG1ha2VzIHRoZW0gd2hl\n"

_kept: list[Any] = []


def relay() -> dict[str, Any]:
    """Be a relay."""
    from zope.sendmail.testing.relay import Relay

    listening = Relay()
    listening.start()
    _kept.append(listening)
    return {"port": listening.port}


def queued(queue: str, size: int, kind: str, trace: bool) -> dict[str, Any]:  # noqa: FBT001 - an argument in JSON
    """From ``send()`` to the end of ``commit()``."""
    message = _message(size, kind)
    delivery = QueuedMailDelivery(queue)
    return _peak(lambda: _send(delivery, message), trace=trace)


def direct(port: int, size: int, kind: str, trace: bool) -> dict[str, Any]:  # noqa: FBT001 - an argument in JSON
    """The same, to the relay."""
    message = _message(size, kind)
    delivery = DirectMailDelivery(SMTPMailer("127.0.0.1", port, no_tls=True))
    return _peak(lambda: _send(delivery, message), trace=trace)


def drain(queue: str, port: int, trace: bool) -> dict[str, Any]:  # noqa: FBT001 - an argument in JSON
    """From the queue to the relay."""
    processor = QueueProcessorThread()
    processor.setQueuePath(queue)
    processor.setMailer(SMTPMailer("127.0.0.1", port, no_tls=True))
    answer = _peak(lambda: processor.run(forever=False), trace=trace)
    left = [path.name for path in Path(queue, "new").iterdir()]
    if left:
        raise RuntimeError(f"the message was not sent: {left}")
    return answer


def _send(delivery: Any, message: Any) -> None:
    delivery.send(SENDER, [RECIPIENT], message)
    transaction.commit()


def _message(size: int, kind: str) -> Any:
    body = _LINE * (size // len(_LINE))
    if kind == "message object":
        made = EmailMessage()
        made["From"], made["To"] = SENDER, RECIPIENT
        made.set_payload(body.decode())
        return made
    message = _HEAD % (b"Bcc: third@example.org\n" if kind == "bytes with Bcc" else b"") + body
    return message.decode() if kind == "str" else message


def _peak(work: Callable[[], object], *, trace: bool) -> dict[str, Any]:
    """Bytes above what there was before: of the process, or of Python objects if `trace`."""
    if trace:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        work()
        return {"peak": tracemalloc.get_traced_memory()[1] - before}
    # A process starts with the greatest size that its parent ever had; so the mark is set anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS:")
    work()
    return {"peak": _status("VmHWM:") - before}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not say {name}")


if __name__ == "__main__":
    serve({"relay": relay, "queued": queued, "direct": direct, "drain": drain})
