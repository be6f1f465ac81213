"""`zope.sendmail.smtp.protocol`: a mail where a connection breaks, or a relay is out of step, at one certain place.

Each step is answered by hand, without a channel; what dialogues can show is in `test_dialogues`.
"""

from __future__ import annotations

import io
import unittest

from zope.sendmail.lifecycle.outcome import Answer, Reply
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
    TimeoutName,
)
from zope.sendmail.smtp.protocol.transaction import MailTransaction, reset

OK, GO_ON = Response(250, b"2.0.0 ok"), Response(354, b"go on")
NO, TOO_MUCH = Response(550, b"5.1.1 no such user"), Response(552, b"5.3.4 too much")
NOT_NOW, HUH, WHAT = Response(451, b"4.3.0 not now"), Response(300, b"huh"), Response(503, b"what")
LOST = ConnectionLost("it ended")
ONE, TWO = "one@example.org", "two@example.org"

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
        self.progress = Progress(Envelope("sender@example.org", (ONE, TWO)), opened=True)
        self.steps: list[Step] = []

    def transaction(
        self,
        message: bytes | None = SMALL,
        *,
        pipelining: bool = True,
        proven: bool = True,
        lmtp: bool = False,
        taken_before: int = 0,
        overlapped: bool = False,
    ) -> MailTransaction:
        return MailTransaction(
            EnvelopeCommands(self.progress.envelope, None, Extensions(pipelining=pipelining)),
            self.progress,
            None if message is None else Body(io.BytesIO(message)),
            pipelined=pipelining,
            proven=proven,
            answers_each=lmtp,
            taken_before=taken_before,
            overlapped=overlapped,
        )

    def enquiry(self, *, pipelining: bool = True, proven: bool = True) -> Steps:
        """Return the steps that ask about the recipients."""
        return self.transaction(None, pipelining=pipelining, proven=proven).verify()

    def speak(self, steps: Steps, *answers: StepAnswer) -> None:
        """Answer one step after the other; what is an exception is raised there."""
        self.steps = [next(steps)]
        with self.assertRaises(StopIteration):
            for answer in answers:
                is_error = isinstance(answer, BaseException)
                self.steps.append(steps.throw(answer) if is_error else steps.send(answer))
        self.assertEqual(len(self.steps), len(answers), "there should have been a further answer")

    def hold(self, steps: Steps, *replies: Response) -> None:
        """Answer each wait for a reply with the next one, and everything else with nothing."""
        coming, answer = iter(replies), None
        self.steps = []
        with self.assertRaises(StopIteration):
            while True:
                self.steps.append(steps.send(answer))
                answer = next(coming) if isinstance(self.steps[-1], Receive) else None
        self.assertEqual(list(coming), [], "these replies were not waited for")

    def said(self) -> list[type[Step]]:
        return [type(step) for step in self.steps]

    def sent(self) -> list[bytes]:
        return [step.data for step in self.steps if isinstance(step, Send)]

    def times(self) -> list[TimeoutName]:
        return [step.timeout for step in self.steps if isinstance(step, (Send, Receive))]


