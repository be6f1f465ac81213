"""`zope.sendmail` and mail servers that somebody else wrote: Exim, Postfix, OpenSMTPD, Dovecot.

Nothing here is played: it is skipped, and says so, where a server cannot be had (``.ci/mtas.py`` fetches them).
"""

from __future__ import annotations

import smtplib
import tempfile
import unittest
from typing import Any, ClassVar

import transaction
import trustme

from zope.sendmail.config.settings import Mechanism, Notify, Tls
from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.directmail import OnRefused
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.smtp.protocol.body import WINDOW
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.tests.support.conversation import Conversation
from zope.sendmail.tests.support.dovecot import Dovecot
from zope.sendmail.tests.support.exim import Exim
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.opensmtpd import OpenSMTPD
from zope.sendmail.tests.support.postfix import Postfix, PostfixWithoutSecrets
from zope.sendmail.tests.support.servers import LIMIT, PASSWORD, Arrival, Server, wait_until

ACCEPTED, DEFERRED, REJECTED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED
ONE, TWO, NOBODY, LATER = "one@test.org", "two@test.org", "nouser@test.org", "tempfail@test.org"
BOTH = (ONE, TWO)
MIXED = (ONE, NOBODY, LATER, TWO)

#: Complete, so that no server has a reason to add anything.
HEADER = (
    b"From: sender@test.org\nTo: one@test.org\nDate: Sat, 21 Nov 2026 03:47:42 +0000\n"
    b"Message-Id: <%d@test.org>\nSubject: test\nMIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
)


def mail(body: bytes = b"The text.\n", number: int = 0) -> bytes:
    """A message with this body; lines end with LF."""
    return HEADER % number + body


class Exchange(Conversation):
    """A server that runs as long as the test."""

    server_class: ClassVar[type[Server]]
    slow_speech: ClassVar[bool] = False

    def setUp(self) -> None:
        super().setUp()
        self.server = self.server_class(slow_speech=self.slow_speech)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.login = {"username": self.server.username, "password": PASSWORD}

    def settings(self, relay: Any, **changes: Any) -> Any:
        """Verified TLS wherever there is TLS."""
        port = relay.tls_port if changes.get("tls") is Tls.IMPLICIT else relay.port
        cafile = self.cafile() if changes.get("tls") is not Tls.NEVER else None
        return super().settings(relay, **{"port": port, "cafile": cafile, **changes})

    def open(self, tls: Tls, **changes: Any) -> SMTPSession:
        """A session with the server."""
        return self.session(self.server, tls=tls, **changes)

    def mailer(self, **changes: Any) -> SMTPMailer:
        """The mailer of a queue: STARTTLS, verified, and a login."""
        changes = {"cafile": self.cafile(), "tls": Tls.REQUIRED, **self.login, **changes}
        return SMTPMailer(self.server.host, self.server.port, **changes)

    def need_tls(self) -> None:
        """Skip where the server cannot do it."""
        if reason := self.server.excuse_for_tls():
            self.skipTest(reason)

    def send(self, session: SMTPSession, *recipients: str, message: bytes, sender: str = "sender@test.org") -> Outcome:
        """One mail."""
        return self.transfer(session, *recipients, sender=sender, message=message)

    def assertArrived(self, *expected: Arrival) -> None:
        """Just that, whatever the order."""
        self.assertEqual(self.server.arrived(len(expected)), sorted(expected), self.server.log())

    def assertLogged(self, text: str) -> None:
        """Now or soon: some servers have another process write their log."""
        self.assertTrue(wait_until(lambda: text in self.server.log()), self.server.log())

    def assertOneConnection(self) -> None:
        """All that was said was said over one."""
        wait_until(lambda: self.server.connections() > 0)
        self.assertEqual(self.server.connections(), 1, self.server.log())

    def check_mixed(self, session: SMTPSession) -> None:
        """Three mails with mixed recipients over one connection: each recipient has its own answer, or its mail."""
        for number in range(3):
            outcome = self.send(session, *MIXED, message=mail(number=number))
            self.assertAnswers(outcome, one=ACCEPTED, nouser=REJECTED, tempfail=DEFERRED, two=ACCEPTED)
            self.assertEqual((outcome.replies[NOBODY].code, outcome.replies[LATER].code), (550, 451))
        session.close()
        self.assertArrived(*(Arrival(who, mail(number=number)) for who in BOTH for number in range(3)))
        self.assertOneConnection()


