"""What tests of other projects get: an outbox, and fixtures for pytest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from email.message import EmailMessage
from pathlib import Path

import transaction

from zope.sendmail.queue import open_queue
from zope.sendmail.sender import MailSender
from zope.sendmail.testing.outbox import Outbox


def message(subject: str = "Order 7", text: str = "Thank you!") -> EmailMessage:
    built = EmailMessage()
    built["From"], built["Subject"] = "shop@example.org", subject
    built.set_content(text)
    return built


class AnOutbox(unittest.TestCase):
    def setUp(self) -> None:
        self.outbox = Outbox()
        self.addCleanup(transaction.abort)

    def test_has_what_a_transaction_committed(self) -> None:
        """And not before, and nothing that was aborted."""
        delivery = self.outbox.delivery()
        delivery.send("shop@example.org", ["jane@example.org"], message())
        self.outbox.assert_nothing_sent()
        transaction.commit()
        delivery.send("shop@example.org", ["jim@example.org"], message())
        transaction.abort()
        self.assertEqual([mail.recipients for mail in self.outbox.mails], [("jane@example.org",)])

    def test_has_at_once_what_follows_no_transaction(self) -> None:
        """The message as people read it."""
        identifier = self.outbox.sender().send(
            "shop@example.org", ["Jane <Jane@example.org>", "b@example.org"], message("Grüße", "Dank\n")
        )
        mail = self.outbox.assert_sent(to="jane@example.org", sender="shop@example.org", subject="Grü", text="Dank")
        self.assertEqual((mail.message_id, mail.subject, mail.text), (identifier, "Grüße", "Dank\n"))
        self.assertEqual(mail.message["From"], "shop@example.org")

    def test_says_what_is_there_when_something_is_missing(self) -> None:
        """And when it is too much."""
        with self.assertRaisesRegex(AssertionError, "0 mails fit anything, not 1; sent were none"):
            self.outbox.assert_sent()
        sender = self.outbox.sender()
        sender.send("", ["jane@example.org"], message("A report"))
        for _ in range(2):
            sender.send("shop@example.org", ["jim@example.org"], message())
        there = "'A report' from <> to jane@example.org; 'Order 7' from shop@example.org to jim@example.org; "
        for criteria, found in (
            ({"to": "joe@example.org"}, "0 mails fit to='joe@example.org', not 1; sent were "),
            ({"subject": "Order", "text": "you"}, "2 mails fit subject='Order', text='you', not 1; sent were "),
            ({"sender": "", "text": "none"}, "0 mails fit sender='', text='none', not 1"),
        ):
            with self.subTest(criteria), self.assertRaises(AssertionError) as caught:
                self.outbox.assert_sent(**criteria)  # type: ignore[arg-type]  # none is a number
            self.assertTrue(str(caught.exception).startswith(found), caught.exception)
            self.assertIn(there, str(caught.exception))
        self.assertEqual(self.outbox.assert_sent(to="jim@example.org", count=2), self.outbox.mails[-1])
        with self.assertRaisesRegex(AssertionError, "mail was sent: 'A report'"):
            self.outbox.assert_nothing_sent()

    def test_can_be_emptied(self) -> None:
        """Between two steps of a test."""
        self.outbox.sender().send("shop@example.org", ["jane@example.org"], message())
        self.outbox.clear()
        self.assertEqual(len(self.outbox), 0)
        self.outbox.assert_nothing_sent()

    def test_shows_any_queue(self) -> None:
        """Of an application that has one already, on the disk or in memory."""
        path = str(Path(self.enterContext(tempfile.TemporaryDirectory())) / "mail")
        for sender in (MailSender(path), MailSender("memory:")):
            sender.writer.send("shop@example.org", ["jane@example.org"], message())
            self.assertEqual(Outbox(sender.queue).assert_sent().recipients, ("jane@example.org",))
        self.assertEqual(len(Outbox(open_queue(path))), 1)


class Fixtures(unittest.TestCase):
    def test_are_there_for_pytest(self) -> None:
        """An application's test asks for them by name."""
        text = """
from zope.sendmail.sender import MailSender

def test_outbox(mail_outbox):
    mail_outbox.sender().send("a@example.org", ["b@example.org"], "Subject: x\\n\\n")
    mail_outbox.assert_sent(to="b@example.org")

def test_outbox_is_empty_again(mail_outbox):
    mail_outbox.assert_nothing_sent()

def test_relay(mail_relay):
    mail_relay.on("RCPT", "550 5.1.1 no such user", about="nobody@")
    with MailSender("memory:", mail_relay.host, mail_relay.port) as sender:
        sender.send("a@example.org", ["b@example.org"], "Subject: x\\n\\n")
    assert [mail.recipients for mail in mail_relay.mails] == [("b@example.org",)]
"""
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (directory / "test_shop.py").write_text(text)
        plugin = ["-p", "zope.sendmail.testing.fixtures"]  # by itself where the distribution is installed
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", "test_shop.py"]
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        self.assertIn("3 passed", done.stdout, done.stdout + done.stderr)
