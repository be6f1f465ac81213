"""One processor, many relays: each with its own trouble, pace and connections."""

from __future__ import annotations

import os
import tempfile
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.events import MailErrorEvent
from zope.sendmail.interfaces import InvalidRelay
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.pool import Meter
from zope.sendmail.processor.registry import RelayRegistry
from zope.sendmail.processor.relay import MAX_CONNECTIONS, Relay
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.processor.turns import SharedTurns
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK, ManualClock
from zope.sendmail.testing.relay import Relay as RealRelay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, ScriptedSession, SendOnlyMailer
from zope.sendmail.tests.support.processing import ProcessorTest

DOWN = Reply(Answer.DEFERRED, "connection refused")
TOO_MANY_THREADS = Reply.of(432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")
TOO_MANY = Reply(Answer.DEFERRED, "too many connections", 421, "4.7.0")


class ThreeRelays(ProcessorTest):
    """The default, one for news, and one for the recipients at partner.example."""

    def make_processor(self, **options: Any) -> QueueProcessorThread:
        self.news, self.partner = ScriptedMailer(), ScriptedMailer()
        routes = Routes("main", frozenset({"news", "partner"}), recipients={"@partner.example": "partner"})
        mailers = {"news": self.news, "partner": self.partner}
        return super().make_processor(**{"routes": routes, "mailers": mailers, **options})

    def put_for(self, relay: str | tuple[str, int], count: int = 1) -> list[str]:
        staged = self.queue.stage()
        names = [
            staged.add(Envelope("a@example.org", (f"{n}@example.org",), relay=RelayName.of(relay)), MESSAGE)
            for n in range(count)
        ]
        staged.prepare()
        staged.commit()
        return names

    def sent(self) -> tuple[int, int, int]:
        return len(self.mailer.sent), len(self.news.sent), len(self.partner.sent)

    def test_each_mail_goes_to_its_relay(self) -> None:
        """Named, routed by recipient, or the default; each once."""
        self.put(count=3)
        self.put("one@partner.example")
        self.put_for("news", 5)
        self.drain()
        self.assertEqual((self.sent(), self.queue.admin.count()), ((3, 5, 1), {}))

    def test_a_mail_to_people_at_several_relays(self) -> None:
        """Each relay gets its recipients; the mail is gone when all have it."""
        self.put("one@example.org", "two@partner.example", "three@example.org")
        self.drain()
        self.assertEqual(self.sent_to(), ["one@example.org", "three@example.org"])
        self.assertEqual([mail[1] for mail in self.partner.sent], [("two@partner.example",)])
        self.assertEqual(self.queue.admin.count(), {})

    def test_a_part_that_waits_does_not_send_the_others_again(self) -> None:
        """Whether a relay is down, defers or rejects."""
        for trouble in "down", "later", "never":
            with self.subTest(trouble=trouble):
                self.partner.fault = DOWN if trouble == "down" else None
                answer = LATER if trouble == "later" else NEVER
                self.partner.answers = lambda who, answer=answer: answer  # type: ignore[misc]  # bound in this round
                self.mailer.sent, self.partner.sent = [], []
                [name] = self.put("one@example.org", "two@partner.example")
                self.drain(3600)
                self.drain(3600)
                self.assertEqual(self.sent_to(), ["one@example.org"])
                self.assertEqual(
                    self.queue.admin.show(name).history[-1].replies["one@example.org"].answer, Answer.ACCEPTED
                )
                self.partner.fault = None
                self.partner.answers = lambda who: Reply(Answer.ACCEPTED, "ok", 250)
                if trouble == "never":
                    self.queue.admin.retry(name)
                self.drain(3600)
                self.assertEqual((self.sent_to(), len(self.partner.sent)), (["one@example.org"], 1))
                self.assertEqual(self.queue.admin.count(), {})

    def test_a_dead_relay_delays_nobody_elses_mail(self) -> None:
        """Although its mails are the oldest; they lose no attempt and leave when it is back."""
        names = self.put_for("news", 50)
        self.put(count=3)
        self.put("one@partner.example")
        self.news.fault = DOWN
        self.drain()
        self.assertEqual((self.sent(), self.queue.admin.count()), ((3, 0, 1), {State.READY: 50}))
        self.put(count=2)
        self.drain()
        self.assertEqual(self.sent(), (5, 0, 1))
        self.assertEqual([self.queue.admin.show(name).history for name in names], [()] * 50)
        self.news.fault = None
        self.drain(5)
        self.assertEqual((self.sent(), self.queue.admin.count()), ((5, 50, 1), {}))

    def test_a_dead_relay_is_probed_with_one_mail(self) -> None:
        """Not by all that wait for it."""
        tries: list[str] = []
        self.news.before = lambda envelope: tries.append(envelope.recipients[0])
        self.put_for("news", 50)
        self.news.fault = DOWN
        for _ in range(5):
            tries.clear()
            self.drain(300)
            self.assertEqual(len(tries), 1)

    def test_a_relay_that_may_not_be_named_is_set_aside(self) -> None:
        """Not sent; the reason is told, and others flow."""
        [evil] = self.put_for(("evil.example", 25))
        self.put()
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.drain()
        self.assertIn("evil.example:25", "".join(logs.output))
        mail = self.queue.admin.show(evil)
        self.assertEqual((mail.state, self.sent()), (State.REJECTED, (1, 0, 0)))
        self.assertIn("may not name the relay", mail.history[-1].note)
        [error] = [event for event in self.events if isinstance(event, MailErrorEvent)]
        self.assertEqual((error.messageId, list(error.replies)), ("1@example.org", ["0@example.org"]))
        self.assertIn("may not name the relay", error.errorMessage)

    def test_who_has_a_mail_does_not_get_it_again_after_it_was_set_aside(self) -> None:
        """Its relay was taken out of the configuration for a while; then somebody says retry."""
        self.news.answers = lambda who: LATER if who.startswith("late") else OK
        staged = self.queue.stage()
        to = ("first@example.org", "late@example.org")
        name = staged.add(Envelope("a@example.org", to, relay=RelayName(mailer="news")), MESSAGE)
        staged.commit()
        self.drain()
        news = self.news
        self.processor = super().make_processor()
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain(100)
        self.assertEqual(self.queue.admin.show(name).state, State.REJECTED)
        self.queue.admin.retry(name)
        self.processor = self.make_processor(mailers={"news": news, "partner": self.partner})
        news.answers = lambda who: OK
        self.drain()
        self.assertEqual([mail[1] for mail in news.sent], [("first@example.org",), ("late@example.org",)])

    def test_mailers_that_the_routes_name_are_needed(self) -> None:
        """Found out at once."""
        with self.assertRaisesRegex(ValueError, "bulk"):
            QueueProcessorThread(routes=Routes("main", frozenset({"bulk"})))


class AnAddress(unittest.TestCase):
    """A relay that a mail names by host and port."""

    def relays(self, **options: Any) -> RelayRegistry:
        self.default = SMTPMailer(hostname="main.example", port=25)
        self.known = SMTPMailer(hostname="Known.example", port=26, username="u", password="secret")
        addresses = frozenset({("known.example", 26), ("free.example", 25), ("free.example", 465)})
        routes = Routes("main", frozenset({"known"}), addresses, **options)
        return RelayRegistry(self.default, {"known": self.known}, routes, ManualClock())

    def mailer(self, relay: RelayName, **options: Any) -> Any:
        return self.relays(**options).of(relay).mailer

    def test_with_a_mailer_gets_its_password(self) -> None:
        """The registered mailer serves it."""
        self.assertIs(self.mailer(RelayName(hostname="known.example", port=26)), self.known)

    def test_without_a_mailer_gets_no_password(self) -> None:
        """TLS as opportunity, or from the first byte on port 465."""
        for port, tls in (25, "opportunistic"), (465, "implicit"):
            settings = self.mailer(RelayName(hostname="free.example", port=port)).relay_settings()
            self.assertEqual((settings.username, settings.tls, str(settings)), (None, tls, f"free.example:{port}"))

    def test_a_login_in_the_file_that_can_be_none_is_refused(self) -> None:
        """So the file is set aside; otherwise it would wait for ever."""
        for username, password, why in ("u\x00v", "p", "control characters"), ("u", "p\udce9", "UTF-8"):
            relay = RelayName(hostname="free.example", port=25, username=username, password=password)
            with self.subTest(why=why), self.assertRaisesRegex(InvalidRelay, why) as caught:
                self.relays(legacy_passwords=True).of(relay)
            self.assertNotIn("udce9", repr(caught.exception))

    def test_a_password_in_the_file_goes_over_verified_tls(self) -> None:
        """And only there."""
        relay = RelayName(hostname="free.example", port=25, username="u", password="p")
        settings = self.mailer(relay, legacy_passwords=True).relay_settings()
        self.assertEqual((settings.username, settings.tls), ("u", "required"))
        self.assertTrue(settings.must_verify and settings.must_encrypt and not settings.allow_clear_password)


class ThePace(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.mailer: Any = SMTPMailer()

    def relay(self, connections: int | None = None) -> Relay:
        return Relay("r", self.mailer, self.clock, connections)

    def test_as_many_connections_as_somebody_says(self) -> None:
        """The processor, the mailer, or the smaller of both; one for a mailer that keeps no sessions."""
        self.assertEqual(self.relay().limit, MAX_CONNECTIONS)
        self.assertEqual(self.relay(3).limit, 3)
        self.mailer = SMTPMailer(connections=2)
        self.assertEqual((self.relay().limit, self.relay(1).limit, self.relay(3).limit), (2, 1, 2))
        self.mailer = SendOnlyMailer()
        self.assertEqual((self.relay().limit, self.relay(3).limit), (1, 3))

    def test_too_many_recipients_are_none_of_its_connections(self) -> None:
        """A large mail does not slow down all others."""
        relay = self.relay()
        relay.workers = 8
        limit = Reply.of(452, "4.5.3 Error: too many recipients")
        relay.heard(Outcome("r:25", {"a@example.org": Reply.of(250, "ok"), "b@example.org": limit}))
        self.assertEqual(relay.limit, MAX_CONNECTIONS)

    def test_connections_that_break_off_while_others_work_are_too_many(self) -> None:
        """Half of what there is; after a while one more, then two; the relay is not taken for down."""
        relay = self.relay()
        relay.workers = 8
        relay.heard(Outcome("r:25"))
        refused = Outcome("r:25", {}, Reply(Answer.DEFERRED, "connection refused"))
        for _ in range(3):  # they are one refusal
            relay.heard(refused)
        self.assertEqual((relay.limit, relay.pause(), relay.fault), (4, 0.0, None))
        for limit in 5, 7, 11, 19, MAX_CONNECTIONS:
            self.clock.advance(59)
            self.assertLess(relay.limit, limit)
            self.clock.advance(1)
            self.assertEqual(relay.limit, limit)

    def test_a_relay_that_is_down_for_all_is_down(self) -> None:
        """The last connection that fails says so; then one mail at a time until one gets through."""
        relay = self.relay()
        relay.workers = 1
        relay.heard(Outcome("r:25", {}, DOWN))
        self.assertEqual((relay.limit, relay.pause()), (1, 5.0))
        self.clock.advance(5)
        relay.heard(Outcome("r:25"))
        self.assertEqual((relay.limit, relay.pause()), (MAX_CONNECTIONS, 0.0))

    def test_mails_per_second(self) -> None:
        """Over all connections; what was not used is not made up for."""
        self.mailer = SMTPMailer(rate=4)
        relay = self.relay()
        self.assertEqual([relay.turn() for _ in range(3)], [0.0, 0.25, 0.25])
        self.clock.advance(0.25)
        self.assertEqual([relay.turn() for _ in range(2)], [0.0, 0.25])
        self.clock.advance(100)
        self.assertEqual([relay.turn() for _ in range(2)], [0.0, 0.25])

    def test_mails_per_second_of_all_processors(self) -> None:
        """Two that share a queue take turns; another relay of theirs is not concerned."""
        self.mailer = SMTPMailer(shared_rate=4)
        queue = open_queue("memory:", clock=self.clock)
        one, other = SharedTurns(queue, self.clock), SharedTurns(queue, self.clock)
        relay = self.relay()
        self.assertTrue(relay.has_rate)
        sent: Counter[int] = Counter()
        begin = self.clock.monotonic()
        while self.clock.monotonic() < begin + 10:
            waits = [turns.turn(relay) for turns in (one, other)]
            sent.update(number for number, seconds in enumerate(waits) if not seconds)
            self.clock.advance(max(0.01, min(waits)))
        self.assertAlmostEqual(sent.total(), 40, delta=2)
        self.assertAlmostEqual(sent[0], sent[1], delta=2)
        self.mailer = SMTPMailer("another")
        self.assertEqual(one.turn(self.relay()), 0.0)

    def test_a_turn_that_is_late_delays_no_other(self) -> None:
        """A thread wakes up a little later than it wanted, each time."""
        self.mailer = SMTPMailer(rate=4)
        relay = self.relay()
        begin = self.clock.monotonic()
        for _ in range(100):
            while (seconds := relay.turn()) > 0.0:
                self.clock.advance(seconds + 0.01)
        self.assertLess(self.clock.monotonic() - begin, 25.0)

    def test_a_rate_is_kept_by_the_processor(self) -> None:
        """By the clock, not by chance."""
        queue = open_queue("memory:", clock=self.clock)
        staged = queue.stage()
        for _ in range(5):
            staged.add(Envelope("a@example.org", ("b@example.org",)), MESSAGE)
        staged.commit()
        mailer: Any = ScriptedMailer()
        mailer.rate = 2.0
        times: list[float] = []
        mailer.before = lambda envelope: times.append(self.clock.monotonic())
        QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock, tell=lambda events: None).run(forever=False)
        self.assertEqual([each - times[0] for each in times], [0.0, 0.5, 1.0, 1.5, 2.0])

    def test_bad_limits_are_refused(self) -> None:
        """No mail ever would leave."""
        self.assertRaises(ValueError, SMTPMailer, rate=0)
        self.assertRaises(ValueError, SMTPMailer, connections=0)

    def test_a_busy_process_is_not_waiting(self) -> None:
        """More threads would only get in each other's way."""

        class Used(ManualClock):
            used = 0.0

            def cpu(self) -> float:
                return self.used

        clock = Used()
        meter = Meter(clock, 0.6)
        self.assertFalse(meter.is_waiting())  # no time has passed
        for used, waiting in (0.0, True), (0.5, True), (0.9, False), (2.0, False):
            clock.advance(1.0)
            clock.used += used
            self.assertEqual(meter.is_waiting(), waiting)


class GoodbyesTogether(unittest.TestCase):
    """Three connections to a relay that answers to no QUIT before it has heard all of them."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        said = self.said = threading.Barrier(3)
        clock = self.clock

        class Goodbye(ScriptedSession):
            is_first = False

            def rest(self) -> None:
                if self.is_first:  # it was closed, and its relay was waited for
                    clock.advance(1.0)
                else:
                    said.wait(300)

            def close(self) -> None:
                said.wait(300)
                super().close()

        class Mailer(ScriptedMailer):
            def open_session(self) -> ScriptedSession:
                return Goodbye(self)

        self.mailer: Any = Mailer()

    def fill(self, relay: Relay, count: int) -> list[Any]:
        sessions = [relay.session(self.mailer) for _ in range(count)]
        self.assertTrue(all(relay.put_back(each, self.mailer) for each in sessions))
        return sessions

    def test_at_the_end_of_the_processor(self) -> None:
        """It takes one round trip, and with a relay that is gone one timeout."""
        processor = QueueProcessorThread(queue=open_queue("memory:"), mailer=self.mailer, tell=lambda events: None)
        sessions = self.fill(processor.relays.default, 3)
        processor.run(forever=False)
        self.assertEqual(([each.closed for each in sessions], self.said.broken), ([True] * 3, False))

    def test_when_the_relay_has_another_mailer(self) -> None:
        """The worker that meets that has its new connection soon."""
        relay = Relay("r", self.mailer, self.clock)
        sessions = self.fill(relay, 3)
        self.assertNotIn(relay.session(ScriptedMailer()), sessions)
        self.assertEqual([each.closed for each in sessions], [True] * 3)

    def test_of_sessions_that_rest(self) -> None:
        """Once one of them has taken its time; the processor does nothing else meanwhile."""
        relay = Relay("r", self.mailer, self.clock)
        sessions = self.fill(relay, 4)
        sessions[0].is_first = True
        relay.rest()
        self.assertFalse(self.said.broken)
        self.assertEqual(set(map(id, relay.end())), set(map(id, sessions)))


class TwoPlaces(ScriptedMailer):
    """A relay that takes two connections at a time; nobody is served before a third has been refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()
        self.mutex = threading.Lock()
        self.connected: set[ScriptedSession] = set()

    def open_session(self) -> ScriptedSession:
        """Connects with its first mail, as real ones do."""
        session = super().open_session()
        transfer, close = session.transfer, session.close

        def limited(envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
            with self.mutex:
                if session not in self.connected and len(self.connected) >= 2:
                    self.refused.set()
                    return Outcome(session.relay, {}, TOO_MANY)
                self.connected.add(session)
            self.refused.wait(300)
            return transfer(envelope, message, intend)

        def disconnect() -> None:
            with self.mutex:
                self.connected.discard(session)
            close()

        session.transfer = limited  # type: ignore[method-assign]  # a fault in its place
        session.close = disconnect  # type: ignore[method-assign]  # a fault in its place
        return session


class ThreeThreads(ScriptedMailer):
    """Microsoft 365: three mails at a time; no mail is taken as long as there are more than three connections.

    The connection of a refused mail goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.threads = self.refusals = self.open = 0

    def open_session(self) -> ScriptedSession:
        """See `ISessionMailer`."""
        session = super().open_session()
        transfer = session.transfer
        self._count(session)

        def limited(envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
            with self.changed:
                self.threads += 1
                is_one_too_many = self.threads > 3
            try:
                if is_one_too_many:
                    with self.changed:
                        self.refusals += 1
                    return Outcome.same(session.relay, envelope.recipients, TOO_MANY_THREADS)
                with self.changed:
                    self.changed.wait_for(lambda: self.refusals and self.open <= 3, 60)
                return transfer(envelope, message, intend)
            finally:
                with self.changed:
                    self.threads -= 1

        session.transfer = limited  # type: ignore[method-assign]  # a fault in its place
        return session

    def _count(self, session: ScriptedSession) -> None:
        """Count a session as long as it is not closed."""
        close = session.close
        with self.changed:
            self.open += 1

        def closed() -> None:
            close()
            with self.changed:
                self.open -= 1
                self.changed.notify_all()

        session.close = closed  # type: ignore[method-assign]  # it counts


class RealConnections(unittest.TestCase):
    """Threads, sockets, a directory."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(self.path)

    def put(self, count: int, *relays: RelayName | None) -> None:
        staged = self.queue.stage()
        for number in range(count):
            envelope = Envelope("a@example.org", (f"{number}@example.org",), relay=relays[number % len(relays)])
            staged.add(envelope, MESSAGE)
        staged.prepare()
        staged.commit()

    def drain(self, mailer: Any, **options: Any) -> QueueProcessorThread:
        processor = QueueProcessorThread(queue=self.queue, mailer=mailer, tell=lambda events: None, **options)
        processor.run(forever=False)
        return processor

    def once(self, recipients: Sequence[str], count: int) -> None:
        self.assertEqual(Counter(recipients), Counter(f"{n}@example.org" for n in range(count)))

    def test_a_slow_relay_gets_more_connections(self) -> None:
        """As long as it keeps us waiting; each mail once."""
        mailer, meeting, met = ScriptedMailer(), threading.Barrier(8), threading.Event()

        def meet(envelope: Envelope) -> None:
            if not met.is_set():
                meeting.wait(300)
                met.set()

        mailer.before = meet
        self.put(100, None)
        self.drain(mailer)
        self.assertTrue(met.is_set())
        self.once([mail[1][0] for mail in mailer.sent], 100)

    def look(self, *distances: float | None, mails: int, meet: int) -> None:
        """Look whether more workers are needed, as often as there are distances of the relay.

        :param meet: so many mails wait for one another
        """
        mailer, meeting, met = ScriptedMailer(), threading.Barrier(meet), threading.Event()

        def wait(envelope: Envelope) -> None:
            if not met.is_set():
                meeting.wait(300)
                met.set()

        class Looks(threading.Event):
            seen = 0

            def wait(self, timeout: float | None = None) -> bool:
                self.seen += 1
                return self.seen > len(distances)

        mailer.before = wait
        for _ in range(4):  # a file each, and no bundle that is unfolded beside the test
            self.put(mails // 4, None)
        processor = QueueProcessorThread(queue=self.queue, mailer=mailer, tell=lambda events: None)
        run, relay, looks = processor.new_run(), processor.relays.default, Looks()
        self.queue.claim(0)
        self.assertEqual(self.queue.count_due(100), mails)

        def distance(_: object = None) -> float | None:
            return distances[max(0, min(looks.seen, len(distances)) - 1)]

        relay.lanes.distance = distance
        self.enterContext(mock.patch.object(ScriptedSession, "distance", distance, create=True))
        self.enterContext(mock.patch.object(Meter, "is_waiting", return_value=True))
        self.enterContext(mock.patch.object(run.pool, "_consider_more"))  # no others look
        run.pool._scale(relay, looks)
        run.pool.end()
        self.assertTrue(met.is_set())
        self.assertEqual(len(mailer.sent), mails)

    def test_a_relay_that_is_known_to_be_far_gets_all_at_once(self) -> None:
        """At the first look: as many as the mails that wait pay for."""
        self.look(0.020, mails=24, meet=6)

    def test_a_relay_that_is_found_to_be_far_gets_all_at_once(self) -> None:
        """At the look after it has answered for the first time."""
        self.look(None, 0.020, mails=80, meet=16)

    def test_a_relay_with_few_places_is_not_pressed(self) -> None:
        """Two connections are welcome, a third is told 421; every mail arrives and loses no attempt."""
        mailer = TwoPlaces()
        self.put(60, None)
        self.drain(mailer)
        self.assertTrue(mailer.refused.is_set())
        self.once([mail[1][0] for mail in mailer.sent], 60)
        self.assertEqual(self.queue.admin.count(), {})

    def test_a_relay_that_takes_three_mails_at_a_time_gets_three(self) -> None:
        """A fourth is told so, and leaves; its mail is given back as if untried."""
        mailer = ThreeThreads()
        self.put(400, None)
        processor = self.drain(mailer)
        self.assertTrue(mailer.refusals)
        self.once([mail[1][0] for mail in mailer.sent], 400)
        self.assertEqual((self.queue.admin.count(), processor.tally), ({}, {Answer.ACCEPTED: 400}))
        self.assertLess(mailer.refusals, 40)
        self.assertLessEqual(processor.relays.default.limit, 3)

    def test_a_relay_that_goes_down_is_left_alone_at_once(self) -> None:
        """However many connections there were: each finds out once, then it is paused."""
        mailer, meeting, met = ScriptedMailer(), threading.Barrier(8), threading.Event()
        tries: list[Envelope] = []

        def fall(envelope: Envelope) -> None:
            if not met.is_set():
                meeting.wait(300)
                met.set()
                return
            mailer.fault = DOWN
            tries.append(envelope)

        mailer.before = fall
        self.put(500, None)
        self.drain(mailer)
        self.assertTrue(met.is_set())
        self.assertLess(len(tries), 3 * MAX_CONNECTIONS)
        self.assertGreater(self.queue.admin.count()[State.READY], 400)

    def test_three_relays_one_down_for_a_while(self) -> None:
        """300 mails spread over them: each at its relay once."""
        servers = [self.enterContext(RealRelay()) for _ in range(3)]
        mailers = {str(n): SMTPMailer(hostname=each.host, port=each.port) for n, each in enumerate(servers)}
        routes = Routes("0", frozenset({"1", "2"}))
        self.put(300, None, RelayName(mailer="1"), RelayName(mailer="2"))
        servers[1].stop()
        options = {"routes": routes, "mailers": mailers}
        self.drain(mailers["0"], **options)
        self.assertEqual([len(each.mails) for each in servers], [100, 0, 100])
        self.assertEqual(self.queue.admin.count(), {State.READY: 100})
        servers[1].start()
        self.drain(mailers["0"], **options)
        self.assertEqual([len(each.mails) for each in servers], [100, 100, 100])
        self.assertEqual(self.queue.admin.count(), {})
        for number, server in enumerate(servers):
            received = sorted(int(mail.recipients[0].partition("@")[0]) for mail in server.mails)
            self.assertEqual(received, list(range(number, 300, 3)))


del ProcessorTest
