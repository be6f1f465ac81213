"""Mails of a database that go soon are intended together, ahead of their time, in one journey."""

from __future__ import annotations

import threading
import unittest
import uuid
from typing import Any
from unittest import mock

import psycopg

from zope.sendmail.errors import LeaseLost, NotPossible, QueueError
from zope.sendmail.lifecycle.mailstatus import Standing
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.asyncquery import AsyncQuery
from zope.sendmail.queue.postgresql.claims import Claims
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.phasemark import PhaseMark
from zope.sendmail.queue.postgresql.phasenotes import PhaseNotes
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.postgresql.replenishing import Replenisher
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.testing.contracts import ManualClock
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
        self.enterContext(mock.patch.object(Registration, "hurry", return_value=None))
        self.wake = self.enterContext(mock.patch.object(PhaseNotes, "_wake", return_value=None))

    def claim(self, count: int) -> list[Any]:
        put(self.queue, [_ENVELOPE] * count, _MESSAGE)
        leases: list[Any] = self.queue.claim(count)
        self.assertEqual(len(leases), count)
        # However long the machine stands still, no beat writes, and answers grow old only where a test says so.
        self.queue._claims._liveness.stop()
        self.queue._claims._progress._clock = self.queue._claims._notes._clock = ManualClock()
        return leases

    @property
    def notes(self) -> Any:
        return self.queue._claims._notes

    def journeys(self) -> list[Any]:
        """Return where each journey to the server leaves of how many mails it told, or the name of its statement."""
        found: list[Any] = []
        ask, execute = AsyncQuery.ask, RoundTrips._execute

        def asking(query: AsyncQuery, statement: bytes, parameters: dict[str, Any]) -> None:
            found.append(len(parameters["slots"].split(",")))
            ask(query, statement, parameters)

        def executing(trips: RoundTrips, batch: Any) -> Any:
            found.append(batch.statement()[0])
            return execute(trips, batch)

        self.enterContext(mock.patch.object(AsyncQuery, "ask", asking))
        self.enterContext(mock.patch.object(RoundTrips, "_execute", executing))
        return found

    def intended(self) -> int:
        """Return of how many mails of this processor the database knows that they may have been sent."""
        with shared_server().connect() as connection:
            [(count,)] = connection.execute(
                "select count(*) from zope_sendmail.attempt where phase = 2 and processor = %s",
                [self.queue._claims.processor],
            )
        return int(count)

    def phases(self) -> list[int]:
        """Return how far it is known to have come with each mail that it has in hand."""
        with shared_server().connect() as connection:
            rows = connection.execute(
                "select phase from zope_sendmail.attempt where phase > 0 and processor = %s order by phase",
                [self.queue._claims.processor],
            )
            return [phase for (phase,) in rows]


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
        self.assertEqual((journeys, self.intended()), ([8], 8))

    def test_are_written_down_without_a_word_of_their_worker(self) -> None:
        """By the thread that writes what waits."""
        leases = self.soon(3)
        self.notes.flush()
        journeys = self.journeys()
        for lease in leases:
            lease.intend()
        self.assertEqual((journeys, self.intended()), ([], 3))

    def test_wait_for_a_journey_that_is_under_way(self) -> None:
        [lease], answer = self.soon(1), AsyncQuery.answer
        begun, may_end, found = threading.Event(), threading.Event(), []

        def slow(query: AsyncQuery) -> Any:
            begun.set()
            may_end.wait()
            return answer(query)

        def intend() -> None:
            lease.intend()
            found.append(self.intended())

        with mock.patch.object(AsyncQuery, "answer", slow):
            threads = [threading.Thread(target=each) for each in (self.notes.flush, intend)]
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
        self.assertEqual(journeys, [1])

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

    def test_are_written_with_those_that_a_relay_has_taken(self) -> None:
        leases = self.soon(2)
        leases[0].intend()
        journeys = self.journeys()
        with self.notes._speaking:  # another thread speaks in this moment
            leases[0].accepted()
            put(self.queue, [_ENVELOPE], _MESSAGE)
            [follower] = self.queue.claim(1)
            follower.soon()
        self.notes.flush()
        self.assertEqual((journeys, self.phases()), ([2], [2, 2, 3]))

    def test_are_written_as_taken_soon(self) -> None:
        """Also those that are settled by themselves."""
        leases = self.soon(3)
        for lease in leases:
            lease.intend()
        self.wake.reset_mock()
        leases[0].accepted()
        leases[1].settle(_SENT)
        self.assertEqual(len(self.wake.mock_calls), 2)

    def test_are_removed_with_the_next_one_if_they_were_intended_at_their_turn(self) -> None:
        """That one waits in any case."""
        leases = self.claim(3)
        leases[0].intend()
        leases[0].settle(_SENT)
        leases[1].intend()
        self.assertEqual((self.wake.mock_calls, len(list(self.queue.admin.names()))), ([], 2))

    def test_are_intended_again_after_a_while(self) -> None:
        """This processor may have been taken for dead since."""
        leases, journeys = self.soon(2), self.journeys()
        leases[0].intend()
        leases[1].mark.asked_at -= 2.0
        leases[1].intend()
        self.assertEqual(journeys, [2, "advance"])

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
        with mock.patch.object(AsyncQuery, "ask", side_effect=psycopg.OperationalError("no")):
            self.notes.flush()
        journeys = self.journeys()
        leases[1].intend()
        self.assertEqual((journeys, self.intended()), (["advance"], 1))

    def test_have_no_slot_if_the_database_gives_none(self) -> None:
        """That is met again by `intend`."""
        [lease] = self.claim(1)
        with mock.patch.object(Registration, "take_slot", side_effect=QueueError("no")):
            lease.soon()
            self.assertRaises(LeaseLost, lease.intend)
        lease.intend()
        self.assertEqual(self.intended(), 1)


