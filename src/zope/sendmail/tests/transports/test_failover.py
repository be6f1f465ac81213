"""`FailoverMailer` and `BalancedMailer`: several relays behind one mailer."""

from __future__ import annotations

import io
import smtplib
import unittest
from collections import Counter
from collections.abc import Callable
from typing import Any

import transaction
from zope.interface.verify import verifyObject

from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.interfaces import ISession, ISessionMailer, RelayError
from zope.sendmail.lifecycle.finding import Kind, Severity
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.relaystate import RelayBoard, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK, ManualClock, envelope
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, ScriptedSession, SendOnlyMailer
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.transports.failover import BalancedMailer, FailoverMailer, SeveralMailers
from zope.sendmail.transports.innerlimits import relay_states_of
from zope.sendmail.transports.redirect import RedirectMailer

DOWN = Reply(Answer.DEFERRED, "refused", 421)
BUSY = Reply.of(451, "4.7.500 Server busy. Please try again later from [192.0.2.1].")
CROWDED = Reply.of(432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")


class NamedSession(ScriptedSession):
    """A conversation with a relay of another name.  `outcome`, if its mailer has one, is how it ends."""

    def __init__(self, mailer: NamedMailer) -> None:
        super().__init__(mailer)
        self.relay = mailer.relay
        self.named = mailer

    def transfer(self, envelope: Envelope, message: Any, intend: Callable[[], None]) -> Outcome:
        self.named.tried += 1
        self.named.calls.append("transfer")
        if self.named.ends is not None:
            message.read()
            intend()
            return self.named.ends(envelope)
        return super().transfer(envelope, message, intend)

    def verify(self, envelope: Envelope, message: Any) -> Outcome:
        self.named.calls.append("verify")
        return super().verify(envelope, message)


class NamedMailer(ScriptedMailer):
    def __init__(self, relay: str) -> None:
        super().__init__()
        self.relay = relay
        self.tried = 0
        self.calls: list[str] = []
        self.ends: Callable[[Envelope], Outcome] | None = None

    def open_session(self) -> NamedSession:
        self.sessions.append(NamedSession(self))
        return self.sessions[-1]  # type: ignore[return-value]  # a double of a session


class Several(unittest.TestCase):
    """Relays a, b and c, in this order."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = ManualClock()
        self.a, self.b, self.c = self.relays = [NamedMailer(name) for name in ("a", "b", "c")]
        self.mailer: SeveralMailers = FailoverMailer(self.relays, clock=self.clock)
        self.session = open_session(self.mailer)

    def transfer(self, *recipients: str) -> Outcome:
        return self.session.transfer(envelope(*recipients), io.BytesIO(MESSAGE), lambda: None)

    def sent(self) -> list[int]:
        """How many mails each relay has."""
        return [len(each.sent) for each in self.relays]


class TheFirstThatCanBeUsed(Several):
    def test_provides_the_interfaces(self) -> None:
        """A mailer with sessions."""
        verifyObject(ISessionMailer, self.mailer)
        verifyObject(ISession, self.session)
        verifyObject(ISessionMailer, BalancedMailer())

    def test_gets_all_mail(self) -> None:
        """And no other has a conversation."""
        for _ in range(3):
            self.assertEqual(self.transfer().relay, "a")
        self.assertEqual(self.sent(), [3, 0, 0])
        self.assertEqual([len(each.sessions) for each in self.relays], [1, 0, 0])

    def test_is_the_next_one_if_a_relay_is_in_trouble(self) -> None:
        """The mail goes whole, and no fault is told."""
        self.a.fault = self.b.fault = DOWN
        outcome = self.transfer("one@example.org", "two@example.org")
        self.assertEqual((outcome.relay, outcome.fault, len(outcome.replies)), ("c", None, 2))
        self.assertEqual(self.c.sent, [("sender@example.org", ("one@example.org", "two@example.org"), MESSAGE)])

    def test_is_the_next_one_if_a_relay_wants_less_mail(self) -> None:
        """The relay is left out meanwhile."""
        self.a.answers = lambda who: BUSY
        for _ in range(3):
            outcome = self.transfer()
            self.assertEqual((outcome.relay, outcome.fault, len(outcome.having(Answer.ACCEPTED))), ("b", None, 1))
        self.assertEqual([each.tried for each in self.relays], [1, 3, 0])

    def test_is_the_next_one_for_a_connection_too_many(self) -> None:
        """Others of the relay's connections work on; one that says so all the time is left out."""
        self.a.answers = lambda who: CROWDED
        self.transfer()
        self.a.answers = lambda who: OK
        self.transfer()
        self.assertEqual(self.sent(), [1, 1, 0])
        self.a.answers = lambda who: CROWDED
        for _ in range(10):
            self.transfer()
        self.assertEqual([each.tried for each in self.relays], [5, 11, 0])

    def test_says_so_if_all_of_them_want_less_mail(self) -> None:
        """So that less is sent: no fault, and the words of the last one."""
        for each in self.relays:
            each.answers = lambda who: BUSY
        for _ in range(2):
            outcome = self.transfer()
            self.assertEqual((outcome.fault, list(outcome.replies.values())), (None, [BUSY]))

    def test_keeps_a_greylisted_mail(self) -> None:
        """Another relay has its own list."""
        self.a.answers = lambda who: Reply.of(450, "4.7.1 Greylisted, please try again in 300 seconds")
        self.assertEqual(self.transfer().relay, "a")
        self.assertEqual([each.tried for each in self.relays], [1, 0, 0])

    def test_is_the_first_again_after_a_while(self) -> None:
        """Left out for five seconds, then for ten; then it is as before."""
        self.a.fault = DOWN
        with self.assertLogs("QueueProcessorThread", "INFO") as logs:
            for seconds, tried in ((0, 1), (4.9, 1), (0.1, 2), (9.9, 2)):
                self.clock.advance(seconds)
                self.transfer()
                self.assertEqual(self.a.tried, tried)
            self.a.fault = None
            self.clock.advance(0.1)
            self.transfer()
        self.assertEqual(self.sent(), [1, 4, 0])
        self.assertEqual(len(logs.output), 3)
        self.assertIn("Relay a cannot be used (421 refused); it is left out for 5 s.", logs.output[0])
        self.assertIn("Relay a can be used again", logs.output[2])

    def test_is_tried_again_by_one_conversation(self) -> None:
        """One that takes long to say nothing delays a single mail; the others go on with the next relay."""
        self.a.fault = DOWN
        self.transfer()
        others = open_session(self.mailer)
        meanwhile: list[str] = []

        def probe(envelope: Envelope) -> Outcome:
            meanwhile.extend(others.transfer(envelope, io.BytesIO(MESSAGE), lambda: None).relay for _ in range(2))
            return Outcome("a", {}, DOWN)

        self.a.ends = probe
        for seconds in (5, 10):
            self.clock.advance(seconds)
            self.assertEqual(self.transfer().relay, "b")
        self.assertEqual((self.a.tried, meanwhile), (3, ["b"] * 4))

    def test_has_another_chance_if_its_trial_has_no_end(self) -> None:
        """Whoever was to find out may be gone: after the same time somebody else tries."""
        self.a.fault = DOWN
        self.transfer()
        self.clock.advance(5)

        def die(envelope: Envelope) -> Outcome:
            raise MemoryError

        self.a.ends = die
        with self.assertRaises(MemoryError):
            self.transfer()
        self.a.ends = self.a.fault = None
        for seconds, relay in (0, "b"), (4.9, "b"), (0.1, "a"):
            self.clock.advance(seconds)
            self.assertEqual(self.transfer().relay, relay)

    def test_is_known_to_all_sessions(self) -> None:
        """What one conversation has heard, the others need not try."""
        self.a.fault = DOWN
        self.transfer()
        self.session = open_session(self.mailer)
        self.transfer()
        self.assertEqual(self.a.tried, 1)

    def test_is_asked_for_no_more_than_any_allows(self) -> None:
        """A conversation may be one with each of them; any mail may go to any of them."""
        mailer = FailoverMailer([SMTPMailer(connections=5), SMTPMailer(connections=3, rate=2.0), SMTPMailer(rate=9.0)])
        self.assertEqual((mailer.connections, mailer.rate), (3, 2.0))
        self.assertEqual((self.mailer.connections, self.mailer.rate), (None, None))
        self.assertEqual(FailoverMailer([mailer, SendOnlyMailer()]).connections, 1)

    def test_may_be_one_of_those_with_send_only(self) -> None:
        """A connection that was refused says that it has no mail."""
        broken = SendOnlyMailer(ConnectionRefusedError("refused"))
        self.session = open_session(FailoverMailer([broken, self.b], clock=self.clock))
        self.assertEqual(self.transfer().relay, "b")


class WhatARelaySaysAboutAMail(Several):
    def test_stands(self) -> None:
        """Deferred or rejected by the first, it is not given to the next: the queue tries again."""
        for reply in LATER, NEVER:
            self.a.answers = lambda who, reply=reply: reply  # type: ignore[misc]  # bound in this round
            self.assertEqual(self.transfer().replies, {"one@example.org": reply})
        self.assertEqual(self.sent(), [0, 0, 0])

    def test_is_unknown_if_it_was_lost_after_the_last_byte(self) -> None:
        """The next one would make a duplicate.  Later mail goes there, and no fault stops it."""
        lost = Reply(Answer.UNKNOWN, "lost")
        self.a.ends = lambda mail: Outcome("a", dict.fromkeys(mail.recipients, lost), DOWN)
        outcome = self.transfer()
        self.assertEqual((outcome.replies, outcome.fault, outcome.relay), ({"one@example.org": lost}, None, "a"))
        self.assertEqual(self.sent(), [0, 0, 0])
        self.assertEqual(self.transfer().relay, "b")

    def test_is_kept_for_who_has_a_final_answer(self) -> None:
        """Only the others go to the next relay when the first goes away in the middle."""
        replies = {"one@example.org": OK, "two@example.org": NEVER, "three@example.org": LATER}
        self.a.ends = lambda mail: Outcome("a", replies, DOWN)
        outcome = self.transfer(*replies, "four@example.org")
        self.assertEqual(self.b.sent, [("sender@example.org", ("three@example.org", "four@example.org"), MESSAGE)])
        answers = {who[:3]: reply.answer for who, reply in outcome.replies.items()}
        accepted = Answer.ACCEPTED
        self.assertEqual(answers, {"one": accepted, "two": Answer.REJECTED, "thr": accepted, "fou": accepted})

    def test_costs_a_mail_its_attempt_if_it_ends_every_conversation(self) -> None:
        """So it does not stand in the way of all others for ever."""
        for each in self.relays:
            each.ends = lambda mail: Outcome("x", dict.fromkeys(mail.recipients, LATER), DOWN)
        outcome = self.transfer()
        self.assertEqual(len(outcome.having(Answer.DEFERRED)), 1)
        self.assertIsNotNone(outcome.fault)


class NoneThatCanBeUsed(Several):
    def setUp(self) -> None:
        super().setUp()
        for each in self.relays:
            each.fault = DOWN

    def test_is_a_fault_that_names_each(self) -> None:
        """No mail is blamed."""
        outcome = self.transfer()
        self.assertEqual((outcome.relay, outcome.replies), ("a or b or c", {}))
        self.assertEqual(str(outcome.fault), "a: 421 refused; b: 421 refused; c: 421 refused")

    def test_asks_one_only_while_all_are_left_out(self) -> None:
        """The one whose turn comes first; it may be back."""
        self.transfer()
        self.clock.advance(1)
        outcome = self.transfer()
        self.assertEqual([each.tried for each in self.relays], [2, 1, 1])
        self.assertIn("c: 421 refused", str(outcome.fault))
        self.a.fault = None
        self.assertEqual(self.transfer().relay, "a")

    def test_no_mailers_at_all_is_an_error(self) -> None:
        """Said with the cure."""
        with self.assertRaisesRegex(ValueError, "name at least one"):
            open_session(FailoverMailer())


class AShareForEach(Several):
    def balance(self, *weights: int) -> None:
        self.mailer = BalancedMailer(zip(self.relays, weights, strict=False), clock=self.clock)
        self.session = open_session(self.mailer)

    def relays_of(self, count: int) -> str:
        return "".join(self.transfer().relay for _ in range(count))

    def test_follows_the_weights(self) -> None:
        """Evenly spread, not in blocks."""
        self.balance(3, 1)
        self.assertEqual(self.relays_of(8), "aabaaaba")
        self.balance(5, 3, 2)
        self.assertEqual(Counter(self.relays_of(100)), {"a": 50, "b": 30, "c": 20})

    def test_is_followed_by_all_sessions_together(self) -> None:
        """However many connections there are."""
        self.balance(1, 1)
        first, second = open_session(self.mailer), open_session(self.mailer)
        for session in first, second, first, second:
            self.session = session
            self.transfer()
        self.assertEqual(self.sent(), [2, 2, 0])

    def test_keeps_one_conversation_with_each(self) -> None:
        """Which rest and end together."""
        self.balance(1, 1, 1)
        self.relays_of(9)
        self.session.rest()
        self.session.close()
        self.assertEqual([len(each.sessions) for each in self.relays], [1, 1, 1])
        self.assertTrue(all(each.sessions[0].closed and each.sessions[0].rested == 1 for each in self.relays))
        self.assertEqual(len(self.relays_of(3)), 3)  # a session that was closed can be used again

    def test_goes_to_the_others_meanwhile(self) -> None:
        """And comes back with its weight; what it missed is not made up for."""
        self.balance(1, 1)
        self.a.fault = DOWN
        self.assertEqual(self.relays_of(4), "bbbb")
        self.a.fault = None
        self.clock.advance(5)
        self.assertEqual(Counter(self.relays_of(4)), {"a": 2, "b": 2})

    def test_needs_a_weight(self) -> None:
        """A whole number of at least 1."""
        with self.assertRaisesRegex(ValueError, "weight 0"):
            self.balance(1, 0)


class InTheQueue(ProcessorTest):
    def test_mail_flows_while_one_relay_can_be_used(self) -> None:
        """The processor does not pause."""
        a, b = NamedMailer("a"), NamedMailer("b")
        a.fault = DOWN
        self.processor = self.make_processor(mailer=FailoverMailer([a, b], clock=self.clock))
        self.put(count=3)
        self.drain()
        self.assertEqual((len(b.sent), a.tried, self.processor.fault), (3, 1, None))
        self.assertEqual({event.relay for event in self.events}, {"b"})

    def test_operators_see_each_relay(self) -> None:
        """The one that is left out is told by the doctor, though no mail waits for it."""
        a, b = NamedMailer("a"), NamedMailer("b")
        a.fault = DOWN
        self.processor = self.make_processor(mailer=FailoverMailer([a, b], clock=self.clock))
        self.put()
        self.drain()
        [relay] = RelayBoard(self.queue.admin.processors())
        self.assertEqual([(each.name, each.is_usable) for each in relay.members], [("a", False), ("b", True)])
        [finding] = [each for each in self.queue.admin.examine() if each.kind is Kind.RELAY]
        self.assertEqual(finding.severity, Severity.NOTE)
        self.assertIn("relay a cannot be used", finding.text)
        self.clock.advance(600)
        [finding] = [each for each in self.queue.admin.examine() if each.kind is Kind.RELAY]
        self.assertEqual((finding.severity, finding.is_standstill), (Severity.WARNING, False))

    def test_mail_waits_while_none_can(self) -> None:
        """Without an attempt, until one is back."""
        a, b = NamedMailer("a"), NamedMailer("b")
        a.fault = b.fault = DOWN
        self.processor = self.make_processor(mailer=BalancedMailer([(a, 1), (b, 1)], clock=self.clock))
        [name] = self.put()
        self.drain()
        self.assertEqual((self.queue.admin.show(name).state, self.processor.tally), (State.READY, {}))
        b.fault = None
        self.drain(5)
        self.assertEqual(len(b.sent), 1)


class WhatOperatorsSee(Several):
    """Each relay for itself, as its mailer knows it."""

    def states(self) -> dict[str, RelayState]:
        return {state.name: state for state in relay_states_of(self.mailer, self.clock.time())}

    def test_names_the_one_that_is_left_out(self) -> None:
        """With its words, since when, and when it is tried next; one that was not asked is told as that."""
        self.a.fault = DOWN
        self.transfer()
        now = self.clock.time()
        a, b, c = relay_states_of(self.mailer, now)
        self.assertEqual((a.name, a.fault, a.since, a.asked, a.failures), ("a", DOWN, now, now, 1))
        self.assertGreater(a.probe, now)
        self.assertEqual((b.name, b.fault, b.since, b.asked), ("b", None, now, now))
        self.assertEqual((c.fault, c.asked), (None, 0.0))

    def test_keeps_since_when(self) -> None:
        """Until that changes."""
        began = self.clock.time()
        self.a.fault = DOWN
        for _ in range(3):
            self.transfer()
            self.clock.advance(400)
        self.assertEqual(self.states()["a"].since, began)
        self.a.fault = None
        self.transfer()
        self.assertEqual((self.states()["a"].fault, self.states()["a"].since), (None, self.clock.time()))

    def test_goes_through_mailers_around_it(self) -> None:
        """A failover within a failover, or behind a mailer that redirects; another mailer has nothing to tell."""
        self.transfer()
        around = FailoverMailer([self.mailer, self.c], clock=self.clock)
        inner, last = relay_states_of(around, self.clock.time())
        self.assertEqual(([each.name for each in inner.members][:1], last.members), (["a"], ()))
        redirecting = RedirectMailer(mailer=self.mailer, to=("me@example.org",))
        self.assertEqual(relay_states_of(redirecting, 0.0)[0].name, "a")
        self.assertEqual(relay_states_of(SMTPMailer("relay.example.org", 25), 0.0), [])


class InATransaction(Several):
    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)

    def send(self) -> None:
        DirectMailDelivery(self.mailer).send("sender@example.org", ["one@example.org"], MESSAGE)

    def test_the_relay_that_agreed_gets_the_mail(self) -> None:
        """On the connection of the vote, whoever's turn it is."""
        self.mailer = BalancedMailer([(self.a, 1), (self.b, 1)], clock=self.clock)
        for _ in range(4):
            self.send()
            transaction.commit()
        self.assertEqual(self.sent(), [2, 2, 0])
        one_mail = ["verify", "transfer", "verify"]  # a scripted transfer verifies first
        self.assertEqual([each.calls for each in self.relays], [one_mail * 2, one_mail * 2, []])

    def test_a_relay_that_fails_after_the_vote_is_replaced(self) -> None:
        """The mail is not lost with it."""
        asked: list[str] = []

        def go_away(who: str) -> Reply:
            asked.append(who)
            self.a.fault = DOWN
            return OK

        self.a.answers = go_away
        self.send()
        transaction.commit()
        self.assertEqual((len(asked), self.sent()), (1, [0, 1, 0]))

    def test_no_relay_at_all_aborts(self) -> None:
        """With all their words."""
        for each in self.relays:
            each.fault = DOWN
        self.send()
        with self.assertRaisesRegex(RelayError, "a: 421 refused; b: 421"):
            transaction.commit()


