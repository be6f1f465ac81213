"""A queue in PostgreSQL wherever a directory is taken: ZCML, ini, command line, programs; and no password anywhere."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import tempfile
import unittest
import warnings
from typing import Any

import transaction
from zope.app.appsetup.product import setProductConfiguration
from zope.component import getUtility
from zope.configuration.exceptions import ConfigurationError

from zope.sendmail.cli.app import main
from zope.sendmail.cli.queuecommands import main as queue_main
from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.maildrop.config import ConfigError, parse_config
from zope.sendmail.maildrop.daemon import check, make_mailer, make_queue
from zope.sendmail.maildrop.spooldelivery import delivery_to
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


def commit(url: str, mails: int = 1) -> None:
    """Put mails into a queue, as another process would."""
    with contextlib.closing(open_queue(url)) as queue:
        put(queue, [envelope()] * mails, MESSAGE)


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
            commit(self.url)
            with self.subTest(given[0]), tempfile.NamedTemporaryFile("w", suffix=".ini") as ini:
                ini.write(f"[app:zope-sendmail]\nqueue_path = {self.url}\n")
                ini.flush()
                words = [given[1]] if given[1] else ["--config", ini.name]
                status, complaints = self.call("--hostname", self.relay.host, "--port", str(self.relay.port), *words)
                self.assertEqual((status, complaints), (0, ""))
                self.assertEqual(len(self.relay.mails), number)

    def test_shows_metrics(self) -> None:
        """As of a directory."""
        commit(self.url, 3)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(queue_main(["metrics", self.url]), 0)
        self.assertRegex(out.getvalue(), r"(?m)^zope_sendmail_\w+{.*ready.*} 3")

    def test_serves_metrics(self) -> None:
        """The collector asks the database; the label has no password, for the location has none."""
        if importlib.util.find_spec("prometheus_client") is None:
            self.skipTest("prometheus_client is not installed")
        from zope.sendmail.metrics.collectors import QueueCollector

        queue = open_queue(self.url)
        self.addCleanup(queue.close)
        put(queue, [envelope()] * 2, MESSAGE)
        samples = [each for family in QueueCollector(queue.location, queue.admin).collect() for each in family.samples]
        [ready] = [each for each in samples if each.labels.get("state") == "ready"]
        self.assertEqual((ready.value, ready.labels["queue"]), (2.0, self.url))

    def test_shows_and_changes_what_waits(self) -> None:
        """The verbs of operators."""
        queue = open_queue(self.url)
        self.addCleanup(queue.close)
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


class TheConsole(unittest.TestCase):
    def test_shows_a_queue(self) -> None:
        """Its mails, on the page that a directory has."""
        if importlib.util.find_spec("werkzeug") is None:
            self.skipTest("werkzeug is not installed (zope.sendmail[console])")
        from werkzeug.test import Client

        from zope.sendmail.console import Console

        url = shared_server().url()
        commit(url)
        answer = Client(Console([url], patience=60.0)).get("/0/mails")
        self.assertEqual(answer.status_code, 200)
        self.assertIn("one@example.org", answer.text)


class Maildrop(WithRelay):
    """The configuration file of maildrop names a queue in a database in the place of its spool."""

    def configure(self, spool: str) -> Any:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        text = f'MAILDROP_HOME="{directory}"\nMAILDROP_SPOOL="{spool}"\nSMTP_HOST="{self.relay.host}"\n'
        return parse_config(f"{text}SMTP_PORT={self.relay.port}\nMAILDROP_TLS=0\n", f"{directory}/config")

    def test_writes_and_sends_there(self) -> None:
        """The host in Zope, and the daemon's queue with its mailer."""
        config = self.configure(self.url)
        self.assertEqual((config.location, config.spools), (self.url, ()))
        delivery_to(config).send_at_once("a@example.org", ["b@example.org"], "Subject: x\n\ntext")
        check(config)
        queue = make_queue(config)
        self.addCleanup(queue.close)
        [lease] = queue.claim()
        self.assertIn(b"Message-Id:", lease.open().read())
        outcome = make_mailer(config).open_session().transfer(lease.envelope, lease.open(), lease.intend)
        self.assertEqual(outcome.replies["b@example.org"].code, 250)

    def test_refuses_a_password(self) -> None:
        """And names the line, not the password."""
        with self.assertRaises(ConfigError) as caught:
            self.configure(f"postgresql://u:{_SECRET}@h/d")
        self.assertRegex(str(caught.exception), "line 2: MAILDROP_SPOOL .*passfile")
        self.assertNotIn(_SECRET, str(caught.exception))


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

    def test_takes_the_queue_of_zope_conf(self) -> None:
        """``queue-path`` of <product-config mail>."""
        self.addCleanup(setProductConfiguration, "mail", None)
        setProductConfiguration("mail", {"queue-path": self.url})
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" />')
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
