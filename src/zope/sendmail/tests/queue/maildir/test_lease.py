"""Leases of a Maildir queue: what they say when the disk refuses, or something is unusual with their mail."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue.maildir.hold import Hold
from zope.sendmail.queue.maildir.index import Index
from zope.sendmail.queue.maildir.locks import Busy, CannotClaim
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk

ENVELOPE = Envelope("sender@example.org", ("one@example.org",))


class LeaseTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.disk, self.clock = FaultyDisk(), ManualClock()
        self.queue = self.open()

    def open(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=self.disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, text: bytes = MESSAGE, terms: Terms | None = None) -> str:
        staged = self.queue.stage()
        name = staged.add(
            ENVELOPE if terms is None else Envelope("a@example.org", ("b@example.org",), terms=terms), text
        )
        staged.prepare()
        staged.commit()
        return name

    def lease(self, text: bytes = MESSAGE, *, ordinary: bool) -> Any:
        self.put(text, None if ordinary else Terms(expires=self.clock.time() + 60))
        [lease] = self.queue.claim()
        return lease


class TheSize(LeaseTest):
    def test_is_that_of_the_message(self) -> None:
        """Not of the envelope; and asking moves no stream that is being read."""
        for ordinary in (True, False):
            lease = self.lease(ordinary=ordinary)
            stream = lease.open()
            stream.read(5)
            self.assertEqual((lease.size, stream.read()), (len(MESSAGE), MESSAGE[5:]))
            lease.settle(Record(State.SENT))

    def test_is_not_known_when_the_lease_has_ended_or_the_disk_refuses(self) -> None:
        """It is told in a log or a trace, and is no reason to fail."""
        lease = self.lease(ordinary=False)
        with mock.patch.object(lease, "_open_stream", side_effect=OSError(errno.EIO, "io")):
            self.assertIsNone(lease.size)
        lease.release()
        self.assertIsNone(lease.size)


class TheMessageId(LeaseTest):
    def test_is_none_if_it_cannot_be_had(self) -> None:
        """It is malformed, or the disk refuses; the mail is sent all the same."""
        for ordinary in (True, False):
            lease = self.lease(b"Message-Id: nothing that is one\n\nText\n", ordinary=ordinary)
            self.assertEqual(lease.message_id, "")
            lease.settle(Record(State.SENT))
        lease = self.lease(ordinary=False)
        with mock.patch.object(lease, "_open_stream", side_effect=OSError(errno.EIO, "io")):
            self.assertEqual(lease.message_id, "")


class AnOrdinaryMail(LeaseTest):
    def test_that_another_process_had_leaves_no_history(self) -> None:
        """Which that one may have written; the mail is sent, and that is the end of it."""
        lease = self.lease(ordinary=True)
        lease.accepted()
        self.queue.store.append(lease.key, Record(State.DEFERRED, attempts=1, time=self.clock.time(), due=0.0))
        os.unlink(self.queue.layout.message(lease.key))
        self.assertEqual(lease.leave(Record(State.SENT)), lease.key)
        self.assertEqual(os.listdir(self.queue.layout.history_), [])


class AFirstAttempt(LeaseTest):
    def test_of_a_mail_that_a_processor_has_locked_already(self) -> None:
        """It is that one's."""
        attempts = self.queue.first_attempts()
        self.addCleanup(attempts.close)
        staged = self.queue.stage()
        name = staged.add(ENVELOPE, MESSAGE)
        staged.prepare()
        with mock.patch.object(attempts._owner, "take", return_value=Busy(2.0)):
            attempts.commit(staged)
        self.assertIsNone(attempts.claim(name))
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_gives_no_way(self) -> None:
        """Nothing is parked for its relay by this process, and the person waits."""
        attempts = self.queue.first_attempts()
        self.addCleanup(attempts.close)
        staged = self.queue.stage()
        name = staged.add(ENVELOPE, MESSAGE)
        staged.prepare()
        attempts.commit(staged)
        lease = attempts.claim(name)
        assert lease is not None
        self.assertFalse(lease.give_way("relay"))
        lease.release()


class ATransactionsFile(LeaseTest):
    def test_is_let_go_of_once(self) -> None:
        """Its number may be another file's by then."""
        fd = os.open(os.devnull, os.O_RDONLY)
        hold = Hold(fd)
        hold.close()
        again = os.open(os.devnull, os.O_RDONLY)
        self.assertEqual(again, fd)
        hold.close()
        os.fstat(again)
        os.close(again)


class ByPriority(LeaseTest):
    """Where no lock can be made any more in the middle of a claim."""

    def test_what_was_leased_before_is_given_out(self) -> None:
        """The next claim meets the trouble again, with the words of the disk."""
        for number in range(3):
            self.put(b"Subject: %d\n\n" % number, Terms(priority=Priority.HIGH))
            self.put(b"Subject: %d\n\n" % number)
        self.queue.claim(0)
        real, count = self.disk.link, 0

        def link(old: str, new: str) -> None:
            nonlocal count
            count += ".sending-" in new
            if count > 2 and ".sending-" in new:
                raise PermissionError(errno.EACCES, "not allowed", new)
            real(old, new)

        with mock.patch.object(self.disk, "link", link):
            self.assertEqual(len(self.queue.claim(6)), 2)
            with self.assertRaisesRegex(CannotClaim, "not allowed"):
                self.queue.claim(6)
        self.assertEqual(len(self.queue.claim(6)), 4)

    def test_nothing_is_before_what_is_usual_if_nothing_else_is_due(self) -> None:
        """A mail of low priority does not count, and one of high priority that is not due neither."""
        self.put()
        self.put(terms=Terms(priority=Priority.HIGH, not_before=self.clock.time() + 60))
        self.queue.claim(0)
        self.assertFalse(self.queue.has_before(Priority.NORMAL))
        self.assertTrue(self.queue.has_before(Priority.LOW))
        self.clock.advance(61)
        self.assertTrue(self.queue.has_before(Priority.NORMAL))

    def test_more_are_due_than_one_claim_looks_at(self) -> None:
        """Those that are gone cost it no more than a moment: the next claim goes on."""
        names = [self.put() for _ in range(4)]
        high = [self.put(terms=Terms(priority=Priority.HIGH)) for _ in range(4)]
        self.queue.claim(0)
        for name in (*names[:3], *high[:3]):
            os.unlink(self.queue.layout.message(f"new/{name}"))
        with mock.patch("zope.sendmail.queue.maildir.claims._TRIES", 2):
            found = [lease.name for _ in range(6) for lease in self.queue.claim(9)]
        self.assertEqual(sorted(found), sorted([names[3], high[3]]))


class AMailOfAnotherProgram(unittest.TestCase):
    def test_is_given_up_when_its_lines_say_it_whatever_becomes_of_it(self) -> None:
        """Its name does not: it may have been moved to where there was room for its lock, or parked."""
        for move, park in ((True, False), (False, True), (True, True)):
            index, key = Index(), "new/letter"
            index.add(key)
            self.assertEqual(index.take(1.0), key)
            index.expect(key, 100.0)
            if move:
                index.move(key, key := "cur/letter")
            if park:
                index.park(key, "relay")
            else:
                index.put(key, 50.0)
            self.assertEqual(index.next_expiry(), 100.0)
            self.assertEqual(index.take_expired(100.0), key)


if __name__ == "__main__":
    unittest.main()
