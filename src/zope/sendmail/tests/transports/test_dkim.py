"""Signed mail: what leaves holds for a verifier that shares nothing with the signer."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import os
import select
import tempfile
import unittest
from collections.abc import Generator, Iterator
from email.message import EmailMessage
from io import BytesIO
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from zope.interface import implementer

from zope.sendmail.interfaces import IJob, IJobSource, InvalidSettings, IOrdinaryJob
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SendOnlySession, SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.sender import MailSender
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.smtp.pipeline import Step, stream
from zope.sendmail.testing.relay import KEYWORDS, Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, ScriptedSession, SendOnlyMailer
from zope.sendmail.tests.support.conversation import Jobs
from zope.sendmail.tests.support.dkimverifier import verified
from zope.sendmail.transports.dkim import DKIMKey, DKIMSigner, StreamingDKIMSession

MAIL = "From: Shop <shop@example.org>\nTo: jane@example.com\nSubject: Order\n\nThank you!\n"
OCTETS = MAIL.encode()
RSA = generate_private_key(65537, 2048)

#: RFC 8463, A.2 and A.3.
EXAMPLE_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
EXAMPLE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")


class Fixture(unittest.TestCase):
    """Two private keys in files, and their public ones."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.ed25519 = Ed25519PrivateKey.generate()
        self.keys: dict[str, RSAPublicKey | Ed25519PublicKey] = {
            "rsa._domainkey.example.org": RSA.public_key(),
            "ed._domainkey.example.org": self.ed25519.public_key(),
        }
        self.write("rsa.pem", RSA)
        self.write("ed.pem", self.ed25519)

    def write(self, name: str, key: Any, kind: PrivateFormat = PrivateFormat.PKCS8) -> str:
        path = self.directory / name
        path.write_bytes(key.private_bytes(Encoding.PEM, kind, NoEncryption()))
        return str(path)

    def key(self, selector: str = "ed", domain: str = "example.org") -> DKIMKey:
        return DKIMKey(domain, selector, str(self.directory / f"{selector}.pem"))

    def signed(self, message: str | bytes, *keys: DKIMKey) -> bytes:
        """What leaves."""
        octets = message.encode() if isinstance(message, str) else message
        return DKIMSigner(SendOnlyMailer(), keys or [self.key()]).signed(BytesIO(octets)).read()


class TheVerifier(unittest.TestCase):
    def test_agrees_with_the_example_of_the_rfc(self) -> None:
        """And with nothing that was changed in it."""
        keys = {
            "brisbane._domainkey.football.example.com": Ed25519PublicKey.from_public_bytes(
                base64.b64decode(EXAMPLE_KEY)
            )
        }
        self.assertEqual(verified(EXAMPLE, keys), ["football.example.com ed25519-sha256"])
        for change in ((b"dinner", b"lunch"), (b"hungry", b"angry"), (b"Joe SixPack", b"Jim SixPack")):
            self.assertEqual(verified(EXAMPLE.replace(*change), keys), [], change)


