"""What can go wrong between a processor and its relays without a relay having done anything."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from itertools import pairwise
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.events import MailDeferredEvent
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record, read_records, write_record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.processor.registry import RelayRegistry
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.processor.worker import Worker
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, ScriptedSession
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.processing import ProcessorTest

ONE = "one@example.org"
LOST = Reply(Answer.UNKNOWN, "no reply")
DOWN = Reply(Answer.DEFERRED, "connection refused")


class NoSessions(ScriptedMailer):
    """A mailer that cannot make a session, as long as it is told so."""

    broken = True
    asked = 0

    def open_session(self) -> ScriptedSession:
        """See `ISessionMailer`."""
        self.asked += 1
        if self.broken:
            raise ValueError("there is no mailer behind")
        return super().open_session()


class Stuck(ScriptedMailer):
    """A relay that says nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.tried = 0
        self.before = self._hang

    def _hang(self, envelope: Envelope) -> None:
        self.tried += 1
        self.let_go.wait()


class AMailerWithoutASession(ProcessorTest):
    """Its relay cannot be used."""

    def test_is_probed_like_a_relay_that_is_down(self) -> None:
        """No mail loses an attempt, no connection stays counted, and mail flows as soon as it works."""
        for routes in Routes(), Routes("main", frozenset({"other"})):
            with self.subTest(routes=routes):
                self.mailer = NoSessions()
                self.processor = self.make_processor(routes=routes, mailers={"other": ScriptedMailer()})
                names = self.put(count=30)
                self.drain()
                relay = self.processor.relays.default
                self.assertEqual((relay.workers, relay.pause(), self.mailer.asked), (0, 5.0, 1))
                self.assertIn("no mailer behind", str(self.processor.fault))
                self.assertEqual([self.queue.admin.show(name).history for name in names], [()] * 30)
                self.mailer.broken = False
                self.drain(5)
                self.assertEqual((len(self.mailer.sent), relay.workers, self.queue.admin.count()), (30, 0, {}))


class AMailerThatAnswersNonsense(ProcessorTest):
    def test_costs_the_mail_an_attempt_and_leaks_nothing(self) -> None:
        """Whatever it returns in place of an outcome; it may have sent the mail, so that is unknown."""
        for nonsense in None, 250, {"one@example.org": (250, b"ok")}, Outcome("r", {"0@example.org": None}):  # type: ignore[dict-item]  # all wrong
            with self.subTest(nonsense=nonsense):
                [name] = self.put()

                def transfer(
                    session: Any,
                    envelope: Envelope,
                    message: BinaryIO,
                    intend: Callable[[], None],
                    told: Any = nonsense,
                ) -> Any:
                    intend()
                    return told

                with mock.patch.object(ScriptedSession, "transfer", transfer):
                    self.drain()
                last = self.queue.admin.show(name).history[-1]
                self.assertEqual((last.state, last.attempts), (State.DEFERRED, 1))
                self.assertEqual(last.replies["0@example.org"].answer, Answer.UNKNOWN)
                self.drain(60)
                self.assertEqual(self.queue.admin.count(), {})


class AReportThatCannotBeMade(ProcessorTest):
    def test_does_not_undo_what_the_relay_said(self) -> None:
        """The mail is settled, and the log tells of the report."""
        self.processor = self.make_processor(notify_sender=True)
        self.mailer.answers = lambda who: NEVER
        [name] = self.put()
        with (
            mock.patch("zope.sendmail.reporting.reporter.notification", side_effect=OSError("input/output error")),
            self.assertLogs("QueueProcessorThread", "ERROR") as logs,
        ):
            self.drain()
        self.assertEqual(self.queue.admin.show(name).state, State.REJECTED)
        self.assertIn("input/output error", "".join(logs.output))


