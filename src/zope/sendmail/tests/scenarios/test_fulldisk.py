"""A disk without room, or without inodes: what waits still leaves, and an operator can make room.

The disks are real ones, which only root can mount.  What a disk that fills at any call does is among the faults of
`test_faults`.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import Tls
from zope.sendmail.lifecycle.finding import Kind
from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import sent_at_once
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir import staging, sweeper
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.spool.queue import SpoolQueue
from zope.sendmail.system.batchclose import BatchClose
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, NEVER, OK, SCHEDULE, ManualClock
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support import disks
from zope.sendmail.tests.support.layers import Servers, in_layer

NO_BLOCKS, NO_INODES = "size=1m", "size=8m,nr_inodes=64"


class FullDiskTest(unittest.TestCase):
    """A queue with some mails on a disk that can be filled."""

    options = NO_BLOCKS
    file_system = "tmpfs"

    def setUp(self) -> None:
        self.root = self.enterContext(tempfile.TemporaryDirectory())
        self.mount()
        self.path = os.path.join(self.root, "queue")
        self.clock = ManualClock()
        self.ballast = os.path.join(self.root, "ballast")
        os.mkdir(self.ballast)

    def mount(self) -> None:
        if reason := disks.mounted(self.root, self.file_system, has_few_inodes=self.options == NO_INODES):
            self.skipTest(reason)
        self.addCleanup(disks.unmount, self.root)

    def put(self, count: int) -> None:
        staged = MaildirQueue(self.path, clock=self.clock).stage()
        for number in range(count):
            staged.add(Envelope("s@example.org", (f"{number}@example.org",)), b"Subject: s\n\ntext\n")
        staged.prepare()
        staged.commit()

    def put_as_before(self, count: int) -> None:
        """Make a queue as zope.sendmail 7.3 does, with so many mails."""
        for name in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)
        for number in range(count):
            text = f"X-Zope-From: s@example.org\nX-Zope-To: {number}@example.org\nSubject: s\n\ntext\n"
            path = os.path.join(self.path, "new", f"{1_000_000_000 + number}.4711.host.{number}")
            Disk().create(path, text.encode())

    def drop(self, spool: str, count: int) -> None:
        """Let another program drop so many mails."""
        for number in range(count):
            path = os.path.join(spool, str(number))
            Disk().create(path, f"##To:{number}@example.org\n##From:s@example.org\nSubject: s\n\ntext\n".encode())
            os.utime(path, (1e9 + number, 1e9 + number))

    def fill(self) -> None:
        """Leave no room for a byte, and none for a name; ext4 gives back what was freed by and by."""
        for number in itertools.count(len(os.listdir(self.ballast))):
            if self.options == NO_BLOCKS:
                disks.append_all(os.path.join(self.ballast, "bytes"))
            try:
                Disk().create(os.path.join(self.ballast, str(number)), b"more")
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
                return

    def queue(self) -> MaildirQueue:
        return MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)

    def processor(
        self, answers: Callable[[str], Reply] = lambda who: OK
    ) -> tuple[QueueProcessorThread, ScriptedMailer]:
        mailer = ScriptedMailer()
        mailer.answers = answers
        queue = self.queue()
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=self.clock, tell=lambda _: None
        )
        return processor, mailer

    def drained(self, answers: Callable[[str], Reply] = lambda who: OK) -> list[str]:
        processor, mailer = self.processor(answers)
        processor.run(forever=False)
        return sorted(who for mail in mailer.sent for who in mail[1])


class AFullDisk(FullDiskTest):
    def test_is_drained_by_a_processor_that_starts(self) -> None:
        """Every mail leaves, once; there was no processor before."""
        self.put(5)
        self.fill()
        self.assertEqual(self.drained(), [f"{number}@example.org" for number in range(5)])
        self.assertEqual(MaildirQueue(self.path).admin.count(), {})

    def test_is_drained_whole_by_a_conversation_that_takes_the_next_mail_early(self) -> None:
        """The next mail is no trouble while there is room for one lock only: it goes when the one in hand has gone."""
        self.put(30)
        self.fill()
        with Relay() as relay:
            mailer = SMTPMailer("127.0.0.1", relay.port, tls=Tls.NEVER)
            processor = QueueProcessorThread(queue=MaildirQueue(self.path), mailer=mailer, tell=lambda _: None)
            processor.run(forever=False)
            self.assertEqual(len({mail.recipients for mail in relay.mails}), len(relay.mails))
            self.assertEqual(len(relay.mails), 30)
        self.assertEqual(MaildirQueue(self.path).admin.count(), {})

    def test_is_drained_by_several_leases_at_a_time_as_far_as_there_is_room(self) -> None:
        """What does not fit is not due for a moment, and is no trouble."""
        self.put(3)
        self.fill()
        queue = MaildirQueue(self.path, clock=self.clock)
        self.addCleanup(queue.close)
        leases = queue.claim(3)
        self.assertGreater(len(leases), 0)
        if len(leases) < 3:
            self.assertEqual(queue.claim(3), [])
            self.assertGreater(queue.next_due() or 0.0, 0.0)
            leases[0].release()
            self.assertEqual(queue.next_due(), 0.0)
            self.assertEqual(len(queue.claim(3)), 1)

    def test_is_drained_again_and_again(self) -> None:
        """The reserve is given back."""
        for _ in range(3):
            self.put(2)
            self.fill()
            self.assertEqual(len(self.drained()), 2)
            for name in os.listdir(self.ballast):
                os.unlink(os.path.join(self.ballast, name))

    def test_lets_an_operator_make_room(self) -> None:
        """While a processor works on it, and without one."""
        self.put(3)
        self.fill()
        processor, _ = self.processor()
        assert processor.queue is not None
        [lease] = processor.queue.claim(1)
        admin = MaildirQueue(self.path).admin
        for mail in list(admin.mails([State.READY])):
            admin.remove(mail.name)
        lease.release()
        self.assertEqual(admin.count(), {State.READY: 1})
        processor.queue.close()

    def test_does_not_lose_or_repeat_what_was_sent_to_some(self) -> None:
        """A rejection is written down in the place of a reserve; a deferral need not be; other mail flows."""
        self.put(4)
        self.fill()
        answers = {"0@example.org": NEVER, "1@example.org": LATER}
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.drained(lambda who: answers.get(who, OK)), ["2@example.org", "3@example.org"])
        # Without inodes there may be no room for an empty history, which would say that the other one was tried.
        waiting = Counter(MaildirQueue(self.path).admin.count())
        self.assertEqual(waiting.pop(State.REJECTED), 1)
        self.assertIn(waiting, ({State.DEFERRED: 1}, {State.READY: 1}))

    def test_does_not_hammer_a_relay_that_defers(self) -> None:
        """The delays grow as ever, although there is no room to write them down."""
        self.put(1)
        self.fill()
        asked: list[float] = []

        def answer(who: str) -> Reply:
            asked.append(self.clock.time())
            return LATER

        processor, _ = self.processor(answer)
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            for _ in range(16 * int(SCHEDULE.first)):
                processor.new_run().once()
                self.clock.advance(1)
        processor.new_run().end()
        waits = [round(later - sooner) for sooner, later in itertools.pairwise(asked)]
        self.assertEqual(waits, [round(SCHEDULE.delay(attempts, 0.5)) for attempts in range(1, len(asked))])
        self.assertEqual(len(asked), 5)

    def test_remembers_what_died_with_a_mail_in_hand(self) -> None:
        """The reserve tells of it as any owner file: the outcome is unknown, not forgotten."""
        self.put(2)
        self.fill()
        script = textwrap.dedent(
            f"""
            import os, signal
            from zope.sendmail.queue.maildir.queue import MaildirQueue
            [lease] = MaildirQueue({self.path!r}).claim(1)
            lease.open()
            lease.intend()
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for _ in range(2):
            code = subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode
            self.assertEqual(code, -signal.SIGKILL)
        for name in os.listdir(self.ballast):
            os.unlink(os.path.join(self.ballast, name))
        leases = MaildirQueue(self.path, clock=self.clock).claim(9)
        self.assertEqual(sorted(lease.record.unknowns for lease in leases), [1, 1])


