"""A queue in a database in moments that seldom come: an answer that is late, a row of another's, a thread too many."""

from __future__ import annotations

import contextlib
import threading
import time
import unittest
import uuid
from dataclasses import replace
from math import inf
from typing import Any
from unittest import mock

import psycopg

from zope.sendmail.errors import KeyInUse, LeaseLost, QueueError
from zope.sendmail.lifecycle.mailstatus import SentMail, Standing
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.database import Connections, NotConnected
from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation
from zope.sendmail.queue.postgresql.joining import PsycopgConnection
from zope.sendmail.queue.postgresql.liveness import REMEMBERED
from zope.sendmail.queue.postgresql.parking import Parking
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.queue.postgresql.upkeep import migrate
from zope.sendmail.queue.postgresql.wakeup import Listener
from zope.sendmail.queue.transit import Departure
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_pooler, shared_server

_SENT = Record(State.SENT)


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.server = shared_server()
        self.url = self.server.url(uuid.uuid4().hex)
        self.queue: Any = self.opened(open_queue(self.url))

    def opened(self, queue: Any) -> Any:
        """Return a queue, which is closed when the test is over."""
        self.addCleanup(queue.close)
        return queue

    def claimed(self, count: int = 1) -> list[Any]:
        """Return leases on new mails, of which this processor says nothing by itself, and no answer grows old."""
        put(self.queue, [envelope()] * count, MESSAGE)
        leases: list[Any] = self.queue.claim(count)
        self.assertEqual(len(leases), count)
        self.queue._claims._liveness.stop()
        self.queue._claims._progress._clock = ManualClock()
        return leases

    def instead(self, statement: str, answer: Any) -> Any:
        """Let something else be done for a statement of this queue: `answer` gets a call that does what is asked."""
        connections = self.queue._connections
        real = connections.execute

        def execute(asked: str, **parameters: Any) -> Any:
            if asked != statement:
                return real(asked, **parameters)
            return answer(lambda: real(asked, **parameters))

        return mock.patch.object(connections, "execute", execute)

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        """Execute a statement of the test's own."""
        with self.server.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return list(cursor) if cursor.description else []


def refuses(_: Any) -> Any:
    raise QueueError("the database is away")


class AMailThatGoesByItself(Fixture):
    """Since each unknown outcome is held, no two are intended together."""

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.opened(PostgreSQLQueue(self.url, schedule=Schedule(on_unknown=OnUnknown.HOLD)))

    def test_is_intended_with_the_end_of_the_one_before(self) -> None:
        """In one journey: the one has left then, and the other one may leave."""
        first, second = self.claimed(2)
        first.intend()
        said, execute = [], RoundTrips._execute

        def saying(trips: RoundTrips, batch: Any) -> Any:
            said.append(batch.statement()[0])
            return execute(trips, batch)

        with mock.patch.object(RoundTrips, "_execute", saying):
            first.settle(_SENT)
            second.intend()
        self.assertEqual(said, ["advance_one"])
        self.assertEqual(list(self.queue.admin.names()), [second.name])
        self.assertEqual(self.sql("select phase from zope_sendmail.attempt where mail = %s", second.id), [(2,)])


class AMailThatAnotherProcessorHas(Fixture):
    """While it was sent from here."""

    def setUp(self) -> None:
        super().setUp()
        [self.lease] = self.claimed()
        self.lease.intend()
        self.liveness = self.queue._claims._liveness

    def settle(self) -> None:
        """Say that it has left, though the claim does not hold any more."""
        self.sql("update zope_sendmail.mail set lease = lease + 1 where id = %s", self.lease.id)
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.lease.settle(_SENT)
        self.assertIn("another processor has it now", logs.output[0])

    def test_stays_with_that_one(self) -> None:
        """The log says so."""
        self.settle()
        self.assertEqual(self.sql("select count(*) from zope_sendmail.mail where id = %s", self.lease.id), [(1,)])

    def test_goes_if_that_is_of_before_a_crash_of_the_server(self) -> None:
        """It has brought back what has left."""
        self.liveness._bury_at = inf
        self.settle()
        self.assertEqual(list(self.queue.admin.names()), [])

    def test_goes_with_the_next_beat_if_the_database_refuses_that(self) -> None:
        self.liveness._bury_at = inf
        with self.instead("withdraw", refuses):
            self.settle()
        self.liveness.beat()
        self.assertEqual(list(self.queue.admin.names()), [])


