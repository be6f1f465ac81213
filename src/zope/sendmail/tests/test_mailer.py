"""`zope.sendmail.mailer`: the mailer that everybody configures, subclasses and patches."""

from __future__ import annotations

import copy
import io
import pickle
import smtplib
import socket
import ssl
import threading
import unittest
from collections.abc import Sequence
from typing import Any
from unittest import mock

from zope.interface import implementer
from zope.interface.verify import verifyObject

from zope.sendmail import mailer as mailer_module
from zope.sendmail.config.settings import Keep, Mechanism, RelaySettings, Timeouts, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromFile
from zope.sendmail.interfaces import IMailer, InvalidAddress, ISession, ISessionMailer, ISMTPMailer, RelayError
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.mailer import SendOnlySession, SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import Action, Drop, Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.conversation import Conversation, right_tls

SENDER, ONE, TWO = "sender@example.org", "one@example.org", "two@example.org"
MESSAGE = b"Subject: x\n\nText\n"


class Fake:
    """What people put in the place of smtplib's class: host and port, and the methods that 7.3 called."""

    made: list[Fake]
    does_esmtp = True
    offers: tuple[str, ...] = ()

    def __init__(self, host: str, port: str) -> None:
        self.host, self.port = host, port
        self.calls: list[str] = []
        self.sent: list[Any] = []
        type(self).made.append(self)

    def ehlo(self) -> tuple[int, bytes]:
        return 250, b"hello"

    def has_extn(self, name: str) -> bool:
        return name in self.offers

    def starttls(self) -> None:
        self.calls.append("starttls")

    def login(self, username: str, password: str) -> None:
        self.calls.append(f"login {username} {password}")

    def sendmail(self, sender: str, recipients: Any, message: str | bytes) -> dict[str, Any]:
        self.sent.append((sender, recipients, message))
        return {}

    def quit(self) -> None:
        self.calls.append("quit")


def _a_token() -> str:
    return "token"


class WithRelay(Conversation):
    def mailer(self, relay: Relay, **options: Any) -> SMTPMailer:
        """A mailer for `relay` that has nothing open when the test ends."""
        mailer = SMTPMailer(hostname=relay.host, port=relay.port, **options)
        self.addCleanup(mailer.abort)
        return mailer


