"""`zope.sendmail.smtp.ordinary`: mails that go the straight way, and where they leave it, over real sockets."""

from __future__ import annotations

import smtplib
import socket
import unittest
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.interfaces import IOrdinaryJob, LeaseLost
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.smtp.connect import connect
from zope.sendmail.smtp.ordinary import OrdinaryAttempt
from zope.sendmail.smtp.protocol.commands import Extensions
from zope.sendmail.smtp.replylines import read_by_lines
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.smtp.test_channel import Faulty
from zope.sendmail.tests.smtp.test_pipeline import Job, Streams
from zope.sendmail.tests.support.conversation import AT_ONCE, TIMEOUTS
from zope.sendmail.tests.support.sockets import socket_directory

#: More than any message has.
ALL = 1 << 20

TEXT = b"Subject: x\r\n\r\nHello\r\n"


@implementer(IOrdinaryJob)
@dataclass
class OrdinaryJob(Job):
    """The same, with its text at hand."""

    @property
    def text(self) -> bytes | None:
        """See `IOrdinaryJob`."""
        return self.message if isinstance(self.message, bytes) else None


class Ordinary(Streams):
    def sent(self, session: SMTPSession, kind: type[Job], *texts: bytes) -> list[Outcome | Exception]:
        """Send a mail for each text behind two others, since a relay is not trusted at once; return their results."""
        results = self.send(session, *(kind(f"n{number}", text) for number, text in enumerate((TEXT, TEXT, *texts))))
        return list(results.values())[2:]


class TheTextArrives(Ordinary):
    def test_as_by_the_long_way(self) -> None:
        """Whatever its line ends are, and also where it leaves the straight way for its Bcc."""
        texts = (
            b"a: b\n\nc\n",
            b"a: b\r\n\r\nc",
            b"a: b\r\rc",
            b"a: b\n\n.c\n.\n",
            b".a: b\n\nc\n",
            b"Bcc: secret@example.org\na: b\n\nc\n",
        )
        with mock.patch.object(OrdinaryAttempt, "write", autospec=True, side_effect=OrdinaryAttempt.write) as written:
            arrived = []
            for kind in (Job, OrdinaryJob):
                relay, session = self.open()
                self.sent(session, kind, *texts)
                arrived.append([mail.data for mail in relay.mails])
        self.assertEqual(arrived[0], arrived[1])
        self.assertEqual(written.call_count, len(texts))

    def test_by_the_straight_way_if_it_has_the_letters_of_bcc_and_no_such_field(self) -> None:
        """As chance has them in a signature or an attachment, which is base64."""
        for field, text in (
            (False, b"DKIM-Signature: b=aBcC\n\nx\n"),
            (False, b"a: b\n\nBcc: one@example.org\n"),
            (True, b"a: b\nbCC : one@example.org\n\nx\n"),
            (True, b"a: b\rResent-Bcc: one@example.org\r\rx\r"),
        ):
            with self.subTest(text):
                self.assertIs(OrdinaryAttempt(OrdinaryJob("one", text), text).write(Extensions()), not field)

    def test_only_where_it_is_ascii_and_for_few(self) -> None:
        """A mail for many, or to an address in another script, goes the long way, and arrives."""
        relay, session = self.open()
        self.assertTaken(
            self.send(session, "one", OrdinaryJob("many", TEXT, recipients=30), OrdinaryJob("jörg", TEXT)), "many"
        )
        self.assertEqual([len(mail.recipients) for mail in relay.mails], [1, 30, 1])


class TheReply(Ordinary):
    def test_is_told_as_the_relay_said_it(self) -> None:
        """With an enhanced code (RFC 2034), or without one."""
        for said, told in (("250 2.6.0 queued", "2.6.0"), ("250 queued", None)):
            with self.subTest(said):
                relay, session = self.open()
                relay.on("DOT", said)
                (outcome,) = self.sent(session, OrdinaryJob, TEXT)
                assert isinstance(outcome, Outcome)
                (reply,) = outcome.replies.values()
                self.assertEqual((reply.code, reply.enhanced, reply.text), (250, told, "queued"))


