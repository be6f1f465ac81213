"""A deep queue costs almost nothing; counted in calls to the disk, so that the result is the same on every machine."""

from __future__ import annotations

import os
import tempfile
import unittest
from collections import Counter
from typing import Any, BinaryIO

from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, MESSAGE, SCHEDULE, ManualClock
from zope.sendmail.tests.support.layers import Crashes, in_layer

DEPTH = 300


class CountingDisk(Disk):
    """Counts what is read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def open(self, path: str) -> BinaryIO:
        self.counts["open"] += 1
        return super().open(path)

    def names(self, path: str) -> list[str]:
        self.counts["names"] += 1
        return super().names(path)

    def stat(self, path: str) -> os.stat_result:
        self.counts["stat"] += 1
        return super().stat(path)


class ADeepQueue(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.put(DEPTH)

    def open(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=CountingDisk())
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int) -> None:
        staged = MaildirQueue(self.path).stage()
        for number in range(count):
            staged.add(Envelope("s@example.org", (f"{number}@example.org",)), MESSAGE)
        staged.prepare()
        staged.commit()
        self.assertTrue(flush(60))  # each is a file of its own

    def defer_all(self) -> None:
        queue = self.open()
        while leases := queue.claim(50):
            for lease in leases:
                outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, LATER))
                now = self.clock.time()
                lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=now, chance=0.5))
        queue.close()

    def counted(self, queue: MaildirQueue, action: Any) -> Counter[str]:
        disk = queue.disk
        assert isinstance(disk, CountingDisk)
        disk.counts.clear()
        action()
        return disk.counts

    def test_an_idle_look_reads_nothing(self) -> None:
        """Neither a message, nor a history, nor the directory: only its time stamp."""
        self.defer_all()
        queue = self.open()
        queue.claim()
        self.clock.advance(10)  # a time stamp has to be a moment old before it is believed
        queue.claim()
        for _ in range(5):
            self.clock.advance(3)
            counts = self.counted(queue, lambda: queue.wait(0)) + self.counted(queue, queue.claim)
            self.assertEqual((counts["open"], counts["names"]), (0, 0))
            self.assertLess(counts["stat"], 10)

    def test_the_start_reads_no_deferred_message(self) -> None:
        """Nor its history: the time stamp says when it is due."""
        self.defer_all()
        queue = self.open()
        counts = self.counted(queue, queue.claim)
        self.assertEqual(counts["open"], 0)
        self.assertLessEqual(counts["stat"], DEPTH + 20)
        self.assertAlmostEqual(queue.next_due() or 0.0, 60.0, 0)

    def test_a_fresh_message_does_not_wait(self) -> None:
        """It is claimed at once, without another being looked at."""
        self.defer_all()
        queue = self.open()
        queue.claim()
        self.put(1)
        counts = self.counted(queue, lambda: self.assertEqual(len(queue.claim()), 1))
        self.assertLess(counts["open"], 5)
        self.assertEqual(counts["names"], 0)

    def test_locked_messages_do_not_stand_in_the_way(self) -> None:
        """Whoever has them: a fresh one goes first."""
        for name in os.listdir(os.path.join(self.path, "new")):
            path = os.path.join(self.path, "new", name)
            os.utime(path, (self.clock.time(),) * 2)
            os.link(path, os.path.join(self.path, "new", f".sending-{name}"))
        queue = self.open()
        while queue.next_due() in (None, 0.0):
            self.assertEqual(queue.claim(), [])
        self.put(1)
        self.assertEqual(len(queue.claim()), 1)

    def test_deferred_messages_that_are_due_do_not_starve_fresh_ones(self) -> None:
        """Nor the other way round: of four turns one is theirs."""
        self.defer_all()
        queue = self.open()
        queue.claim()
        self.clock.advance(61)
        self.put(30)
        attempts = [lease.record.attempts for lease in queue.claim(40)]
        self.assertEqual(len(attempts), 40)
        self.assertEqual(attempts.count(0), 30)

    def test_a_message_costs_little_memory(self) -> None:
        """Less than 200 bytes of it stay in memory."""
        import tracemalloc

        self.defer_all()
        queue = self.open()
        tracemalloc.start()
        queue.claim()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertLess(used / DEPTH, 350)  # a few hundred have to bear what one queue costs; 100,000 need 156 each


load_tests = in_layer(Crashes)
