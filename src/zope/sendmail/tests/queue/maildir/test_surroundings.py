"""Where the system does not say something, or has no thread: what the modules of a Maildir queue do then."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import unittest
from unittest import mock

from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir import heartbeat, liveness, ownertext, unfolder
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.ownertext import HEADER, Identity, Phase, phase_of
from zope.sendmail.queue.maildir.uncommitted import look_at
from zope.sendmail.system.disk import Disk

CANNOT_START = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))


class TheMachine(unittest.TestCase):
    @unittest.skipUnless(os.path.exists("/proc/stat"), "Linux says it there")
    def test_was_started_before_now(self) -> None:
        """As the kernel says; where there is none that does, at no time."""
        self.assertTrue(0.0 < heartbeat._booted() < time.time())

    def test_says_nothing(self) -> None:
        """Then nothing is taken for older than it, and each boot is like another."""
        with mock.patch("builtins.open", side_effect=FileNotFoundError):
            self.assertEqual(heartbeat._booted(), 0.0)
            self.assertEqual(ownertext.boot_id(), b"")

    def test_lets_us_not_ask_for_a_process_of_another_user(self) -> None:
        """That it is not ours says that it lives, if it was there when its mail was."""
        with mock.patch("os.kill", side_effect=PermissionError):
            origin = liveness.Origin.of(unique_name())
            assert origin is not None
            self.assertIs(origin.liveness, liveness.Liveness.ALIVE)


class AnOwnerFile(unittest.TestCase):
    def test_that_says_not_whose_it_is(self) -> None:
        """It begins as ours do, and goes on otherwise; an empty one is what a loss of power has left."""
        for text in (HEADER, HEADER + b"host", HEADER + b"house a pid 1 boot x", HEADER + b"host a pid 1 shoe x"):
            self.assertIsNone(Identity.of(text))
        self.assertIs(phase_of(b"", "x"), Phase.INTENDED)


class AStagedFile(unittest.TestCase):
    """In ``tmp/``, of a process that is not there."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), f"{time.time():.0f}.1.elsewhere.5")
        Disk().create(self.path, b"mail")

    def test_that_cannot_be_asked_whether_it_is_held_is_judged_by_its_name(self) -> None:
        """It is another user's, or the disk is read-only."""
        disk = Disk()
        with mock.patch.object(disk, "locked", side_effect=PermissionError(13, "not yours")):
            staged = look_at(disk, self.path, time.time())
        assert staged is not None
        self.assertIs(staged.liveness, liveness.Liveness.ELSEWHERE)

    def test_that_goes_in_this_moment_is_gone(self) -> None:
        """Its transaction has ended."""
        disk = Disk()
        with mock.patch.object(disk, "locked", side_effect=FileNotFoundError), self.assertRaises(FileNotFoundError):
            look_at(disk, self.path, time.time())


class TheUnfolder(unittest.TestCase):
    """A courtesy: nothing depends on it, and nothing of it raises."""

    def setUp(self) -> None:
        self.layout = Layout(self.enterContext(tempfile.TemporaryDirectory()))

    def test_without_a_thread_leaves_it_to_processors(self) -> None:
        """Nothing is waited for at the end of the program."""
        one = unfolder.Unfolder()
        with CANNOT_START:
            one.later(self.layout, Disk(), "group")
        self.assertTrue(one.flush(0.0))

    def test_goes_on_whatever_happens(self) -> None:
        """It is told in the log."""
        one = unfolder.Unfolder()
        self.enterContext(mock.patch.object(unfolder, "unfold", side_effect=ValueError("nonsense")))
        with self.assertLogs("MailDataManager", "ERROR") as logs:
            for _ in range(2):
                one.later(self.layout, Disk(), os.path.join(self.layout.root, "group"))
            self.assertTrue(one.flush(60.0))
        self.assertEqual(sum("nonsense" in line for line in logs.output), 2)


if __name__ == "__main__":
    unittest.main()
