"""The mistakes of the first hour: what a program says to each, in an error or in the log, is what to do."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import tempfile
import unittest
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import transaction
from transaction.interfaces import NoTransaction

from zope.sendmail.datamanager import unended
from zope.sendmail.interfaces import InvalidMail, InvalidRelay, QueueError
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.conversation import authority
from zope.sendmail.tests.support.layers import Processes, in_layer


def message(sender: str = "shop@example.org") -> EmailMessage:
    """A mail as the README has it."""
    made = EmailMessage()
    if sender:
        made["From"] = sender
    made["Subject"] = "Hello"
    made.set_content("Thank you!")
    return made


class Mistakes(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.relay = self.enterContext(Relay(users={"shop": "secret"}))
        self.addCleanup(transaction.abort)

    def send(self, **options: Any) -> str:
        """Send as the README's script does; return the standing and all that was logged."""
        path = options.pop("path", os.path.join(self.directory, "mail"))
        to = options.pop("to", ["jane@example.org"])
        text = options.pop("message", None) or message()
        host, port = options.pop("hostname", self.relay.host), options.pop("port", self.relay.port)
        with logged() as lines:
            with MailSender(path, host, port, **options) as sender:
                number = sender.send("shop@example.org", to, text)
            lines.append(sender.status(number).standing)
        return "\n".join(lines)

    def tls(self, *, implicit: bool = False) -> Relay:
        """A relay with a certificate of a private authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return self.enterContext(Relay(tls=context, implicit=implicit, users={"shop": "secret"}))

    def test_nothing_is_wrong(self) -> None:
        """The script as it should be says one word."""
        self.assertEqual(self.send(), "sent")

    def test_about_the_relay_are_told_and_the_mail_waits(self) -> None:
        """Host, port, password, certificate, TLS: the line says which, and what to set; the mail is in the queue."""
        private, hidden = self.tls(), self.tls(implicit=True)
        login = {"username": "shop", "password": "wrong"}
        for options, words in (
            ({"hostname": "nosuch.invalid"}, "nosuch.invalid"),
            ({"port": 9}, "Connection refused"),
            ({**login, "allow_clear_password": True}, "535 5.7.8 wrong name or password"),
            (login, "allow_clear_password"),
            ({"tls": "required"}, "does not offer STARTTLS"),
            ({**login, "port": private.port}, "name the authority of its certificate with cafile"),
            ({"port": hidden.port, "greeting_timeout": 0.2}, "say tls=implicit"),
        ):
            with self.subTest(options):
                path = os.path.join(self.directory, words[:12])
                said = self.send(path=path, **options)
                self.assertIn(words, said)
                self.assertIn("1 mail waits in", said)
                self.assertTrue(said.endswith("queued"), said)

    def test_about_the_mail_are_refused(self) -> None:
        """Before anything is written, with the value and what to do."""
        for options, words in (
            ({"to": "jane@example.org, jim@example.org"}, "pass several recipients as a list"),
            ({"to": []}, "pass at least one address"),
            ({"to": [None]}, "the recipient is None"),
            ({"to": ["jane@@example.org"]}, "'jane@@example.org' is not an address"),
            ({"message": 5}, "pass str, bytes or an email.message object"),
        ):
            with self.subTest(options), self.assertRaisesRegex(InvalidMail, words):
                self.send(**options)
        self.assertEqual(self.relay.mails, [])

    def test_about_settings_are_refused(self) -> None:
        """A port that is none, an option with a typing error, a relay that nobody knows."""
        for options, kind, words in (
            ({"port": "smtp"}, InvalidRelay, "write a number such as 25"),
            ({"hostname": "mail.example.org:587"}, InvalidRelay, "is no hostname"),
            ({"usrname": "shop"}, TypeError, "did you mean 'username'"),
            ({"tls": "maybe"}, ValueError, "maybe"),
        ):
            with self.subTest(options), self.assertRaisesRegex(kind, words):
                self.send(**options)
        sender = MailSender(os.path.join(self.directory, "y"))
        with self.assertRaisesRegex(TypeError, r"send\(\) has no option 'prioritee'; did you mean 'priority'\?"):
            sender.send("a@example.org", ["b@example.org"], message(), prioritee="low")  # type: ignore[call-arg]  # a mistake
        with self.assertRaisesRegex(InvalidRelay, "there is no mailer 'bulk' for this queue; it has 'default'"):
            MailSender(os.path.join(self.directory, "x")).send("a@example.org", ["b@example.org"], "x", relay="bulk")

    def test_about_the_place_are_refused(self) -> None:
        """A queue that cannot be written, or made."""
        taken = os.path.join(self.directory, "file")
        with open(taken, "w", encoding="utf-8"):
            pass
        for path in (taken, "/proc/mail"):
            with self.subTest(path), self.assertRaisesRegex(QueueError, path):
                self.send(path=path)

    def test_about_the_message_are_told_or_mended(self) -> None:
        """No From; a local name; text beyond ASCII in an address, a header and the body."""
        for options, words in (
            ({"message": message("")}, "sent"),
            ({"to": ["jane"]}, "sent"),
            ({"to": ["jürgen@example.org"]}, "sent"),
            ({"message": "From: a@example.org\nSubject: Grüße\n\nSchön"}, "sent"),
        ):
            with self.subTest(options):
                self.assertTrue(
                    self.send(path=os.path.join(self.directory, str(len(str(options)))), **options).endswith(words)
                )

    def test_about_transactions_are_told(self) -> None:
        """A commit that was forgotten, an explicit manager that has not begun, a queue that no processor drains."""
        mail = ("a@example.org", ["b@example.org"], message())
        with logged() as lines:
            MailWriter(os.path.join(self.directory, "a"), transaction_manager=transaction.manager).send(*mail)
            unended.tell()  # as the end of the program does
        self.assertIn("has neither been committed nor aborted", lines[-1])
        explicit = transaction.TransactionManager(explicit=True)
        with self.assertRaisesRegex(NoTransaction, "begin one first"):
            MailWriter(os.path.join(self.directory, "b"), transaction_manager=explicit).send(*mail)
        with logged() as lines:
            MailWriter(os.path.join(self.directory, "c")).send(*mail)
        self.assertIn("No processor is at work on the queue", lines[-1])


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what is logged."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collector(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


load_tests = in_layer(Processes)
