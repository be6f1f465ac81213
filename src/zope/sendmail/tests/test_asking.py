"""What senders ask for, by ``send()`` of a delivery and of a `MailSender`."""

from __future__ import annotations

import glob
import os
import tempfile
import unittest
from datetime import UTC, datetime, timedelta
from typing import Any

import transaction
from transaction.interfaces import TransientError

from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.interfaces import InvalidTerms, KeyInUse
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.terms import Defaults, Priority, Terms
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, SendOnlyMailer
from zope.sendmail.tests.support.layers import Servers, in_layer

MESSAGE = b"From: a@example.org\nSubject: Hello\n\nText\n"
TO = ["one@example.org"]
NOW = 1_800_000_000.0


class WhatIsAskedFor(unittest.TestCase):
    """Words become terms, or are refused before anything is written."""

    def test_is_taken_in_every_form(self) -> None:
        """Times to the second, rounded up; what has passed is now."""
        moment = datetime.fromtimestamp(NOW + 60.5, UTC)
        cases: list[tuple[dict[str, Any], Terms]] = [
            ({}, Terms()),
            ({"not_before": timedelta(minutes=1)}, Terms(NOW + 60)),
            ({"not_before": moment}, Terms(NOW + 61)),
            ({"not_before": moment - timedelta(days=1)}, Terms()),
            ({"not_before": timedelta(seconds=-5)}, Terms()),
            ({"expires": moment}, Terms(expires=NOW + 61)),
            ({"priority": "low"}, Terms(priority=Priority.LOW)),
            ({"priority": Priority.HIGH}, Terms(priority=Priority.HIGH)),
            ({"key": "order 17"}, Terms(key="order 17", key_until=NOW + 7 * 86400)),
        ]
        for asked, terms in cases:
            with self.subTest(asked):
                self.assertEqual(Defaults().terms(NOW, **asked), terms)

    def test_is_refused_with_a_sentence(self) -> None:
        """It names the argument and the value, and says what would be right."""
        naive = datetime.fromtimestamp(NOW + 60, UTC).replace(tzinfo=None)
        cases: list[tuple[dict[str, Any], str]] = [
            ({"not_before": naive}, "says no time zone"),
            ({"expires": naive}, "says no time zone"),
            ({"not_before": 3600}, "neither a datetime.datetime nor a datetime.timedelta"),
            ({"not_before": "tomorrow"}, "neither"),
            ({"not_before": timedelta(days=5000)}, "more than ten years ahead"),
            ({"expires": datetime(9999, 1, 1, tzinfo=UTC)}, "more than ten years ahead"),
            ({"expires": timedelta(0)}, "has passed already"),
            ({"expires": timedelta(hours=1), "not_before": timedelta(hours=1)}, "is not behind not_before"),
            ({"priority": "urgent"}, "is not one of high, normal, low"),
            ({"priority": 1}, "is not one of"),
            ({"key": ""}, "1 to 200"),
            ({"key": "x" * 201}, "1 to 200"),
            ({"key": "a\nb"}, "cannot be printed"),
            ({"key": " a"}, "blanks at its ends"),
            ({"key": 17}, "is no str"),
        ]
        for asked, words in cases:
            with self.subTest(asked), self.assertRaises(InvalidTerms) as caught:
                Defaults().terms(NOW, **asked)
            self.assertIn(words, str(caught.exception))


