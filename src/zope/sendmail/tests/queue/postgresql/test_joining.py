"""Mail on the application's own connection commits with the application's rows, or not at all."""

from __future__ import annotations

import importlib.util
import sys
import unittest
from typing import Any
from unittest import SkipTest, mock

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import QueueError
from zope.sendmail.queue import open_queue
from zope.sendmail.sender import MailWriter
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import Server, shared_server

MESSAGE = "Subject: news\n\nText\n"


class Fixture(unittest.TestCase):
    """A queue, and a table of the application in the same database."""

    package = ""

    def setUp(self) -> None:
        if self.package and importlib.util.find_spec(self.package) is None:
            raise SkipTest(f"{self.package} is not installed")
        self.server: Server = shared_server()
        self.url = self.server.url()
        self.queue = open_queue(self.url)
        self.addCleanup(self.queue.close)
        with self.server.connect() as connection:
            connection.execute("create table if not exists orders (name text primary key)")
            connection.execute("truncate orders")

    def rows(self) -> int:
        """How many rows of the application have been committed."""
        with self.server.connect() as connection:
            return int(connection.execute("select count(*) from orders").fetchone()[0])

    def subjects(self) -> list[bytes]:
        """The subjects of all mails that may be claimed."""
        return [lease.open().read().partition(b"Subject: ")[2].partition(b"\n")[0] for lease in self.queue.claim(99)]


def send(sender: Any, subject: str = "news", text: str = "Text\n", **terms: Any) -> str:
    """Send one mail."""
    message_id: str = sender.send("a@example.org", ["b@example.org"], f"Subject: {subject}\n\n{text}", **terms)
    return message_id


