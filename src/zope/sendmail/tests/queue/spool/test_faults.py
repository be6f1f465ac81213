"""Every single system call at a spool directory fails once, and processes die between any two."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import time
import unittest
from collections import Counter

from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.spool.queue import SpoolQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Faults, in_layer

ERRORS = errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT, errno.EROFS, errno.EACCES

NAMES = ("one", "two", "three")

EXPECTED = Counter(f"{name}@example.org" for name in NAMES)


class SpoolFaultTest(unittest.TestCase):
    """Spools with three files in them, one with a lock that is too old to count."""

    def setUp(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.scratch = self.enterContext(tempfile.TemporaryDirectory(dir=memory))
        self.count = 0
        self.clock = ManualClock(time.time() + 10.0)

    def new_spool(self) -> str:
        self.count += 1
        spool = os.path.join(self.scratch, str(self.count))
        os.mkdir(spool)
        for name in NAMES:
            self.write(os.path.join(spool, name), b"##To:%b@example.org\n##From:s@example.org\n\nx\n" % name.encode())
        self.write(os.path.join(spool, "two.lck"), b"locked")
        return spool

    def write(self, path: str, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        os.utime(path, (1e9, 1e9))

    def queue(self, spool: str, disk: Disk | None = None) -> SpoolQueue:
        return SpoolQueue(spool, schedule=SCHEDULE, clock=self.clock, disk=disk, lock_age=60.0)

    def drain(self, queue: SpoolQueue, times: int) -> Counter[str]:
        mailer = ScriptedMailer()
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=self.clock, tell=lambda _: None
        )
        for _ in range(times):
            processor.new_run().once()
            self.clock.advance(70.0)
        return Counter(who for mail in mailer.sent for who in mail[1])

    def left(self, spool: str) -> list[str]:
        return sorted(name for name in os.listdir(spool) if name != ".queue")


class ADiskThatFailsOnce(SpoolFaultTest):
    def test_costs_nothing(self) -> None:
        """Whatever call it is, in a daemon that goes on: each mail leaves once, and its file is gone."""
        for error in ERRORS:
            for number in range(1, 1000):
                spool, disk = self.new_spool(), FaultyDisk(number, error)
                queue = self.queue(spool, disk)
                sent = self.drain(queue, 8)
                queue.close()
                where = f"{errno.errorcode[error]} at call {number}, {disk.failed}"
                self.assertEqual(sent, EXPECTED, where)
                self.assertLessEqual(set(self.left(spool)), {"two.lck"}, where)
                if not disk.failed:
                    break
            else:
                self.fail("the story has no end")


class ADaemonThatDies(SpoolFaultTest):
    def test_between_any_two_steps_of_taking_loses_and_doubles_nothing(self) -> None:
        """What it had moved is in the queue, the rest is in the spool; the next one sends both."""

        class Dying(FaultyDisk):
            def _count(self, call: str) -> None:
                try:
                    super()._count(call)
                except OSError as error:
                    raise SystemExit(str(error)) from None

        for number in range(1, 1000):
            spool, disk = self.new_spool(), Dying(number, for_ever=True)
            dead = self.queue(spool, disk)
            with contextlib.suppress(SystemExit):
                self.assertEqual(len(dead._dropbox.take(dead._make, busy=False)), 3)
            survivor = self.queue(spool)
            self.assertEqual(self.drain(survivor, 3), EXPECTED, f"dead at call {number}, {disk.failed}")
            survivor.close()
            dead.close()
            if not disk.failed:
                break


class TwoDaemons(SpoolFaultTest):
    def test_at_any_step_of_the_other_send_each_mail_once(self) -> None:
        """One looks and sends in the middle of the other's look."""
        test = self

        class Interrupted(FaultyDisk):
            sent: Counter[str] = Counter()

            def _count(self, call: str) -> None:
                try:
                    super()._count(call)
                except OSError:
                    self.fail_at = 0
                    other = test.queue(self.spool)
                    self.sent = test.drain(other, 2)
                    other.close()

            spool = ""

        for number in range(1, 1000):
            disk = Interrupted(number)
            disk.spool = self.new_spool()
            queue = self.queue(disk.spool, disk)
            sent = self.drain(queue, 3)
            queue.close()
            self.assertEqual(sent + disk.sent, EXPECTED, f"call {number}, {disk.failed}")
            if not disk.failed:
                break


del SpoolFaultTest


load_tests = in_layer(Faults)
