"""How a relay is spoken with."""

from __future__ import annotations

import unittest
from dataclasses import astuple, replace
from typing import Any

from zope.sendmail.config.settings import (
    INTERACTIVE,
    Keep,
    Mechanism,
    Notify,
    RelaySettings,
    Timeouts,
    Tls,
    TlsVersion,
)
from zope.sendmail.errors import InvalidSettings


class Fixture(unittest.TestCase):
    def assertRefused(self, why: str, **settings: Any) -> None:
        """With these words, and with no secret in them."""
        with self.assertRaises(InvalidSettings, msg=why) as caught:
            RelaySettings(**settings)
        self.assertEqual(str(caught.exception), f"relay localhost: {why}")
        self.assertNotIn("secret", str(caught.exception))


class Relays(Fixture):
    def test_written_for_people(self) -> None:
        """Host and port; an IPv6 address in brackets; never the password."""
        self.assertEqual(str(RelaySettings("mail.example.org", 587)), "mail.example.org:587")
        self.assertEqual(str(RelaySettings("2001:db8::1")), "[2001:db8::1]:25")
        self.assertEqual(str(RelaySettings("/run/lmtp", 24)), "/run/lmtp")
        self.assertNotIn("secret", repr(RelaySettings(username="u", password="secret")))

        def secret() -> str:
            return ""

        self.assertNotIn("secret", repr(RelaySettings(username="u", token=secret)))

    def test_a_path_may_have_blanks(self) -> None:
        """Though a name may not; neither has line ends."""
        self.assertEqual(RelaySettings("/run/our store/lmtp").hostname, "/run/our store/lmtp")
        self.assertRaises(ValueError, RelaySettings, "/run/lmtp\n")

    def test_contradictions_are_refused(self) -> None:
        """When they are set."""
        wrong: list[dict[str, Any]] = [
            {"hostname": ""},
            {"hostname": "mail example.org"},
            {"hostname": "mail.example.org:587"},
            {"hostname": "[::1]:587"},
            {"hostname": "mail.example.org\n"},
            {"hostname": "smtp://mail.example.org:587"},
            {"hostname": b"mail.example.org"},
            {"hostname": "mail..example.org"},
            {"hostname": "x" * 64},
            {"hostname": "\ud800.example.org"},
            {"port": 0},
            {"port": 65536},
        ]
        for settings in wrong:
            with self.subTest(settings), self.assertRaises(InvalidSettings) as caught:
                RelaySettings(**settings)
            ((name, value),) = settings.items()
            self.assertRegex(str(caught.exception), rf"^the relay's {name} {'is ' * (type(value) is bytes)}")
            self.assertIn(repr(value), str(caught.exception))

    def test_a_name_is_refused_with_what_would_be_right(self) -> None:
        """Word by word."""
        such = "write a name such as mail.example.org"
        wrong: tuple[tuple[Any, int, str], ...] = (
            (None, 25, f"the relay's hostname is None; {such}"),
            ("a b", 25, f"the relay's hostname 'a b' is empty or has blanks in it; {such}"),
            (
                "a:25",
                25,
                "the relay's hostname 'a:25' is more than a name; write hostname and port as two settings",
            ),
            (
                "a..b",
                25,
                f"the relay's hostname 'a..b' has a part that is empty, longer than 63 characters, or no text; {such}",
            ),
            ("a", 0, "the relay's port 0 is not within 1 and 65535; usual are 25, 465 and 587"),
        )
        for hostname, port, why in wrong:
            with self.assertRaises(InvalidSettings) as caught:
                RelaySettings(hostname, port)
            self.assertEqual(str(caught.exception), why)

    def test_a_name_may_be_one_of_many_kinds(self) -> None:
        """Short, long, an address, with other letters, with an underscore; a path has no labels, and any signs."""
        for hostname, port in (
            ("x", 1),
            ("x" * 63, 65535),
            ("::1", 25),
            ("192.0.2.1", 25),
            ("m\u00fcnchen.example", 25),
            ("\u2c65.example", 25),  # IDNA 2008 knows this letter, the codec of the standard library does not
            ("shop_web_1", 25),
            ("m\u00fcnchen_1", 25),
            (f"/run/{'x' * 70}..{'x' * 70}", 24),
            ("/run/a:b/lmtp", 24),
            ("/run/[a]://b", 24),
            ("/", 24),
        ):
            self.assertEqual(RelaySettings(hostname, port).hostname, hostname)

    def test_nothing_is_said_of_it_by_default(self) -> None:
        """The usual relay of this host, as it likes."""
        settings = RelaySettings()
        self.assertEqual((settings.hostname, settings.port, settings.tls), ("localhost", 25, Tls.OPPORTUNISTIC))
        self.assertEqual((settings.timeouts, settings.keep, settings.notify), (Timeouts(), Keep(), Notify()))
        self.assertEqual((settings.username, settings.token, settings.auth), (None, None, ()))
        self.assertIs(settings.tls_minimum, TlsVersion.TLS_1_2)

    def test_so_many_recipients_at_least_it_takes(self) -> None:
        """One."""
        self.assertEqual(RelaySettings(recipient_limit=1).recipient_limit, 1)
        self.assertRefused("recipient_limit 0 is less than 1", recipient_limit=0)

    def test_its_connections_are_kept_for_a_while(self) -> None:
        """Seconds of age, mails, seconds without work."""
        self.assertEqual(Keep(), Keep(age=300.0, mails=1000, idle=15.0))

    def test_credentials_that_contradict_each_other(self) -> None:
        """Each is refused with what to do; no secret is in the error."""

        def token() -> str:
            return "secret-token"

        certificate = {"certfile": "our.pem"}
        wrong: list[tuple[dict[str, Any], str]] = [
            (
                {"username": "u", "password": "secret", "token": token},
                "password and token contradict each other; choose one",
            ),
            ({"token": token}, "the username is missing; give token and username or neither"),
            ({"password": "secret"}, "the username is missing; give password and username or neither"),
            ({"username": "u"}, "the password is missing; give both or neither, or a token"),
            *(
                (
                    {"username": f"u{control}auth=x", "token": token},
                    f"the username {f'u{control}auth=x'!r} has control characters in it",
                )
                for control in "\x00\x01\x1f\x7f"
            ),
            (
                {"username": "u", "password": "secret", "auth": (Mechanism.XOAUTH2,)},
                "auth names XOAUTH2, which needs a token; there is none",
            ),
            (
                {"username": "u", "token": token, "auth": (Mechanism.PLAIN,)},
                "auth names PLAIN, which needs a password; there is none",
            ),
            ({"auth": (Mechanism.PLAIN,)}, "auth names PLAIN, which needs a password; there is none"),
            (
                {"auth": (Mechanism.EXTERNAL,)},
                "auth names EXTERNAL, which needs a client certificate (certfile); there is none",
            ),
            ({"keyfile": "key.pem"}, "keyfile is given without certfile, the certificate it belongs to"),
            ({**certificate, "tls": Tls.NEVER}, "a client certificate needs TLS, and tls is never; choose one"),
            ({**certificate, "ssl_context": object}, "ssl_context takes the place of certfile; choose one"),
            ({"cafile": "ca.pem", "ssl_context": object}, "ssl_context takes the place of cafile; choose one"),
        ]
        for settings, why in wrong:
            self.assertRefused(why, **settings)
        RelaySettings(username="Jane Doe\x80", token=token)

    def test_the_final_reply_is_waited_for_long_enough(self) -> None:
        """Ten minutes (RFC 5321, 4.5.3.2.6); less sends mails twice (fault A4 of 7.3)."""
        self.assertGreaterEqual(Timeouts().final, 600)


