"""`zope.sendmail.smtp`: several commands in one flight, over real sockets."""

from __future__ import annotations

import smtplib
import unittest
from dataclasses import replace
from typing import Any

from zope.sendmail.config.settings import Tls
from zope.sendmail.interfaces import LeaseLost
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.smtp.protocol.body import WINDOW
from zope.sendmail.smtp.protocol.steps import MAX_FLIGHT
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import Drop, Hang, Relay
from zope.sendmail.tests.support.conversation import MESSAGE, TIMEOUTS, Conversation, right_tls

ACCEPTED, DEFERRED, REJECTED, UNKNOWN = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED, Answer.UNKNOWN
BOTH = ("PIPELINING", "CHUNKING", "8BITMIME")


class Flights(Conversation):
    def proven(self, **options: Any) -> tuple[Relay, SMTPSession]:
        """A relay that offers everything, and a session over which it has just taken a mail."""
        relay = self.start(**{"keywords": BOTH, **options})
        settings: dict[str, Any] = {"tls": Tls.REQUIRED, "verify": False} if relay.tls else {}
        session = self.session(relay, **settings)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        return relay, session


class TheRelayOffersEverything(Flights):
    def test_mails_arrive_as_they_are(self) -> None:
        """Text, envelope and options are those of the mail; the text goes with DATA, whatever is offered."""
        relay, session = self.proven()
        text = "Subject: x\n\n.one\n.\nGrüße".encode()
        self.transfer(session, "one@example.org", "two@example.org", message=text)
        self.assertEqual(relay.mails[1].data, text.replace(b"\n", b"\r\n") + b"\r\n")
        self.assertEqual(relay.mails[1].recipients, ("one@example.org", "two@example.org"))
        self.assertEqual(relay.mails[1].options, "BODY=8BITMIME")
        self.assertEqual(relay.verbs(), ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RCPT", "DATA"])

    def test_within_tls(self) -> None:
        """The socket that is taken over is the encrypted one; TLS's own messages are not taken for replies."""
        relay, session = self.proven(tls=right_tls())
        for _ in range(3):
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (1, 4))
        session.close()
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")

    def test_large_messages_and_small_ones(self) -> None:
        """A message beyond the window is read and sent in pieces."""
        relay, session = self.proven()
        large = b"Subject: x\r\n\r\n" + b"y" * 78 + b"\r\n" * WINDOW * 4
        for message in (large, MESSAGE, large):
            self.assertAnswers(self.transfer(session, message=message), one=ACCEPTED)
        self.assertEqual([mail.data for mail in relay.mails[1:]], [large, MESSAGE, large])

    def test_many_recipients(self) -> None:
        """No more commands fly at once than their replies have room for."""
        relay, session = self.proven()
        recipients = [f"r{number}@example.org" for number in range(MAX_FLIGHT * 3)]
        relay.on("RCPT", "550 5.1.1 no", about="<r7@")
        outcome = self.transfer(session, *recipients)
        self.assertEqual(list(outcome.having(REJECTED)), ["r7@example.org"])
        self.assertEqual(len(relay.mails[1].recipients), MAX_FLIGHT * 3 - 1)

    def test_refusals_leave_the_connection(self) -> None:
        """After any refusal the next mail goes over the same connection."""
        relay, session = self.proven()
        for point in ("MAIL", "RCPT", "DOT"):
            relay.on(point, "550 5.1.1 no", about="bad@" if point == "RCPT" else "", nth=1)
            self.assertAnswers(self.transfer(session, "bad@example.org"), bad=REJECTED)
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(relay.dialogues), 1)

    def test_lost_lease_stops_the_text(self) -> None:
        """`intend` comes before the end of the text, and what it raises stops it."""
        relay, session = self.proven()

        def lost() -> None:
            raise LeaseLost("somebody else has it")

        with self.assertRaises(LeaseLost):
            self.transfer(session, intend=lost)
        relay.wait_until(lambda: relay.open == 0)
        self.assertEqual(len(relay.mails), 1)


class TheConnectionEndsWithinAFlight(Flights):
    def test_it_is_known_until_the_text_has_gone(self) -> None:
        """Who has a definite no has it, and the others are deferred."""
        relay, session = self.proven()
        relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
        relay.on("RCPT", Drop(), about="<three@")
        outcome = self.transfer(session, "one@example.org", "two@example.org", "three@example.org")
        self.assertAnswers(outcome, one=DEFERRED, two=REJECTED, three=DEFERRED)
        self.assertIsNotNone(outcome.fault)
        self.assertEqual(len(relay.mails), 1)

    def test_it_is_unknown_behind_the_text(self) -> None:
        """The relay may have it."""
        relay, session = self.proven()
        relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
        relay.on("DOT", Drop())
        outcome = self.transfer(session, "one@example.org", "two@example.org", "three@example.org")
        self.assertAnswers(outcome, one=UNKNOWN, two=REJECTED, three=UNKNOWN)

    def test_dead_connection_is_seen_before(self) -> None:
        """A relay that hung up between two mails, with a farewell or without, leaves nothing unknown."""
        for farewell in ("", "421 4.4.2 idle too long"):
            relay, session = self.proven()
            relay.hang_up(farewell)
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
            self.assertEqual(len(relay.dialogues), 2)

    def test_421_to_mail_is_no_acceptance(self) -> None:
        """A relay that goes just then did not take the mail: it goes over a new connection at once."""
        relay, session = self.proven()
        relay.on("MAIL", "421 4.3.2 going down", nth=1)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (2, 2))