class AMailForPeopleAtTwoRelays(ProcessorTest):
    """One of which defers it."""

    def setUp(self) -> None:
        self.partner = ScriptedMailer()
        super().setUp()
        self.processor = self.make_processor(
            routes=Routes("main", frozenset({"partner"}), recipients={"@partner.example": "partner"}),
            mailers={"partner": self.partner},
        )
        self.mailer.answers = lambda who: LATER

    def test_goes_to_the_other_at_once(self) -> None:
        """Whichever of them stands first."""
        self.put("one@example.org", "two@partner.example")
        self.put("two@partner.example", "one@example.org")
        self.drain()
        self.assertEqual(len(self.partner.sent), 2)
        self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 2})

    def note_tries(self) -> list[str]:
        """Who was tried, in this order."""
        tries: list[str] = []
        for mailer in self.mailer, self.partner:
            mailer.before = lambda envelope: tries.append(envelope.recipients[0].partition("@")[0])
        return tries

    def test_is_tried_at_each_at_its_own_times(self) -> None:
        """Also when both defer it: each relay is asked as often as if the other were not."""
        self.partner.answers = lambda who: LATER
        tries = self.note_tries()
        self.put("one@example.org", "two@partner.example")
        self.drain()
        self.assertEqual(tries, ["one", "two"])
        for seconds in 60, 60, 60:  # due after 60, 180, 420 s
            self.drain(seconds)
        self.assertEqual(tries, ["one", "two"] * 3)
        self.partner.answers = lambda who: OK
        self.drain(240)
        self.assertEqual(tries, ["one", "two"] * 4)
        self.mailer.answers = lambda who: OK
        self.drain(480)
        self.assertEqual((tries, self.queue.admin.count()), (["one", "two"] * 4 + ["one"], {}))

    def test_tells_of_each_part_when_it_is_due(self) -> None:
        """Not when another one is."""
        self.put("one@example.org", "two@partner.example")
        self.drain()
        [event] = [each for each in self.events if isinstance(each, MailDeferredEvent)]
        self.assertEqual((list(event.replies), event.due), ([ONE], self.clock.time() + 60))

    def test_a_relay_that_is_down_delays_the_other_part_by_nothing(self) -> None:
        """Nor is anybody pressed: a part that was deferred is due when it is due."""
        tries = self.note_tries()
        self.put("two@partner.example", "one@example.org")
        self.partner.fault = DOWN
        self.drain()
        self.drain()
        self.assertEqual(tries, ["two", "one"])
        for _ in range(36):  # ten seconds each
            self.drain(10)
        self.assertEqual(tries.count("one"), 3)
        self.partner.fault = None
        self.drain(300)
        self.assertEqual(self.partner.sent[0][1], ("two@partner.example",))

    def test_the_down_one_is_tried_again_as_soon_as_it_is_up(self) -> None:
        """Although the other part is not due yet."""
        [name] = self.put("two@partner.example", "one@example.org")
        self.mailer.answers = lambda who: OK
        self.partner.answers = lambda who: LATER
        self.drain()
        self.assertEqual(self.queue.admin.show(name).due, self.clock.time() + 60)
        self.partner.fault = DOWN
        self.drain(60)
        self.partner.fault, self.partner.answers = None, lambda who: OK
        self.drain(5)
        self.assertEqual(self.queue.admin.count(), {})

    def test_a_part_lives_as_long_as_if_it_were_alone(self) -> None:
        """Its attempts and its days are counted for itself: a relay that was down meanwhile costs nobody a day."""
        self.partner.fault = DOWN
        [name] = self.put("one@example.org", "two@partner.example")
        for _ in range(6 * 24):
            self.drain(3600)
        one = self.queue.admin.show(name).history[-1].replies["one@example.org"]
        self.assertEqual((one.answer, one.enhanced), (Answer.REJECTED, "4.4.7"))
        self.assertRegex(one.text, r"given up after \d+ attempts in 5\.\d days")
        self.partner.fault, self.partner.answers = None, lambda who: LATER
        self.drain(3600)
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.state, mail.due), (State.DEFERRED, self.clock.time() + 60))
        self.partner.answers = lambda who: OK
        self.drain(60)
        self.assertEqual((len(self.partner.sent), self.queue.admin.count()), (1, {State.REJECTED: 1}))

    def test_only_the_part_that_is_unknown_is_held(self) -> None:
        """Under the policy `hold`: the others are tried to their end; then the mail is held, and released whole."""
        schedule = Schedule(first=60, jitter=0, on_unknown=OnUnknown.HOLD)
        self.processor = self.make_processor(
            routes=self.processor.relays.routes, mailers={"partner": self.partner}, schedule=schedule
        )
        self.partner.answers = lambda who: LOST
        tries = self.note_tries()
        [name] = self.put("two@partner.example", "one@example.org")
        self.drain()
        self.assertEqual((tries, self.queue.admin.show(name).state), (["two", "one"], State.DEFERRED))
        self.assertIn("unknown for some", self.queue.admin.show(name).history[-1].note)
        self.mailer.answers = lambda who: OK
        self.drain(60)
        self.drain(86400)
        self.assertEqual((tries, self.queue.admin.show(name).state), (["two", "one", "one"], State.HELD))
        self.partner.answers = lambda who: OK
        self.queue.admin.release(name)
        self.drain()
        self.assertEqual((tries[3:], self.queue.admin.count()), (["two"], {}))

    def test_a_history_without_parts_is_understood(self) -> None:
        """One from before: those who were tried are due as it says, the others now."""
        [name] = self.put("one@example.org", "two@partner.example")
        [lease] = self.queue.claim()
        lease.settle(
            Record(State.DEFERRED, attempts=3, time=self.clock.time(), due=self.clock.time(), replies={ONE: LATER})
        )
        tries = self.note_tries()
        self.drain()
        self.assertEqual(sorted(tries), ["one", "two"])
        self.assertEqual(self.queue.admin.show(name).due, self.clock.time() + 480)

    def test_more_than_one_processor_agrees(self) -> None:
        """What is known about the parts is on disk, and comes back as it was."""
        self.partner.answers = lambda who: LATER
        [name] = self.put("one@example.org", "two@partner.example")
        self.drain()
        self.clock.advance(30)
        record = self.queue.admin.show(name).history[-1]
        self.assertEqual(list(read_records(write_record(record))), [record])
        self.assertEqual({part: (each.attempts, each.due) for part, each in record.parts.items()},
                         {"": (1, record.time + 60), "partner": (1, record.time + 60)})  # fmt: skip


