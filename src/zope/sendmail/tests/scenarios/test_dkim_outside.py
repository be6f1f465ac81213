"""Signatures of `DKIMSigner`, as a relay gets them, judged by verifiers that others have written; skipped without."""

from __future__ import annotations

import base64
from email.message import EmailMessage
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.sender import MailSender
from zope.sendmail.testing.relay import KEYWORDS, Relay
from zope.sendmail.tests.support.dkimoutside import PerlVerifier, Verifier
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.transports.test_dkim import EXAMPLE, EXAMPLE_KEY, MAIL, Fixture
from zope.sendmail.transports.dkim import DKIMSigner


def umlauts(cte: str) -> bytes:
    """Return a message beyond ASCII in its headers and its text."""
    message = EmailMessage()
    message["From"], message["Subject"] = "Grüße <shop@example.org>", "Grüße an alle " * 12
    message.set_content("Schöne Grüße\n" * 3, cte=cte)
    return message.as_bytes()


#: What is signed, by what is special about it.
SHAPES = {
    "usual": MAIL.encode(),
    "CR LF": MAIL.replace("\n", "\r\n").encode(),
    "empty body": b"From: shop@example.org\nSubject: nothing\n\n",
    "no body": b"From: shop@example.org\n",
    "blank lines at the end": MAIL.encode() + b"\n\n \n\t\n\n",
    "no line end": MAIL.rstrip("\n").encode(),
    "folded": MAIL.replace("Order", "a long subject\n  that is folded,\t and  blanks ").encode(),
    "blanks and dots": MAIL.encode() + b". \t a  dot \n.\n..  \n",
    "long lines": MAIL.encode() + b"word " * 150 + b"\n" + b"x" * 900 + b"\n",
    "8bit": umlauts("8bit"),
    "base64": umlauts("base64"),
    "raw UTF-8 in a header": "From: shop@example.org\nSubject: Grüße\n\nSchön\n".encode(),
    "Bcc": b"Bcc: hidden@example.com\n" + MAIL.encode(),
    "unsubscribe": b"List-Unsubscribe: <https://example.org/u?x=1>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    + MAIL.encode(),
}


class ByMailauth(Fixture):
    """mailauth, for Node.js."""

    verifier: ClassVar[Verifier] = Verifier()

    def setUp(self) -> None:
        if self.verifier.excuse:
            self.skipTest(self.verifier.excuse)
        super().setUp()

    def known(self, *found: str) -> list[str]:
        """Leave out what this verifier does not know."""
        return [each for each in found if each.split()[1] in self.verifier.algorithms]

    def verified(self, message: bytes) -> list[str]:
        return self.verifier.verified(message, self.keys)

    def test_every_shape_holds(self) -> None:
        """RSA and Ed25519, relaxed/relaxed; at a relay that knows all extensions, and at one that knows none."""
        both = self.known("example.org rsa-sha256", "example.org ed25519-sha256")
        for keywords in (KEYWORDS, ()):
            for shape, message in SHAPES.items():
                with self.subTest(shape, keywords=bool(keywords)), Relay(keywords=keywords) as relay:
                    mailer = DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key("rsa"), self.key("ed")])
                    mailer.send("shop@example.org", ["jane@example.com"], message)
                    self.assertEqual(self.verified(relay.mails[0].data), both)
                    self.assertIn(b"c=relaxed/relaxed", relay.mails[0].data)

    def test_what_was_changed_or_added_does_not_hold(self) -> None:
        """``From`` and the others are oversigned: one more of them breaks the signature."""
        signed = self.signed(MAIL, self.key("rsa"))
        self.assertEqual(self.verified(signed), ["example.org rsa-sha256"])
        self.assertEqual(self.verified(signed.replace(b"Order", b"Refund")), [])
        self.assertEqual(self.verified(signed + b"more\r\n"), [])
        for name in (b"From", b"Subject", b"To"):
            self.assertEqual(self.verified(name + b": x@example.com\r\n" + signed), [], name)
        self.assertEqual(self.verified(b"Received: by mx.example.com\r\n" + signed), ["example.org rsa-sha256"])

    def test_mail_that_is_sent_again_holds(self) -> None:
        """A relay deferred it; what it gets then is signed anew, once."""
        with Relay() as relay:
            relay.on("DOT", "451 4.3.0 try again", nth=1)
            sender = MailSender("memory:", mailer=DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key("rsa")]))
            sender.writer.send("shop@example.org", ["jane@example.com"], SHAPES["8bit"])
            sender.reader.send_waiting()
            [name] = sender.queue.admin.names()
            sender.queue.admin.retry(name)
            sender.reader.send_waiting()
            self.assertEqual(self.verified(relay.mails[-1].data), ["example.org rsa-sha256"])
            self.assertEqual(relay.mails[-1].data.count(b"DKIM-Signature"), 1)

    def test_the_example_of_the_rfc_holds(self) -> None:
        """So the verifier is right (RFC 8463, appendix A.3)."""
        if "ed25519-sha256" not in self.verifier.algorithms:
            self.skipTest(f"{self.verifier.title} does not know Ed25519")
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(EXAMPLE_KEY))
        self.keys = {"brisbane._domainkey.football.example.com": key}
        self.assertIn("football.example.com ed25519-sha256", self.verified(EXAMPLE))


class ByMailDKIM(ByMailauth):
    """Mail::DKIM, for Perl."""

    verifier = PerlVerifier()


load_tests = in_layer(Servers)
