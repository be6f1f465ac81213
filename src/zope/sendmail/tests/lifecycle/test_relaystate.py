"""What processors tell of relays, and which mail waits for which."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from typing import Any

from zope.sendmail.lifecycle.finding import moment
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.rates import Minute
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import (
    KEPT_DAYS,
    ProcessorState,
    RelayBoard,
    RelayState,
    fault_words,
    is_drained,
    last_pass,
    probe_words,
    read_processor_state,
    waiting_words,
    write_processor_state,
)
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes

NOW = 1_000_000.0
REFUSED = Reply(Answer.DEFERRED, "[Errno 111] Connection refused")
LOGIN = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")

DOWN = RelayState("default", "mail.example.org:25", fault=REFUSED, since=NOW - 600, probe=NOW + 60, asked=NOW - 5)
UP = RelayState("default", "mail.example.org:25", since=NOW - 600, asked=NOW - 5)
BULK = RelayState("bulk", "bulk.example.org:587", fault=LOGIN, since=NOW - 60, asked=NOW - 5)
ROUTES = Routes(
    "default", frozenset({"default", "bulk"}), frozenset({("bulk.example.org", 587)}), {"@news.org": "bulk"}
)

TO_ONE = Envelope("a@example.org", ("one@example.org",))
TO_NEWS = Envelope("a@example.org", ("one@news.org",))
TO_BOTH = Envelope("a@example.org", ("one@example.org", "one@news.org"))
FRESH = Record()


def processor(*relays: RelayState, alive: bool = True, **more: Any) -> ProcessorState:
    values: dict[str, Any] = {
        "pid": 7,
        "host": "here",
        "written": NOW,
        "relays": relays,
        "routes": ROUTES,
        "alive": alive,
        **more,
    }
    return ProcessorState(**values)


class AQueue(unittest.TestCase):
    def test_is_drained_by_a_processor_that_lives(self) -> None:
        """Or by passes that end and begin again, of which the last has ended lately; not by what has been stopped."""
        passing = ProcessorState(written=NOW, ended=NOW, forever=False)
        stopped = ProcessorState(written=NOW, ended=NOW)
        self.assertTrue(is_drained([stopped, replace(stopped, alive=True)], NOW + 10_000))
        self.assertTrue(is_drained([replace(stopped, written=NOW - 1), passing], NOW + 899))
        self.assertFalse(is_drained([passing], NOW + 900))
        self.assertFalse(is_drained([stopped], NOW + 1))
        self.assertFalse(is_drained([], NOW))

    def test_tells_when_its_last_pass_ended(self) -> None:
        """That is none while a processor lives, or if the last one was to run for ever, or long ago."""
        passing = ProcessorState(written=NOW, ended=NOW - 1, forever=False)
        self.assertEqual(last_pass([replace(passing, written=NOW - 9, ended=NOW - 9), passing], NOW + 898), NOW - 1)
        self.assertIsNone(last_pass([passing], NOW + 899))
        self.assertIsNone(last_pass([passing, replace(passing, written=NOW - 9, alive=True)], NOW))
        self.assertIsNone(last_pass([replace(passing, forever=True)], NOW))
        self.assertIsNone(last_pass([], NOW))


class AllRelays(unittest.TestCase):
    def test_are_those_that_were_asked_and_those_of_the_routes(self) -> None:
        """The one that a mail may name by host and port as well; nothing is known of routes without a processor."""
        board = RelayBoard([ProcessorState(written=NOW, relays=(DOWN,), routes=ROUTES)])
        self.assertEqual(board.names(), {"default", "bulk", "bulk.example.org:587"})
        self.assertEqual(RelayBoard([]).names(), set())
        begun = ProcessorState(pid=2, alive=True)  # it has told nothing yet, and hides nothing
        self.assertEqual(RelayBoard([begun, *board.processors]).names(), board.names())
        self.assertEqual(RelayBoard([processor(routes=Routes())]).names(), {"default"})

    def test_of_several_that_take_turns_those_are_told_that_take_no_part(self) -> None:
        """Mail goes, so nothing else would say that one of them is down; if the whole is down, that is said anyway."""
        pair = replace(UP, name="pair", members=(replace(UP, name="a"), replace(DOWN, name="b")))
        board = RelayBoard([ProcessorState(written=NOW, relays=(pair, BULK))])
        self.assertEqual([(whole.name, part.name) for whole, part in board.left_out()], [("pair", "b")])
        board = RelayBoard([ProcessorState(written=NOW, relays=(replace(DOWN, members=pair.members),))])
        self.assertEqual(list(board.left_out()), [])


class AMailThatIsDue(unittest.TestCase):
    def test_waits_for_the_relay_that_it_goes_to(self) -> None:
        """The routes of the processor decide, or the mail itself."""
        board = RelayBoard([processor(UP, BULK)])
        self.assertIsNone(board.blocking(TO_ONE, FRESH))
        self.assertEqual(board.blocking(TO_NEWS, FRESH), BULK)
        self.assertEqual(board.blocking(replace(TO_ONE, relay=RelayName(mailer="bulk")), FRESH), BULK)

    def test_may_name_its_relay_by_the_address(self) -> None:
        """It is the mailer's relay then."""
        named = replace(TO_ONE, relay=RelayName(hostname="bulk.example.org", port=587))
        board = RelayBoard([processor(UP, BULK)])
        self.assertEqual((board.relays_of(named, FRESH), board.blocking(named, FRESH)), (("bulk",), BULK))

    def test_does_not_wait_while_one_of_its_relays_works(self) -> None:
        """The recipients there are served."""
        self.assertIsNone(RelayBoard([processor(UP, BULK)]).blocking(TO_BOTH, FRESH))
        self.assertIsNotNone(RelayBoard([processor(DOWN, BULK)]).blocking(TO_BOTH, FRESH))

    def test_does_not_wait_for_the_relay_of_those_who_have_it(self) -> None:
        """What is left counts."""
        served = Record(replies={"one@example.org": Reply(Answer.ACCEPTED, "ok", 250)})
        board = RelayBoard([processor(UP, BULK)])
        self.assertEqual(board.relays_of(TO_BOTH, served), ("bulk",))
        self.assertEqual(board.blocking(TO_BOTH, served), BULK)

    def test_may_name_a_relay_that_there_is_not(self) -> None:
        """Nothing is known about it then; the processor sets it aside."""
        named = replace(TO_ONE, relay=RelayName(mailer="nonesuch"))
        self.assertEqual(RelayBoard([processor(UP)]).relays_of(named, FRESH), ())

    def test_of_an_unreadable_file_waits_for_nothing(self) -> None:
        """There is no envelope."""
        self.assertIsNone(RelayBoard([processor(DOWN)]).blocking(None, FRESH))

    def test_waits_for_nothing_known_before_the_first_processor(self) -> None:
        """There are no routes."""
        self.assertEqual(RelayBoard([]).relays_of(TO_ONE, FRESH), ())


