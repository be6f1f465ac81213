"""The life of a message as a table."""

from __future__ import annotations

import unittest

from zope.sendmail.interfaces import NotPossible
from zope.sendmail.lifecycle.states import WAITING, Action, State, after

#: What becomes of a mail in the state of the row by the action of the column; "gone": it is removed, "-": impossible.
GRID = """
state      hold  release  retry  reroute    bounce    remove  move
staged     -     ready    -      -          -         gone    -
scheduled  held  -        ready  scheduled  rejected  gone    scheduled
ready      held  -        ready  ready      rejected  gone    ready
sending    -     -        -      -          -         -       -
deferred   held  -        ready  ready      rejected  gone    deferred
held       -     ready    ready  held       rejected  gone    held
sent       -     -        -      -          -         gone    -
rejected   -     -        ready  -          -         gone    rejected
"""


class Table(unittest.TestCase):
    def test_every_pair_is_decided(self) -> None:
        """Each verb leads somewhere or is refused with what is possible."""
        for state in State:
            for verb in Action:
                try:
                    self.assertIn(after(state, verb, "1.2.host.3"), {*State, None})
                except NotPossible as error:
                    self.assertIn("1.2.host.3", str(error))
                    self.assertTrue(error.permanent)

    def test_is_this(self) -> None:
        """All that operators can do."""
        [_, *verbs], *rows = (line.split() for line in GRID.strip().splitlines())
        self.assertEqual([row[0] for row in rows], list(State))
        for name, *expected in rows:
            self.assertEqual([self.outcome(State(name), Action(verb)) for verb in verbs], expected, name)

    def outcome(self, state: State, action: Action) -> str:
        try:
            return after(state, action, "x") or "gone"
        except NotPossible:
            return "-"

    def test_what_verbs_do(self) -> None:
        """hold and release are each other's opposite; retry makes ready; remove ends."""
        self.assertIs(after(State.READY, Action.HOLD, "x"), State.HELD)
        with self.assertRaisesRegex(NotPossible, "it is sending; wait until the attempt has ended$"):
            after(State.SENDING, Action.HOLD, "x")
        self.assertIs(after(State.HELD, Action.RELEASE, "x"), State.READY)
        self.assertIs(after(State.REJECTED, Action.RETRY, "x"), State.READY)
        self.assertIsNone(after(State.REJECTED, Action.REMOVE, "x"))

    def test_what_is_being_sent_is_left_alone(self) -> None:
        """No action reaches it."""
        for state in (State.SENDING,):
            for verb in Action:
                with self.assertRaisesRegex(NotPossible, "wait until the attempt has ended"):
                    after(state, verb, "x")

    def test_what_was_sent_can_only_be_removed(self) -> None:
        """Its worker died before it did so."""
        self.assertIsNone(after(State.SENT, Action.REMOVE, "x"))
        for verb in (Action.HOLD, Action.RELEASE, Action.RETRY):
            with self.assertRaisesRegex(NotPossible, "it is sent; possible: remove"):
                after(State.SENT, verb, "x")

    def test_the_error_says_what_is_possible(self) -> None:
        """For the person at the terminal."""
        with self.assertRaisesRegex(NotPossible, "^cannot hold mail x: it is rejected; possible: retry, remove, move$"):
            after(State.REJECTED, Action.HOLD, "x")

    def test_waiting_needs_nobody(self) -> None:
        """Scheduled, ready, sending and deferred mail goes on by itself."""
        self.assertEqual(WAITING, {State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED})
