"""`zope.sendmail.smtp.tls`, and the TLS that ``connect`` sets up with it: versions, contexts."""

from __future__ import annotations

import functools
import os
import smtplib
import ssl
import subprocess
import tempfile
import unittest
from datetime import UTC, datetime
from typing import Any

import trustme

from zope.sendmail.config.settings import Mechanism, RelaySettings, Tls, TlsVersion
from zope.sendmail.interfaces import RelayError
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.smtp.certificate import validity
from zope.sendmail.smtp.tls import cure_for_alert, cure_for_time, show_certificate, tls_context
from zope.sendmail.testing.relay import Drop, Relay
from zope.sendmail.tests.support.conversation import Conversation, authority, right_tls, tls_for

CLIENT = "shop@example.org"


@functools.cache
def client() -> trustme.LeafCert:
    """Our certificate, signed by the authority of the relays."""
    return authority().issue_cert(CLIENT)


def asking_tls() -> ssl.SSLContext:
    """A relay that wants to see a certificate."""
    context = tls_for("127.0.0.1")
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def moment(*parts: int) -> datetime:
    """Return a moment in UTC, without a time zone as trustme wants it."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc, arg-type]  # mypy counts no parts


class Fixture(Conversation):
    def stored(self, *blobs: trustme.Blob) -> str:
        """A file that holds all of these."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        path = os.path.join(directory, "some.pem")
        for blob in blobs:
            blob.write_to_path(path, append=True)
        return path

    def certfile(self) -> str:
        """Certificate and key in one file."""
        return self.stored(client().private_key_and_cert_chain_pem)

    def send(self, relay: Relay, **changes: Any) -> Any:
        return self.transfer(self.session(relay, cafile=self.cafile(), **changes))


