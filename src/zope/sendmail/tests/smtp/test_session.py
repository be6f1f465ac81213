"""`zope.sendmail.smtp.session`: one conversation with a relay."""

from __future__ import annotations

import io
import smtplib
import socket
import unittest
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO, cast
from unittest import mock

from zope.interface.verify import verifyObject

from zope.sendmail.config.settings import Keep, RelaySettings, Timeouts, Tls
from zope.sendmail.events import MailEvent
from zope.sendmail.interfaces import ISession, LeaseLost
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.smtp.classification import LOGIN_CODES
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.smtp.onemail import Attempt
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.replylines import ReplyLines
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Action, Drop, Hang, Relay
from zope.sendmail.testing.relayscript import Script
from zope.sendmail.tests.support.conversation import AT_ONCE, MESSAGE, TIMEOUTS, Conversation

ACCEPTED, DEFERRED, REJECTED, UNKNOWN = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED, Answer.UNKNOWN

GOING_DOWN = "421 4.3.2 going down"

#: More than the buffers between us and the relay hold: it cannot be sent to the end if nobody reads.
LARGE = b"\n" + (b"x" * 78 + b"\r\n") * 200_000


class AMailIsTransferred(Conversation):
    def test_session_keeps_the_contract(self) -> None:
        """A session has everything that `ISession` names."""
        self.assertTrue(verifyObject(ISession, self.session(self.start())))

    def test_no_connection_before_first_use(self) -> None:
        """Opening a session costs nothing until there is a mail."""
        relay = self.start()
        self.session(relay)
        self.assertEqual(relay.dialogues, [])

    def test_every_recipient_gets_the_relays_reply(self) -> None:
        """The reply to the final dot, with the relay's words, counts for each accepted recipient."""
        relay = self.start()
        relay.on("DOT", "250 2.0.0 Ok: queued as 4F2A")
        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org")
        self.assertAnswers(outcome, one=ACCEPTED, two=ACCEPTED)
        reply = outcome.replies["two@example.org"]
        self.assertEqual((reply.code, reply.enhanced, reply.text), (250, "2.0.0", "Ok: queued as 4F2A"))
        self.assertEqual(outcome.relay, f"127.0.0.1:{relay.port}")
        self.assertIsNone(outcome.fault)

    def test_text_arrives_unchanged(self) -> None:
        """Line ends become CRLF, dots at line starts survive, and nothing else happens to the text."""
        relay = self.start()
        self.transfer(self.session(relay), message=b"Subject: x\n\n.one\n..two\n.\nthree")
        self.assertEqual(relay.mails[0].data, b"Subject: x\r\n\r\n.one\r\n..two\r\n.\r\nthree\r\n")

    def test_bcc_is_not_transmitted(self) -> None:
        """The header of hidden recipients stays here (7.3 sent it)."""
        relay = self.start()
        self.transfer(self.session(relay), message=b"Bcc: secret@example.org\nSubject: x\n\nText\n")
        self.assertEqual(relay.mails[0].data, b"Subject: x\r\n\r\nText\r\n")

    def test_null_sender(self) -> None:
        """The empty sender is the null reverse-path."""
        relay = self.start()
        self.assertAnswers(self.transfer(self.session(relay), sender=""), one=ACCEPTED)
        self.assertTrue(relay.commands[1].startswith("MAIL FROM:<>"))

    def test_unusual_addresses_go_out_as_they_are(self) -> None:
        """Nothing parses an address once more on its way to the wire."""
        relay = self.start()
        recipients = ('"a b,c"@example.org', "dots..too@example.org", "postmaster", "x@[IPv6:::1]")
        self.transfer(self.session(relay), *recipients)
        self.assertEqual(relay.mails[0].recipients, recipients)

    def test_line_break_in_an_address_never_reaches_the_relay(self) -> None:
        """An envelope that nobody checked cannot smuggle in a command."""
        relay = self.start()
        with self.assertRaises(ValueError):
            self.transfer(self.session(relay), "a@example.org>\r\nRCPT TO:<b@example.org")
        self.assertFalse([command for command in relay.commands if "b@example.org" in command])

    def test_relay_that_knows_helo_only(self) -> None:
        """A relay without EHLO gets its mail, too, without any options."""
        relay = self.start()
        relay.on("EHLO", "502 5.5.1 what?")
        self.assertAnswers(self.transfer(self.session(relay), message=b"\xff"), one=ACCEPTED)
        self.assertEqual(relay.mails[0].options, "")

    def test_relay_stands_as_it_is_set(self) -> None:
        """We introduce ourselves by the name that was given."""
        relay = self.start()
        self.transfer(self.session(relay))
        self.assertEqual(relay.commands[0], "ehlo client.test")