class WithoutReserveTest(FullDiskTest):
    """A queue that was made by zope.sendmail 7.3, with nothing but its three directories, is first opened when full."""

    #: Whether the system says that no other host has the disk, so that a death is seen at once.
    is_own = True

    def put(self, count: int) -> None:
        self.put_as_before(count)

    def empty(self) -> None:
        """Make room again."""
        for name in os.listdir(self.ballast):
            os.unlink(os.path.join(self.ballast, name))

    def files(self) -> list[str]:
        """Return what there is in the directory for mail, hidden files too."""
        return sorted(os.listdir(os.path.join(self.path, "new")))

    def test_is_drained_by_a_processor_that_starts(self) -> None:
        """Every mail leaves, once; nothing is left of its lock, and then the queue is as any other."""
        self.put(30)
        self.fill()
        self.assertEqual(self.drained(), sorted(f"{number}@example.org" for number in range(30)))
        self.assertEqual(self.files(), [])
        self.assertEqual(sorted(os.listdir(self.path)), ["cur", "history", "locks", "new", "processors", "sent", "tmp"])

    def test_lets_an_operator_make_room(self) -> None:
        """All mail can be removed."""
        self.put(5)
        self.fill()
        queue = self.queue()
        for mail in list(queue.admin.mails()):
            queue.admin.remove(mail.name)
        queue.close()
        self.assertEqual(self.files(), [])

    def test_gives_a_mail_to_one_process(self) -> None:
        """Two that look at the same time; and the lock is one that zope.sendmail 7.3 respects."""
        self.put(1)
        self.fill()
        queue, other = MaildirQueue(self.path), MaildirQueue(self.path)
        [lease] = queue.claim(1)
        self.assertEqual(other.claim(1), [])
        [mail] = [name for name in self.files() if not name.startswith(".")]
        self.assertEqual(self.files(), [f".sending-{mail}", mail])
        self.empty()
        self.assertEqual(MaildirQueue(self.path).claim(1), [])
        self.assertEqual(MaildirQueue(self.path).admin.count(), {State.SENDING: 1})
        lease.release()
        self.assertEqual(len(MaildirQueue(self.path).claim(1)), 1)

    def test_leaves_alone_what_an_older_release_sends(self) -> None:
        """Its lock is a link to the mail, too."""
        self.put(1)
        [mail] = self.files()
        new = os.path.join(self.path, "new")
        os.utime(os.path.join(new, mail))
        os.link(os.path.join(new, mail), os.path.join(new, f".sending-{mail}"))
        self.fill()
        self.assertEqual(MaildirQueue(self.path).claim(1), [])
        self.assertEqual(self.files(), [f".sending-{mail}", mail])

    def die(self, *steps: str) -> None:
        """Let a process die with a mail in hand, behind these steps of its lease."""
        script = textwrap.dedent(
            f"""
            import os, signal
            from zope.sendmail.queue import open_queue
            [lease] = open_queue({self.queue().location!r}).claim(1)
            for step in {steps!r}:
                getattr(lease, step)()
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
        self.assertEqual(done.returncode, -signal.SIGKILL)

    def unknowns_after(self, *steps: str, with_room: bool) -> int:
        """Return how many outcomes are unknown when a process has died: another one sees that it has."""
        self.put(1)
        self.fill()
        self.die(*steps)
        if with_room:
            self.empty()
        queue = self.queue()
        self.addCleanup(queue.close)
        if not self.is_own:
            self.assertEqual(queue.claim(1), [])
            self.clock.advance(80)
        [lease] = queue.claim(1)
        return lease.record.unknowns

    def test_leaves_a_lock_to_another_host_until_that_is_silent_for_long(self) -> None:
        """Where another host may have the file system too, a lock that is not seen may be held there."""
        self.put(1)
        self.fill()
        self.die("open")
        queue = self.queue()
        self.addCleanup(queue.close)
        self.enterContext(mock.patch.object(queue.disk, "is_local", return_value=False))
        self.assertEqual(queue.claim(1), [])
        self.empty()
        self.clock.advance(80)
        self.assertEqual(len(queue.claim(1)), 1)

    def test_remembers_what_died_while_the_relay_may_have_had_the_mail(self) -> None:
        """The outcome is unknown."""
        self.assertEqual(self.unknowns_after("open", "intend", with_room=True), 1)

    def test_remembers_that_the_relay_cannot_have_had_the_mail(self) -> None:
        """The mail is tried again when the death can be written down."""
        self.assertEqual(self.unknowns_after("open", with_room=True), 0)

    def test_keeps_a_mail_of_which_it_cannot_write_down_that_its_outcome_is_unknown(self) -> None:
        """It is sent when that stands in its history."""
        self.put(1)
        self.fill()
        self.die("open", "intend")
        queue = self.queue()
        self.addCleanup(queue.close)
        with self.assertLogs("QueueProcessorThread"):
            self.assertEqual(queue.claim(1), [])
        self.empty()
        self.clock.advance(3600)
        [lease] = queue.claim(1)
        self.assertEqual(lease.record.unknowns, 1)


class AFullDiskWithoutReserve(WithoutReserveTest):
    def test_is_drained_although_the_room_of_each_mail_is_taken_at_once(self) -> None:
        """No mail needs the room that another one has left."""
        self.put(5)
        self.fill()
        processor, _ = self.processor()
        assert processor.queue is not None
        for _ in range(5):
            [lease] = processor.queue.claim(1)
            lease.open()
            lease.intend()
            lease.settle(Record(state=State.SENT))
            self.fill()
        self.assertEqual(self.files(), [])
        processor.queue.close()


class ADiskWithoutInodesOrReserve(WithoutReserveTest):
    """There is no room for the lock's name, either, until an empty directory has made some."""

    options = NO_INODES


class AFullExt4WithoutReserve(AFullDiskWithoutReserve):
    file_system = "ext4"


class AFullExt4(FullDiskTest):
    file_system = "ext4"

    def test_keeps_the_deferral_of_a_mail_that_was_tried_before(self) -> None:
        """There is room in what its history has already, also for the next process."""
        self.put(1)
        for attempts in (1, 2):
            processor, _ = self.processor(lambda who: LATER)
            processor.run(forever=False)
            [mail] = MaildirQueue(self.path).admin.mails()
            self.assertEqual((mail.state, mail.history[-1].attempts), (State.DEFERRED, attempts))
            self.fill()
            self.clock.advance(3600)

    def test_keeps_count_and_delay_of_attempts_that_cannot_be_written_down(self) -> None:
        """The next process waits as long as this one would, and the one behind it longer."""
        self.put(1)
        self.fill()
        self.clock.wall = os.stat(self.path).st_mtime  # files are stamped by the system's clock
        for attempts in (1, 2, 3):
            with self.assertLogs("QueueProcessorThread", "WARNING"):
                self.drained(lambda who: LATER)
            [mail] = MaildirQueue(self.path).admin.mails()
            self.assertEqual((mail.state, mail.history[-1].attempts), (State.DEFERRED, attempts))
            self.assertEqual(self.drained(), [])
            self.clock.advance(SCHEDULE.delay(attempts, 0.5) - 1.0)
            self.assertEqual(self.drained(), [])
            self.clock.advance(2.0)
        self.assertEqual(self.drained(), ["0@example.org"])


class AnExt4WithoutInodesOrReserve(WithoutReserveTest):
    """There is room for names."""

    options = NO_INODES
    file_system = "ext4"


class AFullSpoolWithoutReserve(WithoutReserveTest):
    """A spool that MaildropHost 2.3 used, first opened when there is no room for the queue within it."""

    file_system = "ext4"

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path, 0o700)

    def put(self, count: int) -> None:
        self.drop(self.path, count)

    def queue(self) -> SpoolQueue:
        return SpoolQueue(self.path, schedule=SCHEDULE, clock=self.clock)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def test_is_drained_by_a_processor_that_starts(self) -> None:
        """Every mail leaves, once; nothing is left of it, and then the spool is as any other."""
        self.put(30)
        self.fill()
        self.assertEqual(self.drained(), sorted(f"{number}@example.org" for number in range(30)))
        self.put(1)
        self.empty()
        self.assertEqual(self.drained(), ["0@example.org"])
        self.assertEqual(self.files(), [".queue"])

    def test_counts_the_attempts_at_what_waits_in_it(self) -> None:
        """In the memory of the process; there is no room for more."""
        self.put(1)
        self.fill()
        processor, _ = self.processor(lambda who: LATER)
        for attempts in (1, 2, 3):
            with self.assertLogs("QueueProcessorThread", "WARNING"):
                processor.new_run().once()
            assert processor.queue is not None
            [mail] = processor.queue.admin.mails()
            self.assertEqual((mail.state, mail.history[-1].attempts), (State.DEFERRED, attempts))
            self.clock.advance(SCHEDULE.delay(attempts, 0.5) + 1.0)
        processor.new_run().end()

    def test_is_drained_although_the_room_of_each_mail_is_taken_at_once(self) -> None:
        """No mail needs the room that another one has left."""
        self.put(5)
        self.fill()
        queue = self.queue()
        self.addCleanup(queue.close)
        for _ in range(5):
            [lease] = queue.claim(1)
            lease.open().close()
            lease.intend()
            lease.settle(Record(state=State.SENT))
            self.fill()
        self.assertEqual(self.files(), [])

    def test_gives_a_mail_to_one_process(self) -> None:
        """Two that look at the same time, with room and without."""
        self.put(1)
        self.fill()
        [lease] = self.queue().claim(1)
        self.assertEqual(self.queue().claim(1), [])
        self.empty()
        self.assertEqual(self.queue().claim(1), [])
        self.assertEqual(self.queue().admin.count(), {State.SENDING: 1})
        lease.release()
        self.assertEqual(self.queue().admin.count(), {State.READY: 1})
        self.assertEqual(len(self.queue().claim(1)), 1)

    def test_keeps_what_was_rejected_until_that_can_be_written_down(self) -> None:
        """The rejection is not lost, and no relay is asked again; then the mail is set aside as any other."""
        self.put(2)
        self.fill()
        queue = self.queue()
        self.addCleanup(queue.close)
        with self.assertLogs("QueueProcessorThread"):
            for lease in queue.claim(2):
                self.fill()
                lease.settle(Record(state=State.REJECTED))
        self.assertEqual(queue.claim(1), [])
        self.empty()
        self.clock.advance(3600)
        self.assertEqual(queue.claim(1), [])
        self.assertEqual((queue.admin.count(), self.files()), ({State.REJECTED: 2}, [".queue"]))
        [mail, _] = queue.admin.mails()
        queue.admin.retry(mail.name)
        self.assertEqual(len(queue.claim(2)), 1)

    def test_leaves_alone_what_an_older_release_sends(self) -> None:
        """MaildropHost 2.3 locks nothing; a daemon does not start beside it."""

    def test_lets_an_operator_make_room(self) -> None:
        """All mail can be removed, and is shown before."""
        self.put(5)
        self.fill()
        queue = self.queue()
        self.assertIn(Kind.ROOM, [finding.kind for finding in queue.admin.examine()])
        self.assertEqual(len(queue.claim(1)), 1)
        queue.close()
        self.assertEqual(self.files()[0][:7], ".taken-")
        for mail in list(queue.admin.mails()):
            queue.admin.remove(mail.name)
        queue.close()
        self.assertEqual([name for name in self.files() if name != ".queue"], [])


