"""`zope.sendmail.smtp.protocol`: a mail where a connection breaks, or a relay is out of step, at one certain place.

Each step is answered by hand, without a channel; what dialogues can show is in `test_dialogues`.
"""

from __future__ import annotations

import io
import unittest

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.protocol.body import WINDOW, Body
from zope.sendmail.smtp.protocol.commands import EnvelopeCommands, Extensions
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import (
    ConnectionLost,
    Intend,
    OutOfSync,
    Poll,
    Receive,
    Refused,
    Send,
    SendFailed,
    Step,
    StepAnswer,
    Steps,
    TakeNext,
)
from zope.sendmail.smtp.protocol.transaction import MailTransaction

OK, GO_ON = Response(250, b"2.0.0 ok"), Response(354, b"go on")
NO, TOO_MUCH = Response(550, b"5.1.1 no such user"), Response(552, b"5.3.4 too much")
LOST = ConnectionLost("it ended")

SMALL = b"Subject: x\r\n\r\nHello\r\n"
LARGE = SMALL + (b"y" * 70 + b"\r\n") * (20 * WINDOW // 72)


class Behind:
    """A mail whose envelope goes with the end of the one in hand."""

    def __init__(self) -> None:
        self.error: SendFailed | None = None

    def first_flight(self) -> bytes:
        """See `Overlapping`."""
        return b"MAIL FROM:<next@example.org>\r\n"

    def not_sent(self, error: SendFailed) -> None:
        """See `Overlapping`."""
        self.error = error


class ATransaction(unittest.TestCase):
    """One mail for two recipients, to a relay with PIPELINING."""

    def setUp(self) -> None:
        self.progress = Progress(Envelope("sender@example.org", ("one@example.org", "two@example.org")), opened=True)
        self.steps: list[Step] = []

    def transaction(self, message: bytes = SMALL, *, pipelining: bool = True, proven: bool = True) -> MailTransaction:
        commands = EnvelopeCommands(self.progress.envelope, None, Extensions(pipelining=pipelining))
        body = Body(io.BytesIO(message))
        return MailTransaction(commands, self.progress, body, pipelined=pipelining, proven=proven)

    def speak(self, steps: Steps, *answers: StepAnswer) -> None:
        """Answer one step after the other; what is an exception is raised there."""
        self.steps = [next(steps)]
        with self.assertRaises(StopIteration):
            for answer in answers:
                is_error = isinstance(answer, BaseException)
                self.steps.append(steps.throw(answer) if is_error else steps.send(answer))
        self.assertEqual(len(self.steps), len(answers), "there should have been a further answer")

    def said(self) -> list[type[Step]]:
        return [type(step) for step in self.steps]


class TheEndDoesNotGo(ATransaction):
    ENVELOPE = (None, OK, OK, OK, GO_ON)

    def test_but_for_what_is_behind_it(self) -> None:
        """The message has gone, so the relay's reply counts; the next mail is told that its envelope has not."""
        behind = Behind()
        end = len(SMALL + b".\r\n")
        self.speak(
            self.transaction().deliver(), *self.ENVELOPE, behind, None, None, SendFailed("broken", end + 3), None, OK
        )
        self.assertEqual({who: reply.answer for who, reply in self.progress.accepted.items()}, dict.fromkeys(
            self.progress.envelope.recipients, Answer.ACCEPTED
        ))  # fmt: skip
        self.assertIsNotNone(behind.error)
        self.assertFalse(self.progress.out_of_sync)

    def test_a_yes_is_not_about_this_mail_then(self) -> None:
        """It is not believed: the mail is sent again, over another connection."""
        with self.assertRaises(SendFailed):
            self.speak(self.transaction().deliver(), *self.ENVELOPE, None, None, None, SendFailed("broken", 5), OK)
        self.assertFalse(self.progress.intended)
        self.assertTrue(self.progress.out_of_sync)

    def test_of_a_mail_that_went_at_once(self) -> None:
        """The same where the flight was sent before the transaction was made: a no counts, a yes does not."""
        for reply, error in ((TOO_MUCH, Refused), (OK, SendFailed)):
            with self.subTest(reply), self.assertRaises(error):
                self.progress.intended = True
                self.speak(self.transaction().hear_end(SendFailed("broken", 5)), reply)
            self.assertFalse(self.progress.intended)


class ALargeMessageBreaksOff(ATransaction):
    def test_nothing_more_of_it_is_sent(self) -> None:
        """Only the last words of the relay are heard; the mail was never about to be sent to its end."""
        with self.assertRaises(SendFailed):
            self.speak(self.transaction(LARGE).deliver(), None, OK, OK, OK, GO_ON, None, SendFailed("broken"), LOST)
        self.assertEqual(self.said().count(Send), 3)
        self.assertNotIn(Intend, self.said())
        self.assertFalse(self.progress.intended)

    def test_a_refusal_is_the_reason(self) -> None:
        """The relay refused, and hung up before it had read all (RFC 5321, 4.2.5)."""
        with self.assertRaises(Refused) as caught:
            self.speak(self.transaction(LARGE).deliver(), None, OK, OK, OK, GO_ON, SendFailed("broken"), TOO_MUCH)
        self.assertEqual(caught.exception.response, TOO_MUCH)


class AReplyIsOutOfPlace(ATransaction):
    def test_behind_the_message(self) -> None:
        """The relay may have it: whom it had taken before stays known, and the outcome is unknown."""
        with self.assertRaises(OutOfSync):
            self.speak(self.transaction().deliver(), None, OK, NO, OK, GO_ON, None, None, None, None, None, GO_ON)
        self.assertEqual(list(self.progress.refused), ["one@example.org"])
        self.assertTrue(self.progress.intended)

    def test_behind_a_flight_that_was_refused(self) -> None:
        """No reply counts then: all of them may belong to other commands."""
        with self.assertRaises(OutOfSync):
            self.speak(self.transaction().deliver(), None, OK, NO, NO, TOO_MUCH, OK)
        self.assertEqual(self.said()[-1], Poll)
        self.assertEqual((self.progress.accepted, self.progress.refused), ({}, {}))

    def test_the_relay_hangs_up_behind_such_a_flight(self) -> None:
        """The refusals stand; only the connection is of no use any more."""
        with self.assertRaises(Refused):
            self.speak(self.transaction().deliver(), None, OK, NO, NO, TOO_MUCH, LOST)
        self.assertEqual(list(self.progress.refused), ["one@example.org", "two@example.org"])
        self.assertTrue(self.progress.out_of_sync)

    def test_the_connection_ends_at_the_lone_dot(self) -> None:
        """Which takes back a text that nobody gets: the refusals stand as well."""
        with self.assertRaises(Refused):
            self.speak(self.transaction().deliver(), None, OK, NO, NO, GO_ON, None, LOST, None)
        self.assertIn(b".\r\n", [step.data for step in self.steps if isinstance(step, Send)])
        self.assertEqual(list(self.progress.refused), ["one@example.org", "two@example.org"])
        self.assertTrue(self.progress.out_of_sync)


class TheNextMail(ATransaction):
    def test_is_not_asked_for_before_the_relay_has_taken_one(self) -> None:
        """What it announces may not be true."""
        self.speak(
            self.transaction(proven=False).deliver(), None, OK, OK, OK, GO_ON, None, None, None, None, OK,
        )  # fmt: skip
        self.assertNotIn(TakeNext, self.said())
        self.assertIsInstance(self.steps[-1], Receive)


if __name__ == "__main__":
    unittest.main()
