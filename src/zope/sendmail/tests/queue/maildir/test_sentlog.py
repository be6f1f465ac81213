"""What is known about mails that have left the queue."""

from __future__ import annotations

import os
import stat
import tempfile
import unittest

from zope.sendmail.lifecycle.status import KEPT_DAYS
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.disks import FaultyDisk

DAY = 86400.0


class Mails(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.root = self.enterContext(tempfile.TemporaryDirectory())
        self.sent_log = self.open()

    def open(self, fail_at: int = 0) -> SentLog:
        sent_log = SentLog(Layout(self.root), FaultyDisk(fail_at, for_ever=True), self.clock)
        self.addCleanup(sent_log.close)
        return sent_log

    def files(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.root, "sent")))

    def test_are_found_by_their_whole_message_id(self) -> None:
        """The last one counts; a part of an id finds nothing."""
        started = self.clock.time()
        self.sent_log.note("one", "a@b")
        self.clock.advance(10)
        self.sent_log.note("two", "xa@b")
        self.sent_log.note("three", "a@b")
        self.assertEqual(self.open().find("a@b"), started + 10)
        for other in "a@", "@b", "b", "", "one", "one a@b":
            self.assertIsNone(self.open().find(other))

    def test_of_several_processes_stand_in_one_file(self) -> None:
        """That is private."""
        other = self.open()
        for number in range(10):
            (self.sent_log, other)[number % 2].note("n", f"{number}@b")
        self.assertTrue(all(self.sent_log.find(f"{number}@b") for number in range(10)))
        [name] = self.files()
        mode = os.stat(os.path.join(self.root, "sent", name)).st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_are_found_behind_what_a_loss_of_power_left(self) -> None:
        """Zeros, or the beginning of a line that has no end."""
        started = self.clock.time()
        self.sent_log.note("one", "a@b")
        [name] = self.files()
        for left in (b"\0" * 100, b"180", b"1800000000 na"):
            with open(os.path.join(self.root, "sent", name), "ab") as file:
                file.write(left)
            self.clock.advance(1)
            self.open().note("two", "c@d")
            self.assertEqual(self.sent_log.find("c@d"), self.clock.time())
        self.assertEqual(self.sent_log.find("a@b"), started)

    def test_foreign_lines_are_passed_over(self) -> None:
        """Somebody's editor, or a disk."""
        self.sent_log.note("one", "a@b")
        [name] = self.files()
        with open(os.path.join(self.root, "sent", name), "ab") as file:
            file.write(b"\0\0 one x@y\n")
        self.assertIsNone(self.sent_log.find("x@y"))

    def test_are_known_for_a_week(self) -> None:
        """Then their files are removed, by whoever notes something."""
        for day in range(20):
            self.sent_log.note("n", f"{day}@b")
            self.clock.advance(DAY)
        self.assertEqual(len(self.files()), KEPT_DAYS + 1)
        known = [day for day in range(20) if self.sent_log.find(f"{day}@b")]
        self.assertEqual(known, list(range(20 - KEPT_DAYS - 1, 20)))

    def test_leave_also_when_that_cannot_be_written_down(self) -> None:
        """It is told once, and goes on when the disk does."""
        broken = self.open(fail_at=1)
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            for number in range(5):
                broken.note("n", f"{number}@b")
        self.assertEqual(len(logs.output), 1)
        self.sent_log.note("n", "a@b")
        self.assertEqual(self.open().find("a@b"), self.clock.time())

    def test_of_a_clock_that_was_set_back_are_found(self) -> None:
        """In the file of that day."""
        self.sent_log.note("n", "a@b")
        self.clock.wall -= 3 * DAY
        self.sent_log.note("n", "c@d")
        self.assertEqual(len(self.files()), 2)
        self.assertTrue(self.sent_log.find("a@b") and self.sent_log.find("c@d"))
