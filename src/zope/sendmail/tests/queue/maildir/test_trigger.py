"""How processors learn at once that mail was committed."""

from __future__ import annotations

import os
import tempfile
import unittest

from zope.sendmail.system.disk import Disk
from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.maildir.trigger import Bell, ring
from zope.sendmail.queue.maildir.layout import BELL, EXTRA, Places


class BellTest(unittest.TestCase):
    def setUp(self) -> None:
        self.places = Places(os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue"))
        self.disk = Disk()
        make_maildir(self.disk, self.places.root, EXTRA)

    def bell(self, name: str) -> Bell:
        bell = Bell(self.places, name)
        self.addCleanup(bell.close)
        return bell

    def ring(self, *keys: str) -> None:
        ring(self.places, self.disk, keys)


class Ringing(BellTest):
    def test_everybody_hears_the_names(self) -> None:
        """Each bell, whoever rang it; and once."""
        bells = [self.bell("one"), self.bell("two")]
        self.ring("new/1.2.host.3", "new/4.5.höst.6")
        for bell in bells:
            self.assertEqual(bell.wait(0), ["new/1.2.host.3", "new/4.5.höst.6"])
            self.assertIsNone(bell.wait(0))

    def test_several_rings_are_heard_together(self) -> None:
        """None is lost."""
        bell = self.bell("one")
        for number in range(40):
            self.ring(f"new/{number}")
        self.assertEqual(bell.wait(0), [f"new/{number}" for number in range(40)])

    def test_many_names_ask_for_a_look(self) -> None:
        """A ring is one atomic write, or none that has names."""
        bell = self.bell("one")
        self.ring(*(f"new/{number}" for number in range(33)))
        self.assertEqual(bell.wait(0), [])
        self.ring(*("new/" + "x" * 250 for _ in range(32)))
        self.assertEqual(bell.wait(0), [])

    def test_wake_asks_for_a_look(self) -> None:
        """Also together with names."""
        bell = self.bell("one")
        bell.wake()
        self.assertEqual(bell.wait(3600), [])
        self.ring("new/1")
        bell.wake()
        self.assertEqual(bell.wait(3600), [])

    def test_the_other_processes_hear_it(self) -> None:
        """A commit in one process is noticed in another."""
        bell = self.bell("one")
        child = os.fork()
        if not child:
            try:
                self.ring("new/1")
            finally:
                os._exit(0)
        self.assertEqual(bell.wait(60), ["new/1"])
        os.waitpid(child, 0)

    def test_a_name_in_two_halves(self) -> None:
        """Is put together again."""
        bell = self.bell("one")
        fd = os.open(bell.path, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        os.write(fd, b"new/1\nnew")
        self.assertEqual(bell.wait(0), ["new/1"])
        os.write(fd, b"/2\n")
        self.assertEqual(bell.wait(0), ["new/2"])


class Trouble(BellTest):
    def test_a_bell_nobody_listens_to(self) -> None:
        """Left by a process that died: neither an error nor a wait."""
        os.mkfifo(os.path.join(self.places.locks, "dead" + BELL))
        bell = self.bell("one")
        self.ring("new/1")
        self.assertEqual(bell.wait(0), ["new/1"])

    def test_a_bell_that_nobody_answers(self) -> None:
        """It fills up, and whoever commits is not stopped by it."""
        bell = self.bell("one")
        key = "new/" + "x" * 200
        for _ in range(2000):
            self.ring(key)
        heard = bell.wait(0)
        assert heard is not None
        self.assertLessEqual(set(heard), {key})
        self.assertGreater(len(heard), 0)

    def test_no_directory_no_bells(self) -> None:
        """A ring never raises; foreign things in the directory are no bells."""
        os.mkdir(os.path.join(self.places.locks, "directory" + BELL))
        os.symlink("/dev/null", os.path.join(self.places.locks, "link" + BELL))
        self.ring("new/1")
        ring(Places(self.places.root + "/missing"), self.disk, ["new/1"])

    def test_where_no_fifo_can_be_made(self) -> None:
        """The periodic look has to do; wake works all the same."""
        self.disk.create(os.path.join(self.places.locks, "one" + BELL), b"in the way")
        bell = self.bell("one")
        self.assertIsNone(bell.wait(0))
        bell.wake()
        self.assertEqual(bell.wait(3600), [])

    def test_a_flood_of_wakes(self) -> None:
        """Neither blocks nor raises, whatever nobody hears."""
        bell = self.bell("one")
        for _ in range(70_000):
            bell.wake()
        self.assertEqual(bell.wait(0), [])
        self.assertIsNone(bell.wait(0))


class Taking(BellTest):
    def test_a_bell_is_private_and_goes_with_its_owner(self) -> None:
        """No file is left, and no descriptor either."""
        descriptors = set(os.listdir("/dev/fd"))
        bell = Bell(self.places, "one")
        self.assertEqual(os.stat(bell.path).st_mode & 0o777, 0o600)
        bell.close()
        self.assertEqual(os.listdir(self.places.locks), [])
        self.assertLessEqual(set(os.listdir("/dev/fd")), descriptors)  # the garbage collector may close others

    def test_a_closed_bell_is_silent(self) -> None:
        """It neither waits nor hears, and closing it again does nothing."""
        bell = Bell(self.places, "one")
        bell.wake()
        bell.close()
        bell.close()
        self.assertIsNone(bell.wait(3600))

    def test_a_closed_bell_touches_nobody_elses_descriptors(self) -> None:
        """Its numbers have been given to other files since."""
        for close in (Bell.close, Bell.close_descriptors):
            bell = Bell(self.places, "one")
            close(bell)
            read, write = os.pipe()
            self.addCleanup(os.close, read)
            self.addCleanup(os.close, write)
            os.set_blocking(read, False)
            bell.wake()
            self.assertRaises(BlockingIOError, os.read, read, 1)
            close(bell)
            os.fstat(read)
            os.fstat(write)
            if close is Bell.close_descriptors:
                os.unlink(bell.path)

    def test_a_bell_that_was_taken_down_leaves_its_successor_alone(self) -> None:
        """Closing it a second time does not remove a bell that was hung up under the same name since."""
        old = Bell(self.places, "one")
        old.close()
        bell = self.bell("one")
        old.close()
        self.ring("new/1")
        self.assertEqual(bell.wait(0), ["new/1"])