class AClaim(Fixture):
    def test_that_a_crash_of_the_server_undid_is_made_again(self) -> None:
        """What was claimed ahead, and is lost since, is given to no worker."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        self.queue.claim(1, ahead=2)
        ahead = list(self.queue._claims._ahead)
        for lease in ahead:
            lease.is_lost = True
        again = self.queue.claim(2)
        self.assertEqual({lease.id for lease in again}, {lease.id for lease in ahead})
        self.assertFalse(set(again) & set(ahead))

    def claim_in_a_crash(self, owner: int | None) -> list[Any]:
        """Claim a mail while the server crashes: who has it is forgotten, and this processor comes back, meanwhile.

        :param owner: who has it since.
        """
        put(self.queue, [envelope()], MESSAGE)
        self.assertEqual(self.queue.claim(0), [])  # it is registered

        def answer(ask: Any) -> Any:
            rows = ask()
            self.queue._claims._liveness.resumed += 1
            self.sql("update zope_sendmail.mail set owner = %s, lease = %s where id = %s", owner, owner, rows[0][0])
            return rows

        with self.instead("claim_fresh", answer):
            leases: list[Any] = self.queue.claim()
        return leases

    def test_that_the_server_forgot_while_it_answered_is_said_again(self) -> None:
        """Before the mail goes."""
        [lease] = self.claim_in_a_crash(None)
        found = self.sql("select owner, lease from zope_sendmail.mail where id = %s", lease.id)
        self.assertEqual(found, [(self.queue._claims.processor, lease.lease)])

    def test_that_the_server_forgot_while_it_answered_is_none_if_another_processor_has_the_mail(self) -> None:
        self.assertEqual(self.claim_in_a_crash(1), [])

    def test_that_never_reached_the_server_leaves_nothing_to_look_for(self) -> None:
        """So that of a processor which ends then nothing is left."""
        self.assertEqual(self.queue.claim(), [])
        processor = self.queue._claims.processor
        put(self.queue, [envelope()], MESSAGE)

        def unreachable(_: Any) -> Any:
            raise NotConnected("the server is away")

        with self.instead("claim_fresh", unreachable), self.assertRaises(QueueError):
            self.queue.claim()
        self.queue.close()
        self.assertEqual(self.sql("select count(*) from zope_sendmail.processor where id = %s", processor), [(0,)])

    def test_of_a_mail_that_was_parked_meanwhile_is_given_back(self) -> None:
        """Since another worker found out that its relay cannot be used; it comes when that can be used again."""
        put(self.queue, [envelope()], MESSAGE)
        self.assertEqual(self.queue.claim(0), [])  # it is registered
        lines = self.queue._claims.lines
        look = lines.look

        def parking(count: int, enough: int) -> Any:
            found = look(count, enough)
            for lease in found:
                lines.park(lease, "relay", inf)
            return found

        with mock.patch.object(lines, "look", parking):
            self.assertEqual(self.queue.claim(), [])
        self.queue.unpark("relay", 1)
        self.assertEqual(len(self.queue.claim()), 1)

    def test_takes_what_another_worker_has_claimed_ahead_meanwhile(self) -> None:
        """While this one waited for its turn to ask; the database is asked for nothing then."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        self.queue.claim(1, ahead=2)
        claims = self.queue._claims
        take, calls = claims._take_reserved, []

        def too_early(limit: int) -> Any:
            calls.append(limit)
            return take(limit) if len(calls) > 1 else []

        with (
            mock.patch.object(claims, "_take_reserved", too_early),
            mock.patch.object(claims, "_take", side_effect=AssertionError("it asks")),
        ):
            self.assertEqual(len(self.queue.claim(1)), 1)

    def test_looks_out_once_for_all_workers(self) -> None:
        """Who comes while another one does so looks no more."""
        self.queue.claim()
        lines = self.queue._claims.lines
        with (
            mock.patch.object(lines, "is_outdated", side_effect=[True, False]),
            mock.patch.object(lines, "look_out") as look_out,
        ):
            self.queue._claims._look_out_in_time()
        look_out.assert_not_called()


class AConnection(Fixture):
    def test_to_tables_of_no_version_is_refused(self) -> None:
        """As a restore leaves them that broke off; also where a transaction needs a new connection."""
        database = self.server.create_database()
        url = self.server.url("q", database)
        migrate(url)
        queue = self.opened(open_queue(url))
        [transit] = queue.transits
        with self.server.connect(database) as connection:
            connection.execute("delete from zope_sendmail.schema_version")
        queue._connections.drop_idle()
        with self.assertRaisesRegex(QueueError, "queue migrate"), transit.at_hand(["some"]):
            self.fail("it is open")

    def test_too_many_is_closed(self) -> None:
        """Four wait for their next use."""
        connections = self.queue._connections
        with contextlib.ExitStack() as used:
            lent = [used.enter_context(connections.use()) for _ in range(6)]
        self.assertEqual([each.closed for each in lent].count(True), 2)


