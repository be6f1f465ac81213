"""A relay that wants fewer connections, or less mail at a time."""

from __future__ import annotations

import unittest
from collections import deque
from typing import Any

from zope.sendmail.events import MailErrorEvent
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.throttling import complaints_in
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.relay import MAX_CONNECTIONS, Relay
from zope.sendmail.processor.throttle import Hearing, MailInHand
from zope.sendmail.testing.contracts import OK, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.transports.failover import BalancedMailer, FailoverMailer

BUSY = Reply.of(451, "4.7.500 Server busy. Please try again later from [192.0.2.1].")
THREADS = Reply.of(432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")
SES = Reply.of(454, "Throttling failure: Maximum sending rate exceeded.")
STALWART = Reply.of(452, "4.4.5 Rate limit exceeded, try again later.")
CROWDED = Reply.of(421, "4.7.0 Too many connections; try again later")
GREYLISTED = Reply.of(450, "4.7.1 Greylisted, please try again in 300 seconds")


class LimitedMailer(ScriptedMailer):
    """A relay that takes `most` mails within so many seconds; a mail takes ten milliseconds by the clock."""

    def __init__(self, clock: ManualClock, most: int, seconds: float, refusal: Reply) -> None:
        super().__init__(self.answer)
        self.clock = clock
        self.most, self.seconds, self.refusal = most, seconds, refusal
        self.refusals = 0
        self._times: deque[float] = deque()

    def answer(self, recipient: str) -> Reply:
        self.clock.advance(0.01)
        now = self.clock.monotonic()
        while self._times and self._times[0] <= now - self.seconds:
            self._times.popleft()
        if len(self._times) < self.most:
            self._times.append(now)
            return OK
        self.refusals += 1
        return self.refusal


class FixedWindows(LimitedMailer):
    """The same, but the count begins anew after each period."""

    period = -1.0

    def answer(self, recipient: str) -> Reply:
        period = (self.clock.monotonic() + 0.01) // self.seconds
        if period != self.period:
            self.period = period
            self._times.clear()
        return super().answer(recipient)


class AFaultAtMail(LimitedMailer):
    """The same, but the refusal costs the connection, as 421 and 454 do: the mail has its reply, the relay a fault."""

    def open_session(self) -> Any:
        session = super().open_session()
        verify = session.verify

        def faulty(envelope: Envelope, message: Any) -> Outcome:
            outcome = verify(envelope, message)
            refused = next(iter(outcome.having(Answer.DEFERRED).values()), None)
            return outcome if refused is None else Outcome(outcome.relay, outcome.replies, refused)

        session.verify = faulty  # type: ignore[method-assign]  # a fault in its place
        return session


class MailsAMinute(ProcessorTest):
    """400 mails through relays of which each takes only so many in its time."""

    def gets_nine_tenths(self, relay: LimitedMailer, mailer: Any = None) -> None:
        self.processor = self.make_processor(mailer=mailer or relay, concurrency=1)
        self.put(count=400)
        begin = self.clock.monotonic()
        self.drain()
        seconds = self.clock.monotonic() - begin
        self.assertEqual(self.processor.tally[Answer.ACCEPTED], 400)
        self.assertEqual(self.queue.admin.count(), {})
        self.assertGreaterEqual(400 / seconds, 0.9 * relay.most / relay.seconds)
        self.assertIn(relay.refusals, range(1, 40))
        self.assertEqual([event for event in self.events if isinstance(event, MailErrorEvent)], [])

    def test_microsoft_365(self) -> None:
        """30 a minute, told by 451 4.7.500, or in the words that it has for connections."""
        for refusal in BUSY, THREADS:
            for kind in LimitedMailer, FixedWindows:
                with self.subTest(refusal=refusal, kind=kind):
                    self.setUp()
                    self.gets_nine_tenths(kind(self.clock, 30, 60.0, refusal))

    def test_ses(self) -> None:
        """14 a second, told by 454, which is no login that is missing; some sandboxes allow one."""
        for most in 14, 1:
            for kind in LimitedMailer, AFaultAtMail:
                with self.subTest(most=most, kind=kind):
                    self.setUp()
                    self.gets_nine_tenths(kind(self.clock, most, 1.0, SES))

    def test_25_a_second(self) -> None:
        """In windows that begin anew with each second, as many relays count."""
        self.gets_nine_tenths(FixedWindows(self.clock, 25, 1.0, SES))

    def test_stalwart(self) -> None:
        """Ten in ten seconds."""
        self.gets_nine_tenths(LimitedMailer(self.clock, 10, 10.0, STALWART))

    def test_a_relay_behind_a_mailer_made_of_several(self) -> None:
        """The same, where nobody else can help."""
        for kind in FailoverMailer, BalancedMailer:
            with self.subTest(kind=kind):
                self.setUp()
                limited = LimitedMailer(self.clock, 30, 60.0, BUSY)
                members: Any = [limited] if kind is FailoverMailer else [(limited, 1)]
                self.gets_nine_tenths(limited, kind(members, clock=self.clock))

    def test_a_relay_among_others(self) -> None:
        """Whose mails wait for nothing."""
        limited = LimitedMailer(self.clock, 30, 60.0, BUSY)
        routes = Routes("main", frozenset({"limited"}), recipients={"@limited.example": "limited"})
        self.processor = self.make_processor(routes=routes, mailers={"limited": limited}, concurrency=1)
        self.put("a@limited.example", "b@example.org", count=400)
        begin = self.clock.monotonic()
        while self.queue.admin.count() and self.clock.monotonic() - begin < 86400:
            self.drain()
        self.assertEqual((len(limited.sent), len(self.mailer.sent)), (400, 400))
        self.assertGreaterEqual(400 / (self.clock.monotonic() - begin), 0.9 * 0.5)

    def test_a_limit_of_an_hour_is_waited_for(self) -> None:
        """With few questions meanwhile, and no mail is charged."""
        mailer = LimitedMailer(self.clock, 100, 3600.0, BUSY)
        self.processor = self.make_processor(mailer=mailer, concurrency=1)
        self.put(count=400)
        begin = self.clock.monotonic()
        while self.clock.monotonic() - begin < 3.2 * 3600:
            self.drain(60)
        self.assertEqual((len(mailer.sent), self.queue.admin.count()), (400, {}))
        self.assertLess(mailer.refusals, 120)


class ARelayThatRefusesEverything(ProcessorTest):
    """With words that say that it is too much."""

    def note_questions(self) -> list[float]:
        """When the relay was asked."""
        asked: list[float] = []
        self.mailer.before = lambda envelope: asked.append(self.clock.monotonic())
        return asked

    def test_is_asked_less_and_less_often(self) -> None:
        """In the first hour some twenty times, then every five minutes; no mail is charged with an attempt."""
        for fault in False, True:
            with self.subTest(fault=fault):
                self.setUp()
                asked = self.note_questions()
                self.mailer.fault = CROWDED if fault else None
                self.mailer.answers = lambda who: CROWDED
                names = self.put(count=10)
                begin = self.clock.monotonic()
                while self.clock.monotonic() - begin < 3600:
                    self.drain(1)
                self.assertLess(len(asked), 25)
                self.assertLess(len([at for at in asked if at - begin > 1800]), 8)
                for name in names:
                    history = self.queue.admin.show(name).history
                    self.assertEqual(history[-1].attempts if history else 0, 0)
                self.assertIsNotNone(self.processor.fault)
                self.mailer.fault, self.mailer.answers = None, lambda who: OK
                self.drain(300)
                self.drain(60)
                self.assertEqual(len(self.mailer.sent), 10)

    def test_after_it_took_some(self) -> None:
        """It is not asked more often for that."""
        taken = 5

        def answer(who: str) -> Reply:
            return OK if len(self.mailer.sent) < taken else BUSY

        asked = self.note_questions()
        self.mailer.answers = answer
        self.put(count=20)
        begin = self.clock.monotonic()
        while self.clock.monotonic() - begin < 7200:
            self.drain(1)
        self.assertEqual(len(self.mailer.sent), taken)
        self.assertLess(len(asked) - taken, 60)
        gaps = [later - earlier for earlier, later in zip(asked[-10:], asked[-9:], strict=False)]
        self.assertGreaterEqual(min(gaps), 60)


class AMailThatIsTooMuchByItself(ProcessorTest):
    """Its recipient gets too much from us (Stalwart: 25 mails an hour), and others do not."""

    def test_delays_no_other(self) -> None:
        """The next one is tried at once; this one is deferred as ever when others were taken beside it."""
        self.mailer.answers = lambda who: STALWART if who.startswith("0@") else OK
        [first, *_] = self.put(count=200)
        self.drain()
        for _ in range(10):
            self.drain(10)
        self.assertEqual(len(self.mailer.sent), 199)
        self.assertEqual(self.clock.monotonic(), 1100.0)
        for _ in range(10):
            self.drain(60)
        [mail] = self.queue.admin.mails()
        self.assertEqual((mail.name, mail.state), (first, State.DEFERRED))
        self.assertGreaterEqual(mail.history[-1].attempts, 1)

    def test_alone_in_the_queue_holds_up_none_that_comes_later(self) -> None:
        """The relay has refused nothing else."""
        asked: list[str] = []
        self.mailer.before = lambda envelope: asked.extend(envelope.recipients)
        self.mailer.answers = lambda who: STALWART if who.startswith("0@") else OK
        self.put()
        for number in range(1, 60):
            self.drain(60)
            now = self.clock.monotonic()
            self.put(f"later{number}@example.org")
            self.drain()
            self.assertEqual((self.clock.monotonic(), self.sent_to()[-1:]), (now, [f"later{number}@example.org"]))
        self.assertLess(asked.count("0@example.org"), 20)

    def test_one_recipient_of_several(self) -> None:
        """Who was taken has the mail; the other is tried again soon, and that is no attempt."""
        self.mailer.answers = lambda who: OK if who.startswith("a") or self.clock.monotonic() > 1009 else STALWART
        [name] = self.put("a@example.org", "b@example.org")
        self.drain()
        record = self.queue.admin.show(name).history[-1]
        self.assertEqual((record.attempts, record.due - record.time), (0, 10.0))
        self.drain(10)
        self.assertEqual(self.sent_to(), ["a@example.org", "b@example.org"])

    def test_greylisting_is_none(self) -> None:
        """It is deferred for a minute, and charged; the others flow."""
        self.mailer.answers = lambda who: GREYLISTED if who.startswith("0@") else OK
        [name, *_] = self.put(count=50)
        self.drain()
        record = self.queue.admin.show(name).history[-1]
        self.assertEqual((record.attempts, record.due - record.time), (1, 60.0))
        self.assertEqual((len(self.mailer.sent), self.clock.monotonic()), (49, 1000.0))


class Session:
    """Something that stands for a conversation."""


class Connections(unittest.TestCase):
    """What a relay makes of complaints."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.relay = Relay("r", ScriptedMailer(), self.clock)
        self.relay.heard(Outcome("r:25", {"a@x.example": OK}))

    def refuse(self, reply: Reply) -> Hearing:
        outcome = Outcome.same("r:25", ["a@x.example"], reply)
        hearing = self.relay.heard(outcome, complaints_in(outcome))
        if hearing is Hearing.FEWER_CONNECTIONS:
            self.relay.workers -= 1
        return hearing

    def test_as_many_stay_as_were_not_refused(self) -> None:
        """Six of sixteen are refused at once, so it takes ten: neither eight nor fifteen."""
        self.relay.workers = 16
        for _ in range(6):
            self.assertIs(self.refuse(THREADS), Hearing.FEWER_CONNECTIONS)
        self.assertEqual((self.relay.limit, self.relay.pause(), self.relay.fault), (10, 0.0, None))

    def test_a_crowd_that_is_refused_as_a_whole_keeps_half(self) -> None:
        """A relay may refuse all as long as too many are open; mails that were begun before say no more than one."""
        self.relay.workers = 8
        for number in range(7):
            self.refuse_hand(THREADS, MailInHand(str(number), begun=self.clock.monotonic() - 1))
        self.assertEqual(self.relay.limit, 4)
        self.clock.advance(1)
        self.relay.workers = 4
        self.refuse_hand(THREADS, MailInHand("next", begun=self.clock.monotonic()))
        self.assertEqual(self.relay.limit, 3)

    def test_words_about_connections_may_be_about_mails(self) -> None:
        """Three have worked side by side; if two are refused as well, they come back, and the mails go slower."""
        sessions = [Session() for _ in range(3)]
        self.relay.workers = 3
        for session in sessions:
            self.relay.heard(
                Outcome("r:25", {"a@x.example": OK}), hand=MailInHand("taken", self.clock.monotonic(), session)
            )
        self.assertIs(self.refuse_hand(THREADS, MailInHand("1", self.clock.monotonic())), Hearing.FEWER_CONNECTIONS)
        self.assertEqual(self.relay.limit, 2)
        self.relay.workers = 2
        for number in range(2, 5):
            self.clock.advance(1)
            hearing = self.refuse_hand(THREADS, MailInHand(str(number), self.clock.monotonic()))
            self.assertIs(hearing, Hearing.SLOWER)
        self.assertEqual((self.relay.limit, self.relay.has_rate), (3, True))

    def test_mails_side_by_side_are_no_series(self) -> None:
        """Twenty that are refused in one moment are a reason to wait for half a second, not for minutes."""
        begun = self.clock.monotonic()
        self.clock.advance(0.1)
        self.relay.workers = 20
        for number in range(20):
            self.assertIs(self.refuse_hand(SES, MailInHand(str(number), begun)), Hearing.SLOWER)
            self.assertEqual(self.relay.throttle.again(str(number)), 0.0)
        self.assertEqual(self.relay.turn(), 0.5)
        self.relay.heard(Outcome("r:25", {"a@x.example": OK}), hand=MailInHand("beside", begun))
        self.assertEqual(self.relay.turn(), 0.5)

    def refuse_hand(self, reply: Reply, hand: MailInHand) -> Hearing:
        """Let the relay hear a refusal of this mail."""
        outcome = Outcome.same("r:25", ["a@x.example"], reply)
        return self.relay.heard(outcome, complaints_in(outcome), hand)

    def test_also_if_they_hear_it_before_one_has_left(self) -> None:
        """Threads take their time."""
        self.relay.workers = 16
        outcome = Outcome.same("r:25", ["a@x.example"], THREADS)
        for _ in range(6):
            self.relay.heard(outcome, complaints_in(outcome))
        self.assertEqual(self.relay.limit, 10)

    def test_more_are_tried_after_a_while_and_less_often_if_refused(self) -> None:
        """One more after a minute; after two if that was refused, at last once an hour."""
        self.relay.workers = 4
        self.refuse(THREADS)
        self.assertEqual(self.relay.limit, 3)
        for seconds in 60, 120, 240, 480, 960, 1920, 3600, 3600:
            self.clock.advance(seconds - 1)
            self.assertEqual(self.relay.limit, 3)
            self.clock.advance(1)
            self.assertEqual(self.relay.limit, 4)
            self.relay.workers = 4
            self.refuse(THREADS)
            self.assertEqual(self.relay.limit, 3)

    def test_a_relay_that_went_down_is_not_remembered_as_small(self) -> None:
        """Its connections broke off one after the other, the last one as well."""
        fault = Outcome("r:25", {}, Reply(Answer.DEFERRED, "connection refused"))
        self.relay.workers = 8
        self.relay.heard(fault)
        self.relay.workers = 1
        self.relay.heard(fault)
        self.assertEqual(self.relay.limit, 1)
        self.clock.advance(5)
        self.relay.heard(Outcome("r:25", {"a@x.example": OK}))
        self.assertEqual(self.relay.limit, MAX_CONNECTIONS)


del ProcessorTest

if __name__ == "__main__":
    unittest.main()
