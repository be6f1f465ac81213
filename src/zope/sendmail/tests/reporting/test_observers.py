"""Each attempt is one record, for whichever program observes."""

from __future__ import annotations

import io
import json
import logging
import smtplib
import unittest
from typing import Any

import transaction

from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.reporting import jsonlog, observers
from zope.sendmail.reporting.observers import AttemptRecord, FaultRecord, observing
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.processing import ProcessorTest

GREYLISTED = Reply(Answer.DEFERRED, "come again", 450, "4.7.1")
UNKNOWN_USER = Reply(Answer.REJECTED, "no such user", 550, "5.1.1")
DOWN = Reply(Answer.DEFERRED, "connection refused")


class Notebook:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[AttemptRecord] = []
        self.faults: list[FaultRecord] = []

    def attempted(self, record: AttemptRecord) -> None:
        self.records.append(record)

    def faulted(self, record: FaultRecord) -> None:
        self.faults.append(record)


class WithoutAQueue(unittest.TestCase):
    """A mailer's ``send``, and direct delivery through mailers of every make."""

    def setUp(self) -> None:
        self.relay = self.enterContext(Relay())
        self.notebook = Notebook()
        self.enterContext(observing(self.notebook))
        self.addCleanup(transaction.abort)

    def test_send_is_an_attempt(self) -> None:
        """Accepted, refused, or not reached."""
        self.relay.on("RCPT", "550 5.1.1 no such user", about="unknown@")
        mailer = SMTPMailer(self.relay.host, self.relay.port)
        mailer.send("a@example.org", ["b@example.org", "unknown@example.org"], MESSAGE)
        self.assertRaises(smtplib.SMTPRecipientsRefused, mailer.send, "a@example.org", ["unknown@example.org"], MESSAGE)
        self.relay.stop()
        self.assertRaises(OSError, mailer.send, "a@example.org", ["b@example.org"], MESSAGE)
        some, none = self.notebook.records
        self.assertEqual((some.message_id, some.sender, some.state), ("1@example.org", "a@example.org", "rejected"))
        self.assertEqual(some.answers, {Answer.ACCEPTED: 1, Answer.REJECTED: 1})
        self.assertEqual((none.answers, none.queue, none.size), ({Answer.REJECTED: 1}, "", len(MESSAGE)))
        self.assertEqual([fault.relay for fault in self.notebook.faults], [f"{self.relay.host}:{self.relay.port}"])

    def test_a_mail_of_direct_delivery_is_one_attempt(self) -> None:
        """Also where that goes through the ``send`` of a class around ours."""

        class Sending(SMTPMailer):
            def send(self, *arguments: Any) -> Any:
                return super().send(*arguments)

        for mailer in (SMTPMailer(self.relay.host, self.relay.port), Sending(self.relay.host, self.relay.port)):
            DirectMailDelivery(mailer).send("a@example.org", ["b@example.org"], MESSAGE)
            transaction.commit()
        self.assertEqual([record.state for record in self.notebook.records], ["sent", "sent"])


