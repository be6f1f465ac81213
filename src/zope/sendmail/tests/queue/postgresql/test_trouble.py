"""Users without rights, passwords: what is said, and that no password is."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
import unittest
import uuid
from dataclasses import replace
from typing import Any
from unittest import mock

from zope.sendmail.cli.queuecommands import main
from zope.sendmail.errors import QueueError
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_RIGHT, _WRONG = "r1ght-W0rd", "wr0ng-W0rd"


class ADatabaseThatIsAway(unittest.TestCase):
    """In the middle of a claim."""

    def setUp(self) -> None:
        self.queue: Any = open_queue(shared_server().url())
        self.addCleanup(self.queue.close)

    def away(self, line: str) -> Any:
        """Let the database not answer this line any more."""
        connections = self.queue._claims._connections
        real = connections.execute

        def execute(asked: str, **parameters: Any) -> Any:
            if asked.startswith(line):
                raise QueueError("the database is away")
            return real(asked, **parameters)

        return mock.patch.object(connections, "execute", execute)

    def test_costs_no_lease_on_mail_that_was_reserved(self) -> None:
        """It is given out; the next claim says what is wrong."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        first = self.queue.claim(1, ahead=2)
        with self.away("claim"):
            rest = self.queue.claim(5)
            self.assertEqual(len({lease.name for lease in (*first, *rest)}), 3)
            with self.assertRaisesRegex(QueueError, "is away"):
                self.queue.claim(5)

    def test_costs_no_lease_on_mail_whose_time_is_over(self) -> None:
        """Likewise, when the look at what expires next is refused."""
        self.queue.claim(0)
        claims = self.queue._claims
        put(self.queue, [replace(envelope(), terms=Terms(expires=claims.now() + 60.0))], MESSAGE)
        self.enterContext(mock.patch.object(claims, "now", return_value=claims.now() + 120.0))
        with mock.patch.object(claims.lines, "look_out", side_effect=QueueError("away")):
            self.assertEqual(len(self.queue.claim_expired()), 1)
            self.assertRaises(QueueError, self.queue.claim_expired)


class AUser(unittest.TestCase):
    """That is not the owner of the tables."""

    def setUp(self) -> None:
        self.server = shared_server()
        self.database = self.server.create_database()
        self.user = f"u{uuid.uuid4().hex[:12]}"
        self.url = self.server.url("q", self.database, self.user)
        self.sql(f"create role {self.user} login password '{_RIGHT}'")

    def sql(self, statement: str) -> None:
        with self.server.connect(self.database) as connection:
            connection.execute(statement.encode())

    def migrate(self, **options: Any) -> None:
        from zope.sendmail.queue.postgresql.upkeep import migrate

        migrate(self.server.url("q", self.database), **options)

    def grant(self) -> None:
        """What the manual says."""
        self.sql(f"grant usage on schema zope_sendmail to {self.user}")
        self.sql(f"grant select, insert, update, delete on all tables in schema zope_sendmail to {self.user}")

    def uses(self) -> list[Any]:
        queue = open_queue(self.url)
        self.addCleanup(queue.close)
        return [lambda: put(queue, [envelope()], MESSAGE), queue.claim, queue.admin.count]

    def test_without_rights_is_told_which_to_ask_for(self) -> None:
        """Whatever it does, on the command line as well."""
        self.migrate()
        for use in self.uses():
            with self.assertRaisesRegex(QueueError, "permission denied for schema zope_sendmail; let the owner of"):
                use()
        complaints = io.StringIO()
        with contextlib.redirect_stderr(complaints):
            self.assertEqual(main(["count", self.url]), 74)
        self.assertIn("grant this user usage on schema zope_sendmail, and select, insert,", complaints.getvalue())

    def test_with_the_rights_of_the_manual_works_with_each_later_version(self) -> None:
        """What was granted once is granted for tables that are made later."""
        self.migrate(to=1)
        self.grant()
        self.migrate()
        for use in self.uses():
            use()
        queue: Any = open_queue(self.url)
        self.addCleanup(queue.close)
        self.assertEqual(queue.take_turns(f"{self.user}:25", 1.0, 1), 0.0)
        self.assertEqual(list(queue.transits[0].traces()), [])

    def ask_for_passwords(self) -> None:
        import psycopg

        path = f"{self.server.data}/pg_hba.conf"
        with open(path, encoding="ascii") as file:
            lines = file.read()
        with open(path, "w", encoding="ascii") as file:
            file.write(f"local all {self.user} scram-sha-256\n{lines}")
        self.sql("select pg_reload_conf()")
        deadline = time.monotonic() + 300.0
        while time.monotonic() < deadline:  # it takes a moment
            try:
                psycopg.connect(f"{self.server.conninfo(self.database)} user={self.user} password={_WRONG}").close()
            except psycopg.OperationalError:
                return
        self.fail("the server does not ask for passwords")

    def test_with_a_wrong_password_is_told_so(self) -> None:
        """And the password is nowhere: not in the error, the log, or what the queue is called."""
        self.migrate()
        self.ask_for_passwords()
        with mock.patch.dict(os.environ, {"PGPASSWORD": _WRONG}):
            for use in self.uses():
                with self.assertRaisesRegex(QueueError, "password authentication failed") as caught:
                    use()
                self.assertNotIn(_WRONG, f"{caught.exception!r}{caught.exception.__cause__!r}")

    def test_with_a_file_of_passwords_is_let_in(self) -> None:
        """What the queue is called says where that file is, and no more."""
        self.migrate()
        self.grant()
        self.ask_for_passwords()
        with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
            file.write(f"*:*:*:{self.user}:{_RIGHT}\n")
            file.flush()
            os.chmod(file.name, 0o600)
            self.url += f"&passfile={file.name}"
            for use in self.uses():
                use()
            queue = open_queue(self.url)
            self.addCleanup(queue.close)
            self.assertNotIn(_RIGHT, f"{queue.location}{queue!r}{vars(queue)!r}")


load_tests = in_layer(Databases)