class APsycopgConnection(Fixture):
    """Of psycopg 3, without the package transaction."""

    def setUp(self) -> None:
        super().setUp()
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        self.connection = psycopg.connect(self.server.conninfo())
        self.addCleanup(self.connection.close)
        self.writer = MailWriter(self.url, connection=PsycopgConnection(self.connection))

    def test_commits_mail_and_rows_together(self) -> None:
        """Before the commit nobody sees either."""
        self.connection.execute("insert into orders values ('one')")
        send(self.writer)
        self.assertEqual((self.rows(), self.subjects()), (0, []))
        self.connection.commit()
        self.assertEqual((self.rows(), self.subjects()), (1, [b"news"]))

    def test_rolls_both_back(self) -> None:
        """Nothing is left."""
        self.connection.execute("insert into orders values ('one')")
        send(self.writer)
        self.connection.rollback()
        self.assertEqual((self.rows(), self.queue.admin.count()), (0, {}))

    def test_rolls_back_to_a_savepoint(self) -> None:
        """The mails before it stay."""
        send(self.writer, "first")
        with self.assertRaises(ZeroDivisionError), self.connection.transaction():
            send(self.writer, "second")
            raise ZeroDivisionError
        send(self.writer, "third")
        self.connection.commit()
        self.assertEqual(self.subjects(), [b"first", b"third"])

    def test_loses_the_mail_with_the_process(self) -> None:
        """A connection that is cut before its commit leaves nothing, and nothing in doubt."""
        send(self.writer)
        with self.server.connect() as other:
            other.execute("select pg_terminate_backend(%s)", [self.connection.info.backend_pid])
        with self.assertRaises(Exception):  # noqa: B017 - whatever the driver says
            self.connection.commit()
        self.assertEqual(self.queue.admin.count(), {})

    def test_is_noticed_after_its_commit(self) -> None:
        """Although the connection tells nobody of it."""
        self.assertEqual(self.queue.claim(), [])
        send(self.writer)
        self.connection.commit()
        self.queue.wait(3600.0)
        self.assertEqual(self.subjects(), [b"news"])

    def test_may_lead_to_a_database_without_an_encoding(self) -> None:
        """Of which psycopg reads text as bytes."""
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection
        from zope.sendmail.queue.postgresql.upkeep import migrate

        database = self.server.create_database("template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'")
        url = self.server.url(database=database)
        migrate(url)
        with psycopg.connect(self.server.conninfo(database)) as connection:
            writer = MailWriter(url, connection=PsycopgConnection(connection))
            message_id = send(writer, key="one")
            connection.commit()
            self.assertEqual(send(writer, key="one"), message_id)

    def test_takes_large_mail(self) -> None:
        """In pieces, as the queue does."""
        send(self.writer, "large", "x" * 700_000)
        self.connection.commit()
        text = self.queue.claim()[0].open().read()
        self.assertTrue(text.endswith(b"Subject: large\n\n" + b"x" * 700_000))

    def test_must_not_commit_each_statement(self) -> None:
        """The mail would leave whatever the application does."""
        self.connection.autocommit = True
        with self.assertRaisesRegex(QueueError, "autocommit"):
            send(self.writer)
        self.assertEqual(self.queue.admin.count(), {})
        with self.connection.transaction():
            send(self.writer)
        self.assertEqual(self.subjects(), [b"news"])

    def test_must_lead_to_the_database_of_the_queue(self) -> None:
        """Else the mail would be where no processor looks."""
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection
        from zope.sendmail.queue.postgresql.upkeep import migrate

        database = self.server.create_database()
        migrate(self.server.url(database=database))
        elsewhere = psycopg.connect(self.server.conninfo(database))
        self.addCleanup(elsewhere.close)
        with self.assertRaisesRegex(QueueError, "another database"):
            send(MailWriter(self.url, connection=PsycopgConnection(elsewhere)))

    def test_is_told_from_one_to_a_database_without_a_queue(self) -> None:
        """And its transaction goes on: nothing was asked that is not there."""
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        elsewhere = psycopg.connect(self.server.conninfo(self.server.create_database()))
        self.addCleanup(elsewhere.close)
        elsewhere.execute("create table orders (id integer)")
        with self.assertRaisesRegex(QueueError, "another database"):
            send(MailWriter(self.url, connection=PsycopgConnection(elsewhere)))
        self.assertEqual(elsewhere.execute("select count(*) from orders").fetchall(), [(0,)])

    def test_is_for_queues_in_databases_only(self) -> None:
        """A directory has no transactions of a database."""
        self.assertRaises(ValueError, QueuedMailDelivery, "/tmp/queue", connection=object())

    def test_an_applications_own_connection_is_refused_before_there_is_mail(self) -> None:
        """And a function that returns one: what wraps them is named."""
        for connection in (self.connection, lambda: self.connection):
            with self.assertRaisesRegex(TypeError, "PsycopgConnection"):
                QueuedMailDelivery(self.url, connection=connection)

    def test_follows_the_transaction_as_well(self) -> None:
        """With a transaction manager: its abort removes the mail, whatever becomes of the connection."""
        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        delivery = QueuedMailDelivery(self.url, connection=PsycopgConnection(self.connection))
        transaction.begin()
        send(delivery, "first")
        transaction.abort()
        self.connection.commit()
        self.assertEqual(self.queue.admin.count(), {})
        transaction.begin()
        send(delivery, "second")
        savepoint = transaction.savepoint()
        send(delivery, "third")
        savepoint.rollback()
        transaction.commit()
        self.connection.commit()
        self.assertEqual(self.subjects(), [b"second"])


class APsycopg2Connection(Fixture):
    """Of psycopg2, which many applications still have."""

    package = "psycopg2"

    def setUp(self) -> None:
        super().setUp()
        import psycopg2
        from psycopg2.extras import RealDictCursor

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        self.connection = psycopg2.connect(self.server.conninfo(), cursor_factory=RealDictCursor)
        self.addCleanup(self.connection.close)
        self.writer = MailWriter(self.url, connection=PsycopgConnection(self.connection))

    def test_commits_mail_and_rows_together(self) -> None:
        """Not before: nobody sees it, and a rollback removes both."""
        with self.connection.cursor() as cursor:
            cursor.execute("insert into orders values ('lost')")
        send(self.writer, "lost")
        self.connection.rollback()
        with self.connection.cursor() as cursor:
            cursor.execute("insert into orders values ('one')")
        send(self.writer, "one", "\x00".join("ab") + "x" * 300_000)
        self.assertEqual((self.rows(), self.subjects()), (0, []))
        self.connection.commit()
        self.assertEqual((self.rows(), self.subjects()), (1, [b"one"]))

    def test_follows_the_transaction_as_well(self) -> None:
        """A savepoint of the package transaction removes what came later, on the connection."""
        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        delivery = QueuedMailDelivery(self.url, connection=PsycopgConnection(self.connection))
        transaction.begin()
        send(delivery, "first")
        savepoint = transaction.savepoint()
        send(delivery, "second")
        savepoint.rollback()
        transaction.commit()
        self.connection.commit()
        self.assertEqual(self.subjects(), [b"first"])

    def test_must_not_commit_each_statement(self) -> None:
        """The mail would leave whatever becomes of the application's transaction."""
        self.connection.autocommit = True
        with self.assertRaisesRegex(QueueError, "autocommit"):
            send(self.writer)


