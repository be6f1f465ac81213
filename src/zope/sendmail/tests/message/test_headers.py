"""The text of a message: Message-Id, Bcc, line ends, and what goes over the wire."""

from __future__ import annotations

import io
import re
import time
import unittest
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from typing import Any
from unittest import mock

from hypothesis import given, strategies as st

from zope.sendmail.interfaces import InvalidMessage
from zope.sendmail.message.headers import (
    MAX_ID,
    dot_stuffed,
    header_block,
    line_end,
    message_id,
    message_id_in,
    wire,
    with_message_id,
    without_bcc,
)
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK

PIECE = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b" ", b"\t", b"Bcc: a@example.org", b"bcc : b", b"Resent-Bcc:c", b"S: x", b"From me"]
)
TEXT = st.lists(PIECE | st.binary(max_size=6), max_size=14).map(b"".join)


class Trickle(io.BytesIO):
    """A stream that gives less than it is asked for, in pieces of these sizes."""

    def __init__(self, text: bytes, sizes: list[int]) -> None:
        super().__init__(text)
        self.sizes = sizes

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.sizes.pop() if self.sizes else size)


def unix(text: bytes) -> bytes:
    """With LF at each line end."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class MessagesOfCallers(unittest.TestCase):
    def test_what_can_be_a_message(self) -> None:
        """str as UTF-8, everything of bytes as it is, message objects as they write themselves."""
        for message in (b"a: b\r\n\r\n\xff", bytearray(b"a: b\r\n\r\n\xff"), memoryview(b"a: b\r\n\r\n\xff")):
            self.assertEqual(message_bytes(message), b"a: b\r\n\r\n\xff")
        self.assertEqual(message_bytes("Subject: x\n"), b"Subject: x\n")
        mime = MIMEText("From here\n")
        self.assertTrue(message_bytes(mime).endswith(b"\n\nFrom here\n"))

    def test_what_cannot(self) -> None:
        """None, numbers, files, lone surrogates (fault B7 of 7.3)."""
        for message in (None, 7, io.BytesIO(), ["a"], "\ud800"):
            self.assertRaises(InvalidMessage, message_bytes, message)

    def test_a_message_object_that_cannot_write_itself(self) -> None:
        """Is told as every other bad argument."""
        broken: Any = Message()
        broken.set_payload(7)
        broken["Subject"] = object()
        self.assertRaises(InvalidMessage, message_bytes, broken)

    def test_the_first_line_end_rules(self) -> None:
        """LF where there is none."""
        self.assertEqual(line_end(b"a\r\nb\n"), b"\r\n")
        self.assertEqual(line_end(b"a\nb\r\n"), b"\n")
        self.assertEqual(line_end(b"a\rb"), b"\n")


class MessageIds(unittest.TestCase):
    def test_found_wherever_it_may_stand(self) -> None:
        """Any case, folded, with comments and blanks (fault B8 of 7.3), behind an mbox line."""
        for head in (
            b"Message-Id: <1@example.org>\n",
            b"Subject: x\r\nMESSAGE-ID:<1@example.org>\r\n\r\n",
            b"Message-ID:\n <1@example.org>\n\n",
            b"Message-ID:\r\n\t<1@example.org> \r\n",
            b"Message-ID : (a (nested) one) <1@example.org> (b)\n",
            b"From me Mon Jan  1 00:00:00 2024\nMessage-Id: <1@example.org>\n",
            b"Subject: x\rMessage-Id: <1@example.org>",
        ):
            with self.subTest(head):
                self.assertEqual(message_id(head), "1@example.org")

    def test_the_usual_one_takes_a_short_way_to_the_same(self) -> None:
        """Whatever stands in the first field and behind it."""
        values = ["<1@x>", " <1@x>", "  <1@x>", " <1@x> ", " <1@x>(c)", " <(1)@x>", " <1 @x>", " <>", " 1@x", " <é@x>"]
        values += [f" <{'1' * count}@x>" for count in (897, 898, 899, MAX_ID)]
        ends = ["", "\n", "\r\n", "\r", "\n (c)\n", "\r\n\t<2@x>\r\n", "\nSubject: x\n\nMessage-Id: <2@x>\n"]
        heads = [
            f"{name}:{value}{end}".encode()
            for name in ("Message-Id", "MESSAGE-ID", "Message-Id ", "Resent-Message-Id")
            for value in values
            for end in ends
        ]
        short = [self.read(head) for head in heads]
        with mock.patch("zope.sendmail.message.headers._USUAL_ID", re.compile(rb"(?!)")):
            self.assertEqual(short, [self.read(head) for head in heads])

    def read(self, head: bytes) -> str:
        try:
            return message_id(head)
        except InvalidMessage as error:
            return f"refused: {error}"

    def test_not_found_in_the_body(self) -> None:
        """What follows the empty line is no header."""
        for head in (b"Subject: x\n\n", b"\n", b"no header\n"):
            self.assertEqual(message_id(head + b"Message-Id: <1@x>\n"), "")
        self.assertEqual(message_id(b""), "")

    def test_a_long_id_of_the_standard_library(self) -> None:
        """Its generator folds behind the colon."""
        mail = MIMEText("x")
        long = "a" * 90 + "@example.org"
        mail["Message-Id"] = f"<{long}>"
        self.assertEqual(message_id(message_bytes(mail)), long)

    def test_malformed_ones_are_refused(self) -> None:
        """Two ids, none in brackets, no text, or endless comments."""
        for value in (b"1@x", b"<a b@x>", b"<1@x> <2@x>", b"<>", b"<\xff@x>", b"<1@x", b"<" + b"a" * MAX_ID + b"@x>"):
            with self.subTest(value[:20]):
                self.assertRaises(InvalidMessage, message_id, b"Message-Id: " + value + b"\n")

    def test_hostile_ids_take_no_time(self) -> None:
        """Comments that nest deeply or do not end."""
        begin = time.thread_time()
        for value in (b"(" * 50_000 + b")" * 50_000, b"(\\" * 50_000, b"(" * 1900 + b")" * 1900):
            with self.subTest(value[:4]):
                try:
                    message_id(b"Message-Id: " + value + b"\n")
                except InvalidMessage:
                    continue
        self.assertLess(time.thread_time() - begin, 2.0)

    def test_a_given_one_is_kept(self) -> None:
        """And the message is not changed."""
        message = b"Subject: x\nMessage-Id: <1@x>\n\n"
        self.assertEqual(with_message_id(message, "new@x"), (message, "1@x"))

    def test_a_missing_one_is_put_in_front(self) -> None:
        """With the message's own line ends; a text without headers becomes the body."""
        for message, expected in (
            (b"Subject: x\r\n\r\nText", b"Message-Id: <new@x>\r\nSubject: x\r\n\r\nText"),
            (b"\nText", b"Message-Id: <new@x>\n\nText"),
            (b"Text", b"Message-Id: <new@x>\n\nText"),
            (b"", b"Message-Id: <new@x>\n"),
            (b"Message-Id: \nSubject: x\n\n", b"Message-Id: <new@x>\nSubject: x\n\n"),
            (b"From me Mon\nSubject: x\n\n", b"From me Mon\nMessage-Id: <new@x>\nSubject: x\n\n"),
        ):
            with self.subTest(message):
                self.assertEqual(with_message_id(message, "new@x"), (expected, "new@x"))

    @QUICK
    @given(TEXT)
    def test_what_was_put_in_is_found(self, message: bytes) -> None:
        """And the rest of the message is still there."""
        try:
            text, given_id = with_message_id(message, "new@x")
        except InvalidMessage:
            return
        self.assertEqual(message_id(text), given_id)
        if b"essage-" not in message:
            without = text.replace(b"Message-Id: <new@x>" + line_end(message), b"", 1)
            self.assertEqual(without.lstrip(b"\r\n"), message.lstrip(b"\r\n"))


