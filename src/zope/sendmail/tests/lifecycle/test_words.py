"""Words that stand in files, commands and databases: another release reads them, so they stay as they are."""

from __future__ import annotations

import unittest
from enum import StrEnum

from zope.sendmail.lifecycle.finding import Kind, Severity
from zope.sendmail.lifecycle.mailstatus import Standing
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.retry import OnUnknown
from zope.sendmail.lifecycle.states import Action, State
from zope.sendmail.lifecycle.throttling import TooMuch


class AWord(unittest.TestCase):
    def assert_are(self, words: type[StrEnum], expected: str) -> None:
        self.assertEqual([each.value for each in words], expected.split())
        self.assertEqual([each.name for each in words], expected.upper().replace("-", "_").split())

    def test_for_a_state(self) -> None:
        """As records have it, and columns of the database."""
        self.assert_are(State, "staged scheduled ready sending deferred held sent rejected")

    def test_for_an_answer(self) -> None:
        """As records have it."""
        self.assert_are(Answer, "accepted deferred rejected unknown")

    def test_for_what_operators_do(self) -> None:
        """As they type it."""
        self.assert_are(Action, "hold release retry reroute bounce remove move")

    def test_for_where_a_mail_stands(self) -> None:
        """As programs get it; of several mails the first word counts."""
        self.assert_are(Standing, "queued deferred unknown held rejected sent")

    def test_for_what_the_doctor_finds(self) -> None:
        """As its JSON has it."""
        self.assert_are(
            Kind,
            "in-doubt committed held rejected no-mail unreadable foreign orphaned old-lock leftover waiting permissions"
            " owner room clock database relay moving",
        )
        self.assert_are(Severity, "note warning problem")

    def test_for_what_a_relay_has_too_much_of(self) -> None:
        """As the log has it."""
        self.assert_are(TooMuch, "connections mails")

    def test_for_what_follows_an_unknown_outcome(self) -> None:
        """As settings have it."""
        self.assert_are(OnUnknown, "resend hold")


if __name__ == "__main__":
    unittest.main()