class AnSQLAlchemySession(Fixture):
    """With zope.sqlalchemy: the session takes part in the two-phase commit."""

    package = "sqlalchemy"

    def setUp(self) -> None:
        super().setUp()
        if importlib.util.find_spec("zope.sqlalchemy") is None:
            raise SkipTest("zope.sqlalchemy is not installed")
        from sqlalchemy import create_engine, text
        from sqlalchemy.orm import scoped_session, sessionmaker
        from zope.sqlalchemy import register

        from zope.sendmail.queue.postgresql.joining import SQLAlchemySession

        self.engine = create_engine(f"postgresql+psycopg://postgres@/postgres?host={self.server.directory}")
        self.addCleanup(self.engine.dispose)
        self.plain = sessionmaker(self.engine)
        self.session = scoped_session(sessionmaker(self.engine))
        register(self.session)
        self.addCleanup(self.session.remove)
        self.addCleanup(transaction.abort)
        self.text = text
        self.delivery = QueuedMailDelivery(self.url, connection=SQLAlchemySession(self.session))

    def insert(self, name: str) -> None:
        self.session.execute(self.text("insert into orders values (:name)"), {"name": name})

    def test_commits_a_mail_that_is_all_there_is(self) -> None:
        """zope.sqlalchemy would roll back a session of which it has seen no change."""
        send(self.delivery)
        transaction.commit()
        self.assertEqual(self.subjects(), [b"news"])

    def test_commits_mail_and_rows_together(self) -> None:
        """Or aborts both."""
        self.insert("one")
        send(self.delivery, "first")
        transaction.abort()
        self.insert("two")
        send(self.delivery, "second")
        transaction.commit()
        self.assertEqual((self.rows(), self.subjects()), (1, [b"second"]))

    def test_rolls_back_to_a_savepoint(self) -> None:
        """Also when the database has refused a statement since."""
        from sqlalchemy.exc import IntegrityError

        self.insert("one")
        send(self.delivery, "first")
        savepoint = transaction.savepoint()
        send(self.delivery, "second")
        with self.assertRaises(IntegrityError):
            self.insert("one")
        savepoint.rollback()
        send(self.delivery, "third")
        transaction.commit()
        self.assertEqual((self.rows(), self.subjects()), (1, [b"first", b"third"]))

    def test_sends_once_after_a_conflict(self) -> None:
        """The transaction is tried again; what the first attempt wrote is gone."""
        attempts = []
        for attempt in transaction.manager.attempts(3):
            with attempt:
                attempts.append(attempt)
                send(self.delivery)
                if len(attempts) == 1:
                    raise transaction.interfaces.TransientError
        self.assertEqual((len(attempts), self.subjects()), (2, [b"news"]))

    def test_aborts_both_when_another_votes_no(self) -> None:
        """Whoever it is."""
        self.insert("one")
        send(self.delivery)
        transaction.get().join(_NoSayer())
        self.assertRaises(ZeroDivisionError, transaction.commit)
        transaction.abort()
        self.assertEqual((self.rows(), self.queue.admin.count()), (0, {}))

    def test_works_without_the_package_transaction(self) -> None:
        """A session of its own, and `MailWriter`: the session's commit decides, and zope.sqlalchemy gets no say."""
        from zope.sqlalchemy import datamanager

        from zope.sendmail.queue.postgresql.joining import SQLAlchemySession

        with self.plain() as session:
            writer = MailWriter(self.url, connection=SQLAlchemySession(session))
            send(writer, "first")
            session.rollback()
            send(writer, "second")
            self.assertNotIn(session, datamanager._SESSION_STATE)
            session.commit()
        self.assertEqual(self.subjects(), [b"second"])

    def test_works_where_zope_sqlalchemy_is_not_loaded(self) -> None:
        """There is nothing to tell it then, and it is not imported for that."""
        from zope.sendmail.queue.postgresql.joining import SQLAlchemySession

        absent: dict[str, Any] = {"zope.sqlalchemy": None}  # to import it fails
        with self.plain() as session, mock.patch.dict(sys.modules, absent):
            del sys.modules["zope.sqlalchemy.datamanager"]
            send(MailWriter(self.url, connection=SQLAlchemySession(session)))
            session.commit()
        self.assertEqual(self.subjects(), [b"news"])

    def test_wakes_processors_after_the_commit(self) -> None:
        """Wherever they are."""
        self.assertEqual(self.queue.claim(), [])
        send(self.delivery)
        transaction.commit()
        self.queue.wait(3600.0)
        self.assertEqual(self.subjects(), [b"news"])


