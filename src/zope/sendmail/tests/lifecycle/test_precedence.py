"""Whose turn it is among several priorities."""

from __future__ import annotations

import unittest
from collections import Counter

from zope.sendmail.lifecycle.precedence import Precedence


class EnoughOfAll(unittest.TestCase):
    def test_gives_each_its_share(self) -> None:
        """A ninth of the mails is low, and of the others a fifth is normal; the first class goes first."""
        turns = Precedence()
        served = [turns.next((0, 1, 2)) for _ in range(90)]
        self.assertEqual(served[:11], [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1])
        self.assertEqual(Counter(served), {0: 64, 1: 16, 2: 10})

    def test_of_two_classes(self) -> None:
        """Low has a ninth beside normal as well."""
        turns = Precedence()
        self.assertEqual([turns.next((1, 2)) for _ in range(18)], [*[1] * 8, 2] * 2)


class AClassThatWaitsAlone(unittest.TestCase):
    def test_uses_nothing_up(self) -> None:
        """A mail of a higher class that comes then has the next turn."""
        turns = Precedence()
        self.assertEqual([turns.next((2,)) for _ in range(20)], [2] * 20)
        self.assertEqual(turns.next((0, 2)), 0)


class AClassThatWentOutOfTurn(unittest.TestCase):
    def test_waits_as_if_it_had_had_it(self) -> None:
        """What it was passed over is forgotten."""
        turns = Precedence()
        for _ in range(4):
            turns.next((0, 1))
        turns.served(1)
        self.assertEqual([turns.next((0, 1)) for _ in range(5)], [0, 0, 0, 0, 1])


if __name__ == "__main__":
    unittest.main()
