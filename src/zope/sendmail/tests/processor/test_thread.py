"""The processor: one attempt through its steps, and a thread that nothing ends."""

from __future__ import annotations

import os
import tempfile
import threading
import unittest
from itertools import pairwise
from typing import Any
from unittest import mock

import zope.event
from zope.interface.verify import verifyObject

from zope.sendmail.events import MailDeferredEvent, MailErrorEvent, MailSentEvent, MailUnknownEvent
from zope.sendmail.interfaces import IMailQueueProcessor
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.reporting import notifier
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, ScriptedSession, SendOnlyMailer
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.tests.support.subscribing import subscribe_alone

DOWN = Reply(Answer.DEFERRED, "535 the password has expired", 535)


def _each_behind_another(session: ScriptedSession, jobs: Any) -> Any:
    """A session's `stream` in which every mail rides."""
    job = jobs.next()
    while job is not None:
        behind = jobs.next()
        yield job, session.transfer(job.envelope, job.open(), job.intend)
        job = behind


class WhoIsTold(ProcessorTest):
    """Whether anybody subscribes; nothing is made for nobody."""

    def setUp(self) -> None:
        super().setUp()
        subscribe_alone(self)

    def test_subscribers_come_and_go(self) -> None:
        """Also while the processor is running."""
        processor = QueueProcessorThread(queue=self.queue, mailer=self.mailer, clock=self.clock)
        zope.event.subscribers.append(self.events.append)
        self.put()
        processor.run(forever=False)
        self.assertTrue(notifier.flush(60))
        self.assertEqual([type(event) for event in self.events], [MailSentEvent])

    def test_what_nobody_hears_is_counted(self) -> None:
        """By answer, as ever."""
        processor = QueueProcessorThread(queue=self.queue, mailer=self.mailer, clock=self.clock)
        self.put(count=2)
        processor.run(forever=False)
        self.assertEqual(processor.tally, {Answer.ACCEPTED: 2})


