"""A message object written in pieces: octet for octet what the standard library writes."""

from __future__ import annotations

import copy
import email
import email.policy
import os
import random
import tempfile
import tracemalloc
import unittest
from email.generator import BytesGenerator
from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any
from unittest import mock

import transaction
from hypothesis import given, settings, strategies as st

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.message import mime
from zope.sendmail.message.generator import in_pieces
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.message.pieces import Text, joined
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import SAME, examples

POLICIES = (
    email.policy.compat32,
    email.policy.default,
    email.policy.SMTP,
    email.policy.SMTPUTF8,
    email.policy.default.clone(cte_type="7bit"),
    email.policy.compat32.clone(linesep="\r\n"),
    email.policy.default.clone(max_line_length=40),
)

_LINES = st.sampled_from(
    [
        "text",
        "From him",
        ".",
        "",
        "--boundary",
        "--boundary--",
        "--b",
        "x" * 90,
        "=3D",
        "Grüße",
        "a\udce4",
        "Subject: x",
    ]
)
_ENDS = st.sampled_from(["\n", "\r\n", "\r", ""])
TEXTS = st.lists(st.tuples(_LINES, _ENDS), max_size=6).map(lambda lines: "".join(line + end for line, end in lines))
_TYPES = st.sampled_from(["text/plain", 'text/plain; charset="utf-8"', "text/html; charset=latin-1", "image/png", "x"])
_HEADERS = st.lists(
    st.sampled_from(
        [
            ("Subject", "Grüße an alle"),
            ("Subject", "long " * 30),
            ("To", "Zoë <zoe@example.org>"),
            ("Content-Transfer-Encoding", "8bit"),
            ("Content-Transfer-Encoding", "base64"),
            ("X-Other", "a\n b"),
        ]
    ),
    max_size=3,
    unique_by=lambda field: field[0],
)


@st.composite
def leaves(draw: Any) -> Message:
    """A part without parts, of either kind; its text may be anything."""
    message: Message = EmailMessage(draw(st.sampled_from(POLICIES[1:3]))) if draw(st.booleans()) else Message()
    for name, value in [*draw(_HEADERS), ("Content-Type", draw(_TYPES))]:
        message[name] = value.replace("\n", "") if isinstance(message, EmailMessage) else value
    message.set_payload(draw(st.none() | TEXTS))
    return message


@st.composite
def multiparts(draw: Any, parts: Any) -> Message:
    """A part with parts: with or without a boundary, a preamble, an epilogue."""
    kind = draw(st.sampled_from(["mixed", "alternative", "digest", "signed", "report"]))
    message = MIMEMultipart(kind, draw(st.sampled_from([None, "b", "boundary", "with blank"])))
    for part in draw(st.lists(parts, max_size=3)):
        message.attach(part)
    message.preamble = draw(st.none() | TEXTS)
    message.epilogue = draw(st.none() | TEXTS)
    return message


def _forwarded(message: Message) -> Message:
    return MIMEMessage(message)


def _status(message: Message) -> Message:
    made = MIMEBase("message", "delivery-status")
    made.attach(message)
    return made


TREES = st.recursive(
    leaves(), lambda parts: multiparts(parts) | parts.map(_forwarded) | parts.map(_status), max_leaves=6
)


def standard(message: Message) -> bytes | type[Exception]:
    """What ``as_bytes`` makes of a message; the class of the error if it makes nothing."""
    random.seed(1)
    try:
        return message.as_bytes()
    except Exception as error:
        return type(error)


def ours(message: Message, large: int) -> bytes | type[Exception]:
    """The same of ours."""
    random.seed(1)
    try:
        return joined(in_pieces(message, large=large))
    except Exception as error:
        return type(error)


class AnyObject(unittest.TestCase):
    def check(self, message: Message, *sizes: int) -> None:
        before = random.getstate()
        self.addCleanup(random.setstate, before)
        expected = standard(copy.deepcopy(message))
        for large in (0, *sizes):
            self.assertEqual(ours(copy.deepcopy(message), large), expected)

    @settings(SAME, max_examples=examples(600))
    @given(TREES, st.sampled_from(POLICIES), st.integers(0, 80))
    def test_is_written_as_the_standard_library_does(self, message: Message, policy: Any, large: int) -> None:
        """Boundaries by chance, parts in parts, every line end, every policy, what cannot be written."""
        message.policy = policy
        self.check(message, large)

    @settings(SAME, max_examples=examples(300))
    @given(TREES, st.sampled_from(POLICIES), st.integers(0, 80))
    def test_that_was_parsed_is_as_well(self, message: Message, policy: Any, large: int) -> None:
        """What a program forwards."""
        octets = standard(message)
        if isinstance(octets, bytes):
            self.check(email.message_from_bytes(octets, policy=policy), large)

    @settings(SAME, max_examples=examples(200))
    @given(TEXTS, st.integers(1, 7), st.sampled_from(["\n", "\r\n"]))
    def test_is_cut_anywhere(self, text: str, size: int, eol: str) -> None:
        """Also between the two octets of a line end."""
        message = EmailMessage(email.policy.default.clone(linesep=eol))
        message.set_payload("ascii " + text.encode("ascii", "ignore").decode())
        with mock.patch("zope.sendmail.message.generator._SIZE", size):
            pieces = in_pieces(message, large=1)
        self.assertEqual(joined(pieces), message.as_bytes())
        self.assertEqual([len(piece) for piece in pieces], [len(joined([piece])) for piece in pieces])


