"""A mail beside which there is no room for its lock goes to where there is."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import SCHEDULE, ManualClock


class SmallDirectories(Disk):
    """A disk on which ``new/`` has no room for one more name, and others have if `is_roomy` says so."""

    is_roomy = True
    is_full = True

    def _check(self, path: str) -> None:
        if self.is_full and (os.path.basename(os.path.dirname(path)) == "new" or not self.is_roomy):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def link(self, old: str, new: str) -> None:
        """See `Disk.link`."""
        if ".sending-" in new:
            self._check(new)
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """See `Disk.rename_new`.  A name that takes the place of another one has room."""
        if ".sending-" in new:
            self._check(new)
        super().rename_new(old, new)


class AMailWithoutRoomForItsLock(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        self.disk = SmallDirectories()
        staged = self.queue(Disk()).stage()
        staged.add(Envelope("s@example.org", ("a@example.org",)), b"Subject: s\n\ntext\n")
        staged.prepare()
        staged.commit()
        [self.name] = os.listdir(os.path.join(self.path, "new"))

    def queue(self, disk: Disk) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def names(self, directory: str) -> list[str]:
        return sorted(os.listdir(os.path.join(self.path, directory)))

    def test_leaves_from_where_there_is_room(self) -> None:
        """Nothing of it is left."""
        [lease] = self.queue(self.disk).claim(1)
        self.assertEqual((self.names("new"), self.names("cur")), ([], [f".sending-{self.name}", self.name]))
        lease.settle(Record(state=State.SENT))
        self.assertEqual((self.names("new"), self.names("cur")), ([], []))

    def test_is_with_one_processor(self) -> None:
        """Another one finds the lock there."""
        [lease] = self.queue(self.disk).claim(1)
        self.assertEqual(self.queue(Disk()).claim(1), [])
        lease.release()
        self.clock.advance(10)
        self.assertEqual(len(self.queue(Disk()).claim(1)), 1)

    def test_is_tried_again_by_the_same_processor(self) -> None:
        """A deferral is due when it says so."""
        queue = self.queue(self.disk)
        [lease] = queue.claim(1)
        lease.settle(Record(state=State.DEFERRED, due=self.clock.time() + 60, attempts=1))
        self.assertEqual(queue.claim(1), [])
        self.clock.advance(61)
        self.assertEqual(len(queue.claim(1)), 1)

    def test_stays_where_it_is_if_there_is_no_room_anywhere(self) -> None:
        """One message at a time is sent with the owner file's own name, or none."""
        self.disk.is_roomy = False
        with self.assertRaises(OSError):
            self.queue(self.disk).claim(1)
        self.assertEqual((self.names("new"), self.names("cur")), ([self.name], []))

    def test_can_be_removed_by_an_operator(self) -> None:
        """As it can be sent."""
        self.queue(self.disk).admin.remove(self.name)
        self.assertEqual((self.names("new"), self.names("cur")), ([], []))

    def test_is_left_to_the_processor_that_locked_it_a_moment_before(self) -> None:
        """That one removes it where it is, and nothing is sent twice."""
        first = self.queue(Disk())
        [lease] = first.claim(1)
        os.rename(os.path.join(self.path, "new", self.name), os.path.join(self.path, "cur", self.name))
        other = self.queue(Disk())
        self.assertEqual(other.claim(1), [])
        lease.settle(Record(state=State.SENT))
        self.clock.advance(10)
        self.assertEqual(other.claim(1), [])
        self.assertEqual((self.names("new"), self.names("cur")), ([], []))
