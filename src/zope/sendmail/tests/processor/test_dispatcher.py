"""`zope.sendmail.processor.dispatcher`: what is claimed, for which relay, and what goes back."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from zope.sendmail.events import MailErrorEvent, MailUnknownEvent
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.convoy import Convoy
from zope.sendmail.processor.dispatcher import _is_low
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest

PARTNER = RelayName(mailer="partner")


class Dispatching(ProcessorTest):
    """The dispatcher of a processor that does not run; where it is told to call a worker, that is written down."""

    def setUp(self) -> None:
        super().setUp()
        self.called: list[Relay] = []

    def change_leases(self, change: Callable[[Any], object]) -> None:
        """Have something done to each lease that the queue gives."""
        claim = self.queue.claim

        def changed(limit: int = 1, *, ahead: int = 0) -> list[Any]:
            leases: list[Any] = claim(limit, ahead=ahead)
            for lease in leases:
                change(lease)
            return leases

        self.queue.claim = changed

    def put_with(self, priority: Priority, who: str = "one@example.org", **terms: Any) -> str:
        staged = self.queue.stage()
        name: str = staged.add(
            replace(Envelope("s@example.org", (who,)), terms=Terms(priority=priority, **terms)), MESSAGE
        )
        staged.prepare()
        staged.commit()
        return name

    def states(self) -> list[State]:
        return [mail.state for mail in self.queue.admin.mails()]


class Inherited(Dispatching):
    """What other processors have left, or people have decided, is respected."""

    def put_as(self, **record: Any) -> list[str]:
        self.change_leases(lambda lease: setattr(lease, "record", replace(lease.record, **record)))
        return self.put()

    def test_mail_that_was_sent_is_not_sent_again(self) -> None:
        """Its processor died before it could remove it."""
        self.put_as(state=State.SENT)
        self.drain()
        self.assertEqual((self.mailer.sent, self.queue.admin.count()), ([], {}))

    def test_mail_that_is_held_stays(self) -> None:
        """An operator decides; the log says that it waits for one."""
        [name] = self.put_as(state=State.HELD, note="a person has to look at it")
        self.change_leases(
            lambda lease: self.processor.stop()
        )  # else it is claimed again and again: it is not held really
        dispatcher = self.new_run().dispatcher
        with self.assertLogs("QueueProcessorThread", "INFO") as logs:
            relay = self.processor.relays.default
            self.assertIsNone(dispatcher.next_for(relay, self.called.append, Convoy(self.clock, grows=False)))
        self.assertIn(name, "".join(line for line in logs.output if "a person has to look at it" in line))
        self.assertEqual(self.states(), [State.READY])

    def test_an_outcome_that_nobody_knows_is_told(self) -> None:
        """Before the mail is sent again."""
        lost = Outcome("", {"0@example.org": Reply(Answer.UNKNOWN, "its processor died")})
        self.change_leases(lambda lease: setattr(lease, "inherited", lost))
        self.put()
        self.drain()
        self.assertIsInstance(self.events[0], MailUnknownEvent)
        self.assertEqual(self.sent_to(), ["0@example.org"])

    def test_a_file_with_a_problem_is_set_aside(self) -> None:
        """With the words that say what it is; no relay is asked."""
        self.change_leases(lambda lease: setattr(lease, "problem", "its envelope is torn"))
        [name] = self.put()
        self.drain()
        self.assertEqual((self.mailer.sent, self.queue.admin.show(name).state), ([], State.REJECTED))
        self.assertEqual([type(event) for event in self.events], [MailErrorEvent])
        self.assertIn("its envelope is torn", self.events[0].errorMessage)


class SeveralAreClaimedTogether(Dispatching):
    """For one worker, where there is one relay."""

    def setUp(self) -> None:
        super().setUp()
        self.change_leases(lambda lease: setattr(lease, "text", MESSAGE))
        self.convoy = Convoy(self.clock, grows=True)
        self.dispatcher = self.new_run().dispatcher

    def next(self) -> Job | None:
        return self.dispatcher.next_for(self.processor.relays.default, self.called.append, self.convoy)

    def test_by_and_by_more(self) -> None:
        """As long as they go quickly."""
        self.put(count=5)
        self.next(), self.next()
        self.assertEqual((len(self.convoy.jobs), self.states().count(State.SENDING)), (1, 3))

    def test_and_as_many_are_reserved_as_were_claimed_lately(self) -> None:
        """Messages, and not claims; some more at most."""
        asked: list[tuple[int, int]] = []
        claim = self.queue.claim

        def claiming(limit: int = 1, *, ahead: int = 0) -> list[Any]:
            asked.append((limit, ahead))
            leases: list[Any] = claim(limit)
            return leases

        self.queue.claim = claiming
        self.put(count=80)
        for _ in range(80):
            self.next()
        limits = [limit for limit, _ in asked]
        self.assertEqual([ahead for _, ahead in asked], [min(64, sum(limits[:at])) for at in range(len(asked))])
        self.assertGreater(max(limits), 1)

    def test_and_one_cannot_be_judged(self) -> None:
        """All that were claimed with it go back."""
        self.put(count=5)
        self.next()
        among = self.queue.suppressions.among

        def broken(addresses: tuple[str, ...]) -> Any:
            if addresses == ("2@example.org",):
                raise OSError(errno.EIO, "the disk is broken")
            return among(addresses)

        self.queue.suppressions.among = broken
        with self.assertRaises(OSError):
            self.next()
        self.convoy.release()  # as the worker does
        self.assertEqual(self.states(), [State.SENDING, *[State.READY] * 4])

    def test_and_give_way(self) -> None:
        """High mail that has come meanwhile goes before those that were not begun."""
        self.put(count=3)
        self.next(), self.next()
        self.put_with(Priority.HIGH, "high@example.org")
        job = self.next()
        assert job is not None
        self.assertEqual(job.envelope.recipients, ("high@example.org",))

    def test_and_none_of_low_priority_behind_another(self) -> None:
        """Although the queue has said that something goes before it: another worker was faster."""
        name = self.put_with(Priority.LOW)
        with mock.patch.object(self.dispatcher, "_has_before", return_value=True):
            relay = self.processor.relays.default
            self.assertIsNone(self.dispatcher.next_for(relay, self.called.append, self.convoy, Priority.LOW))
        self.assertEqual([lease.name for lease in self.queue.claim(1)], [name])

    def test_nothing_more_once_the_processor_is_stopped(self) -> None:
        """What waits stays for another one."""
        self.put(count=3)
        self.processor.stop()
        self.assertIsNone(self.next())
        self.assertEqual(self.states(), [State.READY] * 3)

    def test_of_a_queue_that_does_not_rank(self) -> None:
        """Behind low mail nothing rides then, whatever has come."""
        self.queue = _Unranked(self.queue)
        self.processor = self.make_processor()
        self.put()
        dispatcher = self.new_run().dispatcher
        relay = self.processor.relays.default
        self.assertIsNone(dispatcher.next_for(relay, self.called.append, self.convoy, Priority.LOW))
        self.assertIsNotNone(dispatcher.next_for(relay, self.called.append, self.convoy))


class SeveralRelays(Dispatching):
    """The default, and one for the recipients at partner.example."""

    def make_processor(self, **options: Any) -> Any:
        routes = Routes("main", frozenset({"partner"}), recipients={"@partner.example": "partner"})
        return super().make_processor(routes=routes, mailers={"partner": ScriptedMailer()}, **options)

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher = self.new_run().dispatcher
        self.relay = self.processor.relays.of(PARTNER)

    def waiting(self, *terms: Terms) -> None:
        """Put mails with these terms into the backlog of the relay."""
        for each in terms:
            self.put_with(each.priority, "one@partner.example", expires=each.expires)
            [lease] = self.queue.claim()
            self.relay.backlog.append(Job(lease, lease.envelope))

    def next(self, behind: Priority | None = None) -> Job | None:
        return self.dispatcher.next_for(self.relay, self.called.append, Convoy(self.clock, grows=False), behind)

    def test_behind_low_mail_is_no_other(self) -> None:
        """So that high mail that comes now waits for the one in hand only."""
        self.waiting(Terms(priority=Priority.LOW))
        self.assertIsNone(self.next(Priority.LOW))
        self.assertIsNotNone(self.next())

    def test_a_backlog_that_another_thread_took_is_not_low(self) -> None:
        """What is there now is looked for anew."""
        self.assertFalse(_is_low(deque()))

    def test_mail_that_has_expired_in_the_backlog_is_given_up(self) -> None:
        """And the one behind it goes."""
        self.waiting(Terms(expires=self.clock.time() + 10.0), Terms(priority=Priority.HIGH))
        self.clock.advance(20.0)
        job = self.next()
        assert job is not None
        self.assertIs(job.envelope.terms.priority, Priority.HIGH)
        self.assertEqual([type(event) for event in self.events], [MailErrorEvent])

    def test_what_a_relay_without_workers_had_waits_for_it(self) -> None:
        """Until it can be used, or another process uses it."""
        self.waiting(Terms(), Terms())
        self.dispatcher.give_back(self.relay)
        self.assertEqual((len(self.relay.backlog), list(self.queue.parked())), (0, [self.relay.name]))

    def routed(self, *priorities: Priority) -> list[str]:
        """Route mails for the relay, of which the backlog has no room for all; return their names."""
        names = [self.put_with(each, f"{n}@partner.example") for n, each in enumerate(priorities)]
        self.dispatcher.route(self.called.append)
        self.assertIn(self.relay.name, self.queue.parked())
        return names

    def meet_another(self) -> str:
        """Let the worker of another relay meet a mail for this one; return its name."""
        name = self.put_with(Priority.NORMAL, "younger@partner.example")
        self.put_with(Priority.NORMAL)
        convoy = Convoy(self.clock, grows=False)
        self.assertIsNotNone(self.dispatcher.next_for(self.processor.relays.default, self.called.append, convoy))
        return name

    def names_of_all(self) -> list[str]:
        return [job.lease.name for job in iter(self.next, None)]

    def test_mail_goes_behind_older_mail_that_waits_for_its_relay(self) -> None:
        """Whichever thread meets it when there is room again, and before the relay's own worker has looked."""
        names = self.routed(*[Priority.NORMAL] * 5)
        self.assertIsNotNone(self.next())
        names.append(self.meet_another())
        self.assertEqual(self.names_of_all(), names[1:])

    def test_mail_goes_behind_high_mail_that_waits_for_its_relay(self) -> None:
        """Although that may be younger."""
        names = self.routed(*[Priority.HIGH] * 3)
        self.assertIsNotNone(self.next())
        names.append(self.meet_another())
        self.assertEqual(self.names_of_all(), names[1:])

    def test_mail_takes_no_place_that_older_mail_waits_for(self) -> None:
        """The place of a low one in a full backlog is that of the first that waits."""
        low = self.routed(*[Priority.LOW] * 3)
        names = [self.put_with(Priority.NORMAL, f"{n}@partner.example") for n in range(2)]
        for lease in self.queue.claim(2):
            lease.park(self.relay.name)
        names.append(self.meet_another())
        self.assertEqual([job.lease.name for job in self.relay.backlog], [names[0], low[0]])

    def test_nothing_is_routed_once_the_processor_is_stopped(self) -> None:
        """What waits stays for another one."""
        self.put(count=3)
        self.processor.stop()
        self.dispatcher.route(self.called.append)
        self.assertEqual((self.called, self.states()), ([], [State.READY] * 3))

    def test_relays_of_queue_files_are_forgotten(self) -> None:
        """Those that do nothing, when there are many; not those for which mail waits here."""
        names = [RelayName(hostname=f"r{n}.example.org", port=25, username="u", password="p") for n in range(70)]
        for name in names:
            self.processor.relays.of(name)
        self.put("one@partner.example")
        [lease] = self.queue.claim()
        self.processor.relays.of(names[7]).put(Job(lease, lease.envelope))
        self.put()
        self.dispatcher.route(self.called.append)
        self.assertEqual([relay.name for relay in self.processor.relays], ["main", "partner", str(names[7])])

    def test_the_address_of_the_default_is_the_default(self) -> None:
        """However a mail names it: its pauses and its connections are one."""
        self.mailer.hostname, self.mailer.port = "Mail.example.org", 25  # type: ignore[attr-defined]  # mailers have them
        name = RelayName(hostname="mail.example.org", port=25)
        self.assertIs(self.processor.relays.of(name), self.processor.relays.default)
        self.mailer.port = "none"  # type: ignore[attr-defined]  # and may have nonsense
        self.assertIsNot(self.processor.relays.of(name), self.processor.relays.default)


class _Unranked:
    """A queue that does not tell what goes before a mail."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        if name == "has_before":
            raise AttributeError(name)
        return getattr(self._queue, name)


del ProcessorTest
