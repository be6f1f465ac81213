"""A bundle that is drained where it lies: who gets its mails, what becomes of them, and what a death leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from zope.sendmail.errors import LeaseLost, NoSuchMail, NotPossible
from zope.sendmail.lifecycle.mailstatus import Standing
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import PLAIN, Priority, Terms
from zope.sendmail.queue.maildir import bundledrain, bundlesource, mailviews, staging, unfolder
from zope.sendmail.queue.maildir.bundlelease import BundledMail
from zope.sendmail.queue.maildir.bundleprogress import BundleProgress, make_progress
from zope.sendmail.queue.maildir.bundleviews import BundleViews, OpenBundle
from zope.sendmail.queue.maildir.layout import BUNDLE, PROGRESS, WANTED
from zope.sendmail.queue.maildir.locks import LOOK_AGAIN
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.store import Listing
from zope.sendmail.queue.maildir.unfolder import unfold_now
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK, SCHEDULE, ManualClock, envelope


class DrainTest(unittest.TestCase):
    """A queue with a transaction of ten mails, two of which are files."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.enterContext(mock.patch.object(staging, "SINGLY", 2))
        self.enterContext(mock.patch.object(staging, "later"))
        self.enterContext(mock.patch.object(bundlesource, "later", unfold_now))
        self.enterContext(mock.patch.object(bundledrain, "_CHUNK", 3))
        self.clock = ManualClock()
        self.queue = self.open()

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        queue.drain_bundles()
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int = 10, message: bytes = MESSAGE) -> list[str]:
        return self.put_with(*[PLAIN] * count, message=message)

    def put_with(self, *terms: Terms, message: bytes = MESSAGE) -> list[str]:
        """Commit a mail with each of these terms; return their names."""
        staged = MaildirQueue(self.path, clock=self.clock).stage()
        names = [staged.add(replace(envelope(), terms=each), message) for each in terms]
        staged.prepare()
        staged.commit()
        return names

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(os.path.join(self.path, "new")) if name[0] != ".")

    def group(self) -> str:
        [name] = [name for name in os.listdir(os.path.join(self.path, "new")) if name.startswith(".group-")]
        return os.path.join(self.path, "new", name)

    def settle(self, lease: Any, reply: Reply) -> Record:
        said = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, reply))
        record = judge(lease.record, lease.envelope, said, SCHEDULE, now=self.clock.time(), chance=0.5)
        lease.settle(record)
        return record

    def in_a_child(self, work: Callable[[MaildirQueue], object]) -> None:
        """Do something with a queue in a process that is then no more."""
        child = os.fork()
        if not child:
            try:
                work(self.open())
            finally:
                os._exit(0)
        os.waitpid(child, 0)


class BundleThatVanishes(Disk):
    """Another process unfolds each bundle just before it is opened."""

    def open_existing(self, path: str) -> int:
        if os.path.basename(path) == BUNDLE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return super().open_existing(path)


class OnceReadBundle(Disk):
    """Counts how often a bundle is opened to be read from the beginning."""

    count = 0

    def open(self, path: str) -> Any:
        self.count += os.path.basename(path) == BUNDLE
        return super().open(path)


class RefusingOnce(Disk):
    """Refuses one call of this name, behind so many others."""

    refused, behind = "", 0

    def refuse(self, call: str, behind: int) -> None:
        self.refused, self.behind = call, behind

    def _count(self, call: str) -> None:
        if call == self.refused:
            self.behind -= 1
            if self.behind < 0:
                self.refused = ""
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read_tail(self, path: str, size: int) -> tuple[bytes, bool]:
        self._count("read_tail")
        return super().read_tail(path, size)

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        self._count("read_at")
        return super().read_at(fd, size, offset)

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        if len(data) == 1:  # of a bundle's progress
            self._count("write_at")
        super().write_at(fd, data, offset)

    def link(self, old: str, new: str) -> None:
        if ".sending-" in new:
            self._count("link")
        super().link(old, new)


