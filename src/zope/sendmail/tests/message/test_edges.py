"""Limits themselves and what stands next to them, in addresses, envelopes, texts and names."""

from __future__ import annotations

import io
import os
import time
import unittest
from datetime import UTC, datetime, timedelta
from math import inf
from unittest import mock

from zope.sendmail.errors import (
    InvalidAddress,
    InvalidMessage,
    InvalidRecipient,
    InvalidRelay,
    InvalidSender,
    InvalidSettings,
    InvalidTerms,
    MalformedEnvelope,
)
from zope.sendmail.message.address import names_nobody, parse_recipient, parse_recipients, parse_sender, split_list
from zope.sendmail.message.domain import ascii_domain
from zope.sendmail.message.envelope import END, Envelope, read_envelope, usual_envelope
from zope.sendmail.message.headers import MAX_ID, completed, message_id
from zope.sendmail.message.pieces import joined
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import NO_DEFAULTS, PLAIN, Defaults, Priority, Terms, read_terms, terms_pairs, written
from zope.sendmail.message.unsubscribe import InvalidLink, Subscription, UnsubscribeLinks
from zope.sendmail.message.verp import one_by_one, whom
from zope.sendmail.message.verpkey import VerpKey

START = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n"
JANE = "jane@example.com"


def read(text: bytes) -> tuple[Envelope, bytes]:
    """Envelope and message of a queue file."""
    stream = io.BytesIO(text)
    return read_envelope(stream), stream.read()


class AnAddress(unittest.TestCase):
    def test_has_900_octets_at_most(self) -> None:
        """With blanks around it, and other letters in it."""
        for text in ("a" * 888 + "@example.org", "\u00e9" * 444 + "@example.org"):
            self.assertEqual(parse_recipient(text), text)
            with self.assertRaises(InvalidRecipient):
                parse_recipient(f"a{text}")

    def test_may_be_quoted_with_a_comment_behind_it(self) -> None:
        """Which is left out."""
        self.assertEqual(parse_recipient('"a b"@example.org (Jane)'), '"a b"@example.org')

    def test_that_cannot_be_is_told_as_what_it_was_to_be(self) -> None:
        """A sender or a recipient, with what was passed."""
        for text, why in (
            ("a\u200bb@x", "has ZERO WIDTH SPACE (U+200B) in it, a character that is not seen; remove it"),
            ("a\rb@x", "has a line break or another control character in it; remove it"),
            ("a\ud800b@x", "has a character that no text can have (a lone surrogate)"),
        ):
            with self.assertRaises(InvalidSender) as sender:
                parse_sender(text)
            self.assertEqual((sender.exception.sender, str(sender.exception)), (text, f"the sender {text!r} {why}"))
            with self.assertRaises(InvalidRecipient) as recipient:
                parse_recipients([text])
            self.assertEqual(list(recipient.exception.recipients), [text])
            self.assertEqual(str(recipient.exception), f"the recipient {text!r} {why}")
        long = "x" * 901
        with self.assertRaises(InvalidSender) as sender:
            parse_sender(long)
        self.assertEqual(str(sender.exception), f"the sender {'x' * 60!r}... has 901 octets; at most 900 are possible")

    def test_that_is_several_is_told_so(self) -> None:
        """Whatever is between them."""
        for separator in (",", ";", " "):
            with self.assertRaisesRegex(InvalidRecipient, "; pass several recipients as a list$"):
                parse_recipient(f"a@x{separator}b@x")
        for text in ("a@b@c", "a;b", "a b"):
            with self.assertRaisesRegex(InvalidRecipient, "; correct it$"):
                parse_recipient(text)

    def test_shows_what_is_not_seen_behind_what_may_stand_there(self) -> None:
        """A joiner behind an Arabic letter is right, what follows is not."""
        with self.assertRaisesRegex(InvalidRecipient, "ZERO WIDTH SPACE"):
            parse_recipient("\u0628\u200cx\u200by@example.org")

    def test_is_none_of_letters_alone(self) -> None:
        """A name is somebody, and so is what is no group."""
        for text in ("X", "a@b:", "XX"):
            self.assertFalse(names_nobody(text), text)
        for text in ("", " ,; ", "<>", "undisclosed-recipients:", "undisclosed-recipients:;,"):
            self.assertTrue(names_nobody(text), text)

    def test_in_a_list_that_nobody_means_is_cut_at_every_comma(self) -> None:
        """From a thousand escaped quotes on."""
        for many, number in ((1000, 1), (1001, 2)):
            escaped = '\\"' * many
            self.assertEqual(len(split_list(f'"{escaped[:600]},"{escaped[600:]}')), number)

    def test_may_end_with_the_dot_of_a_domain(self) -> None:
        """It is no part of the form that the net writes."""
        self.assertEqual(ascii_domain("m\u00fcller.example."), "xn--mller-kva.example")