class ASpoolWithoutInodesOrReserve(AFullSpoolWithoutReserve):
    options = NO_INODES
    file_system = "tmpfs"


class AQuota(FullDiskTest):
    """No room for this user although there is some on the disk (EDQUOT), in a queue with reserve, without, in a spool.

    The disk is a seam, as not every kernel can have real quotas.
    """

    def setUp(self) -> None:
        super().setUp()
        self.disk = QuotaDisk()

    kind: type[MaildirQueue] = MaildirQueue

    def mount(self) -> None:
        """Do without a disk of its own."""

    def fill(self) -> None:
        self.disk.is_used_up = True

    def queue(self) -> MaildirQueue:
        return self.kind(self.path, schedule=SCHEDULE, clock=self.clock, disk=self.disk)

    def kinds(self) -> Iterator[str]:
        """Make each kind of queue with three mails, and let there be no room for more."""
        for name in ("reserve", "none", "spool"):
            self.disk.is_used_up = False
            self.path = os.path.join(self.root, name)
            self.kind = SpoolQueue if name == "spool" else MaildirQueue
            if name == "reserve":
                self.put(3)
            elif name == "none":
                self.put_as_before(3)
            else:
                os.mkdir(self.path, 0o700)
                self.drop(self.path, 3)
            self.fill()
            yield name

    def test_used_up_does_not_keep_mail_from_leaving(self) -> None:
        """Every mail leaves, once."""
        for kind in self.kinds():
            self.assertEqual(self.drained(), [f"{number}@example.org" for number in range(3)], kind)
            self.assertEqual(self.queue().admin.count(), {}, kind)

    def test_used_up_lets_an_operator_make_room(self) -> None:
        """All mail can be removed."""
        for kind in self.kinds():
            queue = self.queue()
            for mail in list(queue.admin.mails()):
                queue.admin.remove(mail.name)
            queue.close()
            self.assertEqual(self.queue().admin.count(), {}, kind)

    def test_used_up_does_not_let_a_relay_be_hammered(self) -> None:
        """Delays grow, and a rejection is not lost."""
        answers = {"0@example.org": LATER, "1@example.org": NEVER}
        for kind in self.kinds():
            processor, mailer = self.processor(lambda who: answers.get(who, OK))
            with self.assertLogs("QueueProcessorThread", "WARNING"):
                for _ in range(200):
                    processor.new_run().once()
                    self.clock.advance(1)
            asked = [who for mail in mailer.sent for who in mail[1]]
            self.assertEqual(asked, ["2@example.org"], kind)
            self.disk.is_used_up = False
            self.clock.advance(240)
            processor.new_run().once()
            processor.new_run().end()
            [rejected] = self.queue().admin.mails([State.REJECTED])
            [deferred] = self.queue().admin.mails([State.DEFERRED])
            self.assertEqual((rejected.history[-1].attempts, deferred.history[-1].attempts), (1, 4), kind)