class ASignature(Fixture):
    def test_holds_with_each_algorithm(self) -> None:
        """Two keys of one domain sign both; keys in the older form of RSA as well."""
        self.write("old.pem", RSA, PrivateFormat.TraditionalOpenSSL)
        self.keys["old._domainkey.example.org"] = RSA.public_key()
        names = {"rsa": "rsa-sha256", "ed": "ed25519-sha256", "old": "rsa-sha256"}
        for selectors in (["rsa"], ["ed"], ["old"], ["rsa", "ed"]):
            with self.subTest(selectors):
                signed = self.signed(MAIL, *map(self.key, selectors))
                self.assertEqual(verified(signed, self.keys), [f"example.org {names[each]}" for each in selectors])

    def test_holds_for_messages_of_all_shapes(self) -> None:
        """The relay gets what was signed: line ends, Bcc, empty lines at the end, folded fields, no body."""
        for message in (
            MAIL.replace("\n", "\r\n"),
            MAIL.replace("\n", "\r"),
            MAIL + "\n\n\n",
            MAIL.rstrip("\n"),
            "From: shop@example.org\n",
            "Bcc: hidden@example.com\n" + MAIL,
            MAIL.replace("Order", "a long subject\n  that is folded,\t and  blanks "),
            MAIL.replace("Thank you!", ". \t a  dot\n.\n..  \n \n"),
        ):
            with self.subTest(message), Relay() as relay:
                mailer = DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key()])
                mailer.send("shop@example.org", ["jane@example.com"], message.encode())
                self.assertEqual(verified(relay.mails[0].data, self.keys), ["example.org ed25519-sha256"])
                self.assertNotIn(b"hidden", relay.mails[0].data)

    def test_holds_at_a_relay_that_takes_ascii_only(self) -> None:
        """Text beyond ASCII is encoded before it is signed."""
        message = EmailMessage()
        message["From"], message["Subject"] = "Grüße <shop@example.org>", "Grüße"
        message.set_content("Schöne Grüße\n", cte="8bit")
        for raw in (message.as_bytes(), "From: shop@example.org\nSubject: Grüße\n\nSchön\n".encode()):
            for keywords in (KEYWORDS, ()):
                with self.subTest(keywords), Relay(keywords=keywords) as relay:
                    mailer = DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key("rsa")])
                    mailer.send("shop@example.org", ["jane@example.com"], raw)
                    self.assertEqual(verified(relay.mails[0].data, self.keys), ["example.org rsa-sha256"])

    def test_covers_what_people_see(self) -> None:
        """None of it can be changed, or added once more."""
        signed = self.signed("Reply-To: a@example.org\nList-Unsubscribe: <https://example.org/u>\n" + MAIL)
        for change in (
            (b"Order", b"Refund"),
            (b"Thank", b"Thanks"),
            (b"a@example.org", b"b@example.org"),
            (b"https://example.org", b"https://example.com"),
        ):
            self.assertEqual(verified(signed.replace(*change), self.keys), [], change)
        for name in ("From", "To", "Cc", "Subject", "Date", "Reply-To"):
            self.assertEqual(verified(f"{name}: x@example.com\r\n".encode() + signed, self.keys), [], name)
        received = b"Received: by mx.example.com\r\nX-Spam: no\r\n" + signed
        self.assertEqual(len(verified(received, self.keys)), 1)

    def test_is_made_anew_at_each_attempt(self) -> None:
        """A relay that deferred the mail gets it with another one, and the queue keeps the mail as it was sent."""
        with Relay() as relay:
            relay.on("DOT", "451 4.3.0 try again", nth=1)
            mailer = DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key()])
            sender = MailSender("memory:", mailer=mailer)
            sender.writer.send("shop@example.org", ["jane@example.com"], MAIL)
            sender.reader.send_waiting()
            [name] = sender.queue.admin.names()
            self.assertNotIn(b"DKIM", sender.queue.admin.read(name).read())
            sender.queue.admin.retry(name)
            sender.reader.send_waiting()
            self.assertEqual(verified(relay.mails[-1].data, self.keys), ["example.org ed25519-sha256"])
            self.assertEqual(relay.mails[-1].data.count(b"DKIM-Signature"), 1)

    def test_rides_with_other_mail(self) -> None:
        """A queue sends through it as through the mailer behind: many mails on one connection, each signed."""
        with Relay() as relay:
            mailer = DKIMSigner(SMTPMailer(relay.host, relay.port, connections=1), [self.key()])
            sender = MailSender("memory:", mailer=mailer)
            for number in range(5):
                sender.writer.send("shop@example.org", [f"{number}@example.com"], MAIL)
            sender.reader.send_waiting()
            self.assertEqual([len(verified(mail.data, self.keys)) for mail in relay.mails], [1] * 5)
            self.assertEqual(sum(len(dialogue) > 3 for dialogue in relay.dialogues), 1)


@implementer(IOrdinaryJob)
class Order:
    """A mail to ``<name>@example.com``.

    :param text: at hand; None: the message has to be opened
    """

    def __init__(self, name: str, message: bytes | Exception = OCTETS, *, is_at_hand: bool = True) -> None:
        self.name, self.message = name, message
        self.envelope = Envelope("shop@example.org", (f"{name}@example.com",))
        self.text = message if is_at_hand and isinstance(message, bytes) else None

    def open(self) -> BinaryIO:
        """See `IJob`."""
        if isinstance(self.message, Exception):
            raise self.message
        return BytesIO(self.message)

    def intend(self) -> None:
        """See `IJob`."""


