"""A disk that refuses one kind of call for a while: what the queue makes of it, and that it goes on afterwards."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
import unittest
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from zope.sendmail.errors import QueueError, QueueTrouble
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import put
from zope.sendmail.queue.maildir.locks import CannotClaim, OneAtATime, Owner
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, NEVER, OK, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk

ENVELOPE = Envelope("sender@example.org", ("one@example.org",))


class RefusingDisk(FaultyDisk):
    """Refuses the calls that are named."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: frozenset[str] = frozenset()
        self.refusals = 0

    def _count(self, call: str) -> None:
        if call in self.refused:
            self.refusals += 1
            raise OSError(self.error, os.strerror(self.error))


class Refused(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.disk, self.clock = RefusingDisk(), ManualClock()
        self.queue = MaildirQueue(self.path, disk=self.disk, clock=self.clock)
        self.addCleanup(self.queue.close)

    @contextlib.contextmanager
    def refusing(self, *calls: str, error: int = errno.EIO) -> Iterator[None]:
        """Refuse these calls until the end of the block."""
        self.disk.refused, self.disk.error = frozenset(calls), error
        try:
            yield
        finally:
            self.disk.refused = frozenset()

    def owners(self) -> list[str]:
        """Return the names of the owner files, beside which there is a reserve."""
        return [name for name in os.listdir(self.queue.layout.locks) if not name.startswith(".reserve-")]

    def staged(self) -> Any:
        staged = self.queue.stage()
        staged.add(ENVELOPE, MESSAGE)
        staged.prepare()
        return staged


class ACommit(Refused):
    """Where the vote was passed, and the rename is refused."""

    def test_comes_up_with_the_next_use_of_the_queue(self) -> None:
        """Not before the disk takes it."""
        self.queue.claim()  # so that there is an owner file
        staged = self.staged()
        with self.refusing("rename"):
            with self.assertRaises(OSError):
                staged.commit()
            self.assertEqual(self.queue.claim(), [])
        [lease] = self.queue.claim()
        self.assertEqual(lease.name, staged.names[0])
        lease.release()

    def test_of_mail_that_was_removed_meanwhile_is_told(self) -> None:
        """The log says it once; other mail is sent."""
        staged = self.staged()
        with self.refusing("rename"), self.assertRaises(OSError):
            staged.commit()
        [path] = glob.glob(os.path.join(self.path, "tmp", staged.names[0]))
        os.unlink(path)
        with self.assertLogs("MailDataManager", "ERROR") as logs:
            other = self.staged()
        other.commit()
        self.assertEqual(len(logs.output), 1)
        with self.assertNoLogs("MailDataManager"):
            [lease] = self.queue.claim(2)
        self.assertEqual(lease.name, other.names[0])
        lease.release()


class MailWithoutATransaction(unittest.TestCase):
    def test_is_in_the_queue_or_refused_whichever_call_fails(self) -> None:
        """What raises can be repeated, and is not sent twice; what does not raise is there, all of it."""
        for count in (1, 2, 12):
            nth, failed, returned = 0, "?", 0
            while failed:
                nth += 1
                with tempfile.TemporaryDirectory() as directory, self.subTest(count=count, nth=nth):
                    is_there, failed = self.put(directory + "/queue", count, nth)
                    returned += is_there
            self.assertGreater(returned, 2)
            self.assertGreater(nth - returned, 5)

    def put(self, path: str, count: int, nth: int) -> tuple[bool, str]:
        """Put so many mails into a queue while the n-th call fails; return whether it went, and what has failed."""
        MaildirQueue(path).stage()
        disk = FaultyDisk(nth)
        queue = MaildirQueue(path, disk=disk)
        self.addCleanup(queue.close)
        went, logged = True, self.enterContext(mock.patch("zope.sendmail.reporting.maillog.finish_failed"))
        try:
            put(queue, [ENVELOPE] * count, MESSAGE)
        except OSError:
            went = False
        disk.fail_at = 0
        queue.claim(0)
        self.assertEqual(MaildirQueue(path).admin.count(), {State.READY: count} if went else {})
        self.assertLessEqual(logged.call_count, went)
        return went, disk.failed


class AFirstAttempt(Refused):
    """Of the process that commits the mail."""

    def setUp(self) -> None:
        super().setUp()
        self.attempts = self.queue.first_attempts()
        self.addCleanup(self.attempts.close)

    def is_processors(self) -> bool:
        """Return whether a processor gets the mail now."""
        leases = self.queue.claim()
        for lease in leases:
            lease.release()
        return bool(leases)

    def test_of_mail_that_cannot_be_locked(self) -> None:
        """Is left to processors, as the log says."""
        staged = self.staged()
        with self.refusing("link"), self.assertLogs("MailDataManager") as logs:
            self.attempts.commit(staged)
        self.assertIn(staged.names[0], logs.output[0])
        self.assertIsNone(self.attempts.claim(staged.names[0]))
        self.assertTrue(self.is_processors())

    def test_of_mail_that_cannot_be_committed(self) -> None:
        """Its lock is given back: it comes up later, for processors."""
        staged = self.staged()
        with self.refusing("rename"), self.assertRaises(OSError):
            self.attempts.commit(staged)
        self.assertTrue(self.is_processors())

    def test_of_mail_that_cannot_be_read(self) -> None:
        """Likewise."""
        staged = self.staged()
        self.attempts.commit(staged)
        with self.refusing("open"), self.assertLogs("MailDataManager") as logs:
            self.assertIsNone(self.attempts.claim(staged.names[0]))
        self.assertIn(staged.names[0], logs.output[0])
        self.assertTrue(self.is_processors())

    def test_whose_lock_cannot_be_given_back(self) -> None:
        """The log tells it; a processor takes the mail over when its owner has gone."""
        staged = self.staged()
        self.attempts.commit(staged)
        with self.refusing("unlink"), self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.attempts.leave(staged.names[0])
        self.assertIn(staged.names[0], "".join(logs.output))
        self.assertFalse(self.is_processors())
        self.attempts.close()
        self.clock.advance(60.0)
        self.assertTrue(self.is_processors())

    def test_whose_end_cannot_be_written_down(self) -> None:
        """What the relay has said stands in the owner file, so that nobody sends the mail again."""
        staged = self.staged()
        self.attempts.commit(staged)
        lease = self.attempts.claim(staged.names[0])
        assert lease is not None
        lease.intend()
        replies = {"one@example.org": OK}
        with self.refusing("unlink", "append", "rename"), self.assertLogs("QueueProcessorThread", "WARNING"):
            lease.settle(replace(Record(), state=State.SENT, attempts=1, time=self.clock.time(), replies=replies))
        self.attempts.close()
        self.clock.advance(60.0)
        [found] = self.queue.claim()
        self.assertIs(found.record.state, State.SENT)
        found.settle(found.record)
        self.assertEqual(list(self.queue.admin.names()), [])

    def test_ends_though_its_removal_cannot_be_made_durable(self) -> None:
        """The transaction has long committed, and the mail is sent; its owner file does not stay."""
        staged = self.staged()
        self.attempts.commit(staged)
        lease = self.attempts.claim(staged.names[0])
        assert lease is not None
        lease.settle(Record(State.SENT))
        with self.refusing("sync_directory"):
            self.attempts.close()
        self.assertGreater(self.disk.refusals, 0)
        self.assertEqual(self.owners(), [])


class AQueueThatIsClosed(Refused):
    def test_lets_go_of_all_though_a_removal_cannot_be_made_durable(self) -> None:
        """Its owner file does not stay, which would keep others from its mail for a while."""
        self.staged().commit()
        [lease] = self.queue.claim()
        lease.settle(Record(State.SENT))
        self.assertNotEqual(self.owners(), [])
        with self.refusing("sync_directory"):
            self.queue.close()
        self.assertGreater(self.disk.refusals, 0)
        self.assertEqual(self.owners(), [])


class WhatADeathHasLeft(Refused):
    """A lock whose mail is gone: its processor died while it removed the rest."""

    def setUp(self) -> None:
        super().setUp()
        staged = self.staged()
        staged.commit()
        self.name = staged.names[0]
        dead = MaildirQueue(self.path, clock=self.clock)
        [lease] = dead.claim()
        lease.settle(replace(Record(), state=State.DEFERRED, attempts=1, time=self.clock.time(), due=0.0))
        self.clock.advance(5)
        [lease] = dead.claim()
        dead.close()
        os.unlink(os.path.join(self.path, "new", self.name))

    def left(self) -> list[str]:
        return [*os.listdir(os.path.join(self.path, "history")), *os.listdir(os.path.join(self.path, "new"))]

    def test_is_removed_when_the_disk_lets_it(self) -> None:
        """Until then it stays, and no mail is kept."""
        with self.refusing("unlink"), self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.queue.claim(), [])
        self.assertEqual(len(self.left()), 2)
        for _ in range(4):
            self.clock.advance(60.0)
            self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.left(), [])

    def test_is_removed_whole_without_a_further_look(self) -> None:
        """As where the directory has the same time stamp still."""
        with self.refusing("unlink"), self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.queue.claim(), [])
        with mock.patch.object(self.queue._claims._scanner, "look", return_value=[]):
            self.clock.advance(60.0)
            self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.left(), [])

    def test_is_removed_when_the_message_is_not_there_after_all(self) -> None:
        """It was between the look and the lock."""
        Disk().create(os.path.join(self.path, "new", self.name), b"X-Zope-From: a@example.org\n")
        self.queue._listen()
        os.unlink(os.path.join(self.path, "new", self.name))
        self.clock.advance(5)
        self.assertEqual(self.queue._claims.take(1), [])
        self.assertEqual(self.left(), [])

    def test_is_not_removed_of_a_message_that_has_moved(self) -> None:
        """Another program has seen it, and it is in ``cur/`` now: its history is its own."""
        Disk().create(os.path.join(self.path, "cur", self.name), b"X-Zope-From: a@example.org\n")
        self.queue.claim(0)
        self.assertEqual(self.left(), [self.name])

    def test_is_left_for_a_moment_where_there_is_room_for_one_lock_only(self) -> None:
        """The next look finds it again."""
        with mock.patch.object(Owner, "take", side_effect=OneAtATime(errno.ENOSPC, "full")):
            self.assertEqual(self.queue.claim(), [])
        self.clock.advance(700.0)
        self.assertEqual((self.queue.claim(), self.left()), ([], []))