class Times(unittest.TestCase):
    def test_are_those_of_the_rfc(self) -> None:
        """RFC 5321, 4.5.3.2; the connection itself has less, and so has the farewell."""
        self.assertEqual(astuple(Timeouts()), (10.0, 300.0, 300.0, 120.0, 180.0, 600.0, 5.0))
        self.assertEqual(astuple(INTERACTIVE), (10.0, 30.0, 30.0, 30.0, 30.0, 600.0, 5.0))

    def test_are_such_that_a_socket_can_wait(self) -> None:
        """More than none, at most a million seconds."""
        self.assertEqual(Timeouts(final=1_000_000).final, 1_000_000)
        wrongs: tuple[Any, ...] = (0, -1.0, 1_000_001, float("inf"), float("nan"), "60", None)
        for wrong in wrongs:
            with self.assertRaises(InvalidSettings) as caught:
                Timeouts(data=wrong)
            why = f"the timeout data is {wrong!r}; write seconds, more than 0 and at most 1000000"
            self.assertEqual(str(caught.exception), why)

    def test_are_shorter_for_a_caller_that_waits(self) -> None:
        """Until the final dot; what is shorter, and what was asked for, stays."""
        usual = RelaySettings()
        self.assertEqual(usual.interactive(), RelaySettings(timeouts=INTERACTIVE))
        mixed = Timeouts(greeting=1.0, command=2.0, data=3.0, block=400.0, final=700.0)
        capped = replace(mixed, block=30.0)
        self.assertEqual(RelaySettings(timeouts=mixed).interactive().timeouts, capped)
        short = RelaySettings(timeouts=capped)
        self.assertIs(short.interactive(), short)
        own = Timeouts(command=500.0)
        self.assertEqual(RelaySettings(interactive_timeouts=own).interactive().timeouts, own)


