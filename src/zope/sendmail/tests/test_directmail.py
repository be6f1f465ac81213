"""Direct delivery: what stops a commit, what leaves after it, and what a queue takes."""

from __future__ import annotations

import errno
import smtplib
import tempfile
from typing import Any
from unittest import mock

import transaction
from zope.component import getGlobalSiteManager
from zope.component.testing import PlacelessSetup

from zope.sendmail.datamanager import MailDataManager
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.errors import InvalidSettings, QueueError, RelayError
from zope.sendmail.events import MailDeferredEvent, MailErrorEvent, MailEvent, MailSentEvent
from zope.sendmail.interfaces import IMailDelivery, MailRefused
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue
from zope.sendmail.reporting import notifier
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.relay import Action, Drop, Hang, Relay
from zope.sendmail.testing.relayscript import Script
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.conversation import TIMEOUTS, Conversation
from zope.sendmail.tests.support.subscribing import hear
from zope.sendmail.transports.failover import BalancedMailer

#: How relays say that they want no more mail over a connection.
FAREWELLS: tuple[Action, ...] = (
    "452 4.5.3 too many mails", "421 4.7.0 enough", "451 4.4.5 too many messages", Drop(),
)  # fmt: skip

SENDER = "sender@example.org"
MESSAGE = b"From: sender@example.org\nSubject: x\n\nx\n"


class Direct(PlacelessSetup, Conversation):  # type: ignore[misc]  # it says nothing about its types
    """A relay, and what was told about mail."""

    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.relay = self.start()
        self.events: list[MailEvent] = hear(self, MailEvent)

    def told(self) -> list[tuple[type, str]]:
        """Kind and recipient of each event so far."""
        notifier.flush(60)
        return [(type(event), who) for event in self.events for who in event.replies]

    def mailer(self, **options: Any) -> SMTPMailer:
        """A mailer for the relay, with time for a loaded machine."""
        return SMTPMailer(self.relay.host, self.relay.port, timeouts=options.pop("timeouts", TIMEOUTS), **options)

    def got(self) -> list[str]:
        """Who got mail, in order."""
        return [who for mail in self.relay.mails for who in mail.recipients]


