"""A mail beside which there is no room for its lock goes to where there is."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from zope.sendmail.errors import NotPossible
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import CannotClaim
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


class SmallDirectoriesWithoutAFile(SmallDirectories):
    """Nor is there room for an owner file, or a reserve of them, if it has none: a lock is a name of its message."""

    has_files = False

    def open_locked(self, path: str) -> int:
        """See `Disk.open_locked`."""
        if self.has_files:
            return super().open_locked(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def lock_existing(self, path: str) -> int | None:
        """See `Disk.lock_existing`."""
        is_owner_file = os.path.basename(os.path.dirname(path)) == "locks"
        return super().lock_existing(path) if self.has_files or not is_owner_file else None


class SteppedDisk(SmallDirectoriesWithoutAFile):
    """Such a disk, or a roomy one, on which a thread stops before each call that changes a name, or looks."""

    def __init__(self, *, is_full: bool, has_files: bool = True) -> None:
        self.is_full, self.has_files = is_full, has_files
        self.is_over = True
        self._go, self._is_there = threading.Semaphore(0), threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def begin(self, work: Callable[[], object]) -> None:
        """Do `work` in a thread, up to its first call."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)
            finally:
                self.is_over = True
                self._is_there.release()

        self.is_over = False
        threading.Thread(target=run, daemon=True).start()
        self._is_there.acquire()

    def step(self) -> None:
        """Let it do one call, and what follows up to the next one."""
        self._go.release()
        self._is_there.acquire()

    def _stop(self, path: str) -> None:
        if not self.is_over and os.path.basename(os.path.dirname(path)) in ("new", "cur"):
            self._is_there.release()
            self._go.acquire()

    def link(self, old: str, new: str) -> None:
        """See `Disk.link`."""
        self._stop(new)
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """See `Disk.rename_new`."""
        self._stop(new)
        super().rename_new(old, new)

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        self._stop(path)
        super().unlink(path)

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        self._stop(path)
        return super().exists(path)


class MakeWayTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        self.disk = SmallDirectories()
        self.put()

    def put(self) -> None:
        staged = self.queue(Disk()).stage()
        [self.name] = [staged.add(Envelope("s@example.org", ("a@example.org",)), b"Subject: s\n\ntext\n")]
        staged.prepare()
        staged.commit()

    def queue(self, disk: Disk) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def names(self, directory: str) -> list[str]:
        return sorted(os.listdir(os.path.join(self.path, directory)))


class AMailWithoutRoomForItsLock(MakeWayTest):
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

    def test_stays_where_it_is_on_a_disk_that_is_read_only(self) -> None:
        """Only room can be found elsewhere."""
        with mock.patch.object(self.disk, "_check", side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))):
            leases: list[MaildirLease] = []
            _take(self.queue(self.disk), leases)
            self.assertEqual((leases, self.names("new"), self.names("cur")), ([], [self.name], []))

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


class NorForAnOwnerFile(AMailWithoutRoomForItsLock):
    def setUp(self) -> None:
        super().setUp()
        self.disk = SmallDirectoriesWithoutAFile()

    def test_is_moved_once(self) -> None:
        """Where it is in ``cur/`` already and that is full too, there is nowhere else to go."""
        os.rename(os.path.join(self.path, "new", self.name), os.path.join(self.path, "cur", self.name))
        self.disk.is_roomy = False
        with self.assertRaises(OSError):
            self.queue(self.disk).claim(1)
        self.assertEqual((self.names("new"), self.names("cur")), ([], [self.name]))