class TooFewDescriptors(Refused):
    def test_are_no_trouble_of_one_mail(self) -> None:
        """Every message stays as due as it is, and the words are those of the system."""
        staged = self.staged()
        staged.commit()
        self.queue.claim(0)
        with self.refusing("open", "read_small", error=errno.EMFILE), self.assertRaises(CannotClaim) as caught:
            self.queue.claim()
        self.assertEqual(caught.exception.errno, errno.EMFILE)
        [lease] = self.queue.claim()
        self.assertEqual(lease.name, staged.names[0])
        lease.release()


class WithoutItsDirectory(Refused):
    def test_a_queue_is_in_trouble(self) -> None:
        """Somebody removed ``new/``, and the processor has it open: that is told, and it goes on when it is there."""
        self.queue.claim()
        os.rmdir(os.path.join(self.path, "new"))
        self.clock.advance(400)
        with self.assertRaises(FileNotFoundError):
            self.queue.claim()
        os.mkdir(os.path.join(self.path, "new"), 0o700)
        self.clock.advance(400)
        self.assertEqual(self.queue.claim(), [])


class ARejection(Refused):
    def test_that_cannot_be_set_aside_is_written_down_once(self) -> None:
        """However often that is tried until the disk takes the rename."""
        staged = self.staged()
        staged.commit()
        [lease] = self.queue.claim()
        replies = {"one@example.org": NEVER}
        record = replace(Record(), state=State.REJECTED, attempts=1, time=self.clock.time(), replies=replies)
        with self.refusing("rename"), self.assertLogs("QueueProcessorThread", "WARNING"):
            lease.settle(record)
            for _ in range(5):
                self.clock.advance(100.0)
                self.assertEqual(self.queue.claim(), [])
        self.clock.advance(100.0)
        self.assertEqual(self.queue.claim(), [])
        mail = self.queue.admin.show(staged.names[0])
        self.assertEqual((mail.state, list(mail.history)), (State.REJECTED, [record]))


