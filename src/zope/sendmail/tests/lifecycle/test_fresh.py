"""What stands in a value of which nothing has been said yet: none was tried, none is known, no time has come."""

from __future__ import annotations

import unittest
from dataclasses import fields
from math import inf
from typing import Any

from zope.sendmail.lifecycle.finding import Finding, Kind, Severity
from zope.sendmail.lifecycle.mailstatus import MailStatus, SentMail, Standing
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.rates import Minute
from zope.sendmail.lifecycle.record import Part, Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.routes import Routes


class ANewValue(unittest.TestCase):
    def assert_has(self, value: Any, *given: str, **expected: Any) -> None:
        """Check all fields but those that had to be given, and that what is not there is there in its own kind."""
        found = {each.name: getattr(value, each.name) for each in fields(value) if each.name not in given}
        self.assertEqual(found, expected)
        self.assertEqual(
            {name: type(each) for name, each in found.items()}, {name: type(each) for name, each in expected.items()}
        )

    def test_record(self) -> None:
        """A mail that is ready, and was never tried."""
        self.assert_has(
            Record(),
            state=State.READY,
            attempts=0,
            time=0.0,
            due=0.0,
            spent=0.0,
            deaths=0,
            unknowns=0,
            relay="",
            note="",
            replies={},
            parts={},
            early=False,
        )

    def test_part(self) -> None:
        """Likewise."""
        self.assert_has(Part(), attempts=0, time=0.0, due=0.0, spent=0.0, held=False)

    def test_minute(self) -> None:
        """In which nothing happened."""
        self.assert_has(Minute(5), "minute", sent=0, deferred=0, rejected=0, unknown=0, age=0.0)

    def test_relay(self) -> None:
        """It counts as one that can be used, without a limit."""
        self.assert_has(
            RelayState("x"),
            "name",
            address="",
            fault=None,
            since=0.0,
            probe=0.0,
            asked=0.0,
            failures=0,
            connections=0,
            limit="",
            rate=0.0,
            members=(),
        )

    def test_processor(self) -> None:
        """It runs until it is stopped; whether it lives is for its reader to say."""
        self.assert_has(
            ProcessorState(),
            pid=0,
            host="",
            started=0.0,
            written=0.0,
            ended=0.0,
            forever=True,
            sent=0,
            per_minute=0.0,
            minutes=(),
            relays=(),
            routes=Routes(),
            alive=False,
        )

    def test_reply(self) -> None:
        """Of a relay that said nothing, about no recipient alone."""
        self.assert_has(Reply(Answer.UNKNOWN, "x"), "answer", "text", code=None, enhanced=None, to_rcpt=False)

    def test_outcome(self) -> None:
        """Nothing is said of a recipient, and nothing is wrong."""
        self.assert_has(Outcome("r"), "relay", replies={}, fault=None, unasked=())

    def test_finding(self) -> None:
        """It has nothing in common with others, and no command cures it."""
        finding = Finding(Kind.ROOM, Severity.NOTE, "", "", "")
        self.assert_has(finding, "kind", "severity", "name", "text", "cure", cause="", commands=(), filters=())

    def test_mail(self) -> None:
        """No relay is known of it."""
        mail = QueuedMail("n", State.READY, None, "", 0.0, 0, 0.0, ())
        given = ("name", "state", "envelope", "message_id", "since", "size", "due", "history")
        self.assert_has(mail, *given, relays=(), blocked=None, tried="", locked_until=0.0)

    def test_status(self) -> None:
        """No reason, no time, no reply."""
        status = MailStatus("1@x", Standing.SENT)
        self.assert_has(status, "message_id", "standing", reason="", due=0.0, sent=0.0, replies={}, names=(), relay="")
        self.assert_has(SentMail(5.0), "time", relay="", replies={})

    def test_suppression(self) -> None:
        """For ever."""
        self.assert_has(Suppression("a@x"), "address", reason="", since=0.0, until=inf)
        self.assertEqual(Suppression.of("a@x.example"), Suppression("a@x.example", "", 0.0, inf))

    def test_schedule(self) -> None:
        """A minute at first, an hour at most, five days in all; an unknown outcome is tried again."""
        self.assert_has(
            Schedule(),
            first=60.0,
            factor=2.0,
            maximum=3600.0,
            lifetime=432000.0,
            jitter=0.2,
            on_unknown=OnUnknown.RESEND,
        )

    def test_reply_says_whom_it_is_about_to_programs_only(self) -> None:
        """What is not written down makes no difference between replies."""
        one, other = Reply(Answer.REJECTED, "x", 550), Reply(Answer.REJECTED, "x", 550, to_rcpt=True)
        self.assertEqual(one, other)
        self.assertEqual(repr(one), repr(other))


if __name__ == "__main__":
    unittest.main()
