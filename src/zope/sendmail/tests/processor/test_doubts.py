"""Staged mail of a dead process is told in the log."""

from __future__ import annotations

import os
import tempfile
import unittest
from unittest import mock

from zope.sendmail.processor.doubts import DoubtfulMail
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock, envelope
from zope.sendmail.testing.scriptedmailer import ScriptedMailer


class MailOfADeadProcess(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.staged = [self.queue.stage() for _ in range(7)]

    def die(self, count: int) -> None:
        """Leave mail that no living process can commit."""
        for staged in self.staged[:count]:
            staged.add(envelope(), MESSAGE)
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.liveness._is_running", return_value=False))
        for staged in self.staged[:count]:
            staged._let_go()

    def test_is_told_when_a_processor_starts(self) -> None:
        """With the reason, and what to do."""
        self.die(1)
        processor = QueueProcessorThread(
            queue=self.queue, mailer=ScriptedMailer(), schedule=SCHEDULE, clock=self.clock, tell=lambda _: None
        )
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            processor.run(forever=False)
        [line] = [each for each in logs.output if "tmp/" in each]
        self.assertIn("is dead", line)
        self.assertIn("queue release", line)

    def test_is_told_once_a_day(self) -> None:
        """Until somebody has decided."""
        self.die(1)
        doubts = DoubtfulMail(self.queue, self.clock)
        for days in range(3):
            with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
                doubts.tell()
            self.assertEqual(len(logs.output), 1, days)
            with self.assertNoLogs("QueueProcessorThread", "WARNING"):
                self.clock.advance(86399)
                doubts.tell()
            self.clock.advance(1)

    def test_of_many_is_summed_up(self) -> None:
        """A crash may leave a thousand."""
        self.die(7)
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            DoubtfulMail(self.queue, self.clock).tell()
        self.assertEqual(len(logs.output), 6)
        self.assertIn("2 more", logs.output[-1])

    def test_is_not_told_while_its_process_lives(self) -> None:
        """It may still commit."""
        self.staged[0].add(envelope(), MESSAGE)
        with self.assertNoLogs("QueueProcessorThread", "WARNING"):
            DoubtfulMail(self.queue, self.clock).tell()
