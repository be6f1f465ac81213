"""A full disk, as a seam plays it at one certain call; real ones, which only root can mount, are in `scenarios`."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import PLAIN, Terms
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock


def no_room(path: str = "") -> OSError:
    """Return what a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class FullDisk(Disk):
    """A disk with room for so many locks."""

    def __init__(self) -> None:
        self.locks = 1000

    def _check(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        held = [each for each in os.listdir(directory) if each.startswith(".sending-")]
        if name.startswith(".sending-") and len(held) >= self.locks:
            raise no_room(path)

    def link(self, old: str, new: str) -> None:
        self._check(new)
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        self._check(new)
        super().rename_new(old, new)


class FullDiskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.disk, self.clock = FullDisk(), ManualClock()
        self.queue = self.open()

    def open(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=self.disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int, terms: Terms = PLAIN) -> list[str]:
        staged = MaildirQueue(self.path, clock=self.clock).stage()
        names = [staged.add(Envelope("s@example.org", ("a@example.org",), terms=terms), MESSAGE) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names


class MailWhoseTimeIsOver(FullDiskTest):
    def test_is_given_up_as_far_as_there_is_room_for_locks(self) -> None:
        """What has been locked is given out, and the rest when there is room again; none is forgotten."""
        names = self.put(5, Terms(expires=self.clock.time() + 1))
        self.clock.advance(2)
        self.disk.locks = 2
        found: list[str] = []
        for _ in range(3):
            leases = self.queue.claim_expired()
            found += [lease.name for lease in leases]
            self.assertEqual(self.queue.claim_expired(), [])  # there is no room for one more
            for lease in leases:
                lease.settle(Record(State.REJECTED, time=self.clock.time()))
        self.assertEqual(sorted(found), sorted(names))


if __name__ == "__main__":
    unittest.main()
