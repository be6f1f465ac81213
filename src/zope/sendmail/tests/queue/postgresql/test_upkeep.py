"""The schema, its versions and the identity of a database; the commands that look after them."""

from __future__ import annotations

import contextlib
import io
import time
import unittest
import uuid
from typing import Any

from zope.sendmail.cli.queuecommands import main
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import NotPossible, QueueError
from zope.sendmail.lifecycle.finding import Kind, Severity
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_YES = Reply(Answer.ACCEPTED, 'ok \\ "quoted", {queued} as 1', 250)


class Fixture(unittest.TestCase):
    """A database without anything in it."""

    def setUp(self) -> None:
        self.server = shared_server()
        self.database = self.server.create_database()
        self.url = self.server.url("q", self.database)

    def sql(self, statement: str) -> list[Any]:
        """Execute a statement of the test's own."""
        with self.server.connect(self.database) as connection:
            cursor = connection.execute(statement)
            return list(cursor) if cursor.description else []

    def opened(self) -> Any:
        """Return the queue, which is closed when the test is over."""
        queue = open_queue(self.url)
        self.addCleanup(queue.close)
        return queue

    def call(self, *arguments: str) -> tuple[int, str, str]:
        """Carry out a command of an operator: status, output, complaints."""
        out, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
            status = main(arguments)
        return status, out.getvalue(), complaints.getvalue()


class ADatabaseWithoutTables(Fixture):
    """Says what to do."""

    def test_names_the_command(self) -> None:
        """For those who send, who claim and who look."""
        queue = self.opened()
        uses = (lambda: put(queue, [envelope()], MESSAGE), queue.claim, lambda: list(queue.admin.mails()))
        for use in uses:
            with self.assertRaisesRegex(QueueError, "zope-sendmail queue migrate"):
                use()
        self.assertEqual(self.call("count", self.url)[0], 74)

    def test_is_migrated_by_the_command(self) -> None:
        """Twice does no harm, and a mail goes through."""
        from zope.sendmail.queue.postgresql.schemaversion import NEWEST

        status, out, _ = self.call("migrate", self.url)
        self.assertEqual((status, out), (0, f"the tables have version {NEWEST} now\n"))
        self.assertEqual(self.call("migrate", self.url)[1], "the tables are up to date\n")
        self.assertEqual(self.call("migrate", "--json", self.url)[1], '{"versions": []}\n')
        queue = self.opened()
        put(queue, [envelope()], MESSAGE)
        self.assertEqual(queue.claim()[0].open().read(), MESSAGE)

    def test_refuses_what_is_no_database(self) -> None:
        """Nothing is made of a path."""
        self.assertEqual(self.call("migrate", "/tmp/no-such-queue")[0], 78)


class AnOlderSchema(Fixture):
    """Each version that was ever made is brought to the newest."""

    def test_is_refused_and_then_migrated_with_its_mail(self) -> None:
        """From every older version."""
        from zope.sendmail.queue.postgresql.schemaversion import NEWEST
        from zope.sendmail.queue.postgresql.upkeep import migrate

        for version in range(1, NEWEST):
            self.database = self.server.create_database()
            self.url = self.server.url("q", self.database)
            self.assertEqual(migrate(self.url, to=version), list(range(1, version + 1)))
            with self.assertRaisesRegex(QueueError, f"version {version} .*queue migrate"):
                self.opened().claim()
            self.sql("insert into zope_sendmail.queue (name) values ('q')")
            self.sql(
                "insert into zope_sendmail.mail (id, queue, size, message_id, envelope) values (gen_random_uuid(), 1,"
                """ 4, '', '{"from": "a@example.org", "to": ["b@example.org"]}')"""
            )
            self.assertEqual(migrate(self.url), list(range(version + 1, NEWEST + 1)))
            queue = self.opened()
            self.assertEqual(queue.claim()[0].envelope.recipients, ("b@example.org",))


class ANewerSchema(Fixture):
    """Is left alone."""

    def test_is_refused_by_everything(self) -> None:
        """By migrate as well."""
        self.call("migrate", self.url)
        self.sql("insert into zope_sendmail.schema_version (version) values (1000)")
        with self.assertRaisesRegex(QueueError, "version 1000 .*newer release"):
            self.opened().claim()
        status, _, complaint = self.call("migrate", self.url)
        self.assertEqual(status, 74)
        self.assertIn("version 1000", complaint)


