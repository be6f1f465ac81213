"""Every queue passes the contract suite."""

from __future__ import annotations

import tempfile
import unittest

from zope.sendmail.queue.maildir import MaildirQueue
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.testing.contracts import SCHEDULE, QueueContract


class MemoryQueueTests(QueueContract, unittest.TestCase):
    def make_queue(self) -> MemoryQueue:
        return MemoryQueue(schedule=SCHEDULE, clock=self.clock)


class MaildirQueueTests(QueueContract, unittest.TestCase):
    directory = "queue"

    def make_queue(self) -> MaildirQueue:
        self.path = self.enterContext(tempfile.TemporaryDirectory()) + "/" + self.directory
        return self.open_again()

    def open_again(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


class MaildirQueueOnAnOddPathTests(MaildirQueueTests):
    """Blanks and characters beyond ASCII in the path change nothing."""

    directory = 'my que üe/нет/with "quotes"'


del QueueContract
