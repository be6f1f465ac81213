"""Replies that are unusual, belong to nothing, or mean something else than they seem to; over real sockets."""

from __future__ import annotations

import smtplib
import threading
import unittest

from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support.conversation import MESSAGE, Conversation

ACCEPTED, DEFERRED, REJECTED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED

WAYS = {
    "pipelined": ["PIPELINING"],
    "pipelined, chunks announced": ["PIPELINING", "CHUNKING"],
    "one by one": ["SIZE"],
}


class OneReplyTooMany(Conversation):
    """The relay says more than it was asked, and then refuses the message."""

    def after(self, mails: int, **options: object) -> tuple[Relay, SMTPSession]:
        """A relay and a session over which so many mails went well."""
        relay = self.start(**options)
        session = self.session(relay)
        for _ in range(mails):
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        return relay, session

    def assertNotTaken(self, outcome: Outcome) -> None:
        """Nothing is accepted, and nothing is refused for good by a reply that was not its own."""
        self.assertEqual({reply.answer for reply in outcome.replies.values()}, {DEFERRED}, outcome)

    def test_is_credited_to_nobody(self) -> None:
        """Wherever it comes, with the first mail of a connection or a later one, in small texts and large ones."""
        large = b"\n" + b"x" * 998 + b"\r\n" * 300_000
        for way, keywords in WAYS.items():
            for mails in (0, 1, 2):
                for point in ("MAIL", "RCPT"):
                    for message in (MESSAGE, large):
                        with self.subTest(way=way, mails=mails, point=point, size=len(message)):
                            relay, session = self.after(mails, keywords=keywords)
                            relay.on(point, "250 ok\r\n250 one too many")
                            relay.on("DOT", "554 5.7.1 this message is refused")
                            relay.on("BDAT", "554 5.7.1 this message is refused")
                            outcome = self.transfer(session, "one@example.org", "two@example.org", message=message)
                            self.assertNotTaken(outcome)
                            self.assertEqual(len(relay.mails), mails)

    def test_refuses_nobody(self) -> None:
        """A refusal too many is not another recipient's."""
        for mails in (0, 1):
            for point in ("MAIL", "RCPT"):
                with self.subTest(mails=mails, point=point):
                    relay, session = self.after(mails, keywords=["PIPELINING"])
                    relay.on(point, "250 ok\r\n550 5.1.1 one too many", nth=1)
                    outcome = self.transfer(session, "one@example.org", "two@example.org")
                    self.assertNotTaken(outcome)

    def test_comes_late(self) -> None:
        """In a packet of its own, behind the reply to RCPT: in the place of the 354 it is seen."""
        for mails in (0, 2):
            with self.subTest(mails):
                relay, session = self.after(mails, keywords=["PIPELINING", "CHUNKING"])
                hang = relay.on("DATA", Hang("250 2.1.5 one too many"))
                relay.on("DOT", "554 5.7.1 this message is refused")
                found: list[Outcome] = []
                thread = threading.Thread(target=lambda to=found, by=session: to.append(self.transfer(by)))
                thread.start()
                self.assertTrue(hang.reached.wait(300))
                hang.release()
                thread.join(300)
                self.assertNotTaken(found[0])

    def test_comes_with_the_354(self) -> None:
        """It is not the answer to the text."""
        for mails in (0, 2):
            relay, session = self.after(mails)
            relay.on("DATA", "354 go ahead\r\n250 one too many")
            relay.on("DOT", "554 5.7.1 this message is refused")
            self.assertNotTaken(self.transfer(session))
            self.assertEqual(len(relay.mails), mails)

    def test_with_lmtp(self) -> None:
        """Likewise where each recipient is answered for."""
        for mails in (0, 1):
            for point, reply in (("RCPT", "250 ok\r\n250 more"), ("DATA", "354 go ahead\r\n250 more")):
                relay, _ = self.after(0, lmtp=True)
                session = self.session(relay, smtplib.LMTP)
                for _ in range(mails):
                    self.assertAnswers(self.transfer(session), one=ACCEPTED)
                relay.on(point, reply)
                relay.on("DOT", "554 5.7.1 this message is refused")
                self.assertNotTaken(self.transfer(session, "one@example.org", "two@example.org"))

    def test_connection_is_given_up(self) -> None:
        """The next mail has a new one."""
        relay, session = self.after(1)
        relay.on("RCPT", "250 ok\r\n250 one too many", nth=1)
        self.assertNotTaken(self.transfer(session))
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(relay.dialogues), 2)


class ARelayWritesInItsOwnWay(Conversation):
    def test_without_a_blank(self) -> None:
        """``250OK`` and ``250<TAB>OK`` are replies, above all behind the final dot."""
        for reply in ("250OK", "250\tOK", "250"):
            for point in ("MAIL", "RCPT", "DOT"):
                for keywords in WAYS.values():
                    with self.subTest(reply=reply, point=point, keywords=keywords):
                        relay = self.start(keywords=keywords)
                        relay.on(point, reply)
                        outcome = self.transfer(self.session(relay))
                        self.assertAnswers(outcome, one=ACCEPTED)
                        self.assertEqual(len(relay.mails), 1)

    def test_refusals_too(self) -> None:
        """``550no`` as well; what has four digits is no reply."""
        relay = self.start()
        relay.on("RCPT", "550no such user", nth=1)
        outcome = self.transfer(self.session(relay))
        self.assertAnswers(outcome, one=REJECTED)
        self.assertEqual(str(outcome.replies["one@example.org"]), "550 no such user")
        relay.on("RCPT", "2500")
        self.assertBoth(self.transfer(self.session(relay)), one=DEFERRED)


class TheClientIsRefused(Conversation):
    SAYINGS = (
        "504 5.5.2 <web_1>: Helo command rejected: need fully-qualified hostname",
        "550 5.7.1 <web.invalid>: Helo command rejected: Host not found",
        "450 4.7.1 <web>: Helo command rejected: Host not found",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        "550 EHLO rejected: you are not who you say",
    )

    def test_no_mail_is_rejected(self) -> None:
        """Our name or address is the trouble, wherever it is told: the relay cannot be used, and the mail waits."""
        for point in ("MAIL", "RCPT", "DATA", "DOT"):
            for saying in self.SAYINGS:
                for keywords in WAYS.values():
                    with self.subTest(point=point, saying=saying, keywords=keywords):
                        relay = self.start(keywords=keywords)
                        relay.on(point, saying)
                        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org")
                        self.assertBoth(outcome, int(saying[:3]), one=DEFERRED, two=DEFERRED)

    def test_other_refusals_are(self) -> None:
        """Words that only look like it."""
        for saying in ("550 5.1.1 <hello@example.org>: Recipient address rejected", "550 5.7.1 Sender rejected"):
            relay = self.start()
            relay.on("RCPT", saying)
            self.assertAnswers(self.transfer(self.session(relay)), one=REJECTED)


if __name__ == "__main__":
    unittest.main()
