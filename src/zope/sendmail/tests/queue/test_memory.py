"""`zope.sendmail.queue.memory`: what only a queue in memory does, beside the contract."""

from __future__ import annotations

import os
import unittest
from dataclasses import replace

from zope.sendmail.errors import LeaseLost, NotPossible
from zope.sendmail.lifecycle.finding import Severity
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.keys import id_of
from zope.sendmail.queue.memory import MemoryQueue, forget_shared_memory, shared_memory
from zope.sendmail.queue.nondelivery import bounce
from zope.sendmail.testing.contracts import MESSAGE, NEVER, OK, ManualClock

ENVELOPE = Envelope("sender@example.org", ("one@example.org", "two@example.org"))


class InMemory(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(clock=self.clock)

    def put(self, envelope: Envelope = ENVELOPE, message: bytes = MESSAGE) -> str:
        put(self.queue, [envelope], message)
        return list(self.queue.admin.names())[-1]


class Findings(InMemory):
    def test_of_a_mail_that_an_operator_gave_up(self) -> None:
        """It is kept, and needs nobody: that is no problem."""
        name = self.put()
        bounce(self.queue, name, now=self.clock.time())
        [found] = [each for each in self.queue.admin.examine() if each.name == name]
        self.assertIs(found.severity, Severity.NOTE)

    def test_of_relays_are_of_those_that_cannot_be_used(self) -> None:
        """Others are nothing to be told of."""
        now = self.clock.time()
        relays = [RelayState("up", "up:25", asked=now)]
        relays += [RelayState("down", "down:25", fault=Reply(Answer.DEFERRED, "no"), since=now, asked=now)]
        self.queue.report(ProcessorState(os.getpid(), "here", written=now, relays=tuple(relays)))
        [found] = self.queue.admin.examine()
        self.assertIn("down", found.text)


class TheTurnsOfARelay(InMemory):
    def test_are_taken_one_behind_the_other(self) -> None:
        """At its rate, by each mail that goes there; those of another relay have their own."""
        self.assertEqual([self.queue.take_turns("a", 2.0, count) for count in (3, 1, 1)], [0.0, 1.5, 2.0])
        self.assertEqual(self.queue.take_turns("b", 2.0, 1), 0.0)
        self.clock.advance(10)
        self.assertEqual(self.queue.take_turns("a", 2.0, 1), 0.0)


class TheQueueOfAProcess(InMemory):
    def test_has_no_name(self) -> None:
        """What stands behind ``memory:`` is a mistake."""
        with self.assertRaisesRegex(ValueError, "or memory: alone"):
            open_queue("memory:shop")

    def test_is_shared_until_it_is_forgotten(self) -> None:
        """By writers and readers that name it alike."""
        self.addCleanup(forget_shared_memory)
        forget_shared_memory()
        first = shared_memory()
        self.assertIs(shared_memory(), first)
        forget_shared_memory()
        self.assertIsNot(shared_memory(), first)

    def test_is_empty_in_a_forked_child(self) -> None:
        """The parent sends what it has."""
        self.put()
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, str(len(list(self.queue.admin.names()))).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with os.fdopen(read) as told:
            self.assertEqual(told.read(), "0")
        self.assertEqual(len(list(self.queue.admin.names())), 1)

    def test_has_nothing_that_is_no_mail(self) -> None:
        """Nor mail of others: staged mail ends with the process that could commit it."""
        self.put()
        self.assertEqual([list(self.queue.admin.unusable()), list(self.queue.admin.in_doubt())], [[], []])

    def test_tells_of_these_only(self) -> None:
        """And nothing of names that it does not have."""
        name = self.put()
        self.put()
        self.assertEqual([mail.name for mail in self.queue.admin.these([name, "none"])], [name])

    def test_takes_a_message_that_has_no_message_id(self) -> None:
        """It cannot be found by one then."""
        for text in (b"Message-Id: <a@b\nSubject: x\n\nx\n", b"Message-Id: \nSubject: x\n\nx\n"):
            name = self.put(message=text)
            self.assertEqual(self.queue.admin.show(name).message_id, "")
        self.assertEqual(id_of((b"Message-Id: <a@b\n\n",)), "")


class ALease(InMemory):
    def test_that_was_taken_away(self) -> None:
        """Ends quietly; a mail is not to be sent with it any more."""
        name = self.put()
        [first] = self.queue.claim()
        self.queue.close()
        [second] = self.queue.claim()
        with self.assertRaises(LeaseLost):
            first.intend()
        first.told()
        first.release()
        self.assertIs(self.queue.admin.show(name).state, State.SENDING)
        second.intend()
        second.release()
        self.assertIs(self.queue.admin.show(name).state, State.READY)

    def test_of_a_transaction_that_ended_it_already(self) -> None:
        """There is nothing to leave to processors then."""
        attempts, staged = self.queue.first_attempts(), self.queue.stage()
        name = staged.add(ENVELOPE, MESSAGE)
        staged.prepare()
        attempts.commit(staged)
        lease = attempts.claim(name)
        assert lease is not None
        attempts.leave(name)
        self.assertIs(self.queue.admin.show(name).state, State.SENDING)
        attempts.close()
        lease.release()


class AMailIsGivenUp(InMemory):
    """With `bounce`: its sender gets a report about those that were not served."""

    def report(self) -> bytes:
        """The text of the mail that has come."""
        [name] = [each.name for each in self.queue.admin.mails([State.READY])]
        mail = self.queue.admin.show(name)
        self.assertEqual(mail.envelope, Envelope("", ("sender@example.org",)))
        with self.queue.admin.read(name) as stream:
            return stream.read()

    def test_before_a_relay_was_asked(self) -> None:
        """All recipients are named."""
        name = self.put()
        bounce(self.queue, name, now=self.clock.time())
        text = self.report()
        for who in ENVELOPE.recipients:
            self.assertIn(f"Final-Recipient: rfc822; {who}".encode(), text)
        self.assertIn(f"report.{name}.bounce@".encode(), text)
        self.assertIs(self.queue.admin.show(name).state, State.REJECTED)

    def test_that_is_held(self) -> None:
        """Those that were served are not among them; the others have the relay's last words."""
        name = self.put()
        [lease] = self.queue.claim()
        later = Reply(Answer.DEFERRED, "mailbox full", 452, "4.2.2")
        replies = dict(zip(ENVELOPE.recipients, (OK, later), strict=True))
        lease.settle(replace(Record(), state=State.HELD, attempts=1, time=self.clock.time(), replies=replies))
        bounce(self.queue, name, now=self.clock.time())
        text = self.report()
        self.assertNotIn(b"one@example.org", text.partition(b"Subject: one")[0])
        self.assertIn(b"mailbox full", text)

    def test_for_whom_nobody_is_left(self) -> None:
        """No report is made about nobody; nor about a mail without a sender, such as a report."""
        for envelope, replies in (
            (ENVELOPE, dict.fromkeys(ENVELOPE.recipients, OK)),
            (Envelope("", ("one@example.org",)), {}),
        ):
            name = self.put(envelope)
            self.queue.admin.hold(name)
            mail = self.queue.store.mails_by_name[name]
            mail.history[-1] = replace(mail.history[-1], replies=replies)
            bounce(self.queue, name, now=self.clock.time())
            self.assertIs(self.queue.admin.show(name).state, State.REJECTED)
            self.assertEqual(list(self.queue.admin.mails([State.READY])), [])

    def test_once(self) -> None:
        """One that was given up already is refused."""
        name = self.put()
        bounce(self.queue, name, now=self.clock.time())
        with self.assertRaises(NotPossible):
            bounce(self.queue, name, now=self.clock.time())


class WhatWaitsForAPerson(InMemory):
    def test_is_found(self) -> None:
        """And what is fine is not."""
        name = self.put()
        self.put()
        [lease, other] = self.queue.claim(2)
        lease.settle(
            replace(Record(), state=State.REJECTED, time=self.clock.time(), replies={"one@example.org": NEVER})
        )
        other.release()
        [finding] = self.queue.admin.examine()
        self.assertEqual(finding.name, name)


if __name__ == "__main__":
    unittest.main()