class Promises(Exchange):
    """What is promised whatever the server."""

    def test_what_it_offers(self) -> None:
        """The server is the one that these tests are about."""
        self.need_tls()
        session = self.open(Tls.REQUIRED)
        self.send(session, ONE, message=mail())
        offered = set(session.connection.esmtp_features)
        hidden = {"chunking", "pipelining"} if self.slow_speech else set()
        interesting = {"8bitmime", "auth", "chunking", "pipelining", "size", "smtputf8"}
        self.assertEqual(offered & interesting, self.server.offers - hidden)

    def test_plain(self) -> None:
        """Without TLS."""
        self.check_mixed(self.open(Tls.NEVER))

    def test_starttls(self) -> None:
        """TLS that is verified."""
        self.need_tls()
        self.check_mixed(self.open(Tls.REQUIRED))

    def test_implicit_tls(self) -> None:
        """TLS from the first byte."""
        self.need_tls()
        self.check_mixed(self.open(Tls.IMPLICIT))

    def test_login_and_implicit_tls(self) -> None:
        """One login for all mails of a connection."""
        self.need_tls()
        self.check_mixed(self.open(Tls.IMPLICIT, **self.login))
        self.assertLogged(self.server.login_shown("PLAIN"))

    def test_each_mechanism(self) -> None:
        """Every mechanism that the server offers and we know, where it is the only one."""
        self.need_tls()
        known = [mechanism for mechanism in self.server.mechanisms if mechanism in set(Mechanism)]
        self.assertLessEqual({"PLAIN", "LOGIN"}, set(known))
        for number, mechanism in enumerate(known):
            with self.subTest(mechanism):
                session = self.session(self.server, only(mechanism), tls=Tls.REQUIRED, **self.login)
                self.assertAnswers(self.send(session, ONE, message=mail(number=number)), one=ACCEPTED)
                self.assertLogged(self.server.login_shown(mechanism))

    def test_stranger(self) -> None:
        """A certificate of an authority that is not ours: no mail is given to it, and none is charged."""
        self.need_tls()
        stranger = self.enterContext(tempfile.NamedTemporaryFile(suffix=".pem"))
        trustme.CA().cert_pem.write_to_path(stranger.name)
        for tls in (Tls.REQUIRED, Tls.IMPLICIT):
            with self.subTest(tls):
                outcome = self.send(self.open(tls, cafile=stranger.name), message=mail())
                self.assertFaultOnly(outcome)
                self.assertIn("certificate", str(outcome.fault))
        self.assertEqual((self.intended, self.server.arrivals()), (0, []))

    def test_wrong_password(self) -> None:
        """It is the relay's fault, with every mechanism."""
        self.need_tls()
        for mechanism in self.server.mechanisms:
            if mechanism in set(Mechanism):
                with self.subTest(mechanism):
                    login = {**self.login, "password": "wrong"}
                    session = self.session(self.server, only(mechanism), tls=Tls.REQUIRED, **login)
                    self.assertFaultOnly(self.send(session, message=mail()), 535)
        self.assertEqual(self.server.arrivals(), [])

    def test_all_are_refused(self) -> None:
        """Then the mail is nobody's, and the connection stays."""
        session = self.open(Tls.NEVER)
        for number in range(2):
            self.assertAnswers(self.send(session, NOBODY, message=mail()), nouser=REJECTED)
            self.assertAnswers(self.send(session, ONE, message=mail(number=number)), one=ACCEPTED)
        self.assertArrived(*(Arrival(ONE, mail(number=number)) for number in range(2)))
        self.assertOneConnection()

    def test_dots_and_long_lines(self) -> None:
        """They arrive byte for byte."""
        lines = [b".", b"..", b".x", b"", b"x" * 998, b"." * 997, b"y" * 5000, b" blanks \t ", b"From the start", b"."]
        message = mail(b"\n".join(lines) + b"\n")
        self.assertAnswers(self.send(self.open(Tls.NEVER), ONE, message=message), one=ACCEPTED)
        self.assertArrived(Arrival(ONE, message))

    def test_large_and_8bit(self) -> None:
        """More than one window of octets beyond ASCII."""
        message = mail("Grüße, und noch mehr davon\n".encode() * (WINDOW // 20))
        session = self.open(Tls.NEVER, notify=Notify(("NEVER",), "HDRS"))
        self.assertAnswers(self.send(session, ONE, message=message), one=ACCEPTED)
        self.assertArrived(Arrival(ONE, message))

    def test_smtputf8(self) -> None:
        """An address beyond ASCII goes to who offers it; for others it is refused without being asked about."""
        outcome = self.send(self.open(Tls.NEVER), "jörg@test.org", ONE, message=mail())
        if "smtputf8" in self.server.offers:
            self.assertAnswers(outcome, jörg=ACCEPTED, one=ACCEPTED)
            self.assertEqual(len(self.server.arrived(2)), 2)
        else:
            self.assertAnswers(outcome, jörg=REJECTED, one=ACCEPTED)
            self.assertEqual(outcome.replies["jörg@test.org"].enhanced, "5.6.7")
            self.assertArrived(Arrival(ONE, mail()))

    def test_too_large(self) -> None:
        """What is beyond the limit that it told is not begun, and the connection stays."""
        session = self.open(Tls.NEVER)
        outcome = self.send(session, ONE, message=mail(b"x" * 63 + b"\n") * (LIMIT // 64))
        self.assertAnswers(outcome, one=REJECTED)
        self.assertEqual((outcome.replies[ONE].enhanced, self.intended), ("5.3.4", 0))
        self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)
        self.assertArrived(Arrival(ONE, mail()))
        self.assertOneConnection()


class Queued(Exchange):
    """A queue, and the thread that drains it into the server."""

    def setUp(self) -> None:
        super().setUp()
        self.need_tls()
        path = self.enterContext(tempfile.TemporaryDirectory()) + "/queue"
        self.queue = MaildirQueue(path)
        self.addCleanup(self.queue.close)
        self.told: list[Any] = []

    def put(self, count: int, *recipients: str) -> None:
        """So many mails, in one transaction."""
        staged = self.queue.stage()
        for number in range(count):
            staged.add(Envelope("sender@test.org", recipients), mail(number=number))
        staged.prepare()
        staged.commit()

    def drain(self, mailer: SMTPMailer, **options: Any) -> QueueProcessorThread:
        """A processor that is at work until the test ends."""
        processor = QueueProcessorThread(queue=self.queue, mailer=mailer, tell=self.told.extend, **options)
        processor.start()
        self.addCleanup(processor.join)
        self.addCleanup(processor.stop)
        return processor

    def test_drained(self) -> None:
        """Each recipient gets each mail once, and nothing stays."""
        self.put(20, *BOTH)
        processor = self.drain(self.mailer(), concurrency=2)
        self.assertTrue(wait_until(lambda: not any(self.queue.admin.count().values())), self.queue.admin.count())
        self.assertArrived(*(Arrival(who, mail(number=number)) for who in BOTH for number in range(20)))
        wait_until(lambda: processor.tally.total() >= 40)  # it counts after the mail has left the queue
        self.assertEqual(processor.tally, {ACCEPTED: 40})

    def test_mixed(self) -> None:
        """Who is deferred stays in the queue; who is rejected is told about."""
        self.put(1, *MIXED)
        processor = self.drain(self.mailer())
        self.assertTrue(wait_until(lambda: processor.tally.total() == 4), processor.tally)
        self.assertTrue(wait_until(lambda: bool(self.queue.admin.count()[State.DEFERRED])), self.queue.admin.count())
        self.assertArrived(*(Arrival(who, mail()) for who in BOTH))
        self.assertEqual(processor.tally, {ACCEPTED: 2, REJECTED: 1, DEFERRED: 1})

    def test_wrong_password(self) -> None:
        """It costs no mail anything: all of them go when it is right."""
        self.put(3, ONE)
        processor = self.drain(self.mailer(password="wrong"))
        self.assertTrue(wait_until(lambda: processor.fault is not None))
        assert processor.fault is not None
        self.assertEqual(processor.fault.code, 535)
        processor.stop()
        processor.join()
        self.assertEqual((self.queue.admin.count()[State.READY], self.server.arrivals()), (3, []))
        self.assertEqual([len(each.history) for each in self.queue.admin.mails()], [0, 0, 0])
        self.drain(self.mailer())
        self.assertArrived(*(Arrival(ONE, mail(number=number)) for number in range(3)))


class Limits(Exchange):
    """Every limit of the server is that of its default configuration; nothing is set for us."""

    def put(self, envelopes: list[Envelope]) -> MaildirQueue:
        """A queue with a mail for each."""
        queue = MaildirQueue(self.enterContext(tempfile.TemporaryDirectory()) + "/queue")
        self.addCleanup(queue.close)
        staged = queue.stage()
        for number, envelope in enumerate(envelopes):
            staged.add(envelope, mail(number=number))
        staged.prepare()
        staged.commit()
        return queue

    def drain(self, queue: MaildirQueue, recipients: int) -> QueueProcessorThread:
        """Through as many connections as usual, until so many recipients have it; each once, and none charged."""
        processor = QueueProcessorThread(
            queue=queue, mailer=SMTPMailer(self.server.host, self.server.port, tls="never")
        )
        processor.start()
        self.addCleanup(processor.join)
        self.addCleanup(processor.stop)
        before = -1
        while before < processor.tally[ACCEPTED] < recipients:  # as long as it goes on
            before = processor.tally[ACCEPTED]
            wait_until(lambda known=before: processor.tally[ACCEPTED] > known)  # type: ignore[misc]  # bound in this round
        self.assertEqual(processor.tally[ACCEPTED], recipients, (processor.tally, self.server.log()[-2000:]))
        self.assertEqual(processor.tally[REJECTED], 0)
        self.assertTrue(wait_until(lambda: not any(queue.admin.count().values())))
        return processor

    def test_a_mail_for_many(self) -> None:
        """2,500 recipients, more than a server takes with one mail."""
        recipients = tuple(f"r{number}@test.org" for number in range(2500))
        self.drain(self.put([Envelope("sender@test.org", recipients)]), 2500)

    def test_a_call_for_many(self) -> None:
        """Likewise by one call."""
        recipients = [f"r{number}@test.org" for number in range(2500)]
        mailer = SMTPMailer(self.server.host, self.server.port, tls="never")
        self.assertEqual(mailer.send("sender@test.org", recipients, mail()), {})

    def test_a_long_queue(self) -> None:
        """3,000 mails, more than a server takes over one connection."""
        processor = self.drain(self.put([Envelope("sender@test.org", (ONE,))] * 3000), 3000)
        self.assertEqual(processor.tally, {ACCEPTED: 3000})

    def test_a_transaction_of_many(self) -> None:
        """300 mails directly."""
        self.deliver(OnRefused.TELL, "tell@test.org")

    def test_a_transaction_of_many_with_a_question_for_each(self) -> None:
        """300 mails directly, all of them asked about first, which the server does not take amiss."""
        self.deliver(OnRefused.ABORT, "ask@test.org")

    def deliver(self, on_refused: OnRefused, recipient: str) -> None:
        """300 mails in one transaction."""
        mailer = SMTPMailer(self.server.host, self.server.port, tls="never")
        delivery = DirectMailDelivery(mailer, onRefused=on_refused)
        for number in range(300):
            delivery.send("sender@test.org", [recipient], mail(number=number))
        transaction.commit()
        self.assertTrue(wait_until(lambda: len(self.server.arrivals()) >= 300), len(self.server.arrivals()))
        self.assertEqual(len({arrival.text for arrival in self.server.arrivals()}), 300)


def only(mechanism: str) -> type[smtplib.SMTP]:
    """Connections to a server that offers no other way to log in."""

    class Connection(smtplib.SMTP):
        def ehlo(self, name: str = "") -> tuple[int, bytes]:
            reply = super().ehlo(name)
            if "auth" in self.esmtp_features:
                self.esmtp_features["auth"] = mechanism
            return reply

    return Connection


@unittest.skipIf(Exim.excuse(), Exim.excuse())
class WithExim(Promises):
    server_class = Exim

    def check_mixed(self, session: SMTPSession) -> None:
        """Exim's log shows how they came."""
        super().check_mixed(session)
        assert isinstance(self.server, Exim)
        for line in self.server.lines():
            words = set(line.split())
            self.assertNotIn("K", words, "chunked")
            # The dot: though not within the connection's set-up, which is another extension.
            self.assertEqual(bool({"L", "L."} & words), not self.slow_speech, "pipelined")


@unittest.skipIf(Exim.excuse(), Exim.excuse())
class LimitsOfExim(Limits):
    server_class = Exim


class WithEximOneByOne(WithExim):
    """With DATA, and no command before the reply to the last one."""

    slow_speech = True


@unittest.skipIf(Exim.excuse(), Exim.excuse())
class QueuedWithExim(Queued):
    server_class = Exim


@unittest.skipIf(Postfix.excuse(), Postfix.excuse())
class WithPostfix(Promises):
    server_class = Postfix

    def check_mixed(self, session: SMTPSession) -> None:
        """Postfix counts the commands."""
        super().check_mixed(session)
        self.assertLogged(" data=3 ")


@unittest.skipIf(Postfix.excuse(), Postfix.excuse())
class LimitsOfPostfix(Limits):
    server_class = Postfix

    def test_a_transaction_of_many_with_a_question_for_each(self) -> None:
        """By few questions: from about the hundredth on each waits for a second (``in_flow_delay``)."""
        super().test_a_transaction_of_many_with_a_question_for_each()
        begun = self.server.log().count(": client=")  # mails and questions
        self.assertGreater(begun, 300)
        self.assertLess(begun, 400)


class WithPostfixOneByOne(WithPostfix):
    """With DATA, and no command before the reply to the last one."""

    slow_speech = True


@unittest.skipIf(Postfix.excuse(), Postfix.excuse())
class WithPostfixThatOffersWhatItCannotDo(Exchange):
    server_class = PostfixWithoutSecrets

    def test_login(self) -> None:
        """Where Cyrus SASL has no secret to compare a proof with, the next mechanism is asked for."""
        self.need_tls()
        auth = (Mechanism.SCRAM_SHA_256, Mechanism.CRAM_MD5, Mechanism.PLAIN)
        session = self.open(Tls.REQUIRED, auth=auth, **self.login)
        self.assertAnswers(self.send(session, ONE, message=mail()), one=ACCEPTED)
        for mechanism in auth[:2]:
            self.assertLogged(f"SASL {mechanism} authentication failed")
        self.assertLogged("sasl_method=PLAIN")
        self.assertOneConnection()


@unittest.skipIf(Postfix.excuse(), Postfix.excuse())
class QueuedWithPostfix(Queued):
    server_class = Postfix


@unittest.skipIf(OpenSMTPD.excuse(), OpenSMTPD.excuse())
class WithOpenSMTPD(Promises):
    server_class = OpenSMTPD

    def tearDown(self) -> None:
        """It says so and hangs up when it is pipelined at."""
        self.assertNotIn("ipelining", self.server.log())
        super().tearDown()


@unittest.skipIf(OpenSMTPD.excuse(), OpenSMTPD.excuse())
class LimitsOfOpenSMTPD(Limits):
    server_class = OpenSMTPD


@unittest.skipIf(OpenSMTPD.excuse(), OpenSMTPD.excuse())
class QueuedWithOpenSMTPD(Queued):
    server_class = OpenSMTPD


@unittest.skipIf(Dovecot.excuse(), Dovecot.excuse())
class WithDovecot(Promises):
    """Its submission server: a relay for those who log in."""

    server_class = Dovecot

    def open(self, tls: Tls, **changes: Any) -> SMTPSession:
        """See `Talk`: it has nothing to say to others, and does not mind a password in clear on one host."""
        return super().open(tls, **{**self.login, "allow_clear_password": True, **changes})


@unittest.skipIf(Dovecot.excuse(), Dovecot.excuse())
class QueuedWithDovecot(Queued):
    server_class = Dovecot


del Promises, Queued, Limits


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Servers)
