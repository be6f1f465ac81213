"""`zope.sendmail.queue.maildir.ownerless`: locks of messages without an owner file, beside other processes."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import unittest
from unittest import mock

from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.maildir import ownerless
from zope.sendmail.queue.maildir.layout import Layout, SpoolLayout
from zope.sendmail.queue.maildir.locks import LOOK_AGAIN, MAX_SEND_TIME, Busy, CannotClaim, Lock, OneAtATime, Owner
from zope.sendmail.queue.maildir.ownertext import Inherited, Phase
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


class DiskWithoutNames(DiskWithoutRoom):
    """There is no room for a name, but what an empty directory or a lock gives back when it goes."""

    free = 0

    def link(self, old: str, new: str) -> None:
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
        super().link(old, new)
        self.free -= 1

    def make_directory(self, path: str) -> bool:
        if not os.path.isdir(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return False

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.free += 1

    def remove_directory(self, path: str) -> None:
        super().remove_directory(path)
        self.free += 1


class Local(Disk):
    """No other host has the file system."""

    def is_local(self, status: os.stat_result) -> bool:
        return True


class LocalWithoutRoom(DiskWithoutRoom, Local):
    """Both."""


class WithoutRoomForAName(OwnerlessTest):
    OTHER = KEY + "1"

    def setUp(self) -> None:
        super().setUp()
        Disk().create(self.layout.message(self.OTHER), b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nText\n")

    def directories(self) -> list[str]:
        return sorted(os.listdir(self.layout.root))

    def test_an_empty_directory_makes_it_for_one_message_at_a_time(self) -> None:
        """The next one has it when that has ended; no directory is removed for a second one."""
        os.mkdir(self.layout.history_)
        os.mkdir(self.layout.processors)
        owner = self.owner(DiskWithoutNames())
        lock = self.take(owner)
        before = self.directories()
        self.assertTrue(owner.is_lent)
        self.assertRaises(OneAtATime, owner.take, self.OTHER)
        self.assertEqual(self.directories(), before)
        lock.release()
        other = owner.take(self.OTHER)
        assert isinstance(other, Lock)
        self.assertTrue(other.is_ours())

    def test_cur_makes_it_if_there_is_nothing_else(self) -> None:
        """It is read like ``new/``, and made anew when there is room."""
        self.take(self.owner(DiskWithoutNames()))
        self.assertNotIn("cur", self.directories())

    def test_a_maildir_stays_one_for_other_programs(self) -> None:
        """What stands beside ``cur/`` may be theirs; then nothing can be locked now."""
        Disk().create(os.path.join(self.layout.root, "dovecot-uidlist"), b"theirs")
        with self.assertRaises(CannotClaim) as caught:
            self.owner(DiskWithoutNames()).take(KEY)
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertIn("cur", self.directories())

    def test_that_was_taken_at_once_by_others(self) -> None:
        """The directory has made room, and another program was faster."""

        class Fuller(DiskWithoutNames):
            def remove_directory(self, path: str) -> None:
                os.rmdir(path)

        self.assertRaises(CannotClaim, self.owner(Fuller()).take, KEY)

    def test_no_directory_is_removed_for_a_disk_that_is_broken(self) -> None:
        """Only where room is what is missing; the disk's own words are told, whatever may be tried after this."""

        class Broken(DiskWithoutRoom):
            def link(self, old: str, new: str) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO), new)

        for is_last_resort in (True, False):
            with self.assertRaises(OSError) as caught:
                self.owner(Broken()).take(KEY, is_last_resort=is_last_resort)
            self.assertEqual(caught.exception.errno, errno.EIO)
            self.assertNotIsInstance(caught.exception, CannotClaim)
        self.assertIn("cur", self.directories())

    def test_no_directory_is_removed_while_there_is_another_way(self) -> None:
        """The message may be moved to where there is room; see `makeway`."""
        with self.assertRaises(CannotClaim):
            self.owner(DiskWithoutNames()).take(KEY, is_last_resort=False)
        self.assertIn("cur", self.directories())


class AfterADeath(OwnerlessTest):
    def die(self, phase: Phase) -> None:
        owner = self.owner(LocalWithoutRoom())
        self.take(owner).note(phase, 3)
        owner.close()

    def test_an_owner_with_a_file_inherits_what_the_mark_says(self) -> None:
        """There is room again, and the same is known as if there had always been."""
        for phase in (Phase.OPENED, Phase.INTENDED):
            self.die(phase)
            lock = self.take(self.owner(Local()))
            self.assertEqual(lock.inherited, Inherited(phase, 3))
            lock.release()

    def test_a_lock_whose_message_is_gone_can_be_taken_and_removed(self) -> None:
        """The death came between the two."""
        self.die(Phase.ACCEPTED)
        os.unlink(self.message)
        lock = self.take(self.owner(LocalWithoutRoom()))
        self.assertEqual(lock.inherited, Inherited(Phase.ACCEPTED, 3))
        lock.release()
        self.assertFalse(os.path.exists(self.sending))

    def test_what_it_says_is_one_of_four_hundred_stamps(self) -> None:
        """An older release's lock has any stamp, so the fewer of them are ours by chance."""
        status, found = mock.Mock(), 0
        for nanoseconds in range(888_880_000, 888_890_000):
            status.st_mtime_ns = 1_796_000_000 * 10**9 + nanoseconds
            found += ownerless.said_by(status) is not None
        self.assertEqual(found, 4 * 100)

    def test_one_without_a_mark_is_looked_at_after_three_hours(self) -> None:
        """It was an older release, or the death came before the mark: nothing was sent."""
        os.link(self.message, self.sending)
        os.utime(self.message, (self.clock.time(), self.clock.time()))
        owner = self.owner(LocalWithoutRoom())
        self.assertEqual(owner.take(KEY), Busy(300.0))
        self.clock.advance(MAX_SEND_TIME + 1)
        self.assertIsNone(self.take(owner).inherited)


