"""`zope.sendmail.queue.maildir.lockedhistories`: a message that was tried meanwhile is not taken for a fresh one."""

from __future__ import annotations

import errno
import os
import unittest
from collections.abc import Callable

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir import lockedhistories
from zope.sendmail.system.disk import Disk
from zope.sendmail.tests.queue.maildir.test_queue import MaildirQueueTest


class Between(Disk):
    """Does `between` when the message whose name ends so has been locked."""

    def __init__(self, end: str, between: Callable[[], object]) -> None:
        self.end, self.between = end, between
        #: How often a directory of histories was read, and a history was looked for.
        self.listed = self.asked = 0
        #: What refuses to read the directory.
        self.error = 0

    def link(self, old: str, new: str) -> None:
        super().link(old, new)
        if new.endswith(self.end):
            self.between()

    def names(self, path: str) -> list[str]:
        if os.path.basename(path) == "history":
            self.listed += 1
            if self.error:
                raise OSError(self.error, os.strerror(self.error), path)
        return super().names(path)

    def exists(self, path: str) -> bool:
        self.asked += 1
        return super().exists(path)


class AnotherProcessorWroteAHistory(MaildirQueueTest):
    """And gave the lock back, after we had seen that there was none and before we had the lock."""

    def claimed(self, record: Record, limit: int = 5, error: int = 0) -> tuple[list[str], list[tuple[str, int]]]:
        """Claim up to so many of six, of which the third has a history then; return names, and each with attempts."""
        names = self.put(6)
        disk = Between(names[2], lambda: self.queue.store.append(f"new/{names[2]}", record))
        disk.error = error
        self.disk = disk
        queue = self.open(disk)
        return names, [(lease.name, lease.record.attempts) for lease in queue.claim(limit)]

    def test_and_it_is_not_due(self) -> None:
        """Another one is claimed in its place."""
        later = Record(State.DEFERRED, attempts=1, time=self.clock.time(), due=self.clock.time() + 60.0)
        names, claimed = self.claimed(later)
        self.assertEqual(claimed, [(name, 0) for name in names if name != names[2]])
        self.assertEqual(self.disk.listed, 1)

    def test_and_it_is_due(self) -> None:
        """Its lease knows of the attempt."""
        now = Record(State.DEFERRED, attempts=1, time=self.clock.time() - 60.0, due=self.clock.time())
        names, claimed = self.claimed(now)
        self.assertEqual(claimed, [(name, int(name == names[2])) for name in names[:5]])

    def test_and_a_person_has_to_decide(self) -> None:
        """It is not claimed, also where two are claimed, which are asked for one by one."""
        held = Record(State.HELD, attempts=1, time=self.clock.time(), unknowns=1)
        for limit in (5, 2):
            with self.subTest(limit):
                names, claimed = self.claimed(held, limit)
                self.assertNotIn((names[2], 0), claimed)

    def test_and_the_directory_cannot_be_read(self) -> None:
        """Each is looked at closer."""
        later = Record(State.DEFERRED, attempts=1, time=self.clock.time(), due=self.clock.time() + 60.0)
        names, claimed = self.claimed(later, error=errno.EIO)
        self.assertEqual(claimed, [(name, 0) for name in names if name != names[2]])


class TheDirectoryHasManyNames(MaildirQueueTest):
    def test_so_each_is_asked_for(self) -> None:
        """For a minute; it is read once to find that out."""
        self.put(20)
        for number in range(lockedhistories._FEW + 1):
            self.queue.store.append(f"new/{number}.other", Record(State.DEFERRED))
        queue = self.open(disk := Between("?", lambda: None))
        queue.claim(1)  # looks at the directory
        before = disk.listed
        self.assertEqual([len(queue.claim(4)) for _ in range(3)], [4, 4, 4])
        self.assertEqual((disk.listed - before, disk.asked), (1, 1 + 8))
        self.clock.advance(60.0)
        queue.claim(4)
        self.assertGreater(disk.listed - before, 1)


if __name__ == "__main__":
    unittest.main()
