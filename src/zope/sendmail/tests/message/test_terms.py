"""What a sender asks for, as it is kept: in lines, in the name of a file, and in words."""

from __future__ import annotations

import unittest
from datetime import timedelta
from math import inf

from zope.sendmail.interfaces import InvalidTerms, MalformedEnvelope
from zope.sendmail.message.terms import (
    NO_DEFAULTS,
    PLAIN,
    UNMARKED,
    Defaults,
    Marks,
    Priority,
    Terms,
    marks_in,
    read_moment,
    read_terms,
    terms_lines,
    terms_pairs,
    terms_values,
)

EIGHT, NINE = 1_796_112_000.0, 1_796_115_600.0
FULL = Terms(EIGHT, NINE, Priority.LOW, "order 17", NINE, ("two@example.org",))


class Kept(unittest.TestCase):
    def test_as_lines(self) -> None:
        """One for each that was asked for, in one order."""
        self.assertEqual(
            terms_lines(FULL).decode().splitlines(),
            [
                "X-Zope-Not-Before: 2026-12-01T08:00:00Z",
                "X-Zope-Expires: 2026-12-01T09:00:00Z",
                "X-Zope-Priority: low",
                "X-Zope-Key: order 17",
                "X-Zope-Key-Until: 2026-12-01T09:00:00Z",
                "X-Zope-Suppressed: two@example.org",
            ],
        )
        self.assertEqual(terms_lines(PLAIN), b"")
        self.assertEqual(terms_lines(Terms()), b"")

    def test_and_read_from_them(self) -> None:
        """What is missing was not asked for."""
        self.assertEqual(read_terms(terms_pairs(FULL), ["two@example.org"]), FULL)
        self.assertEqual(read_terms({}, []), PLAIN)

    def test_what_cannot_be_is_refused(self) -> None:
        """The file is set aside, not sent at the wrong time."""
        for name, value in (
            ("X-Zope-Not-Before", "tomorrow"),
            ("X-Zope-Expires", "2026-12-01T08:00:00+01:00"),
            ("X-Zope-Expires", "2026-13-01T08:00:00Z"),
            ("X-Zope-Priority", "urgent"),
            ("X-Zope-Key", "x" * 201),
        ):
            with self.subTest(value), self.assertRaisesRegex(MalformedEnvelope, "it asks for what cannot be: "):
                read_terms({name: value}, [])

    def test_in_words(self) -> None:
        """For lists, JSON and the log."""
        words = {
            "not_before": "2026-12-01T08:00:00Z",
            "expires": "2026-12-01T09:00:00Z",
            "priority": "low",
            "key": "order 17",
            "key_until": "2026-12-01T09:00:00Z",
        }
        self.assertEqual(terms_values(FULL), words)
        self.assertEqual(str(FULL), ", ".join(f"{name} {value}" for name, value in words.items()))
        self.assertEqual((terms_values(PLAIN), str(PLAIN)), ({}, ""))

    def test_until_it_may_leave(self) -> None:
        """Seconds, and none when the moment has come."""
        self.assertEqual(FULL.wait(EIGHT - 2.5), 2.5)
        self.assertEqual(FULL.wait(EIGHT), 0.0)
        self.assertEqual(FULL.wait(NINE), 0.0)


class Limits(unittest.TestCase):
    def test_are_within_what_can_be_asked_for(self) -> None:
        """Ten years from now, and as long for a key; a key of 200 characters."""
        years = timedelta(days=3652.5)
        self.assertEqual(Defaults.of(key_lifetime=years).key_lifetime, 3652.5 * 86400)
        self.assertEqual(NO_DEFAULTS.terms(0.0, not_before=years).not_before, 3652.5 * 86400)
        self.assertEqual(NO_DEFAULTS.terms(0.0, key="k" * 200).key, "k" * 200)
        longer = years + timedelta(seconds=1)
        with self.assertRaises(InvalidTerms):
            Defaults.of(key_lifetime=longer)
        with self.assertRaises(InvalidTerms):
            Defaults.of(not_before=longer)

    def test_of_a_key_are_a_week(self) -> None:
        """From the moment at which the mail may leave; rounded up to a second."""
        self.assertEqual(NO_DEFAULTS.terms(0.5, key="k").key_until, 7 * 86400 + 1)
        later = NO_DEFAULTS.terms(0.0, key="k", not_before=timedelta(hours=1))
        self.assertEqual(later.key_until, 7 * 86400 + 3600)


class InTheName(unittest.TestCase):
    def test_stands_what_decides_about_turns(self) -> None:
        """Behind the usual end; nothing for most mail."""
        self.assertEqual(str(Marks.of(FULL)), ",P=l,T=1796112000,E=1796115600")
        self.assertEqual(str(Marks.of(Terms(priority=Priority.HIGH))), ",P=h")
        self.assertEqual(str(Marks.of(PLAIN)), "")

    def test_it_is_read_wherever_it_stands(self) -> None:
        """Programs put flags of their own behind it; what is no mark says nothing."""
        name = f"1796000000.1.host.5{Marks.of(FULL)}"
        self.assertEqual(marks_in(name), Marks(Priority.LOW, EIGHT, NINE))
        self.assertEqual(marks_in(f"{name}:2,S"), Marks(Priority.LOW, EIGHT, NINE))
        self.assertIs(marks_in("1796000000.1.host.5"), UNMARKED)
        self.assertEqual(marks_in("1796000000.1.host.5:2,S"), UNMARKED)
        for marks in (",P=5", ",T=h", ",E=l", ",P=x", ",T=12345678901234", ",T=5x", ",S=1234"):
            self.assertEqual(marks_in(f"1796000000.1.host.5{marks}"), Marks(Priority.NORMAL, 0.0, inf), marks)

    def test_a_class_has_its_turn(self) -> None:
        """High before normal before low."""
        self.assertEqual([each.rank for each in (Priority.HIGH, Priority.NORMAL, Priority.LOW)], [0, 1, 2])


class AMoment(unittest.TestCase):
    def test_is_in_utc_to_the_second(self) -> None:
        """Another spelling is none, so that programs that compare texts are right."""
        self.assertEqual(read_moment("2026-12-01T08:00:00Z"), EIGHT)
        for text in ("2026-12-01T08:00:00", "2026-12-01 08:00:00Z", "x2026-12-01T08:00:00Z", "2026-12-01T08:00:00Z "):
            with self.assertRaisesRegex(ValueError, "is no moment such as 2026-12-01T08:00:00Z"):
                read_moment(text)


if __name__ == "__main__":
    unittest.main()
