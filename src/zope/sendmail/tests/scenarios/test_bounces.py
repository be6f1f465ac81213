"""Bounces that Exim, Postfix and OpenSMTPD write themselves, for mail that they have taken; skipped without them."""

from __future__ import annotations

import os
import subprocess
import unittest
from typing import ClassVar

from zope.sendmail.bounces.parser import Verdict, read_bounce
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.verp import verp
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.system.clock import Clock
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.tests.support.exim import Exim
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.opensmtpd import OpenSMTPD
from zope.sendmail.tests.support.postfix import Postfix
from zope.sendmail.tests.support.servers import Server, wait_until

KEY = VerpKey(b"sixteen octets and more")
SENDER, GONE = "news@test.org", "jane@gone.test"
TODAY = 20_787


class BouncingPostfix(Postfix):
    """It finds out after it has taken the mail that nobody is there."""

    def configure(self) -> None:
        super().configure()
        main = self.root / "etc/postfix/main.cf"
        later = "check_recipient_access inline:{{jane@gone.test=FILTER error:5.1.1 no such user here}}"
        text = f"{main.read_text()}smtpd_recipient_restrictions = {later}, permit\n"
        os.utime(self.write("/etc/postfix/main.cf", text), (0, 0))


class BouncingExim(Exim):
    """It has no router at all: a queue run fails with every address."""

    def bounces(self, recipient: str) -> list[bytes]:
        """What lies in its spool for a recipient."""
        return [arrival.text for arrival in self.arrivals() if arrival.recipient == recipient]

    def run_queue(self) -> None:
        """Try what is in the spool."""
        start, command = self.command()[:-3], self.command()[-2:]
        subprocess.run([*start, *command, "-qf"], check=False, capture_output=True)


class BouncingOpenSMTPD(OpenSMTPD):
    """Its delivery agent says that the user is unknown."""

    def configure(self) -> None:
        super().configure()
        config = self.root / "srv/smtpd.conf"
        text = config.read_text()
        gone = 'action "gone" mda "exit 67" user nobody virtual { "@" = "nobody" }\n'
        matches = 'match from any for domain "gone.test" action "gone"\n'
        at = text.index("match from any for any")
        self.write("/srv/smtpd.conf", text[:at] + gone + matches + text[at:])


class AServer(unittest.TestCase):
    """What comes back is about the recipient, for good, and authentic by its address."""

    server_class: ClassVar[type[Server]] = BouncingPostfix

    def setUp(self) -> None:
        excuse = self.server_class.excuse()
        if excuse:
            self.skipTest(excuse)
        self.server = self.server_class()
        self.server.start()
        self.addCleanup(self.server.stop)
        outbox = Outbox()
        message = "From: news@test.org\nTo: jane@gone.test\nSubject: News\nMessage-Id: <1@test.org>\n\nText\n"
        outbox.sender(verp_key=KEY).send(SENDER, [GONE], message, verp=True)
        [self.mail] = outbox.mails
        mailer = SMTPMailer(self.server.host, self.server.port, tls="never")
        mailer.send(self.mail.sender, list(self.mail.recipients), self.mail.data)

    def bounce(self) -> bytes:
        """The bounce, once it is there."""
        found: list[bytes] = []

        def is_there() -> bool:
            found[:] = [
                each.text for each in self.server.arrivals() if each.recipient.lower() == self.mail.sender.lower()
            ]
            return bool(found)

        self.assertTrue(wait_until(is_there), self.server.log())
        return found[0]

    def test_is_understood(self) -> None:
        """With its code, its words, and the Message-Id of what came back."""
        day = int(Clock().time() // 86400)
        [bounce] = read_bounce(self.bounce(), self.mail.sender, senders=[SENDER], key=KEY, day=day)
        self.assertEqual((bounce.recipient, bounce.verdict), (GONE, Verdict.PERMANENT))
        self.assertTrue(bounce.is_authentic)
        self.assertEqual(bounce.message_id, "1@test.org")
        self.assertTrue(bounce.status.startswith("5."), bounce)

    def test_is_not_authentic_without_the_address(self) -> None:
        """Whoever has the text only has nothing."""
        for path in ("", SENDER, verp(SENDER, GONE)):
            [bounce] = read_bounce(self.bounce(), path, senders=[SENDER], key=KEY, day=TODAY)
            self.assertEqual((bounce.recipient, bounce.is_authentic), (GONE, False))


class OfOpenSMTPD(AServer):
    server_class = BouncingOpenSMTPD


class OfExim(AServer):
    server_class = BouncingExim

    def bounce(self) -> bytes:
        """It leaves all in its spool until it is told to run its queue."""
        assert isinstance(self.server, BouncingExim)
        self.server.run_queue()
        return super().bounce()


load_tests = in_layer(Servers)
