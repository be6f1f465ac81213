"""A Maildir queue whose owner file, disk or neighbours misbehave: no mail is lost, stuck or sent twice."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import tempfile
import threading
import unittest
import zlib
from collections import Counter
from dataclasses import replace
from itertools import islice
from math import inf
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.interfaces import IMailSentEvent, LeaseLost, NoSuchMail, NotPossible, QueueError, QueueNotSafe
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule, judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir import ownerfile
from zope.sendmail.queue.maildir.heartbeat import Heart
from zope.sendmail.queue.maildir.layout import RESERVE, Layout
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import MAX_SEND_TIME
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.store import Listing
from zope.sendmail.queue.maildir.trigger import Trigger
from zope.sendmail.queue.nondelivery import bounce
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, MESSAGE, OK, SCHEDULE, ManualClock, envelope
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.descriptors import open_below

ONE = "one@example.org"


class RefusingDisk(Disk):
    """Refuses the calls named in `refused` for paths with `part` in them, for as long as they are named there."""

    def __init__(self, *refused: str, part: str = "", error: int = errno.ENOSPC) -> None:
        self.refused = set(refused)
        self.part = part
        self.error = error

    def check(self, call: str, *paths: str) -> None:
        if call in self.refused and any(self.part in path for path in paths):
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: str, *pieces: Piece) -> None:
        self.check("create", path)
        super().create(path, *pieces)

    def append(self, path: str, *pieces: Piece) -> None:
        self.check("append", path)
        super().append(path, *pieces)

    def open(self, path: str) -> BinaryIO:
        self.check("open", path)
        return super().open(path)

    def rename(self, old: str, new: str) -> None:
        self.check("rename", old, new)
        super().rename(old, new)

    def link(self, old: str, new: str) -> None:
        self.check("link", old, new)
        super().link(old, new)

    def unlink(self, path: str) -> None:
        self.check("unlink", path)
        super().unlink(path)


class CountingDisk(Disk):
    """Counts what is asked of it, and the bytes it gives."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes = 0

    def names(self, path: str) -> list[str]:
        self.calls["names"] += 1
        return super().names(path)

    def stat(self, path: str) -> os.stat_result:
        self.calls["stat"] += 1
        return super().stat(path)

    def open(self, path: str) -> BinaryIO:
        self.calls["open"] += 1
        return super().open(path)

    def read(self, path: str) -> bytes:
        text = super().read(path)
        self.bytes += len(text)
        return text

    def read_tail(self, path: str, size: int) -> tuple[bytes, bool]:
        text, whole = super().read_tail(path, size)
        self.bytes += len(text)
        return text, whole


class WatchedDisk(Disk):
    """Writes down what is done to messages, locks and histories."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def note(self, call: str, path: str) -> None:
        directory, name = path.split(os.sep)[-2:]
        self.done.append((call, directory + "/lock" if name.startswith(".sending-") else directory))

    def open(self, path: str) -> BinaryIO:
        self.note("open", path)
        return super().open(path)

    def stat(self, path: str) -> os.stat_result:
        self.note("stat", path)
        return super().stat(path)

    def exists(self, path: str) -> bool:
        self.note("exists", path)
        return super().exists(path)

    def read_small(self, path: str) -> bytes | None:
        self.note("read_small", path)
        return super().read_small(path)

    def link(self, old: str, new: str) -> None:
        self.note("link", new)
        super().link(old, new)

    def unlink(self, path: str) -> None:
        self.note("unlink", path)
        super().unlink(path)

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        self.done.append(("write_at", ""))
        super().write_at(fd, data, offset)


class MaildirQueueTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        self.queue = self.open()

    def open(self, disk: Disk | None = None, schedule: Schedule = SCHEDULE) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=schedule, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int = 1) -> list[str]:
        staged = self.queue.stage()
        names = [staged.add(envelope(), MESSAGE) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def claim(self, queue: MaildirQueue | None = None) -> MaildirLease:
        """The one lease there is."""
        [lease] = (queue or self.queue).claim(10)
        return lease

    def claim_within(self, seconds: int, queue: MaildirQueue | None = None) -> list[MaildirLease]:
        """What a queue gives in this time, asked every ten seconds."""
        leases: list[MaildirLease] = []
        for _ in range(0, seconds, 10):
            self.clock.advance(10)
            leases += (queue or self.queue).claim(10)
        return leases

    def judged(self, lease: MaildirLease, reply: Reply) -> Record:
        outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, reply))
        return judge(lease.record, lease.envelope, outcome, SCHEDULE, now=self.clock.time(), chance=0.5)

    def die(self, *, intended: bool = True) -> str:
        """A processor dies with the one message in hand; its name."""
        dead = self.open()
        lease = self.claim(dead)
        lease.open()
        if intended:
            lease.intend()
        dead.close()
        self.clock.advance(5)
        return lease.name

    def names(self, directory: str) -> list[str]:
        """What is in a directory, but for the reserve, which any use makes."""
        return sorted(each for each in os.listdir(os.path.join(self.path, directory)) if not each.startswith(RESERVE))

    def lock_file(self, name: str) -> str:
        return os.path.join(self.path, "new", ".sending-" + name)

    def assert_inherited_unknown(self, lease: MaildirLease, *, deaths: int = 1) -> None:
        """Its last byte may have gone; that stands in the history, once."""
        assert lease.inherited is not None
        self.assertEqual(lease.inherited.replies[ONE].answer, Answer.UNKNOWN)
        self.assertEqual((lease.record.unknowns, lease.record.deaths), (deaths, deaths))
        self.assertEqual(self.queue.admin.show(lease.name).history[-1], lease.record)


class OpenedAgain(MaildirQueueTest):
    """The queue was closed and is used again while leases are out."""

    def test_an_old_lease_must_not_send(self) -> None:
        """Its lock went with the owner file, and the message is somebody's again."""
        self.put()
        old = self.claim()
        old.open()
        self.queue.close()
        new = self.claim()
        self.assertRaises(LeaseLost, old.intend)
        new.intend()

    def test_an_old_lease_takes_nothing_from_the_new_one(self) -> None:
        """Given back, it removes neither its lock nor what is written about it."""
        [name] = self.put()
        old = self.claim()
        self.queue.close()
        new = self.claim()
        new.open()
        new.intend()
        old.release()
        self.assertTrue(new.lock.is_ours())
        self.queue.close()
        self.assert_inherited_unknown(self.claim())
        self.assertTrue(os.path.exists(self.lock_file(name)))

    def test_leases_do_not_share_a_slot(self) -> None:
        """What each owner was doing is told apart, also after leases of an earlier owner ended."""
        self.put(3)
        old = self.queue.claim(3)
        self.queue.close()
        for lease in old:
            lease.release()
        first = self.queue.claim(10)
        self.put(4)
        leases = first + self.queue.claim(10)
        self.assertEqual(len(leases), 7)
        for lease in leases:
            lease.open()
        for lease in leases[::2]:
            lease.intend()
        self.queue.close()
        unknown = [lease.inherited is not None for lease in self.queue.claim(10)]
        self.assertEqual(unknown, [True, False] * 3 + [True])

    def test_everybody_waits_for_the_same_queue(self) -> None:
        """While it opens again, no other thread works on what it remembers."""
        free: list[bool] = []

        def try_it() -> None:
            free.append(queue._claims.mutex.acquire(blocking=False))
            if free[-1]:
                queue._claims.mutex.release()

        class Opening(Disk):
            def open_locked(self, path: str) -> int:
                thread = threading.Thread(target=try_it)
                thread.start()
                thread.join()
                return super().open_locked(path)

        queue = self.open(Opening())
        queue.claim()
        for name in self.names("locks"):
            os.unlink(os.path.join(self.path, "locks", name))
        queue.claim()
        self.assertEqual(free, [False, False])


