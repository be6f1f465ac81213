"""What is said of that which cannot become a mail: which error, with which words, and what was passed."""

from __future__ import annotations

import io
import unittest
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

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
from zope.sendmail.message.address import parse_mailbox, parse_recipient, parse_recipients, parse_sender
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import NO_DEFAULTS, Defaults
from zope.sendmail.message.verp import verp, whom

R = Routes("main", frozenset({"bulk"}), frozenset({("b.example", 26), ("a.example", 25)}))

#: A number, which is neither a time nor a word.
WRONG: Any = 5

#: What is tried -> the error, and its words: what is wrong, with which value, and mostly what to do.
REFUSALS: tuple[tuple[Callable[[], object], type[Exception], str], ...] = (
    (lambda: parse_recipient(""), InvalidRecipient, "the recipient '' is empty; every recipient needs an address"),
    (lambda: parse_recipient(" "), InvalidRecipient, "the recipient '' is empty; every recipient needs an address"),
    (lambda: parse_recipient(b"\xff@x"), InvalidRecipient, "the recipient b'\\xff@x' is not UTF-8; pass it as str"),
    (lambda: parse_sender(b"\xff@x"), InvalidSender, "the sender b'\\xff@x' is not UTF-8; pass it as str"),
    (lambda: parse_recipient(5), InvalidRecipient, "the recipient is 5; it must be a str or bytes address"),
    (lambda: parse_sender(5), InvalidSender, "the sender is 5; it must be a str or bytes address"),
    (
        lambda: parse_recipient("a\n@x"),
        InvalidRecipient,
        "the recipient 'a\\n@x' has a line break or another control character in it; remove it",
    ),
    (
        lambda: parse_recipient("a\ud800@x"),
        InvalidRecipient,
        "the recipient 'a\\ud800@x' has a character that no text can have (a lone surrogate)",
    ),
    (
        lambda: parse_recipient("é" * 451),
        InvalidRecipient,
        f"the recipient {'é' * 60!r}... has 902 octets; at most 900 are possible",
    ),
    (
        lambda: parse_recipient("a\u200bb@x"),
        InvalidRecipient,
        "the recipient 'a\\u200bb@x' has ZERO WIDTH SPACE (U+200B) in it, a character that is not seen; remove it",
    ),
    (
        lambda: parse_recipient("a\u2065b@x"),
        InvalidRecipient,
        "the recipient 'a\\u2065b@x' has an unnamed character (U+2065) in it, a character that is not seen; remove it",
    ),
    (
        lambda: parse_recipient("a b c"),
        InvalidRecipient,
        "the recipient 'a b c' is not an address of the form local@domain; correct it",
    ),
    (
        lambda: parse_recipient("a@x b@x"),
        InvalidRecipient,
        "the recipient 'a@x b@x' is not an address of the form local@domain; pass several recipients as a list",
    ),
    (
        lambda: parse_recipient("a@x, b@x"),
        InvalidRecipient,
        "the recipient 'a@x, b@x' is not an address of the form local@domain; pass several recipients as a list",
    ),
    (
        lambda: parse_recipient("a@x; b@x"),
        InvalidRecipient,
        "the recipient 'a@x; b@x' is not an address of the form local@domain; pass several recipients as a list",
    ),
    (
        lambda: parse_sender("a b c"),
        InvalidSender,
        "the sender 'a b c' is not an address of the form local@domain; correct it",
    ),
    (
        lambda: parse_sender("a@x, b@x"),
        InvalidSender,
        "the sender 'a@x, b@x' is not an address of the form local@domain; a mail has one sender",
    ),
    (lambda: parse_recipients([]), InvalidRecipient, "there are no recipients; pass at least one address"),
    (lambda: parse_recipients(["", " <> "]), InvalidRecipient, "there are no recipients; pass at least one address"),
    (lambda: parse_mailbox("jane"), InvalidRecipient, "the recipient 'jane' has no domain; write it as local@domain"),
    (
        lambda: Envelope.of(None, ["a@x"]),
        InvalidSender,
        "the sender is None; pass an address, or '' for the null reverse-path (bounces)",
    ),
    (lambda: Envelope.of("a@x", 5), InvalidRecipient, "the recipients are 5; pass an address or a list of addresses"),
    (
        lambda: Envelope.of("a@x", [f"{n:0100}@example.org" for n in range(20000)]),
        InvalidRecipient,
        "there are 20000 recipients, too many for one mail; send several",
    ),
    (RelayName, InvalidRelay, "a relay is the name of a mailer, or a host and port; pass one of them"),
    (
        lambda: RelayName("bulk", "h", 25),
        InvalidRelay,
        "a relay is the name of a mailer, or a host and port; pass one of them",
    ),
    (
        lambda: RelayName.of("x" * 256),
        InvalidRelay,
        "the relay 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'... has more than 255 octets",
    ),
    (
        lambda: RelayName.of(("x" * 256, 25)),
        InvalidRelay,
        "the relay 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'... has more than 255 octets",
    ),
    (lambda: RelayName.of(" a"), InvalidRelay, "the relay ' a' is no name of a mailer"),
    (
        lambda: RelayName.of(("a b", 25)),
        InvalidRelay,
        "the relay's hostname 'a b' is no hostname; write mail.example.org, and the port apart",
    ),
    (lambda: RelayName.of(("h", 0)), InvalidRelay, "the port 0 of relay h is not within 1 and 65535"),
    (lambda: RelayName.of(("h", 65536)), InvalidRelay, "the port 65536 of relay h is not within 1 and 65535"),
    (
        lambda: RelayName.of(None),
        InvalidRelay,
        "the relay None is no name, no 'host:port', and no pair of host and port",
    ),
    (lambda: RelayName.of(("h", "smtp")), InvalidRelay, "'smtp' is no port; write a number such as 25"),
    (lambda: RelayName.of(("h", True)), InvalidRelay, "True is no port; write a number such as 25"),
    (
        lambda: RelayName.of(("h", "x" * 60)),
        InvalidRelay,
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx is no port; write a number such as 25",
    ),
    (lambda: R.named("nobody"), InvalidRelay, "there is no mailer 'nobody' for this queue; it has 'main', 'bulk'"),
    (
        lambda: R.named("c.example:25"),
        InvalidRelay,
        "mail may not name the relay c.example:25; it has a.example:25, b.example:26",
    ),
    (lambda: Routes().named("nobody"), InvalidRelay, "there is no mailer 'nobody' for this queue; none may be named"),
    (
        lambda: Routes().named("c.example:25"),
        InvalidRelay,
        "mail may not name the relay c.example:25; none may be named",
    ),
    (
        lambda: Routes("main", frozenset({"bulk"}), recipients={"@X": "nobody"}),
        InvalidSettings,
        "the route @x=nobody leads to none of the mailers main, bulk",
    ),
    (
        lambda: Routes("main", senders={"example.org": "main"}),
        InvalidSettings,
        "the route example.org=main begins with no address; write @example.org for a domain",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, not_before=WRONG),
        InvalidTerms,
        "not_before=5 is neither a datetime.datetime nor a datetime.timedelta",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, not_before=datetime(2026, 1, 1)),  # noqa: DTZ001 - which is what is refused
        InvalidTerms,
        "not_before=datetime.datetime(2026, 1, 1, 0, 0) says no time zone, so it is several moments; pass an aware "
        "datetime, such as datetime.now(UTC) + timedelta(hours=1), or the timedelta",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, not_before=timedelta(days=3653)),
        InvalidTerms,
        "not_before=datetime.timedelta(days=3653) is more than ten years ahead",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, expires=timedelta(0)),
        InvalidTerms,
        "expires=datetime.timedelta(0) has passed already",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, not_before=timedelta(1), expires=timedelta(1)),
        InvalidTerms,
        "expires=datetime.timedelta(days=1) is not behind not_before, so the mail would never leave",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, priority="urgent"),
        InvalidTerms,
        "priority='urgent' is not one of high, normal, low",
    ),
    (lambda: NO_DEFAULTS.terms(100.0, key=WRONG), InvalidTerms, "key=5 is no str"),
    (lambda: NO_DEFAULTS.terms(100.0, key=""), InvalidTerms, "key='' has 0 characters; 1 to 200 are possible"),
    (
        lambda: NO_DEFAULTS.terms(100.0, key="k" * 201),
        InvalidTerms,
        "key='kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk' has 201 characters; 1 to 200 are possible",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, key="k "),
        InvalidTerms,
        "key='k ' has characters that cannot be printed, or blanks at its ends",
    ),
    (
        lambda: NO_DEFAULTS.terms(100.0, key="k\n"),
        InvalidTerms,
        "key='k\\n' has characters that cannot be printed, or blanks at its ends",
    ),
    (lambda: Defaults.of(expires=WRONG), InvalidTerms, "expires=5 is no datetime.timedelta, which a default has to be"),
    (
        lambda: Defaults.of(not_before=WRONG),
        InvalidTerms,
        "not_before=5 is no datetime.timedelta, which a default has to be",
    ),
    (
        lambda: Defaults.of(key_lifetime=WRONG),
        InvalidTerms,
        "key_lifetime=5 is no datetime.timedelta, which a default has to be",
    ),
    (
        lambda: Defaults.of(key_lifetime=timedelta(0)),
        InvalidTerms,
        "key_lifetime=datetime.timedelta(0) is not more than nothing and at most ten years",
    ),
    (
        lambda: verp("list", "a@x"),
        InvalidAddress,
        "no return path can be made of 'list' and 'a@x': the sender has no domain",
    ),
    (lambda: verp("", "a@x"), InvalidAddress, "no return path can be made of '' and 'a@x': the sender is empty"),
    (
        lambda: verp("@x", "a@x"),
        InvalidAddress,
        "no return path can be made of '@x' and 'a@x': the sender has no domain",
    ),
    (
        lambda: verp("list@x", "postmaster"),
        InvalidAddress,
        "no return path can be made of 'list@x' and 'postmaster': the recipient has no domain",
    ),
    (
        lambda: verp('"a b"@x', "a@x"),
        InvalidAddress,
        "no return path can be made of '\"a b\"@x' and 'a@x': the local part is quoted, or too long",
    ),
    (
        lambda: verp("l@x", "o" * 63 + "@x"),
        InvalidAddress,
        f"no return path can be made of 'l@x' and '{'o' * 63}@x': the local part is quoted, or too long",
    ),
    (
        lambda: verp("l@x", "a@[192.0.2.1]"),
        InvalidAddress,
        "no return path can be made of 'l@x' and 'a@[192.0.2.1]': it would be no address",
    ),
    (lambda: whom("a@x", "l@x"), InvalidAddress, "'a@x' was not made of 'l@x' and a recipient"),
    (
        lambda: message_id(b"Message-Id: <" + b"x" * 4000 + b">\n\n"),
        InvalidMessage,
        "Malformed Message-Id header: it has 4003 octets",
    ),
    (
        lambda: message_id(b"Message-Id: x\n\n"),
        InvalidMessage,
        "Malformed Message-Id header: b'x'; it must be one id in angle brackets",
    ),
    (
        lambda: message_id(b"Message-Id: <\xff>\n\n"),
        InvalidMessage,
        "Malformed Message-Id header: b'<\\xff>' is not UTF-8",
    ),
    (lambda: message_bytes(5), InvalidMessage, "the message is 5; pass str, bytes or an email.message object"),
    (
        lambda: message_bytes("\ud800"),
        InvalidMessage,
        "the message cannot be written as UTF-8: 'utf-8' codec can't encode character "
        "'\\ud800' in position 0: surrogates not allowed",
    ),
    (
        lambda: message_bytes({"a": "x" * 100}),
        InvalidMessage,
        f"the message is {{'a': '{'x' * 73}; pass str, bytes or an email.message object",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"")),
        MalformedEnvelope,
        "the first line does not begin with 'X-Zope-From:'; this is not a mail of a queue",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"X-Zope-From: a@x\nSubject: x\n\n")),
        MalformedEnvelope,
        "the second line does not begin with 'X-Zope-To:'; this is not a mail of a queue",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"Subject: %b\nX-Actually-To: b@x\n\nThe text.\n" % (b"x" * 5000))),
        MalformedEnvelope,
        "this is a mail of repoze.sendmail, as pyramid_mailer queues it, not of this queue; its program qp sends it",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"Subject: x\n\nThe text:\nX-Actually-To: b@x\n")),
        MalformedEnvelope,
        "the first line does not begin with 'X-Zope-From:'; this is not a mail of a queue",
    ),
    (lambda: read_envelope(io.BytesIO(b"X-Zope-From: a@x")), MalformedEnvelope, "the X-Zope-From: line has no end"),
    (
        lambda: read_envelope(io.BytesIO(b"X-Zope-From: a@x\nX-Zope-To: b@x")),
        MalformedEnvelope,
        "the X-Zope-To: line has no end",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"X-Zope-From: a@x\nX-Zope-To: \n\n")),
        MalformedEnvelope,
        "the envelope names no recipient",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"X-Zope-From: a b c\nX-Zope-To: b@x\n\n")),
        MalformedEnvelope,
        "the sender 'a b c' is not an address of the form local@domain; correct it",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"##To:b@x\n##From:a@x\n")),
        MalformedEnvelope,
        "there is no message behind the ##To: and ##From: lines",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"##To:b@x\n")),
        MalformedEnvelope,
        "it does not begin with one line ##To: and one line ##From:",
    ),
    (
        lambda: read_envelope(io.BytesIO(b"##To:b@x\n##To:a@x\n\n")),
        MalformedEnvelope,
        "it does not begin with one line ##To: and one line ##From:",
    ),
    (
        lambda: read_envelope(
            io.BytesIO(b"X-Zope-From: a@x\nX-Zope-To: b@x\nX-Zope-Colour: blue\nX-Zope-Envelope: end\n\n")
        ),
        MalformedEnvelope,
        "it asks for X-Zope-Colour, which this version does not know",
    ),
    (
        lambda: read_envelope(
            io.BytesIO(
                b"X-Zope-From: a@x\nX-Zope-To: b@x\nX-Zope-Hostname: h\nX-Zope-Port: x\nX-Zope-Envelope: end\n\n"
            )
        ),
        MalformedEnvelope,
        "'x' is no port; write a number such as 25",
    ),
)