class OneAttempt(ProcessorTest):
    def test_provides_its_interface(self) -> None:
        """IMailQueueProcessor, at last."""
        verifyObject(IMailQueueProcessor, self.processor)

    def test_accepted_mail_is_sent_and_gone(self) -> None:
        """With an event, a count and a line in the log that names it."""
        self.put("one@example.org")
        with self.assertLogs("QueueProcessorThread", "INFO") as logs:
            self.drain()
        self.assertEqual(self.mailer.sent, [("sender@example.org", ("one@example.org",), MESSAGE)])
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.processor.tally, {Answer.ACCEPTED: 1})
        [event] = self.events
        self.assertIsInstance(event, MailSentEvent)
        self.assertEqual((event.messageId, list(event.replies)), ("1@example.org", ["one@example.org"]))
        line = next(line for line in logs.output if "accepted" in line)
        for word in "1@example.org", "sender@example.org", "one@example.org", "250", "relay.example.org:25":
            self.assertIn(word, line)

    def test_each_recipient_has_its_own_outcome(self) -> None:
        """Accepted, deferred and rejected in one mail; nobody is forgotten and nobody gets it twice."""
        replies = {"a": OK, "b": LATER, "c": NEVER}
        self.mailer.answers = lambda who: replies[who[0]]
        [name] = self.put("a@example.org", "b@example.org", "c@example.org")
        self.drain()
        self.assertEqual({type(event) for event in self.events}, {MailSentEvent, MailDeferredEvent, MailErrorEvent})
        replies["b"] = OK
        self.drain(60)
        self.assertEqual(self.sent_to(), ["a@example.org", "b@example.org"])
        self.assertEqual(self.queue.admin.show(name).state, State.REJECTED)

    def test_a_greylisted_mail_is_tried_again_after_a_minute(self) -> None:
        """Not rejected, and not after three hours."""
        self.mailer.answers = lambda who: LATER
        self.put()
        self.drain()
        self.mailer.answers = lambda who: OK
        self.drain(59)
        self.assertEqual(self.mailer.sent, [])
        self.drain(1)
        self.assertEqual(len(self.mailer.sent), 1)

    def test_rejected_mail_is_never_said_to_be_sent(self) -> None:
        """Neither in the log nor by an event."""
        self.mailer.answers = lambda who: NEVER
        self.put()
        with self.assertLogs("QueueProcessorThread", "INFO") as logs:
            self.drain()
        self.assertNotIn("accepted", "".join(logs.output))
        self.assertIn("no such user", "".join(logs.output))
        [event] = self.events
        self.assertIsInstance(event, MailErrorEvent)
        self.assertIn("no such user", event.errorMessage)

    def test_retries_grow_and_end(self) -> None:
        """Exponential, at most an hour apart; given up after the lifetime with the last words of the relay."""
        self.mailer.answers = lambda who: LATER
        [name] = self.put()
        attempts = []
        while self.queue.admin.count() and State.REJECTED not in self.queue.admin.count():
            attempts.append(self.clock.time())
            self.drain()
            self.clock.advance(self.queue.next_due() or 0.0)
        gaps = [later - earlier for earlier, later in pairwise(attempts)]
        self.assertEqual(gaps[:7], [60, 120, 240, 480, 960, 1920, 3600])
        self.assertEqual(max(gaps), 3600)
        self.assertAlmostEqual((attempts[-1] - attempts[0]) / 86400, 5.0, 1)
        self.assertIn("greylisted", self.events[-1].errorMessage)
        self.assertEqual(self.queue.admin.show(name).history[-1].replies["0@example.org"].enhanced, "4.4.7")

    def test_a_clock_that_jumps_a_day_ahead_ends_no_mail(self) -> None:
        """It is tried once too early, and its life goes on."""
        schedule = Schedule(first=60, jitter=0, lifetime=4 * 3600)
        self.processor = self.make_processor(schedule=schedule)
        self.mailer.answers = lambda who: LATER
        [name] = self.put()
        self.drain()
        self.clock.wall += 86400
        self.drain(60)
        self.assertEqual(self.queue.admin.show(name).state, State.DEFERRED)
        self.mailer.answers = lambda who: OK
        self.drain(120)
        self.assertEqual(len(self.mailer.sent), 1)

    def test_an_unknown_outcome_is_told_and_resent(self) -> None:
        """By default; it is counted."""
        lost = Reply(Answer.UNKNOWN, "connection lost after the final dot")
        self.mailer.answers = lambda who: lost
        [name] = self.put()
        self.drain()
        self.assertIsInstance(self.events[0], MailUnknownEvent)
        self.assertEqual(self.queue.admin.show(name).history[-1].unknowns, 1)
        self.mailer.answers = lambda who: OK
        self.drain(60)
        self.assertEqual(len(self.mailer.sent), 1)

    def test_what_is_resent_is_the_same_to_the_last_byte(self) -> None:
        """With the same Message-Id, so that a recipient's system can see that it is."""
        copies: list[bytes] = []
        open_session = self.mailer.open_session

        def copying() -> Any:
            session = open_session()
            transfer = session.transfer

            def copy(envelope: Envelope, message: Any, intend: Any) -> Any:
                copies.append(message.read())
                message.seek(0)
                return transfer(envelope, message, intend)

            session.transfer = copy  # type: ignore[method-assign]  # a fault in its place
            return session

        self.mailer.open_session = copying  # type: ignore[method-assign]  # a fault in its place
        self.mailer.answers = lambda who: Reply(Answer.UNKNOWN, "lost")
        self.put()
        for _ in range(4):
            self.drain(3600)
        self.assertEqual(copies, [MESSAGE] * 4)

    def test_an_unknown_outcome_can_be_held(self) -> None:
        """For a person to decide."""
        self.mailer.answers = lambda who: Reply(Answer.UNKNOWN, "lost")
        self.processor = self.make_processor(schedule=Schedule(on_unknown=OnUnknown.HOLD))
        self.put()
        self.drain()
        self.drain(86400)
        self.assertEqual(self.queue.admin.count(), {State.HELD: 1})
        self.assertEqual(len(self.events), 1)

    def test_a_lost_lease_is_not_sent(self) -> None:
        """Whoever has the message now sends it; here that is the same processor, a moment later."""
        losses = [self.queue.close]

        def lose(envelope: Envelope) -> None:
            if losses:
                losses.pop()()

        self.mailer.before = lose
        self.put()
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            self.drain()
        self.assertEqual((len(self.mailer.sent), self.processor.tally), (1, {Answer.ACCEPTED: 1}))
        self.assertIn("the lease has ended", logs.output[0])