class TheMessageIsLarge(Conversation):
    def test_message_is_read_in_small_pieces(self) -> None:
        """25 MiB cost a few buffers of 64 KiB."""
        relay = self.start()
        relay.on("MAIL", "250 ok")
        message = _Endless(25 * 1024 * 1024)
        outcome = self.session(relay).transfer(
            Envelope("a@example.org", ("one@example.org",)), cast("BinaryIO", message), self.intend
        )
        self.assertAnswers(outcome, one=ACCEPTED)
        self.assertLessEqual(message.largest, 64 * 1024)
        self.assertEqual(len(relay.mails[0].data), message.size + 2)

    def test_intend_comes_before_the_last_piece(self) -> None:
        """When `intend` is called, the relay cannot have the final dot yet."""
        relay = self.start()
        seen: list[int] = []
        self.transfer(
            self.session(relay),
            message=b"\n" + b"x\n" * 500_000,
            intend=lambda: seen.append(len(relay.mails)),
        )
        self.assertEqual((seen, len(relay.mails)), ([0], 1))

    def test_size_is_announced(self) -> None:
        """SIZE is what goes over the wire: with CRLF, without the dots that are doubled (RFC 1870, 3)."""
        relay = self.start()
        self.transfer(self.session(relay), message=b".a\nb\n")
        self.assertEqual(relay.mails[0].options, "SIZE=7")

    def test_beyond_the_announced_limit_it_is_rejected_here(self) -> None:
        """A relay's limit is respected without sending the message, and the reply says whose it is."""
        relay = self.start(keywords=["SIZE 20"])
        reply = self.transfer(self.session(relay)).replies["one@example.org"]
        self.assertEqual((reply.answer, reply.code, reply.enhanced), (REJECTED, None, "5.3.4"))
        self.assertEqual(relay.verbs()[1:], ["RSET"])

    def test_limit_of_zero_is_none(self) -> None:
        """SIZE 0 says that there is no fixed limit (RFC 1870, 4)."""
        for keyword in ("SIZE", "SIZE 0"):
            self.assertAnswers(self.transfer(self.session(self.start(keywords=[keyword]))), one=ACCEPTED)

    def test_refusal_within_the_message_is_heard(self) -> None:
        """A relay that refuses and hangs up before the end has answered; no connection was lost."""
        relay = self.start()
        relay.on("BODY", Drop("552 5.3.4 too much"))
        for message in (b"\nx\n", b"\n" + b"x\n" * 5_000_000):
            self.assertAnswers(self.transfer(self.session(relay), message=message), one=REJECTED)