class ARefusal(unittest.TestCase):
    def test_says_what_is_wrong(self) -> None:
        """In these words, which are those in the log and on the page of an application."""
        for call, kind, words in REFUSALS:
            with self.subTest(words=words):
                with self.assertRaises(kind) as caught:
                    call()
                self.assertIs(type(caught.exception), kind)
                self.assertEqual(str(caught.exception), words)

    def test_of_a_recipient_says_what_was_passed(self) -> None:
        """As smtplib's error does: a dictionary by what was passed; a text, whatever it was."""
        cases: list[tuple[Callable[[], object], list[str]]] = [
            (lambda: parse_recipient(" "), [""]),
            (lambda: parse_recipient(b"\xff"), ["b'\\xff'"]),
            (lambda: parse_recipient(5), ["5"]),
            (lambda: parse_recipient("a b c"), ["a b c"]),
            (lambda: parse_recipient("Jane <a b c>"), ["Jane <a b c>"]),
            (lambda: parse_recipient("a\u200bb@x"), ["a\u200bb@x"]),
            (lambda: parse_recipient("\u00e9" * 451), ["\u00e9" * 451]),
            (lambda: parse_recipients(["", " <> "]), ["", "<>"]),
            (lambda: parse_mailbox("jane"), ["jane"]),
            (lambda: Envelope.of("a@x", 5), ["5"]),
        ]
        for call, passed in cases:
            with self.subTest(passed=passed):
                with self.assertRaises(InvalidRecipient) as caught:
                    call()
                self.assertEqual(list(caught.exception.recipients), passed)

    def test_of_a_sender_says_what_was_passed(self) -> None:
        """Likewise."""
        cases: list[tuple[Callable[[], object], str]] = [
            (lambda: parse_sender(b"\xff"), "b'\\xff'"),
            (lambda: parse_sender("a b c"), "a b c"),
            (lambda: Envelope.of(None, ["a@x"]), ""),
        ]
        for call, passed in cases:
            with self.subTest(passed=passed):
                with self.assertRaises(InvalidSender) as caught:
                    call()
                self.assertEqual(caught.exception.sender, passed)


if __name__ == "__main__":
    unittest.main()
