"""A Maildir in moments that seldom come, each of which has a promise of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from unittest import mock

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir import staging
from zope.sendmail.queue.maildir.liveness import LocksFolder
from zope.sendmail.queue.maildir.store import Listing
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.tests.queue.maildir import test_schedule


class AnOwner(test_schedule.MaildirTest):
    def test_with_two_names_for_its_file_is_one(self) -> None:
        """A death between two names leaves such a file; while its owner lives it is nothing to be removed."""
        self.put(Terms())
        [lease] = self.queue.claim()
        layout = self.queue._claims.store.layout
        before = LocksFolder.at(layout, Disk(), self.clock.time())
        [owner] = [name for name in os.listdir(layout.locks) if self.inode(layout.locks, name) in before.living]
        os.link(os.path.join(layout.locks, owner), os.path.join(layout.locks, f"{owner}-again"))
        self.assertEqual(LocksFolder.at(layout, Disk(), self.clock.time()), before)
        lease.release()

    @staticmethod
    def inode(directory: str, name: str) -> tuple[int, int]:
        status = os.stat(os.path.join(directory, name))
        return status.st_dev, status.st_ino


class AMailThatHasLeft(test_schedule.MaildirTest):
    def test_keeps_its_space_while_its_file_is_held(self) -> None:
        """Its name is gone at once, which is the instant of success; whoever holds the file frees the space."""
        key = f"new/{self.put(Terms())}"
        held: list[int] = []
        self.assertTrue(self.queue._claims.store.remove_sent(key, held))
        [fd] = held
        self.addCleanup(os.close, fd)
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])

    def test_lets_mail_be_looked_for_that_had_no_room(self) -> None:
        """Once when its name is gone, and again when its space is free."""
        scanner = self.queue._claims._scanner
        self.assertEqual(self.names(), [])
        claims = self.queue._claims
        ways: list[Callable[[], None]] = [lambda: claims.removed(["new/1.2.host.3"]), claims.freed]
        for makes_room in ways:
            scanner.look(inf)
            scanner.note_short()
            self.assertFalse(scanner.is_due)
            makes_room()
            self.assertTrue(scanner.is_due)


class AMailThatWasDeferred(test_schedule.MaildirTest):
    def test_waits_as_long_when_the_clock_is_set_though_it_was_planned(self) -> None:
        """Its moment is over; the next attempt is so many seconds after the last one."""
        name = self.put(Terms(self.clock.time() + 60))
        self.clock.advance(60)
        [lease] = self.queue.claim()
        lease.settle(Record(State.DEFERRED, attempts=1, due=self.clock.time() + 1000))
        self.clock.wall += 7200
        self.clock.advance(999)
        self.assertEqual(self.names(), [])
        self.clock.advance(1)
        self.assertEqual(self.names(), [name])


class ALook(test_schedule.MaildirTest):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(staging, "later"))  # so that the queue's own look makes files of bundles

    def put_many(self) -> list[str]:
        """Commit a transaction that is a bundle."""
        staged = self.queue.stage()
        names = [staged.add(Envelope("s@example.org", ("one@example.org",)), MESSAGE) for _ in range(100)]
        staged.prepare()
        staged.commit()
        return names

    def claimed(self) -> list[str]:
        return sorted(lease.name for lease in self.queue.claim(1000))

    def test_that_made_files_of_a_bundle_for_long_keeps_no_mail_of_the_next_one(self) -> None:
        """As where the disk is slow, or the machine busy: that is done once, and looking costs as little as before."""
        store = self.queue._claims.store
        unfold = store.unfold

        def slowly(listing: Listing, failed: Callable[[str, OSError], object]) -> bool:
            self.clock.advance(60.0)
            return unfold(listing, failed)

        with mock.patch.object(store, "unfold", slowly):
            self.assertEqual(self.claimed(), [])
            first = self.put_many()
            self.clock.advance(0.2)
            self.assertEqual(self.claimed(), sorted(first))
        second = self.put_many()
        self.clock.advance(0.2)
        self.assertEqual(self.claimed(), sorted(second))

    def look_at_a_cost(self) -> int:
        """Let each look take a second, and ask for one each second, a minute long; return how many there were."""
        disk = self.queue._claims.store.disk
        names, looks = disk.names, []

        def slowly(path: str) -> list[str]:
            if path.endswith("/new"):
                looks.append(path)
                self.clock.advance(1.0)
            return names(path)

        with mock.patch.object(disk, "names", slowly):
            for _ in range(60):
                self.clock.advance(1.0)
                self.queue._claims.heard([""])
                self.claimed()
        return len(looks)

    def test_is_taken_for_a_twentieth_of_the_time(self) -> None:
        """However often it is asked for."""
        self.assertEqual(self.claimed(), [])
        self.assertLessEqual(self.look_at_a_cost(), 4)

    def test_that_meets_a_bundle_which_stays_counts_what_that_costs(self) -> None:
        """It costs the same the next time."""
        self.assertEqual(self.claimed(), [])
        self.put_many()
        store, looks = self.queue._claims.store, []

        def fails(listing: Listing, _: Callable[[str, OSError], object]) -> bool:
            looks.append(listing)
            self.clock.advance(1.0)
            return True

        with mock.patch.object(store, "unfold", fails):
            for _ in range(60):
                self.clock.advance(1.0)
                self.queue._claims.heard([""])
                self.claimed()
        self.assertLessEqual(len(looks), 4)