class TwoRelaysOfOneName(unittest.TestCase):
    """What they are called is for people; what is parked for one is not the other's."""

    def test_are_told_apart(self) -> None:
        """Users of one host, and a mailer that is called like the default."""
        routes = Routes(mailers=frozenset({"", "default"}), addresses=frozenset({("h", 25)}), legacy_passwords=True)
        relays = RelayRegistry(ScriptedMailer(), {"default": ScriptedMailer()}, routes, ManualClock())
        names = [
            None,
            RelayName(mailer="default"),
            *(RelayName(hostname="h", port=25, username=user, password="p") for user in ("one", "two")),
        ]
        self.assertEqual(len({relays.of(name).name for name in names}), 4)


class NoThreads(ProcessorTest):
    """The system has no more of them, or Python ends."""

    def test_the_processor_does_it_all_itself(self) -> None:
        """For one relay after the other; when there are threads again, they have them."""
        partner = ScriptedMailer()
        routes = Routes("main", frozenset({"partner"}), recipients={"@partner.example": "partner"})
        self.processor = self.make_processor(routes=routes, mailers={"partner": partner})
        threads: list[str] = []
        for mailer in self.mailer, partner:
            mailer.before = lambda envelope: threads.append(threading.current_thread().name)
        self.put("one@example.org", "two@partner.example", count=20)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.drain()
        self.assertEqual((len(self.mailer.sent), len(partner.sent), self.queue.admin.count()), (20, 20, {}))
        self.assertEqual(set(threads), {threading.current_thread().name})
        self.put("one@example.org")
        self.drain()
        self.assertNotEqual(threads[-1], threading.current_thread().name)