class AProcessor(Fixture):
    def test_that_cannot_say_goodbye_ends_all_the_same(self) -> None:
        """Others find out by its silence."""
        self.assertEqual(self.queue.claim(), [])
        with self.instead("forget_processor", refuses), self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.queue.close()
        self.assertIn("the database is away", logs.output[0])

    def test_remembers_what_it_sent_for_a_while(self) -> None:
        """A failover brings back the last second, and no more."""
        self.queue.claim()
        liveness, clock = self.queue._claims._liveness, ManualClock()
        liveness._clock = clock
        old, new = uuid.uuid4(), uuid.uuid4()
        liveness.remember(old)
        clock.advance(REMEMBERED + 1.0)
        liveness.remember(new)
        self.assertEqual([mail for _, mail in liveness._sent], [new])

    def test_that_ends_leaves_a_worker_the_connection_on_which_it_speaks(self) -> None:
        """It is closed with the last word."""
        [lease] = self.claimed()
        lease.intend()
        progress = self.queue._claims._progress
        with mock.patch.object(progress, "_is_busy", new=True), mock.patch.object(progress, "flush_safely"):
            progress.close()
        self.assertIsNotNone(progress._connection)
        progress.close()
        self.assertIsNone(progress._connection)

    def test_forgets_lost_answers_that_left_it_no_mail(self) -> None:
        """At the second cleaning: what was lost a moment ago may still be committed."""
        [lease] = self.claimed()
        claims, found = self.queue._claims, []
        claims._unanswered += [lease.lease, 7]
        for _ in range(2):
            claims._clean()
            found.append(list(claims._unanswered))
        self.assertEqual(found, [[lease.lease, 7], [lease.lease]])

    def test_that_has_ended_beats_no_more(self) -> None:
        """Though its thread is in the middle of that: it would come back to life."""
        self.queue.claim()
        liveness = self.queue._claims._liveness
        self.queue.close()
        with self.instead("beat", lambda _: self.fail("it beats")):
            liveness.beat()

    def test_beats_again_where_the_server_does_not_know_since_when_it_lives(self) -> None:
        """As in the first moment after a failover."""
        self.queue.claim()
        liveness, first = self.queue._claims._liveness, [[(None, 7.0, 1, False)]]
        liveness.stop()
        with self.instead("beat", lambda ask: first.pop() if first else ask()):
            liveness.beat()
        self.assertFalse(first)
        self.assertFalse(liveness.ended)

    def test_that_is_taken_for_dead_sends_nothing(self) -> None:
        """Its mail is another one's from then on."""
        [lease] = self.claimed()
        processor = self.queue._claims.processor
        self.sql("update zope_sendmail.processor set ended = clock_timestamp() where id = %s", processor)
        self.sql("update zope_sendmail.attempt set ended = true where processor = %s", processor)
        with self.assertRaisesRegex(LeaseLost, "taken for dead"):
            lease.intend()

    def test_that_is_none_yet_tells_nothing_of_itself(self) -> None:
        """It has no number under which that would be found; nor has it anything to wake."""
        self.queue.report(ProcessorState(pid=1, started=1.0, written=1.0))
        self.queue.wake()
        self.assertEqual(self.queue.admin.processors(), [])

    def test_of_which_nothing_can_be_read_is_passed_over(self) -> None:
        """A later release may have written it."""
        self.queue.claim()
        self.queue.report(ProcessorState(pid=1, started=1.0, written=1.0))
        self.assertEqual(len(self.queue.admin.processors()), 1)
        number = self.queue._claims.processor
        self.sql("update zope_sendmail.processor_state set state = 'what is this' where processor = %s", number)
        self.assertEqual(self.queue.admin.processors(), [])

    def test_that_begins_anew_in_another_thread_looks(self) -> None:
        """It was taken for dead while this one waited, and knows nothing of the queue."""
        self.queue.claim()
        self.queue._claims.close()
        self.queue._claims = None
        self.assertTrue(self.queue._is_new())