class ACopyOfADatabase(Fixture):
    """A queue that was restored or copied elsewhere does not send its mail again."""

    def setUp(self) -> None:
        super().setUp()
        self.call("migrate", self.url)
        queue = open_queue(self.url)
        put(queue, [envelope()], MESSAGE)
        queue.close()
        self.database = self.server.create_database(template=self.database)
        self.url = self.server.url("q", self.database)

    def test_gives_no_processor_a_mail_before_it_is_adopted(self) -> None:
        """The doctor and every processor say so; adopt lets it begin."""
        queue = self.opened()
        with self.assertRaisesRegex(QueueError, "queue adopt"):
            queue.claim()
        self.assertIn("restored or copied", next(each.text for each in queue.admin.examine()))
        self.assertEqual(self.call("adopt", self.url)[0], 0)
        self.assertEqual(len(queue.claim()), 1)
        self.assertFalse([each for each in queue.admin.examine() if "copied" in each.text])

    def test_takes_and_shows_mail_all_the_same(self) -> None:
        """Operators decide what shall not go again."""
        queue = self.opened()
        put(queue, [envelope()], MESSAGE)
        self.assertEqual(len(list(queue.admin.names())), 2)
        queue.admin.remove(next(queue.admin.names()))


class AUserWithFewRights(Fixture):
    """The rights that the manual lists are enough for everything but migrate."""

    def test_can_work(self) -> None:
        """Send, claim, settle, operate."""
        from zope.sendmail.queue.postgresql.upkeep import migrate

        migrate(self.url)
        role = f"r{self.database}"
        self.sql(f"create role {role} login")
        self.addCleanup(self.sql, f"drop owned by {role}; drop role {role}")
        self.sql(f"grant usage on schema zope_sendmail to {role}")
        self.sql(f"grant select, insert, update, delete on all tables in schema zope_sendmail to {role}")
        url = self.server.url("q", self.database, role)
        queue = open_queue(url)
        self.addCleanup(queue.close)
        put(queue, [envelope()] * 3, MESSAGE)
        [lease] = queue.claim()
        lease.release()
        queue.admin.hold(lease.name)
        self.assertEqual([each.kind for each in queue.admin.examine() if each.name], ["held"])


class MailInDoubt(Fixture):
    """Staged by a process that is gone, for more than an hour."""

    def setUp(self) -> None:
        super().setUp()
        self.call("migrate", self.url)
        self.queue = open_queue(self.url)
        self.addCleanup(self.queue.close)
        staged = self.queue.stage()
        self.name = staged.add(envelope(), MESSAGE)
        staged.prepare()

    def test_is_left_alone_while_its_transaction_may_commit(self) -> None:
        """For an hour."""
        self.assertEqual(list(self.queue.admin.in_doubt()), [])
        for verb in (self.queue.admin.release, self.queue.admin.remove):
            self.assertRaisesRegex(NotPossible, "may still commit", verb, self.name)

    def test_is_found_and_decided_by_a_person(self) -> None:
        """Released, or removed; never sent by itself."""
        self.sql("update zope_sendmail.mail set since = since - interval '2 hours'")
        [finding] = self.queue.admin.in_doubt()
        self.assertEqual(finding.name, self.name)
        self.assertEqual(self.queue.claim(), [])
        self.queue.admin.release(self.name)
        self.assertEqual([lease.name for lease in self.queue.claim()], [self.name])

    def test_is_decided_with_the_commands_of_the_doctor(self) -> None:
        """They have its name."""
        self.sql("update zope_sendmail.mail set since = since - interval '2 hours'")
        self.assertIn(f"release {self.url!r} {self.name}", self.call("doctor", self.url)[1])
        self.assertIn("1 mail would be removed", self.call("remove", self.url, self.name, "--dry-run")[1])
        self.assertEqual(self.call("release", self.url, self.name)[0], 0)
        self.assertEqual([lease.name for lease in self.queue.claim()], [self.name])

    def test_is_removed_with_its_message(self) -> None:
        """Nothing is left."""
        self.sql("update zope_sendmail.mail set since = since - interval '2 hours'")
        self.queue.admin.remove(self.name)
        self.assertEqual(self.sql("select count(*) from zope_sendmail.body"), [(0,)])


