"""What a caller is told who has a Message-Id."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, MailStatus, SentMail, Standing, status_of
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope

OK = Reply(Answer.ACCEPTED, "taken", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
NEVER = Reply(Answer.REJECTED, "no such user", 550)
LOST = Reply(Answer.UNKNOWN, "the connection broke")
A, B = "a@example.org", "b@example.org"


def mail(state: State, *records: Record, name: str = "name", due: float = 0.0, **more: object) -> QueuedMail:
    return QueuedMail(name, state, Envelope("s@example.org", (A, B)), "1@x", 5.0, 7, due, records, **more)  # type: ignore[arg-type]  # by name


def status(*mails: QueuedMail, sent: SentMail | None = None) -> MailStatus:
    return status_of("1@x", mails, sent, 7, now=100.0)


class AMailInTheQueue(unittest.TestCase):
    def test_stands_as_its_state_says(self) -> None:
        """An outcome that cannot be known counts more than when it is tried next."""
        lost = Record(State.DEFERRED, replies={A: OK, B: LOST})
        for state, records, standing in (
            (State.READY, [], Standing.QUEUED),
            (State.SCHEDULED, [], Standing.QUEUED),
            (State.SENDING, [], Standing.QUEUED),
            (State.DEFERRED, [Record(replies={A: LATER})], Standing.DEFERRED),
            (State.DEFERRED, [lost], Standing.UNKNOWN),
            (State.SENDING, [lost], Standing.UNKNOWN),
            (State.DEFERRED, [lost, Record(replies={B: LATER})], Standing.DEFERRED),
            (State.HELD, [lost], Standing.HELD),
            (State.REJECTED, [lost], Standing.REJECTED),
        ):
            self.assertIs(status(mail(state, *records)).standing, standing, (state, records))

    def test_tells_what_was_said_last(self) -> None:
        """About each recipient, by which relay; the first that is no yes is the reason."""
        old = Record(relay="old:25", replies={A: NEVER})
        told = status(mail(State.DEFERRED, old, Record(relay="relay:25", replies={A: OK, B: LATER}), due=160.0))
        expected = MailStatus(
            "1@x", Standing.DEFERRED, "450 greylisted", 160.0, 0.0, {A: OK, B: LATER}, ("name",), "relay:25"
        )
        self.assertEqual(told, expected)

    def test_has_its_note_or_its_relay_for_a_reason(self) -> None:
        """Why the relay cannot be used says more than the note, and that more than a reply."""
        record = Record(note="an operator wants it", replies={A: LATER})
        self.assertEqual(status(mail(State.HELD, record)).reason, "an operator wants it")
        blocked = RelayState("main", "relay:25", fault=LATER, probe=160.0)
        told = status(mail(State.READY, record, blocked=blocked)).reason
        self.assertEqual(told, "relay main (relay:25) cannot be used: 450 greylisted; next try in 1m")

    def test_that_is_new_has_nothing_to_tell(self) -> None:
        """No reason, no relay, no reply."""
        self.assertEqual(status(mail(State.READY)), MailStatus("1@x", Standing.QUEUED, names=("name",)))


class SeveralMails(unittest.TestCase):
    def test_stand_as_the_one_that_is_farthest_from_its_end(self) -> None:
        """All are named, that one first; replies about a recipient are those of it."""
        rejected = mail(State.REJECTED, Record(relay="r:25", replies={A: NEVER, B: NEVER}), name="old")
        deferred = mail(State.DEFERRED, Record(relay="d:25", replies={A: LATER}), name="new", due=160.0)
        for mails in ([rejected, deferred], [deferred, rejected]):
            expected = MailStatus(
                "1@x", Standing.DEFERRED, "450 greylisted", 160.0, 50.0, {A: LATER, B: NEVER}, ("new", "old"), "d:25"
            )
            self.assertEqual(status(*mails, sent=SentMail(50.0)), expected)


class AMailThatHasLeft(unittest.TestCase):
    def test_was_accepted(self) -> None:
        """When, by which relay, with which words."""
        expected = MailStatus("1@x", Standing.SENT, "every recipient was accepted", 0.0, 50.0, {A: OK}, (), "r:25")
        self.assertEqual(status(sent=SentMail(50.0, "r:25", {A: OK})), expected)

    def test_has_a_record_like_one_in_the_queue(self) -> None:
        """The last line of its history, without what was forgotten."""
        record = SentMail(50.0, "r:25", {A: OK}).record
        self.assertEqual(record, Record(State.SENT, time=50.0, relay="r:25", replies={A: OK}))

    def test_was_rejected_by_some(self) -> None:
        """Whose reply is the reason."""
        told = status(sent=SentMail(50.0, "r:25", {A: OK, B: NEVER}))
        self.assertEqual((told.standing, told.reason, told.sent), (Standing.REJECTED, "550 no such user", 50.0))

    def test_is_known_for_some_days(self) -> None:
        """The answer says for how many."""
        told = status()
        self.assertEqual((told.standing, told.message_id), (Standing.UNKNOWN, "1@x"))
        self.assertEqual(
            told.reason, "it is not in the queue, and none with this Message-Id left it in the last 7 days"
        )
        self.assertEqual(KEPT_DAYS, 7)


if __name__ == "__main__":
    unittest.main()