class TheMessageOrAnAddressIsNotAscii(Conversation):
    def test_8bit_text_is_announced(self) -> None:
        """BODY=8BITMIME goes with bytes beyond ASCII, and only with them (RFC 6152)."""
        relay = self.start(keywords=["8BITMIME"])
        session = self.session(relay)
        self.transfer(session, message="Subject: x\n\nGrüße\n".encode())
        self.transfer(session)
        self.assertEqual([mail.options for mail in relay.mails], ["BODY=8BITMIME", ""])

    def test_smtputf8_is_used_where_it_is_offered(self) -> None:
        """An address in any script goes to a relay that knows them (RFC 6531)."""
        relay = self.start()
        self.transfer(self.session(relay), "jörg@bücher.example")
        self.assertEqual(relay.mails[0].recipients, ("jörg@bücher.example",))
        self.assertIn("SMTPUTF8", relay.mails[0].options)

    def test_next_ascii_mail_is_without_smtputf8(self) -> None:
        """One international mail leaves no trace on the connection."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session, "jörg@example.org")
        self.transfer(session)
        self.assertNotIn("SMTPUTF8", relay.mails[1].options)

    def test_domain_is_translated_for_a_relay_without_it(self) -> None:
        """A domain has an ASCII form (RFC 5890); the answer is told for the address that was given."""
        relay = self.start(keywords=[])
        outcome = self.transfer(self.session(relay), "one@bücher.example", sender="a@bücher.example")
        self.assertAnswers(outcome, one=ACCEPTED)
        self.assertEqual(relay.mails[0].recipients, ("one@xn--bcher-kva.example",))
        self.assertEqual(relay.mails[0].sender, "a@xn--bcher-kva.example")

    def test_a_sharp_s_stays_one(self) -> None:
        """IDNA of 2003 makes "straße" into "strasse", where somebody else may live; browsers do not any more."""
        relay = self.start(keywords=[])
        self.assertAnswers(self.transfer(self.session(relay), "jane@straße.example"), jane=ACCEPTED)
        self.assertEqual(relay.mails[0].recipients, ("jane@xn--strae-oqa.example",))

    def test_such_a_recipient_is_rejected_and_the_others_are_served(self) -> None:
        """A local part beyond ASCII has no other form; it costs nobody else the mail (7.3 tried for ever)."""
        relay = self.start(keywords=[])
        outcome = self.transfer(self.session(relay), "jörg@example.org", "one@example.org")
        self.assertAnswers(outcome, jörg=REJECTED, one=ACCEPTED)
        reply = outcome.replies["jörg@example.org"]
        self.assertEqual((reply.code, reply.enhanced), (None, "5.6.7"))

    def test_such_a_sender_rejects_the_mail(self) -> None:
        """There is nobody the relay could answer to."""
        relay = self.start(keywords=[])
        outcome = self.transfer(self.session(relay), sender="jörg@example.org")
        self.assertAnswers(outcome, one=REJECTED)
        self.assertEqual(outcome.replies["one@example.org"].enhanced, "5.6.7")

    def test_nobody_left_is_no_mail(self) -> None:
        """If all recipients are such, the relay is not bothered."""
        relay = self.start(keywords=[])
        self.assertAnswers(self.transfer(self.session(relay), "jörg@example.org"), jörg=REJECTED)
        self.assertNotIn("MAIL", relay.verbs())


class TheRelayRefuses(Conversation):
    def test_a_recipient_is_refused_and_the_others_are_served(self) -> None:
        """A reply to RCPT belongs to its recipient (7.3 forgot those who were refused)."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
        relay.on("RCPT", "450 4.2.0 greylisted", about="<three@")
        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org", "three@example.org")
        self.assertAnswers(outcome, one=ACCEPTED, two=REJECTED, three=DEFERRED)
        self.assertEqual(str(outcome.replies["two@example.org"]), "550 5.1.1 no such user")
        self.assertEqual(relay.mails[0].recipients, ("one@example.org",))

    def test_greylisting_is_temporary(self) -> None:
        """450 for the only recipient defers the mail (7.3 rejected it at once)."""
        relay = self.start()
        relay.on("RCPT", "450 4.2.0 greylisted")
        outcome = self.transfer(self.session(relay))
        self.assertAnswers(outcome, one=DEFERRED)
        self.assertIsNone(outcome.fault)

    def test_too_many_recipients_are_temporary(self) -> None:
        """452 for a single recipient defers it (RFC 5321, 4.5.3.1.10)."""
        relay = self.start()
        relay.on("RCPT", "452 4.5.3 too many", about="<two@")
        self.assertAnswers(
            self.transfer(self.session(relay), "one@example.org", "two@example.org"),
            one=ACCEPTED,
            two=DEFERRED,
        )

    def test_all_recipients_refused_sends_nothing(self) -> None:
        """Without recipients there is no DATA; the relay forgets the mail and the connection stays."""
        relay = self.start(keywords=[])
        relay.on("RCPT", "550 5.1.1 no", nth=1)
        session = self.session(relay)
        self.assertAnswers(self.transfer(session), one=REJECTED)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(relay.verbs(), ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"])

    def test_all_recipients_refused_in_one_flight(self) -> None:
        """A DATA that was under way already is refused as well, and the connection stays."""
        relay = self.start(keywords=["PIPELINING"])
        relay.on("RCPT", "550 5.1.1 no", nth=1)
        session = self.session(relay)
        self.assertAnswers(self.transfer(session), one=REJECTED)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(relay.verbs(), ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA"])

    def test_sender_is_refused(self) -> None:
        """A reply to MAIL counts for all recipients."""
        relay = self.start()
        relay.on("MAIL", "550 5.7.1 not you")
        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org")
        self.assertAnswers(outcome, one=REJECTED, two=REJECTED)
        self.assertIsNone(outcome.fault)

    def test_data_is_refused(self) -> None:
        """A reply to DATA counts for those who were not refused before."""
        relay = self.start()
        relay.on("RCPT", "450 4.2.0 later", about="<two@")
        relay.on("DATA", "554 5.5.1 no")
        self.assertAnswers(
            self.transfer(self.session(relay), "one@example.org", "two@example.org"),
            one=REJECTED,
            two=DEFERRED,
        )

    def test_message_is_refused(self) -> None:
        """A reply to the final dot counts for all who were accepted, and the connection stays."""
        relay = self.start()
        relay.on("DOT", "554 5.7.1 spam", nth=1)
        session = self.session(relay)
        self.assertAnswers(self.transfer(session), one=REJECTED)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(relay.dialogues), 1)

    def test_message_is_deferred(self) -> None:
        """4xx after the final dot is temporary."""
        relay = self.start()
        relay.on("DOT", "451 4.3.0 disk full")
        self.assertAnswers(self.transfer(self.session(relay)), one=DEFERRED)

    def test_out_of_step_is_nobodys_rejection(self) -> None:
        """503 says that we and the relay are at different steps: temporary, on a new connection."""
        for point in ("MAIL", "RCPT", "DATA", "DOT"):
            with self.subTest(point):
                relay = self.start(keywords=["SIZE"])
                relay.on(point, "503 5.5.1 bad sequence", nth=1)
                session = self.session(relay)
                self.assertAnswers(self.transfer(session), one=DEFERRED)
                self.assertAnswers(self.transfer(session), one=ACCEPTED)
                self.assertEqual(len(relay.dialogues), 2)

    def test_login_wanted_for_a_recipient_is_temporary(self) -> None:
        """530 at RCPT is a matter of settings, but others may be accepted without a login."""
        relay = self.start()
        relay.on("RCPT", "530 5.7.0 log in first", about="<two@")
        self.assertAnswers(
            self.transfer(self.session(relay), "one@example.org", "two@example.org"),
            one=ACCEPTED,
            two=DEFERRED,
        )


class TheRelayCannotBeUsed(Conversation):
    def test_nobody_listens(self) -> None:
        """A refused connection is the relay's fault and costs no mail an answer (7.3: three hours)."""
        relay = self.start()
        relay.stop()
        outcome = self.transfer(self.session(relay))
        self.assertFaultOnly(outcome)
        self.assertIn("ConnectionRefusedError", str(outcome.fault))
        self.assertEqual(self.intended, 0)

    def test_host_is_unknown(self) -> None:
        """So is a name that does not resolve."""
        relay = self.start()
        self.assertFaultOnly(self.transfer(self.session(relay, hostname="relay.invalid")))

    def test_a_refusal_before_mail_blames_no_mail(self) -> None:
        """Greeting and EHLO say nothing about a mail (7.3 rejected the whole queue for a 554)."""
        for point, reply in [
            ("GREETING", "554 5.7.1 your address is blocked"),
            ("GREETING", "421 4.3.2 busy"),
            ("EHLO", "421 4.3.2 busy"),
            ("HELO", "550 5.7.1 no"),
        ]:
            with self.subTest(point=point, reply=reply):
                relay = self.start()
                if point == "HELO":
                    relay.on("EHLO", "500 5.5.1 what?")
                relay.on(point, reply)
                self.assertFaultOnly(self.transfer(self.session(relay)), int(reply[:3]))

    def test_connection_ends_before_mail(self) -> None:
        """Nor does a connection that ends at the greeting or at EHLO."""
        for point in ("GREETING", "EHLO"):
            relay = self.start()
            relay.on(point, Drop())
            self.assertFaultOnly(self.transfer(self.session(relay)))

    def test_no_answer_in_time_before_mail(self) -> None:
        """A relay that says nothing is given up after the time of its phase, and no mail is charged."""
        for point in ("GREETING", "EHLO"):
            with self.subTest(point):
                relay = self.start()
                relay.on(point, Hang())
                timeouts = replace(TIMEOUTS, greeting=AT_ONCE, command=AT_ONCE)
                self.assertFaultOnly(self.transfer(self.session(relay, timeouts=timeouts)))

    def test_a_greeting_without_end_before_mail(self) -> None:
        """It does not fill the memory, nor does an EHLO list."""
        for point in ("GREETING", "EHLO"):
            with self.subTest(point):
                relay = self.start()
                relay.on(point, "\r\n".join(["220-" + "x" * 100] * 1000))
                outcome = self.transfer(self.session(relay))
                self.assertFaultOnly(outcome)
                self.assertIn("more than 65536 octets", str(outcome.fault))

    def test_a_byte_now_and_then_before_mail(self) -> None:
        """The time of a phase is for a whole reply, in as many pieces and lines as it comes."""
        for piece in (b"2", b"220-x\r\n"):
            with self.subTest(piece):
                ours, theirs = socket.socketpair()
                self.enterContext(ours)
                self.enterContext(theirs)
                ours.settimeout(5.0)
                connection = smtplib.SMTP()
                connection.sock = ours
                clock = ManualClock()

                def peek(size: int, piece: bytes = piece, clock: ManualClock = clock) -> bytes:
                    clock.advance(1.0)
                    return piece

                stream = mock.Mock(peek=mock.Mock(side_effect=peek), read=lambda size, piece=piece: piece)
                connection.file = ReplyLines(connection, stream)
                with (
                    mock.patch("zope.sendmail.smtp.replylines.time.monotonic", clock.monotonic),
                    self.assertRaisesRegex(smtplib.SMTPServerDisconnected, "timed out"),
                ):
                    connection.getreply()
                self.assertEqual((stream.peek.call_count, ours.gettimeout()), (5, 5.0))


class TheRelayOrTheMailIsToBlame(Conversation):
    def test_connection_ends_before_the_final_dot(self) -> None:
        """Dropped or told 421 from MAIL to the dot: the relay's fault, and the mail is deferred."""
        for point in ("MAIL", "RCPT", "DATA", "BODY"):
            for action, code in ((Drop(), None), (GOING_DOWN, 421)):
                with self.subTest(point=point, action=action):
                    relay = self.start()
                    relay.on(point, action)
                    outcome = self.transfer(self.session(relay), message=LARGE if point == "BODY" else MESSAGE)
                    self.assertBoth(outcome, code, one=DEFERRED)
        self.assertEqual(self.intended, 0)

    def test_everybody_who_was_not_refused_is_deferred(self) -> None:
        """Who was refused stays so; who was accepted, was being asked or would have been asked is deferred."""
        for action, code in ((Drop(), None), (GOING_DOWN, 421)):
            relay = self.start()
            relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
            relay.on("RCPT", action, about="<three@")
            recipients = [f"{name}@example.org" for name in ("one", "two", "three", "four")]
            outcome = self.transfer(self.session(relay), *recipients)
            self.assertBoth(outcome, code, one=DEFERRED, two=REJECTED, three=DEFERRED, four=DEFERRED)

    def test_definite_answers_are_kept(self) -> None:
        """Who was refused before the connection ended keeps the relay's words; the others are deferred."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
        relay.on("RCPT", "450 4.2.0 greylisted", about="<three@")
        relay.on("DATA", Drop())
        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org", "three@example.org")
        self.assertAnswers(outcome, one=DEFERRED, two=REJECTED, three=DEFERRED)
        self.assertIsNotNone(outcome.fault)
        self.assertEqual(outcome.replies["one@example.org"], outcome.fault)
        self.assertEqual(str(outcome.replies["two@example.org"]), "550 5.1.1 no such user")
        self.assertEqual(str(outcome.replies["three@example.org"]), "450 4.2.0 greylisted")

    def test_421_after_the_dot_is_an_answer(self) -> None:
        """The relay had the mail and did not take it: deferred, and the relay is going."""
        relay = self.start()
        relay.on("DOT", GOING_DOWN)
        self.assertBoth(self.transfer(self.session(relay)), 421, one=DEFERRED)

    def test_settings_charge_both(self) -> None:
        """A relay that wants a login or TLS at MAIL or later may mean this sender only."""
        for point in ("MAIL", "DATA", "DOT"):
            for code in LOGIN_CODES | {454}:
                with self.subTest(point=point, code=code):
                    relay = self.start()
                    relay.on(point, f"{code} 5.7.0 first something else")
                    self.assertBoth(self.transfer(self.session(relay)), code, one=DEFERRED)

    def test_no_answer_in_time(self) -> None:
        """From MAIL to the dot a relay that says nothing is at fault after its time, and the mail is deferred."""
        for point in ("MAIL", "RCPT", "DATA", "BODY"):
            with self.subTest(point):
                relay = self.start()
                relay.on(point, Hang())
                timeouts = replace(TIMEOUTS, command=AT_ONCE, data=AT_ONCE, block=AT_ONCE, quit=AT_ONCE)
                session = self.session(relay, _PatientAtFirst, timeouts=timeouts)
                outcome = self.transfer(session, message=LARGE if point == "BODY" else MESSAGE)
                self.assertBoth(outcome, one=DEFERRED)
        self.assertEqual(self.intended, 0)

    def test_replies_have_an_end(self) -> None:
        """A reply without end, in one line or in many, does not fill the memory; it counts as a lost connection."""
        for endless in ("250-" + "x" * 10_000, "\r\n".join(["250-x" * 100] * 1000)):
            relay = self.start()
            relay.on("MAIL", endless)
            self.assertBoth(self.transfer(self.session(relay)), one=DEFERRED)

    def test_nonsense_is_no_refusal(self) -> None:
        """What is no reply at all blames the relay and rejects nobody: the mail is deferred."""
        for point in ("MAIL", "RCPT", "DATA"):
            relay = self.start()
            relay.on(point, "hello?")
            self.assertBoth(self.transfer(self.session(relay)), one=DEFERRED)


class TheLoginIsNotGoodEnough(Conversation):
    """The relay has taken it, and wants one nevertheless."""

    def logged_in(self, relay: Relay) -> SMTPSession:
        """A session that logs in."""
        return self.session(relay, username="me", password="secret", tls=Tls.NEVER, allow_clear_password=True)

    def relay(self) -> Relay:
        """It knows one user."""
        return self.start(users={"me": "secret"})

    def test_is_about_the_mail(self) -> None:
        """What the relay wants of one sender does not stop the others."""
        for point in ("MAIL", "DATA", "DOT"):
            for code in LOGIN_CODES:
                with self.subTest(point=point, code=code):
                    relay = self.relay()
                    relay.on(point, f"{code} 5.7.0 not as this sender", nth=1)
                    session = self.logged_in(relay)
                    outcome = self.transfer(session)
                    self.assertAnswers(outcome, one=DEFERRED)
                    self.assertIsNone(outcome.fault)
                    self.assertAnswers(self.transfer(session), one=ACCEPTED)

    def test_temporary_trouble_is_about_both(self) -> None:
        """454 speaks of the relay's own means, so it is paused as well."""
        relay = self.relay()
        relay.on("MAIL", "454 4.7.0 throttled")
        self.assertBoth(self.transfer(self.logged_in(relay)), 454, one=DEFERRED)

    def test_has_expired(self) -> None:
        """A login that does not last as long as its connection is made anew, and the mail goes at once."""
        relay = self.relay()
        session = self.logged_in(relay)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        relay.on("MAIL", "530 5.7.0 log in first", nth=1)
        outcome = self.transfer(session)
        self.assertAnswers(outcome, one=ACCEPTED)
        self.assertEqual([verbs.count("AUTH") for verbs in map(relay.verbs, range(2))], [1, 1])

    def test_was_withdrawn(self) -> None:
        """If it cannot be made anew, that is the relay's matter."""
        relay = self.relay()
        session = self.logged_in(relay)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        relay.on("MAIL", "530 5.7.0 log in first", nth=1)
        relay.users.clear()
        self.assertFaultOnly(self.transfer(session), 535)


class AQueueIsDrained(Conversation):
    def put(self, queue: MemoryQueue, sender: str, message: bytes = MESSAGE) -> str:
        """One more mail in `queue`; its name there."""
        staged = queue.stage()
        name = staged.add(Envelope(sender, ("one@example.org",)), message)
        staged.prepare()
        staged.commit()
        return name

    def test_a_mail_at_which_the_relay_hangs_up_blocks_no_other(self) -> None:
        """It is tried first each time it is due, and yet the others go as soon as the relay is tried again."""
        for point, action in _GRUDGES:
            with self.subTest(point=point, action=action):
                relay = self.start()
                relay.script = _Grudge(point, action, "bad@example.org")
                mailer = SMTPMailer(relay.host, relay.port, connections=1, timeouts=TIMEOUTS, clock=self.clock)
                queue = MemoryQueue(schedule=Schedule(first=60.0, jitter=0.0), clock=self.clock)
                processor = QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock, tell=_nobody)
                bad = self.put(queue, "bad@example.org", LARGE if point == "BODY" else MESSAGE)
                for delay in (60.0, 120.0, 240.0):
                    self.put(queue, "good@example.org")
                    self.put(queue, "good@example.org")
                    processor.run(forever=False)
                    self.assertEqual(queue.admin.count(), {State.DEFERRED: 1, State.READY: 2})
                    self.assertIsNotNone(processor.fault)
                    self.clock.advance(5.0)
                    processor.run(forever=False)
                    self.assertEqual(queue.admin.count(), {State.DEFERRED: 1})
                    self.assertIsNone(processor.fault)
                    self.assertEqual(queue.next_due(), delay - 5.0)
                    self.clock.advance(delay - 5.0)
                self.assertEqual([mail.sender for mail in relay.mails], ["good@example.org"] * 6)
                self.assertEqual([record.attempts for record in queue.admin.show(bad).history], [1, 2, 3])
                self.assertEqual(processor.tally, {ACCEPTED: 6, DEFERRED: 3})

    def test_a_sender_for_whom_the_login_does_not_do_stops_nothing(self) -> None:
        """The relay is not even paused: the others go in the same run."""
        relay = self.start(users={"me": "secret"})
        relay.script = _Grudge("MAIL", "530 5.7.0 not as this sender", "bad@example.org")
        login: dict[str, Any] = {"username": "me", "password": "secret", "tls": "never", "allow_clear_password": True}
        queue = MemoryQueue(schedule=Schedule(first=60.0, jitter=0.0), clock=self.clock)
        for sender in ("bad", "good", "bad", "good", "good"):
            self.put(queue, f"{sender}@example.org")
        mailer = SMTPMailer(relay.host, relay.port, connections=1, timeouts=TIMEOUTS, clock=self.clock, **login)
        processor = QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock, tell=_nobody)
        processor.run(forever=False)
        self.assertEqual((queue.admin.count(), processor.fault), ({State.DEFERRED: 2}, None))
        self.assertEqual(processor.tally, {ACCEPTED: 3, DEFERRED: 2})


