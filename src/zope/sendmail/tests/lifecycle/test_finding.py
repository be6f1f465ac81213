"""How times, durations and recipients are written for people."""

from __future__ import annotations

import datetime
import unittest

from zope.sendmail.lifecycle.finding import (
    HERE,
    QUEUE,
    Finding,
    Kind,
    Severity,
    age,
    from_to,
    moment,
    queue_command,
    quoted,
    said,
    together,
)
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope

MINUTE, HOUR, DAY = 60, 3600, 86400
LATER = Reply(Answer.DEFERRED, "greylisted", 450)


class ADuration(unittest.TestCase):
    def test_has_its_two_largest_units(self) -> None:
        """What is smaller is of no interest beside them."""
        for seconds, words in (
            (0, "0s"),
            (0.9, "0s"),
            (59.9, "59s"),
            (MINUTE, "1m"),
            (MINUTE + 1, "1m 1s"),
            (3 * HOUR + 12 * MINUTE + 59, "3h 12m"),
            (HOUR, "1h"),
            (2 * DAY + 5 * HOUR + MINUTE, "2d 5h"),
            (99 * DAY + HOUR, "99d 1h"),
        ):
            self.assertEqual(age(seconds), words)

    def test_leaves_out_a_unit_of_which_there_is_none(self) -> None:
        """An hour and some seconds are an hour: the next unit would be minutes."""
        self.assertEqual((age(HOUR + 5), age(DAY + 59 * MINUTE)), ("1h", "1d"))

    def test_of_a_hundred_days_is_days(self) -> None:
        """The hour says nothing any more."""
        self.assertEqual((age(100 * DAY + 5 * HOUR), age(4000 * DAY)), ("100d", "4000d"))

    def test_of_a_clock_that_was_set_back_is_none(self) -> None:
        """Less than nothing is nothing."""
        self.assertEqual(age(-5), "0s")


