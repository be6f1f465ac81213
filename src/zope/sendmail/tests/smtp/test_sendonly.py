"""`zope.sendmail.smtp.sendonly`, ``verdict``: a mailer that has only ``send()``, and what its errors mean."""

from __future__ import annotations

import errno
import io
import smtplib
import socket
import ssl
import unittest
from collections.abc import Sequence
from typing import Any

from zope.interface.verify import verifyObject

from zope.sendmail.interfaces import ISession, LeaseLost, RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.sendonly import SendOnlySession, is_within_session

ACCEPTED, DEFERRED, REJECTED, UNKNOWN = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED, Answer.UNKNOWN
ONE, TWO = "one@example.org", "two@example.org"
ENVELOPE = Envelope("sender@example.org", (ONE, TWO))


class Mailer:
    """Only ``send()``; returns or raises what it is told."""

    def __init__(self, result: object = None) -> None:
        self.result = result
        self.sent: list[tuple[str, Sequence[str], bytes]] = []

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> object:
        self.sent.append((fromaddr, toaddrs, message))
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class VotingMailer(Mailer):
    """Has ``vote()`` and ``abort()``, too."""

    def __init__(self, result: object = None, verdict: Exception | None = None) -> None:
        super().__init__(result)
        self.verdict = verdict
        self.voted: list[tuple[str, Sequence[str], bytes]] = []
        self.aborted = 0

    def vote(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        self.voted.append((fromaddr, toaddrs, message))
        if self.verdict is not None:
            raise self.verdict

    def abort(self) -> None:
        self.aborted += 1
        raise smtplib.SMTPServerDisconnected("nobody there")


class Situation(unittest.TestCase):
    def transfer(self, result: object, envelope: Envelope = ENVELOPE) -> Outcome:
        """What becomes of a mail if the mailer returns or raises `result`."""
        return SendOnlySession(Mailer(result)).transfer(envelope, io.BytesIO(b"text"), lambda: None)

    def assertAnswers(self, outcome: Outcome, one: Answer | None, two: Answer | None) -> None:
        """Who got which answer."""
        told = [outcome.replies[each].answer if each in outcome.replies else None for each in (ONE, TWO)]
        self.assertEqual(told, [one, two], outcome)

    def assertFault(self, outcome: Outcome, code: int | None) -> None:
        """The relay is at fault, as it said with `code`; who is deferred is so in the same words."""
        assert outcome.fault is not None, outcome
        self.assertEqual((outcome.fault.answer, outcome.fault.code), (DEFERRED, code))
        self.assertLessEqual(set(outcome.having(DEFERRED).values()), {outcome.fault})


class TheMailerSends(Situation):
    def test_session_keeps_the_contract(self) -> None:
        """It is a session like any other."""
        self.assertTrue(verifyObject(ISession, SendOnlySession(Mailer())))

    def test_it_gets_what_it_always_got(self) -> None:
        """Sender, recipients and the message as bytes, without the header of hidden recipients."""
        mailer = Mailer()
        message = io.BytesIO(b"Bcc: secret@example.org\nSubject: x\n\nText\n")
        SendOnlySession(mailer).transfer(ENVELOPE, message, lambda: None)
        self.assertEqual(mailer.sent, [("sender@example.org", (ONE, TWO), b"Subject: x\n\nText\n")])

    def test_nothing_raised_is_success(self) -> None:
        """Whatever is returned, if it is no dict of refused recipients."""
        for result in (None, {}, True, [ONE], {"status": "ok"}):
            self.assertAnswers(self.transfer(result), ACCEPTED, ACCEPTED)

    def test_returned_refusals_are_heard(self) -> None:
        """What ``smtplib.SMTP.sendmail`` returns says who did not get it (7.3 did not listen)."""
        self.assertAnswers(self.transfer({TWO: (550, b"5.1.1 no")}), ACCEPTED, REJECTED)
        self.assertAnswers(self.transfer({ONE: (450, "later")}), DEFERRED, ACCEPTED)
        self.assertAnswers(self.transfer({ONE: "something"}), DEFERRED, ACCEPTED)

    def test_intend_comes_first(self) -> None:
        """Nobody knows when a foreign mailer sends the last byte, so it may be at once."""
        mailer = Mailer()

        def lost() -> None:
            raise LeaseLost("somebody else has it")

        with self.assertRaises(LeaseLost):
            SendOnlySession(mailer).transfer(ENVELOPE, io.BytesIO(b"text"), lost)
        self.assertEqual(mailer.sent, [])

    def test_it_is_known_that_a_session_calls_it(self) -> None:
        """So that only the session's caller tells how the attempt went."""
        within: list[bool] = []

        class Asking(Mailer):
            def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> object:
                within.append(is_within_session())
                return None

        SendOnlySession(Asking()).transfer(ENVELOPE, io.BytesIO(b"text"), lambda: None)
        Asking().send("sender@example.org", [ONE], b"text")
        self.assertEqual(within, [True, False])

    def test_it_is_called_by_its_name(self) -> None:
        """Host and port if it has them, else its class."""
        mailer = Mailer()
        self.assertEqual(SendOnlySession(mailer).relay, "Mailer")
        mailer.hostname, mailer.port = "relay.example.org", 25  # type: ignore[attr-defined]  # a mailer of old has them
        self.assertEqual(SendOnlySession(mailer).relay, "relay.example.org:25")


class TheMailerRaises(Situation):
    def test_recipients_refused(self) -> None:
        """Each recipient's own code counts (7.3 rejected all of them)."""
        error = smtplib.SMTPRecipientsRefused({ONE: (450, b"later"), TWO: (550, b"no")})
        self.assertAnswers(self.transfer(error), DEFERRED, REJECTED)

    def test_recipients_refused_with_421(self) -> None:
        """421 is about the relay, and defers all who were not refused, whether they are named or not."""
        no, bye = (550, b"no"), (421, b"bye")
        for named, one, two in [
            ({ONE: no, TWO: bye}, REJECTED, DEFERRED),
            ({ONE: bye, TWO: no}, DEFERRED, REJECTED),
            ({ONE: bye}, DEFERRED, DEFERRED),
        ]:
            outcome = self.transfer(smtplib.SMTPRecipientsRefused(named))
            self.assertAnswers(outcome, one, two)
            self.assertFault(outcome, 421)

    def test_recipients_refused_without_a_word(self) -> None:
        """An exception that names nobody defers all."""
        nonsense: list[Any] = [{}, "refused", None]
        for said in nonsense:
            error = smtplib.SMTPRecipientsRefused(said)
            self.assertAnswers(self.transfer(error), DEFERRED, DEFERRED)

    def test_sender_or_message_refused(self) -> None:
        """The code counts for all recipients."""
        for code, answer in ((451, DEFERRED), (550, REJECTED), (503, DEFERRED)):
            for error in (
                smtplib.SMTPSenderRefused(code, b"no", "sender@example.org"),
                smtplib.SMTPDataError(code, b"no"),
                smtplib.SMTPResponseException(code, b"no"),
            ):
                outcome = self.transfer(error)
                self.assertAnswers(outcome, answer, answer)
                self.assertIsNone(outcome.fault)

    def test_codes_about_the_relay(self) -> None:
        """Login, encryption and farewell reject nobody: the relay is at fault, and the mail is deferred."""
        for code in (421, 454, 530, 534, 535, 538):
            for error in (
                smtplib.SMTPResponseException(code, b"no"),
                smtplib.SMTPDataError(code, b"no"),
                smtplib.SMTPSenderRefused(code, b"no", "sender@example.org"),
            ):
                outcome = self.transfer(error)
                self.assertAnswers(outcome, DEFERRED, DEFERRED)
                self.assertFault(outcome, code)

    def test_relay_cannot_be_used(self) -> None:
        """Errors from before the mail blame the relay only."""
        for error in (
            smtplib.SMTPAuthenticationError(535, b"wrong password"),
            smtplib.SMTPConnectError(554, b"blocked"),
            smtplib.SMTPHeloError(501, b"no"),
            smtplib.SMTPNotSupportedError("no AUTH"),
            ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            socket.gaierror(socket.EAI_NONAME, "no such name"),
            ssl.SSLCertVerificationError("self-signed"),
            OSError(errno.ENETUNREACH, "unreachable"),
            OSError(errno.EHOSTUNREACH, "unreachable"),
            RelayError("no greeting"),
        ):
            with self.subTest(error=error):
                outcome = self.transfer(error)
                self.assertAnswers(outcome, None, None)
                assert outcome.fault is not None
                self.assertEqual(outcome.fault.answer, DEFERRED)

    def test_smtputf8_is_missing(self) -> None:
        """A mail that this relay cannot take must not stand in the way of all others."""
        envelope = Envelope("sender@example.org", ("jörg@example.org",))
        outcome = self.transfer(smtplib.SMTPNotSupportedError("SMTPUTF8 not supported by server"), envelope)
        self.assertEqual([reply.answer for reply in outcome.replies.values()], [DEFERRED])
        self.assertIsNone(outcome.fault)

    def test_connection_lost(self) -> None:
        """Whether before or after the last byte, nobody can know."""
        for error in (
            smtplib.SMTPServerDisconnected("closed"),
            TimeoutError("timed out"),
            ConnectionResetError("reset"),
            BrokenPipeError("broken"),
        ):
            outcome = self.transfer(error)
            self.assertAnswers(outcome, UNKNOWN, UNKNOWN)
            self.assertIsNotNone(outcome.fault)

    def test_an_exception_never_means_accepted(self) -> None:
        """smtplib puts 250 into an exception if the relay is out of step; the mail was not sent."""
        for error in (
            smtplib.SMTPDataError(250, b"ok"),
            smtplib.SMTPSenderRefused(251, b"ok", "sender@example.org"),
            smtplib.SMTPRecipientsRefused({ONE: (252, b"ok"), TWO: (252, b"ok")}),
        ):
            self.assertAnswers(self.transfer(error), DEFERRED, DEFERRED)

    def test_anything_else(self) -> None:
        """An error that nobody knows never costs a mail; its class and text are told."""
        for error in (RuntimeError("TLS\r\nmissing"), KeyError("x"), OSError("disk"), UnicodeError("x")):
            outcome = self.transfer(error)
            self.assertAnswers(outcome, DEFERRED, DEFERRED)
            self.assertIsNone(outcome.fault)
        self.assertEqual(self.transfer(RuntimeError("TLS\r\nmissing")).replies[ONE].text, "RuntimeError: TLS missing")

    def test_exceptions_that_hold_nonsense(self) -> None:
        """A mailer may fill smtplib's exceptions with anything."""
        error = smtplib.SMTPDataError("no code", None)  # type: ignore[arg-type]  # servers make such errors of smtplib
        self.assertAnswers(self.transfer(error), DEFERRED, DEFERRED)


class TheMailerVotes(Situation):
    def test_without_vote_it_agrees(self) -> None:
        """A mailer that cannot vote is taken to agree."""
        self.assertAnswers(SendOnlySession(Mailer()).verify(ENVELOPE), ACCEPTED, ACCEPTED)

    def test_vote_gets_what_send_gets(self) -> None:
        """Sender, recipients, message."""
        mailer = VotingMailer()
        self.assertAnswers(SendOnlySession(mailer).verify(ENVELOPE, io.BytesIO(b"text")), ACCEPTED, ACCEPTED)
        self.assertEqual(mailer.voted, [("sender@example.org", (ONE, TWO), b"text")])

    def test_refusal(self) -> None:
        """What ``vote`` raises is judged as what ``send`` raises."""
        session = SendOnlySession(VotingMailer(verdict=smtplib.SMTPRecipientsRefused({ONE: (550, b"no")})))
        self.assertAnswers(session.verify(ENVELOPE), REJECTED, None)

    def test_lost_connection_is_not_unknown(self) -> None:
        """Nothing was sent, so there is nothing that nobody could know: the relay is at fault, the mail deferred."""
        session = SendOnlySession(VotingMailer(verdict=smtplib.SMTPServerDisconnected("closed")))
        outcome = session.verify(ENVELOPE)
        self.assertAnswers(outcome, DEFERRED, DEFERRED)
        self.assertFault(outcome, None)

    def test_vote_is_forgotten_at_the_end(self) -> None:
        """A vote without a mail is aborted when the session is closed, once; ``abort`` may raise."""
        mailer = VotingMailer()
        session = SendOnlySession(mailer)
        session.verify(ENVELOPE)
        session.close()
        session.close()
        self.assertEqual(mailer.aborted, 1)

    def test_sent_mail_is_not_aborted(self) -> None:
        """After ``send`` there is nothing to abort."""
        mailer = VotingMailer()
        session = SendOnlySession(mailer)
        session.verify(ENVELOPE)
        session.transfer(ENVELOPE, io.BytesIO(b"text"), lambda: None)
        session.close()
        self.assertEqual(mailer.aborted, 0)

    def test_without_abort(self) -> None:
        """Nobody needs an ``abort`` (7.3 raised AttributeError)."""
        mailer = Mailer()
        session = SendOnlySession(mailer)
        self.assertIsNone(session.verify(ENVELOPE).fault)
        session.rest()
        session.close()
        self.assertEqual(mailer.sent, [])


if __name__ == "__main__":
    unittest.main()