class AnObserver(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.seen = Notebook()
        self.enterContext(observing(self.seen))

    def test_is_told_of_a_mail_that_was_sent(self) -> None:
        """With its name, its relay, its age and its size."""
        [name] = self.put("jane@example.org", "joe@example.org")
        self.drain(30.0)
        [record] = self.seen.records
        self.assertEqual((record.name, record.state, record.attempt), (name, "sent", 1))
        self.assertEqual(record.answers, {Answer.ACCEPTED: 2})
        self.assertEqual((record.age, record.size, record.queue), (30.0, len(MESSAGE), self.queue.location))
        self.assertEqual(record.time, self.clock.time())

    def test_is_told_of_each_attempt_once(self) -> None:
        """What was said about each recipient is in the record of the attempt in which it was said."""
        self.mailer.answers = lambda who: GREYLISTED if who.startswith("joe") else UNKNOWN_USER
        self.put("jane@example.org", "joe@example.org")
        self.drain()
        self.drain(60.0)
        first, second = self.seen.records
        self.assertEqual(first.answers, {Answer.DEFERRED: 1, Answer.REJECTED: 1})
        self.assertEqual((first.state, first.attempt), ("deferred", 1))
        self.assertEqual(second.replies, {"joe@example.org": GREYLISTED})
        self.assertEqual(second.attempt, 2)

    def test_is_told_how_long_an_attempt_took(self) -> None:
        """The time for which a mail waited for its turn is not that of its attempt."""
        self.mailer.before = lambda envelope: self.clock.advance(2.5)
        self.put(count=2)
        self.drain()
        self.assertEqual([record.duration for record in self.seen.records], [2.5, 2.5])

    def test_is_told_of_a_relay_that_cannot_be_used(self) -> None:
        """No mail was tried then."""
        self.mailer.fault = DOWN
        self.put()
        self.drain()
        self.assertEqual([fault.reply for fault in self.seen.faults], [DOWN])
        self.assertEqual(self.seen.records, [])

    def test_that_fails_harms_no_mail(self) -> None:
        """It is logged, and the others are told."""

        class Broken(Notebook):
            def attempted(self, record: AttemptRecord) -> None:
                raise RuntimeError("disk full")

        with observing(Broken()), self.assertLogs("QueueProcessorThread", "ERROR") as logged:
            self.put("jane@example.org")
            self.drain()
        self.assertIn("Broken, failed: RuntimeError: disk full", logged.output[0])
        self.assertEqual(self.sent_to(), ["jane@example.org"])

    def test_that_left_is_told_no_more(self) -> None:
        """And no record is made where there is none at all."""
        observers.ignore(self.seen)
        self.assertFalse(observers.is_observed())
        self.put()
        self.drain()
        self.assertEqual(self.seen.records, [])


class TheLogInJson(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(observing(jsonlog.AttemptLog()))
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(jsonlog.JsonFormatter())
        self.handle(logging.getLogger("zope.sendmail.attempts"), handler)
        self.handle(logging.getLogger("QueueProcessorThread"), handler)

    def handle(self, logger: logging.Logger, handler: logging.Handler) -> None:
        self.addCleanup(logger.setLevel, logger.level)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        logger.setLevel(logging.INFO)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [each for line in self.stream.getvalue().splitlines() if (each := json.loads(line))["event"] == event]

    def test_has_one_line_for_an_attempt(self) -> None:
        """Its keys are those that docs/howto/monitoring.rst lists."""
        self.mailer.answers = lambda who: GREYLISTED
        [name] = self.put("jane@example.org")
        self.drain()
        [line] = self.lines("attempt")
        self.assertEqual(
            list(line),
            [
                *("level", "logger", "time", "event", "queue", "name", "message_id", "sender", "relay", "attempt"),
                *("state", "duration", "age", "size", "recipients"),
            ],
        )
        self.assertEqual((line["name"], line["state"], line["level"]), (name, "deferred", "WARNING"))
        self.assertEqual(
            line["recipients"],
            [
                {
                    "address": "jane@example.org",
                    "answer": "deferred",
                    "code": 450,
                    "enhanced": "4.7.1",
                    "reply": "come again",
                }
            ],
        )

    def test_has_one_line_for_a_fault(self) -> None:
        """With the words of the relay."""
        self.mailer.fault = Reply(Answer.DEFERRED, "bad credentials", 535, "5.7.8")
        self.put()
        self.drain()
        [line] = self.lines("fault")
        self.assertEqual((line["code"], line["enhanced"], line["reply"]), (535, "5.7.8", "bad credentials"))

    def test_has_the_other_lines_as_messages(self) -> None:
        """Text from outside cannot end a line or begin another object."""
        logging.getLogger("QueueProcessorThread").error("a name: %s", 'x"}\n{"event": "attempt"}')
        [line] = self.lines("message")
        self.assertEqual(line["message"], 'a name: x"} {"event": "attempt"}')
        self.assertEqual(self.lines("attempt"), [])

    def test_is_quiet_where_it_was_not_configured(self) -> None:
        """The logger of attempts hands nothing to the handlers of the root logger."""
        self.assertFalse(logging.getLogger("zope.sendmail.attempts").propagate)
