"""Links to unsubscribe."""

from __future__ import annotations

import re
import unittest
from email.message import EmailMessage

from hypothesis import given, strategies as st

from zope.sendmail.errors import InvalidRecipient, InvalidSettings
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.message.unsubscribe import InvalidLink, Subscription, UnsubscribeLinks
from zope.sendmail.tests.support.properties import QUICK

LINKS = UnsubscribeLinks("https://shop.example.org/unsubscribe/", b"sixteen octets and more")
JANE = "jane@example.com"


class ALink(unittest.TestCase):
    @QUICK
    @given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40))
    def test_leads_back_to_the_subscription(self, name: str) -> None:
        """Whatever the list is called."""
        token = LINKS.token("jürgen@bücher.example", name)
        self.assertEqual(LINKS.read(token), Subscription("jürgen@bücher.example", name))
        self.assertRegex(token, r"\A[A-Za-z0-9_-]+\Z")

    def test_cannot_be_made_by_others(self) -> None:
        """Nor changed, nor cut."""
        token = LINKS.token(JANE, "news")
        forged = UnsubscribeLinks(LINKS.url, b"another sixteen octets").token(JANE, "news")
        for wrong in (forged, token[:-1], token[1:], token + "A", "", "é", "a b", "=", token.swapcase()):
            with self.subTest(wrong), self.assertRaises(InvalidLink):
                LINKS.read(wrong)

    def test_is_in_two_fields(self) -> None:
        """As RFC 8058, 3.1 has them; they leave as they are, also in a message object, which would encode them."""
        message = EmailMessage()
        for name, value in LINKS.fields(
            "a-rather-long-local-part@a-rather-long-domain.example.com", "weekly news"
        ).items():
            message[name] = value
        text = message_bytes(message).decode()
        self.assertRegex(text, r"List-Unsubscribe:\s+<https://shop\.example\.org/unsubscribe/[A-Za-z0-9_-]{60,}>\n")
        self.assertIn("List-Unsubscribe-Post: List-Unsubscribe=One-Click\n", text)
        [token] = re.findall(r"unsubscribe/([A-Za-z0-9_-]+)>", text)
        self.assertEqual(LINKS.read(token).list_name, "weekly news")

    def test_that_cannot_be_meant_is_refused(self) -> None:
        """No https, a secret that can be guessed, no address."""
        for url in (
            "http://example.org/u",
            "https:///u",
            "example.org/u",
            "https://example.org/u?x=1",
            "https://example.org/ü",
        ):
            with self.subTest(url), self.assertRaises(InvalidSettings):
                UnsubscribeLinks(url, b"sixteen octets and more")
        with self.assertRaisesRegex(InvalidSettings, "openssl rand"):
            UnsubscribeLinks("https://example.org", b"short")
        with self.assertRaisesRegex(InvalidSettings, "is a str, not bytes"):
            UnsubscribeLinks("https://example.org", "sixteen octets and more")  # type: ignore[arg-type]  # a mistake
        self.assertRaises(InvalidRecipient, LINKS.token, "a@b@c")
        self.assertRaises(InvalidSettings, LINKS.token, JANE, "a\nb")
        self.assertNotIn("sixteen", repr(LINKS))
