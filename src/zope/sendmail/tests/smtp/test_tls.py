"""`zope.sendmail.smtp.connect` and ``sasl``: encryption, certificates, login."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

from zope.sendmail.config.settings import RelaySettings, Tls, TlsVersion
from zope.sendmail.errors import RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.smtp.replylines import has_unread, telling_alerts
from zope.sendmail.smtp.tls import tls_context
from zope.sendmail.testing.relay import Action, Drop, Hang, Relay
from zope.sendmail.tests.support.conversation import AT_ONCE, TIMEOUTS, Conversation, broken_tls, right_tls, tls_for

ACCEPTED = Answer.ACCEPTED
LOGIN: dict[str, Any] = {"username": "name", "password": "pass word"}
USERS = {"name": "pass word"}


class Secure(Conversation):
    """What the tests about TLS have in common."""

    def assertNothingSent(self, outcome: Outcome, relay: Relay) -> None:
        """The relay is at fault, and has heard neither a password nor a sender."""
        self.assertEqual(outcome.replies, {})
        self.assertIsNotNone(outcome.fault)
        self.assertFalse({"AUTH", "MAIL"} & {command.partition(" ")[0].upper() for command in relay.commands})

    def assertSent(self, outcome: Outcome, relay: Relay, *, encrypted: bool, user: str = "") -> None:
        """The relay has got the mail, in this way."""
        self.assertAnswers(outcome, one=ACCEPTED)
        mail = relay.mails[-1]
        self.assertEqual((mail.encrypted, mail.user), (encrypted, user))


class TlsIsAMatterOfOpportunity(Secure):
    def test_it_is_used_where_it_is_offered(self) -> None:
        """Any certificate is better than none: an attacker who only listens gets nothing (RFC 7435)."""
        relay = self.start(tls=tls_for("somebody.else"))
        self.assertSent(self.transfer(self.session(relay)), relay, encrypted=True)

    def test_it_goes_without_where_it_is_not_offered(self) -> None:
        """A relay without STARTTLS gets the mail in clear."""
        relay = self.start()
        self.assertSent(self.transfer(self.session(relay)), relay, encrypted=False)

    def test_it_goes_without_where_it_does_not_work(self) -> None:
        """If it is refused, dropped, or the handshake fails, a second connection is made, in clear."""
        cases: list[tuple[ssl.SSLContext, Action]] = [
            (right_tls(), "454 4.7.0 not now"),
            (right_tls(), Drop()),
            (broken_tls(), "220 2.0.0 go ahead"),
        ]
        for tls, action in cases:
            with self.subTest(action):
                relay = self.start(tls=tls)
                relay.on("STARTTLS", action)
                self.assertSent(self.transfer(self.session(relay)), relay, encrypted=False)
                self.assertEqual(len(relay.dialogues), 2)

    def test_it_must_work_if_certificates_are_to_be_verified(self) -> None:
        """Who asks for verification does not want the mail in clear instead."""
        relay = self.start(tls=tls_for("somebody.else"))
        session = self.session(relay, verify=True, cafile=self.cafile())
        self.assertNothingSent(self.transfer(session), relay)

    def test_it_must_be_offered_if_certificates_are_to_be_verified(self) -> None:
        """A relay without STARTTLS has nothing to prove itself with: its fault, and no mail goes in clear."""
        for ehlo in ("250 relay.test", "502 5.5.1 what?"):
            relay = self.start()
            relay.on("EHLO", ehlo)
            outcome = self.transfer(self.session(relay, verify=True, cafile=self.cafile()))
            self.assertNothingSent(outcome, relay)
            self.assertIn("STARTTLS", str(outcome.fault))
            self.assertEqual(len(relay.dialogues), 1)

    def test_it_must_work_with_a_password(self) -> None:
        """A broken handshake is no reason to tell the password to everybody."""
        relay = self.start(tls=right_tls(), users=USERS)
        relay.on("STARTTLS", "454 4.7.0 not now")
        self.assertNothingSent(self.transfer(self.session(relay, allow_clear_password=True, **LOGIN)), relay)

    def test_it_must_be_offered_with_a_password(self) -> None:
        """Taking STARTTLS out of the reply to EHLO gains an attacker nothing (7.3 sent the password in clear)."""
        relay = self.start(users=USERS)
        outcome = self.transfer(self.session(relay, **LOGIN))
        self.assertNothingSent(outcome, relay)
        self.assertIn("STARTTLS", str(outcome.fault))


class TlsIsRequired(Secure):
    def test_right_certificate(self) -> None:
        """A relay that proves its name gets the mail."""
        relay = self.start(tls=right_tls())
        session = self.session(relay, tls=Tls.REQUIRED, cafile=self.cafile())
        self.assertSent(self.transfer(session), relay, encrypted=True)

    def test_wrong_name(self) -> None:
        """A certificate for somebody else is none (7.3 looked at no certificate)."""
        relay = self.start(tls=tls_for("somebody.else"))
        outcome = self.transfer(self.session(relay, tls=Tls.REQUIRED, cafile=self.cafile()))
        self.assertNothingSent(outcome, relay)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", str(outcome.fault))
        self.assertIn("name the relay as its certificate does, or say verify=no", str(outcome.fault))

    def test_unknown_authority(self) -> None:
        """Nor is one that nobody known has signed."""
        relay = self.start(tls=right_tls())
        outcome = self.transfer(self.session(relay, tls=Tls.REQUIRED))
        self.assertNothingSent(outcome, relay)
        self.assertIn("with cafile, or say verify=no", str(outcome.fault))

    def test_verification_switched_off(self) -> None:
        """Who says so gets TLS without a proof."""
        relay = self.start(tls=tls_for("somebody.else"))
        session = self.session(relay, tls=Tls.REQUIRED, verify=False)
        self.assertSent(self.transfer(session), relay, encrypted=True)

    def test_not_offered_or_not_working(self) -> None:
        """Without TLS nothing is sent, whatever the reason."""
        without = self.start()
        self.assertNothingSent(self.transfer(self.session(without, tls=Tls.REQUIRED)), without)
        for action in ("454 4.7.0 not now", "421 4.3.2 bye", Drop()):
            relay = self.start(tls=right_tls())
            relay.on("STARTTLS", action)
            self.assertNothingSent(self.transfer(self.session(relay, tls=Tls.REQUIRED, verify=False)), relay)
            self.assertEqual(len(relay.dialogues), 1)

    def test_relay_that_knows_helo_only(self) -> None:
        """There is no STARTTLS without EHLO."""
        relay = self.start(tls=right_tls())
        relay.on("EHLO", "502 5.5.1 what?")
        self.assertNothingSent(self.transfer(self.session(relay, tls=Tls.REQUIRED)), relay)

    def test_authorities_file_is_missing(self) -> None:
        """A wrong path, or another file, is a fault of the settings, and named; nothing is sent without them."""
        relay = self.start(tls=right_tls())
        for path, why in (("/nowhere/ca.pem", "cannot be read: No such file"), (__file__, "holds no certificate ")):
            outcome = self.transfer(self.session(relay, tls=Tls.REQUIRED, cafile=path))
            self.assertNothingSent(outcome, relay)
            self.assertIn(f"cafile {path!r} {why}", str(outcome.fault))

    def test_what_came_before_tls_is_thrown_away(self) -> None:
        """A reply that somebody put behind the one to STARTTLS is not taken for the first one within TLS."""
        relay = self.start(tls=right_tls(), keywords=[])
        relay.on("STARTTLS", "220 go ahead\r\n250-evil\r\n250 AUTH LOGIN")
        session = self.session(relay, tls=Tls.REQUIRED, cafile=self.cafile())
        self.assertSent(self.transfer(session), relay, encrypted=True)
        self.assertEqual(session.connection.esmtp_features, {})

    def test_offers_from_before_tls_are_forgotten(self) -> None:
        """What EHLO said in clear does not count (RFC 3207, 4.2)."""
        relay = self.start(tls=right_tls(), keywords=["8BITMIME"])
        relay.on("EHLO", "250-relay.test\r\n250-SMTPUTF8\r\n250 STARTTLS", nth=1)
        session = self.session(relay, tls=Tls.REQUIRED, cafile=self.cafile())
        self.assertSent(self.transfer(session, message=b"\xff"), relay, encrypted=True)
        self.assertEqual(relay.mails[0].options, "BODY=8BITMIME")


class TlsIsImplicit(Secure):
    def test_right_certificate(self) -> None:
        """TLS from the first byte; STARTTLS is not said."""
        relay = self.start(tls=right_tls(), implicit=True)
        session = self.session(relay, tls=Tls.IMPLICIT, cafile=self.cafile())
        self.assertSent(self.transfer(session), relay, encrypted=True)
        self.assertNotIn("STARTTLS", relay.verbs())

    def test_wrong_certificate(self) -> None:
        """It is verified here, too."""
        relay = self.start(tls=tls_for("somebody.else"), implicit=True)
        outcome = self.transfer(self.session(relay, tls=Tls.IMPLICIT, cafile=self.cafile()))
        self.assertNothingSent(outcome, relay)

    def test_relay_speaks_plainly(self) -> None:
        """Implicit TLS with a relay that has none is a fault, told with what to do."""
        relay = self.start()
        outcome = self.transfer(self.session(relay, tls=Tls.IMPLICIT))
        self.assertNothingSent(outcome, relay)
        self.assertIn("say tls=required for STARTTLS", str(outcome.fault))

    def test_relay_waits_for_tls(self) -> None:
        """Who speaks first at its port for TLS from the first byte waits in vain; the fault says why."""

        class Silent(smtplib.SMTP):
            def connect(self, *_: Any, **__: Any) -> tuple[int, bytes]:
                raise smtplib.SMTPServerDisconnected("timed out")

        relay = self.start()
        at_465 = self.transfer(self.session(relay, Silent, port=465))
        elsewhere = self.transfer(self.session(relay, Silent, port=587))
        self.assertIn("timed out; at port 465 TLS is from the first byte: say tls=implicit", str(at_465.fault))
        self.assertNotIn("implicit", str(elsewhere.fault))

    def test_a_plain_class_in_its_place(self) -> None:
        """If somebody put in a class that makes plain connections, nothing is sent over them."""
        relay = self.start(users=USERS)
        session = self.session(relay, smtplib.SMTP, tls=Tls.IMPLICIT, **LOGIN)
        self.assertNothingSent(self.transfer(session), relay)

    def test_a_class_that_verifies_nothing_in_its_place(self) -> None:
        """Nor is a password told to a connection whose own context looked at no certificate."""

        def careless(host: str, port: str, timeout: float) -> smtplib.SMTP_SSL:
            return smtplib.SMTP_SSL(host, int(port), timeout=timeout, context=ssl._create_unverified_context())

        relay = self.start(tls=right_tls(), implicit=True, users=USERS)
        self.assertNothingSent(self.transfer(self.session(relay, careless, tls=Tls.IMPLICIT, **LOGIN)), relay)
        session = self.session(relay, careless, tls=Tls.IMPLICIT, verify=False, **LOGIN)
        self.assertSent(self.transfer(session), relay, encrypted=True, user="name")


class TlsIsSwitchedOff(Secure):
    def test_it_is_not_used(self) -> None:
        """Never means never, whatever is offered."""
        relay = self.start(tls=right_tls())
        self.assertSent(self.transfer(self.session(relay, tls=Tls.NEVER)), relay, encrypted=False)

    def test_password_goes_in_clear(self) -> None:
        """Who switches TLS off and gives a password wants exactly that."""
        relay = self.start(users=USERS)
        session = self.session(relay, tls=Tls.NEVER, **LOGIN)
        self.assertSent(self.transfer(session), relay, encrypted=False, user="name")


class TheRelayWantsALogin(Secure):
    def logged_in(self, relay: Relay, **changes: Any) -> Outcome:
        """A mail with a login over verified TLS."""
        return self.transfer(self.session(relay, **{"cafile": self.cafile(), **LOGIN, **changes}))

    def test_over_verified_tls(self) -> None:
        """A password goes to the relay that was meant, and to no other, without any further setting."""
        relay = self.start(tls=right_tls(), users=USERS)
        self.assertSent(self.logged_in(relay), relay, encrypted=True, user="name")
        other = self.start(tls=tls_for("somebody.else"), users=USERS)
        self.assertNothingSent(self.logged_in(other), other)

    def test_in_clear_if_allowed(self) -> None:
        """`allow_clear_password` is for relays without TLS in networks that are trusted."""
        relay = self.start(users=USERS)
        session = self.session(relay, allow_clear_password=True, **LOGIN)
        self.assertSent(self.transfer(session), relay, encrypted=False, user="name")

    def test_name_and_password_in_any_script(self) -> None:
        """UTF-8 in all mechanisms (smtplib's own login raises UnicodeEncodeError)."""
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism):
                relay = self.start(tls=right_tls(), users={"jörg": "пароль"})
                relay.on("EHLO", f"250-relay.test\r\n250-STARTTLS\r\n250 AUTH {mechanism}")
                outcome = self.logged_in(relay, username="jörg", password="пароль")
                self.assertSent(outcome, relay, encrypted=True, user="jörg")

    def test_wrong_password(self) -> None:
        """535 is the relay's fault; each mechanism is tried once, and no mail is rejected for it (7.3 rejected all)."""
        relay = self.start(tls=right_tls(), users=USERS)
        outcome = self.logged_in(relay, password="wrong")
        self.assertEqual(outcome.replies, {})
        assert outcome.fault is not None
        self.assertEqual(outcome.fault.code, 535)
        self.assertEqual(relay.verbs().count("AUTH"), 2)

    def test_login_is_not_offered(self) -> None:
        """A name without AUTH is a contradiction, and the fault says so."""
        relay = self.start(tls=right_tls())
        self.assertIn("does not offer AUTH", str(self.logged_in(relay).fault))
        self.assertNotIn("MAIL", relay.verbs())

    def test_no_mechanism_is_known(self) -> None:
        """The fault names what the relay wants."""
        relay = self.start(tls=right_tls(), keywords=["AUTH GSSAPI NTLM"])
        self.assertIn("GSSAPI NTLM only", str(self.logged_in(relay).fault))

    def test_mechanism_that_was_offered_in_vain(self) -> None:
        """The next one is tried if the relay does not mean what it offers."""
        relay = self.start(tls=right_tls(), users=USERS)
        relay.on("AUTH", "504 5.5.4 not this one", about="PLAIN")
        self.assertSent(self.logged_in(relay), relay, encrypted=True, user="name")

    def test_connection_ends(self) -> None:
        """Dropped, told 421 or left without an answer at AUTH: the relay's fault."""
        for action in (Drop(), "421 4.3.2 bye", "454 4.7.0 not now"):
            relay = self.start(tls=right_tls(), users=USERS)
            relay.on("AUTH", action)
            outcome = self.logged_in(relay)
            self.assertEqual((outcome.replies, outcome.fault is None), ({}, False))

    def test_password_is_in_no_text(self) -> None:
        """What is told about a failed login does not tell the password."""
        relay = self.start(tls=right_tls(), users=USERS)
        session = self.session(relay, cafile=self.cafile(), username="name", password="very-secret")
        told = f"{self.transfer(session)!r} {session!r} {self.settings(relay, **LOGIN)!r}"
        self.assertNotIn("very-secret", told)
        self.assertNotIn("pass word", told)

    def test_a_class_with_its_own_login(self) -> None:
        """A subclass that logs in in another way (XOAUTH2) is asked to."""
        relay = self.start(users=USERS)

        class Token(smtplib.SMTP):
            def login(self, user: str, password: str, **_: Any) -> tuple[int, bytes]:
                return self.docmd("AUTH", f"XOAUTH2 {user} {password}")

        relay.on("AUTH", "235 2.7.0 welcome")
        self.transfer(self.session(relay, Token, allow_clear_password=True, **LOGIN))
        self.assertIn("AUTH XOAUTH2 name pass word", relay.commands)


