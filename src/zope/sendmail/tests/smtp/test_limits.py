"""Relays with limits: mails of a connection, recipients of a mail; scripted ones, over real sockets."""

from __future__ import annotations

import io
import smtplib
import unittest
from collections import Counter
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.testing.relay import Drop, Relay
from zope.sendmail.testing.relayscript import Action, Script
from zope.sendmail.tests.support.conversation import MESSAGE, TIMEOUTS, Conversation
from zope.sendmail.transports.lmtp import LMTPMailer

ACCEPTED, DEFERRED, REJECTED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED

STALWART = "451 4.4.5 Maximum number of messages per session exceeded."


class MailsOfAConnection(Script):
    """The relay takes so many, and says `reply` at `point` of each further one."""

    def __init__(self, limit: int, point: str, reply: Action) -> None:
        super().__init__()
        self.limit, self.point, self.reply = limit, point, reply
        self.mails: Counter[int] = Counter()
        self.connection = -1
        self.refused = 0

    def action(self, point: str, command: str) -> Action | None:
        if point == "GREETING":
            self.connection += 1
        if point == "MAIL":
            self.mails[self.connection] += 1
        if point == self.point and self.mails[self.connection] > self.limit:
            self.refused += 1
            return self.reply
        return None


class RecipientsOfAMail(Script):
    """The relay takes so many; to each further one, or at the final dot, it says `reply`, and at last it hangs up."""

    def __init__(self, limit: int, reply: str, *, at_the_end: bool = False, patience: int = 1000) -> None:
        super().__init__()
        self.limit, self.reply, self.at_the_end, self.patience = limit, reply, at_the_end, patience
        self.recipients = 0
        self.refused = 0

    def action(self, point: str, command: str) -> Action | None:
        if point == "MAIL":
            self.recipients = 0
        if point == "RCPT":
            self.recipients += 1
        if point == ("DOT" if self.at_the_end else "RCPT") and self.recipients > self.limit:
            self.refused += 1
            return self.reply if self.refused < self.patience else Drop("421 4.7.0 too many errors")
        return None


class Limits(Conversation):
    def relay(self, script: Script, **options: Any) -> Relay:
        """A relay with this script."""
        relay = self.start(**options)
        relay.script = script
        return relay

    def mailer(self, relay: Relay, **options: Any) -> SMTPMailer:
        """The mailer for it."""
        kind = LMTPMailer if relay.lmtp else SMTPMailer
        return kind(relay.host, relay.port, timeouts=TIMEOUTS, tls="never", clock=self.clock, **options)

    def drain(self, mailer: SMTPMailer, *envelopes: Envelope) -> tuple[MemoryQueue, QueueProcessorThread]:
        """Put a mail for each into a queue, and let a processor try what is due."""
        queue = MemoryQueue(schedule=Schedule(first=60.0, jitter=0.0), clock=self.clock)
        staged = queue.stage()
        for envelope in envelopes:
            staged.add(envelope, MESSAGE)
        staged.prepare()
        staged.commit()
        processor = QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock, concurrency=1)
        processor.run(forever=False)
        return queue, processor

    def assertAllSent(self, queue: MemoryQueue, processor: QueueProcessorThread, recipients: int) -> None:
        """Nothing is left, and every recipient was told once."""
        self.assertEqual({state: n for state, n in queue.admin.count().items() if n}, {})
        self.assertEqual(processor.tally[ACCEPTED], recipients)


def to(count: int) -> Envelope:
    """A mail for so many."""
    return Envelope("sender@example.org", tuple(f"r{number}@example.org" for number in range(count)))


def served(relay: Relay) -> list[str]:
    """All recipients, in order."""
    return [recipient for mail in relay.mails for recipient in mail.recipients]


#: How relays say that a connection has had its number of mails.
SAYINGS: list[tuple[str, Action]] = [
    ("MAIL", "452 4.3.2 Too many messages sent"),  # OpenSMTPD
    ("DATA", STALWART),
    ("DATA", "452 4.4.5 Maximum number of messages per session exceeded."),
    ("MAIL", Drop("421 too many messages in this connection")),  # Exim
    ("MAIL", "550 5.7.0 Too many messages in this session"),
    ("MAIL", "451 4.3.0 Try again later"),  # without words
    ("DATA", "450 4.3.0 Try again later"),
    ("RCPT", "452 4.5.3 Too many recipients in this session"),
    ("RCPT", "450 4.3.0 Maximum number of messages per session exceeded"),
    ("DOT", "451 4.4.5 Maximum number of messages per session exceeded."),
]


