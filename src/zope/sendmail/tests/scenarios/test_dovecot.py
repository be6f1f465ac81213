"""`zope.sendmail` and Dovecot: mail straight into its mail store by LMTP, and logins with a token.

What is true of its submission server as of any other is in `test_interop`.  Nothing here is
played: it is skipped, and says so, where Dovecot cannot be had (``.ci/mtas.py`` fetches it).
"""

from __future__ import annotations

import os
import tempfile
import unittest
from typing import Any

from zope.sendmail.config.settings import Mechanism, Tls
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.tests.scenarios.test_interop import LATER, NOBODY, ONE, TWO, Exchange, mail
from zope.sendmail.tests.support.conversation import TIMEOUTS
from zope.sendmail.tests.support.dovecot import Dovecot, token
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import Arrival
from zope.sendmail.transports.lmtp import LMTPMailer

ACCEPTED, DEFERRED, REJECTED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED
FULL = "full@test.org"
ALL = (ONE, NOBODY, FULL, LATER, TWO)
TOKEN_MECHANISMS = (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER)

#: Longer ago than clocks differ.
EXPIRED = {"exp": 1600000000}


class WithIt(Exchange):
    server_class = Dovecot
    server: Dovecot

    def queue(self, count: int, *recipients: str) -> MaildirQueue:
        """A queue with so many mails."""
        queue = MaildirQueue(self.enterContext(tempfile.TemporaryDirectory()) + "/queue")
        self.addCleanup(queue.close)
        staged = queue.stage()
        for number in range(count):
            staged.add(Envelope("sender@test.org", recipients), mail(number=number))
        staged.prepare()
        staged.commit()
        return queue

    def drain(self, queue: MaildirQueue, mailer: Any) -> QueueProcessorThread:
        """Once, with a connection."""
        processor = QueueProcessorThread(queue=queue, mailer=mailer, concurrency=1)
        processor.run(forever=False)
        return processor


@unittest.skipIf(Dovecot.excuse(), Dovecot.excuse())
class TheStoreTakesMail(WithIt):
    def over_tcp(self, **options: Any) -> LMTPMailer:
        """The mailer for its port."""
        return LMTPMailer(self.server.host, self.server.lmtp_port, timeouts=TIMEOUTS, **options)

    def through_socket(self, **options: Any) -> LMTPMailer:
        """The mailer for its Unix socket."""
        return LMTPMailer(socket=self.server.lmtp_socket, timeouts=TIMEOUTS, **options)

    def lmtp_session(self, mailer: LMTPMailer) -> SMTPSession:
        """A conversation that is closed when the test ends."""
        session = open_session(mailer)
        assert isinstance(session, SMTPSession)
        self.addCleanup(session.close)
        return session

    def assertStored(self, user: str, *expected: bytes) -> None:
        """Just that is in the mailbox."""
        self.assertEqual(sorted(self.server.stored(user)), sorted(expected), self.server.log())

    def check_each_has_its_reply(self, session: SMTPSession) -> None:
        """Three mails over one connection, refused at RCPT, after the message, or not at all."""
        for number in range(3):
            outcome = self.send(session, *ALL, message=mail(number=number))
            self.assertAnswers(outcome, one=ACCEPTED, nouser=REJECTED, full=REJECTED, tempfail=DEFERRED, two=ACCEPTED)
            codes = [(outcome.replies[who].code, outcome.replies[who].enhanced) for who in (NOBODY, FULL, LATER)]
            self.assertEqual(codes, [(550, "5.1.1"), (552, "5.2.2"), (451, "4.2.0")])
        session.close()
        for user in ("one", "two"):
            self.assertStored(user, *(mail(number=number) for number in range(3)))
        self.assertStored("full")
        self.assertLogged(" Logged out ")
        self.assertEqual(self.server.log().count(": Info: Connect from "), 1, self.server.log())

    def test_over_tcp(self) -> None:
        """In clear."""
        self.check_each_has_its_reply(self.lmtp_session(self.over_tcp(tls="never")))

    def test_starttls(self) -> None:
        """TLS that is verified."""
        session = self.lmtp_session(self.over_tcp(tls="required", cafile=self.cafile()))
        self.check_each_has_its_reply(session)

    def test_through_its_socket(self) -> None:
        """There is no TLS there."""
        self.check_each_has_its_reply(self.lmtp_session(self.through_socket()))

    def test_all_are_refused(self) -> None:
        """At RCPT or after the message; the connection goes on."""
        session = self.lmtp_session(self.through_socket())
        self.assertAnswers(self.send(session, NOBODY, message=mail()), nouser=REJECTED)
        self.assertAnswers(self.send(session, FULL, message=mail()), full=REJECTED)
        self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)
        self.assertStored("one", mail())

    def test_dots_and_8bit(self) -> None:
        """They arrive byte for byte."""
        message = mail(b"\n".join([b".", b"..", b".x", b"", "Grüße".encode(), b"x" * 998, b"."]) + b"\n")
        self.assertAnswers(self.send(self.lmtp_session(self.through_socket()), ONE, message=message), one=ACCEPTED)
        self.assertStored("one", message)

    def test_queue_is_drained(self) -> None:
        """Each mail is in each mailbox once, and the queue is empty."""
        queue = self.queue(10, ONE, TWO)
        processor = self.drain(queue, self.through_socket())
        self.assertEqual((processor.tally, any(queue.admin.count().values())), ({ACCEPTED: 20}, False))
        for user in ("one", "two"):
            self.assertStored(user, *(mail(number=number) for number in range(10)))

    def test_queue_with_mixed_recipients(self) -> None:
        """Who is deferred stays in the queue, alone."""
        queue = self.queue(1, *ALL)
        processor = self.drain(queue, self.over_tcp(cafile=self.cafile(), verify=True))
        self.assertEqual(processor.tally, {ACCEPTED: 2, REJECTED: 2, DEFERRED: 1})
        self.assertEqual(queue.admin.count()[State.DEFERRED], 1)
        (left,) = queue.admin.mails()
        self.assertEqual(left.history[-1].outstanding(ALL), (LATER,))


