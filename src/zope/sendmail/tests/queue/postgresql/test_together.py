"""Mails of a database that go soon are intended together, ahead of their time, in one journey."""

from __future__ import annotations

import threading
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
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.postgresql.replenishing import Replenisher
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
        # Nothing is written but by whom the test lets write.
        self.hurry = self.enterContext(mock.patch.object(Registration, "hurry", return_value=None))

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


class MailsThatGoSoon(Fixture):
    def soon(self, count: int) -> list[Any]:
        """Claim mails that go soon."""
        leases = self.claim(count)
        for lease in leases:
            lease.soon()
        return leases

    def test_are_intended_in_one_journey(self) -> None:
        leases, journeys = self.soon(8), self.journeys()
        for lease in leases:
            lease.intend()
        self.assertEqual((len(journeys), self.intended()), (1, 8))

    def test_are_written_down_without_a_word_of_their_worker(self) -> None:
        """By the thread that writes what waits."""
        leases = self.soon(3)
        self.queue._claims.flush()
        journeys = self.journeys()
        for lease in leases:
            lease.intend()
        self.assertEqual((journeys, self.intended()), ([], 3))

    def test_wait_for_a_journey_that_is_under_way(self) -> None:
        [lease], execute = self.soon(1), RoundTrips._execute
        begun, may_end, found = threading.Event(), threading.Event(), []

        def slow(trips: RoundTrips, batch: Any) -> Any:
            begun.set()
            may_end.wait()
            return execute(trips, batch)

        def intend() -> None:
            lease.intend()
            found.append(self.intended())

        with mock.patch.object(RoundTrips, "_execute", slow):
            threads = [threading.Thread(target=each) for each in (self.queue._claims.flush, intend)]
            threads[0].start()
            begun.wait()
            threads[1].start()
            may_end.set()
            for thread in threads:
                thread.join()
        self.assertEqual(found, [1])

    def test_are_told_once(self) -> None:
        [lease], journeys = self.soon(1), self.journeys()
        lease.soon()
        lease.intend()
        self.assertEqual([len(batch.marks) for batch in journeys], [1])

    def test_are_no_mails_that_were_tried(self) -> None:
        """They may take long."""
        [lease] = self.claim(1)
        lease.is_fresh = False
        lease.soon()
        self.assertIsNone(lease.mark)

    def test_are_intended_at_their_turn_where_what_is_unknown_is_held(self) -> None:
        """A person has to look at each of them."""
        self.queue = PostgreSQLQueue(self.url, schedule=Schedule(on_unknown=OnUnknown.HOLD))
        self.addCleanup(self.queue.close)
        leases = self.soon(3)
        leases[0].intend()
        self.assertEqual(self.intended(), 1)

    def test_are_written_with_those_that_have_left(self) -> None:
        leases, journeys = self.claim(4), self.journeys()
        for lease in leases[:3]:
            lease.soon()
        leases[0].intend()
        leases[0].settle(_SENT)
        leases[3].soon()
        leases[3].intend()
        self.assertEqual([(len(batch.sent), len(batch.marks)) for batch in journeys], [(0, 3), (1, 1)])

    def test_are_written_soon_when_they_have_left(self) -> None:
        """One that was intended at its turn: with the next that is."""
        leases = self.claim(3)
        leases[0].soon()
        for lease in leases[:2]:
            lease.intend()
            self.hurry.reset_mock()
            lease.settle(_SENT)
            self.assertEqual(self.hurry.mock_calls, [mock.call(soon=lease is leases[0])])

    def test_are_intended_again_after_a_while(self) -> None:
        """This processor may have been taken for dead since."""
        leases, journeys = self.soon(2), self.journeys()
        leases[0].intend()
        leases[1].mark.asked_at -= 2.0
        leases[1].intend()
        self.assertEqual(len(journeys), 2)

    def test_do_not_go_if_their_processor_was_taken_for_dead(self) -> None:
        leases = self.soon(2)
        leases[0].intend()
        self.queue._claims._liveness.ended = True
        with self.assertRaises(LeaseLost):
            leases[1].intend()

    def test_do_not_go_if_a_crash_took_them_away(self) -> None:
        leases = self.soon(2)
        leases[0].intend()
        leases[1].is_lost = True
        with self.assertRaises(LeaseLost):
            leases[1].intend()

    def test_are_asked_for_one_by_one_if_the_database_refused(self) -> None:
        """It may have refused another one."""
        leases = self.soon(2)
        with mock.patch.object(RoundTrips, "_execute", side_effect=QueueError("no")):
            self.queue._claims._flush_safely()
        journeys = self.journeys()
        leases[1].intend()
        self.assertEqual((len(journeys), self.intended()), (1, 1))

    def test_have_no_slot_if_the_database_gives_none(self) -> None:
        """That is met again by `intend`."""
        [lease] = self.claim(1)
        with mock.patch.object(Registration, "take_slot", side_effect=QueueError("no")):
            lease.soon()
            self.assertRaises(LeaseLost, lease.intend)
        lease.intend()
        self.assertEqual(self.intended(), 1)


