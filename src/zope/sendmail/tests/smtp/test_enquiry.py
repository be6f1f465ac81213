"""`zope.sendmail.smtp.enquiry`: which mails are asked about as one, and what is believed of the answer."""

from __future__ import annotations

import io
import smtplib
import unittest
from collections.abc import Callable
from typing import BinaryIO

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.enquiry import Question, ask_together
from zope.sendmail.smtp.protocol.addressing import SAFE_RECIPIENTS
from zope.sendmail.smtp.protocol.body import WINDOW
from zope.sendmail.smtp.protocol.progress import Progress

YES, NO = Reply(Answer.ACCEPTED, "ok", 250), Reply(Answer.REJECTED, "no", 550)
TEXT = (
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"
)


def mail(*names: str, text: str | bytes = "Subject: x\r\n\r\nx\r\n", sender: str = "sender@example.org") -> Question:
    content = text if isinstance(text, bytes) else text.encode()
    return Envelope(sender, tuple(f"{name}@example.org" for name in names)), io.BytesIO(content)


class ARelayIsAsked(unittest.TestCase):
    """The relay is what a test says; each question that it hears is written down by its recipients and size."""

    def setUp(self) -> None:
        self.questions: list[tuple[list[str], int]] = []

    def ask(self, *mails: Question, answer: Callable[[Progress], None] | None = None) -> list[Outcome | None]:
        def prove(progress: Progress, message: BinaryIO) -> None:
            names = [who.partition("@")[0] for who in progress.envelope.recipients]
            self.questions.append((names, len(message.read())))
            progress.accepted = dict.fromkeys(progress.envelope.recipients, YES)
            if answer is not None:
                answer(progress)

        return ask_together(prove, "relay", mails)

    def asked(self) -> list[list[str]]:
        return [names for names, _ in self.questions]


class MailsOfOneSender(ARelayIsAsked):
    def test_are_one_question(self) -> None:
        """As large as the largest, for the recipients of all; each mail has its own recipients' replies."""
        large = "Subject: x\r\n\r\n" + "x" * 70 + "\r\n"
        outcomes = self.ask(mail("one"), mail("two", "one", text=large), mail("three"))
        self.assertEqual(self.questions, [(["one", "two", "three"], len(large))])
        self.assertEqual([list(each.replies) for each in outcomes if each], [
            ["one@example.org"], ["two@example.org", "one@example.org"], ["three@example.org"],
        ])  # fmt: skip

    def test_each_message_is_where_it_was(self) -> None:
        """It is to be sent afterwards, from its beginning."""
        mails = [mail("one"), mail("two", text=TEXT)]
        self.ask(*mails)
        self.assertEqual([message.tell() for _, message in mails], [0, 0])

    def test_are_no_more_than_every_relay_takes(self) -> None:
        """Those beyond are another question."""
        many = [f"r{number}" for number in range(SAFE_RECIPIENTS - 1)]
        self.ask(mail(*many), mail("one"), mail("two"), mail("three"))
        self.assertEqual(self.asked(), [[*many, "one"], ["two", "three"]])

    def test_of_another_sender_are_not_among_them(self) -> None:
        """A mail that has no fellow is not asked about here."""
        outcomes = self.ask(mail("one"), mail("two"), mail("three", sender="other@example.org"))
        self.assertEqual(self.asked(), [["one", "two"]])
        self.assertIsNone(outcomes[2])


class MailsThatNeedMoreOfTheRelay(ARelayIsAsked):
    def test_are_asked_about_among_themselves(self) -> None:
        """8-bit text with such, ASCII with ASCII, and a header that is not ASCII with its like."""
        header = TEXT.replace("MIME", "Subject: Grüße\r\nMIME", 1)
        texts = {"eight": TEXT, "seven": "Subject: x\r\n\r\nx\r\n", "utf": header}
        self.ask(*(mail(f"{name}{number}", text=text) for number in range(2) for name, text in texts.items()))
        self.assertEqual(self.asked(), [[f"{name}{number}" for number in range(2)] for name in texts])

    def test_of_which_that_is_not_known_are_asked_about_alone(self) -> None:
        """Those that cannot be written in ASCII, for a relay that takes no other, and large ones."""
        signed = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nGrüße\r\n--b--\r\n"
        for text in (signed, TEXT + ("x" * 70 + "\r\n") * (8 * WINDOW // 72)):
            self.assertEqual(self.ask(mail("one", text=text), mail("two", text=text)), [None, None])
        self.assertEqual(self.questions, [])


class TheAnswer(ARelayIsAsked):
    def test_no_to_some(self) -> None:
        """Counts for these."""

        def refuse(progress: Progress) -> None:
            del progress.accepted["one@example.org"]
            progress.refused = {"one@example.org": NO}

        one, two = self.ask(mail("one"), mail("two"), answer=refuse)
        assert one is not None
        assert two is not None
        self.assertEqual([one.replies, two.replies], [{"one@example.org": NO}, {"two@example.org": YES}])

    def test_no_to_all(self) -> None:
        """Is a no to each of them, if the relay said so to each."""

        def refuse(progress: Progress) -> None:
            progress.accepted, progress.refused = {}, dict.fromkeys(progress.envelope.recipients, NO)
            raise smtplib.SMTPRecipientsRefused({})

        outcomes = self.ask(mail("one"), mail("two"), answer=refuse)
        self.assertEqual([each and list(each.replies.values()) for each in outcomes], [[NO], [NO]])

    def test_no_to_the_question(self) -> None:
        """May be about one of them only: each is asked about alone."""

        def refuse(progress: Progress) -> None:
            raise smtplib.SMTPSenderRefused(452, b"too large", progress.envelope.sender)

        self.assertEqual(self.ask(mail("one"), mail("two"), answer=refuse), [None, None])

    def test_nothing_about_one_of_the_recipients(self) -> None:
        """Its mail is asked about alone."""

        def forget(progress: Progress) -> None:
            del progress.accepted["two@example.org"]

        one, two = self.ask(mail("one"), mail("two", "three"), answer=forget)
        self.assertIsNotNone(one)
        self.assertIsNone(two)

    def test_there_is_none(self) -> None:
        """The relay cannot be used: no further question is lost on it."""

        def fail(progress: Progress) -> None:
            raise smtplib.SMTPServerDisconnected("it is gone")

        mails = [mail(f"{name}{number}", sender=name) for name in "ab" for number in range(2)]
        self.assertEqual(self.ask(*mails, answer=fail), [None] * 4)
        self.assertEqual(self.asked(), [["a0", "a1"]])


if __name__ == "__main__":
    unittest.main()