class NobodyCanKnow(Conversation):
    def test_connection_ends_after_the_dot(self) -> None:
        """No reply to the dot: unknown for all who were accepted, and the relay is at fault (RFC 1047)."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no", about="<two@")
        relay.on("DOT", Drop())
        outcome = self.transfer(self.session(relay), "one@example.org", "two@example.org")
        self.assertAnswers(outcome, one=UNKNOWN, two=REJECTED)
        self.assertIsNotNone(outcome.fault)
        self.assertEqual(self.intended, 1)

    def test_no_answer_after_the_dot_in_time(self) -> None:
        """The wait for the last reply has its own, long time; at its end the outcome is unknown."""
        relay = self.start()
        relay.on("DOT", Hang())
        outcome = self.transfer(self.session(relay, timeouts=replace(TIMEOUTS, final=AT_ONCE)))
        self.assertAnswers(outcome, one=UNKNOWN)

    def test_each_phase_has_its_time(self) -> None:
        """Above all the last one: who gives up too early after the dot sends twice (7.3 did).

        Nothing is waited for at the end: a goodbye would cost a round trip, and tell nothing.
        """
        relay = self.start()
        timeouts = Timeouts(connect=11.0, command=12.0, data=13.0, block=14.0, final=15.0, quit=16.0)
        session = self.session(relay, _Waiting, timeouts=timeouts)
        self.transfer(session)
        waiting = session.connection
        session.close()
        greeting, ehlo, mail, rcpt, data, dot = waiting.waits
        self.assertEqual((greeting, ehlo, mail, rcpt, data, dot), (11, 12, 12, 12, 13, 15))

    def test_nonsense_after_the_dot(self) -> None:
        """What is no reply does not say whether the relay has the mail."""
        relay = self.start()
        relay.on("DOT", "hello?")
        self.assertAnswers(self.transfer(self.session(relay)), one=UNKNOWN)


class TheTransferIsStopped(Conversation):
    def test_lease_is_lost(self) -> None:
        """What `intend` raises comes through, and the relay does not get the mail."""
        relay = self.start()
        session = self.session(relay)

        def lost() -> None:
            raise LeaseLost("somebody else has it")

        with self.assertRaises(LeaseLost):
            self.transfer(session, intend=lost)
        relay.wait_until(lambda: relay.open == 0)
        self.assertEqual(relay.mails, [])
        self.assertIsNone(session.connection)

    def test_disk_fails_within_the_message(self) -> None:
        """An error of the queue's disk is raised, not charged to the relay; the relay has no half mail."""
        relay = self.start(keywords=[])
        session = self.session(relay)
        with self.assertRaisesRegex(OSError, "disk"):
            session.transfer(Envelope("a@example.org", ("b@example.org",)), cast("BinaryIO", _Broken()), self.intend)
        relay.wait_until(lambda: relay.open == 0)
        self.assertEqual((relay.mails, self.intended), ([], 0))

    def test_next_mail_goes(self) -> None:
        """A stopped transfer costs the session nothing but its connection."""
        relay = self.start(keywords=[])
        session = self.session(relay)
        with self.assertRaises(OSError):
            session.transfer(Envelope("a@example.org", ("b@example.org",)), cast("BinaryIO", _Broken()), self.intend)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)