class AMailInHandForAnOperator(DrainTest):
    """It takes longer than an operator waits for files."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(mailviews, "_PATIENCE", 0.0))
        self.put()
        *_, self.gone, self.untouched, self.kept, self.lease = self.queue.claim(8)
        self.settle(self.gone, OK)
        self.settle(self.kept, LATER)
        self.lease.open()
        self.admin = self.open().admin

    def test_is_shown(self) -> None:
        """As one that is being sent, with all that is known of it."""
        mail = self.admin.show(self.lease.name)
        assert mail.envelope is not None
        self.assertEqual((mail.name, mail.state), (self.lease.name, State.SENDING))
        self.assertEqual((mail.envelope.recipients, mail.message_id), (("one@example.org",), self.lease.message_id))
        with self.admin.read(self.lease.name) as stream:
            self.assertEqual(stream.read(), MESSAGE)

    def test_is_shown_with_others_that_wait_for_its_end(self) -> None:
        """As they are; and what has left is not there."""
        self.assertIs(self.admin.show(self.untouched.name).state, State.READY)
        kept = self.admin.show(self.kept.name)
        self.assertEqual((kept.state, len(kept.history)), (State.DEFERRED, 1))
        self.assertRaises(NoSuchMail, self.admin.show, self.gone.name)

    def test_is_not_changed(self) -> None:
        """The operator is told why, and what to do."""
        for verb in self.admin.hold, self.admin.release, self.admin.retry, self.admin.remove:
            with self.assertRaisesRegex(NotPossible, "is sent together with others .* try again in a moment"):
                verb(self.lease.name)

    def test_of_which_nothing_can_be_read_is_shown(self) -> None:
        """Without an envelope."""
        [path] = Path(self.path, "new").glob(f".group-*/{BUNDLE}")
        path.write_bytes(path.read_bytes().replace(b"X-Zope-From", b"X-Soap-From"))
        self.assertIsNone(self.admin.show(self.lease.name).envelope)


class ANewsletter(DrainTest):
    def test_that_has_left_is_not_read_again(self) -> None:
        """Nothing of it is to become a file, and nothing of it stays."""
        self.put()
        disk = OnceReadBundle()
        queue = self.open(disk)
        while leases := queue.claim(4):
            for lease in leases:
                self.settle(lease, OK)
        self.assertEqual((disk.count, os.listdir(os.path.join(self.path, "new"))), (1, []))

    def test_counts_as_it_waits(self) -> None:
        """With the mails that are files; those that are in hand do not."""
        self.put()
        leases = self.queue.claim(4)
        self.assertEqual([self.queue.count_due(limit) for limit in (5, 100)], [5, 6])
        for lease in leases:
            self.settle(lease, OK)

    @unittest.skipUnless(os.path.isdir("/proc/self/fd"), "the system has to list open files")
    def test_that_is_being_sent_is_not_kept_open_by_a_forked_child(self) -> None:
        """Else its room would be free only when the child ends; the parent goes on."""
        self.put()
        leases = self.queue.claim(4)
        self.assertIn(BUNDLE, self.open_files())
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, ",".join(self.open_files()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with open(reading, encoding="utf-8") as said:
            self.assertEqual(said.read(), "")
        for lease in leases:
            self.settle(lease, OK)

    def open_files(self) -> list[str]:
        """Return the names of the files of this queue's groups that this process has open."""
        found = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{number}")
                found += [os.path.basename(path)] if path.startswith(self.path) and "/.group-" in path else []
        return found

    def test_that_another_process_has_made_files_of(self) -> None:
        """Keeps no file open here."""
        self.put()
        with mock.patch.object(BundleProgress, "close", autospec=True, side_effect=BundleProgress.close) as close:
            self.open(BundleThatVanishes()).claim(20)
        close.assert_called_once()

    def test_is_sent_in_order_without_a_file_for_each_mail(self) -> None:
        """Nothing is left of it in the end."""
        names = self.put()
        leases = self.queue.claim(20)
        self.assertEqual([lease.name for lease in leases], names)
        self.assertEqual(self.names(), names[:2])
        self.assertTrue(all(lease.open().read() == MESSAGE for lease in leases))
        self.assertEqual({lease.message_id for lease in leases}, {"1@example.org"})
        for lease in leases:
            lease.intend()
            self.settle(lease, OK)
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.queue.status("1@example.org").standing, Standing.SENT)

    def test_is_sent_in_order_however_few_are_claimed_at_a_time(self) -> None:
        """The first ones, which are files, go before those in the bundle."""
        self.enterContext(mock.patch.object(staging, "SINGLY", 5))
        names, claimed = self.put(), []
        while leases := self.queue.claim(1):
            claimed += [lease.name for lease in leases]
        self.assertEqual(claimed, names)

    def test_is_shared_by_several_processors(self) -> None:
        """Each has some mails of it at a time."""
        names = self.put()
        other = self.open()
        mine, theirs = self.queue.claim(4), other.claim(20)
        self.assertEqual(sorted(lease.name for lease in [*mine, *theirs]), [*names[:4], *names[5:]])
        self.assertEqual([lease.name for lease in self.queue.claim(20)], names[4:5])
        for lease in (*mine, *theirs):
            self.settle(lease, OK)
        self.assertEqual(other.claim(20), [])

    def test_does_not_stand_before_older_mail(self) -> None:
        """First in, first out."""
        first = self.put(1)
        names = self.put()
        last = self.put(1)
        self.assertEqual([lease.name for lease in self.queue.claim(20)], [*first, *names[:2], *last, *names[2:]])

    def test_is_counted_as_it_is(self) -> None:
        """Looking at the numbers changes nothing."""
        self.put()
        for lease in self.queue.claim(4):
            self.settle(lease, OK)
        self.assertEqual(self.open().admin.count(), {State.READY: 6})
        self.assertIn(PROGRESS, os.listdir(self.group()))
        self.assertIn("committed", [found.kind for found in self.open().admin.examine()])

    def test_with_a_large_mail_becomes_files(self) -> None:
        """What is drained where it lies has to be in memory."""
        names = self.put(4, MESSAGE + b"x" * 70_000)
        leases = self.queue.claim(20)
        self.assertEqual([lease.name for lease in leases], names)
        self.assertEqual(self.names(), names)
        for lease in leases:
            lease.release()

    def test_where_there_is_no_room_for_its_progress_becomes_files(self) -> None:
        """As before, if there is no file of the reserve that can be it."""

        class Full(Disk):
            def create(self, path: str, *pieces: Any) -> None:
                if PROGRESS in path:
                    raise OSError(errno.ENOSPC, "full")
                super().create(path, *pieces)

            def rename(self, old: str, new: str) -> None:
                if PROGRESS in new:
                    raise OSError(errno.ENOSPC, "full")
                super().rename(old, new)

        names = self.put()
        self.assertEqual([lease.name for lease in self.open(Full()).claim(20)], names)
        self.assertEqual(self.names(), names)