class ALock(OwnerlessTest):
    def test_that_could_not_be_given_back_is_ours_again(self) -> None:
        """No other process gets the message, and we know how far we were."""
        owner = self.owner(disk := DiskWithoutRoom())
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 2)
        with mock.patch.object(disk, "unlink", side_effect=OSError(errno.EIO, "io")):
            self.assertRaises(OSError, lock.release)
        self.assertEqual(self.owner(DiskWithoutRoom()).take(KEY), Busy(LOOK_AGAIN))
        self.assertEqual(self.take(owner).inherited, Inherited(Phase.INTENDED, 2))

    def test_on_a_message_in_whose_place_there_is_another_one(self) -> None:
        """It was replaced between the look and the link: what was made for it is removed."""

        class Replacing(DiskWithoutRoom):
            def touch(self, fd: int) -> float:
                os.unlink(message)
                self.create(message, b"another one")
                return super().touch(fd)

        message = self.message
        self.assertRaises(FileNotFoundError, self.owner(Replacing()).take, KEY)
        self.assertFalse(os.path.exists(self.sending))

    def test_where_time_stamps_are_too_coarse(self) -> None:
        """The mark cannot be written, so nothing is locked, and the words say what is missing."""

        class Coarse(DiskWithoutRoom):
            def stamp_open(self, fd: int, modified: int) -> None:
                super().stamp_open(fd, modified // 10**9 * 10**9)

        with self.assertRaisesRegex(OSError, "nanoseconds are needed"):
            self.owner(Coarse()).take(KEY)
        self.assertFalse(os.path.exists(self.sending))

    def test_that_ends_gives_the_message_its_time_stamp_back(self) -> None:
        """By which older releases sort; unless one of them has stamped it meanwhile, for its own lock."""
        for stamped in (False, True):
            os.utime(self.message, (1.0, 1.0))
            owner = self.owner(DiskWithoutRoom())
            lock = self.take(owner)
            if stamped:
                os.utime(self.message, (self.clock.time() + 5, self.clock.time() + 5))
            owner.unlock(self.sending)
            del lock
            self.assertEqual(os.stat(self.message).st_mtime, self.clock.time() + 5 if stamped else 1.0)


class InASpool(OwnerlessTest):
    """Mail that lies where it was dropped: the mark is all there is of its lock."""

    KEY = "drop/1700000000.1.host.0000000000000"

    def setUp(self) -> None:
        super().setUp()
        spool = os.path.join(self.layout.root, "..", "spool")
        os.mkdir(spool)
        self.layout = SpoolLayout(spool, self.layout.root)
        self.message = self.layout.message(self.KEY)
        Disk().create(self.message, b"##To:b@example.org\n\nText\n")
        os.utime(self.message, (1.0, 1.0))

    def die(self, phase: Phase) -> None:
        owner = self.owner(DiskWithoutRoom())
        lock = owner.take(self.KEY)
        assert isinstance(lock, Lock)
        lock.note(phase, 3)
        owner.close()

    def test_what_a_death_has_left_is_inherited(self) -> None:
        """Where locks of files are seen, at once; elsewhere when its mark has not changed for long."""
        self.die(Phase.INTENDED)
        lock = self.owner(LocalWithoutRoom()).take(self.KEY)
        assert isinstance(lock, Lock)
        self.assertEqual(lock.inherited, Inherited(Phase.INTENDED, 3))
        lock.release()
        self.die(Phase.OPENED)

        class Shared(DiskWithoutRoom):
            def is_local(self, status: os.stat_result) -> bool:
                return False

        owner = self.owner(Shared())
        self.assertIsInstance(owner.take(self.KEY), Busy)
        self.clock.advance(80)
        lock = owner.take(self.KEY)
        assert isinstance(lock, Lock)
        self.assertEqual(lock.inherited, Inherited(Phase.OPENED, 3))

    def test_a_message_that_has_gone_meanwhile_is_not_marked(self) -> None:
        """Between the look at it and the mark it was sent by another process."""

        class Gone(DiskWithoutRoom):
            def lock_existing(self, path: str) -> int | None:
                fd = super().lock_existing(path)
                os.unlink(path)
                return fd

        self.assertRaises(FileNotFoundError, self.owner(Gone()).take, self.KEY)

    def test_a_lock_that_has_ended_does_not_beat(self) -> None:
        """The thread that beats may be about to: the message has no mark any more, and gets none."""
        owner = self.owner(DiskWithoutRoom())
        lock = owner.take(self.KEY)
        assert isinstance(lock, Lock)
        [beating] = owner._ownerless.values()
        lock.release()
        beating.beat()
        self.assertEqual(os.stat(self.message).st_mtime, 1.0)


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
