"""`zope.sendmail.processor.lanes`: how many connections are worth while."""

from __future__ import annotations

import unittest
from math import inf

from zope.sendmail.processor.lanes import Lanes

#: What a mail costs its worker, seconds.
COST = 0.0002


class Mails(unittest.TestCase):
    def setUp(self) -> None:
        self.lanes = Lanes()

    def look(self) -> float:
        self.lanes.look()
        return self.lanes.worth

    def test_nothing_is_known(self) -> None:
        """Then there may be as many as there may be otherwise."""
        self.assertEqual(self.look(), inf)
        self.assertFalse(self.lanes.are_too_many(20))

    def test_a_relay_that_answers_at_once(self) -> None:
        """Gets few, and those that are far too many end."""
        self.lanes.note(16, 16 * COST, 0.0001)
        self.assertEqual(self.look(), 4.0)
        self.assertEqual([self.lanes.are_too_many(count) for count in (4, 6, 7, 20)], [False, False, True, True])

    def test_a_relay_a_millisecond_away(self) -> None:
        """Gets twice as many as fit into the wait."""
        self.lanes.note(16, 16 * COST, 0.001)
        self.assertAlmostEqual(self.look(), 12.0)

    def test_a_relay_that_is_far(self) -> None:
        """Gets more than there may be."""
        self.lanes.note(16, 16 * COST, 0.020)
        self.assertGreater(self.look(), 100)

    def test_a_queue_that_is_waited_for(self) -> None:
        """Counts as the relay does: others work meanwhile."""
        self.lanes.queue_wait = 0.0009
        self.lanes.note(16, 16 * COST, 0.0001)
        self.assertAlmostEqual(self.look(), 12.0)

    def test_the_shortest_wait_counts(self) -> None:
        """On a busy machine the others say how busy it is."""
        self.lanes.note(8, 8 * COST, 0.050)
        self.lanes.note(8, 8 * COST, 0.0001)
        self.assertEqual(self.look(), 4.0)

    def test_the_first_mails(self) -> None:
        """Are too few to say anything, and count with those that follow."""
        self.lanes.note(4, 4 * COST, 0.0001)
        self.assertEqual(self.look(), inf)
        self.lanes.note(4, 4 * COST, 0.050)
        self.assertEqual(self.look(), 4.0)

    def test_what_was_before(self) -> None:
        """Counts no more when enough has come since: a relay may have become slow."""
        self.lanes.note(16, 16 * COST, 0.0001)
        self.look()
        self.lanes.note(16, 16 * COST, 0.020)
        self.assertGreater(self.look(), 100)

    def test_most_mails_cannot_be_measured(self) -> None:
        """Then the others say nothing about them."""
        self.lanes.note(8, 8 * COST, 0.0001)
        for _ in range(8):
            self.lanes.note_other()
        self.assertEqual(self.look(), inf)

    def test_a_session_that_does_not_tell(self) -> None:
        """How long it waited: there may be as many as otherwise."""
        self.lanes.note(16, 16 * COST, inf)
        self.assertEqual(self.look(), inf)


class Guesses(unittest.TestCase):
    """As long as too few mails were measured."""

    def setUp(self) -> None:
        self.lanes = Lanes()
        self.found: float | None = None
        self.lanes.distance = lambda: self.found

    def look(self) -> float:
        self.lanes.look()
        return self.lanes.worth

    def test_a_relay_that_has_not_answered(self) -> None:
        """Gets few."""
        self.assertEqual((self.look(), self.lanes.are_guessed), (4.0, True))

    def test_a_relay_that_is_near(self) -> None:
        """Gets few, however busy the machine is."""
        self.found = 0.0003
        self.assertEqual(self.look(), 4.0)

    def test_a_relay_that_is_far(self) -> None:
        """Gets more than there may be."""
        self.found = 0.020
        self.assertGreater(self.look(), 100)

    def test_what_was_measured(self) -> None:
        """Is no guess, and no guess follows: the relay is near, but takes its time for each mail."""
        self.found = 0.0001
        self.look()
        self.lanes.note(16, 16 * COST, 0.5)
        self.assertGreater(self.look(), 100)
        self.assertFalse(self.lanes.are_guessed)
        self.assertGreater(self.look(), 100)

    def test_a_relay_of_which_nothing_comes_to_be_known(self) -> None:
        """There may be as many as otherwise, soon: it may be near and slow, or greet late."""
        for _ in range(9):
            self.assertEqual((self.look(), self.lanes.are_guessed), (4.0, True))
        self.assertEqual((self.look(), self.lanes.are_guessed), (inf, False))

    def test_mails_that_are_taken_slowly(self) -> None:
        """By a machine that is busy, for instance: it is guessed until enough of them have been measured."""
        self.found = 0.0003
        for _ in range(30):
            self.lanes.note_taken()
            self.assertEqual((self.look(), self.lanes.are_guessed), (4.0, True))

    def test_a_relay_that_is_known_to_be_far(self) -> None:
        """On another host; one beside us is not, and what is not known is not."""
        for distance, is_far in ((None, False), (0.0004, False), (0.001, True), (0.020, True)):
            self.found = distance
            self.assertEqual(self.lanes.is_far(), is_far)


class SeveralProcesses(unittest.TestCase):
    """Four, which drain one queue."""

    def setUp(self) -> None:
        self.lanes = Lanes()
        self.lanes.processes = 4

    def test_a_relay_that_answers_at_once(self) -> None:
        """Gets one connection of each: the others work while it does."""
        self.lanes.note(16, 16 * COST, 0.00005)
        self.lanes.look()
        self.assertEqual((self.lanes.few, int(self.lanes.worth)), (1, 1))

    def test_a_relay_that_is_far(self) -> None:
        """Gets as many of each as of one process alone: a mail waits there, whatever the others do."""
        self.lanes.note(16, 16 * COST, 0.020)
        self.lanes.look()
        self.assertGreater(self.lanes.worth, 100)

    def test_a_guess(self) -> None:
        """Is more careful: the relay's first reply may have waited for the others."""
        for distance, worth in ((None, 1), (0.0003, 1), (0.003, 6)):
            self.lanes.distance = lambda distance=distance: distance
            self.lanes.look()
            self.assertEqual(int(self.lanes.worth), worth)


class MailsThatWait(unittest.TestCase):
    """Pay for connections, which cost round trips before the first mail."""

    def setUp(self) -> None:
        self.lanes = Lanes()
        self.lanes.distance = lambda: 0.020

    def test_as_many_as_a_connection_costs_round_trips(self) -> None:
        """Are enough for one, and a few are there in any case."""
        self.assertEqual([self.lanes.paid_by(mails) for mails in (1, 40, 500)], [4, 10, 125])

    def test_a_relay_that_takes_its_time(self) -> None:
        """Five times as long as a round trip: there fewer mails are enough."""
        self.lanes.note(16, 16 * COST, 0.100)
        self.lanes.look()
        self.assertAlmostEqual(self.lanes.paid_by(40), 50)

    def test_nothing_is_known(self) -> None:
        """Of the way, or of what a mail takes: then they are no question."""
        for _ in range(10):
            self.lanes.look()
        self.assertEqual(self.lanes.paid_by(1), inf)
        self.lanes.distance = None
        self.assertEqual(self.lanes.paid_by(1), inf)


if __name__ == "__main__":
    unittest.main()
