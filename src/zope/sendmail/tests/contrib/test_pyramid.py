"""Pyramid applications, called as by a WSGI server; skipped where Pyramid is not installed (.ci/switch installs it)."""

from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import transaction
from zope.component import getGlobalSiteManager, getUtility, provideUtility

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.interfaces import IMailDelivery, InvalidAddress
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.relay import Relay

try:
    from pyramid.config import Configurator
    from pyramid.exceptions import ConfigurationError
    from webtest import TestApp

    from zope.sendmail.contrib.pyramid import SiteMailer, site_mailer
except ImportError as error:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = f"Pyramid and WebTest are not installed: {error}"
else:
    MISSING = ""

MAIL = ("shop@example.org", ["jane@example.org"], "Subject: Order\n\nThank you!\n")
#: How pyramid_tm may be told where transactions come from; the second is what Pyramid's own templates say.
MANAGERS: tuple[dict[str, str], ...] = ({}, {"tm.manager_hook": "pyramid_tm.explicit_manager"})


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail")
        self.relay = self.enterContext(Relay())
        self.addCleanup(transaction.abort)

    def settings(self, **more: Any) -> dict[str, Any]:
        settings = {"mail.host": self.relay.host, "mail.port": str(self.relay.port), "mail.queue_path": self.path}
        return settings | more

    def application(self, view: Callable[[Any], object], *includes: str, **more: Any) -> TestApp:
        """An application with one view, whose answer is a text."""
        config = Configurator(settings=self.settings(**more))
        for each in (*includes, "zope.sendmail.contrib.pyramid"):
            config.include(each)
        config.add_route("order", "/order")
        config.add_view(view, route_name="order", renderer="string")
        self.mailer: SiteMailer = site_mailer(config.registry)
        self.addCleanup(self.mailer.sender.stop)
        return TestApp(config.make_wsgi_app())

    def finish(self) -> list[tuple[str, ...]]:
        """Who has got mail when all is sent that is due."""
        self.assertTrue(self.mailer.sender.finish())
        return [mail.recipients for mail in self.relay.mails]


class ARequest(Fixture):
    def test_that_succeeds_sends(self) -> None:
        """With any manager of pyramid_tm."""
        for count, manager in enumerate(MANAGERS, 1):
            with self.subTest(manager):
                application = self.application(lambda request: request.mailer.send(*MAIL), "pyramid_tm", **manager)
                message_id = application.get("/order").text
                self.assertEqual(self.finish(), [("jane@example.org",)] * count)
                self.assertEqual(self.mailer.sender.status(message_id).standing, "sent")

    def test_that_fails_sends_nothing_then_or_later(self) -> None:
        """Not with a later commit of the thread either."""

        def view(request: Any) -> str:
            request.mailer.send(*MAIL)
            if request.params:
                raise ZeroDivisionError
            return "done"

        for count, manager in enumerate(MANAGERS, 1):
            with self.subTest(manager):
                application = self.application(view, "pyramid_tm", **manager)
                with self.assertRaises(ZeroDivisionError):
                    application.get("/order?fail=yes")
                transaction.commit()
                self.assertEqual(sum(self.mailer.sender.queue.admin.count().values()), 0)
                application.get("/order")
                self.assertEqual(self.finish(), [("jane@example.org",)] * count)

    def test_that_is_vetoed_sends_nothing(self) -> None:
        """An error page is no order."""

        def view(request: Any) -> str:
            request.mailer.send(*MAIL)
            request.response.status = 500
            return "sorry"

        application = self.application(view, "pyramid_tm", **{"tm.commit_veto": "pyramid_tm.default_commit_veto"})
        application.get("/order", status=500)
        self.assertEqual(self.finish(), [])

    def test_without_transactions_has_its_mail_in_the_queue_at_once(self) -> None:
        """There is nothing that it could follow; also where the request fails afterwards."""

        def view(request: Any) -> object:
            request.mailer.send(*MAIL)
            raise ZeroDivisionError

        application = self.application(view)
        with self.assertRaises(ZeroDivisionError):
            application.get("/order")
        self.assertEqual(self.finish(), [("jane@example.org",)])

    def test_has_one_mailer(self) -> None:
        """Its mails are one group in its transaction."""
        application = self.application(lambda request: request.mailer is request.mailer, "pyramid_tm")
        self.assertEqual(application.get("/order").text, "True")

    def test_may_leave_the_sender_to_the_settings(self) -> None:
        """None is the default sender; without one it is refused, and the text says what to set."""

        def view(request: Any) -> str:
            sent: str = request.mailer.send(None, *MAIL[1:])
            return sent

        self.application(view, **{"mail.default_sender": "Shop <info@example.org>"}).get("/order")
        self.finish()
        self.assertEqual([mail.sender for mail in self.relay.mails], ["info@example.org"])
        with self.assertRaisesRegex(InvalidAddress, r"set mail\.default_sender"):
            self.application(view).get("/order")

    def test_may_ask_what_became_of_a_mail(self) -> None:
        """`status` and `queue` are those of the sender."""

        def view(request: Any) -> str:
            return str(request.mailer.status(request.mailer.send(*MAIL)).standing)

        application = self.application(view, **{"mail.start": "never"})
        self.assertEqual(application.get("/order").text, "queued")


