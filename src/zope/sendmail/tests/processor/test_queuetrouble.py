"""What the queue refuses to a processor, and what is told about it."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import Terms
from zope.sendmail.processor.connectionlimit import ConnectionLimit
from zope.sendmail.processor.mailrate import MailRate
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.processor.throttle import MailInHand, Throttle
from zope.sendmail.queue.maildir import staging
from zope.sendmail.queue.maildir.layout import BUNDLE
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.reporting import observers
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, MESSAGE, OK, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest

GONE = Reply(Answer.REJECTED, "no such user", 550, "5.1.1", to_rcpt=True)
BUSY = Reply.of(451, "4.7.500 Server busy. Please try again later")
BROKEN = OSError(errno.EIO, "the disk is broken")


def broken(*_: object, **__: object) -> Any:
    """Fail as a disk does."""
    raise BROKEN


class TheQueueIsLeftAlone(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.backoff = QueueBackoff("/a/queue", self.clock)

    def lines(self, *steps: tuple[float, OSError | None]) -> list[str]:
        """Return what the log has, when each of the errors happens after its seconds; None: the queue can be used."""
        with self.assertLogs("QueueProcessorThread") as logs:
            for seconds, error in steps:
                self.clock.advance(seconds)
                if error is None:
                    self.backoff.ended()
                else:
                    self.backoff.happened(error)
        return [record.getMessage() for record in logs.records]

    def test_several_workers_that_meet_the_same_are_one(self) -> None:
        """The pause does not grow with the number of workers."""
        self.lines((0.0, BROKEN), (0.0, BROKEN), (0.5, BROKEN))
        self.assertEqual(self.backoff.count, 1)
        self.assertTrue(self.backoff.is_lasting)

    def test_trouble_that_lasts_is_told_once_an_hour(self) -> None:
        """Other trouble at once, and the end of it."""
        other = OSError(errno.ENOSPC, "no space left")
        self.assertEqual(len(self.lines((0.0, BROKEN), (20.0, BROKEN), (20.0, BROKEN))), 1)
        self.assertEqual(len(self.lines((3600.0, BROKEN), (20.0, other), (20.0, None), (0.0, None))), 3)
        self.assertEqual((self.backoff.count, self.backoff.why), (0, ""))


class ARecipientDoesNotExist(ProcessorTest):
    """As its relay says; a queue that is told to remember such recipients does so."""

    def setUp(self) -> None:
        super().setUp()
        self.processor = self.make_processor(suppress_refused=True)
        self.mailer.answers = lambda who: GONE if who.startswith("gone") else Reply(Answer.ACCEPTED, "ok", 250)

    def listed(self) -> list[str]:
        return [entry.address for entry in self.queue.suppressions.entries()]

    def test_and_gets_no_mail_any_more(self) -> None:
        """Once is enough; the others are served."""
        for _ in range(2):
            self.put("gone@example.org", "one@example.org")
            self.drain()
        self.assertEqual((self.listed(), self.sent_to()), (["gone@example.org"], ["one@example.org"] * 2))

    def test_and_is_known_already(self) -> None:
        """Whoever has put it on the list meanwhile: the first reason stays."""
        self.mailer.before = lambda envelope: self.queue.suppressions.add(
            Suppression.of("gone@example.org", "asked us")
        )
        self.put("gone@example.org")
        self.drain()
        self.assertEqual([entry.reason for entry in self.queue.suppressions.entries()], ["asked us"])

    def test_and_the_list_cannot_be_written(self) -> None:
        """The mail has ended all the same; the log says that the list has not got the address."""
        self.queue.suppressions.add = broken
        [name] = self.put("gone@example.org")
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.drain()
        self.assertEqual(self.queue.admin.show(name).state, State.REJECTED)
        self.assertIn("the disk is broken", "".join(logs.output))


class MailThatHasNotExpired(ProcessorTest):
    def test_is_given_back(self) -> None:
        """The clock was set back since the queue has looked: it is not given up, and is sent."""
        staged = self.queue.stage()
        envelope = Envelope("s@example.org", ("one@example.org",), terms=Terms(expires=self.clock.time() + 60.0))
        staged.add(envelope, MESSAGE)
        staged.prepare()
        staged.commit()
        claim_expired = self.queue.claim_expired

        def set_back(limit: int = 100) -> Any:
            self.clock.wall += 120.0
            leases = claim_expired(limit)
            self.clock.wall -= 120.0
            return leases

        self.queue.claim_expired = set_back
        self.drain()
        self.assertEqual(self.sent_to(), ["one@example.org"])


class ALeaseThatMeetsTrouble(ProcessorTest):
    """Before a relay has the mail.  It is given back, with those behind it, and not kept until the process ends."""

    def broken_once(self, what: Any, name: str, works: Any = None) -> None:
        """Let a method fail at its next call, and work then."""
        works = works or getattr(what, name)

        def fail(*_: object, **__: object) -> Any:
            setattr(what, name, works)
            raise BROKEN

        setattr(what, name, fail)

    def in_two_passes(self) -> None:
        """Let a processor that goes on look twice; the first time something is broken."""
        run = self.new_run()
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            run.once()
        self.assertIn("the disk is broken", "".join(logs.output))
        self.clock.advance(60.0)
        run.once()
        self.addCleanup(run.end)

    def test_is_given_back_where_there_are_several_relays(self) -> None:
        """Say the suppression list cannot be read just now."""
        other = ScriptedMailer()
        self.processor = self.make_processor(routes=Routes("here", frozenset({"there"})), mailers={"there": other})
        self.put(count=3)
        self.broken_once(self.queue.suppressions, "among")
        self.in_two_passes()
        self.assertEqual(sorted(self.sent_to()), [f"{number}@example.org" for number in range(3)])

    def test_is_given_back_from_the_backlog_of_a_relay(self) -> None:
        """Mail with a wish of its sender is looked at once more when its turn comes."""
        self.processor = self.make_processor(
            routes=Routes("here", frozenset({"there"})), mailers={"there": ScriptedMailer()}
        )
        staged = self.queue.stage()
        terms = Terms(expires=self.clock.time() + 3600.0)
        staged.add(Envelope("s@example.org", ("one@example.org",), terms=terms), MESSAGE)
        staged.prepare()
        staged.commit()
        among = self.queue.suppressions.among

        def first(recipients: Any) -> Any:
            self.broken_once(self.queue.suppressions, "among", among)
            return among(recipients)

        self.queue.suppressions.among = first
        self.in_two_passes()
        self.assertEqual(self.sent_to(), ["one@example.org"])

    def test_is_given_back_with_other_mail_that_has_expired(self) -> None:
        """One cannot be settled; all of them have ended a moment later."""
        staged = self.queue.stage()
        for number in range(3):
            terms = Terms(expires=self.clock.time() + 10.0)
            staged.add(Envelope("s@example.org", (f"{number}@example.org",), terms=terms), MESSAGE)
        staged.prepare()
        staged.commit()
        claim_expired = self.queue.claim_expired

        def breaking(limit: int = 100) -> Any:
            leases = claim_expired(limit)
            self.queue.claim_expired = claim_expired
            self.broken_once(leases[0], "settle")
            return leases

        self.queue.claim_expired = breaking
        self.clock.advance(11.0)
        self.in_two_passes()
        self.assertEqual(self.queue.admin.count(), {State.REJECTED: 3})


class AnotherProcessMakesFilesOfABundle(ProcessorTest):
    """Whoever that is, it need not send them; perhaps no other pass comes for an hour."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(staging, "SINGLY", 2))
        self.enterContext(mock.patch.object(staging, "later"))  # what makes files in this process
        self.path = self.enterContext(tempfile.TemporaryDirectory())
        self.queue = self.open()
        self.processor = self.make_processor()
        self.put(count=5)
        [self.bundle] = Path(self.path, "new").glob(f".group-*/{BUNDLE}")

    def open(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, clock=self.clock, schedule=self.schedule)
        self.addCleanup(queue.close)
        return queue

    def test_and_a_pass_waits_for_them(self) -> None:
        """Then it sends them."""
        at_work = contextlib.ExitStack()
        at_work.enter_context(Disk().locked(str(self.bundle)))
        begun = self.clock.monotonic()

        def sleep(seconds: float) -> None:
            self.clock.advance(seconds)
            if self.clock.monotonic() > begun + 2.0:
                at_work.close()

        with at_work, mock.patch.object(self.clock, "sleep", sleep):
            self.drain()
        self.assertEqual(self.sent_to(), [f"{n}@example.org" for n in range(5)])

    def test_and_does_not_end(self) -> None:
        """A pass sends what it can, and ends after half a minute."""
        begun = self.clock.monotonic()
        with Disk().locked(str(self.bundle)):
            self.drain()
        self.assertEqual(self.sent_to(), ["0@example.org", "1@example.org"])
        self.assertEqual(round(self.clock.monotonic() - begun), 30)

    def test_but_for_what_it_sends_itself(self) -> None:
        """Nothing is waited for, as for any other mail that another processor has in hand."""
        other = self.open()
        other.drain_bundles()
        self.assertEqual(len(other.claim(9)), 5)
        self.processor = self.make_processor(
            routes=Routes("main", frozenset({"other"})), mailers={"other": ScriptedMailer()}
        )
        begun = self.clock.monotonic()
        self.drain()
        self.assertEqual((self.sent_to(), self.clock.monotonic()), ([], begun))


