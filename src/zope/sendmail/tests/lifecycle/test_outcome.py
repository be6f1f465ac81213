"""What a relay said, for each recipient."""

from __future__ import annotations

import unittest

from hypothesis import given, strategies as st

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK


class Replies(unittest.TestCase):
    def test_the_first_digit_decides(self) -> None:
        """RFC 5321, 4.2.1; what is no final reply is temporary, so no mail is lost by ignorance."""
        for code, answer in (
            (250, Answer.ACCEPTED),
            (299, Answer.ACCEPTED),
            (421, Answer.DEFERRED),
            (450, Answer.DEFERRED),
            (550, Answer.REJECTED),
            (599, Answer.REJECTED),
            (354, Answer.DEFERRED),
            (150, Answer.DEFERRED),
            (600, Answer.DEFERRED),
            (0, Answer.DEFERRED),
            (-1, Answer.DEFERRED),
        ):
            self.assertEqual(Reply.of(code, "x").answer, answer, code)

    def test_enhanced_codes_are_told_apart(self) -> None:
        """RFC 3463; a number that is none stays text."""
        self.assertEqual(Reply.of(550, b"5.1.1 no such user"), Reply(Answer.REJECTED, "no such user", 550, "5.1.1"))
        self.assertEqual(Reply.of(250, "2.0.0"), Reply(Answer.ACCEPTED, "", 250, "2.0.0"))
        for text in ("5.1.1.1 x", "3.1.1 x", "5.1 x", "1.2.3.4 is blocked", "5.1234.1 x"):
            self.assertEqual(Reply.of(550, text), Reply(Answer.REJECTED, text, 550))

    def test_too_many_recipients_are_said_with_a_no(self) -> None:
        """By a code of its own or in words; a yes, and silence, say nothing of it."""
        for code, text in ((452, "4.5.3 x"), (550, "too many recipients"), (452, "Too many recipients")):
            self.assertTrue(Reply.of(code, text).is_one_too_many, text)
        self.assertFalse(Reply.of(250, "too many recipients").is_one_too_many)
        self.assertFalse(Reply(Answer.UNKNOWN, "too many recipients").is_one_too_many)
        self.assertFalse(Reply.of(550, "no such user").is_one_too_many)

    def test_written_for_people(self) -> None:
        """Code, enhanced code, text; what is missing is left out."""
        self.assertEqual(str(Reply.of(550, "5.1.1 no such user")), "550 5.1.1 no such user")
        self.assertEqual(str(Reply(Answer.DEFERRED, "connection lost")), "connection lost")

    def test_text_is_one_printable_line(self) -> None:
        """Whatever a relay says can stand in a log, in a file and on a terminal."""
        self.assertEqual(Reply.of(550, b"a\r\nb\x1b[31m\0\xff").text, "a b [31m \\xff")

    @QUICK
    @given(st.text() | st.binary(), st.integers(0, 50))
    def test_printable(self, text: str | bytes, limit: int) -> None:
        """One line, no control character, no lone surrogate, no more than the limit."""
        words = printable(text, limit)
        self.assertLessEqual(len(words), limit)
        self.assertLessEqual(len(words.splitlines()), 1)
        self.assertNotRegex(words, "[\0-\x1f\x7f-\x9f]")
        words.encode("utf-8")


class Outcomes(unittest.TestCase):
    def test_recipients_by_answer(self) -> None:
        """Those with this answer, with what was said."""
        no = Reply.of(550, "no")
        outcome = Outcome("relay:25", {"a@example.org": Reply.of(250, "ok"), "b@example.org": no})
        self.assertEqual(outcome.having(Answer.REJECTED), {"b@example.org": no})
        self.assertEqual(outcome.having(Answer.UNKNOWN), {})

    def test_the_same_for_all(self) -> None:
        """One reply, each recipient."""
        reply = Reply.of(451, "later")
        same = Outcome.same("relay:25", ["a", "b"], reply)
        self.assertEqual((same.relay, same.replies), ("relay:25", {"a": reply, "b": reply}))

    def test_a_fault_blames_no_recipient(self) -> None:
        """Nothing is said about anybody then."""
        self.assertEqual(Outcome("relay:25", fault=Reply.of(535, "bad password")).replies, {})


load_tests = properties_apart
