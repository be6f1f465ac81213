"""A message in pieces: the same as in one, and in memory once."""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
import unittest
from collections.abc import Callable
from typing import Any

import transaction
from hypothesis import given, settings, strategies as st

from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.message.headers import completed, with_message_id, without_bcc
from zope.sendmail.message.pieces import Text, joined, open_pieces
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import SAME, examples

MIB = 1024 * 1024
LARGE = 25 * MIB


class APartOfAText(unittest.TestCase):
    def test_is_its_octets_with_other_line_ends(self) -> None:
        """As long as those are, and cut as those are."""
        for text, end, octets in (
            ("--a\nb\n--", "\n", b"a\nb\n"),
            ("--a\nb\n--", "\r\n", b"a\r\nb\r\n"),
            ("--a\rb\r\n--", "\n", b"a\nb\n"),
        ):
            part = Text(text, 2, len(text) - 2, end)
            self.assertEqual((bytes(part), len(part), part[1:3]), (octets, len(octets), octets[1:3]), repr(text))


class AsOneStream(unittest.TestCase):
    @settings(SAME, max_examples=examples(200))
    @given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(-1, 90), max_size=6))
    def test_reads_like_the_whole(self, pieces: list[bytes], sizes: list[int]) -> None:
        """Whatever is read, from wherever."""
        whole, stream = (
            io.BytesIO(b"".join(pieces)),
            open_pieces([*pieces[:1], *[memoryview(each) for each in pieces[1:]]]),
        )
        for size in sizes:
            self.assertEqual(stream.read(size), whole.read(size))
            self.assertEqual(stream.tell(), whole.tell())
            self.assertEqual(stream.seek(abs(size)), whole.seek(abs(size)))
        self.assertEqual(stream.seek(0, io.SEEK_END), whole.seek(0, io.SEEK_END))

    def test_can_be_read_from_anywhere_at_first(self) -> None:
        """From within a piece, from its beginning, from behind the end."""
        for position, rest in ((0, b"abcdef"), (1, b"bcdef"), (3, b"def"), (4, b"ef"), (6, b""), (9, b"")):
            stream = open_pieces([b"abc", b"", b"def"])
            self.assertEqual(stream.seek(position), position)
            self.assertEqual(stream.read(), rest)


class TheText(unittest.TestCase):
    @settings(SAME, max_examples=examples(300))
    @given(
        st.lists(
            st.sampled_from(
                [b"Bcc: a\n b\n", b"To: c\r\n", b"\n", b"\r\n", b"\r", b"x", b"Message-Id: <1@x>\n", b"text " * 300]
            ),
            max_size=8,
        )
    )
    def test_is_that_of_the_whole(self, parts: list[bytes]) -> None:
        """Completing a message in pieces gives what completing it whole gives."""
        message = b"".join([b"Date: now\n", *parts])
        mail = completed([message], "new@x", "later")
        self.assertEqual((joined(mail.pieces), mail.message_id), with_message_id(without_bcc(message), "new@x"))

    def test_has_a_date(self) -> None:
        """One that it has is kept; a missing one is put in front, as every submission agent does (RFC 6409, 8)."""
        for message, start in (
            (b"Subject: x\r\n\r\nx", b"Message-Id: <new@x>\r\nDate: now\r\nSubject: x\r\n"),
            (b"Message-Id: <1@x>\n\nx", b"Date: now\nMessage-Id: <1@x>\n\nx"),
            (b"date: then\nBcc: a\n\nx", b"Message-Id: <new@x>\ndate: then\n\nx"),
            (b"only a body", b"Message-Id: <new@x>\nDate: now\n\nonly a body"),
            (b"", b"Message-Id: <new@x>\nDate: now\n"),
        ):
            with self.subTest(message):
                self.assertTrue(joined(completed([message], "new@x", "now").pieces).startswith(start))


class ALargeMessage(unittest.TestCase):
    """25 MiB cost at most 30 MiB, wherever they pass."""

    def peak(self, action: Callable[[], object]) -> float:
        tracemalloc.start()
        try:
            action()
            return tracemalloc.get_traced_memory()[1] / MIB
        finally:
            tracemalloc.stop()

    def test_on_its_way_into_a_queue(self) -> None:
        """bytes, text, and with a Bcc that has to go."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        delivery = QueuedMailDelivery(path)
        delivery.send("s@example.org", ["r@example.org"], b"Subject: small\n\n")  # loads what is loaded late
        transaction.commit()
        body = "x" * 76 + "\n"
        text = "Subject: large\nBcc: secret@example.org\n\n" + body * (LARGE // len(body))
        for message, limit in ((text.encode(), 2), (text, 30)):

            def send(message: str | bytes = message) -> None:
                delivery.send("s@example.org", ["r@example.org"], message)
                transaction.commit()

            self.assertLess(self.peak(send), limit, type(message))

    def test_on_its_way_straight_to_a_relay(self) -> None:
        """The vote and the transfer read it in pieces."""

        class Counting(ScriptedMailer):
            def open_session(self) -> Any:
                session: Any = super().open_session()
                session.transfer = lambda envelope, message, intend: (
                    sum(len(part) for part in iter(lambda: message.read(65536), b"")),
                    session.verify(envelope, message),
                )[1]
                return session

        delivery = DirectMailDelivery(Counting())
        text = "Subject: large\n\n" + "x" * LARGE

        def send() -> None:
            delivery.send("s@example.org", ["r@example.org"], text)
            transaction.commit()

        self.assertLess(self.peak(send), 30)


load_tests = properties_apart