class TheRelayWantsACertificate(Fixture):
    def test_it_is_shown(self) -> None:
        """With STARTTLS and implicit TLS, key and certificate in one file or two; nothing else need be set."""
        one = {"certfile": self.certfile()}
        two = {"certfile": self.stored(*client().cert_chain_pems), "keyfile": self.stored(client().private_key_pem)}
        for files in (one, two):
            for tls in (Tls.OPPORTUNISTIC, Tls.IMPLICIT):
                with self.subTest(tls, files=len(files)):
                    relay = self.start(tls=asking_tls(), implicit=tls is Tls.IMPLICIT)
                    self.assertAnswers(self.send(relay, tls=tls, **files), one=Answer.ACCEPTED)
                    self.assertTrue(relay.mails[0].encrypted)

    def test_there_is_none(self) -> None:
        """The relay's fault, told with what it wants; no mail is charged."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for tls in (Tls.REQUIRED, Tls.IMPLICIT):
                with self.subTest(version, tls=tls):
                    context = asking_tls()
                    context.maximum_version = version
                    relay = self.start(tls=context, implicit=tls is Tls.IMPLICIT)
                    outcome = self.send(relay, tls=tls)
                    self.assertFaultOnly(outcome)
                    self.assertIn("a certificate of ours: name its file with certfile", str(outcome.fault))

    def test_there_is_none_and_tls_need_not_be(self) -> None:
        """The mail goes in clear, with TLS 1.3 as with older ones."""
        relay = self.start(tls=asking_tls())
        self.assertAnswers(self.send(relay), one=Answer.ACCEPTED)
        self.assertFalse(relay.mails[0].encrypted)

    def test_it_is_not_accepted(self) -> None:
        """One of an authority that the relay does not know."""
        foreign = trustme.CA().issue_cert(CLIENT)
        for tls in (Tls.REQUIRED, Tls.IMPLICIT):
            with self.subTest(tls):
                relay = self.start(tls=asking_tls(), implicit=tls is Tls.IMPLICIT)
                outcome = self.send(relay, tls=tls, certfile=self.stored(foreign.private_key_and_cert_chain_pem))
                self.assertFaultOnly(outcome)
                self.assertIn("the relay does not accept our certificate", str(outcome.fault))

    def test_it_is_shown_to_the_right_relay_only(self) -> None:
        """Like a password: a relay that does not prove its name, or has no TLS, gets nothing."""
        for relay in (self.start(tls=tls_for("somebody.else")), self.start()):
            outcome = self.send(relay, certfile=self.certfile())
            self.assertFaultOnly(outcome)
            self.assertNotIn("MAIL", relay.verbs())

    def test_broken_tls_is_no_reason_to_go_without(self) -> None:
        """No second connection is made in clear."""
        relay = self.start(tls=right_tls())
        relay.on("STARTTLS", "454 4.7.0 not now")
        self.assertFaultOnly(self.send(relay, certfile=self.certfile()), 454)
        self.assertEqual(len(relay.dialogues), 1)


class TheCertificateLogsIn(Fixture):
    AUTH = (Mechanism.EXTERNAL,)

    def test_without_a_name(self) -> None:
        """AUTH EXTERNAL: the certificate has said it."""
        relay = self.start(tls=asking_tls(), mechanisms=["EXTERNAL"])
        self.assertAnswers(self.send(relay, certfile=self.certfile(), auth=self.AUTH), one=Answer.ACCEPTED)
        self.assertEqual(relay.mails[0].user, CLIENT)
        self.assertIn("AUTH EXTERNAL =", relay.commands)

    def test_with_a_name(self) -> None:
        """As whom we act; the relay decides whether we may."""
        relay = self.start(tls=asking_tls(), mechanisms=["EXTERNAL"])
        certfile = self.certfile()
        outcome = self.send(relay, certfile=certfile, auth=self.AUTH, username=CLIENT)
        self.assertAnswers(outcome, one=Answer.ACCEPTED)
        self.assertFaultOnly(self.send(relay, certfile=certfile, auth=self.AUTH, username="boss@example.org"), 535)

    def test_but_not_with_a_class_that_logs_in_by_itself(self) -> None:
        """It knows passwords only: it is not asked, no mail is sent, and the reason is told."""
        relay = self.start(tls=asking_tls(), mechanisms=["EXTERNAL"])

        class Own(smtplib.SMTP):
            def login(self, user: str, password: str, **_: Any) -> tuple[int, bytes]:
                raise AssertionError("it was asked")

        settings: dict[str, Any] = {"certfile": self.certfile(), "cafile": self.cafile(), "auth": self.AUTH}
        outcome = self.transfer(self.session(relay, Own, **settings))
        self.assertFaultOnly(outcome)
        self.assertIn("Own logs in by itself, and knows passwords and tokens only", str(outcome.fault))

    def test_only_if_it_was_chosen(self) -> None:
        """A certificate alone says nothing but who we are to TLS."""
        relay = self.start(tls=asking_tls(), mechanisms=["EXTERNAL"])
        self.assertAnswers(self.send(relay, certfile=self.certfile()), one=Answer.ACCEPTED)
        self.assertEqual(relay.mails[0].user, "")

    def test_it_is_not_offered(self) -> None:
        """The fault says what is."""
        relay = self.start(tls=asking_tls(), mechanisms=["PLAIN"])
        outcome = self.send(relay, certfile=self.certfile(), auth=self.AUTH)
        self.assertIn("offers AUTH with PLAIN only", str(outcome.fault))


class TheRelaysCertificateIsOutOfTime(Fixture):
    """It is renewed, or a clock is set right; to believe anybody is no cure."""

    def tls(self, begin: datetime, end: datetime) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority().issue_cert("127.0.0.1", not_before=begin, not_after=end).configure_cert(context)
        return context

    def fault(self, context: ssl.SSLContext, tls: Tls) -> str:
        relay = self.start(tls=context, implicit=tls is Tls.IMPLICIT)
        outcome = self.send(relay, tls=tls)
        self.assertFaultOnly(outcome)
        self.assertEqual(relay.mails, [])
        return str(outcome.fault)

    def test_it_has_expired(self) -> None:
        """The fault says what, when, and who has to do something."""
        for tls in (Tls.REQUIRED, Tls.IMPLICIT):
            with self.subTest(tls):
                fault = self.fault(self.tls(moment(2020, 1, 1), moment(2021, 2, 3, 4, 5)), tls)
                self.assertIn("the relay's certificate expired on 2021-02-03 04:05 UTC", fault)
                self.assertIn("its operator has to renew it, unless the clock of this host is wrong", fault)
                self.assertNotIn("verify=no", fault)

    def test_it_is_not_valid_yet(self) -> None:
        """Most likely it is our clock."""
        fault = self.fault(self.tls(moment(2090, 1, 1), moment(2091, 1, 1)), Tls.REQUIRED)
        self.assertIn("valid from 2090-01-01 00:00 UTC on", fault)
        self.assertIn("the clock of this host", fault)

    def test_an_issuers_has_expired(self) -> None:
        """The relay's own is good: its operator sends an old chain."""
        error = ssl.SSLCertVerificationError()
        error.verify_code = 10
        good = authority().issue_cert("127.0.0.1").cert_chain_pems[0].bytes().decode()
        words = cure_for_time(error, ssl.PEM_cert_to_DER_cert(good), datetime.now(UTC))
        self.assertRegex(words, "own certificate is valid until .* but one of its issuers' is not")

    def test_nobody_knows_when(self) -> None:
        """The relay does not answer any more, or shows nonsense."""
        error = ssl.SSLCertVerificationError()
        error.verify_code = 10
        for shown in (b"", b"nonsense", bytes(100), b"\x30\x84\xff\xff\xff\xff"):
            self.assertIn("a certificate of the relay has expired", cure_for_time(error, shown, datetime.now(UTC)))

    def test_the_relay_does_not_show_it_again(self) -> None:
        """The second connection, which looks at the certificate, fails: the fault says what is known."""
        relay = self.start(tls=self.tls(moment(2020, 1, 1), moment(2021, 1, 1)))
        relay.on("GREETING", Drop(), nth=2)
        outcome = self.send(relay, tls=Tls.REQUIRED)
        self.assertFaultOnly(outcome)
        self.assertIn("a certificate of the relay has expired", str(outcome.fault))

    def test_a_context_of_ones_own_is_not_asked_twice(self) -> None:
        """What it does at a connection, such as asking for a key, is not ours to repeat."""
        relay = self.start(tls=self.tls(moment(2020, 1, 1), moment(2021, 1, 1)))
        made: list[ssl.SSLContext] = []

        def own() -> ssl.SSLContext:
            made.append(ssl.create_default_context(cafile=self.cafile()))
            return made[-1]

        outcome = self.transfer(self.session(relay, tls=Tls.REQUIRED, ssl_context=own))
        self.assertIn("a certificate of the relay has expired", str(outcome.fault))
        self.assertEqual((len(made), len(relay.dialogues)), (1, 1))

    def test_nothing_secret_is_told_meanwhile(self) -> None:
        """The connection that looks at the certificate says no name, password or mail."""
        relay = self.start(tls=self.tls(moment(2020, 1, 1), moment(2021, 1, 1)), users={"u": "p"})
        outcome = self.send(relay, username="u", password="p")
        self.assertIn("expired on 2021-01-01", str(outcome.fault))
        self.assertEqual({verb.upper() for at in range(2) for verb in relay.verbs(at)}, {"EHLO", "STARTTLS", "QUIT"})


