"""What the topics of the queue's contract have in common: a clock, a mail, and how a lease is settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import SkipTest

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import Schedule, judge
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.system.clock import Clock

MESSAGE = b"Message-Id: <1@example.org>\nSubject: one\n\nText\n"
SCHEDULE = Schedule(first=60.0, jitter=0.0)
OK = Reply(Answer.ACCEPTED, "ok", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
#: Seconds for what happens at once.
DEADLINE = 60.0

NEVER = Reply(Answer.REJECTED, "no such user", 550)


class ManualClock(Clock):
    """A clock that a test turns.  The wall clock can also be set apart from the monotonic one."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.wall = now
        self.mono = 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def chance(self) -> float:
        return 0.5

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.mono += seconds


def envelope(*recipients: str, sender: str = "sender@example.org") -> Envelope:
    """Return an envelope with these recipients, or with one."""
    return Envelope(sender, recipients or ("one@example.org",))


class QueueSituation:
    """A queue, of which a test says how it is made.  `clock` is a `ManualClock` for the queue."""

    clock: ManualClock
    queue: Any

    def make_queue(self) -> Any:
        """Return an empty queue that uses ``self.clock`` and ``SCHEDULE``."""
        raise SkipTest("this is the contract; a queue says how it is made")

    def open_again(self) -> Any:
        """Return the same queue, opened by another process; skips where that cannot be."""
        raise SkipTest("this queue is not shared between processes")

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.queue = self.make_queue()

    def tearDown(self) -> None:
        self.queue.close()

    def put(self, *recipients: str, message: bytes = MESSAGE, count: int = 1) -> list[str]:
        """Commit `count` mails; return their names."""
        staged = self.queue.stage()
        names = [staged.add(envelope(*recipients), message) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def put_with(self, terms: Terms, *recipients: str, count: int = 1, queue: Any = None) -> list[str]:
        """Commit `count` mails with these terms; return their names."""
        staged = (queue or self.queue).stage()
        whole = replace(envelope(*recipients), terms=terms)
        names = [staged.add(whole, MESSAGE) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def names_of(self, leases: Any) -> list[str]:
        """Return the names of the mails that leases are on."""
        return [lease.name for lease in leases]

    def settle(self, lease: Any, **replies: Reply) -> Record:
        """Settle a lease as if a relay had answered this to all recipients, or to the local parts named."""
        said = {who: replies.get(who.partition("@")[0], replies.get("all", OK)) for who in lease.envelope.recipients}
        record = judge(
            lease.record,
            lease.envelope,
            Outcome("relay:25", said),
            SCHEDULE,
            now=self.clock.time(),
            chance=self.clock.chance(),
        )
        lease.settle(record)
        return record
