"""One mail of a queue as an operator sees it."""

from __future__ import annotations

import unittest
from dataclasses import replace

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms

NOW = 1000.0
PLAIN = Envelope("a@example.org", ("b@example.org",))
LATE = replace(PLAIN, terms=Terms(not_before=1500.0))
FAULT = Reply(Answer.DEFERRED, "refused")


def mail(state: State, *history: Record, envelope: Envelope | None = PLAIN, now: float = NOW) -> QueuedMail:
    return QueuedMail.at(now, "name", state, envelope, message_id="1@x", since=900.0, size=7, history=history)


class AMail(unittest.TestCase):
    def test_is_as_the_queue_says(self) -> None:
        """With its age, its size, and what happened to it."""
        record = Record(State.DEFERRED, 1, 950.0, 1200.0)
        expected = QueuedMail("name", State.DEFERRED, PLAIN, "1@x", 900.0, 7, 1200.0, (record,))
        self.assertEqual(mail(State.DEFERRED, record), expected)

    def test_is_due_at_a_time_if_it_is_deferred(self) -> None:
        """As the last record says; else when it goes is no matter of time."""
        old, last = Record(due=1100.0), Record(due=1200.0)
        self.assertEqual(mail(State.DEFERRED, old, last).due, 1200.0)
        for state in (State.READY, State.HELD, State.REJECTED, State.SENDING):
            self.assertEqual(mail(state, old, last).due, 0.0, state)

    def test_is_scheduled_as_long_as_its_sender_wants_it_to_wait(self) -> None:
        """Until that moment, unless it was tried, or an operator wants it tried."""
        waiting = mail(State.READY, envelope=LATE)
        self.assertEqual((waiting.state, waiting.due, waiting.waits_since), (State.SCHEDULED, 1500.0, 1500.0))
        self.assertIs(mail(State.READY, envelope=LATE, now=1499.5).state, State.SCHEDULED)
        for ready in (
            mail(State.READY, envelope=LATE, now=1500.0),
            mail(State.READY, Record(attempts=1), envelope=LATE),
            mail(State.READY, Record(early=True), envelope=LATE),
            mail(State.READY),
            mail(State.READY, envelope=None),
        ):
            self.assertEqual((ready.state, ready.due), (State.READY, 0.0), ready)
        self.assertIs(mail(State.HELD, envelope=LATE).state, State.HELD)

    def test_waits_since_it_came(self) -> None:
        """Or since it may leave; of a torn one that is not known."""
        self.assertEqual(mail(State.READY).waits_since, 900.0)
        self.assertEqual(mail(State.READY, envelope=None).waits_since, 900.0)


class ItsRelays(unittest.TestCase):
    BOARD = RelayBoard(
        [ProcessorState(relays=(RelayState("default", "r:25", FAULT, 900.0, 1100.0, 990.0),), alive=True)]
    )

    def test_are_known_of_what_is_still_to_be_sent(self) -> None:
        """Of what was set aside, or has no envelope, nothing is said."""
        for state in (State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED, State.HELD):
            self.assertEqual(mail(state).on(self.BOARD, NOW).relays, ("default",), state)
        for other in (mail(State.REJECTED), mail(State.STAGED), mail(State.READY, envelope=None)):
            self.assertEqual(other.on(self.BOARD, NOW), other)

    def test_that_was_asked_last_is_known_by_its_name(self) -> None:
        """Also of a mail that was set aside: no relay is to get it any more."""
        at_ours, elsewhere = Record(relay="r:25"), Record(relay="other:25")
        for state in (State.DEFERRED, State.HELD, State.REJECTED):
            self.assertEqual(mail(state, elsewhere, at_ours).on(self.BOARD, NOW).tried, "default", state)
            self.assertEqual(mail(state, at_ours, elsewhere).on(self.BOARD, NOW).tried, "", state)

    def test_keep_it_waiting_if_nothing_else_does(self) -> None:
        """Its own time comes first."""
        late = Record(State.DEFERRED, 1, 990.0, 1001.0)
        for each, waits in (
            (mail(State.READY), True),
            (mail(State.DEFERRED, late, now=1001.0), True),
            (mail(State.HELD), False),
            (mail(State.SENDING), False),
        ):
            self.assertEqual(each.on(self.BOARD, 1001.0).blocked is not None, waits, each)
        self.assertIsNone(mail(State.DEFERRED, late).on(self.BOARD, NOW).blocked)


if __name__ == "__main__":
    unittest.main()