class ARelayInTrouble(ProcessorTest):
    def test_costs_no_message_an_attempt(self) -> None:
        """An expired password rejects nothing, defers nothing and is told once."""
        self.put(count=3)
        self.mailer.fault = DOWN
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            for _ in range(20):
                self.drain(300)
        self.assertEqual(self.queue.admin.count(), {State.READY: 3})
        self.assertEqual([mail.history for mail in self.queue.admin.mails()], [(), (), ()])
        self.assertEqual(self.events, [])
        self.assertIn("password has expired", logs.output[0])

    def test_is_probed_within_ten_seconds_then_less_often(self) -> None:
        """At most five minutes apart, one connection at a time."""
        self.put(count=3)
        self.mailer.fault = DOWN
        tries: list[float] = []
        self.mailer.before = lambda envelope: tries.append(self.clock.monotonic())
        start = self.clock.monotonic()
        while self.clock.monotonic() - start < 3600:
            self.drain(1)
        gaps = [later - earlier for earlier, later in pairwise(tries)]
        self.assertLessEqual(gaps[0], 10)
        self.assertEqual(sorted(gaps), gaps)
        self.assertLessEqual(max(gaps), 300)
        self.assertEqual(max(gaps[-3:]), 300)

    def test_that_is_back_gets_everything_at_once(self) -> None:
        """The next probe is a mail, and the others follow in the same pass."""
        self.put(count=50)
        self.mailer.fault = DOWN
        self.drain()
        self.mailer.fault = None
        self.drain(5)
        self.assertEqual(len(self.mailer.sent), 50)
        self.assertIsNone(self.processor.fault)

    def test_does_not_forget_what_it_said_before(self) -> None:
        """A recipient that was rejected before the connection broke stays rejected."""
        original = self.mailer.open_session

        def open_session() -> Any:
            session = original()
            verify = session.verify

            def broken(envelope: Envelope, message: Any) -> Any:
                from zope.sendmail.lifecycle.outcome import Outcome

                outcome = verify(envelope, message)
                return Outcome(outcome.relay, {"a@example.org": NEVER}, DOWN)

            session.verify = broken  # type: ignore[method-assign]  # a fault in its place
            return session

        self.mailer.open_session = open_session  # type: ignore[method-assign]  # a fault in its place
        [name] = self.put("a@example.org", "b@example.org")
        self.drain()
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.state, mail.history[-1].replies), (State.DEFERRED, {"a@example.org": NEVER}))