class SeveralProcessors(unittest.TestCase):
    def test_keep_mail_moving_as_long_as_one_reaches_the_relay(self) -> None:
        """What one cannot send another one does."""
        board = RelayBoard([processor(DOWN), processor(replace(UP, asked=NOW))])
        self.assertIsNone(board.blocking(TO_ONE, FRESH))

    def test_are_believed_if_they_live(self) -> None:
        """A dead one may have seen the relay work yesterday."""
        board = RelayBoard([processor(UP, alive=False, written=NOW + 5), processor(DOWN)])
        self.assertEqual(board.blocking(TO_ONE, FRESH), DOWN)

    def test_leave_what_they_knew(self) -> None:
        """The last word about a relay stays when its processor ends."""
        board = RelayBoard([processor(UP, alive=False, written=NOW - 60), processor(DOWN, alive=False)])
        self.assertEqual(board.blocking(TO_ONE, FRESH), replace(DOWN, probe=0.0))
        self.assertEqual(board.living, [])

    def test_go_on_counting_where_the_last_one_ended(self) -> None:
        """A relay that is still down is down since it was first seen so, over any number of passes."""
        fresh = replace(DOWN, since=NOW)
        [relay] = processor(fresh).absorb([processor(DOWN, alive=False)]).relays
        self.assertEqual(relay.since, NOW - 600)
        [relay] = processor(fresh).absorb([processor(UP, alive=False)]).relays
        self.assertEqual(relay.since, NOW)

    def test_take_over_what_they_have_not_seen_themselves(self) -> None:
        """A pass with nothing to send does not forget; what is old is forgotten."""
        self.assertEqual(processor().absorb([processor(DOWN, alive=False)]).relays, (DOWN,))
        self.assertEqual(KEPT_DAYS, 7)
        for seconds, kept in ((7 * 86400, False), (7 * 86400 - 1, True)):
            old = replace(DOWN, asked=NOW - seconds)
            self.assertEqual(processor().absorb([processor(old, alive=False)]).relays, (old,) * kept)