@unittest.skipIf(Dovecot.excuse(), Dovecot.excuse())
class ATokenIsThePassword(WithIt):
    def logs_in(self, provider: Any, **changes: Any) -> SMTPSession:
        """A session that logs in with a token."""
        login = {"username": self.server.username, "token": provider}
        return self.open(changes.pop("tls", Tls.REQUIRED), **login, **changes)

    def refused_first(self) -> TokenFromCommand:
        """A command that gives a token that has expired, and then one that has not."""
        first, second = (self.write_token(text) for text in (token(**EXPIRED), token()))
        return TokenFromCommand(["sh", "-c", 'cat "$1" && cp "$2" "$1"', "sh", first, second])

    def write_token(self, text: str) -> str:
        """A file that holds it."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "token")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return path

    def test_each_mechanism(self) -> None:
        """XOAUTH2 and OAUTHBEARER, over STARTTLS and TLS from the first byte."""
        for mechanism in TOKEN_MECHANISMS:
            for tls in (Tls.REQUIRED, Tls.IMPLICIT):
                with self.subTest(mechanism, tls=tls):
                    session = self.logs_in(token, auth=(mechanism,), tls=tls)
                    self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)
                    self.assertLogged(self.server.login_shown(mechanism))

    def test_the_usual_one(self) -> None:
        """Where nobody chooses, and the relay offers both, it is the one that all know."""
        self.assertAnswers(self.send(self.logs_in(token), ONE, message=mail()), one=ACCEPTED)
        self.assertLogged(self.server.login_shown("XOAUTH2"))

    def test_long(self) -> None:
        """A token that is too long for a command line, as Microsoft's are, follows alone."""
        for mechanism in TOKEN_MECHANISMS:
            with self.subTest(mechanism):
                session = self.logs_in(lambda: token(name="x" * 2000), auth=(mechanism,))
                self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)

    def test_refused_and_renewed(self) -> None:
        """The command is asked once more, and its new token is taken over the same connection."""
        for mechanism in TOKEN_MECHANISMS:
            with self.subTest(mechanism):
                session = self.logs_in(self.refused_first(), auth=(mechanism,))
                self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)

    def test_refused_for_good(self) -> None:
        """It is the relay's fault, told with what the relay says about the token, and without the token."""
        refused = token(**EXPIRED)
        for mechanism in TOKEN_MECHANISMS:
            with self.subTest(mechanism):
                outcome = self.send(self.logs_in(lambda: refused, auth=(mechanism,)), message=mail())
                self.assertFaultOnly(outcome, 535)
                assert outcome.fault is not None
                self.assertIn("status", outcome.fault.text)
                self.assertNotIn(refused, outcome.fault.text)
        self.assertEqual(self.server.arrivals(), [])

    def test_of_somebody_else(self) -> None:
        """A token whose signature is wrong is refused as well."""
        forged = token()[:-4] + "AAAA"
        self.assertFaultOnly(self.send(self.logs_in(lambda: forged), message=mail()), 535)

    def test_queue_waits_for_a_token(self) -> None:
        """A refused token costs no mail an attempt; all go when the file holds a good one."""
        path = self.write_token(token(**EXPIRED))
        queue = self.queue(3, ONE)
        mailer = self.mailer(password=None, token=TokenFromFile(path))
        processor = self.drain(queue, mailer)
        assert processor.fault is not None
        self.assertEqual((processor.fault.code, [len(each.history) for each in queue.admin.mails()]), (535, [0, 0, 0]))
        with open(path, "w", encoding="utf-8") as file:
            file.write(token())
        self.drain(queue, mailer)
        self.assertArrived(*(Arrival(ONE, mail(number=number)) for number in range(3)))
        self.assertFalse(any(queue.admin.count().values()))


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Servers)