class AMailThatAnotherOneWantsAsWell(MakeWayTest):
    """A claim has to move the mail; the other one has room for its lock.  In each order of their calls."""

    has_files = True

    def in_each_order(self, work: Callable[[MaildirQueue], object]) -> Iterator[list[MaildirLease]]:
        """Yield the leases of that claim behind each order of its calls and those of `work` with another queue."""
        disks = SteppedDisk(is_full=False), SteppedDisk(is_full=True, has_files=self.has_files)
        other, queue = map(self.queue, disks)
        for steps in itertools.product((0, 1), repeat=8):
            with contextlib.suppress(FileNotFoundError):  # each has seen the other's lock where it was moved
                os.rename(os.path.join(self.path, "cur", self.name), os.path.join(self.path, "new", self.name))
            if self.name not in self.names("new"):
                self.put()
            self.clock.advance(10)
            other.claim(0)
            queue.claim(0)
            leases: list[MaildirLease] = []
            disks[0].begin(functools.partial(work, other))
            disks[1].begin(functools.partial(_take, queue, leases))
            for number in (*steps, *(0, 1) * 9):
                if not disks[number].is_over:
                    disks[number].step()
            self.assertTrue(all(disk.is_over for disk in disks))
            self.assertEqual([*disks[0].errors, *disks[1].errors], [])
            yield leases
            for lease in leases:
                lease.settle(Record(state=State.SENT))
            self.assertEqual([name for name in self.names("new") + self.names("cur") if name != self.name], [])

    def test_is_sent_once(self) -> None:
        """By one of both: it is removed from where it is, although it may be moved to and fro just then."""
        sent = 0

        def send(queue: MaildirQueue) -> None:
            nonlocal sent
            for lease in queue._claims.take(1):
                lease.settle(Record(state=State.SENT))
                sent += 1

        by_other = by_us = 0
        for leases in self.in_each_order(send):
            is_there = self.name in self.names("new") + self.names("cur")
            self.assertLessEqual(sent + len(leases), 1)  # if each has seen the other's lock, it waits for a moment
            self.assertEqual(is_there, not sent)
            by_other, by_us, sent = by_other + sent, by_us + len(leases), 0
        self.assertTrue(by_other and by_us)

    def test_is_gone_when_an_operator_has_removed_it(self) -> None:
        """And not sent afterwards from where it was moved; or the operator is told that it cannot be removed now."""
        is_removed = False

        def remove(queue: MaildirQueue) -> None:
            nonlocal is_removed
            is_removed = False
            with contextlib.suppress(NotPossible):
                queue.admin.remove(self.name)
                is_removed = True

        for leases in self.in_each_order(remove):
            is_there = self.name in self.names("new") + self.names("cur")
            self.assertEqual((is_there, bool(leases) and is_removed), (not is_removed, False))

    def test_is_left_to_an_older_release_that_locks_it_meanwhile(self) -> None:
        """Between any two calls; it has opened the mail then, and removes it from ``new/`` when it has sent it."""
        disk, sent = SteppedDisk(is_full=True, has_files=self.has_files), 0
        queue = self.queue(disk)
        for before in range(9):
            self.clock.advance(10)
            queue.claim(0)
            leases: list[MaildirLease] = []
            disk.begin(functools.partial(_take, queue, leases))
            for _ in range(before):
                if not disk.is_over:
                    disk.step()
            is_sent = self.locked_by_older_release()
            while not disk.is_over:
                disk.step()
            if is_sent:
                self.assertEqual(leases, [])
                os.unlink(os.path.join(self.path, "new", self.name))
                os.unlink(os.path.join(self.path, "new", f".sending-{self.name}"))
                sent += 1
            for lease in leases:
                lease.settle(Record(state=State.SENT))
            self.assertEqual((self.names("new"), self.names("cur")), ([], []))
            self.put()
        self.assertGreater(sent, 1)

    def locked_by_older_release(self) -> bool:
        """Let zope.sendmail 7.3 begin to send the mail; return whether that could lock and read it."""
        path, lock = (os.path.join(self.path, "new", prefix + self.name) for prefix in ("", ".sending-"))
        try:
            os.utime(path)
            os.link(path, lock)
        except OSError:
            return False
        return Disk().read_small(path) is not None


class AMailThatAnotherOneWantsWhereNoOwnerFileHasRoom(AMailThatAnotherOneWantsAsWell):
    """The message is moved before it is locked."""

    has_files = False


def _take(queue: MaildirQueue, leases: list[MaildirLease]) -> None:
    with contextlib.suppress(CannotClaim):
        leases += queue._claims.take(1)


del MakeWayTest


if __name__ == "__main__":
    unittest.main()