class OfAllPriorities(DrainTest):
    """High, normal and low mail by turns, in one transaction."""

    def setUp(self) -> None:
        super().setUp()
        kinds = [Terms(priority=priority) for priority in Priority]
        self.names_put = self.put_with(*kinds * 4)
        self.in_order = [name for rank in range(3) for name in self.names_put[rank::3]]

    def test_the_first_class_goes_first_and_no_mail_becomes_a_file(self) -> None:
        """Within a class in order; nothing is left in the end."""
        leases = [lease for _ in self.names_put for lease in self.queue.claim(1)]
        self.assertEqual([lease.name for lease in leases], self.in_order)
        self.assertEqual(self.names(), self.names_put[:2])
        for lease in leases:
            self.settle(lease, OK)
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])

    def test_is_shared_by_several_processors(self) -> None:
        """Each has some mails of a class at a time."""
        other = self.open()
        leases = [*self.queue.claim(2), *other.claim(2), *self.queue.claim(20), *other.claim(20)]
        self.assertEqual(sorted(lease.name for lease in leases), sorted(self.names_put))

    def test_what_was_given_back_is_given_out_again(self) -> None:
        """In its class."""
        leases = self.queue.claim(20)
        for lease in leases[5:]:
            lease.release()
        self.assertEqual({lease.name for lease in self.queue.claim(20)}, {lease.name for lease in leases[5:]})

    def test_after_a_death_what_was_intended_is_unknown(self) -> None:
        """And the rest is as before; every process finds the same mails behind a lock."""

        def work(queue: MaildirQueue) -> None:
            for lease in queue.claim(7):
                lease.intend()

        self.in_a_child(work)
        leases = self.queue.claim(20)
        self.assertEqual(sorted(lease.name for lease in leases), sorted(self.names_put))
        unknown = [lease.name for lease in leases if lease.record.unknowns]
        self.assertEqual(sorted(unknown), sorted(self.in_order[:7]))

    def test_what_was_deferred_becomes_a_file(self) -> None:
        """With its history; the others are gone."""
        one, *others = self.queue.claim(20)[::-1]
        self.settle(one, LATER)
        for lease in others:
            self.settle(lease, OK)
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(self.names(), [one.name])
        self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 1})


class OfHighPriority(DrainTest):
    """Many mails of one transaction, behind others that are files."""

    def test_is_found_before_those_have_gone(self) -> None:
        """A tenth of a second after its bell, which does not name it."""
        for _ in range(5):
            self.put(2)
        self.assertEqual(len(self.queue.claim(1)), 1)
        names = self.put_with(*[Terms(priority=Priority.HIGH)] * 5)
        self.queue.claim(1)
        self.clock.advance(0.11)
        self.assertEqual([lease.name for lease in self.queue.claim(4)], names[:4])


class WithTimes(DrainTest):
    """Not before a moment, and until another one."""

    def test_that_are_not_over_yet_is_drained_where_it_lies(self) -> None:
        """Each mail may have its own."""
        now = self.clock.time()
        names = self.put_with(*(Terms(not_before=now - 5, expires=now + 100 + number) for number in range(10)))
        leases = self.queue.claim(20)
        self.assertEqual([lease.name for lease in leases], names)
        self.assertEqual(self.names(), names[:2])

    def test_that_come_later_becomes_files(self) -> None:
        """Each leaves at its moment."""
        now = self.clock.time()
        names = self.put_with(*(Terms(not_before=now + 10 + number) for number in range(10)))
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(len(self.names()), len(names))
        self.clock.advance(15)
        self.assertEqual([lease.name for lease in self.queue.claim(20)], names[:6])

    def test_is_given_up_at_its_moment_though_no_mail_is_claimed(self) -> None:
        """A relay may be down; the others become files."""
        now = self.clock.time()
        names = self.put_with(*(Terms(expires=now + (30 if number == 7 else 100)) for number in range(10)))
        for lease in self.queue.claim(4):
            self.settle(lease, OK)
        self.assertEqual(self.queue.next_expiry(), 30.0)
        self.assertEqual(self.queue.claim_expired(), [])
        self.clock.advance(30)
        self.assertEqual(self.queue.next_expiry(), 0.0)
        self.assertEqual([lease.name for lease in self.queue.claim_expired()], [names[7]])
        self.assertEqual(self.names(), names[4:])
        self.assertEqual(self.queue.next_expiry(), 70.0)

    def test_is_given_up_when_what_others_have_in_hand_has_ended(self) -> None:
        """Another processor drains it as well."""
        now = self.clock.time()
        names = self.put_with(*(Terms(expires=now + 30) for _ in range(10)))
        other = self.open()
        theirs, mine = other.claim(4), self.queue.claim(2)
        self.clock.advance(30)
        self.queue.claim_expired()
        for lease in (*theirs, *mine):
            lease.release()
        found = [lease for _ in range(4) for lease in self._given_up_later(other)]
        self.assertEqual(sorted(lease.name for lease in found), names)

    def _given_up_later(self, other: MaildirQueue) -> list[Any]:
        self.clock.advance(3)
        return [lease for queue in (self.queue, other) for lease in queue.claim_expired()]