class TheStateCannotBeWritten(ProcessorTest):
    def test_and_mail_is_sent(self) -> None:
        """The log says it once."""
        self.queue.report = broken
        self.put(count=3)
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.drain()
        self.assertEqual(len(self.mailer.sent), 3)
        self.assertEqual(len([line for line in logs.output if "the disk is broken" in line]), 1)


class MailThatIsSentTogether(ProcessorTest):
    """In a Maildir, whose leases end together."""

    def setUp(self) -> None:
        super().setUp()
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(path, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.processor = self.make_processor()

    def test_and_cannot_be_settled(self) -> None:
        """Its leases stay, so that nobody sends it again; the log names it."""
        claim = self.queue.claim

        def failing(limit: int = 1, *, ahead: int = 0) -> list[Any]:
            leases: list[Any] = claim(limit, ahead=ahead)
            for lease in leases:
                lease.settle_sent = broken
            return leases

        self.queue.claim = failing
        [name] = self.put()
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.drain()
        self.assertEqual(self.sent_to(), ["0@example.org"])
        self.assertIn(f"Mail {name}: an unexpected error after its attempt", "".join(logs.output))
        self.assertIn("the disk is broken", self.processor.queue_trouble)

    def test_but_for_a_recipient_of_whom_nothing_was_said(self) -> None:
        """Such a mail has not ended."""
        open_session = self.mailer.open_session

        def forgetful() -> Any:
            session = open_session()
            transfer = session.transfer

            def forget(envelope: Envelope, message: Any, intend: Any) -> Outcome:
                outcome = transfer(envelope, message, intend)
                return Outcome(outcome.relay, dict(list(outcome.replies.items())[:1]))

            session.transfer = forget  # type: ignore[method-assign]  # its fault
            return session

        self.mailer.open_session = forgetful  # type: ignore[method-assign]  # likewise
        [name] = self.put("one@example.org", "two@example.org")
        self.drain()
        self.assertIs(self.queue.admin.show(name).state, State.DEFERRED)

    def test_is_measured_for_observers(self) -> None:
        """Also what ends by itself: how long it took, and how large it was."""
        seen: list[Any] = []
        observer = mock.Mock(spec=observers.AttemptObserver)
        observer.attempted = seen.append
        self.enterContext(observers.observing(observer))
        self.put()
        self.drain()
        self.mailer.answers = lambda who: Reply(Answer.DEFERRED, "later", 450)
        self.put()
        self.drain()
        self.assertEqual([each.size for each in seen], [len(MESSAGE)] * 2)


class AMailThatIsTooMuchForSome(ProcessorTest):
    def test_and_that_another_recipient_cannot_have_now(self) -> None:
        """Is tried again when it would be anyway: the other's reason has its own time."""
        replies = {"one@example.org": BUSY, "two@example.org": LATER}
        self.mailer.answers = replies.__getitem__
        [name] = self.put(*replies)
        self.drain()
        self.assertIs(self.queue.admin.show(name).state, State.DEFERRED)
        self.assertEqual(self.queue.admin.show(name).history[-1].due, self.clock.time() + 60.0)


class TheLimitsOfARelay(unittest.TestCase):
    def test_there_are_none(self) -> None:
        """As many connections as the configuration allows; also if they were forgotten a moment ago."""
        self.assertEqual(ConnectionLimit().limit(20, 0.0), 20)

    def test_what_is_remembered_has_an_end(self) -> None:
        """A relay that refuses everything costs no memory."""
        throttle = Throttle(ManualClock())
        for number in range(20_000):
            throttle.again(str(number))
        self.assertLess(len(throttle._strikes), 20_000)

    def test_are_forgotten_when_mail_goes_faster_than_any_of_them(self) -> None:
        """A rate that was raised that far says nothing any more."""
        rate = MailRate()
        rate.rate = 190.0
        for number in range(20):
            rate.taken(float(number), float(number))
        self.assertIsNone(rate.rate)

    def test_are_told_once(self) -> None:
        """When mails are held back; not again when the first of them goes, a moment later."""
        clock = ManualClock()
        throttle = Throttle(clock)

        def hear(name: str, reply: Reply) -> None:
            outcome = Outcome("relay", {"a@example.org": reply})
            complaints = {} if reply.answer is Answer.ACCEPTED else outcome.replies
            throttle.heard(outcome, complaints, 1, MailInHand(name, clock.monotonic()))
            clock.advance(0.5)

        with self.assertLogs("QueueProcessorThread") as logs:
            for number, reply in enumerate((OK, OK, BUSY, BUSY, OK)):
                hear(str(number), reply)
        self.assertEqual(len(logs.output), 1, logs.output)

    def test_whether_further_connections_would_wait(self) -> None:
        """All turns until now are taken."""
        clock = ManualClock()
        throttle = Throttle(clock)
        self.assertFalse(throttle.is_ahead)
        throttle.turn(1.0)
        self.assertTrue(throttle.is_ahead)
        clock.advance(1.5)
        self.assertFalse(throttle.is_ahead)


del ProcessorTest