class AStream(Fixture):
    """Of a session that signs: the mails ride with one another, as those of the session behind do."""

    ORDERS = (
        *(Order(name) for name in ("one", "two", "three", "gone", "later", "four")),
        Order("opened", is_at_hand=False),
        Order("lost", OSError("the disk fails")),
        Order("jorg", MAIL.replace("Thank", "Größe, thank").encode()),
        Order("five"),
    )

    def begin(self, *orders: Order) -> tuple[Relay, Any, Jobs]:
        DISTANCES.clear()  # another relay may have had the same port
        relay = self.enterContext(Relay())
        relay.on("RCPT", "550 5.1.1 no such user", about="gone@")
        relay.on("RCPT", "450 4.2.1 not now", about="later@")
        session: Any = open_session(DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key()]))
        self.addCleanup(session.close)
        return relay, session, Jobs(orders)

    def test_in_steps_does_the_same(self) -> None:
        """Each mail has the same result, and leaves the same way but for the moment of its signature."""
        found = []
        for in_steps in (False, True):
            relay, session, jobs = self.begin(*self.ORDERS)
            if in_steps:
                results = [step for step in answered(session.stream_in_steps(jobs)) if isinstance(step, tuple)]
            else:
                results = list(session.stream(jobs))
            self.assertEqual([job for job, _ in results], list(self.ORDERS))
            told = [
                str(result) if isinstance(result, Exception) else [reply.answer for reply in result.replies.values()]
                for _, result in results
            ]
            for mail in relay.mails:
                self.assertEqual(verified(mail.data, self.keys), ["example.org ed25519-sha256"])
            found.append((told, [(mail.recipients, mail.data.partition(b"\nFrom:")[2]) for mail in relay.mails]))
        self.assertEqual(found[0], found[1])
        self.assertEqual(len(found[0][1]), len(self.ORDERS) - 3)

    def test_waits_for_its_relay_in_the_place_of_its_caller(self) -> None:
        """As soon as its mail is ordinary; then it tells how long that took, and how far away the relay is."""
        _, session, jobs = self.begin(*(Order(name) for name in ("one", "two", "three", "four")))
        self.assertEqual((session.waited(), session.distance()), (inf, None))
        kinds = [kind for kind, _ in itertools.groupby(answered(session.stream_in_steps(jobs)), type)]
        self.assertEqual(kinds[-4:], [int, tuple, int, tuple])
        self.assertLess(session.waited(), inf)
        self.assertIsNotNone(session.distance())

    def test_hands_on_what_else_is_to_be_done(self) -> None:
        """While the relay works, and before a mail that may take long."""
        called: list[str] = []
        _, session, jobs = self.begin(*(Order(name) for name in ("one", "two", "three")))
        for name in ("let_go", "meanwhile", "may_wait"):
            setattr(jobs, name, functools.partial(called.append, name))
        list(session.stream(jobs))
        self.assertEqual(set(called), {"let_go", "meanwhile", "may_wait"})
        self.assertEqual(called.count("meanwhile"), 1)

    def test_behind_a_session_that_has_only_a_stream(self) -> None:
        """Any of its steps may take long, and nothing is known of its relay."""

        class OnlyStreams(SendOnlySession):
            def stream(self, jobs: IJobSource) -> Iterator[tuple[IJob, Outcome | Exception]]:
                return stream(SendOnlySession(mailer), jobs)

        mailer = SendOnlyMailer()
        session = StreamingDKIMSession(DKIMSigner(mailer, [self.key()]), OnlyStreams(mailer))
        steps = list(answered(session.stream_in_steps(Jobs([Order("one"), Order("two")]))))
        self.assertEqual([type(step) for step in steps], [NoneType, tuple, NoneType, tuple, NoneType])
        self.assertEqual((session.waited(), session.distance()), (inf, None))
        self.assertEqual([message.count(b"DKIM-Signature") for _, _, message in mailer.sent], [1, 1])


def answered(steps: Generator[Step, bool | None, None]) -> Iterator[Step]:
    """Yield the steps, each told that it may go on, when the relay has said something where that is waited for."""
    told = None
    with contextlib.suppress(StopIteration):
        while True:
            step = steps.send(told)
            told = bool(select.select([step], [], [], 300.0)[0]) if isinstance(step, int) else None
            yield step