class AMoment(unittest.TestCase):
    def test_is_in_the_zone_of_the_reader(self) -> None:
        """With its offset, to the second: the text means the same moment."""
        text = moment(1_800_000_000.75)
        self.assertRegex(text, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d$")
        self.assertEqual(datetime.datetime.fromisoformat(text).timestamp(), 1_800_000_000)

    def test_that_cannot_be_is_told_so(self) -> None:
        """A file may say anything."""
        for seconds in (1e300, float("inf"), float("nan"), -1e18):
            self.assertEqual(moment(seconds), "an impossible time")


class WhomItIsTo(unittest.TestCase):
    def test_names_three(self) -> None:
        """How many there are more; the malformed are recipients, too."""
        few = Envelope("a@example.org", ("b@example.org", "c@example.org"), ("d@@",))
        self.assertEqual(from_to(few), "from a@example.org to b@example.org, c@example.org, d@@")
        many = Envelope("", tuple(f"{n}@example.org" for n in range(5)))
        self.assertEqual(from_to(many), "from <> to 0@example.org, 1@example.org, 2@example.org and 2 more")

    def test_is_no_longer_than_a_line_can_be(self) -> None:
        """80 characters of an address."""
        words = from_to(Envelope("s" * 300, ("r" * 300,)))
        self.assertEqual([len(word) for word in words.split(" ")], [4, 80, 2, 80])

    def test_is_not_known_of_a_torn_file(self) -> None:
        """Which has no envelope."""
        self.assertEqual(from_to(None), "without a readable envelope")


class WhatWasSaid(unittest.TestCase):
    def test_is_about_those_who_did_not_get_it(self) -> None:
        """And is not repeated where the note has it already."""
        replies = {
            "ok@example.org": Reply(Answer.ACCEPTED, "taken", 250),
            "later@example.org": LATER,
            "noted@example.org": Reply(Answer.REJECTED, "given up", 550),
        }
        record = Record(State.DEFERRED, replies=replies, note="given up")
        self.assertEqual(said(record), "later@example.org: 450 greylisted")

    def test_names_three(self) -> None:
        """How many there are more."""
        record = Record(State.DEFERRED, replies={f"{n}@example.org": LATER for n in range(5)})
        self.assertEqual(said(record).split("; ")[2:], ["2@example.org: 450 greylisted", "2 more"])
        three = Record(State.DEFERRED, replies={f"{n}@example.org": LATER for n in range(3)})
        self.assertNotIn("more", said(three))

    def test_is_no_longer_than_a_line_can_be(self) -> None:
        """80 characters of a recipient, 200 of a reply."""
        record = Record(State.DEFERRED, replies={"r" * 300: Reply(Answer.DEFERRED, "w" * 300)})
        self.assertEqual([len(part) for part in said(record).split(": ")], [80, 200])


class APath(unittest.TestCase):
    def test_can_be_pasted_into_a_shell(self) -> None:
        """With blanks in it as well; it is one line."""
        self.assertEqual((quoted("/a b"), quoted("/a\nb")), ("'/a b'", "'/a b'"))
        self.assertEqual(len(quoted("/" * 400)), 300)


class AFinding(unittest.TestCase):
    def test_is_a_standstill_if_mail_of_others_waits_for_it(self) -> None:
        """A note is none, and a problem of one mail neither."""
        for kind, severity, is_standstill in (
            (Kind.RELAY, Severity.PROBLEM, True),
            (Kind.ROOM, Severity.PROBLEM, True),
            (Kind.RELAY, Severity.NOTE, False),
            (Kind.REJECTED, Severity.PROBLEM, False),
        ):
            self.assertIs(Finding(kind, severity, "x", "text", "cure").is_standstill, is_standstill)


class ItsCommands(unittest.TestCase):
    def finding(self, *commands: tuple[str, ...]) -> Finding:
        return Finding(Kind.FOREIGN, Severity.NOTE, "", "", "", commands=commands)

    def test_name_the_queue_and_paths_within_it(self) -> None:
        """Quoted for a shell; what is no path of the queue stays as it is."""
        finding = self.finding(queue_command("show", "name"), ("rm", f"{HERE}../it's"), ("df", "-h"))
        lines = finding.within("/srv/mail").command_lines("/srv/my mail")
        self.assertEqual(lines, ["zope-sendmail queue show '/srv/my mail' name", "rm '/srv/it'\"'\"'s'", "df -h"])

    def test_end_the_options_before_a_name_that_looks_like_one(self) -> None:
        """Such as a file that another program made."""
        self.assertEqual(queue_command("show", "-x")[-2:], ("--", "-x"))
        self.assertEqual(queue_command("show", "x", options=("--raw",))[3:], ("--raw", QUEUE, "x"))
        self.assertNotIn("--", queue_command("list", "x", "-y"))

    def test_have_nothing_that_a_terminal_obeys(self) -> None:
        """Octet by octet, as POSIX.1-2024, 2.2.4, has it; the line stays one line."""
        [line] = self.finding(("rm", "a X~\n\x1b\x7f\udcff'\\z")).command_lines("")
        self.assertEqual(line, "rm $'a X~\\012\\033\\177\\377\\047\\134z'")


if __name__ == "__main__":
    unittest.main()


class SeveralFindings(unittest.TestCase):
    def found(self, name: str, *commands: tuple[str, ...], filters: tuple[str, ...] = ()) -> Finding:
        return Finding(Kind.HELD, Severity.NOTE, name, "", "", commands=commands, filters=filters)

    def of(self, *findings: Finding) -> list[str]:
        """Return the commands for all of them."""
        return together(findings).command_lines("/q")

    def test_have_the_commands_of_one_if_they_are_one(self) -> None:
        """Its filters would select others."""
        one = self.found("a", queue_command("show", "a"), filters=("--state", "held"))
        self.assertIs(together([one]), one)

    def test_are_selected_by_their_filters(self) -> None:
        """All with the same cause; ``show`` is for one mail, ``list`` for many."""
        verbs = ("show", "release")
        found = [
            self.found(name, *(queue_command(verb, name) for verb in verbs), filters=("--reply", "its * died"))
            for name in "ab"
        ]
        self.assertEqual(
            self.of(*found),
            [f"zope-sendmail queue {verb} --reply 'its * died' /q" for verb in ("list", "release")],
        )

    def test_are_named_where_no_filters_select_them(self) -> None:
        """All in one command, each once."""
        plain = [self.found(name, queue_command("release", name), ("ls", "-l", name)) for name in "abb"]
        self.assertEqual(self.of(*plain), ["zope-sendmail queue release /q a b", "ls -l a b"])
        other = self.found("c", queue_command("release", "c"), filters=("--state", "held"))
        self.assertEqual(self.of(other, *plain[:1]), ["zope-sendmail queue release /q c a", "ls -l a"])

    def test_are_named_as_far_as_a_line_can_be_read(self) -> None:
        """Twenty of them; what is left the next look names."""
        many = [self.found(str(number), ("rm", str(number))) for number in range(21)]
        self.assertEqual(self.of(*many), ["rm " + " ".join(map(str, range(20)))])

    def test_have_commands_each_where_one_command_is_for_one(self) -> None:
        """One relay is flushed at a time; what is the same is said once."""
        relays = [self.found(name, queue_command("flush", name), queue_command("relays")) for name in "ab"]
        self.assertEqual(
            self.of(*relays),
            [
                "zope-sendmail queue flush /q a",
                "zope-sendmail queue relays /q",
                "zope-sendmail queue flush /q b",
            ],
        )
