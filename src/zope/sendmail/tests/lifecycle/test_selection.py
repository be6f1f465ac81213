"""Which mails an operator means, and by which names."""

from __future__ import annotations

import unittest
from dataclasses import replace

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard, RelayState
from zope.sendmail.lifecycle.selection import Selection, matching
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.verp import verp
from zope.sendmail.message.verpkey import VerpKey

LATER = Reply(Answer.DEFERRED, "Greylisted for 551 seconds", 450)
MAIL = QueuedMail(
    "1.2.host.3",
    State.DEFERRED,
    Envelope("shop@example.org", ("Jane@Example.com", "joe@example.net"), ("bad@@example.edu",)),
    "1@example.org",
    100.0,
    7,
    200.0,
    [
        Record(State.DEFERRED, relay="older:25"),
        Record(State.DEFERRED, relay="old:25"),
        Record(State.DEFERRED, relay="Relay:25", note="Wait", replies={"x": LATER}),
    ],
    ("bulk", "main"),
)


def is_meant(mail: QueuedMail = MAIL, **wanted: object) -> bool:
    return Selection(**wanted).matches(mail)  # type: ignore[arg-type]  # by name


class AMail(unittest.TestCase):
    def test_is_meant_where_nothing_else_is_said(self) -> None:
        """The empty selection is all mail."""
        self.assertTrue(is_meant())
        self.assertTrue(is_meant(replace(MAIL, envelope=None, history=[])))

    def test_is_in_a_state(self) -> None:
        """In one of several."""
        self.assertTrue(is_meant(states=frozenset({State.HELD, State.DEFERRED})))
        self.assertFalse(is_meant(states=frozenset({State.HELD})))

    def test_was_told_what_many_were_told(self) -> None:
        """The words as the doctor and ``errors`` show them, with ``*`` for what differs from mail to mail."""
        refused = Reply(Answer.REJECTED, "<jane@example.com>: no such user", 550, "5.1.1")
        mail = replace(MAIL, history=[Record(State.REJECTED, note="host 10.0.0.1 died", replies={"x": refused})])
        self.assertTrue(is_meant(mail, reply="550 5.1.1 *: No such user"))
        self.assertTrue(is_meant(mail, reply="host * died"))
        self.assertFalse(is_meant(mail, reply="550 5.1.1 *: no such"))

    def test_is_of_an_age(self) -> None:
        """From a moment on, and before another one."""
        self.assertTrue(is_meant(after=100.0, before=100.5))
        self.assertFalse(is_meant(before=100.0))
        self.assertFalse(is_meant(after=100.5))

    def test_is_from_and_to_somebody(self) -> None:
        """In whatever case, malformed or not; an address whole, or a domain behind its @."""
        for recipient in ("jane@example.COM", "@example.com", "joe@example.net", "@EXAMPLE.edu"):
            self.assertTrue(is_meant(recipient=recipient), recipient)
        for recipient in ("jane", "ane@example.com", "@ample.com", "jane@example.org"):
            self.assertFalse(is_meant(recipient=recipient), recipient)
        self.assertTrue(is_meant(sender="SHOP@example.org", recipient="@example.net"))
        self.assertFalse(is_meant(sender="@example.com", recipient="@example.net"))
        self.assertFalse(is_meant(sender="@example.org", recipient="@example.org"))

    def test_with_a_sender_of_its_own_is_of_the_list(self) -> None:
        """What was sent with `verp`, signed or not, is meant by the sender that was given; another list is not."""
        path = verp("News@example.org", "jane@example.com")
        for sender in (path, VerpKey(b"k" * 32).signed(path, 7)):
            mail = replace(MAIL, envelope=Envelope(sender, ("jane@example.com",)))
            with self.subTest(sender):
                self.assertTrue(is_meant(mail, sender="news@example.org"))
                self.assertTrue(is_meant(mail, sender=sender))
                self.assertFalse(is_meant(mail, sender="new@example.org"))
                self.assertFalse(is_meant(mail, sender="news@example.com"))
        tagged = replace(MAIL, envelope=Envelope("news+weekly@example.org", ("jane@example.com",)))
        self.assertFalse(is_meant(tagged, sender="news@example.org"))

    def test_without_a_sender_is_a_report(self) -> None:
        """Whose sender is written <>."""
        report = replace(MAIL, envelope=Envelope("", ("joe@example.net",)))
        self.assertTrue(is_meant(report, sender="<>"))
        self.assertFalse(is_meant(sender="<>"))

    def test_without_an_envelope_is_to_nobody(self) -> None:
        """A torn file is not meant by an address."""
        self.assertFalse(is_meant(replace(MAIL, envelope=None), recipient="@example.com"))
        self.assertFalse(is_meant(replace(MAIL, envelope=None), sender="@example.org"))

    def test_is_at_a_relay(self) -> None:
        """That it is for, that was tried last, or for whose address it waits."""
        waiting = replace(MAIL, blocked=RelayState("main", "Mail.example.org:25", fault=LATER))
        for relay in ("bulk", "MAIN", "relay:25", "mail.example.ORG:25"):
            self.assertTrue(is_meant(waiting, relay=relay), relay)
        for relay in ("old:25", "other"):
            self.assertFalse(is_meant(waiting, relay=relay), relay)
        self.assertFalse(is_meant(replace(MAIL, relays=(), history=[]), relay="bulk"))

    def test_was_last_tried_at_a_relay_by_its_name(self) -> None:
        """A rejected mail is for no relay any more; it is found by the name that the list of relays shows."""
        rejected = replace(MAIL, state=State.REJECTED, relays=())
        board = RelayBoard([ProcessorState(alive=True, relays=(RelayState("main", "Relay:25"),))])
        self.assertTrue(is_meant(rejected.on(board, 0.0), relay="Main"))
        self.assertFalse(is_meant(rejected, relay="main"))
        self.assertFalse(is_meant(replace(rejected, history=[]).on(board, 0.0), relay="main"))

    def test_was_told_something_last(self) -> None:
        """A code, or words of a reply or of the note, in whatever case; or its relay was."""
        for text in ("450", "greyLISTED", "wait", "gre", "51"):
            self.assertTrue(is_meant(reply=text), text)
        for text in ("451", "551", "nothing"):
            self.assertFalse(is_meant(reply=text), text)
        waiting = replace(MAIL, history=[], blocked=RelayState("main", fault=Reply(Answer.DEFERRED, "Refused", 535)))
        for text, meant in (("535", True), ("refused", True), ("ref", True), ("53", True), ("450", False)):
            self.assertIs(is_meant(waiting, reply=text), meant, text)
        told = replace(waiting, blocked=RelayState("main", fault=Reply(Answer.DEFERRED, "551 of them", 450)))
        self.assertFalse(is_meant(told, reply="551"))


