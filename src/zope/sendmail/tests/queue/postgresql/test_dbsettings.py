"""A queue works whatever its database and its role are set to."""

from __future__ import annotations

import unittest
import uuid
from typing import Any

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation
from zope.sendmail.queue.postgresql.upkeep import migrate
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_MESSAGE = b"Message-Id: <m@example.org>\n\ntext\n"

#: What a role may be set to that changes how values look, and what is found.
_SETTINGS = {
    "bytea_output": "escape",
    "client_encoding": "latin1",
    "datestyle": "sql, dmy",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-10",
    "intervalstyle": "sql_standard",
    "quote_all_identifiers": "on",
    "search_path": "pg_temp",
    "standard_conforming_strings": "off",
    "timezone": "Pacific/Chatham",
}


class Fixture(unittest.TestCase):
    def opened(self, url: str) -> Any:
        queue = open_queue(url)
        self.addCleanup(queue.close)
        return queue

    def goes_its_way(self, url: str) -> None:
        """A mail is written, tried, tried again, and leaves."""
        queue, recipients = self.opened(url), ("björn@example.org", "张@example.org")
        put(queue, [Envelope("sender@example.org", recipients)], _MESSAGE)
        [lease] = queue.claim()
        self.assertEqual((lease.envelope.recipients, lease.open().read()), (recipients, _MESSAGE))
        lease.intend()
        lease.settle(Record(State.DEFERRED, attempts=1, note="später"))
        [mail] = queue.admin.mails()
        self.assertEqual((mail.envelope.recipients, mail.history[-1].note), (recipients, "später"))
        [lease] = queue.claim()
        lease.intend()
        lease.settle(Record(State.SENT))
        queue.close()
        self.assertEqual((queue.admin.count(), queue.status("m@example.org").standing), ({}, "sent"))


class ARole(Fixture):
    def setUp(self) -> None:
        self.role = f"role_{uuid.uuid4().hex}"
        with shared_server().connect() as connection:
            connection.execute(f"create role {self.role} superuser login")
            for name, value in _SETTINGS.items():
                connection.execute(f"alter role {self.role} set {name} to '{value}'")
        self.url = shared_server().url(user=self.role)

    def test_may_have_settings(self) -> None:
        self.goes_its_way(self.url)

    def test_has_no_say_in_the_isolation_of_our_transactions(self) -> None:
        """Statements of two processors would fail beside each other."""
        [(isolation,)] = Connections(DatabaseLocation.parse(self.url)).connect().execute("show transaction_isolation")
        self.assertEqual(isolation, "read committed")


class ADatabase(Fixture):
    def test_may_have_any_encoding(self) -> None:
        for encoding in ("SQL_ASCII", "LATIN1", "EUC_JIS_2004"):
            with self.subTest(encoding=encoding):
                name = f"db_{uuid.uuid4().hex}"
                with shared_server().connect() as connection:
                    connection.execute(
                        f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
                    )
                url = shared_server().url(database=name)
                migrate(url)
                self.goes_its_way(url)


load_tests = in_layer(Databases)