class GivenUpByAnOperator(MaildirQueueTest):
    """With `bounce`, before any processor has come that writes down what the dead one left."""

    def assert_bounced(self, name: str, note: str) -> None:
        """The death is in its history, the mail is given up, and its sender gets one report."""
        bounce(self.queue, name, now=self.clock.time())
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.state, mail.history[-2].state), (State.REJECTED, State.HELD))
        self.assertIn(note, mail.history[-2].note)
        [report] = self.queue.admin.mails([State.READY])
        self.assertEqual(report.envelope and report.envelope.sender, "")

    def test_when_its_outcome_is_unknown(self) -> None:
        """The death alone has it held."""
        [name] = self.put()
        self.die()
        self.assert_bounced(name, "between the last byte and the relay's reply")

    def test_when_it_has_killed_three_processors(self) -> None:
        """The third death has it held."""
        [name] = self.put()
        for _ in range(3):
            self.die(intended=False)
        self.assert_bounced(name, "its worker died 3 times")


class DeathAfterTheRelaysYes(MaildirQueueTest):
    """The relay has it, and the owner died before it could remove the message."""

    def setUp(self) -> None:
        super().setUp()
        [self.name] = self.put()
        dead = self.open(RefusingDisk("unlink", part=f"new/{self.name}"))
        lease = self.claim(dead)
        lease.open()
        lease.intend()
        lease.settle(self.judged(lease, OK))
        dead.close()
        self.clock.advance(5)

    def test_is_no_mail_to_give_up(self) -> None:
        """Its sender gets no report that it was not delivered, since it was."""
        with self.assertRaisesRegex(NotPossible, "it is sent"):
            bounce(self.queue, self.name, now=self.clock.time())
        self.assertEqual(list(self.queue.admin.mails([State.READY])), [])

    def run_processor(self) -> tuple[list[Any], Any]:
        """What another one sends and tells."""
        mailer = ScriptedMailer()
        told: list[Any] = []
        processor = QueueProcessorThread(
            queue=self.open(), mailer=mailer, schedule=SCHEDULE, clock=self.clock, tell=told.extend
        )
        processor.run(forever=False)
        return mailer.sent, told

    def test_nothing_is_sent_again(self) -> None:
        """The survivor removes it, and tells what nobody could tell."""
        sent, [event] = self.run_processor()
        self.assertEqual((sent, self.names("new"), self.queue.admin.count()), ([], [], {}))
        self.assertTrue(IMailSentEvent.providedBy(event), event)
        self.assertEqual({who: reply.answer for who, reply in event.replies.items()}, {ONE: Answer.ACCEPTED})

    def test_neither_after_another_death(self) -> None:
        """Who took over and died before it was removed hands it on."""
        heir = self.open()
        self.assertIs(self.claim(heir).record.state, State.SENT)
        heir.close()
        self.clock.advance(5)
        self.assertEqual(self.run_processor()[0], [])
        self.assertEqual(self.names("new"), [])

    def test_an_operator_can_only_remove_it(self) -> None:
        """Whatever else is asked for, it stays as it is for the next processor."""
        for verb in (self.queue.admin.hold, self.queue.admin.retry, self.queue.admin.release):
            with self.assertRaisesRegex(NotPossible, "it is sent; possible: remove"):
                verb(self.name)
        self.queue.close()
        self.clock.advance(5)
        self.assertEqual(self.run_processor()[0], [])

    def test_an_operator_removes_it(self) -> None:
        """Nothing of it is left."""
        self.queue.admin.remove(self.name)
        self.assertEqual((self.names("new"), self.names("history")), ([], []))


class WithoutItsOwnerFile(MaildirQueueTest):
    """An admin emptied ``locks/`` while leases were out."""

    def setUp(self) -> None:
        super().setUp()
        [self.name] = self.put()
        self.lease = self.claim()
        self.lease.open()
        for name in self.names("locks"):
            os.unlink(os.path.join(self.path, "locks", name))

    def test_nobody_gets_the_message_a_second_time(self) -> None:
        """Not this queue, which has a new owner file, and no other one; the old lease may send."""
        self.assertEqual(self.claim_within(30) + self.claim_within(30, self.open()), [])
        self.assertEqual(len([name for name in self.names("locks") if not name.endswith(".bell")]), 2)
        self.lease.intend()
        self.lease.settle(self.judged(self.lease, OK))
        self.assertEqual((self.queue.admin.count(), self.names("new"), self.names("history")), ({}, [], []))

    def test_given_back_it_is_found_again(self) -> None:
        """By the new owner."""
        self.queue.claim()
        self.lease.release()
        self.assertEqual([lease.name for lease in self.claim_within(10)], [self.name])

    def test_other_mail_flows(self) -> None:
        """With locks of the new owner."""
        names = self.put(2)
        self.assertEqual([lease.name for lease in self.queue.claim(10)], names)

    def test_mail_that_was_known_is_not_forgotten(self) -> None:
        """The locks could not be taken with the old owner file; they are with the new one, in the same moment."""
        names = self.put(3)
        [first] = self.queue.claim(1)
        for name in self.names("locks"):
            os.unlink(os.path.join(self.path, "locks", name))
        self.assertEqual([first.name, *(lease.name for lease in self.queue.claim(10))], names)

    def test_a_forked_child_does_not_keep_it(self) -> None:
        """Neither the new owner file nor the old one lives on in a child."""
        self.queue.claim()
        done, say = os.pipe()
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            os.close(say)
            os.write(tell, b"x")
            os.read(done, 1)
            os._exit(0)
        try:
            os.read(ready, 1)
            self.lease.lock._owner.forget()
            self.clock.advance(5)
            self.assertEqual([lease.name for lease in self.open().claim()], [self.name])
        finally:
            for fd in (say, done, ready, tell):
                os.close(fd)
            os.waitpid(child, 0)

    def test_its_lock_removed_as_well_it_must_not_send(self) -> None:
        """The message is the new owner's."""
        os.unlink(self.lock_file(self.name))
        self.assertEqual([lease.name for lease in self.claim_within(10)], [self.name])
        self.assertRaises(LeaseLost, self.lease.intend)


