"""The names of a Maildir queue."""

from __future__ import annotations

import random
import unittest

from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir.layout import age_text, by_age

STRANGE = [
    "",
    "zzz",
    "٣.x",
    "3",
    "1.1.host.5",
    "2.1.host.0000000000000",
    "2.1.host.0000010000000:2,S",
    "2.",
    "02.1",
    "\udc80",
]


class Sorting(unittest.TestCase):
    def test_by_one_text_is_sorting_by_age(self) -> None:
        """Whatever the names are."""
        keys = [f"new/{name}" for name in [*STRANGE, *(unique_name() for _ in range(50))]]
        random.Random(1).shuffle(keys)
        self.assertEqual(sorted(keys, key=age_text), sorted(keys, key=by_age))


if __name__ == "__main__":
    unittest.main()