class QueuedDelivery(unittest.TestCase):
    """A queued delivery in a Maildir."""

    def setUp(self) -> None:
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.delivery = QueuedMailDelivery(self.path)

    def send(self, **asked: Any) -> str:
        """Hand over a mail in the current transaction; return its Message-Id."""
        return self.delivery.send("a@example.org", TO, MESSAGE, **asked)

    def mails(self) -> list[Any]:
        """Return the mails in the queue."""
        return list(self.delivery.queue.admin.mails())

    def test_keeps_what_was_asked_for(self) -> None:
        """In the queue file, whose further lines say it."""
        self.send(not_before=timedelta(hours=1), expires=timedelta(days=1), priority="high", key="order 17")
        transaction.commit()
        [mail] = self.mails()
        terms = mail.envelope.terms
        self.assertEqual((mail.state, terms.priority, terms.key), (State.SCHEDULED, Priority.HIGH, "order 17"))
        [path] = glob.glob(self.path + "/new/*")
        with open(path, "rb") as file:
            names = [line.partition(b":")[0] for line in file.readlines()[:8]]
        self.assertEqual(names[2], b"X-Zope-Not-Before")
        self.assertEqual(names[7], b"X-Zope-Envelope")

    def test_writes_nothing_new_for_mail_that_asks_for_nothing(self) -> None:
        """Two lines and the message, and the name of old."""
        self.send(not_before=None, expires=None, priority="normal", key=None)
        transaction.commit()
        [path] = glob.glob(self.path + "/new/*")
        self.assertNotIn(",", os.path.basename(path))
        with open(path, "rb") as file:
            lines = file.readlines()
        self.assertEqual(lines[:2], [b"X-Zope-From: a@example.org\n", b"X-Zope-To: one@example.org\n"])
        self.assertFalse(lines[2].startswith(b"X-Zope"))

    def test_has_defaults(self) -> None:
        """Where a caller says nothing."""
        hour = timedelta(hours=1)
        self.delivery = QueuedMailDelivery(
            self.path, priority="low", not_before=hour, expires=2 * hour, key_lifetime=hour
        )
        self.send()
        self.send(priority="high", key="x")
        transaction.commit()
        self.assertEqual([mail.envelope.terms.priority for mail in self.mails()], ["low", "high"])
        terms = self.mails()[1].envelope.terms
        self.assertEqual((terms.expires - terms.not_before, terms.key_until - terms.not_before), (3600, 3600))
        wrongs: list[dict[str, Any]] = [{"priority": "x"}, {"expires": 3}, {"expires": -hour}]
        for wrong in [*wrongs, {"key_lifetime": timedelta(0)}]:
            self.assertRaises(InvalidTerms, QueuedMailDelivery, self.path, **wrong)

    def test_returns_the_first_mail_with_the_key(self) -> None:
        """In one transaction, in another one, and without one."""
        first = self.send(key="order 17")
        self.assertEqual(self.send(key="order 17"), first)
        transaction.commit()
        self.assertEqual(self.send(key="order 17"), first)
        self.assertEqual(self.delivery.send_now("a@example.org", TO, MESSAGE, key="order 17"), first)
        transaction.commit()
        self.assertEqual(len(self.mails()), 1)

    def test_frees_the_key_of_a_transaction_that_aborts(self) -> None:
        """And of one that was rolled back to before."""
        first = self.send(key="order 17")
        transaction.abort()
        self.send()
        point = transaction.savepoint()
        self.assertNotEqual(self.send(key="order 17"), first)
        point.rollback()
        third = self.send(key="order 17")
        transaction.commit()
        self.assertEqual(self.mails()[-1].message_id, third)
        self.assertEqual(len(self.mails()), 2)

    def test_lets_a_transaction_that_comes_second_be_tried_again(self) -> None:
        """It is told in a way that what tries transactions again understands."""
        self.send(key="order 17")
        other = transaction.TransactionManager()
        with self.assertRaises(KeyInUse) as caught:
            self.delivery.bind(other).send("a@example.org", TO, MESSAGE, key="order 17")
        self.assertIsInstance(caught.exception, TransientError)
        other.abort()

    def test_has_one_key_for_all_copies(self) -> None:
        """With ``verp`` each recipient has a mail of its own, and all leave or none."""
        both = ["one@example.org", "two@example.org"]
        first = self.delivery.send("a@example.org", both, MESSAGE, verp=True, key="order 17")
        transaction.commit()
        self.assertEqual(self.delivery.send("a@example.org", both, MESSAGE, verp=True, key="order 17"), first)
        transaction.commit()
        self.assertEqual(len(self.mails()), 2)

    def test_remembers_who_was_suppressed(self) -> None:
        """When the mail was handed over."""
        self.delivery.queue.suppressions.add(Suppression.of("ONE@example.org", "gone"))
        self.send()
        transaction.commit()
        self.assertEqual(self.mails()[0].envelope.terms.suppressed, ("one@example.org",))


