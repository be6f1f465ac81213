"""How processors learn at once that mail was committed."""

from __future__ import annotations

import os
import tempfile
import unittest

from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.maildir.layout import BELL, EXTRA, Layout
from zope.sendmail.queue.maildir.trigger import Trigger, ring
from zope.sendmail.system.disk import Disk


class BellTest(unittest.TestCase):
    def setUp(self) -> None:
        self.layout = Layout(os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue"))
        self.disk = Disk()
        make_maildir(self.disk, self.layout.root, EXTRA)

    def trigger(self, name: str) -> Trigger:
        trigger = Trigger(self.layout, name)
        self.addCleanup(trigger.close)
        return trigger

    def ring(self, *keys: str) -> None:
        ring(self.layout, self.disk, keys)


class Ringing(BellTest):
    def test_everybody_hears_the_names(self) -> None:
        """Each bell, whoever rang it; and once."""
        bells = [self.trigger("one"), self.trigger("two")]
        self.ring("new/1.2.host.3", "new/4.5.höst.6")
        for trigger in bells:
            self.assertEqual(trigger.wait(0), ["new/1.2.host.3", "new/4.5.höst.6"])
            self.assertIsNone(trigger.wait(0))

    def test_several_rings_are_heard_together(self) -> None:
        """None is lost."""
        trigger = self.trigger("one")
        for number in range(40):
            self.ring(f"new/{number}")
        self.assertEqual(trigger.wait(0), [f"new/{number}" for number in range(40)])

    def test_many_names_ask_for_a_look(self) -> None:
        """A ring is one atomic write, or none that has names."""
        trigger = self.trigger("one")
        self.ring(*(f"new/{number}" for number in range(33)))
        self.assertEqual(trigger.wait(0), [""])
        self.ring(*("new/" + "x" * 250 for _ in range(32)))
        self.assertEqual(trigger.wait(0), [""])

    def test_a_look_does_not_swallow_names(self) -> None:
        """A mail that an operator has changed is heard of, whatever else is said at that time."""
        trigger = self.trigger("one")
        self.ring("new/1")
        self.ring()
        self.ring("new/2")
        self.assertEqual(trigger.wait(0), ["new/1", "", "new/2"])

    def test_wake_asks_for_a_look(self) -> None:
        """Also together with names."""
        trigger = self.trigger("one")
        trigger.wake()
        self.assertEqual(trigger.wait(3600), [""])
        self.ring("new/1")
        trigger.wake()
        self.assertEqual(trigger.wait(3600), ["new/1", ""])

    def test_the_other_processes_hear_it(self) -> None:
        """A commit in one process is noticed in another."""
        trigger = self.trigger("one")
        child = os.fork()
        if not child:
            try:
                self.ring("new/1")
            finally:
                os._exit(0)
        self.assertEqual(trigger.wait(300), ["new/1"])
        os.waitpid(child, 0)

    def test_a_name_in_two_halves(self) -> None:
        """Is put together again."""
        trigger = self.trigger("one")
        fd = os.open(trigger.path, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        os.write(fd, b"new/1\nnew")
        self.assertEqual(trigger.wait(0), ["new/1"])
        os.write(fd, b"/2\n")
        self.assertEqual(trigger.wait(0), ["new/2"])


class Trouble(BellTest):
    def test_a_bell_nobody_listens_to(self) -> None:
        """Left by a process that died: neither an error nor a wait."""
        os.mkfifo(os.path.join(self.layout.locks, "dead" + BELL))
        trigger = self.trigger("one")
        self.ring("new/1")
        self.assertEqual(trigger.wait(0), ["new/1"])

    def test_a_bell_that_nobody_answers(self) -> None:
        """It fills up, and whoever commits is not stopped by it."""
        trigger = self.trigger("one")
        key = "new/" + "x" * 200
        for _ in range(2000):
            self.ring(key)
        heard = trigger.wait(0)
        assert heard is not None
        self.assertLessEqual(set(heard), {key})
        self.assertGreater(len(heard), 0)

    def test_no_directory_no_bells(self) -> None:
        """A ring never raises; foreign things in the directory are no bells."""
        os.mkdir(os.path.join(self.layout.locks, "directory" + BELL))
        os.symlink("/dev/null", os.path.join(self.layout.locks, "link" + BELL))
        before = os.listdir(self.layout.locks)
        self.ring("new/1")
        ring(Layout(self.layout.root + "/missing"), self.disk, ["new/1"])
        self.assertEqual(
            (os.listdir(self.layout.locks), os.path.exists(self.layout.root + "/missing")), (before, False)
        )

    def test_where_no_fifo_can_be_made(self) -> None:
        """The periodic look has to do; wake works all the same."""
        self.disk.create(os.path.join(self.layout.locks, "one" + BELL), b"in the way")
        trigger = self.trigger("one")
        self.assertIsNone(trigger.wait(0))
        trigger.wake()
        self.assertEqual(trigger.wait(3600), [""])

    def test_a_flood_of_wakes(self) -> None:
        """Neither blocks nor raises, whatever nobody hears."""
        trigger = self.trigger("one")
        for _ in range(70_000):
            trigger.wake()
        self.assertEqual(trigger.wait(0), [""])
        self.assertIsNone(trigger.wait(0))


class Taking(BellTest):
    def test_a_bell_is_private_and_goes_with_its_owner(self) -> None:
        """No file is left, and no descriptor either."""
        descriptors = set(os.listdir("/dev/fd"))
        trigger = Trigger(self.layout, "one")
        self.assertEqual(os.stat(trigger.path).st_mode & 0o777, 0o600)
        trigger.close()
        self.assertEqual(os.listdir(self.layout.locks), [])
        self.assertLessEqual(set(os.listdir("/dev/fd")), descriptors)  # the garbage collector may close others

    def test_a_closed_bell_is_silent(self) -> None:
        """It neither waits nor hears, and closing it again does nothing."""
        trigger = Trigger(self.layout, "one")
        trigger.wake()
        trigger.close()
        trigger.close()
        self.assertIsNone(trigger.wait(3600))

    def test_a_closed_bell_touches_nobody_elses_descriptors(self) -> None:
        """Its numbers have been given to other files since."""
        for close in (Trigger.close, Trigger.close_descriptors):
            trigger = Trigger(self.layout, "one")
            close(trigger)
            read, write = os.pipe()
            self.addCleanup(os.close, read)
            self.addCleanup(os.close, write)
            os.set_blocking(read, False)
            trigger.wake()
            self.assertRaises(BlockingIOError, os.read, read, 1)
            close(trigger)
            os.fstat(read)
            os.fstat(write)
            if close is Trigger.close_descriptors:
                os.unlink(trigger.path)

    def test_a_bell_that_was_taken_down_leaves_its_successor_alone(self) -> None:
        """Closing it a second time does not remove a bell that was hung up under the same name since."""
        old = Trigger(self.layout, "one")
        old.close()
        trigger = self.trigger("one")
        old.close()
        self.ring("new/1")
        self.assertEqual(trigger.wait(0), ["new/1"])