class AMailerIsMade(unittest.TestCase):
    def test_a_relay_that_cannot_be_is_refused_at_once(self) -> None:
        """With the cure, and as what callers catch."""
        wrong: list[tuple[Any, Any, str]] = [
            ("mail.example.org:587", 25, "write hostname and port as two settings"),
            ("smtp://mail.example.org", 25, "write hostname and port as two settings"),
            ("", 25, "empty .* write a name such as mail.example.org"),
            ("mail.example.org ", 25, "blanks"),
            ("mail.example.org", 99999, "99999 is not within 1 and 65535"),
            ("mail.example.org", 0, "not within"),
            ("mail.example.org", "smtp", "'smtp' is not a whole number"),
            ("mail.example.org", None, "None is not a whole number"),
            ("mail.example.org", 2.5, "2.5 is not a whole number"),
            ("mail.example.org", float("inf"), "inf is not a whole number"),
            (None, 25, "None; write a name such as mail.example.org"),
            (b"mail.example.org", 25, "write a name such as mail.example.org"),
            ("mail..example.org", 25, "has a part that is empty"),
            (f"{'x' * 64}.example.org", 25, "longer than 63 characters"),
            ("\N{LATIN SMALL LETTER A WITH DIAERESIS}..example.org", 25, "has a part that is empty"),
        ]
        for hostname, port, why in wrong:
            for kind in (smtplib.SMTPException, ValueError, OSError):
                with self.subTest(hostname, port=port, kind=kind), self.assertRaisesRegex(kind, why):
                    SMTPMailer(hostname, port)
                with self.subTest(hostname, port=port, kind=kind), self.assertRaisesRegex(kind, why):
                    SMTPMailer(settings=lambda: {"hostname": hostname, "port": port}).relay_settings()  # noqa: B023 - called at once

    def test_what_cannot_be_meant_is_refused_as_what_callers_catch(self) -> None:
        """Whether it is found when the mailer is made or when it is used."""
        wrong: list[dict[str, Any]] = [
            {"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"timeout": "soon"},
            {"greeting_timeout": 0}, {"command_timeout": -1}, {"data_timeout": 1e12}, {"timeouts": 5},
            {"rate": 0}, {"rate": "fast"}, {"connections": 0}, {"connections": "many"},
            {"auth": 5}, {"discard_extensions": 5}, {"local_hostname": 5}, {"recipient_limit": "many"},
            {"settings": 5}, {"settings": lambda: None}, {"settings": lambda: 5},
        ]  # fmt: skip
        for options in wrong:
            for kind in (smtplib.SMTPException, ValueError):
                with self.subTest(options, kind=kind), self.assertRaises(kind):
                    SMTPMailer(**options).send("a@example.org", ["b@example.org"], b"Subject: x\n\nx\n")

    def test_settings_that_fail_are_trouble_of_the_relay(self) -> None:
        """What a registry raises that is not there is nothing that callers of send() know."""
        registry: dict[str, dict[str, Any]] = {}
        mailer = SMTPMailer(settings=lambda: registry["mail"])
        for call in (mailer.send, mailer.vote):
            with self.assertRaisesRegex(RelayError, "cannot be had: KeyError: 'mail'"):
                call("a@example.org", ["b@example.org"], b"Subject: x\n\nx\n")

    def test_it_keeps_the_contracts(self) -> None:
        """It is what ZCML, vocabularies and old clients look for."""
        mailer = SMTPMailer()
        for contract in (IMailer, ISessionMailer, ISMTPMailer):
            self.assertTrue(verifyObject(contract, mailer))

    def test_arguments_are_those_of_old(self) -> None:
        """All eight, in their order, with their defaults."""
        names = ("hostname", "port", "username", "password", "no_tls", "force_tls", "implicit_tls", "timeout")
        mailer = SMTPMailer()
        self.assertEqual(
            [getattr(mailer, name) for name in names], ["localhost", 25, None, None, False, False, False, 10]
        )
        values = ("relay.example.org", 587, "name", "secret", False, True, False, 30)
        given = SMTPMailer(*values)
        self.assertEqual(tuple(getattr(given, name) for name in names), values)

    def test_an_option_that_it_does_not_have_is_named(self) -> None:
        """With the one that may be meant; what comes behind the arguments of old has to be named."""
        with self.assertRaisesRegex(TypeError, "'cafil'; did you mean 'cafile'"):
            SMTPMailer("relay.example.org", cafil="/x/ca.pem")  # type: ignore[call-arg]  # that is the mistake
        with self.assertRaisesRegex(TypeError, "positional"):
            many: Any = ("relay.example.org", 25, None, None, False, False, False, 10, "required")
            SMTPMailer(*many)

    def test_everything_has_a_default_in_the_class(self) -> None:
        """A replaced ``__init__``, as Plone has it, loses nothing."""
        bare = SMTPMailer.__new__(SMTPMailer)
        self.assertEqual(bare.relay_settings(), SMTPMailer().relay_settings())
        self.assertIs(bare.smtp, smtplib.SMTP)
        self.assertIsNone(bare.connection)
        bare.abort()

    def test_keyword_only_init_is_enough(self) -> None:
        """Plone's wrapper takes keywords only and puts in the host of its registry."""

        class Plones(SMTPMailer):
            def __init__(self, **options: Any) -> None:
                super().__init__(**{**options, "hostname": "registry.example.org"})

        self.assertEqual(Plones(hostname="x", port=26).relay_settings().hostname, "registry.example.org")

    def test_classes_of_smtplib_are_the_default(self) -> None:
        """Products.MailHost's tests look at them."""
        self.assertIs(SMTPMailer().smtp, smtplib.SMTP)
        self.assertIs(SMTPMailer(implicit_tls=True).smtp, smtplib.SMTP_SSL)
        self.assertIs(SMTPMailer(tls="implicit").smtp, smtplib.SMTP_SSL)
        self.assertIsNone(SMTPMailer.smtp)

    def test_patched_smtplib_does_no_harm(self) -> None:
        """Tests of applications like to replace ``smtplib.SMTP`` by a mock."""
        with mock.patch("smtplib.SMTP"), mock.patch("smtplib.SMTP_SSL"), Relay() as relay:
            SMTPMailer(hostname=relay.host, port=relay.port).send(SENDER, [ONE], MESSAGE)
        self.assertEqual(len(relay.mails), 1)

    def test_smtp_can_be_assigned(self) -> None:
        """On an instance, in a subclass, on the class; and None is the default again."""
        mailer = SMTPMailer()
        mailer.smtp = Fake
        self.assertIs(mailer.smtp, Fake)

        class WithFake(SMTPMailer):
            smtp = Fake

        self.assertIs(WithFake().smtp, Fake)
        with mock.patch.object(SMTPMailer, "smtp", Fake):
            self.assertIs(SMTPMailer().smtp, Fake)
        self.assertIs(SMTPMailer().smtp, smtplib.SMTP)
        with mock.patch.object(SMTPMailer, "smtp", None):
            self.assertIs(SMTPMailer()._factory(), smtplib.SMTP)

    def test_it_can_be_pickled_and_copied(self) -> None:
        """Open connections stay behind (7.3 could not be stored in a ZODB)."""
        mailer = SMTPMailer(hostname="relay.example.org", username="name", password="secret", tls="required")
        mailer.connection = object()
        for twin in (pickle.loads(pickle.dumps(mailer)), copy.copy(mailer), copy.deepcopy(mailer)):
            self.assertEqual(twin.relay_settings(), mailer.relay_settings())
            self.assertIsNone(twin.connection)

    def test_old_names(self) -> None:
        """What could be imported from here still can."""
        self.assertIs(mailer_module.SMTP, smtplib.SMTP)
        self.assertIs(mailer_module.SMTP_SSL, smtplib.SMTP_SSL)
        self.assertIs(mailer_module.SSLError, ssl.SSLError)
        self.assertTrue(issubclass(mailer_module._SMTPState, threading.local))


class AttributesBecomeSettings(unittest.TestCase):
    def test_old_flags(self) -> None:
        """Each old flag has its word."""
        cases: list[tuple[dict[str, Any], Tls]] = [
            ({}, Tls.OPPORTUNISTIC),
            ({"no_tls": True}, Tls.NEVER),
            ({"force_tls": True}, Tls.REQUIRED),
            ({"implicit_tls": True}, Tls.IMPLICIT),
            ({"implicit_tls": True, "no_tls": True}, Tls.IMPLICIT),
        ]
        for flags, tls in cases:
            self.assertIs(SMTPMailer(**flags).relay_settings().tls, tls)

    def test_contradicting_flags(self) -> None:
        """To force and to forbid TLS is an error, told when it matters and not in the middle of ZCML."""
        with self.assertRaisesRegex(ValueError, "contradict"):
            SMTPMailer(no_tls=True, force_tls=True).relay_settings()

    def test_tls_rules(self) -> None:
        """The word outweighs the flags; a word that is none is refused at once."""
        self.assertIs(SMTPMailer(no_tls=True, tls=Tls.REQUIRED).relay_settings().tls, Tls.REQUIRED)
        with self.assertRaises(ValueError):
            SMTPMailer(tls="sometimes")

    def test_class_for_implicit_tls(self) -> None:
        """Assigning smtplib.SMTP_SSL, as add-ons did before there was `implicit_tls`, means implicit TLS."""
        mailer = SMTPMailer()
        mailer.smtp = smtplib.SMTP_SSL
        self.assertIs(mailer.relay_settings().tls, Tls.IMPLICIT)

    def test_port_may_be_text(self) -> None:
        """As ini files and ZCML give it."""
        self.assertEqual(SMTPMailer(port="2525").relay_settings().port, 2525)  # type: ignore[arg-type]  # as ZCML of old passes it

    def test_name_and_password_may_be_bytes(self) -> None:
        """Bytes are UTF-8, or else they are kept as they are."""
        settings = SMTPMailer(username="jörg".encode(), password=b"\xfc").relay_settings()
        self.assertEqual(settings.username, "jörg")
        assert settings.password is not None
        self.assertEqual(settings.password.encode("utf-8", "surrogateescape"), b"\xfc")

    def test_no_name_is_no_login(self) -> None:
        """An empty name, as a form without an entry gives it, means that there is no login."""
        for username, password in (("", ""), ("", None), (None, "secret"), (None, "")):
            settings = SMTPMailer(username=username, password=password).relay_settings()
            self.assertEqual((settings.username, settings.password), (None, None))

    def test_name_without_password(self) -> None:
        """Half a login is none, as in 7.3; ZCML, zope.conf and the command line refuse it."""
        settings = SMTPMailer(username="name").relay_settings()
        self.assertEqual((settings.username, settings.password), (None, None))

    def test_what_the_class_says_counts_if_nothing_was_given(self) -> None:
        """So a site can set what Products.MailHost and Plone do not pass on."""
        timeouts = Timeouts(command=10.0)
        with (
            mock.patch.object(SMTPMailer, "cafile", "own.pem"),
            mock.patch.object(SMTPMailer, "verify", False),
            mock.patch.object(SMTPMailer, "allow_clear_password", True),
            mock.patch.object(SMTPMailer, "timeouts", timeouts),
        ):
            settings = SMTPMailer(username="name", password="secret").relay_settings()
            self.assertEqual((settings.cafile, settings.verify), ("own.pem", False))
            self.assertEqual((settings.allow_clear_password, settings.timeouts), (True, timeouts))
            self.assertTrue(SMTPMailer(verify=True).relay_settings().verify)

    def test_timeout_is_for_the_connection(self) -> None:
        """It does not shorten the wait after the final dot; None takes Python's own default, else RFC 5321's."""
        self.assertEqual(SMTPMailer(timeout=3).relay_settings().timeouts, Timeouts(connect=3.0))
        self.assertEqual(SMTPMailer(timeout=None).relay_settings().timeouts, Timeouts(connect=300.0))
        before = socket.getdefaulttimeout()
        self.addCleanup(socket.setdefaulttimeout, before)
        socket.setdefaulttimeout(7)
        self.assertEqual(SMTPMailer(timeout=None).relay_settings().timeouts, Timeouts(connect=7.0))

    def test_new_settings_are_handed_on(self) -> None:
        """What has no old flag."""
        keep, timeouts = Keep(mails=1), Timeouts(final=1.0)
        mailer = SMTPMailer(
            verify=True, cafile="ca.pem", allow_clear_password=True, timeouts=timeouts, keep=keep, timeout=99
        )
        settings = mailer.relay_settings()
        self.assertEqual((settings.verify, settings.cafile, settings.allow_clear_password), (True, "ca.pem", True))
        self.assertEqual((settings.timeouts, settings.keep), (timeouts, keep))

    def test_they_are_made_anew_only_after_a_change(self) -> None:
        """Of the mailer's attributes, or of the default timeout; they are asked for before each mail."""
        mailer = SMTPMailer(timeout=None)
        first = mailer.relay_settings()
        self.assertIs(mailer.relay_settings(), first)
        mailer.port = 26
        self.assertEqual(mailer.relay_settings().port, 26)
        self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(7.0)
        self.assertEqual(mailer.relay_settings().timeouts.connect, 7.0)

    def test_a_token_takes_the_place_of_the_password(self) -> None:
        """An empty password, as a form gives it, is none then; a real one contradicts it."""
        settings = SMTPMailer(username="name", password="", token=_a_token).relay_settings()
        self.assertEqual((settings.password, settings.token), (None, _a_token))
        with self.assertRaisesRegex(ValueError, "contradict"):
            SMTPMailer(username="name", password="secret", token=_a_token).relay_settings()

    def test_mechanisms(self) -> None:
        """As names, in any case, or as one text; a wrong one is refused at once."""
        for auth in (["plain", Mechanism.LOGIN], "PLAIN LOGIN", "plain,login"):
            settings = SMTPMailer(username="name", password="secret", auth=auth).relay_settings()
            self.assertEqual(settings.auth, (Mechanism.PLAIN, Mechanism.LOGIN))
        with self.assertRaisesRegex(ValueError, "only these mechanisms"):
            SMTPMailer(auth="NTLM")

    def test_certificate_and_least_tls(self) -> None:
        """Handed on; a version that nobody knows is refused at once."""
        settings = SMTPMailer(certfile="our.pem", keyfile="key.pem", tls_minimum="1.3").relay_settings()
        self.assertEqual((settings.certfile, settings.keyfile), ("our.pem", "key.pem"))
        self.assertIs(settings.tls_minimum, TlsVersion.TLS_1_3)
        with self.assertRaises(ValueError):
            SMTPMailer(tls_minimum="1.0")

    def test_subclass_brings_its_own(self) -> None:
        """Token and TLS context may be methods; asking for the settings twice gives the same."""

        class Own(SMTPMailer):
            username = "name"

            def __init__(self, **options: Any) -> None:
                super().__init__(**{"username": "name", **options})

            def token(self) -> str:
                return "secret"

            def ssl_context(self) -> ssl.SSLContext:
                return ssl.create_default_context()

        mailer = Own()
        settings = mailer.relay_settings()
        assert settings.token is not None
        self.assertEqual(settings.token(), "secret")
        self.assertEqual(settings, mailer.relay_settings())
        self.assertEqual(settings.ssl_context, mailer.ssl_context)

    def test_a_token_may_stand_in_the_class(self) -> None:
        """Where Products.MailHost and Plone make the mailers; it is not for those with another login, or with none."""
        provider = TokenFromFile("/token")
        with mock.patch.object(SMTPMailer, "token", provider):
            settings = SMTPMailer(username="name", password="").relay_settings()
            self.assertEqual((settings.username, settings.token), ("name", provider))
            self.assertFalse(SMTPMailer().relay_settings().logs_in)
            settings = SMTPMailer(username="name", password="secret").relay_settings()
            self.assertEqual((settings.password, settings.token), ("secret", None))
        with self.assertRaisesRegex(ValueError, "the username is missing"):
            SMTPMailer(token=provider).relay_settings()

    def test_it_can_be_pickled_with_its_token(self) -> None:
        """The provider goes with it."""
        twin = pickle.loads(pickle.dumps(SMTPMailer(username="name", token=TokenFromFile("/token"))))
        self.assertEqual(twin.token.path, "/token")


class AMailIsSent(WithRelay):
    def test_at_once_and_politely(self) -> None:
        """One connection, one mail, QUIT."""
        relay = self.start()
        self.assertEqual(self.mailer(relay).send(SENDER, [ONE, TWO], MESSAGE), {})
        self.assertEqual(relay.mails[0].recipients, (ONE, TWO))
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")

    def test_partial_refusal_is_returned(self) -> None:
        """As smtplib does it (7.3 swallowed it)."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user", about=TWO)
        self.assertEqual(self.mailer(relay).send(SENDER, [ONE, TWO], MESSAGE), {TWO: (550, b"5.1.1 no such user")})

    def test_refusals_are_smtplibs_exceptions(self) -> None:
        """Users catch these."""
        for point, expected in [
            ("MAIL", smtplib.SMTPSenderRefused),
            ("RCPT", smtplib.SMTPRecipientsRefused),
            ("DATA", smtplib.SMTPDataError),
            ("DOT", smtplib.SMTPDataError),
        ]:
            with self.subTest(point):
                relay = self.start()
                relay.on(point, "550 5.7.1 no")
                with self.assertRaises(expected):
                    self.mailer(relay).send(SENDER, [ONE], MESSAGE)

    def test_relay_trouble_is_an_os_error(self) -> None:
        """Whatever went wrong with the relay."""
        cases: list[tuple[str, Action, type[OSError]]] = [
            ("GREETING", "554 5.7.1 no", smtplib.SMTPConnectError),
            ("GREETING", Drop(), smtplib.SMTPServerDisconnected),
            ("EHLO", "421 4.3.2 no", smtplib.SMTPHeloError),
            ("DOT", Drop(), smtplib.SMTPServerDisconnected),
        ]
        for point, action, expected in cases:
            relay = self.start()
            relay.on(point, action)
            with self.assertRaises(expected):
                self.mailer(relay).send(SENDER, [ONE], MESSAGE)
        relay.stop()
        with self.assertRaises(ConnectionRefusedError):
            self.mailer(relay).send(SENDER, [ONE], MESSAGE)

    def test_missing_tls_and_wrong_password(self) -> None:
        """The errors that people make with their settings, each with its own exception."""
        relay = self.start(users={"name": "secret"})
        with self.assertRaises(smtplib.SMTPNotSupportedError):
            self.mailer(relay, force_tls=True).send(SENDER, [ONE], MESSAGE)
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.mailer(relay, no_tls=True, username="name", password="x").send(SENDER, [ONE], MESSAGE)
        relay = self.start(tls=right_tls())
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.mailer(relay, force_tls=True).send(SENDER, [ONE], MESSAGE)

    def test_with_a_token(self) -> None:
        """And what fails about it is an OSError, as all trouble with the relay: direct delivery aborts."""
        relay = self.start(tls=right_tls(), tokens={"name": "token"})
        mailer = self.mailer(relay, username="name", token=_a_token, cafile=self.cafile())
        self.assertEqual(mailer.send(SENDER, [ONE], MESSAGE), {})
        self.assertEqual(relay.mails[0].user, "name")
        mailer.token = TokenFromFile("/nowhere/token")
        with self.assertRaisesRegex(RelayError, "token file '/nowhere/token' cannot be read"):
            mailer.send(SENDER, [ONE], MESSAGE)

    def test_implicit_tls(self) -> None:
        """The flag is enough."""
        relay = self.start(tls=right_tls(), implicit=True)
        self.mailer(relay, implicit_tls=True, cafile=self.cafile()).send(SENDER, [ONE], MESSAGE)
        self.assertTrue(relay.mails[0].encrypted)

    def test_trouble_at_quit_is_none(self) -> None:
        """The mail was accepted, and the next ones go, too (7.3 never sent another one)."""
        relay = self.start()
        relay.on("QUIT", Drop())
        mailer = self.mailer(relay)
        for _ in range(3):
            self.assertEqual(mailer.send(SENDER, [ONE], MESSAGE), {})
        self.assertEqual(len(relay.mails), 3)

    def test_after_any_failure_it_sends_again(self) -> None:
        """No error leaves anything behind (7.3 was stuck until the process ended)."""
        for point in ("GREETING", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT"):
            for action in (Drop(), "421 4.3.2 bye"):
                with self.subTest(point=point, action=action):
                    relay = self.start(keywords=["SIZE"], tls=right_tls(), users={"name": "secret"})
                    relay.on(point, action, nth=1)
                    mailer = self.mailer(relay, username="name", password="secret", cafile=self.cafile())
                    with self.assertRaises(OSError):
                        mailer.send(SENDER, [ONE], MESSAGE)
                    self.assertEqual(mailer.send(SENDER, [ONE], MESSAGE), {})

    def test_arguments_are_understood_as_ever(self) -> None:
        """One recipient as str, a display name, a message as str."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.send(SENDER, ONE, MESSAGE)
        mailer.send(f"Sender <{SENDER}>", [f'"Doe, John" <{ONE}>'], "Subject: ü\n\n")
        self.assertEqual([mail.recipients for mail in relay.mails], [(ONE,), (ONE,)])
        with self.assertRaises(InvalidAddress):
            mailer.send(SENDER, ["a@example.org\r\nRCPT TO:<b@example.org>"], MESSAGE)

    def test_changed_attributes_count(self) -> None:
        """For the next mail, whenever they were changed."""
        one, two = self.start(), self.start()
        mailer = self.mailer(one)
        mailer.send(SENDER, [ONE], MESSAGE)
        mailer.port = two.port
        mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual((len(one.mails), len(two.mails)), (1, 1))

    def test_threads_do_not_meet(self) -> None:
        """One mailer may be used by any number of threads at once."""
        relay = self.start()
        mailer = self.mailer(relay)
        threads = [threading.Thread(target=mailer.send, args=(SENDER, [ONE], MESSAGE)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(relay.mails), 8)


class AMailerVotes(WithRelay):
    def test_everything_but_the_message_is_proved(self) -> None:
        """Connection, TLS, login and envelope (7.3: the connection only)."""
        relay = self.start(tls=right_tls(), users={"name": "secret"})
        mailer = self.mailer(relay, username="name", password="secret", cafile=self.cafile())
        mailer.vote(SENDER, [ONE], MESSAGE)
        self.assertEqual(relay.verbs(), ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "RSET"])
        self.assertEqual(relay.mails, [])

    def test_send_goes_on_with_the_connection(self) -> None:
        """A vote is no waste."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.vote(SENDER, [ONE], MESSAGE)
        mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (1, 1))
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")

    def test_votes_share_a_connection(self) -> None:
        """Twenty mails of a transaction are no twenty connections (7.3: 39)."""
        relay = self.start()
        mailer = self.mailer(relay)
        for _ in range(20):
            mailer.vote(SENDER, [ONE], MESSAGE)
        self.assertEqual(len(relay.dialogues), 1)

    def test_a_connection_that_died_meanwhile(self) -> None:
        """Between vote and send a relay may lose patience."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.vote(SENDER, [ONE], MESSAGE)
        relay.hang_up()
        self.assertEqual(mailer.send(SENDER, [ONE], MESSAGE), {})

    def test_refusals_are_raised(self) -> None:
        """So that the transaction aborts; nothing stays open."""
        relay = self.start()
        relay.on("RCPT", "550 5.1.1 no such user")
        mailer = self.mailer(relay)
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            mailer.vote(SENDER, [ONE], MESSAGE)
        self.assertIsNone(mailer.connection)
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")

    def test_abort_closes(self) -> None:
        """The relay is told; a second abort is nothing."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.vote(SENDER, [ONE], MESSAGE)
        mailer.abort()
        mailer.abort()
        relay.wait_until(lambda: relay.verbs()[-1] == "QUIT")
        self.assertIsNone(mailer.connection)

    def test_abort_never_raises(self) -> None:
        """Not even if the relay is gone (7.3 hid the real error behind this one)."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.vote(SENDER, [ONE], MESSAGE)
        relay.stop()
        mailer.abort()
        self.assertIsNone(mailer.connection)

    def test_old_subclasses_find_the_connection(self) -> None:
        """A ``send`` that was copied from an older release goes on where `vote` has stopped."""
        relay = self.start()
        mailer = self.mailer(relay)
        mailer.vote(SENDER, [ONE], MESSAGE)
        self.assertIsInstance(mailer.connection, smtplib.SMTP)
        self.assertEqual(mailer.code, 250)
        self.assertIn(b"relay.test", mailer.response or b"")
        mailer.connection.sendmail(SENDER, [ONE], MESSAGE, mail_options=["BODY=8BITMIME"])
        mailer.abort()
        self.assertEqual(relay.mails[0].options, "size=17 BODY=8BITMIME")

    def test_state_is_the_threads_own(self) -> None:
        """`connection`, `code` and `response` can be set, as they could, and are seen by this thread only."""
        mailer = SMTPMailer()
        mailer.connection, mailer.code, mailer.response = 1, 2, b"3"
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.extend((mailer.connection, mailer.code, mailer.response)))
        thread.start()
        thread.join()
        self.assertEqual(seen, [None, None, None])
        self.assertEqual((mailer.connection, mailer.code, mailer.response), (1, 2, b"3"))