class BlindCopies(unittest.TestCase):
    def test_they_do_not_leave(self) -> None:
        """Bcc and Resent-Bcc, folded, in any case, with any line end (fault B5 of 7.3)."""
        for field in (
            b"Bcc: secret@x\n",
            b"BCC : secret@x\r\n",
            b"Bcc: a@x,\n secret@x,\n\tb@x\n",
            b"Bcc: a@x,\r\n secret@x\r\n",
            b"Bcc: a@x,\r secret@x\r",
            b"Resent-Bcc:\n secret@x\n",
            b"bcc:secret@x\nBcc: secret@x\n",
        ):
            for before, behind in ((b"S: x\n", b"To: y\n\nBody\n"), (b"", b"\nBody\n"), (b"From me Mon\n", b"\n")):
                message = before + field + behind
                with self.subTest(message):
                    self.assertNotIn(b"secret", without_bcc(message))
                    self.assertNotIn(b"secret", b"".join(wire(io.BytesIO(message))))

    def test_the_last_field_of_a_message_without_body(self) -> None:
        """It need not have a line end."""
        self.assertEqual(without_bcc(b"Subject: x\nBcc: secret"), b"Subject: x\n")

    def test_the_body_may_say_bcc(self) -> None:
        """Only header fields are taken out."""
        message = b"Subject: x\nX-Bcc: a\n\nBcc: stays\n"
        self.assertEqual(without_bcc(message), message)

    def test_a_header_block_of_any_length(self) -> None:
        """One that is longer than a chunk is searched to its end."""
        message = b"X: " + b"y" * 200_000 + b"\nBcc: secret\n\nBody"
        self.assertNotIn(b"secret", b"".join(wire(io.BytesIO(message))))