class ItsMails(DrainTest):
    def claim(self) -> Sequence[Any]:
        names = self.put(5)
        leases = self.queue.claim(20)
        self.assertEqual([lease.name for lease in leases], names)
        for lease in leases[:2]:
            self.settle(lease, OK)
        return leases[2:]

    def test_are_tried_again_when_they_are_due(self) -> None:
        """As files, with their histories."""
        one, other, third = self.claim()
        self.settle(one, LATER)
        self.settle(other, OK)
        self.settle(third, OK)
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(self.names(), [one.name])
        self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 1})
        self.clock.advance(61)
        [lease] = self.queue.claim(20)
        self.assertEqual((lease.name, lease.record.attempts), (one.name, 1))

    def test_are_due_before_all_of_them_were_tried(self) -> None:
        """Then the others become files, too."""
        one, other, third = self.claim()
        self.settle(one, LATER)
        self.clock.advance(61)
        self.settle(other, OK)
        third.release()
        self.queue.claim(0)
        self.clock.advance(3)
        self.assertEqual(
            sorted(lease.name for lease in self.queue.claim(20)),
            sorted([one.name, third.name]),
        )

    def test_are_set_aside_when_they_are_rejected(self) -> None:
        """They wait for a person, as any other."""
        for lease in self.claim():
            self.settle(lease, NEVER)
        self.assertEqual(self.queue.claim(20), [])
        self.queue.claim(20)
        self.assertEqual(self.queue.admin.count(), {State.REJECTED: 3})

    def test_are_given_out_again_when_they_were_given_back(self) -> None:
        """As if untried."""
        leases = self.claim()
        for lease in leases:
            lease.release()
        again = self.queue.claim(20)
        self.assertEqual({lease.name for lease in again}, {lease.name for lease in leases})
        self.assertEqual({lease.record.attempts for lease in again}, {0})

    def test_are_given_out_again_when_mails_behind_them_are_out(self) -> None:
        """Be they of the same piece of the bundle or of the next one."""
        names = self.put(12)  # ten of them in the bundle, three in a piece
        leases = self.queue.claim(6)
        by_name = {lease.name: lease for lease in leases}
        by_name.pop(names[3]).release()
        for lease in by_name.values():
            self.settle(lease, OK)
        rest = [lease for _ in range(3) for lease in self.queue.claim(20)]
        self.assertEqual(sorted(lease.name for lease in rest), sorted([names[3], *names[6:]]))

    def test_become_files_when_they_have_to_wait_for_a_relay(self) -> None:
        """All that are left."""
        leases = self.claim()
        for lease in leases:
            lease.park("relay")
        self.queue.claim(0)
        self.queue.claim(0)
        self.assertEqual(len(self.names()), 3)

    def test_are_given_back_while_others_are_out(self) -> None:
        """And what has to wait for a relay lets the rest of the chunk wait for files."""
        names = self.put(6)
        leases = self.queue.claim(4)
        leases[2].park("relay")
        self.assertEqual((self.queue.claim(20), self.queue.next_due()), ([], None))
        for lease in (*leases[:2], leases[3]):
            self.settle(lease, OK)
        self.assertEqual([lease.name for lease in self.queue.claim(20)], [names[2], *names[4:]])

    def test_stay_as_they_were_when_the_disk_has_no_room_for_a_history(self) -> None:
        """They are tried again later."""

        class Full(Disk):
            def append(self, path: str, *pieces: Any) -> None:
                raise OSError(errno.ENOSPC, "full")

        self.queue = self.open(Full())
        for lease in self.claim():
            self.settle(lease, LATER)
        self.assertEqual(self.open().admin.count(), {State.READY: 3})


