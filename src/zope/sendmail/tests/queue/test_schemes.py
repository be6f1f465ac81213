"""A location of another scheme opens a queue of another kind."""

from __future__ import annotations

import unittest

from zope.sendmail.config import location
from zope.sendmail.errors import InvalidLocation
from zope.sendmail.queue import absolute, directories_of, is_maildir, open_queue, register_scheme, schemes
from zope.sendmail.queue.memory import MemoryQueue


class ALocation(unittest.TestCase):
    def test_of_memory_has_nothing_behind_it(self) -> None:
        """Else whoever wrote it meant something else."""
        self.assertRaises(InvalidLocation, open_queue, "memory:x")

    def test_of_a_known_scheme_is_no_path(self) -> None:
        """It means the same from every working directory."""
        for known in ("memory:", "spool:/a"):
            self.assertFalse(is_maildir(known), known)
            self.assertEqual(absolute(known), known)
        self.assertEqual(directories_of("spool:/a; /b;"), ("/a", "/b"))

    def test_can_have_a_scheme_of_somebodys_own(self) -> None:
        """`register_scheme` takes a function or its name."""
        self.addCleanup(location._known.discard, "test")
        self.addCleanup(schemes._openers.pop, "test")
        opened: list[tuple[str, dict[str, object]]] = []

        def open_test(rest: str, **options: object) -> MemoryQueue:
            opened.append((rest, options))
            return MemoryQueue()

        register_scheme("test", open_test)
        self.assertIsInstance(open_queue("test://host/name", schedule=None), MemoryQueue)
        self.assertEqual(opened, [("//host/name", {"schedule": None})])
        register_scheme("test", "zope.sendmail.queue.memory:open_memory")
        self.assertIsInstance(open_queue("test:"), MemoryQueue)
        self.assertFalse(is_maildir("test:"))
        self.assertEqual(directories_of("test:a"), ())
        with self.assertRaisesRegex(InvalidLocation, "test:, or memory:"):
            open_queue("redis://user:secret@host")
