"""What is known about each attempt, for programs: structured logs, metrics, traces.

`observe` gives every attempt of this process to an observer; as long as there is none, no record is made.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.reporting import maillog


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt at one mail, or at that part of it which one relay gets.

    Times are seconds since the epoch, durations seconds.
    """

    #: When the attempt ended.
    time: float
    #: The location of the queue.
    queue: str
    #: The name of the mail in its queue.
    name: str
    #: Its Message-Id without brackets.
    message_id: str
    #: The envelope sender.
    sender: str
    #: The relay that was asked, as the log names it.
    relay: str
    #: How often this mail was tried, this attempt included.
    attempt: int
    #: The state of the mail after the attempt.
    state: str
    #: How long the attempt took.
    duration: float
    #: How old the mail was at the end of the attempt; None where the queue does not know.
    age: float | None
    #: Bytes of the message; None where the queue does not know.
    size: int | None
    #: What was said about each recipient.
    replies: Mapping[str, Reply]
    #: The trace that the mail belongs to, as `zope.sendmail.message.tracecontext` writes it; empty for none.
    trace: str = ""
    #: Whether no relay was asked about the mail before; `attempt` begins anew when an operator retries.
    is_first: bool = True

    @property
    def answers(self) -> Counter[Answer]:
        """How many recipients got each answer."""
        return Counter(reply.answer for reply in self.replies.values())

    def as_json(self) -> dict[str, Any]:
        """Return the record as values that JSON knows; the keys are listed in ``docs/howto/monitoring.rst``."""
        return {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "event": "attempt",
            "queue": self.queue,
            "name": self.name,
            "message_id": self.message_id,
            "sender": self.sender,
            "relay": self.relay,
            "attempt": self.attempt,
            "state": self.state,
            "duration": round(self.duration, 6),
            "age": None if self.age is None else round(self.age, 3),
            "size": self.size,
            "recipients": [_recipient(who, reply) for who, reply in self.replies.items()],
        }


def without_a_queue(
    envelope: Envelope, outcome: Outcome, *, message_id: str, size: int, time: float, duration: float
) -> AttemptRecord:
    """Return the record of an attempt of direct delivery or of a mailer's ``send``; a queue behind it adds its own.

    :param outcome: what was said about each recipient.
    :param time: when the attempt ended, seconds since the epoch.
    """
    answers = {reply.answer for reply in outcome.replies.values()}
    waits = answers & {Answer.DEFERRED, Answer.UNKNOWN}
    state = State.SENT if answers == {Answer.ACCEPTED} else State.DEFERRED if waits else State.REJECTED
    return AttemptRecord(
        time=time,
        queue="",
        name="",
        message_id=message_id,
        sender=envelope.sender,
        relay=outcome.relay,
        attempt=1,
        state=state.value,
        duration=duration,
        age=None,
        size=size,
        replies=outcome.replies,
        trace=envelope.trace,
    )


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """A relay that could not be used: not reached, or it refused connection, TLS or login."""

    time: float
    queue: str
    relay: str
    reply: Reply

    def as_json(self) -> dict[str, Any]:
        """Return the record as values that JSON knows."""
        return {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "event": "fault",
            "queue": self.queue,
            "relay": self.relay,
            "code": self.reply.code,
            "enhanced": self.reply.enhanced,
            "reply": self.reply.text,
        }


class AttemptObserver(Protocol):
    """What is told about each attempt.

    Concurrency: called by every thread that sends, which waits for it.
    """

    def attempted(self, record: AttemptRecord) -> None:
        """Take note of an attempt."""

    def faulted(self, record: FaultRecord) -> None:
        """Take note of a relay that could not be used."""


_observers: tuple[AttemptObserver, ...] = ()


def observe(observer: AttemptObserver) -> None:
    """Give every attempt of this process to `observer` from now on.  What it raises is logged and harms no mail."""
    global _observers
    if observer not in _observers:
        _observers = (*_observers, observer)


def ignore(observer: AttemptObserver) -> None:
    """End what `observe` began."""
    global _observers
    _observers = tuple(each for each in _observers if each is not observer)


@contextlib.contextmanager
def observing(observer: AttemptObserver) -> Iterator[None]:
    """Let `observer` have the attempts until the end of the block."""
    observe(observer)
    try:
        yield
    finally:
        ignore(observer)


def is_observed() -> bool:
    """Return whether there is any observer."""
    return bool(_observers)


def tell(record: AttemptRecord | FaultRecord) -> None:
    """Give a record to all observers."""
    for observer in _observers:
        try:
            if isinstance(record, AttemptRecord):
                observer.attempted(record)
            else:
                observer.faulted(record)
        except Exception as error:  # noqa: BLE001 - an observer must not harm a mail
            maillog.observer_failed(observer, error)


def _recipient(address: str, reply: Reply) -> dict[str, Any]:
    return {
        "address": address,
        "answer": reply.answer.value,
        "code": reply.code,
        "enhanced": reply.enhanced,
        "reply": reply.text,
    }