class AQueueThatNobodyDrains(Fixture):
    """Mail was committed, and no processor of this queue is at work."""

    def setUp(self) -> None:
        super().setUp()
        self.call("migrate", self.url)
        self.queue: Any = open_queue(self.url)
        self.addCleanup(self.queue.close)

    def test_is_told_at_the_first_commit(self) -> None:
        """Though one is at work on another queue of the same database."""
        other = open_queue(self.server.url("other", self.database))
        self.addCleanup(other.close)
        put(other, [envelope()], MESSAGE)
        other.claim()
        other.report(ProcessorState(pid=1, started=1.0, written=1.0))
        with self.assertLogs("MailDataManager", "WARNING") as logs:
            QueuedMailDelivery(self.url).send_now("a@example.org", "b@example.org", MESSAGE)
        self.assertIn("No processor is at work on the queue postgresql:", logs.output[-1])
        self.assertFalse(self.queue.is_attended())

    def test_is_known_to_the_doctor_after_a_moment(self) -> None:
        """Seconds, not a minute."""
        put(self.queue, [envelope()], MESSAGE)
        self.sql("update zope_sendmail.mail set since = now() + interval '60 s'")  # however slow this machine is
        self.assertEqual([each for each in self.queue.admin.examine() if each.kind == Kind.WAITING], [])
        self.sql("update zope_sendmail.mail set since = now() - interval '6 s'")
        self.assertIn("no processor", " ".join(finding.text for finding in self.queue.admin.examine()))

    def test_is_none_between_passes(self) -> None:
        """The doctor says when the last one ended, and that no processor is at work."""
        self.queue.claim()
        now = time.time()
        self.queue.report(ProcessorState(pid=1, started=now, written=now, ended=now, forever=False))
        self.queue.close()
        looking: Any = open_queue(self.url)
        self.addCleanup(looking.close)
        put(looking, [envelope()], MESSAGE)
        self.sql("update zope_sendmail.mail set since = since - interval '70 s'")
        [found] = [each for each in looking.admin.examine() if each.kind == Kind.WAITING]
        self.assertEqual(found.severity, Severity.NOTE)
        self.assertIn("No processor is at work; the last pass ended", found.text)

    def test_is_none_while_a_processor_lives(self) -> None:
        """It has told so."""
        put(self.queue, [envelope()], MESSAGE)
        self.queue.claim()
        self.queue.report(ProcessorState(pid=1, started=1.0, written=1.0))
        looking: Any = open_queue(self.url)
        self.addCleanup(looking.close)
        self.assertTrue(looking.is_attended())


class WhatHasLeft(Fixture):
    """Is remembered for a week, in tables that take turns."""

    def test_is_forgotten_before_its_table_is_needed_again(self) -> None:
        """By a processor's round of cleaning."""
        self.call("migrate", self.url)
        self.is_forgotten(self.url)

    def test_is_forgotten_by_a_user_without_the_right_to_truncate(self) -> None:
        """Row by row, with the rights that the manual lists."""
        self.call("migrate", self.url)
        user = f"u{uuid.uuid4().hex[:12]}"
        self.sql(f"create role {user} login")
        self.sql(f"grant usage on schema zope_sendmail to {user}")
        self.sql(f"grant select, insert, update, delete on all tables in schema zope_sendmail to {user}")
        self.is_forgotten(self.server.url("q", self.database, user))

    def is_forgotten(self, url: str) -> None:
        from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue

        clock = ManualClock()
        queue = PostgreSQLQueue(url, clock=clock)
        self.addCleanup(queue.close)
        for day in range(20):
            put(queue, [envelope()], MESSAGE.replace(b"<1@", b"<%d@" % day))
            [lease] = queue.claim()
            lease.intend()
            lease.settle(Record(State.SENT, relay="relay", replies={"one@example.org": _YES}))
            self.assertEqual(queue.status(f"{day}@example.org").standing, "sent")
            queue.admin.clean()
            clock.advance(86400)
        self.assertLessEqual(self.sql("select count(*) from zope_sendmail.sent")[0][0], 9)
        self.assertEqual(queue.status("5@example.org").standing, "unknown")
        status = queue.status("14@example.org")
        self.assertEqual((status.standing, status.relay), ("sent", "relay"))
        self.assertEqual(status.replies, {"one@example.org": _YES})


load_tests = in_layer(Databases)
