"""How far away relays are."""

from __future__ import annotations

import unittest

from zope.sendmail.smtp.distances import Distances
from zope.sendmail.testing.contracts import ManualClock

RELAY = "mail.example.org:25"


class OfARelay(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.distances = Distances(self.clock)

    def test_before_it_has_answered(self) -> None:
        """Nothing is known."""
        self.assertIsNone(self.distances.of(RELAY))

    def test_the_shortest_time_counts(self) -> None:
        """The others say how busy the machines were."""
        for seconds in 0.05, 0.02, 0.3:
            self.distances.note(RELAY, seconds)
        self.assertEqual(self.distances.of(RELAY), 0.02)
        self.assertIsNone(self.distances.of("other.example.org:25"))

    def test_after_an_hour(self) -> None:
        """It may be another machine."""
        self.distances.note(RELAY, 0.02)
        self.clock.advance(3599.0)
        self.distances.note(RELAY, 0.05)
        self.assertEqual(self.distances.of(RELAY), 0.02)
        self.clock.advance(1.0)
        self.assertIsNone(self.distances.of(RELAY))
        self.distances.note(RELAY, 0.05)
        self.assertEqual(self.distances.of(RELAY), 0.05)

    def test_of_very_many_relays(self) -> None:
        """Memory has an end, and what is asked about now is known."""
        for number in range(20_001):
            self.distances.note(f"{number}.example.org:25", 0.02)
        self.assertEqual(self.distances.of("20000.example.org:25"), 0.02)
        self.assertLessEqual(sum(self.distances.of(f"{n}.example.org:25") is not None for n in range(20_001)), 10_000)
