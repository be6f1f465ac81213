"""`zope.sendmail.processor.pool`: workers that cannot begin, that are stopped, and that end with trouble."""

from __future__ import annotations

import errno
import threading
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import LONGEST
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.worker import Worker
from zope.sendmail.testing.contracts import LATER, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest

DOWN = Reply(Answer.DEFERRED, "connection refused")


class TwoRelays(ProcessorTest):
    """The default, and one for the recipients at partner.example."""

    def make_processor(self, **options: Any) -> Any:
        self.partner = ScriptedMailer()
        routes = Routes("main", frozenset({"partner"}), recipients={"@partner.example": "partner"})
        return super().make_processor(**{"routes": routes, "mailers": {"partner": self.partner}, **options})


class TheSystemHasNoThreads(TwoRelays):
    def test_everything_is_sent_all_the_same(self) -> None:
        """By the processor itself, for one relay after the other."""
        self.put(count=10)
        self.put("one@partner.example")
        self.put("two@partner.example")
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.drain()
        self.assertEqual((len(self.mailer.sent), len(self.partner.sent)), (10, 2))
        self.assertEqual(self.queue.admin.count(), {})

    def test_nothing_is_sent_to_a_relay_that_cannot_be_used_meanwhile(self) -> None:
        """It needs no worker any more."""
        run, relay = self.new_run(), self.processor.relays.default
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            run.pool.call(relay)
        relay.refused(LookupError("no such product"))
        run.pool.fill_in()
        self.assertEqual((relay.workers, self.mailer.sessions), (0, []))


class AMailerMakesNoSession(TwoRelays):
    def test_its_relay_cannot_be_used(self) -> None:
        """Its mail waits, and is charged with nothing; the other relay's mail goes."""

        def fail() -> Any:
            raise LookupError("no such product")

        self.partner.open_session = fail  # type: ignore[method-assign]  # its fault
        [name] = self.put("one@partner.example")
        self.put()
        self.drain()
        self.assertEqual((len(self.mailer.sent), self.queue.admin.show(name).history), (1, ()))
        fault = self.processor.fault
        assert fault is not None
        self.assertIn("there is no session: LookupError('no such product')", fault.text)


class TheQueueFails(TwoRelays):
    def test_when_a_relays_mail_is_parked(self) -> None:
        """The last worker of the relay has ended all the same, and the trouble is the queue's."""
        self.put("one@partner.example", count=2)
        run, relay = self.new_run(), self.processor.relays.of(RelayName(mailer="partner"))
        for lease in self.queue.claim(2):
            lease.park = mock.Mock(side_effect=OSError(errno.EIO, "the disk is broken"))
            relay.backlog.append(Job(lease, lease.envelope))
        self.partner.fault = DOWN
        relay.workers = 1
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            run.pool.guarded_work(relay)
        self.assertIn("the disk is broken", self.processor.queue_trouble)
        self.assertEqual(relay.workers, 0)


class AWorkerIsClosed(TwoRelays):
    def test_where_no_thread_is_to_be_had_that_would_carry_it_on(self) -> None:
        """It is counted no more, its mail waits for the relay, and the queue has no trouble."""
        self.put("one@partner.example")
        run, relay = self.new_run(), self.processor.relays.of(RelayName(mailer="partner"))
        [lease] = self.queue.claim()
        relay.backlog.append(Job(lease, lease.envelope))
        relay.workers = 1
        steps = run.pool._guarded_steps(relay)
        self.assertIsNone(next(steps))  # it would connect now
        with self.assertNoLogs("QueueProcessorThread", "WARNING"):
            steps.close()
        self.assertEqual((relay.workers, self.processor.queue_trouble), (0, ""))
        self.assertEqual((self.queue.admin.count(), list(self.queue.parked())), ({State.READY: 1}, [relay.name]))


class MailComesWhenAWorkerIsAboutToEnd(TwoRelays):
    def test_and_it_goes_on(self) -> None:
        """Else the mail would wait for the next look: nobody is called while a worker is counted."""
        [name] = self.put("one@partner.example")
        run, relay = self.new_run(), self.processor.relays.of(RelayName(mailer="partner"))
        next_for = run.dispatcher.next_for
        [lease] = self.queue.claim()
        late = [Job(lease, lease.envelope)]

        def nothing_yet(*arguments: Any) -> Job | None:
            job = next_for(*arguments)
            if job is None and late:
                relay.backlog.append(late.pop())
            return job

        relay.workers = 1
        with mock.patch.object(run.dispatcher, "next_for", nothing_yet):  # another thread, in the worst moment
            run.pool.work(relay)
        self.assertEqual(([mail[1] for mail in self.partner.sent], name), ([("one@partner.example",)], lease.name))