class AUserOfCpsMailAccess(ProcessorTest):
    """Each has a relay for as long as it is used."""

    def setUp(self) -> None:
        super().setUp()
        routes = Routes("main", frozenset({"main"}), frozenset({("h", 25), ("other", 25)}), legacy_passwords=True)
        self.processor = self.make_processor(routes=routes, mailers={"main": self.mailer})
        self.sessions: list[ScriptedSession] = []
        self.processor.relays._mailer = self.mailer_of  # type: ignore[method-assign]  # a fault in its place
        self.fault: Reply | None = None

    def mailer_of(self, name: RelayName) -> ScriptedMailer:
        mailer = ScriptedMailer()
        mailer.fault = self.fault if name.username in ("user1", "user2") else None
        mailer.sessions = self.sessions
        return mailer

    def put_for_users(self, count: int) -> None:
        staged = self.queue.stage()
        for number in range(count):
            relay = RelayName(hostname="h", port=25, username=f"user{number}", password="p")
            staged.add(Envelope("a@example.org", (f"{number}@example.org",), relay=relay), MESSAGE)
        staged.commit()

    def test_is_forgotten_afterwards(self) -> None:
        """However many there are; all mail leaves, and every conversation is closed."""
        self.put_for_users(1000)
        self.drain()
        self.assertEqual((self.queue.admin.count(), len(self.sessions)), ({}, 1000))
        self.put_for_users(1)
        self.drain()
        self.assertLess(len(list(self.processor.relays)), 9)
        self.assertTrue(all(session.closed for session in self.sessions))

    def test_is_remembered_while_there_is_trouble(self) -> None:
        """Or mail waits for it: that is never left behind."""
        self.fault = Reply(Answer.DEFERRED, "wrong password", 535)
        self.put_for_users(300)
        self.drain()
        self.processor.relays.forget(self.queue.parked())
        self.processor.relays.forget(self.queue.parked())
        self.assertEqual(sum(relay.pause() > 0 for relay in self.processor.relays), 2)
        self.assertEqual(len(list(self.processor.relays)), 3)
        self.assertEqual(self.queue.admin.count(), {State.READY: 2})

    def test_relays_of_the_configuration_stay(self) -> None:
        """Their pauses and their pace are not forgotten."""
        for name in RelayName(hostname="h", port=25), RelayName(hostname="other", port=25):
            self.processor.relays.of(name)
        self.processor.relays.forget(())
        self.assertEqual([relay.name for relay in self.processor.relays], ["main", "h:25", "other:25"])


class AnAddressOfAMailer(unittest.TestCase):
    def test_is_the_mailers_relay(self) -> None:
        """So that `rate`, `connections` and a pause count for both."""
        default, bulk = SMTPMailer("main.example"), SMTPMailer("Bulk.example", rate=1)
        addresses = frozenset({("main.example", 25), ("bulk.example", 25)})
        routes = Routes("main", frozenset({"main", "bulk"}), addresses)
        relays = RelayRegistry(default, {"main": default, "bulk": bulk}, routes, ManualClock())
        self.assertIs(relays.of(RelayName(hostname="main.example", port=25)), relays.default)
        self.assertIs(relays.of(RelayName(hostname="bulk.example", port=25)), relays.of(RelayName(mailer="bulk")))


