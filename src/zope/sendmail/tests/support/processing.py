"""A processor under test, without a thread and without a socket."""

from __future__ import annotations

import unittest
from typing import Any

from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.processor.run import Run
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.testing.contracts import MESSAGE, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer


class ProcessorTest(unittest.TestCase):
    """A processor with a queue in memory, run pass by pass with a clock that the test turns."""

    schedule = Schedule(first=60, jitter=0, lifetime=5 * 86400)

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.queue: Any = MemoryQueue(schedule=self.schedule, clock=self.clock)
        self.mailer = ScriptedMailer()
        self.events: list[Any] = []
        self.processor = self.make_processor()

    def make_processor(self, **options: Any) -> QueueProcessorThread:
        return QueueProcessorThread(
            queue=self.queue,
            mailer=options.pop("mailer", self.mailer),
            schedule=options.pop("schedule", self.schedule),
            clock=self.clock,
            tell=self.events.extend,
            **options,
        )

    def new_run(self, trouble: QueueBackoff | None = None) -> Run:
        """Return what the processor does in one run; the threads of its workers end with the test."""
        run = self.processor.new_run(trouble)
        self.addCleanup(run.pool.end)
        return run

    def put(self, *recipients: str, count: int = 1) -> list[str]:
        staged = self.queue.stage()
        names = [
            staged.add(Envelope("sender@example.org", recipients or (f"{n}@example.org",)), MESSAGE)
            for n in range(count)
        ]
        staged.prepare()
        staged.commit()
        return names

    def drain(self, seconds: float = 0.0) -> None:
        """Let time pass, then one pass."""
        self.clock.advance(seconds)
        self.processor.run(forever=False)

    def sent_to(self) -> list[str]:
        return [who for _, recipients, _ in self.mailer.sent for who in recipients]