class AnEnvelope(unittest.TestCase):
    def test_leaves_out_what_names_nobody(self) -> None:
        """And goes on behind it."""
        text = b"X-Zope-From: a@example.org\nX-Zope-To: <>, b@example.org, c@example.org\n"
        self.assertEqual(read(text)[0].recipients, ("b@example.org", "c@example.org"))

    def test_has_each_recipient_once(self) -> None:
        """Of two as well."""
        found = usual_envelope(b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, b@example.org\nSubject: x\n")
        assert found is not None
        self.assertEqual(found[0].recipients, ("b@example.org",))

    def test_ends_where_the_message_begins(self) -> None:
        """A line of it that ends an envelope is text, and so is one that looks like a line of ours and has no end."""
        for message in (
            b"Subject: x\n" + END + b"\n",
            b"X-Zope-Mailer: bulk\nSubject: x\n" + END,
            b"X-Zope-Mailer: bulk",
        ):
            self.assertEqual(read(START + message), (Envelope("a@example.org", ("b@example.org",)), message))

    def test_with_terms_has_those_that_are_there(self) -> None:
        """None of the others."""
        terms = read(START + b"X-Zope-Priority: high\n" + END)[0].terms
        self.assertEqual(terms, Terms(priority=Priority.HIGH))

    def test_that_asks_for_what_is_not_known_names_all_of_it(self) -> None:
        """In the order of the names."""
        with self.assertRaises(MalformedEnvelope) as caught:
            read(START + b"X-Zope-B: x\nX-Zope-A: x\n" + END)
        self.assertEqual(str(caught.exception), "it asks for X-Zope-A, X-Zope-B, which this version does not know")

    def test_of_cpsmailaccess_may_leave_a_line_empty(self) -> None:
        """That asks for no relay."""
        lines = b"X-Zope-Hostname: \nX-Zope-Port: \nX-Zope-Username: \nX-Zope-Password: \n"
        self.assertIsNone(read(START + lines + b"\nx")[0].relay)

    def test_of_maildrophost_is_in_lines_of_its_form(self) -> None:
        """One that is of another form, or has no end, is none of it."""
        words = "it does not begin with one line ##To: and one line ##From:"
        to, sender = b"##To: b@example.org\n", b"##From: a@example.org\n"
        for text in (
            to + b"Subject: x\n" + sender + b"\nx",
            to + b"Subject: x\n\n" + sender + b"\nx",
            to + b"##nonsense\n" + sender + b"\nx",
            to + b"##From: a@example.org",
        ):
            with self.assertRaises(MalformedEnvelope) as caught:
                read(text)
            self.assertEqual(str(caught.exception), words)
        for again in (to, sender):
            self.assertEqual(read(to + sender + again + b"\nx")[1], again + b"\nx")


class AText(unittest.TestCase):
    def test_may_have_an_id_of_some_length(self) -> None:
        """Four times the longest line, with its comments."""
        field = b"Message-Id: <1@x>" + b" " * (MAX_ID - 6)
        self.assertEqual(message_id(field + b"\n"), "1@x")
        with self.assertRaises(InvalidMessage) as caught:
            message_id(field + b" \n")
        self.assertEqual(str(caught.exception), "Malformed Message-Id header: it has 3993 octets")

    def test_may_begin_as_in_an_mbox(self) -> None:
        """With a line that has an end, and is escaped or not; new fields stand behind it."""
        for start in (b"From jane Mon\n", b">From jane Mon\n"):
            self.assertEqual(message_id(start + b"X: x\nMessage-Id: <1@x>\n\n"), "1@x")
            self.assertEqual(
                joined(completed([start + b"X: x\n\n"], "1@x", "now").pieces),
                start + b"Message-Id: <1@x>\nDate: now\nX: x\n\n",
            )
        added = b"Message-Id: <1@x>\nDate: now\n"
        self.assertEqual(joined(completed([b"From jane"], "1@x", "now").pieces), added + b"\nFrom jane")

    def test_is_completed_where_it_is_not_the_usual(self) -> None:
        """Whatever is missing, and says whether it has a sender."""
        added = b"Message-Id: <new@x>\nDate: now\n"
        for text, made, has_from in (
            (b"Resent-Bcc: a\nX: x\n\nx", added + b"X: x\n\nx", False),
            (b"From: a\nBcc: a\n\nx", added + b"From: a\n\nx", True),
            (b"From: a\nX: x\n\nx", added + b"From: a\nX: x\n\nx", True),
            (b"Message-Id:\nX: x\n\nx", added + b"X: x\n\nx", False),
            (b"\r\nx", added.replace(b"\n", b"\r\n") + b"\r\nx", False),
            (b"\nx", added + b"\nx", False),
        ):
            mail = completed([text, b" and more"], "new@x", "now")
            found = (joined(mail.pieces), mail.message_id, mail.has_from)
            self.assertEqual(found, (made + b" and more", "new@x", has_from))
        given = completed([b"Message-Id: <1@x>\n\nx"], "new@x", "now")
        self.assertEqual((given.message_id, given.has_from), ("1@x", False))


class ARelay(unittest.TestCase):
    def test_is_an_address_only_with_a_port(self) -> None:
        """Everything else is the name of a mailer."""
        for name in ("25", "h:x", "h:\u0662", "h"):
            self.assertEqual(RelayName.of(name), RelayName(mailer=name))
        self.assertEqual(RelayName.of("h:1"), RelayName(hostname="h", port=1))
        self.assertEqual(RelayName.of("h:65535").port, 65535)

    def test_cannot_be_half_an_address(self) -> None:
        """A host without a port, half of a pair of brackets."""
        for call in (lambda: RelayName(hostname="h"), lambda: RelayName.of("[::1:25"), lambda: RelayName.of("::1]:25")):
            self.assertRaises(InvalidRelay, call)

    def test_has_a_name_of_255_octets_at_most(self) -> None:
        """As a domain has."""
        self.assertEqual(len(RelayName(mailer="x" * 255).mailer), 255)
        with self.assertRaisesRegex(InvalidRelay, "has more than 255 octets"):
            RelayName(mailer="x" * 256)

    def test_of_a_queue_may_be_called_like_an_address(self) -> None:
        """Its name comes first."""
        routes = Routes("h:25")
        self.assertEqual(routes.named("h:25"), RelayName(mailer="h:25"))

    def test_is_the_only_one_where_none_can_be_named(self) -> None:
        """Neither another mailer nor an address."""
        address = frozenset({("h", 25)})
        for routes, is_single in (
            (Routes("a"), True),
            (Routes("a", frozenset({"a"})), True),
            (Routes("a", frozenset({"b"})), False),
            (Routes("a", addresses=address), False),
        ):
            self.assertEqual(routes.is_single, is_single)
        theirs = RelayName(hostname="h", port=25, username="u", password="p")
        self.assertEqual(Routes(addresses=address).check(theirs), RelayName(hostname="h", port=25))


class ATerm(unittest.TestCase):
    def test_may_be_as_short_as_can_be(self) -> None:
        """Now is no time to wait for; a key may be kept for less than a second."""
        self.assertIs(NO_DEFAULTS.terms(1000.0, not_before=timedelta(0)), PLAIN)
        self.assertEqual(Defaults.of(key_lifetime=timedelta(milliseconds=500)).key_lifetime, 0.5)
        self.assertIs(Defaults.of().priority, Priority.NORMAL)
        with self.assertRaisesRegex(InvalidTerms, "^expires=datetime.timedelta\\(0\\) has passed already$"):
            NO_DEFAULTS.terms(1000.0, expires=timedelta(0))

    def test_is_told_by_its_name(self) -> None:
        """Which of several was wrong."""
        for name in ("not_before", "expires"):
            with self.assertRaisesRegex(InvalidTerms, f"^{name}=.* says no time zone"):
                NO_DEFAULTS.terms(0.0, **{name: datetime(2026, 12, 1)})  # type: ignore[arg-type]  # noqa: DTZ001 - a mistake

    def test_is_written_in_utc_wherever_that_is(self) -> None:
        """The zone of the machine is nothing to it."""
        self.addCleanup(time.tzset)
        self.enterContext(mock.patch.dict(os.environ, TZ="Asia/Tokyo"))
        time.tzset()
        moment = datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()
        self.assertEqual(written(moment), "2026-12-01T08:00:00Z")

    def test_about_suppressed_recipients_names_all(self) -> None:
        """In one line."""
        pairs = terms_pairs(Terms(suppressed=("a@x", "b@x")))
        self.assertEqual(pairs, {"X-Zope-Suppressed": "a@x, b@x"})

    def test_that_cannot_be_read_is_told(self) -> None:
        """With what is wrong."""
        for options, why in (
            ({"X-Zope-Expires": "soon"}, "'soon' is no moment such as 2026-12-01T08:00:00Z"),
            ({"X-Zope-Priority": "urgent"}, "'urgent' is not a valid Priority"),
        ):
            with self.assertRaises(MalformedEnvelope) as caught:
                read_terms(options, ())
            self.assertEqual(str(caught.exception), f"it asks for what cannot be: {why}")
        self.assertEqual(read_terms({}, ()), Terms(expires=inf))


class ALink(unittest.TestCase):
    SECRET = b"sixteen octets !"
    LINKS = UnsubscribeLinks("https://example.org/X/", SECRET)

    def test_is_the_same_in_each_release(self) -> None:
        """Links of years ago still lead somewhere; it has no padding, and the name of a list is empty by default."""
        token = "CYDyTM45YkcWPjJK63MxbApqYW5lQGV4YW1wbGUuY29t"
        self.assertEqual(self.LINKS.token(JANE), token)
        self.assertEqual(self.LINKS.link(JANE), f"https://example.org/X/{token}")
        self.assertEqual(self.LINKS.fields(JANE)["List-Unsubscribe"], f"<https://example.org/X/{token}>")
        self.assertEqual(self.LINKS.read(token), Subscription(JANE))
        self.assertEqual(Subscription(JANE), Subscription(JANE, ""))

    def test_may_end_with_any_letter(self) -> None:
        """It is read back as it was made."""
        tokens = []
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            address = f"a@example.NE{letter}"
            tokens.append(self.LINKS.token(address))
            self.assertEqual(self.LINKS.read(tokens[-1]), Subscription(address, ""))
        self.assertIn("X", {token[-1] for token in tokens})

    def test_is_refused_with_what_is_wrong(self) -> None:
        """Word by word."""
        wrong = "https://example.org/u?x=1"
        for call, kind, why in (
            (lambda: self.LINKS.read("\u00e9"), InvalidLink, "this link is not whole; copy all of it"),
            (lambda: self.LINKS.read("AAAA"), InvalidLink, "this link is not whole, or not one of ours"),
            (lambda: self.LINKS.token(JANE, "a\n"), InvalidSettings, "the list 'a\\n' has a line end in its name"),
            (
                lambda: UnsubscribeLinks(wrong, self.SECRET),
                InvalidSettings,
                f"{wrong!r} cannot be one click away; write https://example.org/unsubscribe",
            ),
            (
                lambda: UnsubscribeLinks("https://example.org", self.SECRET[1:]),
                InvalidSettings,
                "the secret has 15 octets, not 16; make one: openssl rand -base64 24",
            ),
            (
                lambda: UnsubscribeLinks("https://example.org", "x" * 16),  # type: ignore[arg-type]  # a mistake
                InvalidSettings,
                "the secret is a str, not bytes; pass secret.encode(), or a file's read_bytes()",
            ),
        ):
            with self.assertRaises(kind) as caught:
                call()
            self.assertEqual(str(caught.exception), why)
        self.assertEqual(repr(self.LINKS), "UnsubscribeLinks('https://example.org/X', ...)")


class AReturnPath(unittest.TestCase):
    KEY = VerpKey(b"sixteen octets !")

    def test_names_a_recipient_with_a_domain(self) -> None:
        """Half of one is none."""
        for path in ("news+=example.com@example.org", "news+jane=@example.org", "news+jane@example.org"):
            self.assertRaises(InvalidAddress, whom, path, "news@example.org")

    def test_of_the_first_has_the_key_for_all(self) -> None:
        """So that all of them leave, or none does."""
        terms = Terms(key="k", key_until=5.0, priority=Priority.LOW)
        envelope = Envelope("l@x.org", ("a@y.org", "b@y.org", "c@y.org"), terms=terms)
        others = Terms(priority=Priority.LOW)
        self.assertEqual([each.terms for each in one_by_one(envelope)], [terms, others, others])

    def test_has_the_same_signature_in_each_release(self) -> None:
        """A bounce may come after an update."""
        signed = self.KEY.signed("news+jane=example.com@example.org", 20_787)
        self.assertEqual(signed, "news+jane=example.com=787dgddvb6ayr@example.org")

    def test_may_be_64_octets_long_with_its_signature(self) -> None:
        """Before the @ (RFC 5321, 4.5.3.1.1)."""
        self.assertEqual(len(self.KEY.signed("x" * 50 + "@x.org", 1).partition("@")[0]), 64)
        with self.assertRaises(InvalidAddress) as caught:
            self.KEY.signed("x" * 51 + "@x.org", 1)
        why = f"the return path '{'x' * 51}@x.org' cannot be signed: its local part would be longer than 64"
        self.assertEqual(str(caught.exception), why)

    def test_that_is_not_ours_is_told_so(self) -> None:
        """Word by word, also if it is no text."""
        signed = self.KEY.signed("a@x.org", 1)
        for path, day, why in (
            ("a@x.org", 1, "'a@x.org' has no signature"),
            (signed, 32, f"the signature of {signed!r} is older than 30 days"),
            (
                "\ud800=787aaaaaaaaaa@example.org",
                1,
                "the signature of '\\ud800=787aaaaaaaaaa@example.org' is not ours",
            ),
        ):
            with self.assertRaises(InvalidAddress) as caught:
                self.KEY.checked(path, day)
            self.assertEqual(str(caught.exception), why)
        with self.assertRaises(InvalidSettings) as short:
            VerpKey(b"fifteen octets!")
        why = "the key for return paths has 15 octets, not 16; make one: openssl rand -base64 24"
        self.assertEqual((str(short.exception), repr(self.KEY)), (why, "VerpKey(...)"))


if __name__ == "__main__":
    unittest.main()