class TheRate(unittest.TestCase):
    def test_is_that_of_now(self) -> None:
        """What was written an hour ago, or at the end, is no rate any more."""
        state = processor(per_minute=12.0)
        self.assertEqual([state.rate(NOW + seconds) for seconds in (0, 60, 61)], [12.0, 12.0, 0.0])
        self.assertEqual(processor(per_minute=12.0, ended=NOW).rate(NOW), 0.0)


class OnDisk(unittest.TestCase):
    def test_nothing_is_lost(self) -> None:
        """Written and read again it is the same, but for whether the processor lives."""
        state = processor(DOWN, replace(BULK, limit="too many", connections=5, rate=1.5), sent=3, per_minute=1.5)
        state = replace(state, host="h\u00e9", minutes=(Minute(5, 1, 2, 3, 4, 0.5),))
        self.assertEqual(read_processor_state(write_processor_state(state)), replace(state, alive=False))

    def test_it_can_be_read_by_people(self) -> None:
        """One value on a line, in ASCII."""
        lines = write_processor_state(replace(processor(), host="h\u00e9")).splitlines()
        self.assertEqual(lines[:3], [b"{", b' "pid": 7,', b' "host": "h\\u00e9",'])

    def test_what_an_earlier_version_did_not_write_is_as_usual(self) -> None:
        """No relays, no minutes, no routes, or routes without this or that."""
        values = json.loads(write_processor_state(processor()))
        for name in ("relays", "minutes", "routes"):
            del values[name]
        self.assertEqual(
            read_processor_state(json.dumps(values).encode()), replace(processor(), alive=False, routes=Routes())
        )
        values["routes"] = {"default": "main"}
        state = read_processor_state(json.dumps(values).encode())
        assert state is not None
        self.assertEqual(state.routes, Routes("main"))

    def test_what_is_torn_or_foreign_is_nothing(self) -> None:
        """Reading never fails."""
        whole = write_processor_state(processor(DOWN))
        for text in (b"", b"\0" * 100, whole[:-20], b"[]", b"{}", b'{"relays": 3}', b'{"pid": "x"}', b"null"):
            with self.subTest(text=text[:20]):
                self.assertIn(read_processor_state(text), (None, ProcessorState()))

    def test_what_a_later_version_adds_is_passed_over(self) -> None:
        """And what is missing is as usual."""
        values = json.loads(write_processor_state(processor(DOWN)))
        del values["sent"]
        values["relays"][0]["colour"] = "blue"
        values["mood"] = "good"
        self.assertEqual(
            read_processor_state(json.dumps(values).encode()), replace(processor(DOWN), alive=False, sent=0)
        )

    def test_no_password_is_in_it(self) -> None:
        """Routes and relays have none."""
        self.assertNotIn(b"password", write_processor_state(processor(DOWN, BULK)).replace(b"legacy_passwords", b""))


class TheBoard(unittest.TestCase):
    BOARD = RelayBoard([processor(UP, BULK)])

    def test_finds_a_relay_by_name_or_address(self) -> None:
        """And none by anything else."""
        for name, relay in (
            ("bulk", BULK),
            ("bulk.example.org:587", BULK),
            ("mail.example.org:25", UP),
            ("other", None),
            ("", None),
        ):
            self.assertEqual(self.BOARD.get(name), relay, name)

    def test_does_not_find_a_relay_by_the_address_that_it_has_not(self) -> None:
        """Of some mailers it is not known."""
        self.assertIsNone(RelayBoard([processor(RelayState("bulk"))]).get(""))

    def test_names_the_relay_that_has_an_address(self) -> None:
        """Also one that is made of others, by the address of one of these."""
        several = replace(UP, members=(replace(DOWN, name="first", address="first:25"), RelayState("second")))
        board = RelayBoard([processor(several, BULK)])
        for address, name in (
            (UP.address, UP.name),
            (BULK.address, BULK.name),
            ("first:25", UP.name),
            ("other:25", ""),
            ("", ""),
        ):
            self.assertEqual(board.name_of(address), name, address)

    def test_names_the_relays_of_a_mail(self) -> None:
        """The default by the name that it has; one that was never asked by its address."""
        for routes, names in (
            (Routes(), ("default",)),
            (Routes("main", frozenset({"main"})), ("main",)),
            (Routes("", frozenset(), frozenset({("new.example.org", 25)})), ("default",)),
        ):
            board = RelayBoard([processor(UP, BULK, routes=routes)])
            self.assertEqual(board.relays_of(TO_ONE, FRESH), names, routes)
        board = RelayBoard([processor(UP, routes=ROUTES)])
        named = replace(TO_ONE, relay=RelayName(hostname="bulk.example.org", port=587))
        self.assertEqual(board.relays_of(named, FRESH), ("bulk.example.org:587",))

    def test_keeps_the_relays_of_a_mailer_that_has_several(self) -> None:
        """With what each of them said, through the file."""
        several = replace(UP, members=(replace(DOWN, name="first"), replace(UP, name="second")))
        written = write_processor_state(processor(several))
        state = read_processor_state(written)
        assert state is not None
        self.assertEqual(state.relays, (several,))

    def test_has_a_file_of_a_relay_without_members(self) -> None:
        """As releases wrote it that knew of none."""
        values = json.loads(write_processor_state(processor(DOWN)))
        del values["relays"][0]["members"]
        state = read_processor_state(json.dumps(values).encode())
        assert state is not None
        self.assertEqual(state.relays, (DOWN,))