class TheStatesOfProcessors(Refused):
    STATE = ProcessorState(pid=1, host="a", started=1.0, written=1.0, ended=0.0, forever=True, sent=1)

    def test_that_cannot_be_read_are_none(self) -> None:
        """Mail has nothing to do with them; an operator is told what the disk says."""
        self.queue.claim()
        self.queue.report(self.STATE)
        with self.refusing("names"):
            self.assertEqual(list(self.queue._states.read()), [])
            with self.assertRaises(OSError):
                self.queue._states.examine()
        self.assertEqual(len(self.queue._states.read()), 1)

    def test_that_say_nothing_are_none(self) -> None:
        """A loss of power has left an empty file, or another program wrote it."""
        self.queue.claim()
        self.queue.report(self.STATE)
        [path] = glob.glob(os.path.join(self.path, "processors", "[0-9]*"))
        for text in (b"", b"nothing"):
            with open(path, "wb") as stream:
                stream.write(text)
            self.assertEqual(list(self.queue._states.read()), [])

    def test_that_cannot_be_written_leave_nothing_behind(self) -> None:
        """The former one stays."""
        self.queue.claim()
        self.queue.report(self.STATE)
        with self.refusing("rename"):
            self.queue.report(replace(self.STATE, sent=2))
        self.assertEqual([state.sent for state in self.queue._states.read()], [1])
        self.assertEqual(glob.glob(os.path.join(self.path, "processors", ".*")), [])

    def test_are_written_over_what_a_death_has_left(self) -> None:
        """And where the directory is not there yet, or not any more."""
        self.queue.claim()
        self.queue.report(self.STATE)
        [path] = glob.glob(os.path.join(self.path, "processors", "[0-9]*"))
        with open(os.path.join(os.path.dirname(path), "." + os.path.basename(path)), "w", encoding="ascii"):
            pass
        self.queue.report(replace(self.STATE, sent=2))
        self.assertEqual([state.sent for state in self.queue._states.read()], [2])
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
        self.queue.report(replace(self.STATE, sent=3))
        self.assertEqual([state.sent for state in self.queue._states.read()], [3])


