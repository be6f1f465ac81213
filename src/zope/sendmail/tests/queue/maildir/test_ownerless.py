"""`zope.sendmail.queue.maildir.ownerless`: locks of messages without an owner file, beside other processes."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import unittest

from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.locks import MAX_SEND_TIME, Busy, Lock, Owner
from zope.sendmail.queue.maildir.ownertext import Phase
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import ManualClock

KEY = "new/1700000000.1.host.0000000000000"


class DiskWithoutRoom(Disk):
    """There is room for the links of locks, and for no file."""

    def open_locked(self, path: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class OwnerlessTest(unittest.TestCase):
    def setUp(self) -> None:
        self.layout = Layout(os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue"))
        make_maildir(Disk(), self.layout.root, ("locks",))
        self.message, self.sending = self.layout.message(KEY), self.layout.sending(KEY)
        Disk().create(self.message, b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nText\n")
        self.clock = ManualClock()

    def owner(self, disk: Disk) -> Owner:
        owner = Owner(self.layout, disk, self.clock)
        self.addCleanup(owner.close)
        return owner

    def take(self, owner: Owner) -> Lock:
        lock = owner.take(KEY)
        assert isinstance(lock, Lock), lock
        return lock

    def older_release_takes_over(self) -> None:
        """As zope.sendmail 3.5 to 7.3 do it with a lock that is three hours old."""
        self.clock.advance(MAX_SEND_TIME + 1)
        os.unlink(self.sending)
        os.utime(self.message, (self.clock.time(), self.clock.time()))
        os.link(self.message, self.sending)


class BesideOlderReleases(OwnerlessTest):
    """A process that was stopped for three hours."""

    def test_a_lock_that_was_taken_over_is_not_ours(self) -> None:
        """Whatever is done first when the process goes on: it beats, or writes down how far it is."""
        owner = self.owner(DiskWithoutRoom())
        lock = self.take(owner)
        self.older_release_takes_over()
        owner.beat()
        self.assertFalse(lock.is_ours())
        with self.assertRaises(OSError) as caught:
            lock.note(Phase.OPENED, 0)
        self.assertEqual(caught.exception.errno, errno.ESTALE)
        self.assertFalse(lock.is_ours())

    def test_it_is_left_to_the_other_one(self) -> None:
        """Also when the lease ends; and the message is not kept locked."""
        owner = self.owner(DiskWithoutRoom())
        lock = self.take(owner)
        self.older_release_takes_over()
        with self.assertRaises(OSError):
            lock.note(Phase.OPENED, 0)
        lock.keep()
        self.assertTrue(os.path.exists(self.sending))
        fd = Disk().lock_existing(self.message)
        assert fd is not None
        os.close(fd)

    def test_a_lock_that_was_only_looked_at_stays_ours(self) -> None:
        """An older release that comes too late has stamped the message before it finds the lock."""
        owner = self.owner(DiskWithoutRoom())
        lock = self.take(owner)
        self.clock.advance(60)
        os.utime(self.message, (self.clock.time(), self.clock.time()))
        owner.beat()
        self.assertTrue(lock.is_ours())


class BesideAnotherHost(OwnerlessTest):
    """Whose locks of files do not count here, as with some network file systems."""

    def test_a_process_that_was_stopped_while_the_other_took_over(self) -> None:
        """The message is the other one's, whatever the first one does when it goes on."""

        class Elsewhere(DiskWithoutRoom):
            def lock_existing(self, path: str) -> int | None:
                return self.open_existing(path)

            def is_local(self, status: os.stat_result) -> bool:
                return False

        owner, other = self.owner(DiskWithoutRoom()), self.owner(Elsewhere())
        lock = self.take(owner)
        self.assertIsInstance(other.take(KEY), Busy)
        self.clock.advance(80)
        taken = self.take(other)
        self.assertFalse(lock.is_ours())
        self.clock.advance(1)
        owner.beat()
        with self.assertRaises(OSError):
            lock.note(Phase.INTENDED, 0)
        lock.release()
        self.assertEqual((lock.is_ours(), taken.is_ours()), (False, True))


class BesideOthers(OwnerlessTest):
    def test_one_with_an_owner_file_that_is_faster(self) -> None:
        """Between the look for a lock and the link: it has the message, and nothing is wrong with that."""
        faster, sending = self.owner(Disk()), self.sending

        class Slow(DiskWithoutRoom):
            def touch(self, fd: int) -> float:
                if not os.path.exists(sending):
                    faster.take(KEY)
                return super().touch(fd)

        self.assertIsInstance(self.owner(Slow()).take(KEY), Busy)

    def test_a_lock_that_was_removed_by_hand(self) -> None:
        """Does not keep the message from others when its lease has ended."""
        owner = self.owner(DiskWithoutRoom())
        lock = self.take(owner)
        os.unlink(self.sending)
        lock.release()
        self.assertIsInstance(self.owner(Disk()).take(KEY), Lock)
        self.assertIsInstance(self.owner(DiskWithoutRoom()).take(KEY), Busy)


class AfterAFork(OwnerlessTest):
    def test_a_child_that_is_forked_while_a_lock_beats(self) -> None:
        """Lets go of the locks of its parent, and does not wait for a thread that is not there."""
        owner = self.owner(DiskWithoutRoom())
        lock = self.take(owner)
        with owner._ownerless[self.sending]._mutex:  # as another thread has it while it stamps the message
            child = os.fork()
            if not child:
                try:
                    signal.alarm(30)
                    owner.forget()
                finally:
                    os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(lock.is_ours())


if __name__ == "__main__":
    unittest.main()