class ACertificateIsRead(unittest.TestCase):
    """In the forms that it may have (RFC 5280, 4.1)."""

    def certificate(self, begin: tuple[int, str], end: tuple[int, str], version: bytes = b"") -> bytes:
        def element(tag: int, content: bytes) -> bytes:
            return bytes([tag, len(content)]) + content

        times = b"".join(element(tag, text.encode()) for tag, text in (begin, end))
        serial, algorithm, issuer = element(2, b"1"), element(0x30, b""), element(0x30, b"")
        return element(0x30, element(0x30, version + serial + algorithm + issuer + element(0x30, times)))

    def test_without_a_version(self) -> None:
        """As one of version 1 is; and one that says it."""
        begin, end = (0x17, "200101000000Z"), (0x18, "20510203040506Z")
        for version in (b"", b"\xa0\x03\x02\x01\x02"):
            self.assertEqual(
                validity(self.certificate(begin, end, version)),
                (datetime(2020, 1, 1, tzinfo=UTC), datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)),
            )

    def test_years_of_two_digits(self) -> None:
        """From 50 on they are of the last century (RFC 5280, 4.1.2.5.1)."""
        self.assertEqual(
            validity(self.certificate((0x17, "500101000000Z"), (0x17, "491231235959Z"))),
            (datetime(1950, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        )


class AnErrorOfTls(unittest.TestCase):
    def test_whose_causes_go_in_a_circle(self) -> None:
        """There is an end to looking for one that tells what the relay said."""
        one, two = OSError("one"), OSError("two")
        one.__cause__, two.__cause__ = two, one
        self.assertEqual(cure_for_alert(one, shows_certificate=True), "")


class TheFilesAreWrong(Fixture):
    def assertRefused(self, text: str, certfile: str, keyfile: str | None = None) -> None:
        with self.assertRaisesRegex(RelayError, text):
            show_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certfile, keyfile)

    def test_missing(self) -> None:
        """The one that is missing is named."""
        self.assertRefused("certfile '/nowhere.pem' cannot be read: No such file", "/nowhere.pem")
        self.assertRefused("keyfile '/nowhere.pem' cannot be read: No such file", self.certfile(), "/nowhere.pem")

    def test_key_of_another(self) -> None:
        """What does not fit what."""
        other = self.stored(authority().issue_cert("other@example.org").private_key_pem)
        self.assertRefused(f"the key in keyfile '{other}' does not belong to the first", self.certfile(), other)

    def test_nothing_of_the_kind(self) -> None:
        """No certificate, no key, or no PEM."""
        without_key = self.stored(*client().cert_chain_pems)
        for path in (without_key, self.stored(trustme.Blob(b"hello"))):
            self.assertRefused(f"^certfile '{path}' hold no certificate and key in PEM form", path)
        key = self.stored(client().private_key_pem)
        self.assertRefused(f"^certfile '{key}' and keyfile '{key}' hold no", key, key)

    def test_encrypted_key(self) -> None:
        """Refused with what to do; nobody is asked for a password at a terminal that nobody sees."""
        plain = self.stored(client().private_key_pem)
        locked = f"{plain}.locked"
        command = ["openssl", "pkey", "-in", plain, "-aes256", "-passout", "pass:secret", "-out", locked]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"no key can be encrypted without the openssl command: {error}")
        self.assertRefused("is encrypted.*openssl pkey -in KEY -out NEW", self.certfile(), locked)

    def test_no_authorities(self) -> None:
        """The file that was to name them is named, and mail waits."""
        for path, text in (("/nowhere.pem", "cannot be read: No such file"), ("/", "cannot be read: Is a directory")):
            outcome = self.transfer(self.session(self.start(tls=right_tls()), tls=Tls.REQUIRED, cafile=path))
            self.assertFaultOnly(outcome)
            self.assertIn(f"cafile '{path}' {text}", str(outcome.fault))
        path = self.stored(client().private_key_pem)
        outcome = self.transfer(self.session(self.start(tls=right_tls()), tls=Tls.IMPLICIT, cafile=path))
        self.assertIn(f"cafile '{path}' holds no certificate in PEM form", str(outcome.fault))

    def test_is_a_fault(self) -> None:
        """Told like everything that is wrong with a relay; the mail waits."""
        relay = self.start(tls=asking_tls())
        outcome = self.send(relay, certfile="/nowhere.pem")
        self.assertFaultOnly(outcome)
        self.assertIn("certfile '/nowhere.pem' cannot be read", str(outcome.fault))