def attachment(size: int) -> EmailMessage:
    """A letter with a large file."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "s@example.org", "r@example.org", "Grüße"
    message.set_content("Grüße\n")
    message.add_attachment(b"\x00\xff" * (size // 2), maintype="application", subtype="pdf", filename="a.pdf")
    return message


class ALargeObject(unittest.TestCase):
    def test_is_not_copied(self) -> None:
        """Its long texts stay the object's; what is short and what is not ASCII is in octets."""
        pieces = in_pieces(attachment(400_000))
        self.assertGreater(sum(len(piece) for piece in pieces if isinstance(piece, Text)), 500_000)
        self.assertLess(sum(len(piece) for piece in pieces if isinstance(piece, bytes)), 2000)

    def test_gets_a_boundary_that_stands_nowhere_in_it(self) -> None:
        """A program that sets the seed of chance forwards its own mails."""
        random.seed(7)
        self.addCleanup(random.seed)
        inner = MIMEMultipart()
        inner.attach(MIMEText("x"))
        forwarded = MIMEText(inner.as_string() + "x" * 100_000)
        random.seed(7)
        outer = MIMEMultipart()
        outer.attach(forwarded)
        self.assertIsInstance(in_pieces(outer)[1], Text)
        self.assertNotEqual(outer.get_boundary(), inner.get_boundary())
        self.assertEqual(len(email.message_from_bytes(joined(in_pieces(outer))).get_payload()), 1)

    def test_gets_a_boundary_that_stands_in_no_header_of_it(self) -> None:
        """A reader may look for it in all lines."""
        outer = MIMEMultipart()
        outer.attach(MIMEText("x" * 100_000))
        outer["X-Looks-Like"] = "--first"
        with mock.patch.object(BytesGenerator, "_make_boundary", side_effect=["first", "second"]):
            in_pieces(outer)
        self.assertEqual(outer.get_boundary(), "second")

    def test_with_what_looks_like_an_mbox_or_is_no_multipart_is_written_as_it_is(self) -> None:
        """No line is escaped, and no boundary is given to a text that has none."""
        mixed = MIMEMultipart(boundary="b")
        mixed.attach(MIMEText("From here on\n"))
        mixed.attach(MIMEText("From there on\n" + "x" * 100_000))
        alone = Message()
        alone["Content-Type"] = "multipart/mixed"
        alone.set_payload("x" * 100_000)
        for message in (mixed, alone):
            expected = message.as_bytes()
            self.assertEqual(joined(in_pieces(message)), expected)
            self.assertEqual(message.as_bytes(), expected)

    def test_with_an_as_bytes_of_its_own_is_asked(self) -> None:
        """In its class, or set on it."""

        class Own(EmailMessage):
            def as_bytes(self, *arguments: Any, **options: Any) -> bytes:
                return b"Subject: mine\n\n"

        message: Any = Own()
        message.set_payload("x" * 100_000)
        self.assertEqual(message_bytes(message), b"Subject: mine\n\n")
        message = attachment(100_000)
        message.as_bytes = lambda: b"Subject: mine\n\n"
        self.assertEqual(message_bytes(message), b"Subject: mine\n\n")

    def test_that_is_signed_is_written_as_ever(self) -> None:
        """Nothing in it may change."""
        message = MIMEMultipart("signed", "b")
        message.attach(MIMEText("x" * 100_000))
        message.attach(MIMEApplication(b"signature", "pkcs7-signature"))
        self.assertEqual(in_pieces(message), (message.as_bytes(),))

    def test_with_text_that_has_no_charset_gets_one(self) -> None:
        """Beside the large part."""
        message = MIMEMultipart(boundary="b")
        message.attach(Message())
        message.get_payload(0).set_payload("Grüße")  # type: ignore[union-attr]  # it has parts
        message.attach(MIMEApplication(b"x" * 100_000))
        octets = message_bytes(message)
        with mock.patch.object(mime, "in_pieces", lambda message: (message.as_bytes(),)):
            self.assertEqual(octets, message_bytes(message))
        self.assertIn(b"utf-8", octets)

    def test_may_change_after_it_was_sent(self) -> None:
        """What leaves is what was sent."""
        message = attachment(200_000)
        expected = message.as_bytes()
        pieces = in_pieces(message)
        message.get_payload(1).set_payload("other")  # type: ignore[union-attr]  # it has parts
        self.assertEqual(joined(pieces), expected)

    def test_goes_into_a_queue_without_a_copy(self) -> None:
        """For 25 MiB, and for each of several recipients."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        delivery = QueuedMailDelivery(path)
        message = attachment(18 * 1024 * 1024)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        delivery.send("s@example.org", ["a@example.org", "b@example.org"], message, verp=True)
        transaction.commit()
        self.assertLess(tracemalloc.get_traced_memory()[1], 5 * 1024 * 1024)
        [one, _] = [entry.path for entry in os.scandir(os.path.join(path, "new"))]
        with open(one, "rb") as stream:
            self.assertTrue(stream.read().endswith(joined(in_pieces(message)[1:])))


load_tests = properties_apart