class ADiskThatRefuses(DrainTest):
    """For a moment, in the middle of a claim."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = RefusingOnce()
        self.queue = self.open(self.disk)

    def test_costs_no_lease_on_the_mails_before(self) -> None:
        """They are given out, and the others follow: those whose history, or whose chunk, cannot be read just then."""
        for call, behind, given in (
            ("read_tail", 1, 3),
            ("read_tail", 3, 5),
            ("read_at", 3, 5),
            ("link", 2, 2),
            ("link", 3, 5),
        ):
            with self.subTest(call, behind=behind):
                names = self.put()
                self.disk.refuse(call, behind)
                leases = self.queue.claim(20)
                self.assertEqual([lease.name for lease in leases], names[:given])
                for _ in range(3):
                    for lease in leases:
                        self.settle(lease, OK)
                    self.clock.advance(bundledrain.LOOK_AGAIN + 0.1)
                    leases = self.queue.claim(20)
                self.assertEqual(self.queue.admin.count(), {})

    def test_costs_no_mail_that_a_dead_process_had_in_hand(self) -> None:
        """When an operator wants files: what can be told is, and the rest when the disk lets it."""
        names = self.put()
        self.in_a_child(intend_four)
        self.disk.refuse("read_tail", behind=1)
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=self.disk)
        self.addCleanup(queue.close)
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._LOOKS", 1))
        for _ in range(2):
            list(queue.admin.names())
            self.clock.advance(bundledrain.LOOK_AGAIN + 0.1)
        self.assertEqual(self.names(), names)

    def test_makes_the_operator_wait_who_wants_files_just_then(self) -> None:
        """It is looked at again after a pause, and the mails become files."""
        names = self.put()
        self.disk.refuse("read_tail", 0)
        leases = self.queue.claim(20)
        self.assertEqual(len(leases), 2)
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._LOOKS", 1))
        for _ in range(2):
            list(self.queue.admin.names())
            self.clock.advance(bundledrain.LOOK_AGAIN + 0.1)
        self.assertEqual(sorted([*self.names()]), names)

    def test_costs_no_mail_that_was_given_back(self) -> None:
        """Its byte cannot be written, or its text cannot be read again: the log tells it, and it leaves as a file."""
        for call in ("write_at", "read_at"):
            with self.subTest(call):
                names = self.put()
                leases = self.queue.claim(3)
                self.disk.refuse(call, 0)
                if call == "write_at":
                    with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
                        leases[2].release()
                    self.assertIn(names[2], logs.output[0])
                else:
                    leases[2].release()
                sent = [lease.name for lease in leases[:2]]
                for _ in range(6):
                    for lease in leases[:2]:
                        self.settle(lease, OK)
                    self.clock.advance(bundledrain.LOOK_AGAIN + 0.1)
                    leases = self.queue.claim(2)
                    sent += [lease.name for lease in leases]
                for lease in leases:
                    self.settle(lease, OK)
                self.assertEqual(sorted(sent), names)


class AChunk(DrainTest):
    """Of which the lock is not ours any more, or the mails are not there any more."""

    def test_whose_lock_was_removed_by_hand_is_left_alone(self) -> None:
        """Its mails are not sent from here, and what is written of them is not changed."""
        self.put()
        leases = self.queue.claim(4)
        for name in os.listdir(self.queue.layout.new):
            for lock in os.listdir(self.group()) if name.startswith(".group-") else ():
                if lock.startswith(".sending-"):
                    os.unlink(os.path.join(self.group(), lock))
        with self.assertRaises(LeaseLost):
            leases[2].intend()
        before = Disk().read(os.path.join(self.group(), PROGRESS))
        leases[2].release()
        self.assertEqual(Disk().read(os.path.join(self.group(), PROGRESS)), before)

    def test_of_which_another_process_has_made_files_has_nothing_left(self) -> None:
        """One that does not see our locks, while we had a part of it; each mail is given out, once."""
        for steps in ("all of it", "but for the empty directory"):
            with self.subTest(steps):
                names = self.put()
                leases = self.queue.claim(5)
                sent = [lease.name for lease in leases]
                for lease in leases:
                    self.settle(lease, OK)
                group = self.group()
                left = os.path.join(self.path, "kept")
                os.link(os.path.join(group, PROGRESS), left)
                with mock.patch("zope.sendmail.queue.maildir.bundle.is_left", return_value=False):
                    unfold_now(self.queue.layout, Disk(), group)
                if steps != "all of it":
                    os.mkdir(group)
                    os.link(left, os.path.join(group, PROGRESS))
                os.unlink(left)
                self.assertEqual(self.names(), names[5:])
                for _ in range(3):
                    leases = self.queue.claim(20)
                    sent += [lease.name for lease in leases]
                    for lease in leases:
                        self.settle(lease, OK)
                    self.clock.advance(3)
                self.assertEqual(sent, names)

    def test_that_dead_processes_have_left_unclear_is_told_when_the_rest_is_given_up(self) -> None:
        """What may have gone is given out in any case, and what was not begun becomes a file."""
        names = self.put()

        def work(queue: MaildirQueue) -> None:
            leases: list[Any] = queue.claim(4)
            leases[3].intend()

        self.in_a_child(work)
        [lease] = self.queue.claim(1)
        self.assertEqual(lease.name, names[2])
        lease.park("relay")
        given = {lease.name: lease.record.unknowns for _ in range(3) for lease in self.queue.claim(20)}
        self.assertEqual(given, {names[0]: 0, names[1]: 0, names[3]: 1})

    def test_with_a_mail_that_is_none(self) -> None:
        """A disk has changed it: that one is told of, the others are sent."""
        names = self.put()
        bundle = os.path.join(self.group(), BUNDLE)
        text = Disk().read(bundle)
        with open(bundle, "r+b") as stream:
            stream.seek(text.index(b"X-Zope-From"))
            stream.write(b"X-Zope-Frog")
        leases = self.queue.claim(20)
        self.assertEqual([bool(lease.problem) for lease in leases], [name == names[2] for name in names])

    def test_that_is_out_when_the_queue_is_closed_is_closed_with_its_last_lease(self) -> None:
        """What the relay has said is written down, and no file stays open."""
        names = self.put()
        leases = self.queue.claim(4)
        self.queue.close()
        for lease in leases:
            self.settle(lease, OK)
        self.assertEqual(ANewsletter.open_files(self), [])  # type: ignore[arg-type]  # it has the same path
        self.clock.advance(10)
        self.assertEqual(sorted(lease.name for lease in self.open().claim(20)), names[4:])


class AnOperatorWhoWantsFiles(DrainTest):
    """Of a bundle at which another process is, or was."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._LOOKS", 1))
        self.names_ = self.put()

    def listed(self) -> list[str]:
        return sorted(self.queue.admin.names())

    def test_sees_all_mail_while_another_process_makes_them(self) -> None:
        """It has the bundle locked, be it that another one has drained a part of it; then all are files."""
        for is_begun in (False, True):
            with self.subTest(is_begun=is_begun):
                if is_begun:
                    make_progress(self.queue.disk, self.group(), 8, "processor", lambda *_: False)
                with self.queue.disk.locked(os.path.join(self.group(), BUNDLE)):
                    self.assertEqual(self.listed(), self.names_)
                    self.assertEqual(self.names(), self.names_[:2])
        self.assertEqual(self.listed(), self.names_)
        self.assertEqual(self.names(), self.names_)

    def test_gets_none_of_what_a_relay_has(self) -> None:
        """A dead process had noted that; it is not made a file, and not sent again."""

        def work(queue: MaildirQueue) -> None:
            leases: list[Any] = queue.claim(4)
            leases[3].intend()
            leases[3].accepted()

        self.in_a_child(work)
        self.assertEqual(self.listed(), [name for name in self.names_ if name != self.names_[3]])

    def test_closes_what_is_closed(self) -> None:
        """No other file of that number is closed with it."""
        self.queue.claim(4)
        [drain] = self.queue._claims._bundles._drains.values()
        drain.forget()
        with open(os.devnull, "rb") as one, open(os.devnull, "rb") as two:
            drain.forget()
            os.fstat(one.fileno()), os.fstat(two.fileno())