class Encryption(unittest.TestCase):
    def test_credentials_are_protected(self) -> None:
        """With them, opportunistic TLS becomes a must, and the relay has to prove who it is (faults B2, B3 of 7.3)."""
        settings = RelaySettings(username="u", password="p")
        self.assertTrue(settings.must_encrypt)
        self.assertTrue(settings.must_verify)

    def test_so_are_tokens_and_certificates(self) -> None:
        """A token is a credential, and so is a certificate: it is for the relay that was meant."""
        cases: list[dict[str, Any]] = [
            {"username": "u", "token": str},
            {"certfile": "our.pem"},
            {"certfile": "our.pem", "auth": (Mechanism.EXTERNAL,)},
            {"ssl_context": object, "auth": (Mechanism.EXTERNAL,)},
        ]
        for given in cases:
            with self.subTest(given):
                settings = RelaySettings(**given)
                self.assertTrue(settings.must_encrypt)
                self.assertTrue(settings.must_verify)
        self.assertTrue(RelaySettings(certfile="our.pem", allow_clear_password=True).must_encrypt)

    def test_the_table(self) -> None:
        """Without credentials."""
        for tls, encrypt, verify in (
            (Tls.NEVER, False, False),
            (Tls.OPPORTUNISTIC, False, False),
            (Tls.REQUIRED, True, True),
            (Tls.IMPLICIT, True, True),
        ):
            settings = RelaySettings(tls=tls)
            self.assertEqual((settings.must_encrypt, settings.must_verify), (encrypt, verify), tls)

    def test_who_wants_less_has_to_say_so(self) -> None:
        """Explicitly, one by one."""
        self.assertFalse(RelaySettings(username="u", password="p", allow_clear_password=True).must_encrypt)
        self.assertFalse(RelaySettings(username="u", password="p", verify=False).must_verify)
        self.assertTrue(RelaySettings(verify=True).must_verify)


class TheRelayIsAskedToReport(unittest.TestCase):
    def test_only_what_the_rfc_knows(self) -> None:
        """NEVER stands alone (RFC 3461, 4.1), and words that no relay knows are refused here."""
        some = "NEVER alone, or some of SUCCESS, FAILURE and DELAY"
        wrong: tuple[tuple[tuple[str, ...], str, str], ...] = (
            (("NEVER", "DELAY"), "", f"notify ('NEVER', 'DELAY'): {some}"),
            (("SOMETIMES",), "", f"notify ('SOMETIMES',): {some}"),
            ((), "ALL", "notify: ret is 'ALL'; FULL, HDRS or nothing is needed"),
        )
        for when, ret, why in wrong:
            with self.assertRaises(InvalidSettings) as caught:
                Notify(when, ret)
            self.assertEqual(str(caught.exception), why)
        for words in (("NEVER",), ("SUCCESS", "FAILURE", "DELAY"), ("DELAY",), ()):
            for ret in ("FULL", "HDRS", ""):
                self.assertEqual(Notify(words, ret).when, words)


class DiscardedExtensions(Fixture):
    def test_are_known_ones(self) -> None:
        """A misspelled one would change nothing, silently."""
        beginning = "8bitmime, auth, binarymime, chunking, dsn, enhancedstatuscodes"
        known = f"{beginning}, limits, pipelining, size, smtputf8, starttls"
        self.assertRefused(
            f"discard_extensions has pipelinning, x; known are {known}",
            discard_extensions=frozenset({"X", "PIPELINNING", "Chunking"}),
        )
        RelaySettings(discard_extensions=frozenset(known.upper().split(", ")))

    def test_are_not_what_the_other_settings_need(self) -> None:
        """TLS that is required, a login that is wanted."""
        self.assertRefused(
            "discard_extensions has starttls, and the settings require TLS; choose one",
            tls=Tls.REQUIRED,
            discard_extensions=frozenset({"STARTTLS"}),
        )
        self.assertRefused(
            "discard_extensions has auth, and there is a login; choose one",
            username="u",
            password="p",
            tls=Tls.IMPLICIT,
            discard_extensions=frozenset({"auth"}),
        )


class OurName(Fixture):
    def test_has_no_blanks(self) -> None:
        """What could end the command is refused; what is no host name is replaced when it is said."""
        for name in ("", "a b", "a\r\nMAIL FROM:<x>"):
            self.assertRefused(f"local_hostname {name!r} is empty, or has blanks in it", local_hostname=name)
        RelaySettings(local_hostname="shop_web_1")