class AContextOfOnesOwn(Fixture):
    def own(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.cafile())
        client().configure_cert(context)
        return context

    def test_is_used(self) -> None:
        """For STARTTLS and implicit TLS."""
        for tls in (Tls.REQUIRED, Tls.IMPLICIT):
            relay = self.start(tls=asking_tls(), implicit=tls is Tls.IMPLICIT)
            session = self.session(relay, tls=tls, ssl_context=self.own)
            self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)

    def test_must_verify_where_that_is_a_must(self) -> None:
        """A context that looks at no certificate, or at no name in it, gets no password to send."""

        def careless() -> ssl.SSLContext:
            return ssl._create_unverified_context()

        def nameless() -> ssl.SSLContext:
            context = self.own()
            context.check_hostname = False
            return context

        for make, what in ((careless, "no certificate"), (nameless, "no name in the certificate")):
            with self.subTest(what):
                relay = self.start(tls=tls_for("somebody.else"), users={"name": "secret"})
                login: dict[str, Any] = {"username": "name", "password": "secret"}
                outcome = self.transfer(self.session(relay, ssl_context=make, **login))
                self.assertFaultOnly(outcome)
                self.assertIn(f"verified {what}; verify=False allows that", str(outcome.fault))
                self.assertNotIn("AUTH", relay.verbs())
                outcome = self.transfer(self.session(relay, ssl_context=make, verify=False, **login))
                self.assertAnswers(outcome, one=Answer.ACCEPTED)


class TheLeastVersion(Fixture):
    def test_it_is_set(self) -> None:
        """1.2, or 1.3 if that is said; whether certificates are verified or not."""
        for verify in (True, False):
            for least, version in (
                (TlsVersion.TLS_1_2, ssl.TLSVersion.TLSv1_2),
                (TlsVersion.TLS_1_3, ssl.TLSVersion.TLSv1_3),
            ):
                context = tls_context(RelaySettings(verify=verify, tls_minimum=least))
                self.assertEqual(context.minimum_version, version)

    def test_an_older_relay_gets_nothing(self) -> None:
        """One that knows 1.2 only is none for who wants 1.3."""
        tls = tls_for("127.0.0.1")
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        relay = self.start(tls=tls)
        self.assertFaultOnly(self.send(relay, tls=Tls.REQUIRED, tls_minimum=TlsVersion.TLS_1_3))
        self.assertAnswers(self.send(relay, tls=Tls.REQUIRED), one=Answer.ACCEPTED)


if __name__ == "__main__":
    unittest.main()