class TwoBundles(DrainTest):
    def test_one_of_which_cannot_be_locked_costs_no_lease_on_the_other(self) -> None:
        """The trouble is met again by the next claim."""
        names, more = self.put(), self.put()
        disk = RefusingOnce()
        queue = self.open(disk)
        disk.refuse("link", 5)
        with mock.patch("zope.sendmail.queue.maildir.bundledrain._CHUNK", 64):
            found = [lease.name for lease in queue.claim(20)]
            self.assertIn(names[3], found)
            self.clock.advance(3)
            found += [lease.name for lease in queue.claim(20)]
        self.assertEqual(sorted(found), sorted([*names, *more]))


class AForeignProgress(DrainTest):
    def test_stops_no_other_mail(self) -> None:
        """The bundle stays as it is, and that is told."""
        self.put()
        Disk().create(os.path.join(self.group(), PROGRESS), b"not ours")
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.assertEqual(len(self.queue.claim(20)), 2)
        self.assertIn("not the progress of a bundle", "".join(logs.output))
        self.assertTrue(os.path.exists(os.path.join(self.group(), BUNDLE)))


def intend_four(queue: MaildirQueue) -> None:
    """Be about to send the last byte of four mails."""
    for lease in queue.claim(4):
        lease.intend()


class AfterADeath(DrainTest):
    def test_what_was_claimed_is_as_before(self) -> None:
        """The next processor gets it at once."""
        names = self.put()
        self.in_a_child(lambda queue: queue.claim(20))
        self.assertEqual(sorted(lease.name for lease in self.queue.claim(20)), names)

    def test_what_was_intended_is_unknown_and_what_was_accepted_is_sent(self) -> None:
        """Both are told, and nothing is sent twice unsaid."""

        def work(queue: MaildirQueue) -> None:
            leases: list[Any] = queue.claim(5)
            for lease in leases[2:]:
                lease.intend()
            leases[3].accepted()
            self.settle(leases[4], OK)

        names = self.put()
        self.in_a_child(work)
        leases = {lease.name: lease for lease in self.queue.claim(20)}
        self.assertEqual(sorted(leases), [*names[:4], *names[5:]])
        unknown, accepted = leases[names[2]], leases[names[3]]
        assert unknown.inherited is not None
        assert accepted.inherited is not None
        self.assertEqual(unknown.inherited.replies["one@example.org"].answer, Answer.UNKNOWN)
        self.assertEqual((unknown.record.unknowns, unknown.record.deaths), (1, 1))
        self.assertEqual(accepted.record.state, State.SENT)
        accepted.settle(accepted.record)
        for lease in leases.values():
            if lease is not accepted:
                self.settle(lease, OK)
        self.assertEqual(self.queue.claim(20), [])
        self.assertEqual(self.queue.admin.count(), {})

    def test_a_deferral_that_was_written_down_counts(self) -> None:
        """The byte had not been changed yet."""

        def work(queue: MaildirQueue) -> None:
            leases: list[Any] = queue.claim(5)
            leases[2].intend()
            with mock.patch.object(BundledMail, "write"):
                self.settle(leases[2], LATER)

        names = self.put()
        self.in_a_child(work)
        self.assertEqual(sorted(lease.name for lease in self.queue.claim(20)), [*names[:2], *names[3:]])

    def test_no_process_makes_files_before_it_is_told(self) -> None:
        """The thread of the committing process leaves it to processors."""
        self.put()
        self.in_a_child(intend_four)
        unfold_now(self.queue.layout, self.queue.disk, self.group())
        self.assertTrue(os.path.exists(os.path.join(self.group(), PROGRESS)))
        self.assertFalse(any(name.startswith(".splitting") for name in os.listdir(self.group())))

    def test_an_operator_gets_files(self) -> None:
        """What is unknown is written down first."""
        names = self.put()
        self.in_a_child(intend_four)
        self.assertEqual(sorted(self.queue.admin.names()), names)
        self.assertEqual(self.names(), names)
        self.assertEqual(self.queue.admin.show(names[3]).history[-1].unknowns, 1)
        self.queue.admin.remove(names[5])
        self.assertEqual(sum(self.queue.admin.count().values()), 9)

    def test_its_stop_leaves_files(self) -> None:
        """For whatever program comes next."""
        names = self.put()
        for lease in self.queue.claim(3):
            self.settle(lease, OK)
        self.queue.close()
        self.assertEqual(self.names(), names[3:])