class AnIdleSession(unittest.TestCase):
    def setUp(self) -> None:
        self.mailer = ScriptedMailer()
        self.relay = Relay("r", self.mailer, ManualClock())

    def test_that_rests_is_given_to_nobody(self) -> None:
        """A conversation belongs to one thread at a time: a goodbye in the middle of a mail would become its text."""
        session = self.relay.session(self.mailer)
        self.relay.put_back(session, self.mailer)
        given: list[Any] = []

        def rest(resting: Any) -> None:
            given.append(self.relay.session(self.mailer))

        with mock.patch.object(ScriptedSession, "rest", rest):
            self.relay.rest()
        self.assertIsNot(given[0], session)
        self.assertIs(self.relay.session(self.mailer), session)

    def test_of_another_mailer_is_closed(self) -> None:
        """After `setMailer` mail goes to the new relay."""
        first = self.mailer
        idle, busy = self.relay.session(first), self.relay.session(first)
        assert isinstance(idle, ScriptedSession)
        self.relay.put_back(idle, first)
        self.relay.mailer = second = ScriptedMailer()
        new = self.relay.session(second)
        self.assertEqual((new is idle, idle.closed), (False, True))
        self.assertFalse(self.relay.put_back(busy, first))


class AnotherMailer(ProcessorTest):
    def test_has_what_comes_after_it(self) -> None:
        """Also while mail flows."""
        other = ScriptedMailer()
        self.mailer.before = lambda envelope: self.processor.setMailer(other)
        self.put(count=10)
        self.drain()
        self.assertEqual((len(self.mailer.sent), len(other.sent)), (1, 9))


class AMailThatNoRelayWasAskedAbout(ProcessorTest):
    def test_says_nothing_about_the_relay(self) -> None:
        """All its recipients are malformed; a relay that is down stays so."""
        relay = self.processor.relays.default
        relay.heard(Outcome("r:25", {}, DOWN))
        self.clock.advance(5)
        staged = self.queue.stage()
        staged.add(Envelope("a@example.org", (), ("no address",)), MESSAGE)
        staged.commit()
        self.drain()
        self.assertEqual((self.queue.admin.count(), relay.is_on_probation), ({State.REJECTED: 1}, True))


class HangingRelays(unittest.TestCase):
    """Threads and a directory."""

    def setUp(self) -> None:
        path = self.enterContext(tempfile.TemporaryDirectory())
        self.queue = MaildirQueue(path + "/queue")
        self.slow, self.fast = Stuck(), ScriptedMailer()
        self.addCleanup(self.slow.let_go.set)

    def put(self, relay: str, count: int) -> None:
        staged = self.queue.stage()
        for number in range(count):
            envelope = Envelope("a@example.org", (f"{number}@example.org",), relay=RelayName(mailer=relay))
            staged.add(envelope, MESSAGE)
        staged.prepare()
        staged.commit()

    def start(self) -> QueueProcessorThread:
        routes = Routes("slow", frozenset({"fast"}))
        processor = QueueProcessorThread(
            queue=self.queue, mailer=self.slow, routes=routes, mailers={"fast": self.fast}, tell=lambda events: None
        )
        processor.start()
        self.addCleanup(processor.join, 30)
        self.addCleanup(self.slow.let_go.set)
        self.addCleanup(processor.stop)
        return processor

    def until(self, condition: Callable[[], bool]) -> None:
        waiting = threading.Event()
        for _ in range(6000):
            if condition():
                return
            waiting.wait(0.01)
        self.fail("it did not happen within a minute")

    def test_do_not_keep_others_mail(self) -> None:
        """Twenty connections hang, and mail of another relay flows, old and new."""
        self.put("slow", 100)
        self.put("fast", 50)
        self.start()
        self.until(lambda: self.slow.tried == 20 and len(self.fast.sent) == 50)
        self.put("fast", 50)
        self.until(lambda: len(self.fast.sent) == 100)
        self.assertEqual(self.slow.tried, 20)

    def test_get_more_connections_for_mail_that_comes_later(self) -> None:
        """One conversation that hangs with the only mail there was keeps none that comes afterwards."""
        self.put("slow", 1)
        self.start()
        self.until(lambda: self.slow.tried == 1)
        self.put("slow", 10)
        self.until(lambda: self.slow.tried >= 2)


class AMailerWithARate(unittest.TestCase):
    def test_needs_no_more_connections_than_its_turns_keep_busy(self) -> None:
        """Who waits for its turn is not helped by another who waits."""
        clock = ManualClock()
        relay = Relay("r", SMTPMailer(rate=1), clock)
        self.assertFalse(relay.is_ahead)
        relay.turn()
        relay.turn()
        self.assertTrue(relay.is_ahead)
        clock.advance(2)
        self.assertFalse(relay.is_ahead)