class TheConnectionIsKept(Conversation):
    def test_several_mails_share_it(self) -> None:
        """One connection, one greeting; no RSET is needed after a mail that was taken."""
        relay = self.start()
        session = self.session(relay)
        for _ in range(3):
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(relay.verbs(), ["EHLO", *["MAIL", "RCPT", "DATA"] * 3])
        self.assertEqual(len(relay.dialogues), 1)

    def test_dead_one_is_replaced(self) -> None:
        """A relay that hung up meanwhile, with a farewell or without, costs a new connection."""
        for farewell in ("", "421 4.4.2 idle too long"):
            relay = self.start()
            session = self.session(relay)
            self.transfer(session)
            relay.hang_up(farewell)
            outcome = self.transfer(session)
            self.assertAnswers(outcome, one=ACCEPTED)
            self.assertIsNone(outcome.fault)
            self.assertEqual((len(relay.dialogues), len(relay.mails)), (2, 2))

    def test_it_is_replaced_once(self) -> None:
        """If the new connection ends at MAIL as well, the relay is at fault and the mail is deferred."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session)
        relay.on("MAIL", GOING_DOWN)
        self.assertBoth(self.transfer(session), 421, one=DEFERRED)
        self.assertEqual(len(relay.dialogues), 2)

    def test_it_cannot_be_replaced(self) -> None:
        """If there is no new connection, only the relay is at fault, although the old one ended at MAIL."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session)
        relay.on("MAIL", GOING_DOWN)
        relay.on("EHLO", Drop())
        self.assertFaultOnly(self.transfer(session))
        self.assertEqual(len(relay.dialogues), 2)

    def test_relay_restarts(self) -> None:
        """A fault is over as soon as the relay is back (7.3 never connected again)."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session)
        relay.stop()
        self.assertFaultOnly(self.transfer(session))
        relay.start()
        self.assertAnswers(self.transfer(session), one=ACCEPTED)

    def test_it_tells_how_far_away_the_relay_is(self) -> None:
        """As soon as that has answered EHLO once; another session of this process knows it when it is connected."""
        relay = self.start()
        relay.on("GREETING", Drop(), nth=1)
        session = self.session(relay)
        DISTANCES.clear()  # the port may have been another relay's
        self.transfer(session)
        self.assertIsNone(session.distance())
        self.transfer(session)
        distance = session.distance()
        assert distance is not None
        self.assertGreater(distance, 0.0)
        self.assertLess(distance, 60.0)

    def test_after_a_failure_it_is_a_new_one(self) -> None:
        """Whatever went wrong, the next mail does not meet its remains (7.3 was stuck for ever)."""
        for point in ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"):
            for action in (Drop(), GOING_DOWN):
                with self.subTest(point=point, action=action):
                    relay = self.start(keywords=["SIZE"])
                    relay.on(point, action, nth=1)
                    session = self.session(relay)
                    self.assertIsNotNone(self.transfer(session).fault)
                    self.assertAnswers(self.transfer(session), one=ACCEPTED)

    def test_it_ends_by_age(self) -> None:
        """After `Keep.age` seconds the next mail gets a new connection, and the old one a QUIT."""
        relay = self.start()
        session = self.session(relay, keep=Keep(age=60.0))
        self.transfer(session)
        self.clock.advance(60.0)
        self.transfer(session)
        relay.wait_until(lambda: relay.verbs(0)[-1] == "QUIT")
        self.assertEqual(len(relay.dialogues), 2)

    def test_it_ends_by_number(self) -> None:
        """After `Keep.mails` mails likewise."""
        relay = self.start()
        session = self.session(relay, keep=Keep(mails=2))
        for _ in range(3):
            self.transfer(session)
        self.assertEqual([mail.connection for mail in relay.mails], [0, 0, 1])

    def test_it_ends_by_idleness(self) -> None:
        """`rest` closes what nobody used for `Keep.idle` seconds, and not before."""
        relay = self.start()
        session = self.session(relay, keep=Keep(idle=15.0))
        self.transfer(session)
        self.clock.advance(14.0)
        session.rest()
        self.assertIsNotNone(session.connection)
        self.clock.advance(1.0)
        session.rest()
        self.assertIsNone(session.connection)
        relay.wait_until(lambda: relay.open == 0)
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")

    def test_rest_without_a_connection_is_nothing(self) -> None:
        """A session that was never used rests in peace."""
        relay = self.start()
        self.session(relay).rest()
        self.assertEqual(relay.dialogues, [])

    def test_connection_that_fails_at_the_reset_is_dropped(self) -> None:
        """A refused mail is refused, even if the relay then does not answer to RSET."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no", nth=1)
        relay.on("RSET", Drop(), nth=1)
        session = self.session(relay)
        outcome = self.transfer(session)
        self.assertAnswers(outcome, one=REJECTED)
        self.assertIsNone(outcome.fault)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)


