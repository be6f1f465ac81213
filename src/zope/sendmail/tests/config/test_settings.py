"""How a relay is spoken with."""

from __future__ import annotations

import unittest
from typing import Any

from zope.sendmail.config.settings import Mechanism, Notify, RelaySettings, Timeouts, Tls
from zope.sendmail.errors import InvalidSettings


class Relays(unittest.TestCase):
    def test_written_for_people(self) -> None:
        """Host and port; an IPv6 address in brackets; never the password."""
        self.assertEqual(str(RelaySettings("mail.example.org", 587)), "mail.example.org:587")
        self.assertEqual(str(RelaySettings("2001:db8::1")), "[2001:db8::1]:25")
        self.assertNotIn("secret", repr(RelaySettings(username="u", password="secret")))

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
            {"port": 0},
            {"port": 65536},
            {"username": "u"},
            {"password": "p"},
        ]
        for settings in wrong:
            with self.subTest(settings), self.assertRaises(ValueError):
                RelaySettings(**settings)

    def test_credentials_that_contradict_each_other(self) -> None:
        """Each is refused with what to do; no secret is in the error."""

        def token() -> str:
            return "secret-token"

        certificate = {"certfile": "our.pem"}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"username": "u", "password": "secret", "token": token}, "password and token contradict each other"),
            ({"token": token}, "the username is missing"),
            ({"username": "u"}, "the password is missing; give both or neither, or a token"),
            ({"username": "u\x01auth=x", "token": token}, "control characters"),
            ({"username": "u", "password": "secret", "auth": (Mechanism.XOAUTH2,)}, "XOAUTH2, which needs a token"),
            ({"username": "u", "token": token, "auth": (Mechanism.PLAIN,)}, "PLAIN, which needs a password"),
            ({"auth": (Mechanism.PLAIN,)}, "PLAIN, which needs a password"),
            ({"auth": (Mechanism.EXTERNAL,)}, r"EXTERNAL, which needs a client certificate \(certfile\)"),
            ({"keyfile": "key.pem"}, "keyfile is given without certfile"),
            ({**certificate, "tls": Tls.NEVER}, "a client certificate needs TLS"),
            ({**certificate, "ssl_context": object}, "ssl_context takes the place of certfile"),
        ]
        for settings, why in wrong:
            with self.subTest(why), self.assertRaisesRegex(ValueError, why) as caught:
                RelaySettings(**settings)
            self.assertNotIn("secret", str(caught.exception))

    def test_the_final_reply_is_waited_for_long_enough(self) -> None:
        """Ten minutes (RFC 5321, 4.5.3.2.6); less sends mails twice (fault A4 of 7.3)."""
        self.assertGreaterEqual(Timeouts().final, 600)


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
        for when, ret in ((("NEVER", "DELAY"), ""), (("SOMETIMES",), ""), ((), "ALL")):
            with self.assertRaises(ValueError):
                Notify(when, ret)
        self.assertEqual(Notify(("FAILURE", "DELAY"), "HDRS").when, ("FAILURE", "DELAY"))


class DiscardedExtensions(unittest.TestCase):
    def test_are_known_ones(self) -> None:
        """A misspelled one would change nothing, silently."""
        with self.assertRaisesRegex(InvalidSettings, "has pipelinning; known are .*pipelining"):
            RelaySettings(discard_extensions=frozenset({"PIPELINNING", "Chunking"}))

    def test_are_not_what_the_other_settings_need(self) -> None:
        """TLS that is required, a login that is wanted."""
        with self.assertRaisesRegex(InvalidSettings, "starttls, and the settings require TLS"):
            RelaySettings(tls=Tls.REQUIRED, discard_extensions=frozenset({"STARTTLS"}))
        with self.assertRaisesRegex(InvalidSettings, "auth, and there is a login"):
            RelaySettings(username="u", password="p", tls=Tls.IMPLICIT, discard_extensions=frozenset({"auth"}))


class OurName(unittest.TestCase):
    def test_has_no_blanks(self) -> None:
        """What could end the command is refused; what is no host name is replaced when it is said."""
        for name in ("", "a b", "a\r\nMAIL FROM:<x>"):
            with self.subTest(name), self.assertRaisesRegex(InvalidSettings, "local_hostname"):
                RelaySettings(local_hostname=name)
        RelaySettings(local_hostname="shop_web_1")