class AConnectionTakesTenMails(Limits):
    def test_queue(self) -> None:
        """Every mail goes in the first pass, and few refusals are needed to learn the number."""
        for keywords in (["PIPELINING"], ["SIZE"]):
            for point, reply in SAYINGS:
                with self.subTest(keywords=keywords, point=point, reply=reply):
                    script = MailsOfAConnection(10, point, reply)
                    relay = self.relay(script, keywords=keywords)
                    queue, processor = self.drain(self.mailer(relay), *[to(1)] * 55)
                    self.assertAllSent(queue, processor, 55)
                    self.assertLessEqual(script.refused, 2)
                    self.assertEqual((len(relay.mails), len(relay.dialogues)), (55, 6))
                    self.assertEqual(processor.tally, {ACCEPTED: 55})

    def test_it_is_remembered_by_the_mailer(self) -> None:
        """Sessions that begin later do not meet it again."""
        script = MailsOfAConnection(3, "DATA", STALWART)
        relay = self.relay(script)
        mailer = self.mailer(relay)
        for _ in range(3):
            session = mailer.open_session()
            for _ in range(5):
                outcome = session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None)
                self.assertAnswers(outcome, r0=ACCEPTED)
            session.close()
        self.assertEqual((script.refused, len(relay.mails)), (1, 15))

    def test_in_an_hour_it_is_tried_again(self) -> None:
        """The relay may have been configured anew."""
        script = MailsOfAConnection(3, "DATA", STALWART)
        session = self.mailer(self.relay(script)).open_session()
        self.addCleanup(session.close)
        for number in range(3):
            for _ in range(7):
                session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None)
            self.assertEqual(script.refused, number + 1)
            self.clock.advance(3600.0)

    def test_a_question_is_no_more(self) -> None:
        """So are envelopes that are only asked about."""
        for point, reply in SAYINGS:
            if point == "MAIL":
                with self.subTest(reply=reply):
                    session = self.mailer(self.relay(MailsOfAConnection(5, point, reply))).open_session()
                    self.addCleanup(session.close)
                    for _ in range(12):
                        self.assertAnswers(session.verify(to(1), io.BytesIO(MESSAGE)), r0=ACCEPTED)

    def test_a_mail_that_is_refused_anyway(self) -> None:
        """Asked once more over a new connection, and no further; that is its answer, and nothing is remembered."""
        relay = self.start()
        relay.on("MAIL", "450 4.1.8 no such domain", about="<bad@")
        session = self.mailer(relay).open_session()
        self.addCleanup(session.close)
        for _ in range(2):
            self.assertAnswers(session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None), r0=ACCEPTED)
            bad = Envelope("bad@example.org", ("r0@example.org",))
            self.assertAnswers(session.transfer(bad, io.BytesIO(MESSAGE), lambda: None), r0=DEFERRED)
        self.assertEqual(len(relay.dialogues), 3)
        for _ in range(5):
            session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None)
        self.assertEqual(len(relay.dialogues), 3)

    def test_many_mails_that_are_refused(self) -> None:
        """A connection over which nothing was taken is not to blame: they share it."""
        relay = self.start()
        relay.on("MAIL", "450 4.1.8 no such domain")
        session = self.mailer(relay).open_session()
        self.addCleanup(session.close)
        for _ in range(10):
            self.assertAnswers(session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None), r0=DEFERRED)
        self.assertEqual(len(relay.dialogues), 1)

    def test_it_takes_none(self) -> None:
        """A relay that says so of each connection defers the mail, whatever its code."""
        relay = self.relay(MailsOfAConnection(0, "MAIL", "550 5.7.0 Too many messages in this session"))
        queue, _ = self.drain(self.mailer(relay), to(1), to(1))
        self.assertEqual(queue.admin.count()[State.DEFERRED], 2)

    def test_too_much_is_asked_no_more(self) -> None:
        """A relay that has too much to do is not asked over one more connection."""
        relay = self.start()
        relay.on("MAIL", "451 4.7.500 Server busy. Please try again later", nth=2)
        session = self.mailer(relay).open_session()
        self.addCleanup(session.close)
        self.assertAnswers(session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None), r0=ACCEPTED)
        self.assertAnswers(session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None), r0=DEFERRED)
        self.assertEqual(len(relay.dialogues), 1)


