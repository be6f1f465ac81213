"""The suppression list of a database that cannot be reached just now."""

from __future__ import annotations

import unittest
from typing import Any

from zope.sendmail.errors import QueueTrouble
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.testing.contracts import ManualClock

try:
    from zope.sendmail.queue.postgresql.suppressionlist import PostgreSQLSuppressions
except ImportError:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = "psycopg is not installed"
else:
    MISSING = ""

ENTRY = Suppression("one@example.org", "asked us", 0.0)


class Unreachable:
    """A database with one entry, which cannot be reached as long as it is `down`."""

    down = True

    def execute(self, name: str, *, known: int, **_: object) -> list[tuple[Any, ...]]:
        """Return what is new behind the version that is known."""
        if self.down:
            raise QueueTrouble("the database cannot be reached")
        return [] if known else [(ENTRY.address, ENTRY.reason, ENTRY.since, None, 1, False)]


@unittest.skipIf(MISSING, MISSING)
class AListThatCannotBeRead(unittest.TestCase):
    def test_is_not_taken_for_empty(self) -> None:
        """Not by the second who asks, either; and it is read as soon as it can be."""
        database: Any = Unreachable()
        suppressions = PostgreSQLSuppressions(database, ManualClock(), lambda: 1, lambda: 1)
        for _ in range(2):
            with self.assertRaises(QueueTrouble):
                suppressions.among([ENTRY.address])
        database.down = False
        self.assertEqual(suppressions.among([ENTRY.address]), {ENTRY.address: ENTRY})


if __name__ == "__main__":
    unittest.main()