class WhatTheDeadKnew(unittest.TestCase):
    def test_is_known_by_the_next_one(self) -> None:
        """Of each relay what was written last, in whatever order they are read; the minutes of all."""
        minute = int(NOW // 60)
        old = processor(replace(DOWN, since=NOW - 900), BULK, written=NOW - 50, minutes=(Minute(minute - 2, sent=1),))
        last = processor(replace(DOWN, since=NOW - 700), written=NOW - 10, minutes=(Minute(minute - 1, sent=2),))
        for dead in ([old, last], [last, old]):
            heir = processor(DOWN, replace(UP, name="new"), minutes=(Minute(minute, sent=4),)).absorb(dead)
            self.assertEqual([relay.name for relay in heir.relays], ["default", "new", "bulk"])
            self.assertEqual(heir.relays[0].since, NOW - 700)
            self.assertEqual([each.sent for each in heir.minutes], [1, 2, 4])

    def test_of_a_relay_that_is_up_again_begins_anew(self) -> None:
        """It is up since it was seen so."""
        self.assertEqual(processor(UP).absorb([processor(replace(DOWN, since=NOW - 900))]).relays[0].since, NOW - 600)


class TheWords(unittest.TestCase):
    def test_name_a_relay(self) -> None:
        """With its address, if there is one that is another word."""
        titles = [RelayState("bulk", address).title for address in ("", "bulk", "bulk.example.org:25")]
        self.assertEqual(titles, ["bulk", "bulk", "bulk (bulk.example.org:25)"])

    def test_say_what_mail_waits_for(self) -> None:
        """Which relay, since when, why, and when it is tried again."""
        self.assertEqual(
            waiting_words(DOWN, NOW),
            f"relay default (mail.example.org:25) cannot be used since {moment(NOW - 600)} (10m): "
            "[Errno 111] Connection refused; next try in 1m",
        )
        self.assertEqual(
            waiting_words(replace(BULK, since=0.0), NOW),
            "relay bulk (bulk.example.org:587) cannot be used: 535 5.7.8 authentication failed; "
            "it is tried when a processor looks next",
        )

    def test_say_when_it_is_tried(self) -> None:
        """In how long, as soon as a processor looks, or now."""
        self.assertEqual(probe_words(replace(DOWN, probe=NOW), NOW), "it is tried now")
        self.assertEqual(probe_words(replace(DOWN, probe=NOW + 1), NOW), "next try in 1s")
        self.assertEqual(probe_words(replace(DOWN, probe=0.0), NOW), "it is tried when a processor looks next")

    def test_say_nothing_of_one_that_can_be_used(self) -> None:
        """And of another one no more than is read."""
        self.assertEqual(fault_words(UP), "")
        self.assertEqual(len(fault_words(replace(DOWN, fault=Reply(Answer.DEFERRED, "x" * 400)))), 300)
        self.assertIn(f"relay {'x' * 200} cannot", waiting_words(replace(DOWN, name="x" * 400), NOW).replace("…", "x"))

    def test_are_harmless(self) -> None:
        """What a relay says may be anything."""
        fault = Reply(Answer.DEFERRED, "no\x1b[31m\nway")
        self.assertTrue(waiting_words(replace(DOWN, fault=fault), NOW).isprintable())