class LockRemovedByHand(MaildirQueueTest):
    def test_the_same_queue_does_not_give_it_out_twice(self) -> None:
        """Its new lock would make the old lease believe that nothing had happened."""
        [name] = self.put()
        lease = self.claim()
        lease.open()
        os.unlink(self.lock_file(name))
        self.queue.wake()
        self.assertEqual(self.claim_within(30), [])
        self.assertRaises(LeaseLost, lease.intend)
        lease.release()
        self.assertEqual([lease.name for lease in self.claim_within(10)], [name])

    def test_an_older_releases_one_is_noticed(self) -> None:
        """Within five minutes, not only when its three hours are over."""
        [name] = self.put()
        os.utime(os.path.join(self.path, "new", name), (self.clock.time(),) * 2)
        os.link(os.path.join(self.path, "new", name), self.lock_file(name))
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.claim_within(600), [])
        os.unlink(self.lock_file(name))
        self.assertEqual([lease.name for lease in self.claim_within(300)], [name])

    def test_an_older_releases_one_is_respected_until_then(self) -> None:
        """For three hours."""
        [name] = self.put()
        os.utime(os.path.join(self.path, "new", name), (self.clock.time(),) * 2)
        os.link(os.path.join(self.path, "new", name), self.lock_file(name))
        self.assertEqual(self.claim_within(MAX_SEND_TIME - 10), [])
        lease = self.claim_within(300)[0]
        self.assertEqual((lease.name, lease.inherited, lease.record.deaths), (name, None, 0))


class DiskRefusesWhileInheriting(MaildirQueueTest):
    """The last owner died when the last byte may have gone."""

    def check_kept(self, disk: RefusingDisk) -> None:
        """`disk` refuses for a while: the message is nobody's then, and what is unknown is told at last."""
        queue = self.open(disk)
        self.assertEqual(queue.claim() + self.claim_within(600, queue), [])
        self.assertEqual(self.claim_within(60, self.queue), [])
        disk.refused = set()
        [lease] = self.claim_within(3600, queue)
        self.assert_inherited_unknown(lease)
        lease.intend()

    def test_full_while_it_is_written_down_the_unknown_is_kept(self) -> None:
        """ENOSPC in the history: tried again until it is there."""
        self.put()
        self.die()
        self.check_kept(RefusingDisk("append", "rename", part="history"))

    def test_unreadable_for_a_while_the_unknown_is_kept(self) -> None:
        """The message cannot be opened (EIO, EMFILE): what is known about it stays."""
        [name] = self.put()
        self.die()
        self.check_kept(RefusingDisk("open", part=f"new/{name}", error=errno.EIO))

    def test_after_another_death_the_unknown_is_kept(self) -> None:
        """Whoever could not write it down hands it on."""
        self.put()
        self.die()
        queue = self.open(RefusingDisk("append", "rename", part="history"))
        self.assertEqual(queue.claim(), [])
        queue.close()
        self.assert_inherited_unknown(self.claim())

    def test_unknown_mail_is_held_if_that_is_wanted(self) -> None:
        """Refused at first, it is still not sent again."""
        self.put()
        name = self.die()
        disk = RefusingDisk("append", "rename", part="history")
        queue = self.open(disk, Schedule(on_unknown=OnUnknown.HOLD))
        self.assertEqual(queue.claim(), [])
        disk.refused = set()
        for lease in self.claim_within(3600, queue):
            self.assertEqual(lease.record.state, State.HELD)
        self.assertEqual(self.queue.admin.show(name).history[-1].state, State.HELD)

    def test_a_failing_takeover_is_repeated(self) -> None:
        """Its rename, or the link before it; the message comes later, and no litter stays."""
        for call in ("rename", "link"):
            with self.subTest(call):
                [name] = self.put()
                self.die()
                disk = RefusingDisk(call, part=".take-", error=errno.EIO)
                queue = self.open(disk)
                self.assertEqual(queue.claim() + self.claim_within(30, queue), [])
                self.assertEqual([each for each in self.names("locks") if each.startswith(".")], [])
                disk.refused = set()
                [lease] = self.claim_within(120, queue)
                self.assertEqual(lease.name, name)
                self.assert_inherited_unknown(lease)
                lease.settle(self.judged(lease, OK))

    def test_others_may_take_over_meanwhile(self) -> None:
        """A takeover that failed left the lock to the dead."""
        self.put()
        self.die()
        self.assertEqual(self.open(RefusingDisk("rename", part=".take-")).claim(), [])
        self.assert_inherited_unknown(self.claim())