class QuotaOfADay(Script):
    """The relay takes so many mails, and then says this until it is another day."""

    def __init__(self, most: int, point: str, reply: str) -> None:
        super().__init__()
        self.most, self.point, self.reply = most, point, reply
        self.taken = 0

    def action(self, point: str, command: str) -> Action | None:
        if point == self.point and self.taken >= self.most:
            return self.reply
        self.taken += point == "DOT"
        return None


class AnAccountHasAQuota(Limits):
    """Told with 550, as Gmail and hosting providers do."""

    def test_no_mail_is_rejected(self) -> None:
        """Wherever it is told: the mails wait, uncharged, and leave when the relay takes more."""
        for point in ("MAIL", "RCPT", "DATA", "DOT"):
            for lmtp in (False, True):
                with self.subTest(point, lmtp=lmtp):
                    script = QuotaOfADay(3, point, "550 5.4.5 Daily sending quota exceeded")
                    relay = self.relay(script, lmtp=lmtp)
                    mailer = self.mailer(relay)
                    queue, processor = self.drain(mailer, *[to(1)] * 6)
                    self.assertEqual((len(relay.mails), processor.tally[REJECTED]), (3, 0))
                    script.most = 6
                    for _ in range(40):
                        self.clock.advance(60.0)
                        processor.run(forever=False)
                    self.assertAllSent(queue, processor, 6)
                    self.assertEqual(processor.tally[REJECTED], 0)
                    session = mailer.open_session()
                    self.addCleanup(session.close)
                    self.assertAnswers(session.transfer(to(1), io.BytesIO(MESSAGE), lambda: None), r0=DEFERRED)
                    with self.assertRaises(smtplib.SMTPException) as caught:
                        mailer.send("a@example.org", to(1).recipients, MESSAGE)
                    self.assertIn("550", str(caught.exception))


TOO_MANY = [
    "452 4.5.3 Error: too many recipients",
    "552 too many recipients",
    "552 5.5.3 Maximum limit of 20 recipients reached",
    "451 4.5.3 no more",
    "450 4.5.3 Recipient limit exceeded",
    "550 5.5.3 Too many recipients",
]


