"""Mails of a database that one worker has claimed together are intended together, in one journey."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from zope.sendmail.errors import LeaseLost, QueueError
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.claims import Claims
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_MESSAGE = b"Message-Id: <m@example.org>\n\ntext\n"
_ENVELOPE = Envelope("sender@example.org", ("someone@example.org",))
_SENT = Record(State.SENT)


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.url = shared_server().url()
        self.queue: Any = open_queue(self.url)
        self.addCleanup(self.queue.close)

    def claim(self, count: int) -> list[Any]:
        put(self.queue, [_ENVELOPE] * count, _MESSAGE)
        leases: list[Any] = self.queue.claim(count)
        self.assertEqual(len(leases), count)
        return leases

    def journeys(self) -> list[Any]:
        """Return where each journey to the server leaves what it said."""
        found: list[Any] = []
        execute = RoundTrips._execute

        def counting(trips: RoundTrips, batch: Any) -> Any:
            found.append(batch)
            return execute(trips, batch)

        self.enterContext(mock.patch.object(RoundTrips, "_execute", counting))
        return found

    def intended(self) -> int:
        """Return of how many mails of this processor the database knows that they may have been sent."""
        with shared_server().connect() as connection:
            [(count,)] = connection.execute(
                "select count(*) from zope_sendmail.attempt where phase = 2 and processor = %s",
                [self.queue._claims.processor],
            )
        return int(count)


class MailsClaimedTogether(Fixture):
    def test_are_intended_in_one_journey(self) -> None:
        leases, journeys = self.claim(8), self.journeys()
        for lease in leases:
            lease.intend()
        self.assertEqual((len(journeys), self.intended()), (1, 8))

    def test_are_intended_before_the_first_of_them_goes(self) -> None:
        """Not when their own turn has come: a death may have sent any of them."""
        self.claim(8)[0].intend()
        self.assertEqual(self.intended(), 8)

    def test_are_eight_at_most(self) -> None:
        """So many are unknown after a death."""
        self.claim(20)[0].intend()
        self.assertEqual(self.intended(), 8)

    def test_are_intended_up_to_one_that_was_tried(self) -> None:
        """It may take long."""
        leases = self.claim(3)
        leases[1].is_fresh = False
        leases[0].intend()
        self.assertEqual(self.intended(), 1)

    def test_are_intended_one_by_one_where_what_is_unknown_is_held(self) -> None:
        """A person has to look at each of them."""
        self.queue = PostgreSQLQueue(self.url, schedule=Schedule(on_unknown=OnUnknown.HOLD))
        self.addCleanup(self.queue.close)
        self.claim(8)[0].intend()
        self.assertEqual(self.intended(), 1)

    def test_that_have_left_are_written_before_the_next_ones_are_intended(self) -> None:
        leases, journeys = self.claim(16), self.journeys()
        for lease in leases[:8]:
            lease.intend()
            lease.settle(_SENT)
        leases[8].intend()
        self.assertEqual([(len(batch.sent), len(batch.marks)) for batch in journeys], [(0, 8), (8, 8)])

    def test_end_together(self) -> None:
        """With the last one that is intended: then the next ones can say so."""
        leases = self.claim(10)
        leases[0].intend()
        self.assertEqual([lease.ends_at_once for lease in leases], [*[False] * 7, True, True, True])

    def test_end_when_the_next_one_was_given_back(self) -> None:
        leases = self.claim(3)
        leases[0].intend()
        leases[1].release()
        self.assertTrue(leases[0].ends_at_once)

    def test_are_intended_again_after_a_while(self) -> None:
        """This processor may have been taken for dead since."""
        leases, journeys = self.claim(2), self.journeys()
        leases[0].intend()
        leases[1].mark.asked_at -= 2.0
        leases[1].intend()
        self.assertEqual(len(journeys), 2)

    def test_do_not_go_if_their_processor_was_taken_for_dead(self) -> None:
        leases = self.claim(2)
        leases[0].intend()
        self.queue._claims._liveness.ended = True
        with self.assertRaises(LeaseLost):
            leases[1].intend()

    def test_do_not_go_if_a_crash_took_them_away(self) -> None:
        leases = self.claim(2)
        leases[0].intend()
        leases[1].is_lost = True
        with self.assertRaises(LeaseLost):
            leases[1].intend()

    def test_are_asked_for_one_by_one_if_the_first_was_refused(self) -> None:
        """Which one it was about is not known to the others."""
        leases, execute = self.claim(2), RoundTrips._execute

        def failing(*_: Any) -> Any:
            raise QueueError("no")

        with mock.patch.object(RoundTrips, "_execute", failing), self.assertRaises(LeaseLost):
            leases[0].intend()
        self.assertIs(RoundTrips._execute, execute)
        journeys = self.journeys()
        leases[1].intend()
        self.assertEqual((len(journeys), self.intended()), (1, 1))


class MailsClaimedAhead(Fixture):
    def test_are_claimed_many_at_a_time(self) -> None:
        """Each claim is a commit on the server's disk."""
        put(self.queue, [_ENVELOPE] * 200, _MESSAGE)
        found, take = [], Claims._take

        def taking(claims: Claims, line: str, count: int, **parameters: Any) -> Any:
            leases = take(claims, line, count, **parameters)
            found.append(len(leases))
            return leases

        with mock.patch.object(Claims, "_take", taking):
            for _ in range(100):
                [lease] = self.queue.claim(1, ahead=64)
                lease.settle(_SENT)
        self.assertGreaterEqual(min(filter(None, found)), 48)


class ADeathWithMailsClaimedTogether(Fixture):
    """The queue of a processor is closed with leases in hand, which others may take over at once."""

    def setUp(self) -> None:
        super().setUp()
        self.other: Any = open_queue(self.url)
        self.addCleanup(self.other.close)

    def test_makes_unknown_what_was_intended_and_nothing_else(self) -> None:
        self.claim(10)[0].intend()
        self.queue.close()
        found = self.other.claim(10)
        self.assertEqual(sorted(lease.record.unknowns for lease in found), [0, 0, *[1] * 8])

    def test_makes_nothing_unknown_that_was_given_back(self) -> None:
        leases = self.claim(3)
        leases[0].intend()
        for lease in leases[1:]:
            lease.release()
        self.queue.close()
        found = self.other.claim(3)
        self.assertEqual(sorted(lease.record.unknowns for lease in found), [0, 0, 1])


load_tests = in_layer(Databases)