class AVoteOfOldHasLeftAConnection(unittest.TestCase):
    """A subclass makes its own connection and assigns it, as `vote` of 7.3 did."""

    def setUp(self) -> None:
        class Mine(Fake):
            made = []

        self.mailer = SMTPMailer(username="name", password="secret", allow_clear_password=True)
        self.mailer.smtp = lambda *address: self.fail("there was a connection")
        self.connection = self.mailer.connection = Mine("relay.example.org", "25")

    def test_send_goes_on_with_it(self) -> None:
        """It asks for STARTTLS, logs in and says goodbye, as it did."""
        self.mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.connection.sent, [(SENDER, [ONE], MESSAGE)])
        self.assertEqual(self.connection.calls, ["login name secret", "quit"])
        self.assertIsNone(self.mailer.connection)

    def test_abort_hangs_up(self) -> None:
        """Else it would stay open for ever; settings that contradict each other do not matter then."""
        self.mailer.force_tls = self.mailer.no_tls = True
        self.mailer.abort()
        self.assertEqual(self.connection.calls, ["quit"])
        self.assertIsNone(self.mailer.connection)


class SomebodyPutInAFake(unittest.TestCase):
    def setUp(self) -> None:
        class Mine(Fake):
            made = []

        self.fake = Mine
        self.mailer = SMTPMailer(hostname="relay.example.org", port=26)
        self.mailer.smtp = Mine

    def test_host_and_port_are_enough(self) -> None:
        """A class that takes no `timeout` works (7.3 broke it), and gets what it always got."""
        self.mailer.send(SENDER, [ONE], MESSAGE)
        (made,) = self.fake.made
        self.assertEqual((made.host, made.port), ("relay.example.org", "26"))
        self.assertEqual(made.sent, [(SENDER, [ONE], MESSAGE)])
        self.assertEqual(made.calls, ["quit"])

    def test_it_gets_what_was_given(self) -> None:
        """Text or bytes, list or tuple: those who write down what they get compare it with that."""
        for recipients, message in (([ONE], "Subject: x\n\nText\n"), ((ONE,), MESSAGE)):
            self.mailer.send(SENDER, recipients, message)
            self.assertEqual(self.fake.made[-1].sent, [(SENDER, recipients, message)])

    def test_timeout_is_given_to_those_who_take_it(self) -> None:
        """By name, and nothing else with it."""
        factory = mock.Mock()
        factory.return_value.ehlo.return_value = (250, b"hello")
        factory.return_value.has_extn.return_value = False
        self.mailer.smtp = factory
        self.mailer.vote(SENDER, [ONE], MESSAGE)
        factory.assert_called_once_with("relay.example.org", "26", timeout=10.0)

    def test_tls_and_login_are_asked_of_it(self) -> None:
        """In the order of old."""
        self.fake.offers = ("starttls",)
        self.mailer.username, self.mailer.password = "name", "secret"
        self.mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.fake.made[0].calls, ["starttls", "login name secret", "quit"])

    def test_password_is_safe_with_it(self) -> None:
        """The rules are the same: no TLS, no password."""
        self.mailer.username, self.mailer.password = "name", "secret"
        with self.assertRaises(smtplib.SMTPNotSupportedError):
            self.mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.fake.made[0].calls, [])

    def test_queue_and_delivery_use_it(self) -> None:
        """A session sends through it; what it raises is judged as for any foreign mailer."""
        envelope = Envelope(SENDER, (ONE,))
        session = open_session(self.mailer)
        outcome = session.transfer(envelope, io.BytesIO(MESSAGE), lambda: None)
        self.assertEqual(outcome.replies[ONE].answer, Answer.ACCEPTED)
        for error, answer in [
            (smtplib.SMTPDataError(550, b"no"), Answer.REJECTED),
            (ConnectionResetError("gone"), Answer.UNKNOWN),
            (RuntimeError("what?"), Answer.DEFERRED),
        ]:
            with mock.patch.object(self.fake, "sendmail", side_effect=error):
                outcome = session.transfer(envelope, io.BytesIO(MESSAGE), lambda: None)
            self.assertEqual(outcome.replies[ONE].answer, answer)
        session.close()