class AQueue(Fixture):
    def test_whose_row_is_removed_at_once_is_refused(self) -> None:
        """A trigger may do that, or a job that tidies up."""
        with self.instead("queue_id", lambda _: []), self.assertRaisesRegex(QueueError, "does something else remove"):
            put(self.queue, [envelope()], MESSAGE)

    def test_that_was_never_used_is_examined_and_not_made(self) -> None:
        """What the doctor says then is about the server."""
        name = DatabaseLocation.parse(self.url).queue
        self.assertEqual([each.name for each in self.queue.admin.examine() if each.name], [])
        self.assertEqual(self.sql("select count(*) from zope_sendmail.queue where name = %s", name), [(0,)])

    def test_into_which_no_mail_is_put_has_none(self) -> None:
        put(self.queue, [], MESSAGE)
        self.assertEqual(self.queue.admin.count(), {})

    def test_that_a_long_transaction_slows_down_is_told_of_by_the_doctor(self) -> None:
        put(self.queue, [envelope()], MESSAGE)
        with self.instead("pins", lambda _: [("the session 7 of shop (report)", 900.0)]):
            found = [each.text for each in self.queue.admin.examine()]
        self.assertTrue([text for text in found if "session 7 of shop" in text], found)

    def test_lets_an_operator_remove_what_a_dead_processor_had_and_nobody_can_read(self) -> None:
        [lease] = self.claimed()
        lease.intend()
        self.queue.close()
        self.sql("update zope_sendmail.mail set envelope = '[]' where id = %s", lease.id)
        other = self.opened(open_queue(self.url))
        other.admin.remove(lease.name)
        self.assertEqual(other.admin.count(), {})


class ADatabaseThatRefusesMail(unittest.TestCase):
    """A trigger of its administrator does."""

    def setUp(self) -> None:
        server = shared_server()
        database = server.create_database()
        url = server.url("q", database)
        migrate(url)
        with server.connect(database) as connection:
            connection.execute(
                "create function refuse() returns trigger language plpgsql as "
                "$$ begin raise exception 'no mail today'; end $$"
            )
            connection.execute(
                "create trigger refuse before insert on zope_sendmail.mail for each row execute function refuse()"
            )
        self.queue: Any = open_queue(url)
        self.addCleanup(self.queue.close)

    def test_is_asked_once_and_heard(self) -> None:
        """It is there, and would say the same again."""
        with self.assertRaisesRegex(QueueError, "no mail today"):
            put(self.queue, [envelope()], MESSAGE)

    def test_leaves_nothing_of_a_large_mail_in_the_group(self) -> None:
        """Which is written when it is added; the mails before it are as they were."""
        staged = self.queue.stage()
        self.addCleanup(staged.abort)
        staged.add(envelope(), MESSAGE)
        with self.assertRaisesRegex(QueueError, "no mail today"):
            staged.add(envelope(), MESSAGE, bytes(2**20))
        self.assertEqual(len(staged), 1)


class AKeyThatAnotherTransactionTakes(Fixture):
    def test_is_in_use_when_a_large_mail_is_added(self) -> None:
        """Which writes those before it, too; it is not in the group."""
        keyed = replace(envelope(), terms=Terms(key="once", key_until=4e9))
        staged = self.queue.stage()
        self.addCleanup(staged.abort)
        staged.add(keyed, MESSAGE)
        put(self.opened(open_queue(self.url)), [keyed], MESSAGE)
        with self.assertRaisesRegex(KeyInUse, "'once'"):
            staged.add(envelope(), MESSAGE, bytes(2**20))
        self.assertEqual(len(staged), 1)


class MailOfATransactionOfTheApplication(Fixture):
    """On its connection."""

    def setUp(self) -> None:
        super().setUp()
        self.connection = psycopg.connect(self.server.conninfo())
        self.addCleanup(self.connection.close)
        self.staged = self.queue.stage_on(PsycopgConnection(self.connection))

    def test_ends_once(self) -> None:
        """What is called after its end does no harm."""
        self.staged.add(envelope(), MESSAGE)
        self.connection.commit()
        with mock.patch.object(self.queue._announcer, "announce") as announce:
            self.staged.commit()
            self.staged.commit()
            self.staged.abort()
        announce.assert_called_once()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_is_refused_in_a_transaction_that_has_failed(self) -> None:
        """With the driver's words."""
        with self.assertRaises(psycopg.Error):
            self.connection.execute("no sql")
        with self.assertRaisesRegex(QueueError, "on the application's connection: .*transaction is aborted"):
            self.staged.add(envelope(), MESSAGE)