class ASlot(Fixture):
    """Of a mail that has ended."""

    def is_free(self, slot: int) -> bool:
        return slot in self.queue._claims._liveness._free

    def given_back(self) -> int:
        """Begin to say that a mail goes soon, and give it back; return its slot."""
        put(self.queue, [_ENVELOPE], _MESSAGE)
        [first] = self.queue.claim(1)
        first.soon()
        first.intend()  # there is a connection now
        with mock.patch.object(AsyncQuery, "is_answered", return_value=False):
            [lease] = self.claim(1)
            lease.soon()
            lease.release()
            self.queue._claims.flush()
        return int(lease.slot)

    def test_is_no_other_mails_as_long_as_something_about_it_is_under_way(self) -> None:
        """That one would be lost at a death."""
        slot = self.given_back()
        self.assertFalse(self.is_free(slot))
        self.notes.flush()
        self.assertTrue(self.is_free(slot))

    def test_is_another_mails_when_the_connection_has_failed(self) -> None:
        slot = self.given_back()
        with mock.patch.object(AsyncQuery, "is_answered", side_effect=psycopg.OperationalError("no")):
            self.notes.go_on()
        self.assertTrue(self.is_free(slot))

    def test_is_free_at_once_if_nothing_was_said_of_it(self) -> None:
        [lease] = self.claim(1)
        lease.soon()
        lease.release()
        self.queue._claims.flush()
        journeys = self.journeys()
        self.notes.flush()
        self.assertEqual((self.is_free(lease.slot), journeys), (True, []))