class ASessionIsOpened(unittest.TestCase):
    def assertOwn(self, mailer: object) -> None:
        """The mailer speaks SMTP by itself."""
        self.assertIsInstance(open_session(mailer), SMTPSession)

    def test_that_asks_a_function_before_each_mail(self) -> None:
        """Attributes are read again for mail that follows only after a moment."""
        mailer = SMTPMailer("relay.example.org")
        session = open_session(mailer)
        assert isinstance(session, SMTPSession)
        self.assertEqual(session._lasts(), 0.01)
        mailer.settings = lambda: {"hostname": "other.example.org"}
        self.assertEqual(session._lasts(), 0.0)

    def assertCalled(self, mailer: object) -> None:
        """The mailer's ``send`` is called."""
        self.assertIsInstance(open_session(mailer), SendOnlySession)

    def test_smtp_mailer_has_its_own(self) -> None:
        """Also in a subclass that changes other things."""

        class Quiet(SMTPMailer):
            hostname = "quiet.example.org"

        self.assertOwn(SMTPMailer())
        self.assertOwn(Quiet())

    def test_any_session_mailer_has_its_own(self) -> None:
        """Whoever has `open_session` is asked for it."""
        mailer = ScriptedMailer()
        self.assertIs(open_session(mailer), mailer.sessions[0])

    def test_replaced_send_or_vote_is_called(self) -> None:
        """In a subclass, on an instance, or by a patch of the class."""

        class BestEffort(SMTPMailer):
            def send(self, *args: Any) -> dict[str, tuple[int, bytes]]:
                return {}

        class Reluctant(SMTPMailer):
            def vote(self, *args: Any) -> None:
                """Agree."""

        self.assertCalled(BestEffort())
        self.assertCalled(Reluctant())
        for name in ("send", "vote"):
            mailer = SMTPMailer()
            setattr(mailer, name, lambda *args: None)
            self.assertCalled(mailer)
            with mock.patch.object(SMTPMailer, name, return_value=None):
                self.assertCalled(SMTPMailer())
        self.assertOwn(SMTPMailer())

    def test_replaced_open_session_is_used(self) -> None:
        """A subclass that replaces both knows what it does."""
        session = open_session(SMTPMailer())

        @implementer(ISessionMailer)
        class Own(SMTPMailer):
            def send(self, *args: Any) -> dict[str, tuple[int, bytes]]:
                return {}

            def open_session(self) -> ISession:
                return session

        self.assertIs(open_session(Own()), session)

    def test_anything_with_send(self) -> None:
        """No interface, no vote, no abort: that was always enough."""

        class Mine:
            def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
                """Do it."""

        self.assertCalled(Mine())

    def test_settings_count_when_the_connection_is_made(self) -> None:
        """Not when the session was opened."""
        made: list[str] = []

        def factory(host: str, port: str) -> Any:
            made.append(host)
            raise ConnectionRefusedError("nobody there")

        mailer = SMTPMailer(hostname="old.example.org")
        session = open_session(mailer)
        mailer.hostname, mailer.smtp = "new.example.org", factory

        def no_intent() -> None:
            """Nothing has to be written down."""

        outcome = session.transfer(Envelope(SENDER, (ONE,)), io.BytesIO(MESSAGE), no_intent)
        self.assertEqual(made, ["new.example.org"])
        self.assertEqual((outcome.relay, outcome.replies), ("new.example.org:25", {}))