class TheTurnsOfARelay(Refused):
    def test_that_were_taken_before_the_clock_was_set_back(self) -> None:
        """No turn waits for longer than those that were taken ahead of it, however far the clock was set back."""
        for seconds in (0.5, 60.0, 1800.0, 86400.0):
            with self.subTest(seconds):
                relay = f"relay {seconds}"
                self.assertEqual(self.queue.take_turns(relay, 1.0, 3), 0.0)
                self.clock.wall -= seconds
                self.assertAlmostEqual(self.queue.take_turns(relay, 1.0, 1), 3.0)
                self.assertAlmostEqual(self.queue.take_turns(relay, 1.0, 1), 4.0)
                self.clock.advance(10.0)
                self.assertEqual(self.queue.take_turns(relay, 1.0, 1), 0.0)

    def test_that_a_process_of_before_has_noted(self) -> None:
        """Without the time at which that was: a turn that is far away counts no more."""
        self.queue.take_turns("relay", 1.0, 1)
        [path] = glob.glob(os.path.join(self.path, "processors", "turns-*"))
        for ahead, wait in ((5.0, 5.0), (4000.0, 0.0)):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(f"{self.clock.time() + ahead:<30.6f}\n")
            self.assertAlmostEqual(self.queue.take_turns("relay", 1.0, 1), wait)

    def test_whose_file_another_process_keeps(self) -> None:
        """For a second it is waited for; then the queue is in trouble, as the words say."""
        self.assertEqual(self.queue.take_turns("relay", 1.0, 1), 0.0)
        [path] = glob.glob(os.path.join(self.path, "processors", "turns-*"))
        begin = self.clock.monotonic()
        with self.disk.locked(path), self.assertRaisesRegex(QueueTrouble, "another process keeps the lock"):
            self.queue.take_turns("relay", 1.0, 1)
        self.assertGreater(self.clock.monotonic() - begin, 0.5)

    def test_that_cannot_be_written_down(self) -> None:
        """Likewise, with the disk's words."""
        with self.refusing("write_at"), self.assertRaisesRegex(QueueTrouble, "cannot be written down: .*Input/output"):
            self.queue.take_turns("relay", 1.0, 1)