class QuotaDisk(Disk):
    """A disk on which this user gets no more room: for no file, no directory and no octet."""

    is_used_up = False

    def _check(self) -> None:
        if self.is_used_up:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def _create(self, path: str, *pieces: Piece) -> int:
        self._check()
        return super()._create(path, *pieces)

    def create_in_place(self, path: str, data: bytes) -> None:
        """See `Disk.create_in_place`."""
        self._check()
        super().create_in_place(path, data)

    def open_locked(self, path: str) -> int:
        """See `Disk.open_locked`."""
        self._check()
        return super().open_locked(path)

    def open_for_append(self, path: str) -> int:
        """See `Disk.open_for_append`."""
        self._check()
        return super().open_for_append(path)

    def make_directory(self, path: str) -> bool:
        """See `Disk.make_directory`."""
        if not os.path.isdir(path):
            self._check()
        return super().make_directory(path)


class FewNamesDisk(Disk):
    """A disk with room for two locks, as in directories that are all but full; an older one has to go first."""

    def _check(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        places = [os.path.join(os.path.dirname(directory), each) for each in ("new", "cur")]
        names = [each for place in places if os.path.isdir(place) for each in os.listdir(place)]
        if name.startswith(".sending-") and sum(each.startswith(".sending-") for each in names) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def link(self, old: str, new: str) -> None:
        """See `Disk.link`."""
        self._check(new)
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """See `Disk.rename_new`."""
        self._check(new)
        super().rename_new(old, new)


class ADirectoryWithoutRoom(FullDiskTest):
    def mount(self) -> None:
        """Do without a disk of its own."""

    def queue(self) -> MaildirQueue:
        return MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=FewNamesDisk())

    def test_is_drained_whole(self) -> None:
        """A lock for which there is no room while others are out is no trouble of the queue: it comes behind them."""
        for make in (self.put, self.put_as_before):
            make(9)
            self.assertEqual(self.drained(), [f"{number}@example.org" for number in range(9)])

    def test_is_left_for_a_moment_only(self) -> None:
        """What has no room for its lock is due when another one ends."""
        self.put(5)
        queue = self.queue()
        self.addCleanup(queue.close)
        first, second = queue.claim(5)
        self.assertEqual((queue.claim(5), queue.next_due()), ([], 0.2))
        first.release()
        self.assertEqual(len(queue.claim(5)), 1)
        second.release()
        self.assertEqual(len(queue.claim(5)), 1)


