"""What processors handled in each of the last minutes."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.rates import KEPT, Minute, merged_minutes, of_texts

NOW = 1_000_000 * 60.0


class Minutes(unittest.TestCase):
    def test_of_several_processors_are_added_up(self) -> None:
        """They come in any order, and go out oldest first."""
        one = [Minute(999_999, sent=2, age=1.0), Minute(1_000_000, sent=1)]
        other = [Minute(1_000_000, sent=3, deferred=1, age=2.0), Minute(999_998, rejected=1)]
        found = merged_minutes([*one, *other], NOW)
        self.assertEqual([each.minute for each in found], [999_998, 999_999, 1_000_000])
        self.assertEqual(found[-1], Minute(1_000_000, sent=4, deferred=1, age=2.0))
        both = Minute(5, 1, 2, 3, 4, 0.5).plus(Minute(5, 10, 20, 30, 40, 5.0))
        self.assertEqual(both, Minute(5, 11, 22, 33, 44, 5.5))

    def test_are_kept_for_six_hours(self) -> None:
        """Which is what a plot shows."""
        self.assertEqual(KEPT, 6 * 60)

    def test_that_are_old_go(self) -> None:
        """So do those of the future: a clock was wrong when they were written."""
        old, new, future = 1_000_000 - KEPT, 1_000_000 - KEPT + 1, 1_000_001
        self.assertEqual([each.minute for each in merged_minutes(map(Minute, (old, new, future)), NOW)], [new])

    def test_tell_how_long_a_mail_took(self) -> None:
        """On average; a minute without mail tells nothing."""
        self.assertEqual(Minute(1, sent=4, age=10.0).mean_age, 2.5)
        self.assertEqual(Minute(1).mean_age, 0.0)

    def test_come_back_from_a_file(self) -> None:
        """What is torn or foreign is left out."""
        minute = Minute(5, sent=1, deferred=2, rejected=3, unknown=4, age=0.125)
        self.assertEqual(
            of_texts(["5 1", minute.as_text(), "x 1 2 3 4 5", None, 7, Minute(6).as_text()]), (minute, Minute(6))
        )
        self.assertEqual(minute.as_text(), "5 1 2 3 4 0.125")
        self.assertEqual(of_texts("no list"), ())