class TheThreadThatSends(Fixture):
    def test_is_started_by_the_first_request(self) -> None:
        """Scripts that only make the application send nothing of what waits; a server sends it."""
        self.application(lambda request: "x").get("/order")
        self.mailer.sender.stop()
        self.mailer.sender.writer.send(*MAIL)
        application = self.application(lambda request: "x")
        self.assertFalse(self.mailer.sender.running())
        application.get("/order")
        self.assertTrue(self.mailer.sender.running())
        self.assertEqual(self.finish(), [("jane@example.org",)])

    def test_may_be_another_process(self) -> None:
        """``mail.start = never``, and ``ZOPE_SENDMAIL_START=never`` in the environment."""
        for never in ("setting", "environment"):
            with self.subTest(never):
                if never == "environment":
                    os.environ["ZOPE_SENDMAIL_START"] = "never"
                    self.addCleanup(os.environ.pop, "ZOPE_SENDMAIL_START")
                more = {"mail.start": "never"} if never == "setting" else {}
                self.application(lambda request: request.mailer.send(*MAIL), "pyramid_tm", **more).get("/order")
                self.assertFalse(self.mailer.sender.running())
        self.assertEqual(self.mailer.sender.queue.admin.count(), {State.READY: 2})

    def test_has_all_in_memory_if_so_told(self) -> None:
        """For tests of applications."""
        more = {"mail.queue_path": "memory:"}
        self.application(lambda request: request.mailer.send(*MAIL), "pyramid_tm", **more).get("/order")
        self.assertEqual(self.finish(), [("jane@example.org",)])


class AMessageOfPyramidMailer(Fixture):
    def test_is_taken_as_it_is(self) -> None:
        """With its sender, all its recipients, and its attachments; the default sender fills in."""
        if find_spec("pyramid_mailer") is None:
            self.skipTest("pyramid_mailer is not installed")
        from pyramid_mailer.message import Attachment, Message

        def view(request: Any) -> str:
            message = Message(
                subject="Order",
                sender=request.params.get("sender"),
                recipients=["jane@example.org"],
                cc=["jim@example.org"],
                bcc=["hidden@example.org"],
                body="Thank you!",
                attachments=[Attachment("invoice.pdf", "application/pdf", b"%PDF")],
            )
            return str(request.mailer.send(message))

        application = self.application(view, "pyramid_tm", **{"mail.default_sender": "info@example.org"})
        for sender, expected in (("shop@example.org", "shop@example.org"), ("", "info@example.org")):
            application.get("/order", {"sender": sender} if sender else {})
            self.finish()
            mail = self.relay.mails[-1]
            self.assertEqual((mail.sender, len(mail.recipients)), (expected, 3))
            self.assertIn(b"invoice.pdf", mail.data)
            self.assertNotIn(b"hidden@example.org", mail.data)


class Settings(Fixture):
    def mailer_of(self, **more: Any) -> Any:
        self.application(lambda request: "", **more)
        return self.mailer.sender.reader._mailer

    def test_have_the_names_of_pyramid_mailer(self) -> None:
        """Texts, as in an ini file, and what tests pass."""
        for port, yes in (("2525", "true"), (2525, True)):
            mailer = self.mailer_of(
                **{
                    "mail.host": "relay.example",
                    "mail.port": port,
                    "mail.username": "jim",
                    "mail.password": "s",
                    "mail.tls": yes,
                    "mail.certfile": "c.pem",
                    "mail.keyfile": "k.pem",
                }
            )
            settings = mailer.relay_settings()
            self.assertEqual((mailer.hostname, mailer.port, mailer.username), ("relay.example", 2525, "jim"))
            self.assertEqual((settings.tls, settings.certfile, settings.keyfile), ("required", "c.pem", "k.pem"))
        self.assertEqual(self.mailer_of(**{"mail.ssl": "true", "mail.tls": "true"}).relay_settings().tls, "implicit")
        self.assertEqual(self.mailer_of(**{"mail.tls": "false"}).relay_settings().tls, "opportunistic")

    def test_may_be_all_that_the_package_knows(self) -> None:
        """About the relay, and about the queue."""
        mailer = self.mailer_of(**{"mail.tls": "never", "mail.rate": "2", "mail.first_retry": "10m"})
        self.assertEqual(mailer.relay_settings().tls, "never")
        self.assertEqual(self.mailer.sender.reader._options["schedule"].first, 600.0)

    def test_of_others_do_not_matter(self) -> None:
        """The prefix can be chosen."""
        more = {"zope.sendmail.prefix": "post.", "post.queue_path": self.path, "mail.colour": "blue"}
        self.mailer_of(**more)
        self.assertEqual(self.mailer.sender.queue.location, self.path)

    def test_are_refused_with_the_cure(self) -> None:
        """When the application is made, not with the first mail."""
        for name, value, text in (
            ("mail.hots", "x", "unknown: hots; did you mean .*host.*known are: .*host"),
            ("mail.port", "smtp", "port"),
            ("mail.queue_path", None, "there is no queue; write mail.queue_path ="),
            ("mail.queue_path", "redis://u:secret@h", "a queue cannot be at redis:"),
            ("mail.debug", "1", "debug is not known here; instead: a FileMailer"),
            ("mail.username", "jim", "password"),
            ("mail.default_sender", "a\nb", "default_sender"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ConfigurationError, text) as caught:
                self.application(lambda request: "", **{name: value})
            self.assertNotIn("secret", str(caught.exception))


class ADeliveryOfZCML(Fixture):
    def test_can_be_bound_to_the_request_as_well(self) -> None:
        """``getUtility(IMailDelivery).bind(request.tm)``: queued with an explicit manager."""
        provideUtility(QueuedMailDelivery(self.path), IMailDelivery)
        self.addCleanup(getGlobalSiteManager().unregisterUtility, provided=IMailDelivery)
        application = self.application(
            lambda request: getUtility(IMailDelivery).bind(request.tm).send(*MAIL), "pyramid_tm", **MANAGERS[1]
        )
        application.get("/order")
        self.assertEqual(self.finish(), [("jane@example.org",)])


if __name__ == "__main__":
    unittest.main()