class ReadingDisk(Disk):
    """Writes down what is opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, path: str) -> BinaryIO:
        """See `Disk.open`."""
        self.opened.append(path)
        return super().open(path)


class SharesOfSeveralProcesses(MaildirQueueTest):
    """Two queues on one directory, as two processes have them; each mail is first of all one's."""

    def setUp(self) -> None:
        super().setUp()
        self.mails = self.put_many(48)
        self.ours, self.theirs = self.open(), self.open()
        self.ours.prefer(0, 2)
        self.theirs.prefer(1, 2)

    def test_how_many_they_are(self) -> None:
        """And how many mails are due, knows each queue; another process's are not due at once."""
        alone = self.open()
        for queue in (self.ours, self.theirs, alone):
            queue.claim(0)
        self.assertEqual((self.ours.processes, alone.processes), (2, 1))
        self.assertEqual([alone.count_due(limit) for limit in (10, 100)], [10, 48])
        self.assertEqual(self.ours.count_due(100) + self.theirs.count_due(100), 48)

    def put_many(self, count: int) -> list[str]:
        """Commit mails, a few at a time: a file each, and no bundle that is unfolded beside the test."""
        return [name for _ in range(count // 6) for name in self.put(6)]

    def claimed(self, queue: MaildirQueue) -> set[str]:
        """All that a queue gives now, one after the other, and settled."""
        names = set()
        while leases := queue.claim():
            names.add(leases[0].name)
            leases[0].settle(self.judged(leases[0], OK))
        return names

    def test_are_taken_first(self) -> None:
        """They have nothing in common, and are all there is."""
        ours, theirs = self.claimed(self.ours), self.claimed(self.theirs)
        self.assertEqual(ours & theirs, set())
        self.assertEqual(ours | theirs, set(self.mails))
        self.assertGreater(min(len(ours), len(theirs)), 6)

    def test_of_one_that_does_nothing_are_taken_by_others(self) -> None:
        """After two seconds; nobody's mail waits for a process that is dead."""
        ours = self.claimed(self.ours)
        self.assertLess(len(ours), 48)
        self.clock.advance(2)
        self.assertEqual(ours | self.claimed(self.ours), set(self.mails))

    def test_of_one_that_hangs_are_taken_by_others_that_are_busy(self) -> None:
        """From a minute on, although they always have enough of their own."""
        oldest = next(name for name in self.mails if zlib.crc32(name.encode()) % 2 == 1)
        seconds, taken = 0, set[str]()
        while oldest not in taken and seconds < 120:
            self.put_many(12)
            self.clock.advance(5)
            seconds += 5
            for lease in self.ours.claim(3):
                taken.add(lease.name)
                lease.settle(self.judged(lease, OK))
        self.assertLess(seconds, 90)
        self.assertGreater(seconds, 10)

    def test_of_another_one_that_were_given_back_are_due_at_once(self) -> None:
        """The other process may have found them locked, and ended since; so this one leaves them to it no more."""
        ours = self.claimed(self.ours)
        self.clock.advance(2)
        leases = self.ours.claim(9)
        self.assertEqual(len(leases), 9)
        left = self.claimed(self.theirs)
        for lease in leases[:4]:
            lease.release()
        for lease in leases[4:]:
            lease.park("relay")
        self.assertEqual((self.ours.unpark("relay", 9), self.ours.next_due()), (5, 0.0))
        self.assertEqual(ours | left | self.claimed(self.ours), set(self.mails))

    def test_are_no_more_than_a_preference(self) -> None:
        """What an operator wants tried now goes at once, and one process alone takes everything."""
        self.claimed(self.ours)
        theirs = self.claimed(self.theirs)
        self.assertTrue(theirs)
        alone = self.open()
        self.put_many(12)
        self.assertEqual(len(self.claimed(alone)), 12)


class ToldOnce(MaildirQueueTest):
    def test_an_unknown_that_was_told_is_not_counted_again(self) -> None:
        """The heir had written it down and told it, and died before it touched the message."""
        self.put()
        self.die()
        heir = self.open()
        lease = self.claim(heir)
        self.assert_inherited_unknown(lease)
        lease.told()
        heir.close()
        self.clock.advance(5)
        lease = self.claim()
        self.assertEqual((lease.inherited, lease.record.unknowns, lease.record.deaths), (None, 1, 1))

    def test_an_unknown_that_was_not_told_is_inherited_again(self) -> None:
        """The heir died before it could tell anybody."""
        self.put()
        self.die()
        heir = self.open()
        self.claim(heir)
        heir.close()
        self.clock.advance(5)
        self.assertIsNotNone(self.claim().inherited)

    def test_what_the_heir_intends_is_counted_again(self) -> None:
        """It died when its own last byte may have gone."""
        self.put()
        self.die()
        self.die()
        self.assert_inherited_unknown(self.claim(), deaths=2)

    def test_a_settled_attempt_is_not_lost(self) -> None:
        """Its outcome was written down, and the owner died before it could remove its lock."""
        self.put()
        dead = self.open()
        lease = self.claim(dead)
        lease.open()
        lease.intend()
        dead.store.settle(lease.key, self.judged(lease, LATER))
        dead.close()
        self.assertEqual(self.claim_within(50), [])
        [lease] = self.claim_within(60)
        self.assertIsNone(lease.inherited)
        self.assertEqual((lease.record.attempts, lease.record.deaths, lease.record.unknowns), (1, 0, 0))
        self.assertEqual(lease.record.replies[ONE], LATER)

    def test_the_attempt_after_a_settled_one_is_lost(self) -> None:
        """The history does not have it, however many it has."""
        self.put()
        lease = self.claim()
        lease.settle(self.judged(lease, LATER))
        self.clock.advance(60)
        self.die()
        self.assert_inherited_unknown(self.claim())

    def test_a_lock_once_kept_does_not_hide_a_later_death(self) -> None:
        """What stood there about an attempt that was told is gone when the next one is lost."""
        self.put()
        self.die()
        disk = RefusingDisk("append", "rename", part="history")
        queue = self.open(disk)
        self.assertEqual(queue.claim(), [])
        disk.refused = set()
        [lease] = self.claim_within(3600, queue)
        lease.settle(self.judged(lease, LATER))
        self.clock.advance(60)
        lease = self.claim(queue)
        lease.open()
        lease.intend()
        queue.close()
        self.clock.advance(5)
        self.assert_inherited_unknown(self.claim(), deaths=2)


class AfterAPowerLoss(MaildirQueueTest):
    """The machine went down with a message locked: nobody knows what its owner was doing."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.heartbeat._booted", return_value=inf))

    def test_a_torn_owner_file_is_taken_over(self) -> None:
        """Empty, it is nobody's plain file that is respected for hours; what it told is unknown."""
        [name] = self.put()
        dead = self.open()
        self.claim(dead)
        dead.close()
        os.truncate(self.lock_file(name), 0)
        os.utime(self.lock_file(name), (self.clock.time(),) * 2)
        self.clock.advance(5)
        self.assert_inherited_unknown(self.claim())

    def test_a_lock_of_another_boot_is_unknown(self) -> None:
        """Its slots were not synced, so they may be older than they look."""
        self.put()
        with mock.patch("zope.sendmail.queue.maildir.ownerfile.boot_id", return_value=b"another boot"):
            dead = self.open()
            self.claim(dead)
            dead.close()
        self.clock.advance(5)
        self.assert_inherited_unknown(self.claim())

    def test_a_message_that_was_tried_before_is_unknown_as_well(self) -> None:
        """Attempts in its history do not say that this one had ended."""
        [name] = self.put()
        for torn in (True, False):
            with self.subTest(torn=torn):
                lease = self.claim()
                lease.settle(self.judged(lease, LATER))
                self.clock.advance(3600)
                with mock.patch("zope.sendmail.queue.maildir.ownerfile.boot_id", return_value=b"another boot"):
                    dead = self.open()
                    self.claim(dead).open()
                    dead.close()
                if torn:
                    os.truncate(self.lock_file(name), 0)
                self.clock.advance(5)
                heir = self.claim()
                self.assert_inherited_unknown(heir, deaths=1 if torn else 2)
                heir.release()

    def test_a_lock_without_a_message_is_cleared(self) -> None:
        """The message was sent and removed; nothing comes back."""
        [name] = self.put()
        dead = self.open()
        self.claim(dead)
        dead.close()
        os.truncate(self.lock_file(name), 0)
        os.unlink(os.path.join(self.path, "new", name))
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual((self.names("new"), self.names("history")), ([], []))


class BadGroup(MaildirQueueTest):
    """What stands in ``new/`` like a group and cannot be unfolded."""

    def test_a_foreign_file_stops_nobody(self) -> None:
        """It is told once, and all others flow."""
        [name] = self.put()
        with open(os.path.join(self.path, "new", ".group-foreign"), "wb"):
            pass
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.assertEqual([lease.name for lease in self.queue.claim()], [name])
            [other] = self.put()
            self.assertEqual([lease.name for lease in self.claim_within(600)], [other])
        self.assertEqual(len([line for line in logs.output if ".group-foreign" in line]), 1, logs.output)

    def test_a_full_disk_stops_nobody(self) -> None:
        """Its mails come when the disk has room again."""
        [name] = self.put()
        group = os.path.join(self.path, "new", ".group-1.1.host.1")
        os.mkdir(group)
        os.rename(os.path.join(self.path, "new", name), os.path.join(group, name))
        [other] = self.put()
        disk = RefusingDisk("rename", part=".group-")
        queue = self.open(disk)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.assertEqual([lease.name for lease in queue.claim()], [other])
        disk.refused = set()
        self.assertEqual([lease.name for lease in self.claim_within(600, queue)], [name])
        self.assertFalse(os.path.exists(group))


class ABusyProcessor(MaildirQueueTest):
    """More mail is due than it has in hand."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = CountingDisk()
        self.busy = self.open(self.disk)
        self.names_put = self.put(3)
        self.assertEqual(len(self.busy.claim()), 1)

    def test_listens_now_and_then(self) -> None:
        """Not for every mail: what it knows is due already."""
        self.disk.calls.clear()
        self.assertEqual(len(self.busy.claim()), 1)
        self.assertEqual(self.disk.calls["stat"], 0)
        self.clock.advance(1)
        self.assertEqual(len(self.busy.claim()), 1)
        self.assertGreater(self.disk.calls["stat"], 0)

    def test_hears_of_fresh_mail_before_it_has_nothing_to_do(self) -> None:
        """What was committed meanwhile comes in its turn."""
        name = self.put()[0]
        self.assertEqual([lease.name for lease in self.busy.claim(10)], [*self.names_put[1:], name])


class BetweenTwoMails(MaildirQueueTest):
    """A worker asks whether something goes before what it has claimed."""

    def put_high(self, queue: MaildirQueue) -> None:
        staged = queue.stage()
        staged.add(replace(envelope(), terms=Terms(priority=Priority.HIGH)), MESSAGE)
        staged.prepare()
        staged.commit()

    def test_hears_of_another_process(self) -> None:
        """Whose mail goes before its own, and before no other of high priority."""
        self.put()
        self.claim()
        self.assertFalse(self.queue.has_before(Priority.NORMAL))
        self.put_high(self.open())
        self.assertTrue(self.queue.has_before(Priority.NORMAL))
        self.assertFalse(self.queue.has_before(Priority.HIGH))

    def test_does_not_wait_for_one_that_claims(self) -> None:
        """That one takes what goes before."""
        self.put()
        self.claim()
        holds, asked = threading.Event(), threading.Event()

        def claim_slowly() -> None:
            with self.queue._claims.mutex:
                holds.set()
                asked.wait(300)

        other = threading.Thread(target=claim_slowly)
        other.start()
        self.addCleanup(other.join)
        self.addCleanup(asked.set)
        holds.wait(300)
        self.put_high(self.open())
        self.assertFalse(self.queue.has_before(Priority.NORMAL))
        asked.set()
        other.join()
        self.assertTrue(self.queue.has_before(Priority.NORMAL))


class NothingIsLeft(MaildirQueueTest):
    """Of a mail that was sent; one that was never tried has no history to remove, all others have."""

    def assert_sent(self, lease: MaildirLease) -> None:
        lease.open()
        lease.settle(self.judged(lease, OK))
        self.assertEqual((self.names("new"), self.names("history")), ([], []))

    def test_at_the_first_attempt(self) -> None:
        """And nothing is looked for in vain."""
        self.put()
        self.assert_sent(self.claim(self.open(disk := WatchedDisk())))
        self.assertNotIn(("unlink", "history"), disk.done)

    def test_at_a_later_attempt(self) -> None:
        """What it was deferred for is forgotten."""
        self.put()
        lease = self.claim()
        lease.settle(self.judged(lease, LATER))
        self.clock.advance(61)
        self.assert_sent(self.claim())

    def test_after_a_death(self) -> None:
        """Which was written down by the one who sent it."""
        self.put()
        self.die()
        self.assert_sent(self.claim())

    def test_although_another_processor_has_it_by_now(self) -> None:
        """Which wrote something down; its lock is left alone."""
        [name] = self.put()
        lease = self.claim()
        lease.open()
        lease.intend()
        os.unlink(self.lock_file(name))
        other = self.claim(self.open())
        self.queue.store.append(other.key, self.judged(other, LATER))
        lease.settle(self.judged(lease, OK))
        self.assertEqual(self.names("history"), [])
        self.assertTrue(other.lock.is_ours())


class WhatAMailCosts(MaildirQueueTest):
    """In calls to the disk, from the claim to the removal; the processor is busy."""

    def done(self, disk: WatchedDisk) -> list[tuple[str, str]]:
        calls, disk.done = disk.done, []
        return calls

    def test_sent_at_the_first_attempt(self) -> None:
        """Each of these calls is needed: for the lease, to see that it is untried, and against a second copy."""
        self.put(2)
        queue = self.open(disk := WatchedDisk())
        [first] = queue.claim(1)
        self.done(disk)
        [lease] = queue.claim(1)
        self.assertEqual(self.done(disk), [("link", "new/lock"), ("read_small", "new"), ("exists", "history")])
        lease.open()
        lease.intend()
        self.assertEqual(self.done(disk), [("write_at", ""), ("stat", "new/lock"), ("write_at", "")])
        lease.settle(self.judged(lease, OK))
        removal = [("unlink", "new"), ("unlink", "new/lock")]
        self.assertEqual(self.done(disk), [("stat", "new/lock"), ("write_at", ""), *removal])
        first.release()

    def test_not_due_after_all(self) -> None:
        """Somebody holds it: that is read, and no lock is made to read it."""
        [name] = self.put()
        self.queue.admin.hold(name)
        queue = self.open(disk := WatchedDisk())
        self.assertEqual(queue.claim(), [])
        for _ in range(3):
            self.clock.advance(700)
            self.done(disk)
            self.assertEqual(queue.claim(), [])
            calls = self.done(disk)
            self.assertIn(("open", "history"), calls)
            self.assertEqual([call for call in calls if call[0] == "link"], [])


class WithRivals(MaildirQueueTest):
    """Other processors drain the same queue."""

    def test_what_they_have_sent_is_not_locked_first(self) -> None:
        """One lock in vain tells that they are faster; then the message is looked for, until the next look."""

        class Links(Disk):
            made = 0

            def link(self, old: str, new: str) -> None:
                self.made += ".sending-" in new
                super().link(old, new)

        self.put(10)
        queue = self.open(links := Links())
        mine = self.claim_one(queue)
        for lease in self.queue.claim(10):
            lease.settle(self.judged(lease, OK))
        links.made = 0
        self.assertEqual(queue.claim(), [])
        self.assertEqual(links.made, 1)
        mine.settle(self.judged(mine, OK))
        self.assertEqual(self.queue.admin.count(), {})

    def claim_one(self, queue: MaildirQueue) -> MaildirLease:
        [lease] = queue.claim(1)
        return lease


class HeldMail(MaildirQueueTest):
    def test_released_elsewhere_it_is_found(self) -> None:
        """On another host, whose bells ring only there: within ten minutes, and not before."""
        [name] = self.put()
        self.queue.admin.hold(name)
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.claim_within(1200), [])
        with mock.patch("zope.sendmail.queue.maildir.queue.ring"):
            self.open().admin.release(name)
        self.assertEqual([lease.name for lease in self.claim_within(600)], [name])

    def test_released_here_it_is_found_at_once(self) -> None:
        """A bell says so."""
        [name] = self.put()
        self.queue.admin.hold(name)
        self.assertEqual(self.queue.claim(), [])
        self.open().admin.release(name)
        self.assertEqual(self.claim().name, name)


class DeepQueue(MaildirQueueTest):
    def reject(self, begin: int, end: int) -> None:
        """Mails that were set aside."""
        for number in range(begin, end):
            path = os.path.join(self.path, "new", f".rejected-17{number:08d}.1.host.{number:013d}")
            Disk().create(path, b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n" + MESSAGE)

    def list_rejected(self, count: int) -> Counter[str]:
        """What it asks of the disk to list so many."""
        queue = self.open(disk := CountingDisk())
        self.assertEqual(len(list(queue.admin.mails([State.REJECTED]))), count)
        return disk.calls

    def test_histories_of_many_new_mails_are_looked_up_at_once(self) -> None:
        """Who was never tried goes first, and who has to wait waits."""
        names = self.put(40)
        for lease in self.queue.claim(20):
            lease.settle(self.judged(lease, LATER))
        queue = self.open(disk := WatchedDisk())
        self.assertEqual([lease.name for lease in queue.claim(40)], names[20:])
        asked = [call for call in disk.done if call == ("stat", "history")]
        self.assertLessEqual(len(asked), 20 + 16)

    def test_a_history_that_is_new_since_the_look_counts(self) -> None:
        """Another processor has had the mail meanwhile."""
        names = self.put(40)
        queue = self.open()
        [first] = queue.claim(1)  # it has looked
        others = self.queue.claim(40)
        for lease in others:
            lease.settle(self.judged(lease, LATER))
        self.assertEqual(([first.name, *(lease.name for lease in others)], queue.claim(40)), (names, []))

    def test_listing_many_rejected_costs_the_same_for_each(self) -> None:
        """Each directory is read once, and each mail as often as if it were the only one."""
        self.queue.stage()
        self.reject(0, 50)
        few = self.list_rejected(50)
        self.reject(50, 200)
        many = self.list_rejected(200)
        self.assertEqual((few["names"], many["names"]), (4, 4))  # new/, cur/, processors/, locks/
        for call in ("stat", "open"):
            self.assertEqual(few[call] / 50, many[call] / 200, call)

    def test_a_list_costs_what_it_shows(self) -> None:
        """Of twenty mails that fit, three are read: message and history."""
        self.put(20)
        for lease in self.queue.claim(20):
            lease.settle(self.judged(lease, LATER))
        queue = self.open(disk := CountingDisk())
        self.assertEqual(len(list(islice(queue.admin.mails([State.DEFERRED]), 3))), 3)
        self.assertLessEqual(disk.calls["open"], 2 * 3)

    def test_what_does_not_fit_is_read_no_further(self) -> None:
        """One file says it; its age needs none."""
        self.put(20)
        for lease in self.queue.claim(20):
            lease.settle(self.judged(lease, LATER))
        filters: dict[str, Any]
        for filters, most in (
            ({"recipient": "other@example.org"}, 20),
            ({"states": [State.HELD]}, 20),
            ({"before": 1.0}, 0),
        ):
            with self.subTest(**filters):
                queue = self.open(disk := CountingDisk())
                self.assertEqual(list(queue.admin.mails(**filters)), [])
                self.assertLessEqual(disk.calls["open"], most)

    def test_no_mail_is_looked_for_among_the_others(self) -> None:
        """A list of those set aside is gone through, never searched."""
        compared: list[str] = []

        class Key(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                compared.append(self)
                return str.__eq__(self, other)

            __hash__ = str.__hash__

        class Watched(Listing):
            def __init__(self, layout: Layout, disk: Disk) -> None:
                super().__init__(layout, disk)
                self.rejected = [Key(key) for key in self.rejected]

        self.put(3)
        self.reject(0, 100)
        with mock.patch("zope.sendmail.queue.maildir.mailviews.Listing", Watched):
            self.assertEqual(len(list(self.queue.admin.mails())), 103)
        self.assertLessEqual(len(compared), 2 * 103)


class LongHistory(MaildirQueueTest):
    """A message that was deferred for days, with many recipients."""

    def grow(self, name: str, records: int, recipients: int) -> Record:
        """The last of so many records about so many recipients."""
        replies = {f"user{number}@example.org": LATER for number in range(recipients)}
        for attempts in range(1, records + 1):
            record = Record(
                State.DEFERRED, attempts=attempts, time=self.clock.time(), due=self.clock.time(), replies=replies
            )
            self.queue.store.append(f"new/{name}", record)
        return record

    def read(self, name: str) -> tuple[Record, int, int]:
        """What rules, and how many bytes were read of how many."""
        queue = self.open(disk := CountingDisk())
        record = queue.store.record(f"new/{name}")
        return record, disk.bytes, os.path.getsize(os.path.join(self.path, "history", name))

    def test_it_is_read_from_its_end(self) -> None:
        """However long it has become, no more than 16 KB."""
        [name] = self.put()
        for records in (200, 800):
            last = self.grow(name, records, 3)
            record, read, size = self.read(name)
            self.assertEqual(record, last)
            self.assertGreater(size, 32 * 1024)
            self.assertEqual(read, 16 * 1024)

    def test_it_costs_what_has_changed(self) -> None:
        """Of two thousand recipients nothing new is said: a line more costs little, and all is still known."""
        [name] = self.put()
        path = os.path.join(self.path, "history", name)
        self.grow(name, 1, 2000)
        first = os.path.getsize(path)
        last = self.grow(name, 100, 2000)
        self.assertEqual(self.read(name)[0], last)
        self.assertLess(os.path.getsize(path) - first, 100 * 300)

    def test_it_is_compacted_when_everything_changes_each_time(self) -> None:
        """The last replies are kept, and that there were all these attempts."""
        [name] = self.put()
        path = os.path.join(self.path, "history", name)
        record = Record()
        for attempts in range(1, 60):
            replies = {f"{who}@example.org": Reply(Answer.DEFERRED, f"{attempts}", 450) for who in range(1000)}
            record = Record(State.DEFERRED, attempts, self.clock.time(), self.clock.time() + 60, replies=replies)
            self.queue.store.append(f"new/{name}", record)
            self.assertEqual(self.read(name)[0], record)
        self.assertLess(os.path.getsize(path), 1_000_000)
        self.assertEqual([each.attempts for each in self.queue.admin.show(name).history], list(range(1, 60)))
        self.assertEqual(os.listdir(os.path.dirname(path)), [name])

    def test_a_compaction_that_the_disk_refuses_costs_nothing(self) -> None:
        """Nor does one that a death has left in the middle."""
        [name] = self.put()
        Disk().create(os.path.join(self.path, "history", ".compacted-" + name), b"half")
        replies = {f"{who}@example.org": Reply(Answer.DEFERRED, "x" * 500, 450) for who in range(1000)}
        for attempts in range(1, 4):
            record = Record(State.DEFERRED, attempts, replies={**replies, "0@example.org": Reply(Answer.DEFERRED, "y")})
            queue = self.open(RefusingDisk("rename", part="history") if attempts < 3 else None)
            with mock.patch("zope.sendmail.queue.maildir.store._FACTOR", 0):
                queue.store.append(f"new/{name}", record)
            self.assertEqual(self.read(name)[0], record)

    def test_a_damaged_one_of_gigabytes_hangs_nothing(self) -> None:
        """No more of it is read than can be in it."""
        [name] = self.put()
        self.grow(name, 1, 1)
        path = os.path.join(self.path, "history", name)
        os.truncate(path, 5 * 2**30)
        queue = self.open(disk := CountingDisk())
        self.assertEqual(queue.store.record(f"new/{name}"), Record())
        self.assertLess(disk.bytes, 100 * 2**20)
        self.assertEqual(list(queue.admin.show(name).history), [])
        self.assertEqual([lease.name for lease in queue.claim()], [name])

    def test_a_torn_last_record_is_passed_over(self) -> None:
        """Also if it is longer than what is read at first; the one before it rules."""
        [name] = self.put()
        last = self.grow(name, 10, 3)
        for length in (10, 100_000):
            with open(os.path.join(self.path, "history", name), "ab") as stream:
                stream.write(b'{"state":"ready"' + b" " * length)
            self.assertEqual(self.read(name)[0], last)

    def test_a_claim_reads_no_more(self) -> None:
        """The history is read twice at most, before the lock and with it."""
        [name] = self.put()
        last = self.grow(name, 500, 3)
        queue = self.open(disk := CountingDisk())
        self.clock.advance(60)
        self.assertEqual(self.claim(queue).record, last)
        self.assertLessEqual(disk.bytes, 2 * 16 * 1024)

    def test_an_operator_sees_all_of_it(self) -> None:
        """From the first record on."""
        [name] = self.put()
        self.grow(name, 300, 3)
        self.assertEqual([record.attempts for record in self.queue.admin.show(name).history], list(range(1, 301)))


class TheStream(MaildirQueueTest):
    def test_message_id_leaves_it_alone(self) -> None:
        """Asked before or in the midst of reading."""
        self.put()
        lease = self.claim()
        stream = lease.open()
        begin = stream.read(5)
        self.assertEqual(lease.message_id, "1@example.org")
        self.assertEqual(begin + stream.read(), MESSAGE)
        self.assertEqual(lease.open().read(), MESSAGE)


class Rollback(MaildirQueueTest):
    def test_what_could_not_be_removed_goes_with_the_abort(self) -> None:
        """The disk refused for a while; nothing is left, and nothing is sent."""
        disk = RefusingDisk("unlink", error=errno.EIO)
        staged = self.open(disk).stage()
        for _ in range(3):
            staged.add(envelope(), MESSAGE)
        self.assertRaises(OSError, staged.rollback, 1)
        disk.refused = set()
        staged.abort()
        self.assertEqual((self.queue.admin.count(), self.names("tmp"), self.queue.claim()), ({}, [], []))


class AfterClose(MaildirQueueTest):
    def test_wake_rings_nobody_elses_descriptor(self) -> None:
        """A signal handler may come late; the numbers of the bell's descriptors belong to other files then."""
        self.queue.claim()
        trigger = self.queue._trigger
        assert isinstance(trigger, Trigger)
        self.queue.close()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.set_blocking(read, False)
        self.queue.wake()
        trigger.wake()
        self.assertRaises(BlockingIOError, os.read, read, 1)
        self.queue.close()
        os.fstat(read)
        os.fstat(write)

    def test_nothing_is_left_of_its_owner(self) -> None:
        """Neither file nor bell; and it can be used again."""
        for _ in range(2):
            self.queue.claim()
            self.assertEqual(len(self.names("locks")), 2)
            self.queue.close()
            self.assertEqual(self.names("locks"), [])


class NotSafe(MaildirQueueTest):
    def test_repeated_attempts_leave_no_litter(self) -> None:
        """A processor asks again and again whether links work by now."""
        queue = self.open(RefusingDisk("link", error=errno.EPERM))
        for _ in range(5):
            self.assertRaises(QueueNotSafe, queue.claim)
        self.assertEqual(self.names("locks"), [])


class DiedWhileOpening(MaildirQueueTest):
    def test_what_it_left_is_swept_by_the_next_one(self) -> None:
        """Its half-made owner file and the proof that locks work, when they are older than a minute.

        By the clock that stamps files, the file server's perhaps: this host may be an hour ahead of it.
        """

        class Dies(Disk):
            def rename(self, old: str, new: str) -> None:
                raise KeyboardInterrupt

            def unlink(self, path: str) -> None:
                raise OSError(errno.EIO, "died before")

        dead = self.open(Dies())
        with contextlib.suppress(KeyboardInterrupt):
            dead.claim()
        dead.forget_after_fork()
        self.assertEqual([name[: name.index("-")] for name in self.names("locks")], [".new", ".proof"])
        litter = [os.path.join(self.path, "locks", name) for name in self.names("locks")]
        made = max(os.stat(path).st_mtime for path in litter)
        self.clock.wall = made + 3600
        for age, names in (0, 4), (61, 2):
            for path in litter:
                os.utime(path, (made - age,) * 2)
            self.queue.claim()
            self.assertEqual(len(self.names("locks")), names)
            self.queue.close()


class AQueueWhereEverybodyMayWrite(unittest.TestCase):
    """Such as in ``/tmp``: somebody may have made it before us, to read mail or to send it through our relay."""

    def setUp(self) -> None:
        self.common = self.enterContext(tempfile.TemporaryDirectory())
        os.chmod(self.common, 0o1777)
        self.theirs = self.enterContext(tempfile.TemporaryDirectory())
        for name in ("tmp", "new", "cur"):
            os.mkdir(os.path.join(self.theirs, name))
        self.queue = MaildirQueue(self.common + "/mail")

    def test_is_no_symbolic_link(self) -> None:
        """Neither is mail put there, nor taken from there."""
        os.symlink(self.theirs, self.common + "/mail")
        self.assertRaisesRegex(QueueError, "symbolic link", self.queue.stage)
        self.assertRaisesRegex(QueueError, "symbolic link", self.queue.claim)
        self.assertEqual(sorted(os.listdir(self.theirs)), ["cur", "new", "tmp"])

    @unittest.skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_is_nobody_elses(self) -> None:
        """The text names the owner, and what to do."""
        os.mkdir(self.common + "/mail")
        os.chown(self.common + "/mail", 12345, 12345)
        self.assertRaisesRegex(QueueError, "user 12345.*use a directory below", self.queue.stage)

    def test_may_be_our_own(self) -> None:
        """Private, as ever."""
        self.addCleanup(self.queue.close)
        self.assertEqual(self.queue.claim(), [])


class AnOperatorsName(MaildirQueueTest):
    def test_is_never_that_of_a_lock(self) -> None:
        """A form that hands on any name cannot let a second processor send the mail."""
        [name] = self.put()
        [lease] = self.queue.claim()
        for verb in self.queue.admin.remove, self.queue.admin.hold, self.queue.admin.retry:
            self.assertRaises(NoSuchMail, verb, f".sending-{name}")
        lease.intend()
        lease.release()


class AQueueThatNobodyClosed(MaildirQueueTest):
    def test_leaves_no_descriptor_behind(self) -> None:
        """A program that looks into a queue now and then does not run out of them."""
        self.enterContext(mock.patch.object(ownerfile, "heart", Heart()))  # else one may be about to beat just then
        gc.collect()
        before = open_below(self.path)
        for _ in range(3):
            queue = MaildirQueue(self.path)
            staged = queue.stage()
            staged.add(envelope(), MESSAGE)
            staged.prepare()
            staged.commit()
            [lease] = queue.claim()
            lease.settle(Record(State.SENT))
            del queue, staged, lease
        gc.collect()
        self.assertLessEqual(open_below(self.path), before)


class AnOperatorAtADeadOnesMail(MaildirQueueTest):
    """A processor died with the mail in hand, and an operator's verb finds its lock first."""

    def test_a_full_disk_does_not_forget_the_unknown(self) -> None:
        """The verb fails, and whoever claims the mail later is told."""
        self.put()
        name = self.die()
        admin = self.open(RefusingDisk("append", "rename", part="history"))
        with self.assertRaises(OSError):
            admin.admin.hold(name)
        admin.close()
        self.clock.advance(100)
        self.assert_inherited_unknown(self.claim())

    def test_a_verb_that_does_not_fit_forgets_nothing(self) -> None:
        """The unknown is in the history, and the mail waits: nobody knows here what the site's processors would do."""
        self.put()
        name = self.die()
        self.assertRaisesRegex(NotPossible, "it is held", self.open().admin.hold, name)
        mail = self.open().admin.show(name)
        self.assertEqual((mail.state, mail.history[-1].unknowns), (State.HELD, 1))

    def test_the_verb_decides_about_the_unknown(self) -> None:
        """Who releases it wants it to be sent, perhaps a second time."""
        self.put()
        self.open().admin.release(self.die())
        self.assertEqual(self.claim(self.open()).record.unknowns, 1)


class ALostLease(MaildirQueueTest):
    def test_writes_no_history(self) -> None:
        """Somebody else has the mail, and knows better."""
        self.put()
        slow = self.open()
        lease = self.claim(slow)
        slow.close()
        self.clock.advance(5)
        other = self.claim()
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            lease.settle(self.judged(lease, LATER))
        self.assertEqual(self.open().admin.show(other.name).history, [])


class NamesOfAnyLength(MaildirQueueTest):
    """A foreign program may use all of the 255 octets that a file name can have."""

    def test_are_sent_shown_and_removed(self) -> None:
        """Those that leave no room for a lock beside them get a shorter name, the same whoever sees them first."""
        text = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nMessage-Id: <%d@example.org>\n\n"
        self.queue.stage().abort()
        lengths = (60, 244, 245, 246, 247, 251, 252, 255)
        for length in lengths:
            beyond = (f"1.2.h{length}." + "ж" * 200).encode()[:length].decode("utf-8", "ignore")
            for name in ("1.2.host." + "x" * (length - 9), beyond):
                Disk().create(os.path.join(self.path, "new", name), text % length)
        count = len(os.listdir(os.path.join(self.path, "new")))
        for length in lengths:
            self.assertEqual(str(self.queue.status(f"{length}@example.org").standing), "queued")
        mails = list(self.queue.admin.mails())
        self.assertEqual(len(mails), count)
        self.queue.admin.hold("1.2.host." + "x" * 246)
        self.queue.admin.remove(next(mail.name for mail in mails if mail.message_id == "252@example.org"))
        self.assertEqual(len(self.queue.claim(99)), count - 2)

    def test_are_sent_by_a_processor_that_sees_them_first(self) -> None:
        """Nobody listed the queue before."""
        text = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n\n"
        self.queue.stage().abort()
        Disk().create(os.path.join(self.path, "new", "x" * 255), text)
        [lease] = self.queue.claim(9)
        self.assertEqual(lease.envelope.recipients, ("b@example.org",))


class TheStatusOfMany(MaildirQueueTest):
    def put_one(self, message_id: str) -> str:
        staged = self.queue.stage()
        name = staged.add(envelope(), b"Message-Id: <%s@x>\n\n" % message_id.encode())
        staged.prepare()
        staged.commit()
        return name

    def test_reads_each_mail_once(self) -> None:
        """What came since is read, what is gone is not known any more, and what was set aside is."""
        names = [self.put_one(f"{number}") for number in range(10)]
        queue = self.open(disk := CountingDisk())
        self.assertEqual(queue.status("3@x").names, (names[3],))
        with mock.patch.object(disk, "open", side_effect=AssertionError):
            self.assertEqual(str(queue.status("99@x").standing), "unknown")
        self.queue.admin.remove(names[3])
        [lease] = self.queue.claim(1)
        lease.settle(Record(State.REJECTED, 1, note="no such user"))
        late = self.put_one("3")
        self.assertEqual(queue.status("3@x").names, (late,))
        self.assertEqual(str(queue.status("0@x").standing), "rejected")

    def test_reads_no_mail_that_another_process_has_read(self) -> None:
        """The next one begins with what it learnt; what came since is read."""
        names = self.put_many(300)
        self.assertEqual(self.open().status("7@x").names, (names[7],))
        disk = ReadingDisk()
        self.assertEqual(self.open(disk).status("299@x").names, (names[299],))
        self.assertEqual([path for path in disk.opened if os.path.dirname(path).endswith("new")], disk.opened[-1:])
        late = self.put_one("late")
        self.assertEqual(self.open().status("late@x").names, (late,))

    def test_reads_all_mails_if_what_was_kept_is_damaged(self) -> None:
        """Torn, of another kind, or wrong: a file beside the mails decides nothing."""
        names = self.put_many(300)
        self.queue.status("7@x")
        kept = os.path.join(self.path, "processors", "messageids")
        whole = Disk().read(kept)
        for text in (b"", whole[:-9], whole.replace(b"new/", b"cur/"), b"\xff\n\xff", b"zope.sendmail message-ids 2\n"):
            with open(kept, "wb") as stream:
                stream.write(text)
            self.assertEqual(self.open().status("7@x").names, (names[7],), text[:40])

    def test_needs_no_place_to_keep_what_it_learnt(self) -> None:
        """A disk that refuses costs time only, and nothing is left of the attempt."""
        names = self.put_many(300)
        for call in ("create", "rename"):
            queue = self.open(RefusingDisk(call, part="messageids"))
            self.assertEqual(queue.status("7@x").names, (names[7],))
        self.assertEqual(self.names("processors"), [])

    def put_many(self, count: int) -> list[str]:
        staged = self.queue.stage()
        names = [
            staged.add(Envelope("s@example.org", ("r@example.org",)), b"Message-Id: <%d@x>\n\ntext\n" % number)
            for number in range(count)
        ]
        staged.prepare()
        staged.commit()
        self.queue.admin.count()
        return names

    def test_is_right_beyond_what_is_kept_in_mind(self) -> None:
        """Then mails are read each time."""
        names = [self.put_one(f"{number % 3}") for number in range(9)]
        queue = self.open()
        with mock.patch("zope.sendmail.queue.maildir.messageindex._MOST", 4):
            for _ in range(2):
                for number in range(3):
                    self.assertEqual(sorted(queue.status(f"{number}@x").names), names[number::3])