class TheLeaseIsLost(Ordinary):
    def test_before_the_end_of_the_text(self) -> None:
        """No octet of it has gone; what was raised is the mail's result, and the next one is sent."""
        lost = LeaseLost("another processor has it")

        def intend() -> None:
            raise lost

        relay, session = self.open()
        jobs = [OrdinaryJob(name, TEXT) for name in ("one", "two", "lost", "four")]
        jobs[2].intend = intend
        results = self.send(session, *jobs)
        self.assertIs(results["lost"], lost)
        self.assertTaken(results, "one", "two", "four")
        self.assertEqual(len(relay.mails), 3)


class TheConnectionBreaks(Ordinary):
    """While the end of the third mail, and the envelope of the fourth behind it, are sent."""

    #: Of the first two.
    BEFORE = (ALL, ALL, ALL, ALL)

    def run_of(self, names: str, *faults: int | OSError) -> tuple[Relay, list[Outcome]]:
        relay = self.start()

        def opened(settings: RelaySettings) -> Any:
            connection = connect(settings, smtplib.SMTP)
            sock = Faulty(fileno=connection.sock.detach())
            sock.will(*(() if relay.mails else (*self.BEFORE, *faults)))
            connection.sock, connection.file = sock, None
            read_by_lines(connection)
            return connection

        settings = self.settings(relay, timeouts=replace(TIMEOUTS, quit=AT_ONCE))  # its last words do not come
        session = SMTPSession(lambda: settings, opened, self.clock)
        self.addCleanup(session.close)
        results = self.send(session, *(OrdinaryJob(name, TEXT) for name in names.split()))
        outcomes = [result for result in results.values() if isinstance(result, Outcome)]
        self.assertEqual(len(outcomes), len(results))
        return relay, outcomes

    def test_behind_the_message(self) -> None:
        """It has gone, and the relay's reply counts; the next one begins anew over another connection."""
        relay, outcomes = self.run_of("one two three four", len(TEXT) + 3 + 4, ConnectionResetError("reset"))
        for outcome in outcomes:
            self.assertEqual([reply.answer for reply in outcome.replies.values()], [Answer.ACCEPTED])
        self.assertEqual([mail.connection for mail in relay.mails], [0, 0, 0, 1])

    def test_within_the_message(self) -> None:
        """The relay cannot have it: it is deferred; the next one goes."""
        relay, outcomes = self.run_of("one two three four", 5, ConnectionResetError("reset"))
        answers = [reply.answer for outcome in outcomes for reply in outcome.replies.values()]
        self.assertEqual(answers, [Answer.ACCEPTED, Answer.ACCEPTED, Answer.DEFERRED, Answer.ACCEPTED])
        self.assertEqual([mail.recipients[0].partition("@")[0] for mail in relay.mails], ["one", "two", "four"])

    def test_within_the_last_message(self) -> None:
        """Nothing is behind it; the others have their replies."""
        relay, outcomes = self.run_of("one two three", 5, ConnectionResetError("reset"))
        answers = [reply.answer for outcome in outcomes for reply in outcome.replies.values()]
        self.assertEqual(answers, [Answer.ACCEPTED, Answer.ACCEPTED, Answer.DEFERRED])
        self.assertEqual(len(relay.mails), 2)


class AUnixSocket(Streams):
    def test_is_a_relay_as_any_other(self) -> None:
        """A hostname that is a path."""
        path = f"{self.enterContext(socket_directory())}/relay"
        self.start(path=path)
        settings = RelaySettings(path, local_hostname="client.test")
        session = SMTPSession(lambda: settings, lambda now: connect(now, smtplib.SMTP), self.clock)
        self.addCleanup(session.close)
        self.assertTaken(self.send(session, "one"), "one")
        assert session.connection.sock.family == socket.AF_UNIX


if __name__ == "__main__":
    unittest.main()
