"""What counts as a mail address."""

from __future__ import annotations

import itertools
import time
import unittest
from unittest import mock

from hypothesis import given, strategies as st

from zope.sendmail.interfaces import InvalidAddress, InvalidRecipient
from zope.sendmail.message.address import (
    MAX_OCTETS,
    is_ascii,
    parse_mailbox,
    parse_recipient,
    parse_recipients,
    parse_sender,
    split_list,
    to_ascii,
)
from zope.sendmail.tests.support.layers import properties_apart
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

    def test_a_user_of_the_relays_own_needs_no_domain(self) -> None:
        """7.3 took such names, and the relay completes them; RFC 5321, 4.1.1.3 knows postmaster."""
        for text in ("Postmaster", "root", "README", "editor", "jane.doe+lists", " root ", "Editor <editor>", "root,"):
            with self.subTest(text):
                self.assertEqual(parse_recipient(text), text.partition("<")[2].strip("<>") or text.strip(" ,"))
                self.assertEqual(parse_sender(text), parse_recipient(text))

    def test_a_name_that_a_program_could_misread_is_none(self) -> None:
        """Options, pipes, paths, bang paths and blanks are no user's name."""
        for text in ("-oQ/tmp", "|cat", "/etc/passwd", "elsewhere!jane", "jane%elsewhere", "two words", "x" * 65, "jä"):
            with self.subTest(text):
                self.assertRaises(InvalidAddress, parse_recipient, text)
                self.assertRaises(InvalidAddress, parse_sender, text)

    def test_only_separators_at_its_ends_are_dropped(self) -> None:
        """What else an address begins or ends with is its own."""
        for raw, address in (
            ("Xa@example.XX,", "Xa@example.XX"),
            (" ;Xa@example.XX; ", "Xa@example.XX"),
            ("g: a@x; ,", "a@x"),
            ("@a,@b:c@d", "c@d"),
        ):
            self.assertEqual(parse_recipient(raw), address, raw)
        for raw in ("g: a@x;X", "@a:@b:c@d"):
            with self.assertRaises(InvalidRecipient):
                parse_recipient(raw)

    def test_null_reverse_path(self) -> None:
        """A sender may be empty, a recipient may not."""
        for text in ("", "<>", b"", " ", "Mail Delivery <>"):
            self.assertEqual(parse_sender(text), "")
            self.assertRaises(InvalidAddress, parse_recipient, text)
        for text in (",", "undisclosed-recipients:;", ";"):
            self.assertRaises(InvalidAddress, parse_sender, text)

    def test_what_has_one_meaning_is_taken(self) -> None:
        """RFC 5322, 4.4: separators without a neighbour, half a pair of brackets, routes, comments, groups of one."""
        for text in (
            "jim@example.com, ",
            ",jim@example.com",
            "jim@example.com;",
            "jim@example.com,,",
            "<jim@example.com",
            "Jim <jim@example.com",
            "jim@example.com>",
            "<@relay.example.org:jim@example.com>",
            "<@a.example,@b.example:jim@example.com>",
            "jim @ example.com",
            "(Jim) jim@example.com",
            "jim(at (the) office)@example.com(a company)",
            "Everybody: jim@example.com;",
            "Everybody: Jim <jim@example.com> ;,",
        ):
            with self.subTest(text):
                self.assertEqual(parse_recipient(text), "jim@example.com")
                self.assertEqual(parse_sender(text), "jim@example.com")

    def test_empty_entries_beside_good_ones_are_left_out(self) -> None:
        """Blanks, separators, empty brackets, and groups without members name nobody; each address counts once."""
        empty = ["", " ", ",", "<>", "< >".replace(" ", ""), "undisclosed-recipients:;", "Undisclosed recipients:", b""]
        self.assertEqual(parse_recipients(["a@b.org", *empty, "c@d.org", "a@b.org"]), ("a@b.org", "c@d.org"))
        for entries in ([], empty, [""]):
            with self.assertRaisesRegex(InvalidRecipient, "there are no recipients"):
                parse_recipients(entries)

    def test_a_name_without_an_address_is_not_left_out(self) -> None:
        """Somebody was meant, and would not get the mail."""
        for text in ("Jane <>", "Jane <@>", None):
            with self.subTest(text):
                self.assertRaises(InvalidAddress, parse_recipients, ["a@b.org", text])

    def test_a_piece_of_a_name_is_no_mailbox(self) -> None:
        """In a list that was cut at its commas only whole addresses count, and postmaster."""
        self.assertEqual(parse_mailbox("John <john@example.org>"), "john@example.org")
        self.assertEqual(parse_mailbox("postmaster"), "postmaster")
        self.assertRaises(InvalidRecipient, parse_mailbox, "Doe")

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
            ("a@b.org, c@d.org", "pass several recipients as a list"),
            ("a@b.org; c@d.org", "pass several recipients as a list"),
            ("All: a@b.org, c@d.org;", "pass several recipients as a list"),
            ("Dr. jane@example.org", "correct it"),
            ("a@b.org <c@d.org> <e@f.org>", "pass several"),
            ("http://jane@example.org", "correct it"),
            ("a@b@c.org", "correct it"),
            ("@example.org", "correct it"),
            ("one@", "correct it"),
            ("one@example..org", "correct it"),
            ("one@-example.org", "correct it"),
            ("one two@example.org", "correct it"),
            ("<<one@example.org>>", ""),
            ('"one@example.org', ""),
            ("one@example.org>>", ""),
            ("one@exa\u00a0mple.org", r"NO-BREAK SPACE \(U\+00A0\)"),
            (" ", "every recipient needs an address"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidAddress, cure):
                parse_recipient(text)

    def test_characters_that_are_not_seen_are_stripped_at_the_ends(self) -> None:
        """They come with what people copy from pages and documents; within brackets as well."""
        for code in (
            0x200B,
            0xFEFF,
            0xAD,
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            0xA0,
            0x200E,
            0x3000,
            0x2060,
        ):
            for text in (
                "{0}one@example.org{0}",
                "One <{0}one@example.org{0}>",
                " {0} {0}one@example.org",
                "{0}One{0} <one@example.org>",
            ):
                with self.subTest(text, code=hex(code)):
                    self.assertEqual(parse_recipient(text.format(chr(code))), "one@example.org")
                    self.assertEqual(parse_sender(text.format(chr(code))), "one@example.org")
        self.assertEqual(parse_recipient("root\u200b"), "root")

    def test_characters_that_are_not_seen_are_refused_inside_by_name(self) -> None:
        """Two addresses that look the same are not; the error says what is in the way and which it is."""
        for character, name in (
            ("\u200b", "ZERO WIDTH SPACE (U+200B)"),
            ("\ufeff", "ZERO WIDTH NO-BREAK SPACE (U+FEFF)"),
            ("\xad", "SOFT HYPHEN (U+00AD)"),
            ("\u202e", "RIGHT-TO-LEFT OVERRIDE (U+202E)"),
            ("\u2066", "LEFT-TO-RIGHT ISOLATE (U+2066)"),
            ("\u200d", "ZERO WIDTH JOINER (U+200D)"),
            ("\u3164", "HANGUL FILLER (U+3164)"),
            ("\u2800", "BRAILLE PATTERN BLANK (U+2800)"),
            ("\ufe0f", "VARIATION SELECTOR-16 (U+FE0F)"),
            ("\U000e0041", "TAG LATIN CAPITAL LETTER A (U+E0041)"),
        ):
            for text in ("o{}ne@example.org", "one@exam{}ple.org", "one@example{}.org", "One <o{}ne@example.org>"):
                with self.subTest(text, name=name), self.assertRaises(InvalidAddress) as caught:
                    parse_recipient(text.format(character))
                self.assertIn(name, str(caught.exception))

    def test_joiners_stay_where_a_script_needs_them(self) -> None:
        """RFC 5892, A.1 and A.2: behind a virama, and in Arabic words."""
        for address in ("\u0915\u094d\u200d\u0937@example.org", "a@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example"):
            self.assertEqual(parse_recipient(address), address)

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
        for text in (
            ":" * 890,
            "a," * 440,
            "(a)" * 290,
            "a:" * 440,
            "@" * 890,
            "\u200b" * 290 + "x y",
            ("\u200b" * 3 + "x") * 80,
            "<" * 890,
            "a <" * 290,
            ", " * 440 + "x y",
            "x@" + "ä" * 440 + "!",
            "x@" + "a-" * 440,
            "." * 890,
            '"' * 890,
            '<"' * 440,
            "(" * 890,
            "_" * 890,
        ):
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


class InAscii(unittest.TestCase):
    def test_stands_what_can(self) -> None:
        """The domain has such a spelling, a local part has none (RFC 5890, RFC 6531)."""
        for address, spelled in (
            ("a@example.org", "a@example.org"),
            ("a@b\u00fccher.example", "a@xn--bcher-kva.example"),
            ("\u00e4@example.org", None),
            ("root", "root"),
        ):
            self.assertEqual(to_ascii(address), spelled, address)


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


load_tests = properties_apart