class TheKey(Fixture):
    def test_is_that_of_the_nearest_domain_of_from(self) -> None:
        """The envelope's sender does not matter; other domains are another's."""
        self.write("news.pem", self.ed25519)
        self.keys["news._domainkey.news.example.org"] = self.ed25519.public_key()
        keys = [self.key(), self.key("news", "News.Example.org.")]
        for address, domains in (
            ("shop@example.org", ["example.org ed25519-sha256"]),
            ("shop@EXAMPLE.org", ["example.org ed25519-sha256"]),
            ("shop@a.b.example.org", ["example.org ed25519-sha256"]),
            ("a@news.example.org", ["news.example.org ed25519-sha256"]),
            ("a@x.news.example.org", ["news.example.org ed25519-sha256"]),
            ("a@notexample.org", []),
            ("a@org", []),
            ("a@news.example.org, shop@example.org", ["news.example.org ed25519-sha256"]),
        ):
            with self.subTest(address):
                signed = self.signed(MAIL.replace("Shop <shop@example.org>", address), *keys)
                self.assertEqual(verified(signed, self.keys), domains)

    def test_may_be_of_a_domain_beyond_ascii(self) -> None:
        """Written in either form."""
        self.keys["ed._domainkey.xn--bcher-kva.example"] = self.ed25519.public_key()
        for written in ("bücher.example", "xn--bcher-kva.example"):
            for mail in (
                MAIL.replace("example.org", "bücher.example"),
                MAIL.replace("example.org", "xn--bcher-kva.example"),
            ):
                signed = self.signed(mail, self.key(domain=written))
                self.assertEqual(verified(signed, self.keys), ["xn--bcher-kva.example ed25519-sha256"])

    def test_that_is_missing_leaves_mail_as_it_is(self) -> None:
        """Which is told once for each domain."""
        signer = DKIMSigner(SendOnlyMailer(), [self.key()])
        other = MAIL.replace("example.org", "example.net").encode()
        with self.assertLogs("QueueProcessorThread", "WARNING") as logged:
            for _ in range(2):
                self.assertNotIn(b"DKIM", signer.signed(BytesIO(other)).read())
            self.assertNotIn(b"DKIM", signer.signed(BytesIO(b"Subject: no From\n\n")).read())
        self.assertEqual(len(logged.output), 1)
        self.assertIn("example.net", logged.output[0])

    def test_is_read_anew_when_its_file_changes(self) -> None:
        """While it is no key, the former one goes on, which is told once."""
        key = self.key()
        (self.directory / "ed.pem").write_text("half written")
        with self.assertLogs("QueueProcessorThread", "WARNING") as logged:
            for _ in range(2):
                self.assertEqual(len(verified(self.signed(MAIL, key), self.keys)), 1)
        self.assertEqual(len(logged.output), 1)
        newer = Ed25519PrivateKey.generate()
        self.write("ed.pem", newer)
        self.keys["ed._domainkey.example.org"] = newer.public_key()
        self.assertEqual(len(verified(self.signed(MAIL, key), self.keys)), 1)

    def test_that_cannot_be_is_refused_when_it_is_named(self) -> None:
        """With the file, and what to do; the key is not repeated."""
        short = self.write("short.pem", generate_private_key(65537, 1024))
        damaged = Path(short).read_text().replace("M", "%", 1)
        files = {
            "none.pem": None,
            "empty.pem": "",
            "public.pem": "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
            "damaged.pem": damaged,
            "other.pem": "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n",
        }
        for name, text in files.items():
            if text is not None:
                (self.directory / name).write_text(text)
            with self.subTest(name), self.assertRaises(InvalidSettings) as caught:
                DKIMKey("example.org", "s", str(self.directory / name))
            self.assertIn(name, str(caught.exception))
            self.assertNotIn("MCow", str(caught.exception))
        for domain, selector in (
            ("", "s"),
            ("ex ample.org", "s"),
            ("example.org", ""),
            ("example.org", "a b"),
            ("a;b", "s"),
        ):
            with self.subTest(domain=domain, selector=selector), self.assertRaises(InvalidSettings):
                DKIMKey(domain, selector, str(self.directory / "ed.pem"))
        with self.assertRaisesRegex(InvalidSettings, "name a key"):
            DKIMSigner(SendOnlyMailer())
        with self.assertRaisesRegex(InvalidSettings, "no mailer to send through"):
            DKIMSigner(keys=[self.key()]).open_session()

    def test_that_verifiers_ignore_is_refused(self) -> None:
        """One of fewer than 1024 bits (RFC 8301, 3.2), as no library makes them any more."""
        with (
            mock.patch("dkim.crypto.parse_pem_private_key", return_value={"modulus": 2**767}),
            self.assertRaisesRegex(InvalidSettings, "has 768 bits, which verifiers ignore; make one with 2048"),
        ):
            self.key("rsa")

    def test_is_shown_without_itself(self) -> None:
        """In a traceback or a log."""
        self.assertEqual(repr(self.key()), f"DKIMKey('example.org', 'ed', '{self.directory}/ed.pem')")

    def test_needs_what_signs(self) -> None:
        """Said when it is named, and not with the first mail."""
        with (
            mock.patch.dict("sys.modules", {"nacl.signing": None}),
            self.assertRaisesRegex(InvalidSettings, r"install it: pip install 'zope.sendmail\[dkim\]'"),
        ):
            self.key()

    def test_that_cannot_sign_a_mail_leaves_it_as_it_is(self) -> None:
        """Which is told in the log."""
        from dkim import DKIMException

        refuses = mock.patch.object(DKIMKey, "sign", side_effect=DKIMException("no"))
        with refuses, self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.signed(MAIL), MAIL.replace("\n", "\r\n").encode())


