"""When to try again, and when to give up."""

from __future__ import annotations

import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import given, strategies as st

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.lifecycle import retry
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Part, Record
from zope.sendmail.lifecycle.retry import (
    MALFORMED,
    OnUnknown,
    Schedule,
    after_death,
    expired,
    judge,
    probe_delay,
    sent_at_once,
    sent_before_death,
    set_aside,
    suppressed,
)
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK

A, B = "a@example.org", "b@example.org"
OK = Reply(Answer.ACCEPTED, "ok", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
NEVER = Reply(Answer.REJECTED, "no such user", 550)
LOST = Reply(Answer.UNKNOWN, "no reply")
PLAIN = Schedule(jitter=0.0)


WRONG_DELAYS = (
    "retry: first delay 9.0 s, maximum 8.0 s, lifetime 432000.0 s do not fit; "
    "0 < first <= maximum < infinity and 0 <= lifetime are needed"
)
WRONG_FACTOR = "retry: factor 1001.0 must be within 1 and 1000, jitter 0.2 at least 0 and below 1"


def refusal(**settings_: float) -> str:
    """Return what is said of a schedule that cannot be."""
    try:
        Schedule(**settings_)  # type: ignore[arg-type]  # by name
    except InvalidSettings as error:
        return str(error)
    return ""


def attempt(record: Record, schedule: Schedule = PLAIN, now: float = 1000.0, /, **replies: Reply) -> Record:
    """The record after an attempt for A and B, or those still outstanding."""
    envelope = Envelope("s@example.org", record.outstanding((A, B)))
    said = {f"{who}@example.org": reply for who, reply in replies.items()}
    return judge(record, envelope, Outcome("relay:25", said), schedule, now=now, chance=0.5)


class MoreRecipientsThanARelayTakes(unittest.TestCase):
    TOO_MANY = (Reply.of(452, "4.5.3 Error: too many recipients"), Reply.of(452, "Too many recipients"))

    def test_the_others_go_at_once(self) -> None:
        """As RFC 5321, 4.5.3.1.10 asks; that is no failed attempt, so no delay grows."""
        for limit in self.TOO_MANY:
            record = attempt(Record(), a=OK, b=limit)
            self.assertEqual((record.state, record.due, record.attempts), (State.DEFERRED, 1000.0, 0))

    def test_a_relay_that_takes_nobody_has_its_time(self) -> None:
        """Else it would be asked without a pause, for ever."""
        record = attempt(Record(), a=self.TOO_MANY[0], b=LATER)
        self.assertEqual((record.due, record.attempts), (1060.0, 1))

    def test_a_full_disk_or_mailbox_is_something_else(self) -> None:
        """452 as well (RFC 5321, 4.2.3), but time has to pass."""
        for full in (Reply.of(452, "4.3.1 insufficient system storage"), Reply.of(452, "4.2.2 mailbox full")):
            self.assertEqual(attempt(Record(), a=OK, b=full).due, 1060.0)


class Schedules(unittest.TestCase):
    def test_delays_grow_up_to_the_maximum(self) -> None:
        """A minute, twice as long, ... an hour."""
        self.assertEqual([PLAIN.delay(count, 0.5) for count in range(1, 9)], [60, 120, 240, 480, 960, 1920, 3600, 3600])

    def test_jitter_spreads_both_ways(self) -> None:
        """By the part that was set."""
        self.assertEqual([Schedule().delay(1, chance) for chance in (0.0, 0.5, 1.0)], [48.0, 60.0, 72.0])

    @QUICK
    @given(st.floats(0.001, 1e9), st.floats(1, 1000), st.integers(0, 10**9), st.floats(0, 1))
    def test_a_delay_can_always_be_told(self, first: float, factor: float, count: int, chance: float) -> None:
        """Whatever was set, and however often was tried."""
        schedule = Schedule(first=first, maximum=2 * first, factor=factor, jitter=0.99)
        self.assertGreater(schedule.delay(count, chance), 0)
        self.assertLessEqual(schedule.delay(count, chance), 4 * first)

    def test_what_cannot_be_meant_is_refused(self) -> None:
        """When it is set, not when the first mail is deferred."""
        wrong: list[dict[str, Any]] = [
            {"first": 0},
            {"first": -1},
            {"maximum": 1},
            {"lifetime": -1},
            {"factor": 0.5},
            {"factor": 1e6},
            {"jitter": 1},
            {"jitter": -0.1},
            {"maximum": float("inf")},
            *({name: float("nan")} for name in ("first", "maximum", "lifetime", "factor", "jitter")),
        ]
        for settings_ in wrong:
            with self.subTest(settings_), self.assertRaisesRegex(ValueError, "retry: "):
                Schedule(**settings_)
        self.assertEqual((refusal(first=9.0, maximum=8.0), refusal(factor=1001.0)), (WRONG_DELAYS, WRONG_FACTOR))

    def test_what_is_at_the_limit_can_be_meant(self) -> None:
        """One delay for all attempts; no second attempt; no spread."""
        schedule = Schedule(first=60.0, maximum=60.0, factor=1.0, lifetime=0.0, jitter=0.0)
        self.assertEqual([schedule.delay(attempts, chance) for attempts, chance in ((1, 0.0), (99, 0.999))], [60.0] * 2)
        wide = Schedule(first=60.0, factor=1000.0, jitter=0.999)
        self.assertAlmostEqual(wide.delay(1, 0.0), 0.06)

    def test_the_relay_is_probed_more_and_more_seldom(self) -> None:
        """First after five seconds, at most five minutes apart, however long it is away."""
        self.assertEqual([probe_delay(count) for count in (1, 2, 3, 7, 10**6)], [5, 10, 20, 300, 300])


class TheShortWay(unittest.TestCase):
    """A yes to everybody at the first attempt needs no thought; the record is that of the long way."""

    def test_leads_where_the_long_one_leads(self) -> None:
        """Whatever stands in the record before: workers that died, a time, a note."""
        for before in (
            Record(),
            Record(State.READY, time=900.0, due=900.0, deaths=2, note="its worker died"),
            Record(State.READY, spent=50.0, unknowns=1),
        ):
            short = attempt(before, a=OK, b=OK)
            with mock.patch.object(retry, "_is_first_and_yes_to_all", return_value=False):
                self.assertEqual(attempt(before, a=OK, b=OK), short)
            self.assertIs(short.state, State.SENT)

    def test_is_for_a_yes_to_everybody(self) -> None:
        """Silence about a recipient is no yes, and the mail of somebody else is not theirs."""
        self.assertIs(attempt(Record(), a=OK).state, State.DEFERRED)
        self.assertIs(attempt(Record(), a=OK, c=OK).state, State.DEFERRED)
        self.assertIs(attempt(Record(), a=OK, b=LOST).state, State.DEFERRED)


class AfterAnAttempt(unittest.TestCase):
    def test_all_accepted_is_sent(self) -> None:
        """Also if it took several attempts."""
        self.assertIs(attempt(Record(), a=OK, b=OK).state, State.SENT)
        self.assertIs(attempt(attempt(Record(), a=OK, b=LATER), b=OK).state, State.SENT)

    def test_deferred_waits_for_its_time(self) -> None:
        """And knows what was said."""
        record = attempt(Record(), a=OK, b=LATER)
        self.assertEqual((record.state, record.attempts, record.due), (State.DEFERRED, 1, 1060.0))
        self.assertEqual((record.replies, record.relay), ({A: OK, B: LATER}, "relay:25"))
        self.assertEqual(attempt(record, a=OK, b=LATER).due, 1120.0)

    def test_nobody_is_forgotten(self) -> None:
        """A recipient that nothing was said about is tried again."""
        record = attempt(Record(), a=OK)
        self.assertEqual((record.state, record.outstanding((A, B))), (State.DEFERRED, (B,)))

    def test_rejected_when_nobody_is_left_to_try(self) -> None:
        """One rejected recipient is enough, but not before the others are done."""
        self.assertIs(attempt(Record(), a=OK, b=NEVER).state, State.REJECTED)
        waiting = attempt(Record(), a=LATER, b=NEVER)
        self.assertIs(waiting.state, State.DEFERRED)
        self.assertIs(attempt(waiting, a=OK).state, State.REJECTED)

    def test_temporary_is_not_final(self) -> None:
        """4xx for all recipients does not reject the mail (fault A2 of 7.3)."""
        self.assertIs(attempt(Record(), a=LATER, b=LATER).state, State.DEFERRED)

    def test_malformed_addresses_are_rejected_and_the_others_are_served(self) -> None:
        """No relay is asked about them (fault A5 of 7.3)."""
        envelope = Envelope("s@example.org", (A,), ("a@b@c",))
        record = judge(Record(), envelope, Outcome("r", {A: OK}), PLAIN, now=0.0, chance=0.5)
        self.assertEqual((record.state, record.replies), (State.REJECTED, {A: OK, "a@b@c": MALFORMED}))
        self.assertEqual(str(MALFORMED), "5.1.3 the address is malformed; no relay was asked")

    def test_unknown_is_tried_again_or_held(self) -> None:
        """As the policy says; it is counted in both cases."""
        for policy, state in ((OnUnknown.RESEND, State.DEFERRED), (OnUnknown.HOLD, State.HELD)):
            record = attempt(Record(), Schedule(on_unknown=policy), a=OK, b=LOST)
            self.assertEqual((record.state, record.unknowns, record.replies[B]), (state, 1, LOST))
        self.assertEqual(record.note, "the outcome is unknown; look at the relay's log, then retry or remove")

    def test_what_is_known_is_not_held(self) -> None:
        """Whatever the policy is: a relay that says "later" has not got the mail."""
        record = attempt(Record(unknowns=1), Schedule(on_unknown=OnUnknown.HOLD), a=OK, b=LATER)
        self.assertEqual((record.state, record.unknowns), (State.DEFERRED, 1))

    def test_sent_at_once_is_as_new(self) -> None:
        """Of a mail of which nothing is known the first attempt is the only one."""
        self.assertEqual(
            sent_at_once(Outcome("r:25", {A: OK}), now=5.0),
            Record(State.SENT, attempts=1, time=5.0, relay="r:25", replies={A: OK}),
        )


class APartOfAMail(unittest.TestCase):
    def test_that_its_relay_takes_no_more_of_was_not_tried(self) -> None:
        """Its attempts stay what they were, so that no delay grows; it is due at once, or when it was said."""
        record = Record(State.DEFERRED, 7, 900.0, 950.0, parts={"bulk": Part(3, 900.0, 950.0, 30.0)})
        envelope = Envelope("s@example.org", (A, B))
        too_many = Outcome("r:25", {A: OK, B: Reply.of(452, "4.5.3 Error: too many recipients")})
        for outcome, again_in, due in ((too_many, None, 1000.0), (Outcome("r:25", {B: LATER}), 40.0, 1040.0)):
            left = judge(*(record, envelope, outcome, PLAIN), now=1000.0, chance=0.5, part="bulk", again_in=again_in)
            self.assertEqual((left.attempts, left.parts), (7, {"bulk": Part(3, 1000.0, due, 130.0)}))

    def test_that_is_done_leaves_the_others_as_they_are(self) -> None:
        """The mail waits for those, with their attempts and their moment."""
        main = Part(1, 900.0, 1500.0, 900.0)
        record = Record(State.DEFERRED, 1, 900.0, 950.0, parts={"bulk": Part(1, 900.0, 950.0), "main": main})
        envelope = Envelope("s@example.org", (A,))
        outcome = Outcome("bulk:25", {A: OK})
        done = judge(record, envelope, outcome, PLAIN, now=1000.0, chance=0.5, part="bulk", others={"main": main})
        self.assertEqual((done.state, done.due, done.parts), (State.DEFERRED, 1500.0, {"main": main}))
        self.assertEqual((done.replies, done.note), ({A: OK}, ""))

    def test_that_is_taken_at_once_leaves_the_others_to_be_sent(self) -> None:
        """A yes to all of one part is no yes to all."""
        others = {"main": Part()}
        envelope, outcome = Envelope("s@example.org", (A,)), Outcome("r:25", {A: OK})
        left = judge(Record(), envelope, outcome, PLAIN, now=1000.0, chance=0.5, part="bulk", others=others)
        self.assertEqual((left.state, left.parts), (State.DEFERRED, others))

    def test_goes_on_where_it_was(self) -> None:
        """With its own attempts, or as a new one if none of its recipients was tried."""
        record = Record(State.DEFERRED, 7, 900.0, 950.0, parts={"bulk": Part(2, 900.0, 950.0, 30.0)}, replies={B: OK})
        envelope, outcome = Envelope("s@example.org", (A,)), Outcome("r:25", {A: LATER})
        for name, attempts, spent in (("bulk", 3, 130.0), ("main", 1, 0.0)):
            tried = judge(record, envelope, outcome, PLAIN, now=1000.0, chance=0.5, part=name)
            delay = PLAIN.delay(attempts, 0.5)
            self.assertEqual(tried.parts, {name: Part(attempts, 1000.0, 1000.0 + delay, spent)})

    def test_that_is_unknown_is_held_when_the_others_are_done(self) -> None:
        """Its note says so, as long as others wait; a mail that is held keeps the moment that was planned."""
        main = Part(1, 900.0, 1500.0, 900.0)
        record = Record(State.DEFERRED, 1, 900.0, 950.0, parts={"main": main})
        envelope, outcome = Envelope("s@example.org", (A,)), Outcome("r:25", {A: LOST})
        hold = Schedule(on_unknown=OnUnknown.HOLD)
        for others, state, due, note in (
            (
                *({"main": main}, State.DEFERRED, 1500.0),
                "the outcome is unknown for some recipients; it is held when the others are done",
            ),
            ({}, State.HELD, 950.0, "the outcome is unknown; look at the relay's log, then retry or remove"),
        ):
            lost = judge(record, envelope, outcome, hold, now=1000.0, chance=0.5, part="bulk", others=others)
            held = Part(1, 1000.0, 1000.0, held=True)
            self.assertEqual((lost.state, lost.due, lost.note), (state, due, note))
            self.assertEqual(lost.parts, {**others, "bulk": held})


class GivingUp(unittest.TestCase):
    def test_after_the_lifetime(self) -> None:
        """With the last words of the relay, and the code for it (RFC 3463)."""
        record, now, attempts = Record(), 1000.0, 0
        while record.state in (State.READY, State.DEFERRED):
            record = attempt(record, PLAIN, now, a=OK, b=LATER)
            now, attempts = record.due, attempts + 1
        self.assertIs(record.state, State.REJECTED)
        self.assertEqual((record.replies[A], record.replies[B].enhanced), (OK, "4.4.7"))
        self.assertRegex(record.replies[B].text, r"given up after \d+ attempts in 5\.0 days; last: 450 greylisted")
        self.assertEqual(attempts, record.attempts)
        self.assertGreater(attempts, 100)

    def test_no_lifetime_is_one_attempt(self) -> None:
        """Zero means: never again."""
        record = attempt(Record(), Schedule(lifetime=0), a=OK, b=LATER)
        self.assertIs(record.state, State.REJECTED)
        silent = attempt(Record(), Schedule(lifetime=0), a=OK)
        words = "given up after 1 attempts in 0.0 days; last: "
        nothing = Reply(Answer.REJECTED, f"{words}the relay said nothing about it", None, "4.4.7")
        self.assertEqual(silent.replies[B], nothing)
        self.assertEqual(record.replies[B], Reply(Answer.REJECTED, f"{words}450 greylisted", 450, "4.4.7"))

    def test_says_after_how_many_days(self) -> None:
        """However many; nothing is due then."""
        record = attempt(Record(State.DEFERRED, 1, spent=864_000_000.0, due=99.0), PLAIN, b=LATER)
        self.assertIn("in 10000.0 days", record.replies[B].text)
        self.assertEqual(record.due, 0.0)

    def test_a_clock_that_jumps_costs_no_mail_its_life(self) -> None:
        """Neither a year ahead nor a year back; nor does a processor that was switched off: half a day counts."""
        for jump in (365 * 86400.0, -365 * 86400.0):
            record = attempt(Record(), PLAIN, 1e9, a=LATER, b=LATER)
            record = attempt(record, PLAIN, 1e9 + jump, a=LATER, b=LATER)
            self.assertIs(record.state, State.DEFERRED)
            self.assertLessEqual(record.spent, 43200)

    def test_a_processor_that_runs_twice_a_day_gives_up_in_time(self) -> None:
        """By cron, with the delays of one that runs all the time: five days are ten or eleven attempts."""
        for hours, most in (12, 5.5), (24, 10.5), (6, 5.5):
            record, now, begin = Record(), 1e9, 1e9
            while record.state is not State.REJECTED:
                record = attempt(record, PLAIN, now, a=LATER, b=LATER)
                now += hours * 3600
            self.assertLessEqual((record.time - begin) / 86400, most)
            self.assertGreaterEqual((record.time - begin) / 86400, 5.0)

    def test_no_more_than_twice_what_was_planned_and_ten_minutes_count(self) -> None:
        """Of a life too short for half a day; a plan, or a clock, that lies before the attempt counts as none."""
        plan = Schedule(jitter=0.0, lifetime=1000)
        for due, now, spent in ((1060.0, 1e6, 720.0), (900.0, 1e6, 600.0), (1060.0, 1050.0, 50.0), (1060.0, 900.0, 0)):
            record = attempt(Record(State.DEFERRED, 1, time=1000.0, due=due), plan, now, a=LATER, b=LATER)
            self.assertEqual(record.spent, spent, (due, now))
        plan = Schedule(jitter=0.0, lifetime=30 * 86400)
        long = attempt(Record(State.DEFERRED, 1, time=1000.0, due=1060.0), plan, 1e6, a=LATER, b=LATER)
        self.assertEqual(long.spent, 43200.0)

    def test_a_short_life_bears_a_jump_too(self) -> None:
        """A tenth of it at most is lost."""
        plan = Schedule(jitter=0.0, lifetime=4 * 3600)
        record = attempt(Record(), plan, 1e9, a=LATER)
        record = attempt(record, plan, 1e9 + 86400, a=LATER)
        self.assertEqual((record.state, record.spent), (State.DEFERRED, 1440))

    def test_waiting_before_the_first_attempt_costs_nothing(self) -> None:
        """The lifetime begins when a relay has heard of the mail."""
        self.assertEqual(attempt(Record(time=0.0), PLAIN, 1e9, a=LATER).spent, 0.0)


class WithoutAnAttempt(unittest.TestCase):
    """What ends a mail before a relay is asked."""

    envelope = Envelope("s@example.org", (A, B), ("x@@y",))

    def test_what_no_relay_can_be_asked_about_is_set_aside(self) -> None:
        """With the reason for all that are left; who had it has it."""
        before = Record(State.DEFERRED, 2, due=99.0, replies={"c@x": OK}, parts={"bulk": Part()})
        record = set_aside(before, self.envelope, "unreadable", now=9.0)
        self.assertEqual(record.parts, {})
        self.assertEqual((record.state, record.time, record.due, record.note), (State.REJECTED, 9.0, 0.0, "unreadable"))
        refused = Reply(Answer.REJECTED, "unreadable")
        self.assertEqual(record.replies, {"c@x": OK, A: refused, B: refused, "x@@y": refused})

    def test_what_its_sender_wanted_until_now_is_given_up(self) -> None:
        """It says after how many attempts, and what was said last (RFC 3463, 3.5)."""
        envelope = replace(self.envelope, terms=Terms(expires=1_796_112_000.0))
        until = "for its sender wanted it to leave until 2026-12-01T08:00:00Z"
        for attempts, words in ((0, "no attempt"), (1, "1 attempt"), (2, "2 attempts")):
            before = Record(State.DEFERRED, attempts, due=99.0, replies={A: LATER, "c@x": OK}, parts={"b": Part()})
            record = expired(before, envelope, now=9.0)
            self.assertEqual((record.note, record.parts), ("expired", {}))
            self.assertEqual((record.state, record.time, record.due), (State.REJECTED, 9.0, 0.0))
            last = Reply(Answer.REJECTED, f"given up after {words}, {until}; last: 450 greylisted", 450, "4.4.7")
            never = Reply(Answer.REJECTED, f"given up after {words}, {until}", None, "4.4.7")
            self.assertEqual(record.replies, {A: last, "c@x": OK, B: never, "x@@y": never})

    def test_who_gets_no_mail_is_refused_and_the_others_are_served(self) -> None:
        """At once; with nobody left the mail is at its end."""
        entry = Suppression.of(A, "bounced")
        record = suppressed(Record(State.DEFERRED, due=99.0), self.envelope, {A: entry}, now=9.0)
        self.assertEqual((record.state, record.due, record.replies), (State.READY, 9.0, {A: entry.reply}))
        self.assertEqual(record.time, 9.0)
        before = Record(due=99.0, parts={"bulk": Part()})
        record = suppressed(before, Envelope("s@example.org", (A,)), {A: entry}, now=9.0)
        self.assertEqual((record.time, record.parts), (9.0, {}))
        self.assertEqual((record.state, record.due, record.replies), (State.REJECTED, 0.0, {A: entry.reply}))


class AfterADeath(unittest.TestCase):
    envelope = Envelope("s@example.org", (A, B))

    def test_what_was_only_opened_is_tried_again(self) -> None:
        """Now, and the death is counted."""
        before = Record(State.DEFERRED, attempts=3, time=1.0, due=90.0, spent=7.0, relay="r:25", replies={A: LATER})
        record = after_death(before, self.envelope, PLAIN, intended=False, now=5.0)
        expected = replace(before, state=State.READY, deaths=1, time=5.0, due=5.0, note="its worker died")
        self.assertEqual(record, expected)

    def test_what_was_intended_is_unknown(self) -> None:
        """For those who were outstanding only; the policy decides what follows."""
        before = Record(replies={A: OK})
        left = self.envelope.only([B])
        for policy, state in ((OnUnknown.RESEND, State.READY), (OnUnknown.HOLD, State.HELD)):
            record = after_death(before, left, Schedule(on_unknown=policy), intended=True, now=5.0)
            self.assertEqual((record.state, record.unknowns, record.replies[A]), (state, 1, OK))
            self.assertIs(record.replies[B].answer, Answer.UNKNOWN)
            words = "the worker died between the last byte and the relay's reply"
            self.assertEqual(record.replies[B].text, words)
            self.assertEqual((record.deaths, record.time, record.due), (1, 5.0, 5.0))
        self.assertEqual(record.note, record.replies[B].text)

    def test_what_the_relay_had_accepted_has_left(self) -> None:
        """Nothing is tried again, and the attempt is counted; what was said of others stays."""
        before = Record(State.DEFERRED, attempts=3, time=1.0, due=90.0, note="x", replies={A: NEVER, B: LATER})
        record = sent_before_death(before, self.envelope.only([B]), now=5.0)
        expected = replace(before, state=State.SENT, attempts=4, time=5.0, due=0.0, note="", replies=record.replies)
        self.assertEqual((record, record.replies[A]), (expected, NEVER))
        self.assertEqual((record.replies[B].answer, record.replies[B].code), (Answer.ACCEPTED, None))
        self.assertEqual(record.replies[B].text, "accepted; the worker died before it could remove the mail")

    def test_the_third_death_holds_it(self) -> None:
        """A message that kills its workers waits for a person."""
        record = Record()
        states = []
        for _ in range(3):
            record = after_death(record, self.envelope, PLAIN, intended=False, now=5.0)
            states.append(record.state)
        self.assertEqual(states, [State.READY, State.READY, State.HELD])
        self.assertEqual(record.note, "its worker died 3 times")


load_tests = properties_apart