class ARelaysAlert(unittest.TestCase):
    """With TLS 1.3 it comes when a command cannot be sent; see `telling_alerts`."""

    def test_there_is_none(self) -> None:
        """Then the error of the sending is told."""
        connection = smtplib.SMTP()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        connection.sock = sock = context.wrap_socket(ours, server_hostname="127.0.0.1", do_handshake_on_connect=False)
        sock.shutdown(socket.SHUT_RDWR)
        with telling_alerts(connection), self.assertRaises(smtplib.SMTPServerDisconnected) as caught:
            connection.ehlo("client.test")
        self.assertIsInstance(caught.exception.__cause__, BrokenPipeError)
        self.assertIsNone(connection.sock)


class ARelayThatIsReadInAnotherWay(unittest.TestCase):
    def test_has_nothing_unread_that_we_know_of(self) -> None:
        """A class may read replies as it likes; nothing is asked of its file."""
        self.assertFalse(has_unread(smtplib.SMTP()))


class AContextIsMade(Conversation):
    def test_tls_12_is_the_least(self) -> None:
        """Older protocols are broken; also where nothing is verified."""
        for verify in (True, False):
            context = tls_context(RelaySettings(verify=verify))
            self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
            self.assertEqual(context.check_hostname, verify)

    def test_it_is_used_again(self) -> None:
        """To read the system's authorities takes longer than all else about a connection."""
        for settings in RelaySettings(verify=True), self.verifying(self.authorities()):
            self.assertIs(tls_context(settings), tls_context(settings))

    def test_for_other_settings(self) -> None:
        """There is another one."""
        made = {
            id(tls_context(RelaySettings(verify=verify, tls_minimum=least)))
            for verify in (True, False)
            for least in (TlsVersion.TLS_1_2, TlsVersion.TLS_1_3)
        }
        self.assertEqual(len(made), 4)

    def test_of_authorities_that_have_changed(self) -> None:
        """There is a new one at the next connection, whether the file was replaced or written anew."""
        path = self.authorities()
        made = [tls_context(self.verifying(path))]
        path.write_bytes(path.read_bytes() + b"\n")
        made.append(tls_context(self.verifying(path)))
        other = path.with_suffix(".new")
        other.write_bytes(path.read_bytes())
        os.replace(other, path)
        made.append(tls_context(self.verifying(path)))
        self.assertEqual(len(set(map(id, made))), 3)

    def test_of_a_file_that_is_gone(self) -> None:
        """There is none, and the reason is told as at first."""
        path = self.authorities()
        tls_context(self.verifying(path))
        path.unlink()
        with self.assertRaisesRegex(RelayError, "cannot be read"):
            tls_context(self.verifying(path))

    def authorities(self) -> Path:
        """The authority's certificate in a file that may be changed."""
        path = Path(self.enterContext(tempfile.TemporaryDirectory()), "authorities.pem")
        path.write_bytes(Path(self.cafile()).read_bytes())
        return path

    @staticmethod
    def verifying(cafile: Path) -> RelaySettings:
        return RelaySettings(verify=True, cafile=str(cafile))


class TheRelayIsSilent(Secure):
    def test_handshake_without_an_answer(self) -> None:
        """A relay that falls silent at STARTTLS is given up in time."""
        relay = self.start(tls=right_tls())
        relay.on("STARTTLS", Hang())
        session = self.session(relay, tls=Tls.REQUIRED, timeouts=replace(TIMEOUTS, command=AT_ONCE))
        self.assertNothingSent(self.transfer(session), relay)


if __name__ == "__main__":
    unittest.main()