class TheRelayPromisedTooMuch(Flights):
    def test_chunking_is_not_needed(self) -> None:
        """A relay that offers CHUNKING and does not know BDAT gets each mail at once."""
        for reply in ("500 5.5.1 there is no such command", "502 5.5.1 no", "503 5.5.1 not now", Hang()):
            relay = self.start(keywords=BOTH)
            relay.on("BDAT", reply)
            session = self.session(relay)
            for _ in range(2):
                self.assertAnswers(self.transfer(session), one=ACCEPTED)
            self.assertEqual(len(relay.dialogues), 1)

    def test_it_hangs_up_on_flights(self) -> None:
        """PIPELINING was a lie: the mail goes at once, one command at a time, and so do those of other sessions."""
        relay = self.start(keywords=BOTH, strict=True)
        mailer = SMTPMailer(relay.host, relay.port, timeouts=TIMEOUTS, clock=self.clock)
        for _ in range(3):
            session = mailer.open_session()
            self.addCleanup(session.close)
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (4, 3))

    def test_it_does_not_understand_flights(self) -> None:
        """A reply that says so counts for no mail, wherever it comes."""
        for point in ("MAIL", "RCPT", "DATA"):
            for code in (500, 502, 503):
                with self.subTest(point=point, code=code):
                    relay = self.start(keywords=BOTH)
                    relay.on(point, f"{code} 5.5.1 what?", nth=1)
                    session = self.session(relay)
                    self.assertAnswers(self.transfer(session), one=ACCEPTED)
                    self.assertAnswers(self.transfer(session), one=ACCEPTED)
                    self.assertEqual((len(relay.dialogues), len(relay.mails)), (2, 2))

    def test_it_falls_silent(self) -> None:
        """When the time for a reply is over, it is asked one command at a time."""
        for seconds in (0.5, 5.0, 60.0):  # a busy machine needs a while for what is answered
            relay = self.start(keywords=BOTH)
            relay.on("RCPT", Hang(), nth=1)
            outcome = self.transfer(self.session(relay, timeouts=replace(TIMEOUTS, command=seconds)))
            if not outcome.fault:
                break
        self.assertAnswers(outcome, one=ACCEPTED)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (2, 1))

    def test_its_trouble_is_another(self) -> None:
        """If that is no better, PIPELINING was not to blame, and is used with the next mail."""
        relay = self.start(keywords=BOTH)
        relay.on("MAIL", Drop(), about="<bad@")
        session = self.session(relay)
        self.assertBoth(self.transfer(session, sender="bad@example.org"), one=DEFERRED)
        self.assertEqual(len(relay.dialogues), 2)
        relay.strict = True
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(relay.dialogues), 4)

    def test_an_hour_later_it_is_believed_again(self) -> None:
        """Whoever runs it may have mended it."""
        relay = self.start(keywords=BOTH, strict=True)
        session = self.session(relay)
        self.transfer(session)
        self.clock.advance(3600.0)
        self.transfer(session)
        self.assertEqual(len(relay.dialogues), 4)

    def test_operator_discards_what_it_offers(self) -> None:
        """What is discarded is not used."""
        relay = self.start(keywords=[*BOTH, "SIZE 20", "SMTPUTF8"], strict=True)
        session = self.session(relay, discard_extensions=frozenset({"pipelining", "size"}))
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual((len(relay.dialogues), relay.mails[0].options), (1, ""))

    def test_what_is_not_offered_is_not_used(self) -> None:
        """A strict relay that offers nothing gets its mail at the first attempt (OpenSMTPD)."""
        relay = self.start(keywords=["8BITMIME", "CHUNKING"], strict=True)
        session = self.session(relay)
        for _ in range(2):
            self.assertAnswers(self.transfer(session, "one@example.org", "two@example.org"), one=ACCEPTED, two=ACCEPTED)
        self.assertEqual(len(relay.dialogues), 1)

    def test_it_says_more_than_it_was_asked(self) -> None:
        """A second reply to EHLO would be taken for the one to MAIL: the connection is of no use."""
        relay = self.start(keywords=BOTH)
        relay.on("EHLO", "250-relay.test\r\n250 PIPELINING\r\n250 surprise")
        self.assertFaultOnly(self.transfer(self.session(relay)))


class TheClassIsNotSmtplibs(Flights):
    def test_its_own_words_are_used(self) -> None:
        """A class that changed how it speaks is asked for every command and reply."""
        said: list[str] = []

        class Telling(smtplib.SMTP):
            def putcmd(self, cmd: str, args: str = "") -> None:
                said.append(cmd.partition(" ")[0])
                super().putcmd(cmd, args)

        relay = self.start(keywords=BOTH, strict=True)
        self.assertAnswers(self.transfer(self.session(relay, Telling)), one=ACCEPTED)
        self.assertEqual(said, ["ehlo", "MAIL", "RCPT", "DATA"])

    def test_a_class_that_is_only_configured(self) -> None:
        """One that did not touch that is as fast as smtplib's own."""

        class Configured(smtplib.SMTP):
            def login(self, user: str, password: str, **_: Any) -> tuple[int, bytes]:
                return (235, b"")

        relay = self.start(keywords=BOTH)
        self.assertAnswers(self.transfer(self.session(relay, Configured)), one=ACCEPTED)
        self.assertEqual(relay.verbs(), ["EHLO", "MAIL", "RCPT", "DATA"])


if __name__ == "__main__":
    unittest.main()