class AThreadThatNothingEnds(ProcessorTest):
    def test_a_mailer_that_raises_defers_the_mail(self) -> None:
        """Whatever it raises; the others flow."""
        for error in RuntimeError("bug"), SystemExit(1), MemoryError(), AssertionError():

            def before(envelope: Envelope, error: BaseException = error) -> None:
                if envelope.recipients == ("0@example.org",):
                    raise error

            with self.subTest(error=error), self.assertLogs("QueueProcessorThread", "ERROR"):
                self.mailer.before, self.mailer.sent = before, []
                names = self.put(count=3)
                self.drain()
                self.assertEqual(self.sent_to(), ["1@example.org", "2@example.org"])
                self.assertEqual(self.queue.admin.show(names[0]).state, State.DEFERRED)
                self.queue.admin.remove(names[0])

    def test_ctrl_c_ends_a_run_in_the_main_thread(self) -> None:
        """The mail in hand is as before, if nothing of it is with the relay; else nobody knows."""
        for intended in False, True:
            with self.subTest(intended=intended):
                self.processor = self.make_processor()
                names = self.put(count=3)

                def interrupted(session: ScriptedSession, envelope: Envelope, message: Any, intend: Any) -> Any:
                    if intended:  # noqa: B023 - called at once
                        intend()
                    raise KeyboardInterrupt

                with mock.patch.object(ScriptedSession, "transfer", interrupted):
                    self.assertRaises(KeyboardInterrupt, self.drain)
                history = self.queue.admin.show(names[0]).history
                self.assertEqual([record.unknowns for record in history], [1] if intended else [])
                self.assertEqual([self.queue.admin.show(name).state for name in names[1:]], [State.READY] * 2)
                for name in names:
                    self.queue.admin.remove(name)

    def test_a_send_only_mailer_that_fails_defers_the_mail(self) -> None:
        """An unknown error is temporary."""
        mailer = SendOnlyMailer(RuntimeError("bug"))
        self.processor = self.make_processor(mailer=mailer)
        [name] = self.put()
        self.drain()
        self.assertEqual(self.queue.admin.show(name).state, State.DEFERRED)
        mailer.error = None
        self.drain(60)
        self.assertEqual(len(mailer.sent), 1)

    def test_a_queue_in_trouble_is_looked_at_again(self) -> None:
        """Disk errors, permissions, bugs: logged, waited for, survived."""
        self.put()
        troubles = [OSError(5, "Input/output error"), PermissionError(13, "denied"), RuntimeError("bug"), SystemExit(2)]
        claim = self.queue.claim

        def broken(limit: int = 1, *, ahead: int = 0) -> Any:
            if troubles:
                raise troubles.pop(0)
            found = claim(limit)
            if not found:
                self.processor.stop()
            return found

        self.queue.claim = broken
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.processor.run()
        self.assertEqual((len(self.mailer.sent), len(logs.output)), (1, 4))

    def test_a_subscriber_cannot_harm_the_mail(self) -> None:
        """Events leave through a thread of their own; here, what telling raises is trouble and nothing more."""

        def tell(events: Any) -> None:
            raise RuntimeError("bug")

        self.processor.tell = tell
        self.put(count=2)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
            self.drain()
        self.assertEqual(len(self.mailer.sent), 2)
        self.assertEqual(self.queue.admin.count(), {})

    def test_an_error_while_a_mail_is_settled_is_about_that_mail(self) -> None:
        """It stays locked; the one that rode behind it is as before, and is told of nothing."""
        first, second = self.put(count=2)
        claim = self.queue.claim

        def broken(limit: int = 1, *, ahead: int = 0) -> Any:
            for lease in claim(limit):
                if lease.name == first:
                    lease.settle = lease.settle_sent = mock.Mock(side_effect=RuntimeError("bug"))
                return [lease]
            return []

        at_the_end: list[State] = []
        self.queue.claim = broken
        self.queue.close = lambda: at_the_end.extend(self.queue.admin.show(name).state for name in (first, second))
        with (
            mock.patch.object(ScriptedSession, "stream", _each_behind_another, create=True),
            self.assertLogs("QueueProcessorThread", "ERROR") as logs,
        ):
            self.drain()
        self.assertEqual(self.sent_to(), ["0@example.org"])
        self.assertEqual(at_the_end, [State.SENDING, State.READY])
        self.assertEqual((list(self.queue.admin.show(second).history), self.events), ([], []))
        about_mails = [line for line in logs.output if ":Mail " in line]
        self.assertEqual(len(about_mails), 1)
        self.assertIn(f"Mail {first}: an unexpected error after its attempt (RuntimeError: bug)", about_mails[0])

    def test_a_run_that_breaks_off_closes_the_stream(self) -> None:
        """Before it gives back what was to follow."""
        self.put(count=2)
        ends: list[list[State]] = []

        def watched(session: ScriptedSession, jobs: Any) -> Any:
            try:
                yield from _each_behind_another(session, jobs)
            finally:
                ends.append([mail.state for mail in self.queue.admin.mails()])

        self.processor.relays.default.heard = mock.Mock(side_effect=RuntimeError("bug"))  # type: ignore[method-assign]  # a fault in its place
        with (
            mock.patch.object(ScriptedSession, "stream", watched, create=True),
            self.assertLogs("QueueProcessorThread", "ERROR"),
        ):
            self.drain()
        self.assertEqual(ends, [[State.SENDING, State.SENDING]])

    def test_needs_a_queue_and_a_mailer(self) -> None:
        """And says so."""
        with self.assertRaisesRegex(ValueError, "setQueuePath"):
            QueueProcessorThread().run(forever=False)
        self.assertRaises(ValueError, QueueProcessorThread, 0)