if __name__ == "__main__":
    unittest.main()


class SettingsThatAreAskedFor(unittest.TestCase):
    """A control panel may change them at any time."""

    def setUp(self) -> None:
        self.said: Any = {}
        self.mailer = SMTPMailer(hostname="here.example", username="u", password="p", settings=lambda: self.said)

    def test_count_instead_of_the_attributes(self) -> None:
        """What is not said is as it was."""
        self.said = {"hostname": "there.example", "port": "26", "tls": "implicit"}
        settings = self.mailer.relay_settings()
        self.assertEqual((str(settings), settings.username, settings.tls), ("there.example:26", "u", "implicit"))
        self.said = RelaySettings(hostname="other.example")
        self.assertIs(self.mailer.relay_settings(), self.said)

    def test_are_asked_before_each_mail(self) -> None:
        """Another relay takes over without a restart."""
        first, second = self.enterContext(Relay()), self.enterContext(Relay())
        session = SMTPMailer(settings=lambda: self.said).open_session()
        self.addCleanup(session.close)
        for relay in first, first, second:
            self.said = {"hostname": relay.host, "port": relay.port}
            session.transfer(Envelope("a@example.org", ("b@example.org",)), io.BytesIO(b"S: x\n\n"), lambda: None)
        self.assertEqual((len(first.mails), len(second.mails)), (2, 1))

    def test_that_cannot_be_had_are_trouble_of_the_relay(self) -> None:
        """Wrong ones, unknown ones, an error: no mail is charged."""
        for said in {"hostnam": "x"}, {"port": 0}, {"tls": "perhaps"}, None:
            with self.subTest(said=said):
                self.said = said
                session = self.mailer.open_session()
                envelope = Envelope("a@example.org", ("b@example.org",))
                outcome = session.transfer(envelope, io.BytesIO(b"S: x\n\n"), lambda: None)
                self.assertTrue(outcome.fault and not outcome.replies)
                self.assertNotIn("'p'", str(outcome))
