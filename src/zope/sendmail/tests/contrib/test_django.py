"""Django's mail in its transactions; skipped where Django is not installed (.ci/switch installs it)."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import unittest
from datetime import timedelta
from typing import Any

from zope.sendmail.errors import InvalidMail
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.testing.relay import Relay

MISSING = "" if importlib.util.find_spec("django") else "Django is not installed"


class Fixture(unittest.TestCase):
    """A site of Django with a database of its own, and a queue."""

    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        import django
        from django.conf import settings

        if not settings.configured:
            settings.configure(USE_TZ=True, SECRET_KEY="of tests", ALLOWED_HOSTS=["testserver"])
            django.setup()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.directory, "mail")
        self.relay = self.enterContext(Relay())
        self.databases = self.enterContext(_databases(os.path.join(self.directory, "rows.sqlite")))
        with self.databases["default"].cursor() as cursor:
            cursor.execute("create table orders (name text primary key)")

    def backend(self, **options: Any) -> Any:
        """A backend, as an entry of MAILERS makes it."""
        from zope.sendmail.contrib.django import EmailBackend

        known = {"host": self.relay.host, "port": self.relay.port, "queue_path": self.path, "start": "never"}
        return EmailBackend(alias="default", **{**known, **options})

    def send(self, backend: Any, *recipients: str, subject: str = "Order", **more: Any) -> Any:
        """Send one message, as applications do."""
        message = _message(recipients or ("jane@example.org",), subject, **more)
        self.assertEqual(backend.send_messages([message]), 1)
        return message

    def outbox(self, backend: Any) -> Outbox:
        """What waits in the queue."""
        return Outbox(backend._site.mailer.sender.queue)

    def insert(self, name: str) -> None:
        with self.databases["default"].cursor() as cursor:
            cursor.execute("insert into orders values (%s)", [name])


def _databases(path: str) -> Any:
    """Return a context in which Django has one database, and this only."""
    import contextlib

    from django.db import connections
    from django.db.utils import ConnectionHandler

    @contextlib.contextmanager
    def databases() -> Any:
        mine = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}})
        before = connections.__dict__.copy()
        connections.__dict__.update(mine.__dict__)
        try:
            yield connections
        finally:
            connections.close_all()
            connections.__dict__.clear()
            connections.__dict__.update(before)

    return databases()


def _message(recipients: Any, subject: str, **more: Any) -> Any:
    from django.core.mail import EmailMultiAlternatives

    return EmailMultiAlternatives(subject, "Thank you!", "Shop <shop@example.org>", list(recipients), **more)


class AnAtomicBlock(Fixture):
    def test_sends_when_it_commits(self) -> None:
        """Not before; the relay gets it from the queue."""
        from django.db.transaction import atomic

        backend = self.backend()
        with atomic():
            self.insert("one")
            message = self.send(backend)
            self.outbox(backend).assert_nothing_sent()
        self.assertEqual(self.outbox(backend).assert_sent(to="jane@example.org").message_id, message.message_id)
        backend._site.mailer.sender.reader.send_waiting()
        self.assertEqual([mail.recipients for mail in self.relay.mails], [("jane@example.org",)])
        self.assertEqual(backend.status(message.message_id).standing, "sent")

    def test_sends_nothing_when_it_rolls_back(self) -> None:
        """And leaves nothing behind, then or later."""
        from django.db.transaction import atomic

        backend = self.backend()
        with self.assertRaises(ZeroDivisionError), atomic():
            self.send(backend)
            raise ZeroDivisionError
        with atomic():
            self.insert("one")
        queue = self.outbox(backend).queue
        self.assertEqual((queue.admin.count(), list(queue.admin.mails([State.STAGED]))), ({}, []))

    def test_sends_what_was_sent_around_a_savepoint_that_is_rolled_back(self) -> None:
        """And not what was sent inside."""
        from django.db.transaction import atomic

        backend = self.backend()
        with atomic():
            self.send(backend, subject="before")
            with self.assertRaises(ZeroDivisionError), atomic():
                self.send(backend, subject="inside")
                raise ZeroDivisionError
            with atomic():
                self.send(backend, subject="released")
        self.assertEqual({mail.subject for mail in self.outbox(backend).mails}, {"before", "released"})

    def test_sends_although_a_hook_of_others_fails(self) -> None:
        """The database has committed: that is what mail follows."""
        from django.db import transaction

        backend = self.backend()

        def fail() -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(fail)
            self.send(backend)
        self.outbox(backend).assert_sent()

    def test_takes_all_messages_of_a_call_or_none(self) -> None:
        """One of them cannot be sent."""
        from django.db.transaction import atomic

        backend = self.backend()
        with atomic():
            messages = [_message(["jane@example.org"], "good"), _message(["a@b@c"], "bad")]
            self.assertRaises(InvalidMail, backend.send_messages, messages)
        self.outbox(backend).assert_nothing_sent()

    def test_leaves_out_what_cannot_be_sent_if_it_shall_be_silent(self) -> None:
        """And logs it."""
        from django.db.transaction import atomic

        backend = self.backend(fail_silently=True)
        with self.assertLogs("zope.sendmail.contrib.django", "WARNING") as logged, atomic():
            messages = [_message(["a@b@c"], "bad"), _message(["jane@example.org"], "good")]
            self.assertEqual(backend.send_messages(messages), 1)
        self.assertEqual([mail.subject for mail in self.outbox(backend).mails], ["good"])
        self.assertIn("a@b@c", logged.output[0])


class WithoutATransaction(Fixture):
    def test_mail_is_on_its_way_at_once(self) -> None:
        """With a header of Django's own, and every recipient in the envelope only."""
        backend = self.backend()
        message = self.send(backend, "jane@example.org", cc=["jim@example.org"], bcc=["hidden@example.org"])
        mail = self.outbox(backend).assert_sent(to="hidden@example.org", sender="shop@example.org", text="Thank you!")
        self.assertEqual(mail.recipients, ("jane@example.org", "jim@example.org", "hidden@example.org"))
        self.assertNotIn(b"hidden", mail.data)
        self.assertEqual(mail.message_id, message.message_id)

    def test_text_and_html_and_an_attachment_stay_what_they_are(self) -> None:
        """Also beyond ASCII."""
        backend = self.backend()
        message = _message(["jürgen@example.org"], "Grüße")
        message.attach_alternative("<p>Dank!</p>", "text/html")
        message.attach("Rechnung.txt", "1 €", "text/plain")
        backend.send_messages([message])
        parsed = self.outbox(backend).assert_sent(subject="Grüße").message
        self.assertEqual(parsed.get_body(["html"]).get_content().strip(), "<p>Dank!</p>")  # type: ignore[union-attr] # it is there
        self.assertEqual([part.get_content().strip() for part in parsed.iter_attachments()], ["1 €"])

    def test_a_message_without_recipients_is_no_mail(self) -> None:
        """As with Django's own backend."""
        self.assertEqual(self.backend().send_messages([_message([], "to nobody")]), 0)