class SeveralMailsOfATransaction(unittest.TestCase):
    """Asked about together."""

    def setUp(self) -> None:
        self.relays = [self.enterContext(Relay()) for _ in range(2)]
        self.mails = [(envelope(f"{name}@example.org"), io.BytesIO(MESSAGE)) for name in "abcd"]

    def ask(self, mailer: SeveralMailers) -> list[Outcome | None]:
        session: Any = open_session(mailer)
        self.addCleanup(session.close)
        outcomes: list[Outcome | None] = session.verify_together(self.mails)
        return outcomes

    def balanced(self) -> BalancedMailer:
        return BalancedMailer([(SMTPMailer(relay.host, relay.port), 1) for relay in self.relays])

    def test_are_agreed_to_by_the_relay_whose_turn_it_is(self) -> None:
        """Each by its own."""
        outcomes = self.ask(self.balanced())
        self.assertEqual([len(each.having(Answer.ACCEPTED)) for each in outcomes if each], [1] * 4)
        self.assertEqual([len(relay.dialogues) for relay in self.relays], [1, 1])

    def test_are_asked_about_alone_where_a_relay_wants_less_mail(self) -> None:
        """Another one may take them."""
        self.relays[1].on("RCPT", str(BUSY))
        self.assertEqual([each is None for each in self.ask(self.balanced())], [False, True, False, True])

    def test_are_asked_about_alone_behind_a_mailer_that_cannot_do_it_together(self) -> None:
        """It is one that has no such conversation."""
        self.assertEqual(self.ask(FailoverMailer([NamedMailer("a")])), [None] * 4)


class RealRelays(unittest.TestCase):
    def test_mail_goes_to_the_one_that_is_there(self) -> None:
        """Through smtplib's and our own way."""
        with Relay() as gone:
            port = gone.port
        with Relay() as relay:
            dead = SMTPMailer(hostname="127.0.0.1", port=port, no_tls=True)
            alive = SMTPMailer(hostname=relay.host, port=relay.port, no_tls=True)
            mailer = FailoverMailer([dead, alive], clock=ManualClock())
            self.assertEqual(mailer.send("a@example.org", ["b@example.org"], MESSAGE), {})
            self.assertEqual([mail.recipients for mail in relay.mails], [("b@example.org",)])
        with self.assertRaises((RelayError, smtplib.SMTPException)):
            mailer.send("a@example.org", ["b@example.org"], MESSAGE)