class AMove(Fixture):
    def test_locks_fifty_mails_at_a_time(self) -> None:
        """The others can be sent meanwhile."""
        put(self.queue, [envelope()] * 52, MESSAGE)
        [transit] = self.queue.transits
        with transit.at_hand(list(transit.names())) as group:
            self.assertEqual((group.seen, len(group.mails)), (50, 50))

    def test_brings_no_departure_that_is_forgotten_by_now(self) -> None:
        """Nor one without a Message-Id by which it could be asked for."""
        put(self.queue, [envelope()], MESSAGE)
        [transit] = self.queue.transits
        now = time.time()
        departures = [
            Departure("<old@example.org>", SentMail(now - 90 * 86400.0)),
            Departure("", SentMail(now)),
            Departure("<new@example.org>", SentMail(now)),
        ]
        transit.note_departures(departures)
        found = [self.queue.status(each.message_id).standing for each in departures if each.message_id]
        self.assertEqual(found, [Standing.UNKNOWN, Standing.SENT])

    def test_passes_over_what_was_sent_meanwhile(self) -> None:
        """It is refused nothing."""
        put(self.queue, [envelope()] * 2, MESSAGE)
        [transit] = self.queue.transits
        gone, other = transit.names()
        self.queue.admin.remove(gone)
        with transit.at_hand([gone, other, "no name"]) as group:
            self.assertEqual((group.seen, [mail.name for mail in group.mails], group.refused), (3, [other], {}))


class ParkedMail(unittest.TestCase):
    """Pure."""

    def test_that_was_wanted_before_its_time_is_not_waited_for(self) -> None:
        """The next moment is that of one which is parked."""
        parking = Parking()
        early, late = uuid.uuid4(), uuid.uuid4()
        parking.park(early, "relay", 5.0)
        parking.park(late, "relay", 9.0)
        parking.want([early])
        self.assertEqual(parking.next_expiry(), 9.0)
        parking.want([late])
        self.assertIsNone(parking.next_expiry())

    def test_that_was_wanted_by_itself_keeps_no_other_behind_it(self) -> None:
        """Of high priority, say: what is still parked is what goes before."""
        parking = Parking()
        gone, older, mail, younger = (uuid.UUID(int=number) for number in range(4))
        parking.park(gone, "relay", inf, Priority.HIGH.rank)
        parking.park(younger, "relay", inf)
        parking.want([gone])
        self.assertFalse(parking.is_behind(mail, Priority.NORMAL.rank, "relay", in_turn=False))
        parking.park(older, "relay", inf)
        self.assertTrue(parking.is_behind(mail, Priority.NORMAL.rank, "relay", in_turn=False))


class AnAnnouncement(Fixture):
    def test_for_which_there_is_no_thread_does_no_harm(self) -> None:
        """The interpreter ends; the next one that is made at once tells it, too, or a processor looks."""
        told: list[str] = []
        announcer = self.queue._announcer
        announcer._clock = clock = ManualClock()
        with mock.patch.object(self.queue._connections, "execute", lambda _, payload: told.append(payload)):
            announcer.announce(1)
            with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
                announcer.announce(2)
            self.assertEqual(told, ["1"])
            clock.advance(1.0)
            announcer.announce(3)
            announcer.announce(4)
            announcer.close()
        self.assertEqual(told, ["1", "3", "2", "4"])


class AListener(Fixture):
    def listener(self, url: str = "", *answers: bool) -> Any:
        """Return one that finds out what is new from these answers, one after the other."""
        self.connections = Connections(DatabaseLocation.parse(url or self.url))
        self.addCleanup(self.connections.close)
        self.answers = list(answers)
        listener: Any = Listener(self.connections, 1, lambda: self.answers.pop(0))
        self.addCleanup(listener.close)
        return listener

    def test_behind_a_pooler_keeps_no_connection(self) -> None:
        """That there is one is known with the first."""
        listener = self.listener(shared_pooler(self.server).url("q"))
        self.assertFalse(listener.is_open)
        listener.open()
        self.assertTrue(listener.is_open)
        self.assertIsNone(listener._connection)

    def test_that_another_thread_has_is_waited_for_no_longer_than_asked(self) -> None:
        listener = self.listener()
        with listener._mutex:
            self.assertIsNone(listener.wait(0.0))
            self.assertIsNone(listener.hear(again=True))
            listener.open()
        self.assertFalse(listener.is_open)

    def test_that_hears_nothing_looks(self) -> None:
        """Until there is something new, or the time is over."""
        for answers, found in (([False, False, True], []), ([False] * 3, None)):
            with self.subTest(found=found):
                listener = self.listener("", *answers, False)
                clock = listener._clock = ManualClock()

                def passes(seconds: float, clock: ManualClock = clock) -> list[int]:
                    clock.advance(max(seconds, 0.0))
                    return []

                with mock.patch.object(listener, "_select", passes):
                    self.assertEqual(listener.wait(1.75), found)
                self.assertEqual(len(self.answers), 1)


load_tests = in_layer(Databases)
