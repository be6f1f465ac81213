"""Every single system call of the queue fails once, with every error a disk can have."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import unittest
from collections import Counter
from unittest import mock

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir import staging
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import unfold_now
from zope.sendmail.testing.contracts import LATER, OK, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Faults, in_layer

ERRORS = errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT, errno.EROFS


class FaultTest(unittest.TestCase):
    """A queue on a disk that fails; the log may say so as loudly as it likes."""

    def setUp(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.scratch = self.enterContext(tempfile.TemporaryDirectory(dir=_memory()))
        self.count = 0

    def new_path(self) -> str:
        self.count += 1
        return os.path.join(self.scratch, str(self.count))

    def commit(self, path: str, disk: FaultyDisk, count: int) -> bool:
        """Send `count` mails in a transaction; say whether it committed."""
        delivery = QueuedMailDelivery(path)
        delivery._queue = MaildirQueue(path, disk=disk)
        try:
            for number in range(count):
                delivery.send("s@example.org", [f"{number}@example.org"], b"Message-Id: <%d@x>\n\ntext\n" % number)
            transaction.commit()
        except OSError:
            transaction.abort()
            return False
        disk.fail_at = 0
        delivery._queue.claim(0)  # whatever the disk refused in the second phase is done now
        delivery._queue.close()
        return True

    def drained(self, path: str, clock: ManualClock) -> Counter[str]:
        mailer = ScriptedMailer()
        queue = MaildirQueue(path, schedule=SCHEDULE, clock=clock)
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=clock, tell=lambda _: None
        )
        for _ in range(3):
            processor.run(forever=False)
            clock.advance(4000)
        self.unknown = processor.tally[Answer.UNKNOWN]
        self.left = queue.admin.count()
        return Counter(who for mail in mailer.sent for who in mail[1])


class WhileATransactionCommits(FaultTest):
    def check(self, count: int) -> None:
        expected = Counter(f"{number}@example.org" for number in range(count))
        for error in ERRORS:
            for number in range(1, 1000):
                path, disk = self.new_path(), FaultyDisk(number, error)
                committed = self.commit(path, disk, count)
                where = f"{errno.errorcode[error]} at call {number}, {disk.failed}"
                arrived = self.drained(path, ManualClock())
                self.assertEqual(arrived, expected if committed else Counter(), where)
                if committed:
                    self.assertEqual(self.left, {}, where)
                if not disk.failed:
                    break
            else:
                self.fail("the story has no end")

    def test_one_mail(self) -> None:
        """It is sent, or the transaction has aborted and it is not."""
        self.check(1)

    def test_several_mails(self) -> None:
        """All are sent, or none."""
        self.check(3)

    def test_one_mail_after_the_other(self) -> None:
        """Each is sent, or its transaction has aborted; those in spare files as well."""
        for error in ERRORS:
            for number in range(1, 1000):
                path, disk = self.new_path(), FaultyDisk(number, error)
                committed = [self.commit_one(path, disk, each) for each in range(5)]
                disk.fail_at = 0
                with contextlib.closing(MaildirQueue(path, disk=disk)) as queue:
                    queue.claim(0)  # whatever the disk refused in the second phase is done now
                where = f"{errno.errorcode[error]} at call {number}, {disk.failed}"
                expected = Counter(f"{each}@example.org" for each, came in enumerate(committed) if came)
                self.assertEqual(self.drained(path, ManualClock()), expected, where)
                self.assertEqual(self.left, {}, where)
                if not disk.failed:
                    break
            else:
                self.fail("the story has no end")

    def commit_one(self, path: str, disk: FaultyDisk, number: int) -> bool:
        staged = None
        try:
            staged = MaildirQueue(path, disk=disk).stage()
            staged.add(Envelope("s@example.org", (f"{number}@example.org",)), b"Message-Id: <%d@x>\n\n" % number)
            staged.prepare()
        except OSError:
            if staged is not None:
                disk.fail_at = 0 if disk.failed else disk.fail_at
                staged.abort()
            return False
        with contextlib.suppress(OSError):
            staged.commit()
        return True


class WhileABundleIsCommitted(WhileATransactionCommits):
    """From the second mail on they stand in one file, which is unfolded on the same disk."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(staging, "SINGLY", 1))
        self.enterContext(mock.patch.object(staging, "later", unfold_now))


class WhileMailIsSent(FaultTest):
    def prepare(self) -> str:
        path = self.new_path()
        self.assertTrue(self.commit(path, FaultyDisk(), 3))
        return path

    def run_once(self, path: str, disk: FaultyDisk, clock: ManualClock) -> ScriptedMailer:
        """A processor that lives while the disk fails: one mail is deferred first, all are accepted in the end."""
        mailer = ScriptedMailer()
        first = {"0@example.org"}

        def answer(who: str) -> Reply:
            if who in first:
                first.discard(who)
                return LATER
            return OK

        mailer.answers = answer
        queue = MaildirQueue(path, schedule=SCHEDULE, clock=clock, disk=disk)
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=clock, tell=lambda _: None
        )
        for _ in range(12):
            processor.new_run().once()
            clock.advance(70)
        queue.close()
        return mailer

    def test_a_disk_that_fails_once_costs_nothing(self) -> None:
        """Every mail goes out once, and the processor goes on."""
        expected = Counter(f"{number}@example.org" for number in range(3))
        for error in ERRORS:
            for number in range(1, 1000):
                path, disk = self.prepare(), FaultyDisk(number, error)
                mailer = self.run_once(path, disk, ManualClock())
                where = f"{errno.errorcode[error]} at call {number}, {disk.failed}"
                self.assertEqual(Counter(who for mail in mailer.sent for who in mail[1]), expected, where)
                self.assertEqual(MaildirQueue(path).admin.count(), {}, where)
                if not disk.failed:
                    break

    def test_a_disk_that_breaks_sends_nothing_twice_unknown(self) -> None:
        """What was sent and could not be written down is unknown to the next process; nothing is lost."""
        for number in range(1, 1000):
            path, disk = self.prepare(), FaultyDisk(number, errno.EROFS, for_ever=True)
            clock = ManualClock()
            arrived = Counter(who for mail in self.run_once(path, disk, clock).sent for who in mail[1])
            self.assertLessEqual(max(arrived.values(), default=0), 1, f"call {number}, {disk.failed}")
            arrived += self.drained(path, clock)
            self.assertEqual(len(arrived), 3, f"lost at call {number}, {disk.failed}")
            self.assertLessEqual(sum(arrived.values()) - 3, self.unknown, f"a silent duplicate at call {number}")
            self.assertEqual(self.left.get(State.HELD, 0), 0)
            if not disk.failed:
                break


class WhileABundleIsUnfolded(WhileMailIsSent):
    """By the processor, whose disk fails."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(staging, "SINGLY", 1))
        self.enterContext(mock.patch.object(staging, "later"))

    def prepare(self) -> str:
        path = self.new_path()
        mails = MaildirQueue(path).stage()
        for number in range(3):
            mails.add(Envelope("s@example.org", (f"{number}@example.org",)), b"Message-Id: <%d@x>\n\n" % number)
        mails.prepare()
        mails.commit()
        [group] = os.listdir(os.path.join(path, "new"))
        self.assertIn(".bundle", os.listdir(os.path.join(path, "new", group)))
        return path


def _memory() -> str | None:
    """Where files are cheap; what is tested here does not depend on the file system."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


del FaultTest


load_tests = in_layer(Faults)
