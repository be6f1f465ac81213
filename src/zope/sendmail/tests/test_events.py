"""What subscribers are told about a mail."""

from __future__ import annotations

import unittest
from dataclasses import FrozenInstanceError
from typing import Any

from zope.interface.verify import verifyObject

from zope.sendmail.events import (
    MailDeferredEvent,
    MailErrorEvent,
    MailEvent,
    MailSentEvent,
    MailUnknownEvent,
    events_of,
)
from zope.sendmail.interfaces import IMailDeferredEvent, IMailErrorEvent, IMailSentEvent, IMailUnknownEvent
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import MALFORMED, Schedule, judge
from zope.sendmail.message.envelope import Envelope

A, B, C, D = (f"{who}@example.org" for who in "abcd")
OK = Reply(Answer.ACCEPTED, "ok", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
NEVER = Reply(Answer.REJECTED, "no such user", 550)
LOST = Reply(Answer.UNKNOWN, "no reply")
PLAIN = Schedule(jitter=0.0)


class Mail:
    """One mail on its way through several attempts."""

    def __init__(self, *recipients: str, malformed: tuple[str, ...] = (), schedule: Schedule = PLAIN) -> None:
        self.recipients, self.malformed, self.schedule = recipients, malformed, schedule
        self.record = Record()

    def attempt(self, replies: dict[str, Reply]) -> list[MailEvent]:
        """The events of an attempt that ended like this."""
        before = self.record
        envelope = Envelope("s@example.org", before.outstanding(self.recipients), before.outstanding(self.malformed))
        outcome = Outcome("relay:25", replies)
        self.record = judge(before, envelope, outcome, self.schedule, now=1000.0, chance=0.5)
        return events_of("1@example.org", "s@example.org", outcome, self.record, before=before)


class Events(unittest.TestCase):
    def test_one_event_for_each_kind_of_answer(self) -> None:
        """With the recipients it is about, and no others."""
        events = Mail(A, B, C, D).attempt({A: OK, B: LATER, C: NEVER, D: LOST})
        told = {type(event): event.replies for event in events}
        self.assertEqual(
            told,
            {
                MailSentEvent: {A: OK},
                MailErrorEvent: {C: NEVER},
                MailUnknownEvent: {D: LOST},
                MailDeferredEvent: {B: LATER},
            },
        )
        about = {(event.messageId, event.sender, event.relay) for event in events}
        self.assertEqual(about, {("1@example.org", "s@example.org", "relay:25")})

    def test_they_keep_their_promises(self) -> None:
        """Each provides its interface."""
        events: dict[Any, Any] = {
            IMailSentEvent: MailSentEvent,
            IMailErrorEvent: MailErrorEvent,
            IMailDeferredEvent: MailDeferredEvent,
            IMailUnknownEvent: MailUnknownEvent,
        }
        for interface, kind in events.items():
            verifyObject(interface, kind("1@example.org"))

    def test_they_cannot_be_changed(self) -> None:
        """A subscriber does not spoil the event for the next."""
        event: Any = MailSentEvent("1@example.org")
        with self.assertRaises(FrozenInstanceError):
            event.sender = "x"

    def test_a_deferral_says_when(self) -> None:
        """Seconds since the epoch."""
        [event] = Mail(A).attempt({A: LATER})
        assert isinstance(event, MailDeferredEvent)
        self.assertEqual(event.due, 1060.0)

    def test_an_error_says_why(self) -> None:
        """Each recipient with its reply."""
        [event] = Mail(A, B).attempt({A: NEVER, B: NEVER})
        assert isinstance(event, MailErrorEvent)
        self.assertEqual(event.errorMessage, f"{A}: 550 no such user; {B}: 550 no such user")

    def test_giving_up_is_an_error(self) -> None:
        """Not a deferral; also for who the relay said nothing about in the last attempt."""
        [event] = Mail(A, schedule=Schedule(lifetime=0)).attempt({A: LATER})
        self.assertIsInstance(event, MailErrorEvent)
        [event] = Mail(A, schedule=Schedule(lifetime=0)).attempt({})
        self.assertEqual((type(event), list(event.replies)), (MailErrorEvent, [A]))

    def test_who_was_silent_in_the_last_attempt_is_told(self) -> None:
        """Even if the relay had given a code before."""
        mail = Mail(A, B)
        mail.attempt({A: LATER, B: LATER})
        mail.schedule = Schedule(lifetime=0)
        [event] = mail.attempt({A: LATER})
        self.assertEqual(set(event.replies), {A, B})

    def test_a_malformed_address_is_told_once(self) -> None:
        """At the first attempt, not at every attempt for the others."""
        mail = Mail(A, malformed=("x@y@z",))
        first, second = mail.attempt({A: LATER}), mail.attempt({A: LATER})
        self.assertEqual([event.replies for event in first], [{"x@y@z": MALFORMED}, {A: LATER}])
        self.assertEqual([event.replies for event in second], [{A: LATER}])

    def test_nothing_happened_nothing_is_told(self) -> None:
        """No replies, no events."""
        self.assertEqual(Mail(A).attempt({}), [])