class Settings(Fixture):
    def test_are_those_of_django(self) -> None:
        """Of its own backend, in MAILERS."""
        backend = self.backend(
            host="relay.example",
            port=587,
            username="jim",
            password="s",
            use_tls=True,
            timeout=7,
            lifetime=timedelta(days=2),
        )
        sender = backend._site.mailer.sender
        mailer = sender.reader._mailer
        self.assertEqual((mailer.hostname, mailer.port, mailer.username), ("relay.example", 587, "jim"))
        self.assertEqual((mailer.force_tls, mailer.timeout), (True, 7.0))
        self.assertEqual(sender.reader._options["schedule"].lifetime, 172800.0)

    def test_make_one_sender_for_a_process(self) -> None:
        """Django makes a backend for each mail."""
        self.assertIs(self.backend()._site, self.backend()._site)
        self.assertIsNot(self.backend()._site, self.backend(rate=3)._site)

    def test_of_two_relays_with_one_queue_are_refused(self) -> None:
        """Each mail would leave through the one that takes it first; with one relay, a backend says more about mail."""
        from django.core.exceptions import ImproperlyConfigured

        mine = {"start": "request", "username": "shop", "password": "secret-one"}
        self.backend(**mine)
        self.backend(**mine, priority="low")
        self.backend(start="never", port=26)
        for name, value in (("port", 26), ("password", "secret-two"), ("queue_path", f"{self.path}/../mail")):
            options = {**mine, name: value, "host": "relay.example"}
            with self.subTest(name), self.assertRaisesRegex(ImproperlyConfigured, "a queue_path of its own") as caught:
                self.backend(**options)
            self.assertIn("host", str(caught.exception))
            self.assertNotIn("secret-", str(caught.exception))
        self.backend(**{**mine, "host": "relay.example", "queue_path": f"{self.path}-2"})

    def test_that_django_adds_for_itself_are_no_settings(self) -> None:
        """Django 6.1 says ``_ignore_unknown_kwargs`` where an application says ``fail_silently`` beside MAILERS."""
        backend = self.backend(fail_silently=True, _ignore_unknown_kwargs={"fail_silently"})
        self.assertEqual(backend.send_messages([_message(["a@b@c"], "bad")]), 0)
        self.assertIs(backend._site, self.backend()._site)

    def test_that_are_wrong_are_refused_with_their_name(self) -> None:
        """When the first backend is made; a secret is not repeated."""
        from django.core.exceptions import ImproperlyConfigured

        for name, value, text in (
            ("hots", "relay", "unknown: hots"),
            ("port", "smtp", "port"),
            ("queue_path", None, "there is no queue"),
            ("queue_path", "redis://u:secret@h", "a queue cannot be at redis:"),
            ("database", "other", "database: 'other' is not one of DATABASES; write one of default"),
            ("username", "jim", "password"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ImproperlyConfigured, text) as caught:
                self.backend(**{name: value})
            self.assertIn("MAILERS['default']", str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    def test_before_mailers_are_global(self) -> None:
        """``EMAIL_HOST`` and so on, and ours in a dictionary."""
        from django.test import override_settings

        from zope.sendmail.contrib.django import EmailBackend, global_options

        mine = {"QUEUE_PATH": self.path, "START": "never"}
        with override_settings(EMAIL_HOST=self.relay.host, EMAIL_PORT=self.relay.port, ZOPE_SENDMAIL=mine):
            self.assertEqual(global_options()["queue_path"], self.path)
            backend = EmailBackend()
        self.send(backend)
        backend._site.mailer.sender.reader.send_waiting()
        self.assertEqual(len(self.relay.mails), 1)


class ACheck(Fixture):
    """``manage.py check`` sees the settings before any mail is sent."""

    def check(self, mailers: Any = None, **globally: Any) -> list[Any]:
        from django.core.checks import run_checks
        from django.test import override_settings

        import zope.sendmail.contrib.django  # noqa: F401 - as INSTALLED_APPS does it

        backend = "zope.sendmail.contrib.django.EmailBackend"
        if mailers is None:
            changed = {"EMAIL_BACKEND": backend, **globally}
        else:
            changed = {"MAILERS": {name: {"BACKEND": backend, "OPTIONS": each} for name, each in mailers.items()}}
        with override_settings(**changed):
            return [each for each in run_checks(tags=["mail"]) if (each.id or "").startswith("zope_sendmail.")]

    def test_finds_nothing_where_nothing_is_wrong(self) -> None:
        """And makes nothing."""
        self.assertEqual(self.check({"default": {"queue_path": self.path}}), [])
        self.assertEqual(self.check(ZOPE_SENDMAIL={"QUEUE_PATH": self.path}), [])
        self.assertFalse(os.path.exists(self.path))

    def test_tells_each_entry_that_is_wrong(self) -> None:
        """With its name, and what to do."""
        first, second = self.check({"default": {"queue_path": self.path, "port": "smtp"}, "bulk": {}})
        self.assertEqual((first.id, first.level), ("zope_sendmail.E001", 40))
        self.assertEqual(first.msg, "The settings MAILERS['default']: port: 'smtp' is not a whole number.")
        self.assertEqual(first.hint, "Write one such as 5.")
        self.assertEqual(second.msg, "The settings MAILERS['bulk']: there is no queue.")
        [found] = self.check(ZOPE_SENDMAIL={"QUEUE": self.path})
        self.assertIn("EMAIL_... and ZOPE_SENDMAIL: unknown: queue", found.msg)

    def test_tells_of_two_relays_with_one_queue(self) -> None:
        """As the second backend would, when it sends."""
        one = {"queue_path": self.path, "host": "one.example"}
        [found] = self.check({"default": one, "bulk": {**one, "host": "two.example"}})
        self.assertIn("MAILERS['bulk']: queue_path: ", found.msg)

    def test_warns_of_a_file_that_another_user_may_read(self) -> None:
        """``migrate`` and others run checks, perhaps as a user that sends no mail; they are not stopped."""
        [found] = self.check({"default": {"queue_path": self.path, "username": "shop", "password_file": "/none"}})
        self.assertEqual((found.id, found.level), ("zope_sendmail.W001", 30))
        self.assertIn("/none", found.msg)

    def test_leaves_other_backends_alone(self) -> None:
        """Also one that is not there, which Django tells."""
        for name in ("django.core.mail.backends.smtp.EmailBackend", "gone.Backend", "os.path.join"):
            self.assertEqual(self.check(EMAIL_BACKEND=name), [], name)


class AView(Fixture):
    def test_shows_the_console(self) -> None:
        """Below an address of the site, behind its own check; cookies and forms work."""
        from django.http import HttpResponse
        from django.test import RequestFactory

        from zope.sendmail.console import Console
        from zope.sendmail.contrib.django import as_view

        backend = self.backend()
        self.send(backend, subject="Order 7")
        view = as_view(Console({"Shop": self.path}))
        page: HttpResponse = view(RequestFactory().get("/ops/mail/0/mails"), path="0/mails")
        self.assertEqual((page.status_code, page.headers["Cache-Control"]), (200, "no-store"))
        self.assertIn(b'href="/ops/mail/', page.content)
        self.assertEqual(view(RequestFactory().get("/ops/mail/9/"), path="9/").status_code, 404)
