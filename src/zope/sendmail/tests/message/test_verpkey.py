"""Return paths that nobody else can make."""

from __future__ import annotations

import unittest

from hypothesis import given, strategies as st

from zope.sendmail.errors import InvalidAddress, InvalidSettings
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.verp import one_by_one, verp, whom
from zope.sendmail.message.verpkey import DAYS, VerpKey
from zope.sendmail.tests.support.properties import QUICK

KEY = VerpKey(b"sixteen octets and more")
SENDER = "news@example.org"
TODAY = 20_787


class ASignature(unittest.TestCase):
    def test_leads_back_to_the_recipient(self) -> None:
        """Also where relays have changed the case, and on each day that it is good."""
        [envelope] = one_by_one(Envelope(SENDER, ("Jane@Example.com",)), KEY, TODAY)
        for path in (envelope.sender, envelope.sender.lower(), envelope.sender.upper()):
            for later in (0, 1, DAYS):
                found = whom(
                    KEY.checked(path, TODAY + later), "news@example.org" if path != path.upper() else "NEWS@EXAMPLE.ORG"
                )
                self.assertEqual(found.lower(), "jane@example.com")

    @QUICK
    @given(st.integers(0, 10**6))
    def test_is_good_across_the_turn_of_its_days(self, day: int) -> None:
        """They are counted modulo 1000."""
        path = verp(SENDER, "jane@example.com")
        signed = KEY.signed(path, day)
        self.assertEqual(KEY.checked(signed, day + DAYS), path)
        with self.assertRaisesRegex(InvalidAddress, "older than 30 days"):
            KEY.checked(signed, day + DAYS + 1)

    def test_is_for_one_recipient_and_one_sender(self) -> None:
        """Any change makes it another's; the text says what is wrong."""
        signed = KEY.signed(verp(SENDER, "jane@example.com"), TODAY)
        for forged, words in (
            (signed.replace("jane", "jim"), "is not ours"),
            (signed.replace("news", "spam"), "is not ours"),
            (signed.replace("example.org", "example.net"), "is not ours"),
            (VerpKey(b"another sixteen octets").signed(verp(SENDER, "jane@example.com"), TODAY), "is not ours"),
            (signed.replace("=787", "=786"), "is not ours"),
            (verp(SENDER, "jane@example.com"), "has no signature"),
            ("jane@example.com", "has no signature"),
            ("", "has no signature"),
            ("=787aaaaaaaaaa@example.org", "has no signature"),
        ):
            with self.subTest(forged), self.assertRaisesRegex(InvalidAddress, words):
                KEY.checked(forged, TODAY)

    def test_that_makes_the_path_too_long_is_refused(self) -> None:
        """RFC 5321, 4.5.3.1.1: relays may refuse it."""
        with self.assertRaisesRegex(InvalidAddress, "would be longer than 64"):
            list(one_by_one(Envelope(SENDER, (f"{'a' * 40}@example.com",)), KEY, TODAY))


class AKey(unittest.TestCase):
    def test_has_sixteen_octets_at_least(self) -> None:
        """And is not shown."""
        with self.assertRaisesRegex(InvalidSettings, "openssl rand"):
            VerpKey(b"fifteen octets.")
        self.assertNotIn("sixteen", repr(KEY))
