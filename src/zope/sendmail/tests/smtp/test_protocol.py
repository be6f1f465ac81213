"""The parts of `zope.sendmail.smtp.protocol` that decide by themselves: a body, and what a reply is told as."""

from __future__ import annotations

import io
import unittest
from dataclasses import replace

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.smtp.protocol.body import WINDOW, Body
from zope.sendmail.smtp.protocol.commands import Extensions, MailNotSupported
from zope.sendmail.smtp.protocol.progress import pairs

SMALL = b"Subject: x\r\n\r\nHello\r\n"
LARGE = SMALL + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (8 * WINDOW // 72)


class OnlyOnce(io.BytesIO):
    """A stream that cannot be read a second time."""

    def tell(self) -> int:
        raise OSError("it has no place")


class ABody(unittest.TestCase):
    def test_of_a_small_message_is_one_piece(self) -> None:
        """Which is there as often as it is wanted."""
        body = Body(io.BytesIO(SMALL))
        self.assertEqual(body.whole, SMALL)
        self.assertEqual([list(body.pieces()), list(body.pieces())], [[SMALL], [SMALL]])
        self.assertEqual(body.measure, (len(SMALL), False))

    def test_of_a_large_message_comes_in_pieces(self) -> None:
        """From its beginning, also when it has been measured."""
        body = Body(io.BytesIO(LARGE))
        self.assertIsNone(body.whole)
        self.assertEqual(b"".join(body.pieces()), LARGE)
        self.assertEqual(body.measure, (len(LARGE), False))
        pieces = list(body.pieces())
        self.assertEqual(b"".join(pieces), LARGE)
        self.assertGreater(len(pieces), 1)
        self.assertEqual(Body(io.BytesIO(LARGE + "ü".encode() + b"\r\n")).measure, (len(LARGE) + 4, True))

    def test_of_what_can_be_read_only_once_is_whole(self) -> None:
        """What was read to see whether it is small comes first."""
        body = Body(OnlyOnce(LARGE))
        self.assertIsNone(body.whole)
        self.assertEqual(b"".join(body.pieces()), LARGE)


class ARefusal(unittest.TestCase):
    def test_is_told_as_smtplib_tells_it(self) -> None:
        """With the relay's code; where it was not asked, with one that means the same."""
        self.assertEqual(
            pairs({
                "a": Reply(Answer.REJECTED, "no such user", 550, "5.1.1"),
                "b": Reply(Answer.DEFERRED, "later"),
                "c": Reply(Answer.REJECTED, "no address"),
            }),
            {"a": (550, b"5.1.1 no such user"), "b": (451, b"later"), "c": (553, b"no address")},
        )  # fmt: skip

    def test_of_a_mail_that_the_relay_cannot_take_says_why(self) -> None:
        """By its code and its words."""
        reply = Reply(Answer.REJECTED, "the relay has no SMTPUTF8", 553, "5.6.7")
        error = MailNotSupported(553, reply)
        self.assertEqual((str(error), error.code, error.reply), ("the relay has no SMTPUTF8", 553, reply))


class WhatARelayOffers(unittest.TestCase):
    def test_may_be_taken_without_pipelining(self) -> None:
        """The rest stays."""
        offered = Extensions.of({"pipelining": "", "size": "1000", "8bitmime": ""})
        self.assertTrue(offered.pipelining)
        self.assertEqual(offered.without_pipelining(), replace(offered, pipelining=False))
        self.assertIs(offered.without_pipelining().pipelining, False)


if __name__ == "__main__":
    unittest.main()
