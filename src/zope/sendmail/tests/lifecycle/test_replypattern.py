"""What many replies have in common, and what to do about a relay."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.replypattern import pattern_of, pattern_of_words


class RepliesOfOneCause(unittest.TestCase):
    def test_have_one_pattern(self) -> None:
        """Addresses, links, ids, IP addresses and long numbers differ from mail to mail."""
        for one, other in (
            ("<a@example.org>: user unknown", "<b@example.net>: user unknown"),
            ("a@example.org no such user", "b.c+d@example.org no such user"),
            ("4.7.1 greylisted, come back in 300 seconds", "4.7.1 greylisted, come back in 1234 seconds"),
            ("blocked, see https://example.org/?ip=1.2.3.4", "blocked, see https://example.org/?ip=4.3.2.1"),
            ("no d9443c01a7336-1234abcd way", "no a1b2c3d4e5f6-99887766 way"),
            ("client [192.0.2.1] blocked", "client [198.51.100.7] blocked"),
        ):
            with self.subTest(one=one):
                self.assertEqual(pattern_of_words(one), pattern_of_words(other))

    def test_keep_what_tells_them_apart(self) -> None:
        """The codes and the words."""
        reply = Reply(Answer.REJECTED, "<a@example.org> no such user", 550, "5.1.1")
        self.assertEqual(pattern_of(reply), "550 5.1.1 * no such user")
        self.assertEqual(pattern_of(Reply(Answer.DEFERRED, "it is away")), "it is away")
        self.assertNotEqual(pattern_of_words("quota exceeded"), pattern_of_words("no such user"))

    def test_are_one_short_line(self) -> None:
        """However long and strange they are."""
        pattern = pattern_of_words("a\nb\x1b " + "word " * 500)
        self.assertTrue(pattern.isprintable())
        self.assertLessEqual(len(pattern), 120)
        self.assertEqual(pattern_of_words("w" * 119 + "!"), "w" * 119 + "!")
        self.assertEqual(pattern_of_words("w" * 119 + "!!"), "w" * 119 + "\u2026")
        self.assertEqual(pattern_of_words(f"https://{'x' * 590} no"), "* n")

    def test_take_no_time(self) -> None:
        """A relay may say anything: no expression goes wild over it."""
        for text in ("a" * 600, "a-" * 300, "1" * 600, "<" * 600, "a@" * 300, "1." * 300):
            self.assertLessEqual(len(pattern_of_words(text)), 120)


class ACure(unittest.TestCase):
    def test_fits_what_was_said(self) -> None:
        """By the code, or by the words."""
        for code, text, words in (
            (None, "ConnectionRefusedError: [Errno 111] Connection refused", "start the relay"),
            (None, "gaierror: [Errno -2] Name or service not known", "correct the hostname"),
            (535, "5.7.8 authentication failed", "password"),
            (None, "certificate verify failed: unable to get local issuer certificate", "cafile"),
            (None, "certificate verify failed: Hostname mismatch, certificate is not valid for 'x'", "another name"),
            (None, "certificate verify failed: certificate has expired", "out of date"),
            (None, "TimeoutError: timed out", "firewall"),
            (None, "something new", "zope-sendmail check"),
        ):
            with self.subTest(text=text):
                self.assertIn(words, cure_of(Reply(Answer.DEFERRED, text, code)))
