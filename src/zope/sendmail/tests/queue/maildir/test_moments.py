"""A Maildir in moments that seldom come, each of which has a promise of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir.liveness import LocksFolder
from zope.sendmail.system.disk import Disk
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