class Watched(Disk):
    """Counts the looks at a group until files are made of it."""

    def __init__(self, group: str) -> None:
        self.group, self.looks, self.begun = group, 0, threading.Event()

    def names(self, path: str) -> list[str]:
        self.looks += path == self.group and not self.begun.is_set()
        return super().names(path)

    def locked(self, path: str) -> Any:
        self.begun.set()
        return super().locked(path)


class FilesOfATransaction(DrainTest):
    """They are made by a thread of the process that committed it, soon."""

    def looks(self) -> int:
        disk = Watched(self.group())
        with mock.patch.object(unfolder, "_PAUSE", 0.001):
            thread = unfolder.Unfolder()
            thread.later(self.queue.layout, disk, disk.group)
            self.assertTrue(disk.begun.wait(300))
            self.assertTrue(thread.flush(60.0))
        return disk.looks

    def test_wait_for_a_processor_that_is_about_to_begin(self) -> None:
        """It has taken up the bundle, and has no mail of it in hand yet; it is not waited for for ever."""
        names = self.put()
        free = self.looks()
        self.assertEqual(self.names(), names)
        again = self.put()
        make_progress(self.queue.disk, self.group(), 8, "processor", lambda *_: False)
        self.assertEqual(self.looks() - free, unfolder._PATIENCE - 1)  # one is made in any case
        self.assertEqual(self.names(), sorted([*names, *again]))

    def test_are_made_at_once_if_somebody_waits_for_them(self) -> None:
        """As at the end of a program."""
        names = self.put()
        make_progress(self.queue.disk, self.group(), 8, "processor", lambda *_: False)
        with mock.patch.object(unfolder, "_PAUSE", 3600.0):
            thread = unfolder.Unfolder()
            thread.later(self.queue.layout, self.queue.disk, self.group())
            self.assertTrue(thread.flush(60.0))
        self.assertEqual(self.names(), names)


class SomebodyWantsFiles(DrainTest):
    def test_while_processors_drain(self) -> None:
        """They finish what is in hand, and leave the rest."""
        names = self.put()
        leases = self.queue.claim(4)
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._LOOKS", 1))
        list(self.open().admin.names())
        self.assertIn(WANTED, os.listdir(self.group()))
        for lease in leases:
            self.settle(lease, OK)
        [last] = self.queue.claim(20)
        self.assertEqual(last.name, names[4])
        self.settle(last, OK)
        self.assertEqual([lease.name for lease in self.queue.claim(20)], names[5:])
        self.assertEqual(self.names(), names[5:])

    def test_a_process_that_makes_them_is_left_alone(self) -> None:
        """Neither gets in the way of the other, however that ends."""
        names = self.put()
        Disk().create(os.path.join(self.group(), ".splitting-another.example.org"))
        self.assertEqual([lease.name for lease in self.queue.claim(20)], names[:2])
        self.assertNotIn(PROGRESS, os.listdir(self.group()))