class TheEndDoesNotGo(ATransaction):
    ENVELOPE = (None, OK, OK, OK, GO_ON)

    def test_but_for_what_is_behind_it(self) -> None:
        """The message has gone, so the relay's reply counts; the next mail is told that its envelope has not."""
        behind = Behind()
        end = len(SMALL + b".\r\n")
        self.speak(
            self.transaction().deliver(), *self.ENVELOPE, behind, None, None, SendFailed("broken", end), None, OK
        )
        self.assertEqual({who: reply.answer for who, reply in self.progress.accepted.items()}, dict.fromkeys(
            (ONE, TWO), Answer.ACCEPTED
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


class AFlight(ATransaction):
    def test_is_short_beyond_what_the_relay_is_known_to_take(self) -> None:
        """A hundred recipients every relay takes, and as many as it has taken before."""
        self.progress.envelope = Envelope("sender@example.org", tuple(f"{number}@example.org" for number in range(250)))
        for taken, lengths in (
            (0, [100, *[10] * 15, 1]),
            (198, [100, *[10] * 15, 1]),
            (199, [100, 100, *[10] * 5, 1]),
            (1000, [100, 100, 51]),
        ):
            self.hold(self.transaction(None, taken_before=taken).verify(), *[OK] * 251)
            self.assertEqual([data.count(b"\r\n") for data in self.sent()], lengths, taken)
            commands = b"".join(self.sent()).splitlines()
            self.assertEqual(
                (commands[0], commands[-1]), (b"MAIL FROM:<sender@example.org>", b"RCPT TO:<249@example.org>")
            )

    def test_of_two_commands_is_one(self) -> None:
        """It is looked behind a refusal, and what breaks may be the fault of PIPELINING."""
        self.progress.envelope = Envelope("sender@example.org", (ONE,))
        with self.assertRaises(OutOfSync) as caught:
            self.speak(self.enquiry(), None, OK, NO, OK)
        self.assertEqual(str(caught.exception), "the relay said more than it was asked: 250 2.0.0 ok")
        for answer in (LOST, WHAT):
            self.progress.pipelining_failed = False
            with self.assertRaises(ConnectionLost) as lost:
                self.speak(self.enquiry(proven=False), None, answer)
            self.assertTrue(self.progress.pipelining_failed)
        words = "the relay does not keep to PIPELINING, which it announced; MAIL was answered: 503 what"
        self.assertEqual(str(lost.exception), words)

    def test_of_one_command_is_none(self) -> None:
        """All had been answered before, so it is not looked behind; what breaks is no fault of PIPELINING."""
        self.progress.envelope = Envelope("sender@example.org", (ONE,))
        with self.assertRaises(Refused):
            self.speak(self.enquiry(pipelining=False), None, OK, None, NO)
        self.assertNotIn(Poll, self.said())
        with self.assertRaises(ConnectionLost):
            self.speak(self.enquiry(pipelining=False, proven=False), None, LOST)
        self.assertFalse(self.progress.pipelining_failed)

    def test_that_does_not_go_right_behind_a_mail(self) -> None:
        """It is told so if the relay does not understand it, and the connection's end is its end if it is cut."""
        transaction = self.transaction()
        transaction.addressing.first_flight()
        with self.assertRaises(ConnectionLost) as caught:
            self.speak(transaction.deliver(), WHAT)
        words = "the relay does not take a mail right behind another; MAIL was answered: 503 what"
        self.assertEqual(str(caught.exception), words)
        transaction, broken = self.transaction(), SendFailed("broken")
        transaction.addressing.first_flight()
        transaction.addressing.not_sent(broken)
        with self.assertRaises(SendFailed) as cut:
            self.speak(transaction.deliver(), LOST)
        self.assertIs(cut.exception, broken)
        self.assertEqual(str(broken), "broken")
        self.assertEqual(self.steps, [Receive(TimeoutName.QUIT)])


class EachReply(ATransaction):
    def test_has_its_time(self) -> None:
        """To a command, to the request for the text, to the message (RFC 5321, 4.5.3.2)."""
        self.hold(self.transaction().deliver(), OK, OK, OK, GO_ON, OK)
        commands = [TimeoutName.COMMAND] * 4
        self.assertEqual(self.times(), [*commands, TimeoutName.DATA, TimeoutName.BLOCK, TimeoutName.FINAL])
        self.assertEqual([step.is_command for step in self.steps if isinstance(step, Send)], [True, False])

    def test_has_less_where_nothing_follows(self) -> None:
        """To DATA if the mail was refused before; to what was not sent to its end."""
        with self.assertRaises(Refused):
            self.speak(self.transaction().deliver(), None, NO, NO, NO, NO, None)
        self.assertEqual(self.times(), [TimeoutName.COMMAND] * 5)
        with self.assertRaises(SendFailed):
            self.speak(self.transaction().deliver(), SendFailed("broken"), LOST)
        self.assertEqual(self.times(), [TimeoutName.COMMAND, TimeoutName.QUIT])

    def test_to_a_question_is_kept(self) -> None:
        """With its words; a no is known as one to RCPT."""
        self.hold(self.enquiry(), OK, OK, NO)
        self.assertEqual(self.progress.accepted, {ONE: Reply(Answer.ACCEPTED, "ok", 250, "2.0.0")})
        self.assertTrue(self.progress.refused[TWO].to_rcpt)

    def test_of_another_kind_ends_the_connection(self) -> None:
        """Neither yes nor no: to MAIL, to RCPT, to the message, to the message for one of several (LMTP)."""
        message = (OK, OK, OK, GO_ON)
        for replies, lmtp in (
            ((HUH,), False),
            ((OK, HUH), False),
            ((*message, HUH), False),
            ((*message, OK, HUH), True),
        ):
            self.progress.start_over()
            with self.subTest(replies), self.assertRaises(OutOfSync) as caught:
                self.hold(self.transaction(lmtp=lmtp).deliver(), *replies)
            self.assertEqual(str(caught.exception), "the relay's reply makes no sense here: 300 huh")
            self.assertTrue(self.progress.out_of_sync)

    def test_to_the_message_may_come_for_each(self) -> None:
        """With 421 the connection is over; a temporary no to one is no reason for that."""
        for no, is_over in (
            (NOT_NOW, False),
            (Response(421, b"4.3.2 going down"), True),
            (Response(422, b"full"), False),
        ):
            self.progress.start_over()
            self.hold(self.transaction(lmtp=True).deliver(), OK, OK, OK, GO_ON, OK, no)
            self.assertEqual((list(self.progress.accepted), list(self.progress.refused)), ([ONE], [TWO]))
            self.assertEqual(self.progress.out_of_sync, is_over, no)


class ARefusal(ATransaction):
    def test_may_come_before_the_end(self) -> None:
        """For now or for good: the end does not go then."""
        for no in (NOT_NOW, TOO_MUCH):
            with self.assertRaises(Refused) as caught:
                self.speak(self.transaction().deliver(), None, OK, OK, OK, GO_ON, None, no)
            self.assertEqual(caught.exception.response, no)
            self.assertNotIn(Intend, self.said())

    def test_for_now_is_the_reason_if_the_end_does_not_go(self) -> None:
        """As one for good is."""
        broken = SendFailed("broken", 5)
        with self.assertRaises(Refused) as caught:
            self.speak(self.transaction().deliver(), None, OK, OK, OK, GO_ON, None, None, None, broken, NOT_NOW)
        self.assertEqual(str(caught.exception), "DATA: 451 4.3.0 not now")

    def test_of_all_that_makes_a_farewell(self) -> None:
        """421 behind it only says that the relay hangs up; anything else is one reply too many."""
        with self.assertRaises(Refused):
            self.speak(self.transaction().deliver(), None, OK, NO, NO, TOO_MUCH, Response(421, b"bye"))
        for more in (OK, Response(422, b"full")):
            self.progress.start_over()
            with self.assertRaises(OutOfSync):
                self.speak(self.transaction().deliver(), None, OK, NO, NO, TOO_MUCH, more)
            self.assertTrue(self.progress.out_of_sync)

    def test_takes_the_text_back_that_the_relay_waits_for(self) -> None:
        """By a lone dot, unless it said yes to a recipient, who would get an empty mail; nonsense is no yes."""
        for reply, dots in ((HUH, [b".\r\n"]), (OK, [])):
            with self.assertRaises(Refused):
                self.hold(self.transaction().deliver(), NO, reply, NO, GO_ON, *[OK for _ in dots])
            self.assertEqual(self.sent()[1:], dots)
            self.assertFalse(any(step.is_command for step in self.steps[1:] if isinstance(step, Send)))


class ALargeMessage(ATransaction):
    def test_goes_in_pieces(self) -> None:
        """All of it, in order; the final dot travels with text before it."""
        self.hold(self.transaction(LARGE).deliver(), OK, OK, OK, GO_ON, OK)
        pieces = self.sent()[1:]
        self.assertEqual(b"".join(pieces), LARGE + b".\r\n")
        self.assertGreater(len(pieces), 10)
        self.assertFalse(any(step.is_command for step in self.steps[1:] if isinstance(step, Send)))
        self.assertGreater(len(pieces[-1]), len(b".\r\n"))
        self.assertEqual(set(self.times()[5:-1]), {TimeoutName.BLOCK})


class MoreWasSaid(ATransaction):
    def test_than_asked_for(self) -> None:
        """What came may have been about another command: no recipient has an answer."""
        with self.assertRaises(OutOfSync):
            self.speak(self.transaction(pipelining=False).deliver(), None, OK, None, OK, OutOfSync("more"))
        self.assertEqual(self.progress.accepted, {})
        self.assertTrue(self.progress.out_of_sync)


class AReset(ATransaction):
    def test_is_one_command(self) -> None:
        """Which the relay has to take."""
        self.speak(reset(), None, OK)
        command = Send(b"RSET\r\n", TimeoutName.COMMAND, is_command=True)
        self.assertEqual(self.steps, [command, Receive(TimeoutName.COMMAND)])
        for reply in (GO_ON, NOT_NOW, Response(500, b"no")):
            with self.assertRaises(OutOfSync) as caught:
                self.speak(reset(), None, reply)
            self.assertEqual(str(caught.exception), f"the relay's reply to RSET is: {reply}")


class TheNextMail(ATransaction):
    def test_is_not_asked_for_before_the_relay_has_taken_one(self) -> None:
        """What it announces may not be true."""
        self.speak(
            self.transaction(proven=False).deliver(), None, OK, OK, OK, GO_ON, None, None, None, None, OK,
        )  # fmt: skip
        self.assertNotIn(TakeNext, self.said())
        self.assertIsInstance(self.steps[-1], Receive)

    def test_is_asked_for_at_once_if_the_relay_has_shown_that_it_takes_it(self) -> None:
        """Over another connection; not if commands cannot go in flights over this one."""
        for pipelining in (True, False):
            transaction = self.transaction(proven=False, overlapped=True, pipelining=pipelining)
            self.hold(transaction.deliver(), OK, OK, OK, GO_ON, OK)
            self.assertEqual(self.said().count(TakeNext), pipelining)


if __name__ == "__main__":
    unittest.main()