class AMailWaitsForItsTurn(ProcessorTest):
    """The relay takes one mail in ten seconds."""

    def test_and_the_processor_is_stopped_meanwhile(self) -> None:
        """The mail stays as if untried; whether the rate is the processor's own, or that of all."""
        for kind in ("rate", "shared_rate"):
            with self.subTest(kind):
                self.clock = _Stopping()
                self.setUp_with(self.clock)
                setattr(self.mailer, kind, 0.1)
                names = self.put(count=2)
                self.clock.stop = self.processor.stop
                self.drain()
                self.assertEqual(len(self.mailer.sent), 1)
                self.assertEqual(self.queue.admin.show(names[1]).history, ())
                self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_and_goes_when_that_has_come(self) -> None:
        """One after the other, at the pace of all processors."""
        self.mailer.shared_rate = 0.1  # type: ignore[attr-defined]  # mailers have it
        self.put(count=3)
        begin = self.clock.monotonic()
        self.drain()
        self.assertEqual(len(self.mailer.sent), 3)
        self.assertGreaterEqual(self.clock.monotonic() - begin, 20.0)

    def setUp_with(self, clock: ManualClock) -> None:
        """Begin with another clock."""
        self.queue = type(self.queue)(schedule=self.schedule, clock=clock)
        self.mailer = ScriptedMailer()
        self.processor = self.make_processor()


class AMailWasPutBy(ProcessorTest):
    def test_and_there_is_no_other(self) -> None:
        """So it is tried again: whether it is too much by itself cannot be found out with another one."""
        self.put()
        run, relay = self.new_run(), self.processor.relays.default
        [lease] = self.queue.claim()
        relay.put_by(Job(lease, lease.envelope))
        worker = Worker(run.pool._context, relay, relay.session(self.mailer), self.mailer)
        relay.workers = 1
        job = run.pool.claim_for(worker, relay)
        assert job is not None
        self.assertEqual(job.lease.name, lease.name)


class ARunIsStopped(ProcessorTest):
    def test_before_a_mail_is_claimed(self) -> None:
        """No worker gets another one."""
        self.put()
        run, relay = self.new_run(), self.processor.relays.default
        worker = Worker(run.pool._context, relay, relay.session(self.mailer), self.mailer)
        self.processor.stop()
        self.assertIsNone(run.pool.claim_for(worker, relay))

    def test_behind_the_mail_in_hand(self) -> None:
        """Also one that would end by itself; what was not begun stays."""
        self.mailer.before = lambda envelope: self.processor.stop()
        self.put(count=3)
        self.drain()
        self.assertEqual((len(self.mailer.sent), self.queue.admin.count()), (1, {State.READY: 2}))
        self.assertTrue(self.processor.is_stopped)
        self.assertTrue(self.processor.is_ending)


class ASessionThatRests(ProcessorTest):
    def test_is_closed_if_it_is_one_too_many(self) -> None:
        """Relays count connections that are idle as well."""
        relay = self.processor.relays.default
        relay.connections = 2
        sessions = [relay.session(self.mailer) for _ in range(2)]
        for session in sessions:
            self.assertTrue(relay.put_back(session, self.mailer))
        relay.connections = 1
        relay.rest()
        self.assertEqual([session.closed for session in self.mailer.sessions], [False, True])


class WhatAMailerSays(ProcessorTest):
    def test_is_no_reply(self) -> None:
        """An outcome with something else in it is no answer: the mail is deferred, and the words say what it was."""
        self.mailer.answers = lambda who: "fine"  # type: ignore[assignment,return-value]  # its fault
        [name] = self.put()
        open_session = self.mailer.open_session

        def careless() -> Any:
            session = open_session()
            verify = session.verify
            session.transfer = lambda envelope, message, intend: verify(envelope, message)  # type: ignore[method-assign]  # it looks at nothing
            return session

        self.mailer.open_session = careless  # type: ignore[method-assign]  # likewise
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
        [record] = self.queue.admin.show(name).history
        self.assertIn("which is no Outcome", record.replies["0@example.org"].text)
        self.assertIs(record.state, State.DEFERRED)

    def test_is_nothing_at_all(self) -> None:
        """A session of another package may return None: the mail is deferred, and the relay is not to blame."""
        open_session = self.mailer.open_session

        def silent() -> Any:
            session = open_session()
            session.transfer = lambda envelope, message, intend: None  # type: ignore[assignment,return-value]  # its fault
            return session

        self.mailer.open_session = silent  # type: ignore[method-assign]  # likewise
        [name] = self.put()
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
        [record] = self.queue.admin.show(name).history
        self.assertIn("its session returned None", record.replies["0@example.org"].text)
        self.assertIsNone(self.processor.fault)

    def test_is_about_some_of_the_recipients(self) -> None:
        """The others are as before, and are asked about at the next attempt."""
        answers = {"one@example.org": LATER}
        self.mailer.answers = lambda who: answers.get(who, Reply(Answer.ACCEPTED, "ok", 250))
        self.put("one@example.org", "two@example.org")
        self.drain()
        answers.clear()
        self.drain(60)
        self.assertEqual(self.sent_to(), ["two@example.org", "one@example.org"])


class AnEnvelopeWithoutRecipients(ProcessorTest):
    def test_ends_without_a_relay(self) -> None:
        """Nobody is left to be asked about: its mail is done, and a relay that is down has nothing to do with it."""
        claim = self.queue.claim

        def emptied(limit: int = 1, *, ahead: int = 0) -> list[Any]:
            leases: list[Any] = claim(limit, ahead=ahead)
            for lease in leases:
                lease.envelope = Envelope(lease.envelope.sender, ())
            return leases

        self.queue.claim = emptied
        self.mailer.fault = DOWN
        self.put()
        self.drain()
        self.assertEqual((self.queue.admin.count(), self.processor.fault), ({}, None))


class _Stopping(ManualClock):
    """Stops something in the middle of a sleep."""

    stop: Any = None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        assert seconds < LONGEST
        if self.stop is not None:
            self.stop()


del ProcessorTest
