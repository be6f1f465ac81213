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
        for code, text in (
            (452, "4.5.3 x"),
            (552, "5.5.3 x"),
            (550, "too many recipients"),
            (452, "Too many recipients"),
        ):
            self.assertTrue(Reply.of(code, text).is_one_too_many, text)
        self.assertFalse(Reply.of(250, "too many recipients").is_one_too_many)
        self.assertFalse(Reply(Answer.UNKNOWN, "too many recipients").is_one_too_many)
        self.assertFalse(Reply.of(550, "no such user").is_one_too_many)

    def test_written_for_people(self) -> None:
        """Code, enhanced code, text; what is missing is left out."""
        self.assertEqual(str(Reply.of(550, "5.1.1 no such user")), "550 5.1.1 no such user")
        self.assertEqual(str(Reply(Answer.DEFERRED, "connection lost")), "connection lost")

    def test_text_is_one_printable_line(self) -> None:
        """Whatever a relay says can stand in a log, in a file and on a terminal; a thousand characters of it."""
        self.assertEqual(Reply.of(550, "x" * 1001).text, "x" * 1000)
        self.assertEqual(printable("a\u3164b"), "a b")
        self.assertEqual(printable("gr\u00fc\u200b\u00df"), "gr\u00fc \u00df")
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

    def test_who_were_too_many_follow_at_once(self) -> None:
        """If somebody has got the mail, or was refused for good; else a further mail would do no better."""
        ok, no, many = Reply.of(250, "ok"), Reply.of(550, "no"), Reply.of(452, "4.5.3 too many")
        self.assertEqual(Outcome("r", {"a": ok, "b": many}, unasked=("c",)).follow_at_once, ("c", "b"))
        self.assertEqual(Outcome("r", {"a": no, "b": many}, unasked=("c",)).follow_at_once, ("c",))
        self.assertEqual(Outcome("r", {"b": many}, unasked=("c",)).follow_at_once, ())
        self.assertEqual(Outcome("r", {"a": ok, "b": many}, fault=no, unasked=("c",)).follow_at_once, ())

    def test_a_further_mail_for_the_others_is_part_of_the_attempt(self) -> None:
        """Its words count for them, and what went wrong last is what is wrong."""
        ok, many, down = Reply.of(250, "ok"), Reply.of(452, "4.5.3 too many"), Reply.of(421, "down")
        first = Outcome("r", {"a": ok, "b": many}, unasked=("c", "d"))
        further = Outcome("r2", {"b": ok}, down, ("d",))
        self.assertEqual(first.joined(further), Outcome("r2", {"a": ok, "b": ok}, down, ("d",)))

    def test_who_was_not_asked_is_told_why(self) -> None:
        """As a relay would, which makes it temporary."""
        ok = Reply.of(250, "ok")
        down = Reply.of(421, "down")
        told = Outcome("r", {"a": ok}, down, unasked=("c",)).told()
        self.assertEqual((told.relay, told.fault, told.replies["a"]), ("r", down, ok))
        self.assertEqual(told.unasked, ())
        self.assertEqual(str(told.replies["c"]), "4.5.3 the relay takes no more recipients with one mail")
        self.assertIs(told.replies["c"].answer, Answer.DEFERRED)
        asked = Outcome("r", {"a": ok})
        self.assertIs(asked.told(), asked)

    def test_a_reply_is_told_as_smtplib_tells_it(self) -> None:
        """Code and octets; where no relay has said it, with a code that means the same."""
        self.assertEqual(Reply.of(550, "5.1.1 no such user").as_pair(), (550, b"5.1.1 no such user"))
        self.assertEqual(Reply(Answer.DEFERRED, "lat\udcffer").as_pair(), (451, b"lat\\udcffer"))
        self.assertEqual(Reply(Answer.REJECTED, "no").as_pair(), (550, b"no"))
        self.assertEqual(Reply(Answer.ACCEPTED, "").as_pair(), (250, b""))

    def test_a_fault_blames_no_recipient(self) -> None:
        """Nothing is said about anybody then."""
        self.assertEqual(Outcome("relay:25", fault=Reply.of(535, "bad password")).replies, {})


load_tests = properties_apart