class NotesOfPhases(Fixture):
    def setUp(self) -> None:
        super().setUp()
        self.leases = self.claim(2)
        self.leases[0].soon()
        self.leases[0].intend()

    def test_are_written_by_workers_as_long_as_they_come(self) -> None:
        """Then no other thread has to wake up."""
        self.notes._clock = clock = ManualClock()
        self.notes.go_on()
        found = [self.notes.goes_on]
        clock.advance(0.001)
        self.assertEqual([*found, self.notes.goes_on], [True, False])

    def test_are_written_by_another_thread_where_there_is_no_connection(self) -> None:
        """No worker waits for one."""
        self.notes.close()
        self.leases[1].soon()
        self.assertEqual((self.notes.goes_on, self.intended()), (False, 1))
        self.notes.flush()
        self.assertEqual(self.intended(), 2)

    def test_wait_for_another_connection_where_theirs_broke_before_they_were_said(self) -> None:
        with mock.patch.object(AsyncQuery, "is_answered", return_value=False):
            self.leases[1].soon()
            self.leases[0].accepted()
        with mock.patch.object(AsyncQuery, "answer", side_effect=psycopg.OperationalError("no")):
            self.notes.flush()
        self.assertEqual(self.phases()[-1], 2)
        self.notes.flush()
        self.assertEqual(self.phases()[-1], 3)

    def test_end_twice(self) -> None:
        self.notes.close()
        self.notes.close()
        self.assertFalse(self.notes.goes_on)

    def test_keep_none_waiting_when_the_database_is_away(self) -> None:
        self.notes.close()
        self.leases[1].soon()
        with mock.patch.object(Connections, "connect", side_effect=QueueError("no")):
            self.notes.flush()
            self.assertRaises(LeaseLost, self.leases[1].intend)

    def test_of_a_processor_that_was_taken_for_dead_are_not_written(self) -> None:
        with shared_server().connect() as connection:
            connection.execute("update zope_sendmail.attempt set ended = true")
        self.leases[1].soon()
        self.notes.flush()
        self.assertIsInstance(self.leases[1].mark.error, LeaseLost)


class TheThreadOfNotes(unittest.TestCase):
    def setUp(self) -> None:
        self.notes = PhaseNotes(mock.Mock(), mock.Mock(), ManualClock())
        self.addCleanup(self.notes.close)
        self.written = threading.Event()
        self.enterContext(mock.patch.object(self.notes, "flush", self.written.set))

    def say(self) -> None:
        self.notes.say(PhaseMark(uuid.uuid4(), 1, 0, 2))

    def test_writes_what_no_worker_does(self) -> None:
        self.say()
        self.written.wait()
        self.written.clear()
        self.say()
        self.written.wait()

    def test_is_done_without_where_there_is_none(self) -> None:
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.say()
        self.assertIsNone(self.notes._thread)

    def test_begins_no_more_behind_the_end(self) -> None:
        self.notes.close()
        self.notes._is_wanted.clear()
        self.say()
        self.assertIsNone(self.notes._thread)


