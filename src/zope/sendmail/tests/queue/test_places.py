"""`zope.sendmail.queue`: which queue is at a location, and the names that older releases had there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import zope.sendmail.queue
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put, recognized
from zope.sendmail.queue.spool.multiple import open_spool
from zope.sendmail.testing.contracts import MESSAGE


class APath(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "place")

    def test_is_a_spool_if_its_queue_has_been_used(self) -> None:
        """Else it is what it is called: a Maildir, be it one that is not there yet."""
        self.assertEqual(recognized(self.path), self.path)
        os.mkdir(self.path)
        self.assertEqual(recognized(self.path), self.path)
        put(open_queue(f"spool:{self.path}"), [Envelope("", ("b@example.org",))], MESSAGE)
        self.assertEqual(recognized(self.path), f"spool:{self.path}")

    def test_is_a_maildir_if_it_has_the_directories_of_one(self) -> None:
        """A spool in it would be a strange one."""
        put(open_queue(self.path), [Envelope("", ("b@example.org",))], MESSAGE)
        self.assertEqual(recognized(self.path), self.path)


class SeveralSpools(unittest.TestCase):
    def test_are_left_by_their_mail_one_after_the_other(self) -> None:
        """Each is a place of its own; what comes goes to the first one."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        paths = [os.path.join(directory, name) for name in "ab"]
        for path in paths:
            os.mkdir(path)
        queue: Any = open_spool(";".join(paths))
        self.addCleanup(queue.close)
        origins = [transit.origin.rpartition("/")[0] for transit in queue.transits]
        self.assertEqual([os.path.basename(origin) for origin in origins], ["a", "b"])


class OldNames(unittest.TestCase):
    """BBB: what 3.5 to 7.3 had in the module ``zope.sendmail.queue``."""

    def test_are_found(self) -> None:
        """Each; others are not."""
        for name in zope.sendmail.queue._MOVED:
            self.assertIsNotNone(getattr(zope.sendmail.queue, name))
        with self.assertRaisesRegex(AttributeError, "no attribute 'nothing'"):
            _ = zope.sendmail.queue.nothing

    def test_are_a_program_as_before(self) -> None:
        """``python -m zope.sendmail.queue`` is the command."""
        command = [sys.executable, "-m", "zope.sendmail.queue", "--help"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        said = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
        self.assertIn("usage: ", said)


if __name__ == "__main__":
    unittest.main()
