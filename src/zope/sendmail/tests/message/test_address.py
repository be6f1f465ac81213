"""What counts as a mail address."""

from __future__ import annotations

import itertools
import time
import unittest
from unittest import mock

from hypothesis import given, strategies as st

from zope.sendmail.interfaces import InvalidAddress
from zope.sendmail.message.address import MAX_OCTETS, is_ascii, parse_recipient, parse_sender, split_list
from zope.sendmail.tests.support.properties import QUICK

ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~äж語", min_size=1, max_size=12)
QUOTED = st.text('ab ,<>()@."\\', max_size=12).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
LABEL = st.text("az09äж-", min_size=1, max_size=8).map(lambda text: f"a{text}0")
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ADDRESS = st.builds("{}@{}".format, st.lists(ATOM, min_size=1, max_size=3).map(".".join) | QUOTED, DOMAIN)


class GoodAddresses(unittest.TestCase):
    def test_usual_forms_stay_as_they_are(self) -> None:
        """local@domain comes out as it went in."""
        for address in (
            "one@example.org",
            "o'brien+tag=x/y@sub.example.org",
            "a@localhost",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@1.2.3.4",
            "x@_dmarc.example.org",
            "x@under_score.example.org",
            '"with blank"@example.org',
            '"a,b<c>(d)@e\\"f"@example.org',
        ):
            with self.subTest(address):
                self.assertEqual(parse_recipient(address), address)
                self.assertEqual(parse_sender(address), address)

    def test_dots_of_mobile_phones_are_accepted(self) -> None:
        """Doubled and trailing dots in the local part were handed out once, and work."""
        for address in ("a..b@docomo.ne.jp", "a.@docomo.ne.jp"):
            self.assertEqual(parse_recipient(address), address)

    def test_addresses_beyond_ascii(self) -> None:
        """Any script can be in both parts, also one whose vowel signs are no letters to Python."""
        for address in ("zwölf@example.org", "x@faß.example", "info@उदाहरण.परीक्षा", "用户@例え.jp", "info@مثال.إختبار"):
            with self.subTest(address):
                self.assertEqual(parse_recipient(address), address)
                self.assertFalse(is_ascii(address))
        self.assertTrue(is_ascii("one@example.org"))

    def test_bytes_are_utf8(self) -> None:
        """The old interface promised bytes."""
        self.assertEqual(parse_recipient("zwölf@example.org".encode()), "zwölf@example.org")
        self.assertEqual(parse_sender(b"one@example.org"), "one@example.org")

    def test_display_names_are_dropped(self) -> None:
        """With and without quotes, a comma in it or not; comments behind as well."""
        for text in (
            "One <one@example.org>",
            '"Doe, John" <one@example.org>',
            "Doe, John <one@example.org>",
            '"a <b@c.org>" <one@example.org>',
            "<one@example.org>",
            " < one@example.org > ",
            "one@example.org (One)",
            "Zwölf <one@example.org>",
            "one@example.org.",
        ):
            with self.subTest(text):
                self.assertEqual(parse_recipient(text), "one@example.org")

    def test_postmaster_needs_no_domain(self) -> None:
        """RFC 5321, 4.1.1.3: as a recipient, in any case."""
        self.assertEqual(parse_recipient("Postmaster"), "Postmaster")
        self.assertRaises(InvalidAddress, parse_sender, "postmaster")

    def test_null_reverse_path(self) -> None:
        """A sender may be empty, a recipient may not."""
        for text in ("", "<>", b""):
            self.assertEqual(parse_sender(text), "")
            self.assertRaises(InvalidAddress, parse_recipient, text)

    @QUICK
    @given(ADDRESS)
    def test_parsing_is_stable(self, address: str) -> None:
        """What was parsed once is parsed to the same again, with and without brackets."""
        once = parse_recipient(address)
        self.assertEqual(parse_recipient(once), once)
        self.assertEqual(parse_sender(f"Some Name <{once}>"), once)

    def test_plain_ones_take_a_short_way_to_the_same(self) -> None:
        """Every text of up to five of these characters is read as it would be without that way."""
        texts = ["".join(text) for count in range(6) for text in itertools.product("aA1.-_@ \n", repeat=count)]
        texts = [text for text in texts if "@" in text] + ["a" * MAX_OCTETS + "@a.a"]
        short = [self.read(text) for text in texts]
        with mock.patch("zope.sendmail.message.address._is_plain", return_value=False):
            self.assertEqual(short, [self.read(text) for text in texts])

    def read(self, text: str) -> str | None:
        try:
            return parse_recipient(text)
        except InvalidAddress:
            return None