class _NoSayer:
    """A data manager that says no."""

    transaction_manager = transaction.manager

    def tpc_vote(self, transaction: Any) -> None:
        raise ZeroDivisionError

    def sortKey(self) -> str:
        return "zzz"

    def abort(self, transaction: Any) -> None:
        """Nothing to do."""

    tpc_begin = commit = tpc_finish = tpc_abort = abort


class ADjangoConnection(Fixture):
    """Django's own transactions."""

    package = "django"

    def setUp(self) -> None:
        super().setUp()
        import django
        from django.conf import settings

        if not settings.configured:
            database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres"}
            settings.configure(DATABASES={"default": {**database, "HOST": self.server.directory}}, USE_TZ=True)
            django.setup()
        from django.db import connection

        from zope.sendmail.queue.postgresql.joining import DjangoConnection

        self.connection = connection
        self.addCleanup(connection.close)
        self.writer = MailWriter(self.url, connection=DjangoConnection())

    def insert(self, name: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("insert into orders values (%s)", [name])

    def test_commits_mail_and_rows_together(self) -> None:
        """With `atomic`."""
        from django.db.transaction import atomic

        with atomic():
            self.insert("one")
            send(self.writer)
            self.assertEqual((self.rows(), self.subjects()), (0, []))
        self.assertEqual((self.rows(), self.subjects()), (1, [b"news"]))

    def test_rolls_both_back(self) -> None:
        """And so it does with the inner of two blocks, which is a savepoint."""
        from django.db.transaction import atomic

        with self.assertRaises(ZeroDivisionError), atomic():
            self.insert("one")
            send(self.writer)
            raise ZeroDivisionError
        self.assertEqual((self.rows(), self.queue.admin.count()), (0, {}))
        with atomic():
            send(self.writer, "first")
            with self.assertRaises(ZeroDivisionError), atomic():
                send(self.writer, "second")
                raise ZeroDivisionError
        self.assertEqual(self.subjects(), [b"first"])

    def test_is_open_where_statements_can_be_executed(self) -> None:
        """Within `atomic`, until something there has failed."""
        from django.db.transaction import atomic, set_rollback

        from zope.sendmail.queue.postgresql.joining import DjangoConnection

        connection = DjangoConnection()
        self.assertFalse(connection.is_open)
        with atomic():
            self.assertTrue(connection.is_open)
            set_rollback(True)
            self.assertFalse(connection.is_open)
        self.assertFalse(connection.is_open)

    def test_sends_at_once_without_a_transaction(self) -> None:
        """As everything is done at once there."""
        send(self.writer)
        self.assertEqual(self.subjects(), [b"news"])

    def test_wakes_processors_after_the_commit(self) -> None:
        """Wherever they are."""
        from django.db.transaction import atomic

        self.assertEqual(self.queue.claim(), [])
        with atomic():
            send(self.writer)
        self.queue.wait(3600.0)
        self.assertEqual(self.subjects(), [b"news"])


load_tests = in_layer(Databases)