class ARelayThatAnswersAtOnce(ProcessorTest):
    def test_connections_that_are_far_too_many(self) -> None:
        """End before their next mail, and the others go on."""
        run, relay = self.new_run(), self.processor.relays.default
        relay.lanes.worth = 4.0
        self.put(count=3)
        relay.workers = 7
        run.pool.guarded_work(relay)
        self.assertEqual((relay.workers, self.mailer.sent), (6, []))
        run.pool.guarded_work(relay)
        self.assertEqual((relay.workers, len(self.mailer.sent)), (5, 3))

    def test_those_that_ask_for_their_next_mail_while_one_ends(self) -> None:
        """Go on, down to as many as are worth while: the one that ends has to hear its relay first."""
        run, relay = self.new_run(), self.processor.relays.default
        relay.lanes.worth = 4.0
        self.put(count=20)
        relay.workers = 20
        workers = [Worker(run.pool._context, relay, open_session(self.mailer), self.mailer) for _ in range(20)]
        jobs = [run.pool.claim_for(worker, relay) for worker in workers]
        for job in filter(None, jobs):
            self.addCleanup(job.lease.release)
        self.assertEqual(sum(job is not None for job in jobs), 6)


class ALongRest(ProcessorTest):
    """A processor that looks by itself once an hour, because every commit wakes it."""

    def worker(self) -> mock.Mock:
        """A worker beside the processor's own ends; how often it has woken the queue."""
        self.processor = self.make_processor(interval=3600.0)
        run = self.new_run()
        relay = self.processor.relays.default
        relay.workers += 1
        with mock.patch.object(self.queue, "wake") as wake:
            run.pool.guarded_work(relay)
        self.assertEqual(relay.workers, 0)
        return wake

    def test_ends_when_a_worker_leaves_something_for_later(self) -> None:
        """It was begun when that worker had the mail in hand, and nothing was due."""
        self.put()
        self.mailer.answers = lambda who: LATER
        self.worker().assert_called_once_with()

    def test_ends_when_a_worker_meets_trouble(self) -> None:
        """The relay is probed in five seconds."""
        self.put()
        self.mailer.fault = DOWN
        self.worker().assert_called_once_with()

    def test_goes_on_when_everything_was_sent(self) -> None:
        """A look at the queue for nothing costs as much as it is deep."""
        self.put()
        self.worker().assert_not_called()


class MailThatIsParked(ProcessorTest):
    def test_is_taken_up_one_for_one(self) -> None:
        """A mail that is sent costs one claim, however many others wait for the same relay."""
        claims = 0
        share = Dispatcher._share

        def counted(dispatcher: Dispatcher, lease: Any) -> Any:
            nonlocal claims
            claims += 1
            return share(dispatcher, lease)

        self.processor = self.make_processor(
            routes=Routes("main", frozenset({"other"})), mailers={"other": ScriptedMailer()}, concurrency=1
        )
        run = self.new_run()
        self.mailer.before = lambda envelope: run.dispatcher.route(run.pool.call)
        self.put(count=40)
        with mock.patch.object(Dispatcher, "_share", counted):
            run.once()
        self.assertEqual([int(who.partition("@")[0]) for who in self.sent_to()], list(range(40)))
        self.assertLess(claims, 3 * 40)


class TroubleWithTheQueue(ProcessorTest):
    def test_is_waited_for_by_one_thread_only(self) -> None:
        """A connection that meets it ends at once; the processor leaves the queue alone for a while."""
        before = self.clock.monotonic()
        trouble = QueueBackoff("a queue", self.clock)
        run, relay = self.new_run(trouble), self.processor.relays.default
        relay.workers += 1
        with mock.patch.object(self.queue, "claim", side_effect=OSError("input/output error")):
            run.pool.guarded_work(relay)
        self.assertEqual((self.clock.monotonic(), trouble.is_lasting), (before, True))
        run.guarded(lambda: None)
        self.assertFalse(trouble.is_lasting)