class AMailTakesTwentyRecipients(Limits):
    def test_all_are_served_at_once(self) -> None:
        """By the queue, by one call, and by a session; none is refused, and the relay is hardly bothered."""
        for reply in TOO_MANY:
            for keywords in (["PIPELINING"], ["SIZE"]):
                with self.subTest(reply=reply, keywords=keywords):
                    script = RecipientsOfAMail(20, reply)
                    relay = self.relay(script, keywords=keywords)
                    queue, processor = self.drain(self.mailer(relay), to(250))
                    self.assertAllSent(queue, processor, 250)
                    self.assertEqual(sorted(served(relay)), sorted(to(250).recipients))
                    self.assertLessEqual(script.refused, 80)
                    self.assertEqual(self.mailer(relay).send("a@example.org", to(45).recipients, MESSAGE), {})
                    session = self.mailer(relay).open_session()
                    self.addCleanup(session.close)
                    for outcome in (
                        session.verify(to(45), io.BytesIO(MESSAGE)),
                        session.transfer(to(45), io.BytesIO(MESSAGE), lambda: None),
                    ):
                        self.assertEqual(Counter(each.answer for each in outcome.replies.values()), {ACCEPTED: 45})
                    self.assertEqual(len(relay.mails), 13 + 3 + 3)

    def test_lmtp(self) -> None:
        """Likewise where each recipient has an answer of its own."""
        relay = self.relay(RecipientsOfAMail(20, TOO_MANY[0]), lmtp=True)
        queue, processor = self.drain(self.mailer(relay), to(250))
        self.assertAllSent(queue, processor, 250)
        self.assertEqual(self.mailer(relay).send("a@example.org", to(45).recipients, MESSAGE), {})

    def test_relay_hangs_up_on_who_goes_on(self) -> None:
        """After some "too many" it is 421 (Postfix): the mail begins anew with no more than were accepted."""
        for patience in (2, 5, 20):
            with self.subTest(patience):
                relay = self.relay(RecipientsOfAMail(150, TOO_MANY[0], patience=patience))
                queue, processor = self.drain(self.mailer(relay), to(1000))
                self.assertAllSent(queue, processor, 1000)
                self.assertEqual(sorted(served(relay)), sorted(to(1000).recipients))

    def test_number_is_refused_at_the_end(self) -> None:
        """Amazon SES refuses the message: nobody is rejected, and the limit is taken from its words, or found."""
        for reply in (
            "554 Transaction failed: Recipient count exceeds 20.",
            "554 5.5.3 no",
            "452 4.5.3 too many recipients",
        ):
            with self.subTest(reply):
                script = RecipientsOfAMail(20, reply, at_the_end=True)
                relay = self.relay(script)
                mailer = self.mailer(relay)
                queue, processor = self.drain(mailer, to(60))
                self.assertAllSent(queue, processor, 60)
                self.assertEqual(sorted(served(relay)), sorted(to(60).recipients))
                self.assertEqual(processor.tally, {ACCEPTED: 60})
                refused = script.refused
                self.assertEqual(mailer.send("a@example.org", to(60).recipients, MESSAGE), {})
                self.assertEqual(script.refused, refused, "it was remembered")

    def test_limit_is_set(self) -> None:
        """Then nothing is tried that is more."""
        script = RecipientsOfAMail(20, TOO_MANY[0])
        relay = self.relay(script)
        mailer = self.mailer(relay, recipient_limit=20)
        queue, processor = self.drain(mailer, to(110))
        self.assertAllSent(queue, processor, 110)
        self.assertEqual(mailer.send("a@example.org", to(41).recipients, MESSAGE), {})
        self.assertEqual([len(mail.recipients) for mail in relay.mails], [20] * 5 + [10] + [20, 20, 1])
        self.assertEqual(script.refused, 0)

    def test_other_answers_stay_what_they_are(self) -> None:
        """Recipients that are refused or deferred for themselves are so once, wherever they stand."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about="<r1")
        relay.on("RCPT", "450 4.2.0 greylisted", about="<r2")
        mailer = self.mailer(relay, recipient_limit=7)
        queue, processor = self.drain(mailer, to(30))
        self.assertEqual(processor.tally[REJECTED], 11)
        self.assertEqual(processor.tally[ACCEPTED], 8)
        (mail,) = queue.admin.mails()
        self.assertEqual(len(mail.history[-1].having(DEFERRED)), 9)  # a mail of those only: the others wait as well
        self.clock.advance(60.0)
        processor.run(forever=False)
        (mail,) = queue.admin.mails()
        self.assertEqual((len(mail.history[-1].having(DEFERRED)), mail.history[-1].attempts), (11, 2))
        refused = mailer.send("a@example.org", to(30).recipients, MESSAGE)
        self.assertEqual(Counter(code for code, _ in refused.values()), {550: 11, 450: 9, 451: 2})

    def test_one_is_too_many(self) -> None:
        """A relay that takes not even one defers it, and is not asked again and again."""
        for at_the_end in (False, True):
            script = RecipientsOfAMail(0, "452 4.5.3 too many recipients", at_the_end=at_the_end)
            relay = self.relay(script)
            queue, _ = self.drain(self.mailer(relay), to(4))
            self.assertEqual(queue.admin.count()[State.DEFERRED], 1)
            self.assertLessEqual(script.refused, 8)
            with self.assertRaises(smtplib.SMTPException):
                self.mailer(relay).send("a@example.org", to(4).recipients, MESSAGE)

    def test_mail_before_is_not_touched(self) -> None:
        """Between other mails of a stream."""
        relay = self.relay(RecipientsOfAMail(20, TOO_MANY[0]))
        queue, processor = self.drain(self.mailer(relay), to(1), to(1), to(50), to(1), to(1))
        self.assertAllSent(queue, processor, 54)


if __name__ == "__main__":
    unittest.main()