class MailsThatStandInABundle(DrainTest):
    """A processor has some of them in hand, and an operator looks: no files are made in time."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._LOOKS", 1))
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.mailviews._PATIENCE", 0.001))
        self.all = self.put()
        *_, self.lease = self.queue.claim(4)
        self.lease.open()
        self.admin = self.open().admin

    def test_are_listed_with_the_others(self) -> None:
        """In the order of their age, each once, those that have left no more."""
        self.assertEqual(list(self.admin.names()), self.all)
        self.assertEqual([mail.name for mail in self.admin.mails()], self.all)
        self.settle(self.lease, OK)
        left = [name for name in self.all if name != self.lease.name]
        self.assertEqual([mail.name for mail in self.admin.mails()], left)
        self.assertEqual(list(self.admin.names()), left)

    def test_have_a_state(self) -> None:
        """That which counts tell as well."""
        states = {mail.name: mail.state for mail in self.admin.mails()}
        self.assertEqual(states.pop(self.lease.name), State.SENDING)
        self.assertEqual(set(states.values()) - {State.SENDING}, {State.READY})
        self.assertEqual(self.admin.count()[State.SENDING] + self.admin.count()[State.READY], len(self.all))
        self.assertIn(self.lease.name, [mail.name for mail in self.admin.mails([State.SENDING])])

    def test_are_found_by_name_and_message_id(self) -> None:
        """As files are."""
        [mail] = self.admin.these([self.lease.name])
        self.assertEqual(mail, self.admin.show(self.lease.name))
        self.assertIn(self.lease.name, self.queue.status(mail.message_id).names)

    def test_are_listed_once_if_they_become_files_meanwhile(self) -> None:
        """Between a look at the directory and one into the bundle, or after both."""
        whole = BundleViews.open
        gone: list[str] = []

        def vanishing(bundled: BundleViews, groups: list[str], **more: Any) -> list[OpenBundle]:
            opened = [] if not gone else whole(bundled, groups)
            if groups and not gone:
                gone.append(self.lease.name)
                self.lease.release()
                self.queue.close()
                raise FileNotFoundError
            return opened

        with mock.patch.object(BundleViews, "open", vanishing):
            self.assertEqual(list(self.admin.names()), self.all)

    def test_are_listed_once_if_they_are_files_as_well(self) -> None:
        """Their bundle was open already when they became files."""
        with open(os.path.join(self.path, "new", self.all[-1]), "wb") as file:
            file.write(MESSAGE)
        self.assertEqual([mail.name for mail in self.admin.mails()], self.all)
        self.assertEqual(list(self.admin.names()), self.all)

    def test_are_looked_for_anew_if_their_bundle_is_gone(self) -> None:
        """Another process has made files of it."""
        with self.assertRaises(FileNotFoundError):
            BundleViews(self.queue._claims.store).open(["new/.group-gone"])

    def test_are_listed_beside_a_group_without_a_bundle(self) -> None:
        """As one that cannot be unfolded, on a disk that is read-only; a look ends all the same."""
        os.makedirs(os.path.join(self.path, "new/.group-plain/.parts"))
        with mock.patch("zope.sendmail.queue.maildir.store.unfold", return_value=False):
            self.assertEqual(list(self.admin.names()), self.all)

    def test_are_left_out_where_they_cannot_be_read(self) -> None:
        """The doctor tells of that."""
        with mock.patch("zope.sendmail.queue.maildir.bundleviews.steps_in", side_effect=PermissionError):
            self.assertEqual(list(self.admin.names()), self.all[:2])


class FilesOfABundle(DrainTest):
    def test_are_not_awaited_where_a_processor_drains_it(self) -> None:
        """There will be none; another processor's pass ends without them."""
        self.put()
        leases = self.queue.claim(4)
        other = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(other.close)
        self.assertEqual(other.claim(20), [])
        self.assertFalse(other.awaits_files)
        for lease in leases:
            lease.release()

    def test_are_not_awaited_that_were_made_since_it_was_seen(self) -> None:
        """The bundle is gone then, which is no trouble of the look that has just seen it."""
        self.put()
        store = self.queue._claims.store
        listing = Listing(self.queue.layout, store.disk)
        self.assertFalse(store.are_drained(listing))
        other = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(other.close)
        for lease in other.claim(20):
            lease.release()
        self.assertFalse(os.path.exists(os.path.join(self.queue.layout.root, listing.groups[0])))
        self.assertTrue(store.are_drained(listing))


class AProcessorWithOneRelay(DrainTest):
    def test_lets_no_mail_of_a_bundle_give_way(self) -> None:
        """It parks nothing that could go before."""
        self.put()
        for lease in self.queue.claim(20):
            self.assertFalse(lease.give_way("relay"))
            self.settle(lease, OK)


class ABundleOnADiskThatHasRefused(DrainTest):
    def test_is_left_alone_for_a_while_also_if_files_are_wanted_of_it(self) -> None:
        """They are made with the next look."""
        self.put()
        self.assertEqual(len(self.queue.claim(2)), 2)  # the files
        source = self.queue._claims._bundles
        [(group, drain)] = source._drains.items()
        drain.try_again(self.clock.monotonic())
        source.give_up(group)
        self.assertIn(WANTED, os.listdir(self.group()))
        self.assertEqual(len(self.names()), 2)
        self.clock.advance(LOOK_AGAIN)
        source.give_up(group)
        self.assertEqual(len(self.names()), 10)


del DrainTest


if __name__ == "__main__":
    unittest.main()
