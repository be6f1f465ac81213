"""Every queue passes the contract suite."""

from __future__ import annotations

import tempfile
import unittest
from typing import Any

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.testing.contracts import OK, SCHEDULE, QueueContract


class KeepsReplies:
    """What the relay said of a mail that has left is known as long as the mail."""

    def test_tells_what_was_said_of_sent_mail(self: Any) -> None:
        """With the relay's words, which most often name the mail in its own queue."""
        self.put()
        self.settle(self.queue.claim()[0])
        status = self.queue.status("1@example.org")
        self.assertEqual((status.standing, status.relay, status.replies), ("sent", "relay:25", {"one@example.org": OK}))


class MemoryQueueTests(KeepsReplies, QueueContract, unittest.TestCase):
    def make_queue(self) -> MemoryQueue:
        return MemoryQueue(schedule=SCHEDULE, clock=self.clock)

    def test_what_has_left_is_forgotten_after_a_week(self) -> None:
        """A queue that lives for long does not grow with each mail that it had."""
        for number in range(20):
            self.put(message=b"Message-Id: <%d@example.org>\n\n" % number)
            [lease] = self.queue.claim()
            self.settle(lease)
            self.clock.advance(86400)
        self.assertLessEqual(len(self.queue.store.departed), 9)
        self.assertEqual(self.queue.status("19@example.org").standing, "sent")


class MaildirQueueTests(KeepsReplies, QueueContract, unittest.TestCase):
    directory = "queue"

    def make_queue(self) -> MaildirQueue:
        self.path = self.enterContext(tempfile.TemporaryDirectory()) + "/" + self.directory
        self.addCleanup(flush, 60.0)  # what is left of a bundle becomes files soon
        return self.open_again()

    def open_again(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


class MaildirQueueOnAnOddPathTests(MaildirQueueTests):
    """Blanks and characters beyond ASCII in the path change nothing."""

    directory = 'my que üe/нет/with "quotes"'


class SpoolQueueTests(KeepsReplies, QueueContract, unittest.TestCase):
    """Mail of ours in a spool directory."""

    def make_queue(self) -> IMailQueue:
        self.path = self.enterContext(tempfile.TemporaryDirectory()) + "/spool"
        self.addCleanup(flush, 60.0)  # as above
        return self.open_again()

    def open_again(self) -> IMailQueue:
        queue = open_queue(f"spool:{self.path}", schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


class SeveralSpoolsTests(SpoolQueueTests):
    """Two directories make one queue."""

    def open_again(self) -> IMailQueue:
        queue = open_queue(f"spool:{self.path};{self.path}-2", schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


del QueueContract