def _is_for_mail(path: str) -> bool:
    return "/new/" in path or "/cur/" in path


class LocklessDisk(Disk):
    """Refuses new names in new/ and cur/ as long as it is told so: no permission, no inodes, no space."""

    refusal: OSError | None = None

    def link(self, old: str, new: str) -> None:
        """See `Disk`."""
        if self.refusal is not None and _is_for_mail(new):
            raise self.refusal
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """See `Disk`.  An owner file without room for a link would serve as the lock itself."""
        if self.refusal is not None and _is_for_mail(new):
            raise self.refusal
        super().rename_new(old, new)


class AQueueWhoseDiskRefuses(ProcessorTest):
    """Nothing of it can be locked; that is no trouble of 300 mails."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = LocklessDisk()
        path = self.enterContext(tempfile.TemporaryDirectory())
        self.queue = MaildirQueue(path, clock=self.clock, disk=self.disk, schedule=self.schedule)
        self.addCleanup(self.queue.close)
        self.processor = self.make_processor()

    def test_is_told_once_and_left_alone(self) -> None:
        """However many mails there are; mended, they all leave at the next look."""
        names = self.put(count=300)
        for error in errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EDQUOT:
            with self.subTest(error=errno.errorcode[error]):
                self.disk.refusal = OSError(error, os.strerror(error))
                trouble = QueueBackoff("a queue", self.clock)
                run = self.new_run(trouble)
                with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
                    begin = self.clock.monotonic()
                    for _ in range(200):
                        run.once()
                    self.assertGreater(self.clock.monotonic() - begin, 1800)
                self.assertEqual(len(logs.output), 1)
                self.assertIn(os.strerror(error), logs.output[0])
                self.assertEqual(self.queue.admin.count(), {State.READY: len(names)})
        self.disk.refusal = None
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            run.once()
        self.assertIn("can be worked on again", logs.output[0])
        self.assertEqual((len(self.mailer.sent), self.queue.admin.count()), (300, {}))
        run.end()

    def test_is_looked_at_every_quarter_of_a_minute(self) -> None:
        """A person who has mended it looks on; nor is it asked all the time."""
        asked: list[float] = []
        self.put()
        with (
            mock.patch.object(self.queue, "claim", side_effect=self.refuse(asked)),
            self.assertLogs("QueueProcessorThread", "ERROR"),
        ):
            run = self.new_run()
            while len(asked) < 20:
                run.once()
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        self.assertLess(max(gaps), 16)
        self.assertGreater(min(gaps[5:]), 14)

    def refuse(self, asked: list[float]) -> Any:
        def claim(limit: int = 1, **options: Any) -> Any:
            asked.append(self.clock.monotonic())
            raise OSError(errno.EACCES, "denied")

        return claim


class AClockThatIsSetBack(ProcessorTest):
    def test_keeps_no_deferred_mail_in_a_new_process(self) -> None:
        """What is planned for next year was planned before; the mail is tried at once."""
        path = self.enterContext(tempfile.TemporaryDirectory())
        self.clock.wall = time.time()  # as the file system has it
        self.mailer.answers = lambda who: LATER
        for back in 365 * 86400, 3700, 7200:
            with self.subTest(back=back):
                self.queue = MaildirQueue(path, clock=self.clock, schedule=self.schedule)
                self.processor = self.make_processor()
                self.put()
                self.drain()
                self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 1})
                self.mailer.answers, before = (lambda who: OK), self.clock.wall
                self.clock.wall -= back
                self.queue = MaildirQueue(path, clock=self.clock, schedule=self.schedule)
                self.processor = self.make_processor()
                self.drain()
                self.assertEqual(self.queue.admin.count(), {})
                self.clock.wall, self.mailer.answers = before, lambda who: LATER


load_tests = in_layer(Processes)