class WhatNeedNotBeRead(unittest.TestCase):
    def test_is_too_old_or_too_young(self) -> None:
        """As the name tells."""
        self.assertTrue(Selection(after=5.0, before=6.0).may_match(5.0, rejected=False))
        self.assertFalse(Selection(after=5.0).may_match(4.0, rejected=False))
        self.assertFalse(Selection(before=5.0).may_match(5.0, rejected=True))

    def test_was_set_aside_or_not(self) -> None:
        """Which the name tells, too."""
        for states, rejected, other in (
            ([], True, True),
            ([State.REJECTED], True, False),
            ([State.HELD], False, True),
            ([State.HELD, State.REJECTED], True, True),
        ):
            chosen = Selection(frozenset(states))
            told = chosen.may_match(0.0, rejected=True), chosen.may_match(0.0, rejected=False)
            self.assertEqual(told, (rejected, other), states)

    def test_is_in_another_state(self) -> None:
        """A history that says ready may be that of a mail whose time has not come."""
        self.assertTrue(Selection().may_be_in(State.HELD))
        scheduled = Selection(states=frozenset({State.SCHEDULED}))
        self.assertTrue(scheduled.may_be_in(State.SCHEDULED))
        self.assertTrue(scheduled.may_be_in(State.READY))
        self.assertFalse(scheduled.may_be_in(State.HELD))
        self.assertFalse(Selection(states=frozenset({State.HELD})).may_be_in(State.READY))

    def test_is_known_to_processors_only(self) -> None:
        """A mail that they do not have is asked for without their words."""
        given = Selection(sender="a@example.org", relay="main", reply="550")
        self.assertEqual(given.anywhere, Selection(sender="a@example.org"))

    def test_was_not_tried(self) -> None:
        """Where only states of mail that was tried are meant."""
        for states, leaves_out in (
            ([], False),
            ([State.DEFERRED], True),
            ([State.DEFERRED, State.READY], False),
            ([State.DEFERRED, State.SCHEDULED], False),
            ([State.REJECTED], False),
            ([State.REJECTED, State.HELD], True),
        ):
            self.assertIs(Selection(frozenset(states)).leaves_out_untried, leaves_out, states)


class ANameThatIsGiven(unittest.TestCase):
    NAMES = ("17.1.host.123", "17.1.host.124", "18.1.host.12")

    def test_may_be_a_part(self) -> None:
        """A beginning of the name, or of its last part; a whole last part says more."""
        for given, meant in (
            ("17.1.host.123", ["17.1.host.123"]),
            ("17", ["17.1.host.123", "17.1.host.124"]),
            ("124", ["17.1.host.124"]),
            ("12", ["18.1.host.12"]),
            ("host", []),
            ("", []),
        ):
            self.assertEqual(matching([given], self.NAMES), {given: meant}, given)

    def test_may_be_a_path(self) -> None:
        """Of the file of the mail, its lock, or where it was set aside."""
        for path in ("new/", "/srv/mail/new/.rejected-", "new/.sending-"):
            given = f"{path}17.1.host.124"
            self.assertEqual(matching([given], self.NAMES), {given: ["17.1.host.124"]})

    def test_means_each_mail_once(self) -> None:
        """However often a queue names it."""
        self.assertEqual(matching(["18"], [*self.NAMES, *self.NAMES]), {"18": ["18.1.host.12"]})


if __name__ == "__main__":
    unittest.main()