class BadAddresses(unittest.TestCase):
    def test_control_characters_are_refused_not_dropped(self) -> None:
        """The raw text is looked at before anything parses it (fault B4 of 7.3)."""
        for character in "\r\n\0\t\x0b\x1b\x7f\x85\u2028\u2029":
            for text in (
                f"one@example.org{character}",
                f"{character}one@example.org",
                f"a{character}b@example.org",
                f"Name{character} <one@example.org>",
                f"one@example.org{character}RCPT TO:<evil@example.org>",
            ):
                with self.subTest(ascii(text)):
                    self.assertRaises(InvalidAddress, parse_recipient, text)
                    self.assertRaises(InvalidAddress, parse_sender, text)

    def test_what_is_no_address_is_refused(self) -> None:
        """With a cure for people."""
        for text, cure in (
            ("one", "it has no domain"),
            ("a@b.org, c@d.org", "pass several recipients as a list"),
            ("a@b@c.org", "correct it"),
            ("@example.org", "correct it"),
            ("one@", "correct it"),
            ("one@example..org", "correct it"),
            ("one@-example.org", "correct it"),
            ("one two@example.org", "correct it"),
            ("<@relay.org:one@example.org>", "correct it"),
            ("<<one@example.org>>", ""),
            ('"one@example.org', ""),
            ("one@example.org>", ""),
            ("one@exa\u00a0mple.org", ""),
            (" ", "every recipient needs an address"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidAddress, cure):
                parse_recipient(text)

    def test_other_types_are_refused(self) -> None:
        """None, numbers, and bytes that are no text."""
        for raw in (None, 7, ["a@b.org"], b"\xff@example.org", "\udcff@example.org"):
            with self.subTest(raw):
                self.assertRaises(InvalidAddress, parse_recipient, raw)

    def test_length_has_a_bound(self) -> None:
        """Octets count, not characters."""
        tail = "@example.org"
        fits = "a" * (MAX_OCTETS - len(tail)) + tail
        self.assertEqual(parse_recipient(fits), fits)
        self.assertRaises(InvalidAddress, parse_recipient, "a" + fits)
        self.assertRaises(InvalidAddress, parse_recipient, "ä" * (MAX_OCTETS // 2) + tail)

    def test_the_error_is_permanent_and_a_value_error(self) -> None:
        """Callers of the old releases caught ValueError."""
        with self.assertRaises(InvalidAddress) as caught:
            parse_recipient("")
        self.assertIsInstance(caught.exception, ValueError)
        self.assertTrue(caught.exception.permanent)

    def test_hostile_text_takes_no_time(self) -> None:
        """No pattern here backtracks without end."""
        begin = time.thread_time()
        for text in ("x@" + "ä" * 440 + "!", "x@" + "a-" * 440, "." * 890, '"' * 890, '<"' * 440, "(" * 890, "_" * 890):
            self.assertRaises(InvalidAddress, parse_recipient, text)
        split_list('"\\' * 2000)
        split_list("(," * 2000 + "<," * 2000)
        split_list('\\"' * 200_000)
        self.assertLess(time.thread_time() - begin, 2.0)

    @QUICK
    @given(st.text(max_size=40))
    def test_nothing_dangerous_gets_through(self, text: str) -> None:
        """Whatever is accepted has one line, no blank outside of quotes, and no bracket that ends the command."""
        for parse in (parse_recipient, parse_sender):
            try:
                address = parse(text)
            except InvalidAddress:
                continue
            self.assertTrue(address.isprintable() or not address.isascii())
            self.assertNotRegex(address, r"[\r\n\0]")
            if '"' not in address:
                self.assertNotRegex(address, r"[\s<>]")


class Lists(unittest.TestCase):
    def test_commas_separate(self) -> None:
        """But not within quotes, comments and brackets; empty parts are left out."""
        self.assertEqual(split_list("a@b.org, c@d.org ,, e@f.org,"), ["a@b.org", "c@d.org", "e@f.org"])
        self.assertEqual(split_list('"a,b"@c.org, d@e.org (x, y)'), ['"a,b"@c.org', "d@e.org (x, y)"])
        self.assertEqual(split_list('"Doe, \\" John" <a@b.org>,c@d.org'), ['"Doe, \\" John" <a@b.org>', "c@d.org"])
        self.assertEqual(split_list(""), [])

    def test_open_quotes_lose_nothing(self) -> None:
        """A quote that does not end hides no comma."""
        self.assertEqual(split_list('"a, b@c.org'), ['"a', "b@c.org"])
        self.assertEqual(split_list("(a, b@c.org"), ["(a", "b@c.org"])

    @QUICK
    @given(st.lists(ADDRESS, max_size=5))
    def test_joined_addresses_come_apart_again(self, addresses: list[str]) -> None:
        """The list in a queue file is the list that was written."""
        self.assertEqual(split_list(", ".join(addresses)), addresses)