class TheSessionIsClosed(Conversation):
    def test_relay_is_told(self) -> None:
        """The relay gets a QUIT."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session)
        session.close()
        self.assertIsNone(session.connection)
        relay.wait_until(lambda: relay.open == 0)
        self.assertEqual(relay.verbs()[-1], "QUIT")

    def test_trouble_at_quit_is_none(self) -> None:
        """Whatever the relay does at QUIT, what it had accepted stays accepted, and nothing is raised."""
        for action in (Drop(), GOING_DOWN, "500 5.5.1 what?", Hang()):
            relay = self.start()
            relay.on("QUIT", action)
            session = self.session(relay, timeouts=replace(TIMEOUTS, quit=AT_ONCE))
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
            session.close()
            self.assertIsNone(session.connection)

    def test_closing_twice_is_harmless(self) -> None:
        """So is closing what was never open."""
        relay = self.start()
        session = self.session(relay)
        session.close()
        session.close()
        self.assertEqual(relay.commands, [])

    def test_it_can_be_used_again(self) -> None:
        """The next mail opens a new connection."""
        relay = self.start()
        session = self.session(relay)
        self.transfer(session)
        session.close()
        self.assertAnswers(self.transfer(session), one=ACCEPTED)


class TheEnvelopeIsProved(Conversation):
    ENVELOPE = Envelope("sender@example.org", ("one@example.org", "two@example.org"))

    def test_nothing_is_sent(self) -> None:
        """MAIL, RCPT, RSET, and the connection stays for the mail itself."""
        relay = self.start()
        session = self.session(relay)
        self.assertAnswers(session.verify(self.ENVELOPE), one=ACCEPTED, two=ACCEPTED)
        self.assertEqual(relay.verbs(), ["EHLO", "MAIL", "RCPT", "RCPT", "RSET"])
        self.transfer(session)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (1, 1))

    def test_each_recipient_has_its_reply(self) -> None:
        """Refusals are told before anything is sent (7.3 learnt of them when the transaction was over)."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about="<two@")
        self.assertAnswers(self.session(relay).verify(self.ENVELOPE), one=ACCEPTED, two=REJECTED)

    def test_all_are_refused(self) -> None:
        """Also if nobody is left."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user")
        self.assertAnswers(self.session(relay).verify(self.ENVELOPE), one=REJECTED, two=REJECTED)

    def test_relay_trouble_is_told(self) -> None:
        """A fault is an outcome here, too."""
        relay = self.start()
        relay.on("EHLO", Drop())
        self.assertFaultOnly(self.session(relay).verify(self.ENVELOPE))

    def test_connection_ends_on_the_way(self) -> None:
        """From MAIL on it is the relay's fault and defers the mail; nothing was sent, so nothing is unknown."""
        cases: list[tuple[str, Action, int | None]] = [
            ("MAIL", Drop(), None),
            ("MAIL", GOING_DOWN, 421),
            ("RCPT", Drop(), None),
            ("RCPT", GOING_DOWN, 421),
        ]
        for point, action, code in cases:
            with self.subTest(point=point, action=action):
                relay = self.start()
                relay.on(point, action)
                self.assertBoth(self.session(relay).verify(self.ENVELOPE), code, one=DEFERRED, two=DEFERRED)

    def test_relay_has_enough_of_resets(self) -> None:
        """What it said about the envelope counts; the next one has a new connection (Exim: smtp_accept_max_nonmail)."""
        for action in (Drop(), Drop("554 Too many nonmail commands"), "500 5.5.1 no"):
            relay = self.start()
            relay.on("RSET", action, nth=2)
            session = self.session(relay)
            for _ in range(4):
                self.assertAnswers(session.verify(self.ENVELOPE), one=ACCEPTED, two=ACCEPTED)
            self.assertEqual(len(relay.dialogues), 2)

    def test_connection_has_a_rest_from_questions(self) -> None:
        """After fifty envelopes that were only asked about it is another one (Postfix: smtpd_junk_command_limit)."""
        relay = self.start()
        session = self.session(relay)
        for _ in range(60):
            self.assertAnswers(session.verify(self.ENVELOPE), one=ACCEPTED, two=ACCEPTED)
        self.assertEqual([relay.verbs(number).count("RSET") for number in range(2)], [50, 10])

    def test_size_is_proved_with_the_message(self) -> None:
        """Given the message, the relay's limit counts already now."""
        relay = self.start(keywords=["SIZE 20"])
        outcome = self.session(relay).verify(self.ENVELOPE, io.BytesIO(MESSAGE))
        self.assertAnswers(outcome, one=REJECTED, two=REJECTED)

    def test_recipients_beyond_the_limit_have_their_replies(self) -> None:
        """They are asked about in questions of their own; one of which all are refused refuses nobody else."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about="two@")
        envelope = Envelope("s@example.org", ("one@example.org", "two@example.org", "three@example.org"))
        outcome = self.session(relay, recipient_limit=1).verify(envelope)
        self.assertAnswers(outcome, one=ACCEPTED, two=REJECTED, three=ACCEPTED)
        self.assertEqual((outcome.unasked, relay.mails), ((), []))

    def test_a_relay_that_is_out_of_step_is_asked_over_another_connection(self) -> None:
        """503 to a recipient says that the relay and we do not mean the same command any more."""
        relay = self.start(keywords=())
        relay.on("RCPT", "503 5.5.1 MAIL first", about="two@")
        session = self.session(relay)
        outcome = session.verify(Envelope("s@example.org", ("one@example.org", "two@example.org")))
        self.assertAnswers(outcome, one=ACCEPTED, two=DEFERRED)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual([mail.connection for mail in relay.mails], [1])

    def test_one_that_knows_sendmail_only_is_not_asked(self) -> None:
        """A class of a test, or of old, is taken to agree; no mail goes ahead of another with it."""
        session = SMTPSession(RelaySettings, lambda _: _Sendmail(), self.clock)
        envelope = Envelope("s@example.org", ("one@example.org",))
        self.assertAnswers(session.verify(envelope), one=ACCEPTED)
        self.assertFalse(session.may_overlap())
        self.assertIsNone(
            session.prepare(Attempt(Progress(envelope), io.BytesIO(MESSAGE), self.intend), overlaps=False)
        )

    def test_what_a_class_of_its_own_cannot_do_is_told(self) -> None:
        """Whatever error of smtplib it has for that; there is no other address to be tried."""
        session = SMTPSession(RelaySettings, lambda _: _Sendmail(), self.clock)
        outcome = self.transfer(session, "jörg@example.org")
        self.assertAnswers(outcome, jörg=DEFERRED)
        self.assertIn("SMTPUTF8 not supported", outcome.replies["jörg@example.org"].text)


class SettingsChange(Conversation):
    def test_next_mail_goes_to_the_new_relay(self) -> None:
        """Settings are asked for before each mail, not when the processor was started (7.3 froze them)."""
        old, new = self.start(), self.start()
        session = self.session(old)
        self.transfer(session)
        settings = self.settings(new)
        session._settings = lambda: settings
        outcome = self.transfer(session)
        self.assertEqual((len(old.mails), len(new.mails)), (1, 1))
        self.assertEqual(outcome.relay, f"127.0.0.1:{new.port}")
        old.wait_until(lambda: old.verbs()[-1] == "QUIT")

    def test_contradicting_settings_are_a_fault(self) -> None:
        """They cost no mail anything, and nothing is raised."""
        session = self.session(self.start())
        session._settings = lambda: self.settings(self.start(), hostname="")
        outcome = self.transfer(session)
        self.assertFaultOnly(outcome)
        self.assertIn("hostname", str(outcome.fault))


class _Endless(io.RawIOBase):
    """A message of lines, made while it is read; remembers the largest piece that was asked for."""

    LINE = b"\r\n" + b"x" * 78  # the header block is empty

    def __init__(self, size: int) -> None:
        self.size = size // 80 * 80
        self.position = 0
        self.largest = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise AssertionError("the whole message was asked for")
        self.largest = max(self.largest, size)
        end = min(self.position + size, self.size)
        offset = self.position % 80
        text = (self.LINE * ((end - self.position) // 80 + 2))[offset : offset + end - self.position]
        self.position = end
        return text

    def tell(self) -> int:
        return self.position

    def seek(self, position: int, whence: int = 0) -> int:
        self.position = position
        return position


def _nobody(events: Iterable[MailEvent]) -> None:
    """Nobody is told."""


#: What a relay may have against one mail, and say as if it were about all.
_GRUDGES: list[tuple[str, Action]] = [
    *((point, action) for point in ("MAIL", "RCPT", "DATA", "BODY") for action in (Drop(), GOING_DOWN)),
    *((point, reply) for point in ("MAIL", "DATA") for reply in ("530 5.7.0 log in first", "454 4.7.0 not now")),
]


class _Grudge(Script):
    """Does one thing at one point of each mail from one sender."""

    def __init__(self, point: str, deed: Action, sender: str) -> None:
        super().__init__()
        self.point, self.deed, self.sender = point, deed, sender
        self.recognized = False

    def action(self, point: str, command: str) -> Action | None:
        if point == "MAIL":
            self.recognized = f"<{self.sender}>" in command
        return self.deed if self.recognized and point == self.point else None


class _Sendmail:
    """A connection that knows ``sendmail`` only."""

    def sendmail(self, *arguments: object) -> dict[str, tuple[int, bytes]]:
        raise smtplib.SMTPNotSupportedError("SMTPUTF8 not supported by server")


class _Broken(io.RawIOBase):
    """A message whose second piece cannot be read."""

    def __init__(self) -> None:
        self.pieces: Iterator[bytes] = iter([b"Subject: x\n\n", b"text\n"])

    def read(self, size: int = -1) -> bytes:
        for piece in self.pieces:
            return piece
        raise OSError("the disk fails")


class _Waiting(smtplib.SMTP):
    """Writes down how long it would have waited for each reply."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.waits: list[float | None] = []
        super().__init__(*args, **options)

    def getreply(self) -> tuple[int, bytes]:
        assert self.sock is not None
        self.waits.append(self.sock.gettimeout())
        return super().getreply()


class _PatientAtFirst(smtplib.SMTP):
    """Waits for the answer to EHLO as long as a loaded machine needs."""

    def ehlo(self, name: str = "") -> tuple[int, bytes]:
        assert self.sock is not None
        told = self.sock.gettimeout()
        self.sock.settimeout(TIMEOUTS.command)
        try:
            return super().ehlo(name)
        finally:
            self.sock.settimeout(told)


if __name__ == "__main__":
    unittest.main()