class OverTheWire(unittest.TestCase):
    @QUICK
    @given(TEXT, st.lists(st.integers(1, 7), max_size=9))
    def test_line_ends_and_nothing_else(self, message: bytes, sizes: list[int]) -> None:
        """Only CRLF ends lines, no lone CR or LF is left, the content is otherwise equal, however it is read."""
        sent = b"".join(wire(Trickle(message, sizes)))
        self.assertTrue(sent.endswith(b"\r\n"))
        self.assertNotRegex(sent.replace(b"\r\n", b""), rb"[\r\n]")
        expected = unix(without_bcc(message))
        self.assertEqual(unix(sent), expected if expected.endswith(b"\n") else expected + b"\n")

    def test_line_ends_across_real_chunks(self) -> None:
        """A CR at the end of a chunk may be the first half of a CRLF, or none."""
        head, text = b"S: x\n\n", b"\r\nb\rc\n\r\n.\n"
        for size in (65_536, 131_072, 196_608):
            for padding in range(size - len(head) - len(text), size - len(head) + 1):
                message = head + b"a" * padding + text + b"d" * 140_000 + b"\r"
                pieces = list(wire(io.BytesIO(message)))
                self.assertGreater(len(pieces), 1)
                sent = b"".join(pieces)
                self.assertEqual(unix(sent), unix(message))
                self.assertEqual((sent.count(b"\r"), sent.count(b"\n")), (sent.count(b"\r\n"),) * 2)

    @QUICK
    @given(TEXT, st.lists(st.integers(1, 7), max_size=9))
    def test_dots_are_stuffed(self, message: bytes, sizes: list[int]) -> None:
        """No line of the text is the final dot, and undoing it gives the text again (RFC 5321, 4.5.2)."""
        plain = b"".join(wire(io.BytesIO(message)))
        stuffed = b"".join(dot_stuffed(wire(Trickle(message, sizes))))
        self.assertTrue(stuffed.endswith(b"\r\n.\r\n") or stuffed == b".\r\n")
        lines = stuffed[: -len(b".\r\n")].split(b"\r\n")
        self.assertNotIn(b".", lines)
        self.assertEqual(b"\r\n".join(line.removeprefix(b".") for line in lines), plain)

    def test_dots_are_stuffed_wherever_a_piece_ends(self) -> None:
        """One at its beginning is the first of its line only behind the end of one."""
        pieces = [b".a\r\n.b\r\n", b".b", b".c\r\n", b".", b"\r\n"]
        stuffed = [b"..a\r\n..b\r\n", b"..b", b".c\r\n", b"..", b"\r\n", b".\r\n"]
        self.assertEqual(list(dot_stuffed(pieces)), stuffed)

    def test_smuggling_does_not_work(self) -> None:
        """No mixture of line ends around a dot ends the text early."""
        for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r\n", b"\r\r\n.\r\n", b"\n.\r"):
            message = b"S: x\n\nText" + end + b"MAIL FROM:<evil@example.org>\r\n"
            stuffed = b"".join(dot_stuffed(wire(io.BytesIO(message))))
            self.assertEqual(stuffed.count(b"\r\n.\r\n"), 1, end)

    def test_a_message_id_that_is_none_is_not_worth_an_error_to_readers(self) -> None:
        """It is the writer's that is told."""
        self.assertEqual(message_id_in(io.BytesIO(b"Message-Id: <a@b>\n\n")), "a@b")
        self.assertEqual(message_id_in(io.BytesIO(b"Message-Id: two words\n\n")), "")

    def test_the_header_ends_at_the_first_line_that_is_none(self) -> None:
        """What stands behind it is text, whatever it looks like."""
        self.assertEqual(header_block(b"A: b\r\n c\r\n\r\nD: e\r\n").rstrip(), b"A: b\r\n c")
        self.assertEqual(header_block(b"no field\n"), b"")

    def test_the_empty_message(self) -> None:
        """Is one empty line."""
        self.assertEqual(b"".join(wire(io.BytesIO(b""))), b"\r\n")
        self.assertEqual(b"".join(dot_stuffed(wire(io.BytesIO(b"")))), b"\r\n.\r\n")

    def test_a_large_message_is_not_read_at_once(self) -> None:
        """The first piece comes before the stream is at its end."""
        stream = io.BytesIO(b"Subject: x\n\n" + b"line\n" * 100_000)
        next(wire(stream))
        self.assertLess(stream.tell(), 200_000)

    def test_eight_bit_headers_pass(self) -> None:
        """What the message says is not judged here."""
        mail = EmailMessage()
        mail["Subject"] = "x"
        mail.set_content("zwölf\n", cte="8bit")
        self.assertIn("zwölf".encode(), b"".join(wire(io.BytesIO(message_bytes(mail)))))


load_tests = properties_apart
