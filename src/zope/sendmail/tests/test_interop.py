"""`zope.sendmail.smtp` and a relay that somebody else wrote.

Nothing here is played: it is skipped, and says so, where the relay is not installed.
"""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from zope.sendmail.outcome import Answer
from zope.sendmail.settings import Notify, Tls
from zope.sendmail.smtp.body import WINDOW
from zope.sendmail.tests.conversation import Conversation
from zope.sendmail.tests.exim import PASSWORD, USERNAME, Exim, program

ACCEPTED, DEFERRED, REJECTED = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED
LOGIN = {"username": USERNAME, "password": PASSWORD}
MIXED = ("one@test.org", "nouser@test.org", "tempfail@test.org", "two@test.org")


@unittest.skipUnless(program(), "Exim is not installed (Debian: exim4-daemon-light)")
class WithExim(Conversation):
    chunking: ClassVar[bool] = True

    def setUp(self) -> None:
        super().setUp()
        self.exim = Exim(chunking=self.chunking)
        self.exim.start()
        self.addCleanup(self.exim.stop)

    def settings(self, relay: Any, **changes: Any) -> Any:
        """Verified TLS wherever there is TLS."""
        port = relay.tls_port if changes.get("tls") is Tls.IMPLICIT else relay.port
        cafile = self.cafile() if changes.get("tls") is not Tls.NEVER else None
        return super().settings(relay, **{"port": port, "cafile": cafile, **changes})

    def check(self, shown: str, **changes: Any) -> None:
        """Three mails with mixed recipients over one connection; the log shows how they came."""
        session = self.session(self.exim, **changes)  # type: ignore[arg-type]
        for number in range(3):
            outcome = self.transfer(session, *MIXED, message=b"Subject: x\n\n.%d\n..\n.\n" % number)
            self.assertAnswers(outcome, one=ACCEPTED, nouser=REJECTED, tempfail=DEFERRED, two=ACCEPTED)
            self.assertEqual(outcome.replies[MIXED[1]].code, 550)
            self.assertEqual(outcome.replies[MIXED[2]].code, 451)
        session.close()
        self.assertEqual(self.exim.texts(), [b".%d\n..\n.\n" % number for number in range(3)], self.exim.log())
        for line in self.exim.arrivals():
            words = line.split()
            self.assertIn(shown, words)
            self.assertEqual(words[-2:], ["one@test.org", "two@test.org"])
            self.assertTrue({"L", "L."} & set(words), "not pipelined")  # the dot: not within the connection's set-up
            self.assertEqual("K" in words, self.chunking)

    def test_plain(self) -> None:
        """Without TLS."""
        self.check("P=esmtp", tls=Tls.NEVER)

    def test_starttls(self) -> None:
        """TLS that is verified."""
        self.check("P=esmtps", tls=Tls.REQUIRED)

    def test_implicit_tls(self) -> None:
        """TLS from the first byte."""
        self.check("P=esmtps", tls=Tls.IMPLICIT)

    def test_login(self) -> None:
        """One login for all mails of a connection."""
        self.check("P=esmtpsa", tls=Tls.REQUIRED, **LOGIN)
        self.assertTrue(all("A=plain:mailer" in line for line in self.exim.arrivals()))

    def test_login_within_implicit_tls(self) -> None:
        """Both."""
        self.check("P=esmtpsa", tls=Tls.IMPLICIT, **LOGIN)

    def test_wrong_password(self) -> None:
        """It is the relay's fault."""
        session = self.session(self.exim, tls=Tls.REQUIRED, username=USERNAME, password="wrong")  # type: ignore[arg-type]
        self.assertFaultOnly(self.transfer(session), 535)

    def test_all_are_refused(self) -> None:
        """Then the mail is nobody's, and the connection stays."""
        session = self.session(self.exim, tls=Tls.NEVER)  # type: ignore[arg-type]
        for _ in range(2):
            self.assertAnswers(self.transfer(session, "nouser@test.org"), nouser=REJECTED)
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(self.exim.arrivals()), 2)
        session.close()
        self.assertEqual(self.exim.log().count("rejected RCPT"), 2)

    def test_large_and_beyond_ascii(self) -> None:
        """Several chunks, 8BITMIME, SMTPUTF8 and DSN in one mail."""
        session = self.session(self.exim, tls=Tls.NEVER, notify=Notify(("NEVER",), "HDRS"))  # type: ignore[arg-type]
        text = "Grüße\n".encode() * (WINDOW // 2)
        outcome = self.transfer(session, "jörg@test.org", message=b"Subject: x\n\n" + text)
        self.assertAnswers(outcome, jörg=ACCEPTED)
        self.assertEqual(self.exim.texts(), [text])

    def test_too_large(self) -> None:
        """What is beyond the limit that it told is not begun."""
        session = self.session(self.exim, tls=Tls.NEVER)  # type: ignore[arg-type]
        self.assertAnswers(self.transfer(session, message=b"x\n" * 1_000_000), one=REJECTED)
        self.assertEqual(self.exim.arrivals(), [])


class WithEximWithoutChunking(WithExim):
    """The same with DATA."""

    chunking = False


if __name__ == "__main__":
    unittest.main()