class AnAsynchronousQuery(unittest.TestCase):
    def query(self, *, is_pooled: bool = False) -> AsyncQuery:
        connection: Any = self.enterContext(shared_server().connect())
        connection.prepare_threshold = None if is_pooled else 0
        return AsyncQuery(connection)

    def test_says_the_same_behind_a_pooler(self) -> None:
        """Nothing is prepared there."""
        for is_pooled in (False, True):
            query = self.query(is_pooled=is_pooled)
            for number in (1, 2):
                query.ask(b"select %(b)s::text, %(a)s::int + %(a)s, null", {"a": number, "b": "x"})
                self.assertEqual(query.answer(), ["x", str(2 * number), None])

    def test_raises_what_the_server_refuses_and_goes_on(self) -> None:
        query = self.query()
        query.ask(b"select 1 / %(a)s::int", {"a": 0})
        self.assertRaises(psycopg.errors.DivisionByZero, query.answer)
        query.ask(b"select 1 / %(a)s::int", {"a": 1})
        self.assertEqual(query.answer(), ["1"])

    def test_raises_errors_that_have_no_name(self) -> None:
        query = self.query()
        query._connection.execute(
            "create function pg_temp.refuse() returns int language plpgsql "
            "as 'begin raise ''own'' using errcode = ''ZS001''; end'"
        )
        query.ask(b"select pg_temp.refuse()", {})
        self.assertRaises(psycopg.DatabaseError, query.answer)

    def test_tells_that_its_connection_broke(self) -> None:
        query = self.query()
        query.ask(b"select pg_terminate_backend(pg_backend_pid())", {})
        self.assertRaises(psycopg.OperationalError, query.answer)
        self.assertRaises(psycopg.OperationalError, query.ask, b"select 1", {})

    def test_tells_whether_the_answer_is_there_without_waiting(self) -> None:
        with shared_server().connect() as other:
            other.execute("begin")
            other.execute("select pg_advisory_xact_lock(7)")
            query = self.query()
            query.ask(b"select pg_advisory_xact_lock(%(a)s::bigint)", {"a": 7})
            self.assertFalse(query.is_answered())
            other.execute("commit")
            query.answer()
            self.assertTrue(query.is_answered())


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
        self.assertEqual((journeys, self.intended()), (["advance", "advance"], 1))

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
    def reserve_few_before_a_high_one(self) -> None:
        """Commit a high mail while so few normal ones are in reserve that the thread is to claim more."""
        put(self.queue, [_ENVELOPE] * 60, _MESSAGE)
        with mock.patch.object(Replenisher, "ask"):
            for _ in range(2):
                self.assertEqual(len(self.queue.claim(22, ahead=30)), 22)
        put(self.queue, [Envelope("", ("high@example.org",), terms=Terms(priority=Priority.HIGH))], _MESSAGE)

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

    def test_let_one_of_high_priority_go_first_that_was_claimed_behind_them(self) -> None:
        """And workers that have mails in hand hear that it is there."""
        self.reserve_few_before_a_high_one()
        with mock.patch.object(Replenisher, "ask"):
            self.queue._claims._claim_ahead()
            self.assertTrue(self.queue.has_before(Priority.NORMAL))
            [first] = self.queue.claim(1, ahead=30)
            self.assertEqual(first.terms.priority, Priority.HIGH)
            first.settle(_SENT)
            [after] = self.queue.claim(1, ahead=30)
            self.assertEqual((after.terms.priority, self.queue.has_before(Priority.NORMAL)), (Priority.NORMAL, False))

    def test_do_not_keep_one_of_high_priority_until_they_are_claimed(self) -> None:
        """It would be in no worker's hands, and known to none, for as many journeys."""
        self.reserve_few_before_a_high_one()
        claims = self.queue._claims
        reserved = len(claims._ahead)
        claims._claim_ahead()
        self.assertEqual((len(claims._ahead), claims._ahead[0].terms.priority), (reserved + 1, Priority.HIGH))

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

    def test_leaves_nothing_unknown_that_a_relay_has_taken(self) -> None:
        """It is not sent again, and stands among what was sent."""
        taken, unknown = self.claim(2)
        for lease in (taken, unknown):
            lease.intend()
        taken.accepted()
        self.queue.close()
        found = {lease.name: lease for lease in self.other.claim(2)}
        self.assertEqual(
            {name: lease.record.unknowns for name, lease in found.items()}, {taken.name: 0, unknown.name: 1}
        )
        heir = found[taken.name]
        self.assertEqual((heir.envelope.recipients, heir.record.state), ((), State.SENT))
        self.assertEqual([each.answer for each in heir.inherited.replies.values()], [Answer.ACCEPTED])

    def test_leaves_to_operators_only_the_removal_of_what_a_relay_has_taken(self) -> None:
        [lease] = self.claim(1)
        lease.intend()
        lease.accepted()
        self.queue.close()
        for _ in range(2):
            self.assertRaises(NotPossible, self.other.admin.hold, lease.name)
        self.other.admin.remove(lease.name)
        self.assertEqual(self.other.admin.count(), {})

    def test_makes_a_processor_remove_what_a_relay_has_taken(self) -> None:
        [lease] = self.claim(1)
        lease.intend()
        lease.accepted()
        self.queue.close()
        mailer = mock.Mock(spec=["send"])
        QueueProcessorThread(queue=self.other, mailer=mailer).run(forever=False)
        self.assertEqual((mailer.mock_calls, self.other.admin.count()), ([], {}))
        self.assertEqual(self.other.status("m@example.org").standing, Standing.SENT)

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

    def test_is_known_to_have_been_sent(self) -> None:
        """The failover took away what was known of that as well."""
        [lease] = self.claim(1)
        lease.release()
        self.queue._claims.flush()
        self.queue._claims._liveness.withdraw([lease.id])
        self.assertEqual(self.queue.status("m@example.org").standing, Standing.SENT)


load_tests = in_layer(Databases)
