"""What senders ask for, in each queue and by each way in: kept, shown to operators, and done at the relay."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

import transaction
from zope.event import subscribers

from zope.sendmail.cli import app
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import InvalidMail
from zope.sendmail.interfaces import IMailHandOverEvent
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.unsubscribe import UnsubscribeLinks
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.sender import MailReader, MailSender, MailWriter
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.dkimverifier import verified
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server
from zope.sendmail.tests.transports.test_dkim import RSA, Fixture as Keys
from zope.sendmail.transports.dkim import DKIMSigner

MESSAGE = "From: shop@example.org\nTo: jane@example.com\nSubject: Order\nMessage-Id: <%d@example.org>\n\nThank you!\n"
SENDER, JANE, GONE = "shop@example.org", "jane@example.com", "gone@example.com"
#: Whole seconds: so they come out as they went in.
SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
LATE = SOON + timedelta(days=1)
ASKED: dict[str, Any] = {"not_before": SOON, "expires": LATE, "priority": "low"}


class InAMaildir(Keys):
    """Each test hands a mail over by each way in."""

    #: Whether a program of its own can look into the queue.
    is_shared = True

    def make_location(self) -> str:
        """Return where the queue is."""
        return os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.location = self.make_location()
        self.queue: Any = MemoryQueue() if self.location == "memory:" else open_queue(self.location)
        self.addCleanup(self.queue.close)
        self.delivery = self.make_delivery()
        self.numbers = iter(range(1, 100))

    def make_delivery(self, **asked: Any) -> QueuedMailDelivery:
        """Return a delivery into the queue with these defaults."""
        delivery = QueuedMailDelivery(self.location, **asked)
        delivery.use(self.queue)
        return delivery

    def ways(self) -> dict[str, Any]:
        """Return functions that hand a mail over and commit it, by name."""

        def committed(*arguments: Any, **asked: Any) -> Any:
            found = self.delivery.send(*arguments, **asked)
            transaction.commit()
            return found

        found = {
            "send": committed,
            "send_now": self.delivery.send_now,
            "MailWriter": MailWriter(self.location, queue=self.queue).send,
        }
        if self.is_shared:  # its memory would be that of the whole process
            found["MailSender"] = MailSender(self.location, mailer=SMTPMailer()).writer.send
        return found

    def hand_over(self, way: str, to: list[str] | None = None, **asked: Any) -> Any:
        return self.ways()[way](SENDER, to or [JANE], MESSAGE % next(self.numbers), **asked)

    def drain(self, mailer: Any) -> None:
        MailReader(self.location, queue=self.queue, mailer=mailer).send_waiting()

    def test_terms_are_kept(self) -> None:
        """Times, priority and key; a second mail with the key is the first."""
        for way in self.ways():
            with self.subTest(way):
                first = self.hand_over(way, key=f"key of {way}", **ASKED)
                self.assertEqual(self.hand_over(way, key=f"key of {way}"), first)
                [mail] = [mail for mail in self.queue.admin.mails() if mail.message_id == first]
                terms = mail.envelope.terms
                self.assertEqual((terms.not_before, terms.expires), (SOON.timestamp(), LATE.timestamp()))
                self.assertEqual((terms.priority, terms.key, mail.state), ("low", f"key of {way}", State.SCHEDULED))

    def test_defaults_are_taken(self) -> None:
        """Those of a delivery and of a sender, where a call says nothing."""
        asked: dict[str, Any] = {"not_before": timedelta(hours=1), "expires": timedelta(hours=2), "priority": "low"}
        self.delivery = self.make_delivery(**asked)
        self.hand_over("send")
        MailWriter(self.location, queue=self.queue, **asked).send(SENDER, [JANE], MESSAGE % 50)
        for mail in self.queue.admin.mails():
            self.assertEqual((mail.envelope.terms.priority, mail.state), ("low", State.SCHEDULED))
            self.assertEqual(mail.envelope.terms.expires - mail.envelope.terms.not_before, 3600.0)

    def test_operators_see_it(self) -> None:
        """``queue list``, ``queue show`` and the console."""
        if not self.is_shared:
            self.skipTest("no other program can look into it")
        from werkzeug.test import Client

        from zope.sendmail.console import Console

        self.hand_over("send", key="order 17", **ASKED)
        [mail] = self.queue.admin.mails()
        moments = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (SOON, LATE)]
        self.assertIn(f"expires {moments[1]}, priority low, key order 17", self.said("list"))
        shown = " ".join(self.said("show", mail.name).split())
        for words in ("scheduled", f"not before {moments[0]}", f"expires {moments[1]}", "priority low", "key order 17"):
            self.assertIn(words, shown)
        page = Client(Console([self.location])).get(f"/0/mail/{mail.name}").text
        for words in ("scheduled", *moments, "low", "order 17"):
            self.assertIn(words, page)

    def said(self, verb: str, *arguments: str) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), self.assertRaises(SystemExit) as caught:
            raise SystemExit(app.main(["queue", verb, self.location, *arguments]))
        self.assertIn(caught.exception.code, (0, None), output.getvalue())
        return output.getvalue()

    def test_a_suppressed_recipient_gets_no_mail(self) -> None:
        """On the list before the hand-over, or after it; the others get theirs."""
        self.queue.suppressions.add(Suppression.of(GONE, "asked for it"))
        for way in self.ways():
            self.hand_over(way, [JANE, GONE, "later@example.com"])
        self.queue.suppressions.add(Suppression.of("later@example.com", "bounced"))
        with Relay() as relay:
            self.drain(SMTPMailer(relay.host, relay.port))
            self.assertEqual([mail.recipients for mail in relay.mails], [(JANE,)] * len(self.ways()))
        for mail in self.queue.admin.mails():
            replies = self.queue.admin.show(mail.name).history[-1].replies
            self.assertIn("asked for it", replies[GONE].text)
            self.assertIn("bounced", replies["later@example.com"].text)

    def test_hooks_refuse_and_redirect(self) -> None:
        """In the call, before anything is written."""

        def hook(event: Any) -> None:
            if IMailHandOverEvent.providedBy(event):
                if "refused@example.com" in event.recipients:
                    raise InvalidMail("no mail to this one")
                event.recipients = ["redirected@example.com"]

        subscribers.append(hook)
        self.addCleanup(subscribers.remove, hook)
        for way in self.ways():
            with self.subTest(way):
                self.assertRaises(InvalidMail, self.hand_over, way, ["refused@example.com"])
                transaction.abort()
                self.hand_over(way)
        recipients = [mail.envelope.recipients for mail in self.queue.admin.mails()]
        self.assertEqual(recipients, [("redirected@example.com",)] * len(self.ways()))

    def test_a_newsletter_arrives_signed_with_its_link(self) -> None:
        """DKIM covers ``List-Unsubscribe``, whichever way the mail came in."""
        links = UnsubscribeLinks("https://example.org/unsubscribe", b"sixteen octets and more")
        fields = "".join(f"{name}: {value}\n" for name, value in links.fields(JANE, "news").items())
        for way in self.ways():
            self.ways()[way](SENDER, [JANE], fields + MESSAGE % next(self.numbers), priority="low")
        with Relay() as relay:
            self.drain(DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key("rsa")]))
            self.assertEqual(len(relay.mails), len(self.ways()))
            for mail in relay.mails:
                self.assertEqual(verified(mail.data, {"rsa._domainkey.example.org": RSA.public_key()}), [
                    "example.org rsa-sha256"
                ])  # fmt: skip
                self.assertIn(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click", mail.data)
                self.assertRegex(mail.data.lower(), rb"h=[^;]*list-unsubscribe[^;]*;")


class InASpool(InAMaildir):
    """Its mail of ours."""

    def make_location(self) -> str:
        return f"spool:{self.enterContext(tempfile.TemporaryDirectory())}/spool"


class InMemory(InAMaildir):
    """Of one process."""

    is_shared = False

    def make_location(self) -> str:
        return "memory:"


class InPostgreSQL(InAMaildir):
    """In a database; skipped without."""

    def make_location(self) -> str:
        return str(shared_server().url())


load_tests = in_layer(Databases)
