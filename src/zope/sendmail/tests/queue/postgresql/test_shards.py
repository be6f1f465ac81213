"""Queues in several databases as one."""

from __future__ import annotations

import contextlib
import io
import threading
import unittest
from typing import Any

import transaction

from zope.sendmail.cli.queuecommands import main
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import InvalidLocation, QueueError
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server


class Shards(unittest.TestCase):
    """Two databases."""

    def setUp(self) -> None:
        self.server = shared_server()
        self.databases = [self.server.create_database() for _ in range(2)]
        self.urls = [self.server.url("q", database) for database in self.databases]
        self.location = ";".join(self.urls)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(main(["migrate", self.location]), 0)
        self.queue = self.open(self.location)

    def open(self, location: str) -> Any:
        queue = open_queue(location)
        self.addCleanup(queue.close)
        return queue

    def test_are_made_and_called_by_all_their_urls(self) -> None:
        """Each has its tables."""
        self.assertEqual(self.queue.location, self.location)
        for url in self.urls:
            self.assertEqual(self.open(url).admin.count(), {})

    def test_are_written_to_the_first_and_read_from_all(self) -> None:
        """By processors and by operators."""
        put(self.queue, [envelope()], MESSAGE)
        put(self.open(self.urls[1]), [envelope()], MESSAGE)
        self.assertEqual(self.open(self.urls[0]).admin.count(), {"ready": 1})
        self.assertEqual(self.queue.admin.count(), {"ready": 2})
        names = set(self.queue.admin.names())
        self.assertEqual({lease.name for lease in self.queue.claim(9)}, names)

    def test_take_mail_where_the_application_commits(self) -> None:
        """The connection says in which database."""
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        for number, database in enumerate(self.databases):
            connection = psycopg.connect(self.server.conninfo(database))
            self.addCleanup(connection.close)
            manager = transaction.TransactionManager(explicit=True)
            delivery = QueuedMailDelivery(
                self.location, connection=PsycopgConnection(connection), transaction_manager=manager
            )
            manager.begin()
            delivery.send("a@example.org", ["b@example.org"], "Subject: x\n\ntext")
            connection.commit()
            manager.commit()
            self.assertEqual(self.open(self.urls[number]).admin.count(), {"ready": 1})
        other = psycopg.connect(self.server.conninfo())
        self.addCleanup(other.close)
        with self.assertRaisesRegex(QueueError, "another database"):
            self.queue.stage_on(PsycopgConnection(other))

    def test_wake_a_processor_of_all_of_them(self) -> None:
        """Whichever the mail was written to."""
        for url in self.urls:
            self.assertEqual(self.queue.claim(), [])
            thread = threading.Thread(target=put, args=(self.open(url), [envelope()], MESSAGE))
            thread.start()
            self.queue.wait(3600.0)
            thread.join()
            while not self.queue.claim():
                self.queue.wait(3600.0)

    def test_have_no_password_anywhere(self) -> None:
        """Not in the second either; and each of them is a URL."""
        for location in (
            f"{self.urls[0]};postgresql://u:s3cret@h/d",
            f"{self.urls[0]};/a/path",
            "postgresql://h/d;memory:",
        ):
            with self.assertRaises(InvalidLocation) as caught:
                open_queue(location)
            self.assertNotIn("s3cret", str(caught.exception))


load_tests = in_layer(Databases)
