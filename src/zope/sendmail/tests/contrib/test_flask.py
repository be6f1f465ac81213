"""Flask's extension; skipped where Flask is not installed (.ci/switch installs it)."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import unittest
from datetime import timedelta
from typing import Any

from zope.sendmail.errors import InvalidAddress
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.relay import Relay

MISSING = "" if importlib.util.find_spec("flask") else "Flask is not installed"
MAIL = ("shop@example.org", ["jane@example.org"], "Subject: Order\n\nThank you!\n")


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail")
        self.relay = self.enterContext(Relay())

    def application(self, **settings: Any) -> Any:
        """An application that sends one mail for a POST, and its extension."""
        from flask import Flask

        from zope.sendmail.contrib.flask import Mail

        app = Flask("shop")
        known = {"MAIL_SERVER": self.relay.host, "MAIL_PORT": self.relay.port, "MAIL_QUEUE_PATH": self.path}
        app.config.update({**known, **settings})
        mail = Mail(app)
        app.add_url_rule("/", "look", lambda: "", methods=["GET"])
        app.add_url_rule("/", "order", lambda: mail.send(*MAIL), methods=["POST"])
        self.enterContext(app.app_context())
        self.addCleanup(mail.site.sender.stop)
        return app, mail


class AnApplication(Fixture):
    def test_sends(self) -> None:
        """By its own thread; `status` says what became of the mail."""
        app, mail = self.application()
        identifier = app.test_client().post("/").text
        self.assertTrue(mail.site.sender.finish())
        self.assertEqual([mail.recipients for mail in self.relay.mails], [("jane@example.org",)])
        self.assertEqual(mail.status(identifier).standing, "sent")

    def test_sends_with_the_first_request_what_waits(self) -> None:
        """Of an earlier run; not when it is only made, as its commands do."""
        app, mail = self.application()
        mail.site.sender.writer.send(*MAIL)
        self.assertFalse(mail.site.sender.running())
        app.test_client().get("/")
        self.assertTrue(mail.site.sender.running())

    def test_leaves_it_to_another_process_if_so_told(self) -> None:
        """``MAIL_START = "never"``."""
        app, mail = self.application(MAIL_START="never")
        app.test_client().post("/")
        self.assertFalse(mail.site.sender.running())
        self.assertEqual(mail.site.sender.queue.admin.count(), {State.READY: 1})

    def test_sends_nothing_in_a_test(self) -> None:
        """``TESTING``: it is in the outbox, and no directory is made."""
        app, mail = self.application(TESTING=True)
        app.test_client().post("/")
        mail.outbox.assert_sent(to="jane@example.org", subject="Order")
        self.assertFalse(os.path.exists(self.path))
        self.assertFalse(mail.site.sender.running())

    def test_sends_in_a_test_if_it_shall(self) -> None:
        """``MAIL_SUPPRESS_SEND = False``."""
        app, mail = self.application(TESTING=True, MAIL_SUPPRESS_SEND=False)
        app.test_client().post("/")
        self.assertTrue(mail.site.sender.finish())
        self.assertEqual(len(self.relay.mails), 1)

    def test_has_a_default_sender(self) -> None:
        """A text, or a name and an address; without one, the error says what to set."""
        for sender in ("Shop <info@example.org>", ("Shop", "info@example.org")):
            _, mail = self.application(TESTING=True, MAIL_DEFAULT_SENDER=sender)
            mail.send(None, *MAIL[1:])
            self.assertEqual(mail.outbox.assert_sent().sender, "info@example.org")
        _, mail = self.application()
        with self.assertRaisesRegex(InvalidAddress, "set MAIL_DEFAULT_SENDER"):
            mail.send(None, *MAIL[1:])

    def test_without_mail_says_what_is_missing(self) -> None:
        """`init_app` was not called."""
        from flask import Flask

        from zope.sendmail.contrib.flask import Mail

        with Flask("other").app_context(), self.assertRaisesRegex(RuntimeError, r"call Mail\.init_app"):
            Mail().send(*MAIL)


class Settings(Fixture):
    def test_have_the_names_of_flask_mail(self) -> None:
        """And ours besides, as values or texts."""
        settings = {"MAIL_SERVER": "relay.example", "MAIL_PORT": 465, "MAIL_USE_SSL": True, "MAIL_USE_TLS": False}
        settings |= {"MAIL_USERNAME": "jim", "MAIL_PASSWORD": "s", "MAIL_LIFETIME": timedelta(days=2)}
        _, mail = self.application(**settings)
        reader = mail.site.sender.reader
        self.assertEqual((reader._mailer.hostname, reader._mailer.port), ("relay.example", 465))
        self.assertEqual((reader._mailer.implicit_tls, reader._options["schedule"].lifetime), (True, 172800.0))

    def test_that_are_wrong_are_refused_with_their_name(self) -> None:
        """When the application is made; a secret is not repeated."""
        for name, value, text in (
            ("MAIL_SEVRER", "relay", "unknown: sevrer"),
            ("MAIL_PORT", "smtp", "port"),
            ("MAIL_QUEUE_PATH", None, "write MAIL_QUEUE_PATH ="),
            ("MAIL_QUEUE_PATH", "redis://u:secret@h", "a queue cannot be at redis:"),
            ("MAIL_MAX_EMAILS", 5, "MAIL_MAX_EMAILS is not known here; instead: MAIL_MAILS_PER_CONNECTION"),
            ("MAIL_USERNAME", "jim", "password"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ValueError, text) as caught:
                self.application(**{name: value})
            self.assertNotIn("secret", str(caught.exception))