class AWorkerThatStandsStill(Fixture):
    """After its answer was heard, which another worker may have done for it."""

    def stand_still(self, times: int) -> None:
        """Let seconds pass between an answer and the worker that waits for it, so often."""
        left, intend = iter(range(times)), RoundTrips.intend

        def late(trips: RoundTrips, mark: Any) -> None:
            intend(trips, mark)
            if next(left, None) is not None:
                mark.asked_at -= 2.0

        self.enterContext(mock.patch.object(RoundTrips, "intend", late))

    def test_asks_again(self) -> None:
        """Its processor may have been taken for dead since."""
        [lease], journeys = self.claim(1), self.journeys()
        self.stand_still(1)
        lease.intend()
        self.assertEqual((len(journeys), self.intended()), (2, 1))

    def test_does_not_send_when_its_processor_was_taken_for_dead(self) -> None:
        [lease], intend = self.claim(1), RoundTrips.intend

        def late(trips: RoundTrips, mark: Any) -> None:
            intend(trips, mark)
            mark.asked_at -= 2.0
            with shared_server().connect() as connection:
                connection.execute("update zope_sendmail.attempt set ended = true where mail = %s", [lease.id])

        with mock.patch.object(RoundTrips, "intend", late):
            self.assertRaises(LeaseLost, lease.intend)

    def test_does_not_send_if_each_answer_comes_too_late(self) -> None:
        [lease] = self.claim(1)
        self.stand_still(9)
        with self.assertRaisesRegex(LeaseLost, f"mail {lease.name}: the database answers too slowly"):
            lease.intend()


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
        self.assertGreaterEqual(min(filter(None, found)), 40)

    def test_are_claimed_while_workers_go_on(self) -> None:
        """No worker waits for the server's disk as long as something is reserved."""
        put(self.queue, [_ENVELOPE] * 100, _MESSAGE)
        threads: list[str] = []
        claimed, take = threading.Event(), Claims._take

        def taking(claims: Claims, *arguments: Any, **parameters: Any) -> Any:
            threads.append(threading.current_thread().name)
            leases = take(claims, *arguments, **parameters)
            claimed.set()
            return leases

        with mock.patch.object(Claims, "_take", taking):
            self.queue.claim(1, ahead=30)
            threads.clear()
            claimed.clear()
            for _ in range(25):
                self.assertEqual(len(self.queue.claim(1, ahead=30)), 1)
            claimed.wait()
        self.assertEqual(set(threads), {"zope.sendmail.postgresql.claim"})

    def test_are_claimed_by_workers_where_the_thread_met_trouble(self) -> None:
        """Whatever it is; a worker meets it as well, if it lasts."""
        put(self.queue, [_ENVELOPE] * 40, _MESSAGE)
        self.queue.claim(1, ahead=30)
        begun, claims = threading.Event(), self.queue._claims

        def fail(*_: Any, **__: Any) -> None:
            begun.set()
            raise RuntimeError("bug")

        with mock.patch.object(claims, "_reserve", fail):
            for _ in range(21):
                self.queue.claim(1, ahead=30)
            begun.wait()
            claims._replenisher.close()
        self.assertEqual(len(self.queue.claim(15)), 15)

    def test_are_not_claimed_by_one_that_rests_since(self) -> None:
        """Other processors could not have them."""
        put(self.queue, [_ENVELOPE] * 100, _MESSAGE)
        self.queue.claim(1, ahead=30)
        claims = self.queue._claims
        claims.give_back_ahead()
        claims._claim_ahead()
        self.assertFalse(claims.has_ahead())


class AThreadThatClaims(unittest.TestCase):
    def test_ends_with_its_queue(self) -> None:
        begun, may_end = threading.Event(), threading.Event()
        found = []

        def claim() -> None:
            begun.set()
            may_end.wait()
            found.append("claimed")

        replenisher = Replenisher(claim)
        replenisher.ask()
        begun.wait()
        threading.Thread(target=may_end.set).start()
        replenisher.close()
        replenisher.ask()
        self.assertEqual((found, replenisher._thread), (["claimed"], None))

    def test_is_done_without_where_there_is_none(self) -> None:
        found: list[str] = []
        replenisher = Replenisher(lambda: found.append(threading.current_thread().name))
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            replenisher.ask()
            replenisher.ask()
        self.assertEqual(found, [threading.current_thread().name] * 2)


class ADeathWithMailsThatGoSoon(Fixture):
    """The queue of a processor is closed with leases in hand, which others may take over at once."""

    def setUp(self) -> None:
        super().setUp()
        self.other: Any = open_queue(self.url)
        self.addCleanup(self.other.close)

    def test_makes_unknown_what_was_told_to_go_and_nothing_else(self) -> None:
        leases = self.claim(10)
        for lease in leases[:4]:
            lease.soon()
        leases[0].intend()
        self.queue.close()
        found = self.other.claim(10)
        self.assertEqual(sorted(lease.record.unknowns for lease in found), [*[0] * 6, *[1] * 4])

    def test_makes_nothing_unknown_that_was_given_back(self) -> None:
        leases = self.claim(3)
        for lease in leases:
            lease.soon()
        leases[0].intend()
        for lease in leases[1:]:
            lease.release()
        self.queue.close()
        found = self.other.claim(3)
        self.assertEqual(sorted(lease.record.unknowns for lease in found), [0, 0, 1])


class AMailThatIsWithdrawn(Fixture):
    """It was sent, and a failover brought it back."""

    def test_leaves_no_history(self) -> None:
        """There is no mail any more with which it would go."""
        [lease] = self.claim(1)
        lease.settle(Record(State.DEFERRED, attempts=1))
        self.queue._claims._liveness.withdraw([lease.id])
        with shared_server().connect() as connection:
            found = [
                connection.execute(
                    f"select count(*) from zope_sendmail.{table} where {column} = %s", [lease.id]
                ).fetchone()
                for table, column in (("mail", "id"), ("body", "mail"), ("history", "mail"))
            ]
        self.assertEqual(found, [(0,), (0,), (0,)])


load_tests = in_layer(Databases)