class TheSuppressionList(Refused):
    def listed(self) -> list[str]:
        return [entry.address for entry in MaildirQueue(self.path, clock=self.clock).suppressions.entries()]

    def test_that_another_process_keeps(self) -> None:
        """Half a minute it is waited for, and the words say what to do."""
        self.queue.suppressions.add(Suppression.of("one@example.org"))
        with self.disk.locked(self.queue.suppressions._lock), self.assertRaisesRegex(QueueError, "try again"):
            self.queue.suppressions.add(Suppression.of("two@example.org"))
        self.assertEqual(self.listed(), ["one@example.org"])

    def test_that_grew_long_is_written_anew(self) -> None:
        """What was taken off it costs nothing for ever; what a death has left of that is in nobody's way."""
        entry, path = Suppression.of("one@example.org"), self.queue.suppressions._path
        self.queue.suppressions.add(entry)
        with open(path + ".new", "w", encoding="ascii") as left:
            left.write("[")
        with open(path, "a", encoding="ascii") as written:
            written.writelines(f'["{number}@example.org"]\n' for number in range(1200))
        self.queue.suppressions.add(entry)
        with open(path, "rb") as stream:
            self.assertEqual(len(stream.readlines()), 1)
        self.assertEqual(self.listed(), ["one@example.org"])

    def test_that_cannot_be_read_is_not_taken_for_empty(self) -> None:
        """Neither at first nor when another process has written it anew: mail waits until it can be read."""
        entry = Suppression.of("one@example.org")
        MaildirQueue(self.path, clock=self.clock).suppressions.add(entry)
        for _ in range(2):
            with self.refusing("open"):
                for _ in range(2):
                    with self.assertRaises(OSError):
                        self.queue.suppressions.among(["one@example.org"])
            self.assertEqual(self.queue.suppressions.among(["one@example.org"]), {"one@example.org": entry})
            os.replace(shutil.copy(self.queue.suppressions._path, self.path + ".copy"), self.queue.suppressions._path)
            self.clock.advance(1.0)

    def test_is_whole_for_others_while_it_is_read_anew(self) -> None:
        """An operator's process has written it anew; one thread reads it, and another one asks."""
        entry = Suppression.of("one@example.org")
        suppressions = self.queue.suppressions
        suppressions.add(entry)
        os.replace(shutil.copy(suppressions._path, self.path + ".copy"), suppressions._path)
        said: list[object] = []
        read = self.disk.open

        def asked_meanwhile(path: str) -> Any:
            said.append(suppressions.among(["one@example.org"]))
            return read(path)

        with mock.patch.object(self.disk, "open", asked_meanwhile):
            self.assertEqual(suppressions.entries(), [entry])
        self.assertEqual(said, [{"one@example.org": entry}])

    def test_that_cannot_be_written_anew_has_what_was_added(self) -> None:
        """A disk that refuses costs nothing but room."""
        path = self.queue.suppressions._path
        self.queue.suppressions.add(Suppression.of("one@example.org"))
        with open(path, "a", encoding="ascii") as written:
            written.writelines(f'["{number}@example.org"]\n' for number in range(1200))
        with self.refusing("rename", error=errno.ENOSPC):
            self.queue.suppressions.add(Suppression.of("two@example.org"))
        self.assertEqual(self.listed(), ["one@example.org", "two@example.org"])
        self.queue.suppressions.add(Suppression.of("three@example.org"))
        self.assertEqual(self.listed(), ["one@example.org", "three@example.org", "two@example.org"])

    def test_with_lines_of_others_in_it(self) -> None:
        """They say nothing, and change nothing."""
        self.queue.suppressions.add(Suppression.of("one@example.org"), Suppression.of("two@example.org"))
        with open(self.queue.suppressions._path, "a", encoding="ascii") as stream:
            stream.write('[3, "x", 0.0, null]\n["one@example.org", "torn\n{}\n')
        self.assertEqual(self.listed(), ["one@example.org", "two@example.org"])

    def test_to_which_nothing_is_added(self) -> None:
        """Costs nothing, not even a file."""
        self.queue.suppressions.add()
        self.assertFalse(os.path.exists(self.queue.suppressions._path))


if __name__ == "__main__":
    unittest.main()
