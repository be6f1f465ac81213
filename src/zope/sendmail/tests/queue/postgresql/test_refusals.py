"""What becomes of a mail, and of an answer, when the database refuses, or a row has gone or cannot be read."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

from zope.sendmail.errors import (
    InvalidLocation,
    KeyInUse,
    LeaseLost,
    MalformedEnvelope,
    NoSuchMail,
    NotPossible,
    QueueError,
)
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import PRIORITY, Priority, Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql import keys, liveness
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope, write_envelope
from zope.sendmail.queue.postgresql.shards import open_shards
from zope.sendmail.queue.postgresql.storedbody import ROW
from zope.sendmail.system.hostname import host_name
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_LATER = Record(State.DEFERRED, attempts=1, due=4_000_000_000.0)


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.url = shared_server().url()
        self.queue: Any = open_queue(self.url)
        self.addCleanup(self.queue.close)

    def refused(self, statement: str) -> Any:
        """Let the database refuse a statement of this queue."""
        connections = self.queue._connections
        real = connections.execute

        def execute(asked: str, **parameters: Any) -> Any:
            if asked == statement:
                raise QueueError("the database is away")
            return real(asked, **parameters)

        return mock.patch.object(connections, "execute", execute)

    def claimed(self) -> Any:
        """Return the lease of a new mail."""
        put(self.queue, [envelope()], MESSAGE)
        [lease] = self.queue.claim()
        return lease

    def sql(self, statement: str) -> None:
        with shared_server().connect() as connection:
            connection.execute(statement.encode())


class AnAnswer(Fixture):
    """Of a relay."""

    def test_is_written_down_with_the_next_claim_if_it_was_refused(self) -> None:
        """Until then the mail stays with this processor, and is not tried again."""
        lease = self.claimed()
        lease.intend()
        with self.refused("keep"), self.assertLogs("QueueProcessorThread"):
            lease.settle(_LATER)
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 1})

    def test_is_not_written_down_for_a_mail_that_was_given_back(self) -> None:
        """It may be with another processor; the log tells."""
        lease = self.claimed()
        lease.release()
        with self.assertLogs("QueueProcessorThread") as logs:
            lease.settle(_LATER)
        self.assertIn("the lease had ended", logs.output[0])
        lease.release()
        lease.park("relay", 60.0)
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})
        self.assertEqual(len(self.queue.claim()), 1)


class ACommit(Fixture):
    def stage(self) -> Any:
        staged = self.queue.stage()
        staged.add(envelope(), MESSAGE)
        staged.prepare()
        return staged

    def test_that_is_refused_is_made_up_for_at_the_next_use(self) -> None:
        """That fails for no other mail, and the mail comes up once the database answers."""
        staged = self.stage()
        with self.refused("reveal"):
            self.assertRaises(QueueError, staged.commit)
            self.queue.stage()
        self.assertEqual(self.queue.admin.count(), {State.STAGED: 1})
        self.queue.stage()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_whose_first_attempt_is_refused_leaves_the_mail_to_processors(self) -> None:
        """It is committed all the same."""
        attempts, staged = self.queue.first_attempts(), self.stage()
        attempts.leave("one that was never claimed")
        with (
            mock.patch("zope.sendmail.queue.postgresql.claims.Claims.start", side_effect=QueueError("away")),
            self.assertLogs("MailDataManager", "WARNING") as logs,
        ):
            attempts.commit(staged)
        self.assertIn("away", logs.output[0])
        [name] = self.queue.admin.names()
        self.assertIsNone(attempts.claim(name))
        attempts.close()
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_of_no_mail_makes_no_first_attempt(self) -> None:
        """And no processor."""
        attempts = self.queue.first_attempts()
        with mock.patch("zope.sendmail.queue.postgresql.claims.Claims.start", side_effect=AssertionError):
            attempts.commit(self.queue.stage())
        self.assertEqual((self.queue.admin.count(), self.queue.admin.processors()), ({}, []))


class AProcessor(Fixture):
    def test_has_a_place_for_each_mail_in_hand(self) -> None:
        """However many: what it says of one is not taken for what it says of another."""
        put(self.queue, [envelope()] * 7, MESSAGE)
        with mock.patch.object(liveness, "_SLOTS", 2):
            leases = self.queue.claim(7)
            for lease in leases:
                lease.intend()
            self.assertEqual(len({lease.slot for lease in leases}), 7)

    def test_sends_no_mail_that_has_no_place(self) -> None:
        """Where the database refuses it one, no word of it could be written down."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        with mock.patch.object(liveness, "_SLOTS", 2):
            leases = self.queue.claim(3)
            with self.refused("more_slots"), self.assertRaisesRegex(LeaseLost, "is away"):
                for lease in leases:
                    lease.intend()

    def test_lets_high_mail_go_before_what_it_has_claimed_ahead(self) -> None:
        """Mail that another process has put."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        self.queue.claim(1, ahead=3)
        other: Any = open_queue(self.url)
        self.addCleanup(other.close)
        put(other, [replace(envelope(), terms=Terms(priority=Priority.HIGH))], MESSAGE)
        self.queue._claims._look_out()
        leases = [*self.queue.claim(1, ahead=3), *self.queue.claim(9)]
        self.assertEqual([lease.terms.priority.value for lease in leases], ["high", "normal", "normal"])

    def test_that_was_taken_for_dead_begins_anew(self) -> None:
        """As another one, which may have the mail."""
        lease = self.claimed()
        before = self.queue._claims
        with mock.patch.object(before._liveness, "ended", True):
            self.assertRaises(LeaseLost, lease.intend)
            self.assertEqual(len(self.queue.claim()), 1)
            self.assertIsNot(self.queue._claims, before)


class ABeat(Fixture):
    """By which a processor says that it lives."""

    def test_that_is_refused_is_told_once(self) -> None:
        """Not each second as long as the database is away; the processor goes on, and the next one goes through."""
        self.queue.claim()
        liveness = self.queue._claims._liveness
        with self.refused("beat"), self.assertLogs("QueueProcessorThread") as logs:
            liveness._beat_safely()
            liveness._beat_safely()
        self.assertEqual(len([each for each in logs.output if "the beat of this processor" in each]), 1)
        liveness._beat_safely()
        self.assertFalse(liveness.ended)

    def test_of_a_row_that_never_stays_is_refused(self) -> None:
        """As while a database fails over; it ends after some attempts."""
        self.queue.claim()
        liveness = self.queue._claims._liveness
        real = liveness._connections.execute

        def execute(asked: str, **parameters: Any) -> Any:
            return [(None, 0.0, 0, False)] if asked == "beat" else real(asked, **parameters)

        with (
            mock.patch.object(liveness._connections, "execute", execute),
            self.assertRaisesRegex(QueueError, "as soon as it is registered"),
        ):
            liveness._beat_once()

    def test_forgets_the_dead_from_time_to_time(self) -> None:
        """Whose mail others have long taken over."""
        self.claimed()
        dead = self.queue._claims._liveness.id
        other: Any = open_queue(self.url)
        self.addCleanup(other.close)
        other.claim()
        liveness = other._claims._liveness
        liveness.stop()  # it beats when the test says so
        self.sql(f"update zope_sendmail.processor set ended = clock_timestamp() - interval '2 h' where id = {dead}")
        for seconds, count in ((0.0, 1), (600.0, 0)):
            liveness._cleaned_at -= seconds
            liveness._beat_safely()
            with shared_server().connect() as connection:
                found = connection.execute(f"select from zope_sendmail.processor where id = {dead}".encode())
                self.assertEqual(len(list(found)), count)


class ARow(Fixture):
    def test_whose_envelope_cannot_be_read_is_a_problem_of_its_mail(self) -> None:
        """That a processor is told with the lease, and an operator who reroutes it."""
        put(self.queue, [envelope()], MESSAGE)
        [name] = self.queue.admin.names()
        self.sql(f"update zope_sendmail.mail set envelope = '[]' where id = '{name.replace('.', '')}'")
        self.assertRaisesRegex(NotPossible, "cannot reroute", self.queue.admin.reroute, name, None)
        [lease] = self.queue.claim()
        self.assertIn("its envelope cannot be read", lease.problem)

    def test_that_has_gone_is_a_mail_that_is_not_there(self) -> None:
        """For an operator who reads it, or does something to it."""
        put(self.queue, [envelope()], b"x" * (2 * ROW))
        [name] = self.queue.admin.names()
        with self.queue.admin.read(name) as stream:
            self.queue.admin.remove(name)
            self.assertRaises(NoSuchMail, stream.read)
        self.assertRaises(NoSuchMail, self.queue.admin.hold, name)

    def test_has_no_text_that_a_database_cannot_keep(self) -> None:
        """So no mail has such a Message-Id."""
        for text in ("", "a\0b", "\udcff@example.org"):
            self.assertEqual(self.queue.status(text).standing, "unknown")

    def test_of_a_mail_whose_message_id_is_none_has_none(self) -> None:
        """The mail goes all the same."""
        for number, line in enumerate((b"Message-Id: <\xff@x>", b"Message-Id: <a\0b@x>", b"Message-Id: x y z")):
            put(self.queue, [envelope()], line + b"\n\ntext")
            self.assertEqual(len(list(self.queue.admin.names())), number + 1)
        self.assertNotIn("\0", "".join(mail.message_id for mail in self.queue.admin.mails()))

    def test_has_no_login_in_it(self) -> None:
        """A relay with one is refused when the mail is written."""
        relay = RelayName(hostname="relay", port=25, username="me", password="S3cret")
        with self.assertRaisesRegex(QueueError, "has a login in it") as caught:
            write_envelope(replace(envelope(), relay=relay))
        self.assertNotIn("S3cret", str(caught.exception))

    def test_with_terms_that_are_none_is_malformed(self) -> None:
        """What is wrong with them is told as it is of a file."""
        text = json.dumps({"from": "a", "to": ["b"], "terms": {PRIORITY: "none"}})
        with self.assertRaisesRegex(MalformedEnvelope, "^it asks for what cannot be"):
            read_envelope(text)


class AKey(Fixture):
    """That a staged mail has."""

    terms = Terms(key="k", key_until=4e9)

    def setUp(self) -> None:
        super().setUp()
        staged = self.queue.stage()
        staged.add(Envelope("a@x.org", ("b@x.org",), terms=self.terms), MESSAGE)
        staged.prepare()
        self.addCleanup(staged.abort)

    def is_in_use(self, maker: str) -> None:
        self.sql(f"update zope_sendmail.mail set maker = '{maker}' where state = 3 and maker is not null")
        with self.assertRaises(KeyInUse):
            self.queue.stage().add(Envelope("a@x.org", ("b@x.org",), terms=self.terms), MESSAGE)

    def test_is_in_use_while_its_process_may_live(self) -> None:
        """One of another host, of which nothing can be known; or of another user of this one."""
        self.is_in_use("elsewhere:1")
        self.is_in_use(f"{host_name()}:x")
        with mock.patch("os.kill", side_effect=PermissionError):
            self.is_in_use(f"{host_name()}:1")

    def test_is_in_use_if_another_one_takes_it_in_the_same_moment(self) -> None:
        """Between the look and the word: it is to be tried again."""
        mail = mock.Mock(terms=self.terms)
        self.assertRaises(KeyInUse, keys.take, lambda *_: [], 1, mail, 0.0)


class ALocation(unittest.TestCase):
    def test_where_psycopg_is_missing_names_what_to_install(self) -> None:
        """As any other way to a queue whose library is not there."""
        with (
            mock.patch.dict("sys.modules", {"zope.sendmail.queue.postgresql.shards": None}),
            self.assertRaisesRegex(QueueError, r"install zope\.sendmail\[postgresql\]"),
        ):
            open_queue("postgresql://db/site?queue=q")

    def test_that_is_no_text_is_refused(self) -> None:
        """As the environment may have it; so is none at all."""
        for location in ("postgresql://db/site\udcff", "postgresql://db/site?queue"):
            with self.assertRaises(InvalidLocation):
                open_queue(location)
        self.assertRaisesRegex(QueueError, "no URL", open_shards, [])


del Fixture

load_tests = in_layer(Databases)