class ARunningThread(unittest.TestCase):
    """Real threads and a real queue directory."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(self.path)
        self.mailer = ScriptedMailer()
        self.thread = QueueProcessorThread(interval=3600)
        self.thread.setMailer(self.mailer)
        self.thread.setQueuePath(self.path)

    def tearDown(self) -> None:
        self.thread.stop()
        if self.thread.is_alive():
            self.thread.join(300)

    def put(self, count: int = 1) -> None:
        staged = self.queue.stage()
        for number in range(count):
            staged.add(Envelope("sender@example.org", (f"{number}@example.org",)), MESSAGE)
        staged.prepare()
        staged.commit()

    def start_idle(self) -> None:
        """Start, and return when the thread waits."""
        waiting = threading.Event()
        queue: Any = self.thread.queue
        wait = queue.wait

        def noted(timeout: float) -> None:
            waiting.set()
            wait(timeout)

        queue.wait = noted
        self.thread.start()
        self.assertTrue(waiting.wait(300))

    def test_a_commit_wakes_it(self) -> None:
        """Although it looks only once in an hour by itself."""
        arrived = threading.Event()
        self.mailer.before = lambda envelope: arrived.set()
        self.start_idle()
        self.put()
        self.assertTrue(arrived.wait(300))

    def test_stops_when_idle(self) -> None:
        """Although it looks only once in an hour."""
        self.start_idle()
        self.thread.stop()
        self.thread.join(300)
        self.assertFalse(self.thread.is_alive())

    def test_finishes_the_message_in_hand_when_stopped(self) -> None:
        """And takes no other."""
        reached, go = threading.Event(), threading.Event()

        def before(envelope: Envelope) -> None:
            reached.set()
            go.wait(300)

        self.mailer.before = before
        self.put(3)
        self.thread.start()
        self.assertTrue(reached.wait(300))
        self.thread.stop()
        go.set()
        self.thread.join(300)
        self.assertEqual(len(self.mailer.sent), 1)
        self.assertEqual(self.queue.admin.count(), {State.READY: 2})

    def test_finishes_what_is_due(self) -> None:
        """What comes while it does so included; then it ends, although it looks only once in an hour."""
        self.put(3)
        self.start_idle()
        self.put(5)
        self.thread.finish()
        self.thread.join(300)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual((len(self.mailer.sent), self.queue.admin.count()), (8, {}))

    def test_finishes_although_nobody_hears_its_bell(self) -> None:
        """There is none before the queue was first looked at, and it may be told then."""
        queue: Any = self.thread.queue
        queue.wake = lambda: None
        self.mailer.before = lambda envelope: self.thread.finish()
        self.put()
        self.thread.start()
        self.thread.join(300)
        self.assertFalse(self.thread.is_alive())

    def test_says_goodbye_to_the_relay(self) -> None:
        """Every session is closed at the end, however many were worth while."""
        self.put(3)
        self.thread.run(forever=False)
        self.assertEqual({session.closed for session in self.mailer.sessions}, {True})
        self.assertEqual(len(self.mailer.sent), 3)

    def test_several_conversations_at_the_same_time(self) -> None:
        """As many as allowed while much is due, and each mail once."""
        meeting = threading.Barrier(3)
        met = threading.Event()

        def before(envelope: Envelope) -> None:
            if not met.is_set():
                meeting.wait(300)
                met.set()

        self.mailer.before = before
        self.thread.concurrency = 3
        self.put(50)
        self.thread.run(forever=False)
        self.assertTrue(met.is_set())
        self.assertEqual(len(self.mailer.sessions), 3)
        self.assertEqual(sorted(mail[1][0] for mail in self.mailer.sent), sorted(f"{n}@example.org" for n in range(50)))

    def test_old_names_work(self) -> None:
        """setMaildir, maildir, queuePath, pollingInterval."""
        from zope.sendmail.maildir import Maildir

        self.thread.setMaildir(Maildir(self.path, True))
        self.assertEqual((self.thread.queuePath, self.thread.pollingInterval), (self.path, 3_600_000))
        self.put()
        maildir: Any = self.thread.maildir
        self.assertEqual(len(list(maildir)), 1)
        self.assertTrue(self.thread.daemon)


del ProcessorTest
