"""Return paths that name the recipient."""

from __future__ import annotations

import unittest

from hypothesis import given, strategies as st

from zope.sendmail.interfaces import InvalidAddress
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.verp import one_by_one, verp, whom
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK

WHO = ("a@y.org", "b@z.org")
LOCAL = st.text("abc+=-.", min_size=1, max_size=8).filter(lambda text: ".." not in text and text.strip(".") == text)


class AReturnPath(unittest.TestCase):
    def test_names_the_recipient(self) -> None:
        """As Postfix writes it."""
        self.assertEqual(verp("list@example.org", "one@example.com"), "list+one=example.com@example.org")

    @QUICK
    @given(LOCAL, LOCAL)
    def test_leads_back(self, local: str, who: str) -> None:
        """Whatever stands in both addresses."""
        sender, recipient = f"{local}@example.org", f"{who}@example.com"
        self.assertEqual(whom(verp(sender, recipient), sender), recipient)

    def test_of_somebody_else_does_not(self) -> None:
        """Other lists, other domains, addresses that were not made so."""
        for address in "list@example.org", "other+one=example.com@example.org", "list+one=x@example.net", "", "list+@x":
            with self.subTest(address=address):
                self.assertRaises(InvalidAddress, whom, address, "list@example.org")

    def test_that_cannot_be_is_refused(self) -> None:
        """No sender, quoted parts, domain literals, no domain, more than a relay has to take."""
        for sender, recipient in (
            ("", "one@example.com"),
            ('"a b"@example.org', "one@example.com"),
            ("list@example.org", f"{'o' * 60}@example.com"),
            ("list@example.org", "one@[192.0.2.1]"),
            ("list@example.org", "postmaster"),
        ):
            with self.subTest(sender=sender):
                self.assertRaises(InvalidAddress, verp, sender, recipient)

    def test_may_be_as_long_as_a_relay_has_to_take(self) -> None:
        """64 octets before the @ (RFC 5321, 4.5.3.1.1)."""
        self.assertEqual(len(verp("l@x.org", f"{'o' * 56}@y.org").partition("@")[0]), 64)
        with self.assertRaises(InvalidAddress):
            verp("l@x.org", f"{'o' * 57}@y.org")

    def test_each_recipient_has_an_envelope(self) -> None:
        """With the relay that the mail asks for."""
        relay = RelayName(mailer="bulk")
        self.assertEqual(
            [(each.sender, each.recipients, each.relay) for each in one_by_one(Envelope("l@x.org", WHO, relay=relay))],
            [("l+a=y.org@x.org", ("a@y.org",), relay), ("l+b=z.org@x.org", ("b@z.org",), relay)],
        )


load_tests = properties_apart
