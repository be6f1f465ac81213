"""A queue in PostgreSQL wherever a directory is taken: ZCML, ini, command line, programs; and no password anywhere."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import unittest
import warnings
from typing import Any

import transaction
from zope.component import getUtility
from zope.configuration.exceptions import ConfigurationError

from zope.sendmail.cli.app import main
from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.queue import open_queue, put
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture as Directives

_SECRET = "s3cr3t-W0rd"


#: For the directive: what the application would write mail on.
class TheConnection:
    """A connection that notes what is executed."""

    is_open = True
    statements: list[str] = []

    def execute(self, statement: str, parameters: Any) -> list[Any]:
        with shared_server().connect() as connection:
            self.statements.append(statement)
            cursor = connection.execute(statement, parameters)
            return list(cursor) if cursor.description else []

    def on_commit(self, call: Any) -> None:
        """Nothing is called."""


the_connection = TheConnection()


class WithRelay(unittest.TestCase):
    def setUp(self) -> None:
        self.url = shared_server().url()
        self.relay = self.enterContext(Relay())

    def call(self, *arguments: str) -> tuple[int, str]:
        """Call the command: its status, and what it complained of."""
        complaints = io.StringIO()
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests have left to the garbage collector
        with contextlib.redirect_stderr(complaints), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main(arguments)
            except SystemExit as error:
                status = int(error.code or 0)
        return status, complaints.getvalue()


class AProgram(WithRelay):
    def test_sends_with_a_sender(self) -> None:
        """Through a reader of its own."""
        with MailSender(self.url, self.relay.host, self.relay.port) as sender:
            message_id = sender.send("a@example.org", ["b@example.org"], "Subject: x\n\nText\n")
            self.assertTrue(sender.reader.wait_until_empty(30.0))
        self.assertEqual([mail.recipients for mail in self.relay.mails], [("b@example.org",)])
        self.assertEqual(sender.status(message_id).standing, "sent")

    def test_follows_a_transaction(self) -> None:
        """Own connection: what is aborted leaves nothing, what is committed is there."""
        manager = transaction.TransactionManager()
        writer = MailWriter(self.url, transaction_manager=manager)
        manager.begin()
        writer.send("a@example.org", ["b@example.org"], "Subject: x\n\nText\n")
        manager.abort()
        self.assertEqual(writer.queue.admin.count(), {})
        manager.begin()
        writer.send("a@example.org", ["b@example.org"], "Subject: x\n\nText\n")
        savepoint = manager.savepoint()
        writer.send("a@example.org", ["c@example.org"], "Subject: y\n\nText\n")
        savepoint.rollback()
        manager.commit()
        self.assertEqual(writer.queue.admin.count(), {"ready": 1})


class TheCommand(WithRelay):
    def test_drains(self) -> None:
        """Named on the command line, or in an ini file."""
        for number, given in enumerate((("line", self.url), ("ini", "")), 1):
            put(open_queue(self.url), [envelope()], MESSAGE)
            with self.subTest(given[0]), tempfile.NamedTemporaryFile("w", suffix=".ini") as ini:
                ini.write(f"[app:zope-sendmail]\nqueue_path = {self.url}\n")
                ini.flush()
                words = [given[1]] if given[1] else ["--config", ini.name]
                status, complaints = self.call("--hostname", self.relay.host, "--port", str(self.relay.port), *words)
                self.assertEqual((status, complaints), (0, ""))
                self.assertEqual(len(self.relay.mails), number)

    def test_shows_and_changes_what_waits(self) -> None:
        """The verbs of operators."""
        queue = open_queue(self.url)
        put(queue, [envelope()] * 3, MESSAGE)
        first, *_ = queue.admin.names()
        for words in (("count",), ("list",), ("show", first), ("hold", first), ("release", first), ("relays",)):
            verb, *names = words
            self.assertEqual(self.call("queue", verb, self.url, *names), (0, ""), words)
        self.assertEqual(self.call("queue", "remove", "--yes", self.url, "--all")[0], 0)
        self.assertEqual(queue.admin.count(), {})

    def test_says_what_is_wrong_with_the_server(self) -> None:
        """And gives up."""
        with tempfile.TemporaryDirectory() as nowhere:
            url = f"postgresql:///x?host={nowhere}"
            self.assertEqual(self.call("queue", "count", url)[0], os.EX_IOERR)
            status, _ = self.call("--hostname", self.relay.host, url)
            self.assertEqual(status, os.EX_CONFIG)

    def test_refuses_a_password_and_does_not_repeat_it(self) -> None:
        """In every place of the command line."""
        url = f"postgresql://user:{_SECRET}@localhost/x"
        for words in ((url,), ("queue", "count", url), ("queue", "migrate", url), ("queue", "adopt", url)):
            with self.assertNoLogs("zope.sendmail") if len(words) > 1 else contextlib.nullcontext():
                status, complaints = self.call(*words)
            self.assertNotEqual(status, 0)
            self.assertNotIn(_SECRET, complaints)


class ZCML(Directives):
    def setUp(self) -> None:
        super().setUp()
        self.url = shared_server().url()

    def deliver(self) -> Any:
        transaction.begin()
        getUtility(IMailDelivery, "Mail").send("a@example.org", ["b@example.org"], "Subject: x\n\nText\n")
        transaction.commit()
        queue = open_queue(self.url)
        self.addCleanup(queue.close)
        return queue.claim()

    def test_names_a_queue(self) -> None:
        """As it names a directory."""
        self.load(SMTP, f'<mail:queuedDelivery mailer="smtp" queuePath="{self.url.replace("&", "&amp;")}" />')
        self.assertEqual(len(self.deliver()), 1)

    def test_names_the_connection_of_the_application(self) -> None:
        """The mail is written on that."""
        where = f"{__name__}.the_connection"
        path = self.url.replace("&", "&amp;")
        self.load(SMTP, f'<mail:queuedDelivery mailer="smtp" queuePath="{path}" connection="{where}" />')
        before = len(the_connection.statements)
        self.assertEqual(len(self.deliver()), 1)
        self.assertGreater(len(the_connection.statements), before)

    def test_refuses_a_password(self) -> None:
        """It would stand in the file, and in every error about it."""
        with self.assertRaises(ConfigurationError) as caught:
            self.load(SMTP, f'<mail:queuedDelivery mailer="smtp" queuePath="postgresql://u:{_SECRET}@h/d" />')
        self.assertIn("passfile", str(caught.exception))


del Directives


load_tests = in_layer(Databases)