class CommandTest(FullDiskTest):
    """What an operator calls where nothing more fits, in processes of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.enterContext(Relay())
        self.config = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "maildrop.conf")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f'MAILDROP_HOME="{self.root}"\nSMTP_HOST="127.0.0.1"\nSMTP_PORT={self.relay.port}\n')
        self.spool = os.path.join(self.root, "spool")
        os.mkdir(self.spool, 0o700)

    def open_spool(self) -> None:
        """Let the spool be one that was looked at before."""
        queue = open_queue("spool:" + self.spool)
        queue.claim(0)
        queue.close()

    def run_module(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", *words]
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def maildrop(self, verb: str) -> subprocess.CompletedProcess[str]:
        return self.run_module("zope.sendmail.maildrop", "--config", self.config, verb)


class Commands(CommandTest):
    #: How many mails cannot be removed, as they are no files of their own yet.
    left_in_bundle = 0

    def test_maildrop_once_sends_all(self) -> None:
        """Although there is no room for its log."""
        self.open_spool()
        self.drop(self.spool, 9)
        self.fill()
        done = self.maildrop("once")
        self.assertEqual((done.returncode, len(self.relay.mails)), (0, 9), done.stderr)

    def test_maildrop_starts(self) -> None:
        """What is due leaves first, if there is no room for its pid file."""
        self.open_spool()
        self.drop(self.spool, 9)
        self.fill()
        self.addCleanup(self.maildrop, "stop")
        done = self.maildrop("start")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.maildrop("status").returncode, 0)
        self.assertEqual(self.maildrop("stop").returncode, 0)  # after the message in hand
        self.maildrop("once")
        self.assertEqual(len(self.relay.mails), 9)

    def test_zope_sendmail_sends_all(self) -> None:
        """In one process, and in two."""
        for count, more in ((30, []), (8, ["--processes", "2"])):
            self.put(count)
            self.fill()
            before = len(self.relay.mails)
            options = ["--hostname", "127.0.0.1", "--port", str(self.relay.port), *more]
            done = self.run_module("zope.sendmail.cli", *options, self.path)
            self.assertEqual((done.returncode, len(self.relay.mails) - before), (0, count), done.stderr)
            for name in os.listdir(self.ballast):
                os.unlink(os.path.join(self.ballast, name))

    def test_zope_sendmail_sends_all_of_an_older_release(self) -> None:
        """A queue without a reserve; one mail was removed by hand before."""
        self.put_as_before(9)
        self.fill()
        name = os.listdir(os.path.join(self.path, "new"))[0]
        done = self.run_module("zope.sendmail.cli", "queue", "remove", self.path, name, "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        options = ["--hostname", "127.0.0.1", "--port", str(self.relay.port)]
        done = self.run_module("zope.sendmail.cli", *options, self.path)
        self.assertEqual((done.returncode, len(self.relay.mails)), (0, 8), done.stderr)

    def test_what_needs_room_says_what_does_not(self) -> None:
        """And loses nothing; then that can be done."""
        self.put(9)
        self.fill()
        done = self.run_module("zope.sendmail.cli", "queue", "bounce", self.path, "--all", "--yes")
        self.assertEqual(done.returncode, 74, done.stdout)
        self.assertIn("'queue remove' works without room", done.stderr)
        self.assertGreaterEqual(sum(MaildirQueue(self.path).admin.count().values()), 9)
        for _ in range(3):  # what was committed last gets a file of its own when the first has made room for it
            done = self.run_module("zope.sendmail.cli", "queue", "remove", self.path, "--all", "--yes")
            self.assertEqual(done.returncode, min(1, self.left_in_bundle), done.stderr)  # it says that one is left
        self.assertEqual(sum(MaildirQueue(self.path).admin.count().values()), self.left_in_bundle)


class CommandsWithoutInodes(Commands):
    options = NO_INODES


class CommandsForANewSpool(CommandTest):
    """There is no room for the queue within a spool, which no release from 8 on has opened before."""

    file_system = "ext4"

    def test_maildrop_once_sends_all(self) -> None:
        """Each mail once, whatever the directory lacks."""
        self.drop(self.spool, 9)
        self.fill()
        done = self.maildrop("once")
        self.assertEqual((done.returncode, len(self.relay.mails)), (0, 9), done.stderr)
        self.assertEqual(len({mail.recipients for mail in self.relay.mails}), 9)

    def test_maildrop_starts_and_stops(self) -> None:
        """What is due leaves first, and makes the room for the daemon's own files."""
        self.drop(self.spool, 30)
        self.fill()
        self.addCleanup(self.maildrop, "stop")
        done = self.maildrop("start")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.maildrop("stop").returncode, 0)
        self.maildrop("once")
        self.assertEqual(len(self.relay.mails), 30)

    def test_an_operator_lists_and_removes(self) -> None:
        """And is told that the disk is full."""
        self.drop(self.spool, 4)
        self.fill()
        location = "spool:" + self.spool
        listed = self.run_module("zope.sendmail.cli", "queue", "list", location)
        self.assertEqual((listed.returncode, listed.stdout.count("@example.org")), (0, 8), listed.stdout)
        doctor = self.run_module("zope.sendmail.cli", "queue", "doctor", location)
        self.assertIn("The file system of the queue has", doctor.stdout)
        self.assertEqual(doctor.returncode, 2)
        done = self.run_module("zope.sendmail.cli", "queue", "remove", location, "--all", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([name for name in os.listdir(self.spool) if name != ".queue"], [])


class CommandsForANewSpoolWithoutInodes(CommandsForANewSpool):
    options = NO_INODES
    file_system = "tmpfs"


class _SlowDisk(Disk):
    """A disk on which removing a mail takes a while.

    :param clock: that of the queue, whose time the removals take.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked = threading.Event()

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        if "/new/" in path:
            self.clock.advance(0.05)
        super().unlink(path)

    def batch(self, fds: Sequence[int]) -> BatchClose:
        """Return files that are held open, whose space no thread beside the way frees before the disk is asked."""
        disk = self

        class Waiting(BatchClose):
            def close(self) -> None:
                if threading.current_thread().name == "zope.sendmail.sweeper":
                    disk.asked.wait(300)
                super().close()

        return Waiting(fds)


class _AskedQueue(MaildirQueue):
    """A queue that tells its slow disk when it is asked for more."""

    disk: _SlowDisk

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MaildirLease]:
        """See `IMailQueue.claim`."""
        self.disk.asked.clear()
        return super().claim(limit, ahead=ahead)

    def close(self) -> None:
        """See `IMailQueue.close`."""
        self.disk.asked.set()
        super().close()

    def next_due(self) -> float | None:
        """See `IMailQueue.next_due`."""
        self.disk.asked.set()
        return super().next_due()


class RemovalTest(FullDiskTest):
    """Mail is removed beside the way, as on a disk that is slow, or a machine with much to do."""

    options = NO_INODES

    def test_is_drained_whole_where_mail_is_removed_beside_the_way(self) -> None:
        """A pass does not end while a mail that was sent is only to be removed, which makes the room for what follows:
        for another lock, or for the files of a bundle.
        """
        for count in (8, 30):
            self.put(count)
            self.fill()
            self.assertEqual(self.sent_by_a_pass(), count)
            self.assertEqual(self.drained(), [])
            for name in os.listdir(self.ballast):
                os.unlink(os.path.join(self.ballast, name))

    def sent_by_a_pass(self) -> int:
        mailer = ScriptedMailer()
        queue = _AskedQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=_SlowDisk(self.clock))
        processor = QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock, tell=lambda _: None)
        processor.run(forever=False)
        return len(mailer.sent)


class ADiskWithoutInodes(AFullDisk, RemovalTest):
    """Not even one more name of a file goes on tmpfs: the lock is the owner file's own name."""

    options = NO_INODES


class AnExt4WithoutInodes(RemovalTest):
    """Locks go, but no file."""

    file_system = "ext4"

    def test_gives_the_mails_of_a_bundle_for_which_a_removal_makes_room(self) -> None:
        """They are due when the space of what was sent is free, be it beside the way."""
        self.enterContext(mock.patch.object(staging, "later"))  # a thread that takes room, and gives it back
        self.put(30)
        self.fill()
        disk = _SlowDisk(self.clock)
        queue = _AskedQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.enterContext(mock.patch.object(sweeper, "BatchClose", disk.batch))
        self.addCleanup(queue.close)
        count = 0
        while leases := queue.claim(64) or (queue.next_due() == 0.0 and queue.claim(64)):
            for lease in leases:
                ordinary: Any = lease
                outcome = Outcome("relay", dict.fromkeys(lease.envelope.recipients, OK))
                ordinary.settle_sent([(lease, outcome, sent_at_once(outcome, now=0.0))])
                count += 1
        self.assertEqual(count, 30, f"{self.left()}, {queue.next_due()} s")

    def left(self) -> str:
        """Return what the disk and the queue have, for a failure that comes once in a thousand runs."""
        names = {name: os.listdir(os.path.join(self.path, name)) for name in ("new", "cur")}
        groups = [os.listdir(os.path.join(self.path, "new", name)) for name in names["new"] if name[0] == "."]
        return f"{os.statvfs(self.root).f_ffree} inodes, {os.statvfs(self.root).f_bfree} blocks, {names}, {groups}"


del CommandTest, RemovalTest, WithoutReserveTest


load_tests = in_layer(Servers)