class ARecipientIsRefused(Direct):
    """The relay does not know one, or wants to see another one again later."""

    def setUp(self) -> None:
        super().setUp()
        self.relay.on("RCPT", "550 5.1.1 no such user", about="unknown@")
        self.relay.on("RCPT", "450 4.2.0 greylisted", about="grey@")

    def test_the_transaction_stands_and_the_others_are_served(self) -> None:
        """Refusals are told by log and event, as the old contract has it."""
        for who in ("one@example.org", "unknown@example.org", "grey@example.org", "two@example.org"):
            DirectMailDelivery(self.mailer()).send(SENDER, [who], MESSAGE)
        with self.assertLogs("MailDataManager", "ERROR") as logs:
            transaction.commit()
        self.assertEqual(self.got(), ["one@example.org", "two@example.org"])
        self.assertEqual(
            [line for line in logs.output if "unknown@example.org" in line and "5.1.1" in line], logs.output[:1]
        )
        self.assertIn("grey@example.org", logs.output[1])
        self.assertEqual(
            self.told(),
            [
                (MailSentEvent, "one@example.org"),
                (MailErrorEvent, "unknown@example.org"),
                (MailErrorEvent, "grey@example.org"),
                (MailSentEvent, "two@example.org"),
            ],
        )

    def test_one_of_several_recipients_does_not_keep_the_others(self) -> None:
        """Within one mail as well."""
        DirectMailDelivery(self.mailer()).send(SENDER, ["unknown@example.org", "one@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.got(), ["one@example.org"])

    def test_it_aborts_where_that_is_wanted(self) -> None:
        """``onRefused="abort"`` asks about everybody in the vote; the error is one that callers catch."""
        for who in ("one@example.org", "unknown@example.org"):
            DirectMailDelivery(self.mailer(), onRefused="abort").send(SENDER, [who], MESSAGE)
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            transaction.commit()
        self.assertIsInstance(caught.exception, MailRefused)
        self.assertEqual(caught.exception.recipients, {"unknown@example.org": (550, b"5.1.1 no such user")})
        transaction.abort()
        self.assertEqual(self.got(), [])

    def test_a_sender_that_is_refused_is_told_likewise(self) -> None:
        """The answer to MAIL counts for every recipient."""
        self.relay.on("MAIL", "550 5.7.1 not from there")
        DirectMailDelivery(self.mailer()).send(SENDER, ["one@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.told(), [(MailErrorEvent, "one@example.org")])

    def test_classes_around_ours_vote_about_the_relay_only(self) -> None:
        """A ``vote`` that calls ours, by inheritance or by delegation, made a connection in 7.3 and asked no more."""

        class Logging(SMTPMailer):
            def vote(self, *arguments: Any) -> None:
                super().vote(*arguments)

        class Wrapping:
            def __init__(self, mailer: SMTPMailer) -> None:
                self.vote, self.send, self.abort = mailer.vote, mailer.send, mailer.abort

        for mailer in (Logging(self.relay.host, self.relay.port, timeouts=TIMEOUTS), Wrapping(self.mailer())):
            before = len(self.got())
            for who in ("one@example.org", "unknown@example.org", "grey@example.org"):
                DirectMailDelivery(mailer).send(SENDER, [who], MESSAGE)
            transaction.commit()
            self.assertEqual(self.got()[before:], ["one@example.org"])
            DirectMailDelivery(mailer, onRefused="abort").send(SENDER, ["unknown@example.org"], MESSAGE)
            self.assertRaises(smtplib.SMTPRecipientsRefused, transaction.commit)
            transaction.abort()

    def test_data_managers_of_old_do_likewise(self) -> None:
        """A subclass that makes them itself hands our mailer's vote to them."""

        class OfOld(DirectMailDelivery):
            def createDataManager(self, fromaddr: str, toaddrs: Any, message: bytes) -> MailDataManager:
                arguments = (fromaddr, toaddrs, message)
                return MailDataManager(self.mailer.send, arguments, vote=self.mailer.vote, onAbort=self.mailer.abort)

        OfOld(self.mailer()).send(SENDER, ["unknown@example.org"], MESSAGE)
        OfOld(self.mailer()).send(SENDER, ["one@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.got(), ["one@example.org"])

    def test_another_word_than_these_two_is_refused(self) -> None:
        """When the delivery is made."""
        self.assertRaises(InvalidSettings, DirectMailDelivery, self.mailer(), onRefused="perhaps")


class TheRelayCannotBeUsed(Direct):
    """Before anything was said about a mail."""

    def test_it_stops_the_vote(self) -> None:
        """No connection, no login, no greeting: the error is a `RelayError`, and nothing is sent."""
        closed = Relay()
        closed.start()
        closed.stop()
        for mailer in (
            SMTPMailer(closed.host, closed.port),
            self.mailer(force_tls=True),
            self.mailer(username="me", password="wrong", allow_clear_password=True),
        ):
            DirectMailDelivery(mailer).send(SENDER, ["one@example.org"], MESSAGE)
            self.assertRaises(RelayError, transaction.commit)
            transaction.abort()
        self.assertEqual(self.got(), [])

    def test_an_editor_does_not_wait_for_long(self) -> None:
        """The greeting has its own short time in direct delivery."""
        self.relay.on("GREETING", Hang())
        mailer = SMTPMailer(self.relay.host, self.relay.port, greeting_timeout=0.05)
        DirectMailDelivery(mailer).send(SENDER, ["one@example.org"], MESSAGE)
        self.assertRaises(RelayError, transaction.commit)

    def test_the_vote_says_nothing_about_a_mail(self) -> None:
        """Connection and login only: no recipient is asked about twice, and no limit of commands is used up."""
        DirectMailDelivery(self.mailer()).send(SENDER, ["one@example.org"], MESSAGE)
        transaction.commit()
        self.assertNotIn("RSET", self.relay.verbs())
        self.assertEqual(self.relay.verbs().count("RCPT"), 1)


class TwoMails(Script):
    """A relay that has had enough after two mails over one connection."""

    def __init__(self, farewell: Action) -> None:
        super().__init__()
        self.farewell = farewell
        self.seen = 0

    def action(self, point: str, command: str) -> Action | None:
        """See `Script`."""
        self.seen = 0 if point == "EHLO" else self.seen + (point == "MAIL")
        return self.farewell if point == "MAIL" and self.seen > 2 else super().action(point, command)


class OneRecipient(Script):
    """A relay that takes one recipient with a mail, and says this to the next."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words
        self.recipients = 0

    def action(self, point: str, command: str) -> Action | None:
        """See `Script`."""
        self.recipients = 0 if point == "MAIL" else self.recipients + (point == "RCPT")
        return self.words if point == "RCPT" and self.recipients > 1 else super().action(point, command)


class SeveralMailsInATransaction(Direct):
    """As a content rule or a newsletter makes them."""

    def test_mailers_with_equal_settings_share_a_connection(self) -> None:
        """Products.MailHost makes a mailer and a delivery for each mail; order and savepoints hold across them."""
        for number in range(3):
            DirectMailDelivery(self.mailer()).send(SENDER, [f"{number}@example.org"], MESSAGE)
        savepoint = transaction.savepoint()
        DirectMailDelivery(self.mailer()).send(SENDER, ["later@example.org"], MESSAGE)
        savepoint.rollback()
        transaction.commit()
        self.assertEqual(self.got(), ["0@example.org", "1@example.org", "2@example.org"])
        self.assertEqual(len(self.relay.dialogues), 1)

    def test_mailers_with_other_settings_do_not(self) -> None:
        """One of them logs in."""
        self.relay.users = {"me": "secret"}
        self.relay.mechanisms = ["PLAIN"]
        DirectMailDelivery(self.mailer()).send(SENDER, ["one@example.org"], MESSAGE)
        other = self.mailer(username="me", password="secret", allow_clear_password=True)
        DirectMailDelivery(other).send(SENDER, ["two@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(sorted(mail.user for mail in self.relay.mails), ["", "me"])

    def test_a_limit_of_mails_loses_and_aborts_nothing(self) -> None:
        """Whatever the relay says when it has had enough, the next mail goes over a new connection."""
        for farewell in FAREWELLS:
            for how in ("tell", "abort"):
                with self.subTest(farewell, how=how):
                    relay = self.start()
                    relay.script = TwoMails(farewell)
                    for number in range(5):
                        mailer = SMTPMailer(relay.host, relay.port, timeouts=TIMEOUTS)
                        DirectMailDelivery(mailer, onRefused=how).send(SENDER, [f"{number}@example.org"], MESSAGE)
                    transaction.commit()
                    got = [who for mail in relay.mails for who in mail.recipients]
                    self.assertEqual(got, [f"{number}@example.org" for number in range(5)])

    def test_many_are_asked_about_with_few_questions(self) -> None:
        """A question is a transaction that comes to nothing; Postfix waits a second for each beyond a hundred."""
        delivery = DirectMailDelivery(self.mailer(), onRefused="abort")
        for number in range(150):
            delivery.send(SENDER, [f"{number}@example.org"], MESSAGE)
            delivery.send("other@example.org", ["one@example.org"], MESSAGE + "Grüße\n".encode())
        transaction.commit()
        self.assertEqual(len(self.got()), 300)
        verbs = [verb for number in range(len(self.relay.dialogues)) for verb in self.relay.verbs(number)]
        self.assertEqual((verbs.count("MAIL"), verbs.count("RSET")), (300 + 4, 4))

    def test_a_balance_is_asked_about_likewise(self) -> None:
        """Each of its relays about its share."""
        other = self.start()
        balance = BalancedMailer([(self.mailer(), 1), (SMTPMailer(other.host, other.port, timeouts=TIMEOUTS), 1)])
        delivery = DirectMailDelivery(balance, onRefused="abort")
        for number in range(20):
            delivery.send(SENDER, [f"{number}@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual([len(relay.mails) for relay in (self.relay, other)], [10, 10])
        self.assertLessEqual(sum(command.startswith("MAIL") for command in self.relay.commands + other.commands), 24)

    def test_a_no_is_the_answer_to_its_own_question(self) -> None:
        """Who was refused beside others is asked about alone, so that the error tells of this mail."""
        self.relay.on("RCPT", "550 5.1.1 no such user", about="<7@")
        self.relay.on("MAIL", "552 5.3.4 too large for you", about="big@")
        for sender, who in ((SENDER, "7@example.org"), ("big@example.org", "3@example.org")):
            with self.subTest(who):
                delivery = DirectMailDelivery(self.mailer(), onRefused="abort")
                for number in range(10):
                    delivery.send(sender, [f"{number}@example.org", "all@example.org"], MESSAGE)
                with self.assertRaises(MailRefused) as caught:
                    transaction.commit()
                transaction.abort()
                self.assertIn(("0@example.org" if who.startswith("3") else who), caught.exception.recipients)
                self.assertNotIn("1@example.org", caught.exception.recipients)
        self.assertEqual(self.got(), [])

    def test_a_limit_of_a_question_aborts_nothing(self) -> None:
        """A relay may take only one recipient, or mind the number in words of its own."""
        for words in "452 4.5.3 one at a time", "554 5.7.1 not so many people at once":
            relay = self.start()
            relay.script = OneRecipient(words)
            delivery = DirectMailDelivery(SMTPMailer(relay.host, relay.port, timeouts=TIMEOUTS), onRefused="abort")
            for number in range(10):
                delivery.send(SENDER, [f"{number}@example.org"], MESSAGE)
            transaction.commit()
            self.assertEqual(len(relay.mails), 10)

    def test_a_relay_that_goes_away_is_waited_for_once(self) -> None:
        """The second phase of a commit does not try to reach it for each of hundreds of mails."""
        mailer = ScriptedMailer()
        delivery = DirectMailDelivery(mailer)
        for number in range(3):
            delivery.send(SENDER, [f"{number}@example.org"], MESSAGE)

        asked = []

        def go_away(envelope: Envelope) -> None:
            asked.append(envelope.recipients)
            if mailer.sent:
                mailer.fault = Reply(Answer.DEFERRED, "gone")

        mailer.before = go_away
        transaction.commit()
        self.assertNotIn(("2@example.org",), asked)
        self.assertEqual([kind for kind, _ in self.told()], [MailSentEvent, MailErrorEvent, MailErrorEvent])


class WithAQueueInReserve(Direct):
    """``queue="Mail"``: direct delivery is instant and loses nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.enterContext(tempfile.TemporaryDirectory()) + "/queue"
        self.queued = QueuedMailDelivery(self.path)
        getGlobalSiteManager().registerUtility(self.queued, IMailDelivery, "Mail")
        self.relay.on("RCPT", "550 5.1.1 no such user", about="unknown@")
        self.relay.on("RCPT", "450 4.2.0 greylisted", about="grey@")

    def send(self, *recipients: str, mailer: Any = None, **options: Any) -> None:
        """One mail; what the relay does not take goes to the queue."""
        delivery = DirectMailDelivery(self.mailer() if mailer is None else mailer, queue="Mail", **options)
        delivery.send(SENDER, recipients, MESSAGE)

    def waiting(self) -> list[tuple[str, ...]]:
        """The recipients of each mail in the queue that were not served yet."""
        last = [(mail.envelope, mail.history[-1] if mail.history else Record()) for mail in self.mails()]
        return [record.outstanding(envelope.recipients) for envelope, record in last if envelope is not None]

    def mails(self) -> list[QueuedMail]:
        """What is in the queue."""
        return list(self.queued.queue.admin.mails())

    def down(self) -> SMTPMailer:
        """A mailer whose relay is not there."""
        closed = Relay()
        closed.start()
        closed.stop()
        return SMTPMailer(closed.host, closed.port)

    def test_what_is_deferred_waits_there(self) -> None:
        """Served and rejected recipients are not in it; the event says deferred."""
        self.send("one@example.org", "unknown@example.org", "grey@example.org")
        self.send("two@example.org")
        self.send("grey@example.org")
        transaction.commit()
        self.assertEqual(self.got(), ["one@example.org", "two@example.org"])
        self.assertEqual(self.waiting(), [("grey@example.org",), ("grey@example.org",)])
        self.assertEqual(dict(self.queued.queue.admin.count()), {State.DEFERRED: 2})
        self.assertIn((MailDeferredEvent, "grey@example.org"), self.told())
        self.assertIn((MailErrorEvent, "unknown@example.org"), self.told())

    def test_a_relay_that_is_down_stops_nothing(self) -> None:
        """All mails of the transaction wait, in order."""
        for number in range(3):
            self.send(f"{number}@example.org", mailer=self.down())
        transaction.commit()
        self.assertEqual(sorted(self.waiting()), [(f"{number}@example.org",) for number in range(3)])

    def test_a_mailer_with_send_only_that_fails_loses_nothing(self) -> None:
        """Whatever it raises."""

        class Broken:
            def send(self, *arguments: object) -> None:
                raise ZeroDivisionError

        self.send("one@example.org", mailer=Broken())
        transaction.commit()
        self.assertEqual(self.waiting(), [("one@example.org",)])

    def test_an_unknown_outcome_waits_there(self) -> None:
        """The queue's own policy for what is unknown decides."""
        self.relay.on("DOT", Drop())
        self.send("one@example.org")
        transaction.commit()
        self.assertEqual(self.waiting(), [("one@example.org",)])

    def test_nothing_stays_where_all_is_served_or_aborted(self) -> None:
        """Neither ready nor staged."""
        self.send("one@example.org")
        transaction.commit()
        self.send("two@example.org")
        transaction.abort()
        savepoint = transaction.savepoint()
        self.send("three@example.org")
        savepoint.rollback()
        transaction.commit()
        self.assertEqual((self.got(), dict(self.queued.queue.admin.count())), (["one@example.org"], {}))

    def test_a_rejection_can_still_abort(self) -> None:
        """With ``onRefused="abort"``; a recipient that is only deferred waits instead."""
        self.send("grey@example.org", onRefused="abort")
        transaction.commit()
        self.assertEqual(self.waiting(), [("grey@example.org",)])
        self.send("unknown@example.org", onRefused="abort")
        self.assertRaises(MailRefused, transaction.commit)
        transaction.abort()
        self.assertEqual(dict(self.queued.queue.admin.count()), {State.DEFERRED: 1})

    def test_what_has_left_is_known_by_its_message_id(self) -> None:
        """As of any mail of that queue: who was served, and who was not."""
        delivery = DirectMailDelivery(self.mailer(), queue="Mail")
        served = delivery.send(SENDER, ["one@example.org"], MESSAGE)
        rejected = delivery.send(SENDER, ["unknown@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.queued.status(served).standing, "sent")
        status = self.queued.status(rejected)
        self.assertEqual((status.standing, status.reason), ("rejected", "550 5.1.1 no such user"))

    def test_it_is_an_attempt_as_any_other(self) -> None:
        """The next one waits as the schedule says; a relay that cannot be used costs none."""
        self.send("grey@example.org")
        self.send("one@example.org", mailer=self.down())
        transaction.commit()
        attempts = {mail.envelope.recipients: len(mail.history) for mail in self.mails() if mail.envelope}
        self.assertEqual(attempts, {("grey@example.org",): 1, ("one@example.org",): 0})

    def test_what_is_unknown_goes_by_the_rules_of_the_queue(self) -> None:
        """Which may be to hold it."""
        self.queued = QueuedMailDelivery(self.path, schedule=Schedule(on_unknown=OnUnknown.HOLD))
        self.relay.on("DOT", Drop())
        DirectMailDelivery(self.mailer(), queue=self.queued).send(SENDER, ["one@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(dict(self.queued.queue.admin.count()), {State.HELD: 1})

    def test_no_processor_is_faster(self) -> None:
        """One that looks while the mail is with the relay finds nothing to do."""
        processor = open_queue(self.path)
        self.addCleanup(processor.close)
        mailer = ScriptedMailer()
        found: list[int] = []
        mailer.before = lambda envelope: found.append(len(processor.claim(10)))
        for number in range(3):
            self.send(f"{number}@example.org", mailer=mailer)
        transaction.commit()
        self.assertEqual((found[-3:], self.waiting()), ([0, 0, 0], []))

    def test_a_queue_that_refuses_after_the_vote_sends_it_later(self) -> None:
        """Its disk fails in the moment of the commit: the mail is not sent from here, so it is sent once."""
        self.send("one@example.org")
        with mock.patch.object(Disk, "rename", side_effect=OSError(errno.EIO, "input/output error")):
            transaction.commit()
        self.assertEqual(self.got(), [])
        self.assertEqual(
            [lease.envelope.recipients for lease in open_queue(self.path).claim(9)], [("one@example.org",)]
        )

    def test_mail_is_written_on_connections_of_the_queue(self) -> None:
        """In the second phase an application's own connection has committed."""
        delivery = QueuedMailDelivery("postgresql://me@host/database", connection=mock.Mock())
        self.assertEqual(DirectMailDelivery(self.mailer(), queue=delivery)._reserve()._queue, delivery.queue)

    def test_a_death_after_the_vote_leaves_the_mail_on_disk(self) -> None:
        """What the vote has staged is durable: the doctor tells of it, and it is not sent twice."""
        self.send("one@example.org")
        current = transaction.get()
        manager = next(iter(current._resources))
        manager.tpc_vote(current)
        self.assertEqual(dict(self.queued.queue.admin.count()), {State.STAGED: 1})

    def test_a_queue_that_is_none_stops_the_vote(self) -> None:
        """Nothing is sent without what was asked for; the error names the cure."""
        for queue in ("missing", "direct"):
            getGlobalSiteManager().registerUtility(DirectMailDelivery(self.mailer()), IMailDelivery, "direct")
            DirectMailDelivery(self.mailer(), queue=queue).send(SENDER, ["one@example.org"], MESSAGE)
            with self.assertRaisesRegex(QueueError, "no queued delivery"):
                transaction.commit()
            transaction.abort()
        self.assertEqual(self.got(), [])