class OtherWaysIn(unittest.TestCase):
    def test_direct_delivery_refuses_what_it_cannot_do(self) -> None:
        """It sends while the transaction commits."""
        delivery = DirectMailDelivery(SendOnlyMailer())
        cases: list[dict[str, Any]] = [{"not_before": timedelta(1)}, {"expires": timedelta(1)}, {"priority": "low"}]
        for asked in [*cases, {"key": "x"}]:
            with self.assertRaisesRegex(InvalidTerms, f"leave {next(iter(asked))} out"):
                delivery.send("a@example.org", TO, MESSAGE, **asked)
        transaction.abort()

    def test_an_unknown_keyword_is_named(self) -> None:
        """Before anything is written, by every way in."""
        directory = self.enterContext(tempfile.TemporaryDirectory()) + "/queue"
        delivery, writer = QueuedMailDelivery(directory), MailWriter(directory)
        ways = (delivery.send, delivery.send_now, DirectMailDelivery(SendOnlyMailer()).send, writer.send)
        for send in ways:
            with self.subTest(send.__qualname__), self.assertRaisesRegex(TypeError, "'prio'"):
                send("a@example.org", TO, MESSAGE, prio="low")  # type: ignore[call-arg]  # that is the mistake
        transaction.commit()
        self.assertEqual(list(delivery.queue.admin.names()), [])

    def test_senders_and_writers_take_the_same(self) -> None:
        """Into a directory, and into memory."""
        with tempfile.TemporaryDirectory() as directory:
            for sender in (
                MailWriter(directory + "/q", priority="low"),
                MailSender("memory:", mailer=ScriptedMailer(), priority="low"),
            ):
                first = sender.send("a@example.org", TO, MESSAGE, not_before=timedelta(hours=1), key="k")
                self.assertEqual(sender.send("a@example.org", TO, MESSAGE, key="k"), first)
                [mail] = sender.queue.admin.mails()
                self.assertEqual((mail.state, mail.envelope.terms.priority), (State.SCHEDULED, "low"))
                self.assertRaises(InvalidTerms, sender.send, "a@example.org", TO, MESSAGE, key="")
                if isinstance(sender, MailSender):
                    sender.stop()


class ARelayThatRefusesRecipients(unittest.TestCase):
    """Whom it says does not exist gets no mail any more, if that is wanted."""

    def setUp(self) -> None:
        self.relay = self.enterContext(Relay())
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def suppressed_after(self, *, choice: bool = True) -> list[str]:
        """Send a mail; return who is on the list then."""
        sender = MailSender(self.path, self.relay.host, self.relay.port, suppress_refused=choice)
        sender.writer.send("a@example.org", ["one@example.org", "two@example.org"], MESSAGE)
        sender.reader.send_waiting()
        return [entry.address for entry in sender.queue.suppressions.entries()]

    def test_fills_the_list_by_choice(self) -> None:
        """With its words; a mailbox is unknown, or disabled, in code or in words."""
        for reply in ("550 5.1.1 nobody here", "550 no such user", "550 5.2.1 disabled"):
            with self.subTest(reply):
                self.relay.on("RCPT", reply, about="two@")
                self.assertEqual(self.suppressed_after(choice=False), [])
                self.assertEqual(self.suppressed_after(), ["two@example.org"])
                QueuedMailDelivery(self.path).queue.suppressions.remove("two@example.org")
                self.relay.forgive()

    def test_fills_nothing_by_what_is_about_the_mail_or_us(self) -> None:
        """A refusal of the message, of the client, of relaying; a full mailbox; anything for a time."""
        for point, reply in (
            ("DOT", "550 5.1.1 no such user"),
            ("DATA", "550 no such user"),
            ("MAIL", "550 5.1.1 no such user"),
            ("RCPT", "554 5.7.1 relay access denied"),
            ("RCPT", "550 5.7.1 client host blocked"),
            ("RCPT", "550 rejected"),
            ("RCPT", "552 5.2.2 mailbox full"),
            ("RCPT", "450 4.1.1 unknown user, perhaps"),
        ):
            with self.subTest(f"{point} {reply}"):
                self.relay.on(point, reply)
                self.assertEqual(self.suppressed_after(), [])
                self.relay.forgive()

    def test_is_not_asked_about_them_again(self) -> None:
        """The next mail for such a recipient is rejected without it."""
        self.relay.on("RCPT", "550 5.1.1 nobody here", about="two@")
        self.suppressed_after()
        self.suppressed_after()
        asked = [command for command in self.relay.commands if "two@" in command]
        self.assertEqual(len(asked), 1)
        mails = list(QueuedMailDelivery(self.path).queue.admin.mails([State.REJECTED]))
        self.assertIn("on the suppression list: 550 5.1.1 nobody here", str(mails[1].history[-1].replies))


load_tests = in_layer(Servers)