class BehindOtherMailers(Fixture):
    def test_is_asked_about_the_signed_message(self) -> None:
        """It is larger; the relay is that of the session behind."""
        sizes: list[int] = []

        class Sizing(ScriptedSession):
            def verify(self, envelope: Envelope, message: BinaryIO) -> Outcome:
                sizes.append(len(message.read()))
                return super().verify(envelope, message)

        class Mailer(ScriptedMailer):
            def open_session(self) -> ScriptedSession:
                return Sizing(self)

        session = open_session(DKIMSigner(Mailer(), [self.key()]))
        session.verify(Envelope("shop@example.org", ("jane@example.com",)), BytesIO(OCTETS))
        self.assertEqual(session.relay, ScriptedSession.relay)
        self.assertGreater(sizes[0], len(OCTETS))

    def test_any_mailer_will_do(self) -> None:
        """One that has only ``send``."""
        mailer = SendOnlyMailer()
        DKIMSigner(mailer, [self.key()]).send("shop@example.org", ["jane@example.com"], MAIL.encode())
        [(sender, recipients, message)] = mailer.sent
        self.assertEqual((sender, recipients), ("shop@example.org", ("jane@example.com",)))
        self.assertEqual(len(verified(message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), self.keys)), 1)
        self.assertTrue(os.path.exists(self.key().path))


class BehindAQueue(Fixture):
    def test_mail_that_is_not_taken_ends_no_pass(self) -> None:
        """Deferred, rejected, of low priority: each is settled, and the mail behind it leaves, signed."""
        with tempfile.TemporaryDirectory() as directory, Relay() as relay:
            signer = DKIMSigner(SMTPMailer(relay.host, relay.port), [self.key()])
            with MailSender(f"{directory}/queue", mailer=signer) as sender:
                sender.stop()
                relay.on("RCPT", "450 4.2.1 not now", about="later@")
                relay.on("RCPT", "550 5.1.1 no such user", about="gone@")
                for name, asked in (("later", None), ("gone", None), ("low", "low"), ("low", "low"), ("jane", None)):
                    sender.writer.send("shop@example.org", [f"{name}@example.com"], MAIL.encode(), priority=asked)
                sender.reader.send_waiting()
                self.assertEqual(sender.queue.admin.count(), {State.DEFERRED: 1, State.REJECTED: 1})
            self.assertEqual(
                sorted(mail.recipients[0] for mail in relay.mails),
                ["jane@example.com", "low@example.com", "low@example.com"],
            )
            for mail in relay.mails:
                self.assertEqual(len(verified(mail.data, self.keys)), 1)
