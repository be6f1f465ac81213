"""Records, and the lines that keep them."""

from __future__ import annotations

import json
import unittest
from dataclasses import fields, replace
from typing import Any

from hypothesis import given, strategies as st

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import (
    Part,
    Record,
    checked,
    compacted,
    last_record,
    read_records,
    record_at_end,
    write_record,
)
from zope.sendmail.lifecycle.retry import Schedule, judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK

OK = Reply(Answer.ACCEPTED, "ok", 250)
TEXT = st.text('ab\r\n"\\{}\u2028\x00ж\udcff', max_size=8)
TIME = st.floats(0, 1e12)
COUNT = st.integers(0, 10**6)
REPLY = st.builds(Reply, st.sampled_from(Answer), TEXT, st.none() | st.integers(0, 999), st.none() | st.just("5.1.1"))
RECORD = st.builds(
    Record,
    st.sampled_from(State),
    COUNT,
    TIME,
    TIME,
    TIME,
    COUNT,
    COUNT,
    TEXT,
    TEXT,
    st.dictionaries(TEXT, REPLY, max_size=3),
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**400) | st.floats() | st.text(max_size=3) | st.sampled_from(State),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(["a", "b"]), each, max_size=2),
    max_leaves=4,
)


class AMessageThatWasHeld(unittest.TestCase):
    RECORD = Record(
        State.HELD, 3, 10.0, 99.0, 5.0, 2, 1, "r:25", "why", {"a": OK, "b": Reply(Answer.DEFERRED, "later", 450)},
        {"bulk": Part(2, 10.0, 99.0, 5.0, held=True), "main": Part(1, 8.0, 70.0, 4.0)},
    )  # fmt: skip

    def test_each_mailer_has_its_part(self) -> None:
        """Of the mail as a whole it has one if nothing is known of its part, and a fresh one if nobody was tried."""
        self.assertEqual(self.RECORD.part("bulk", ["a"]), Part(2, 10.0, 99.0, 5.0, held=True))
        whole = Record(State.DEFERRED, 3, 8.0, 70.0, replies={"a": OK}, spent=2.0)
        self.assertEqual(whole.part("bulk", ["a", "b"]), Part(3, 8.0, 70.0, 2.0))
        self.assertEqual(whole.part("bulk", ["b"]), Part())

    def test_those_who_were_tried_last_are_due_with_their_part(self) -> None:
        """The record's own moment is that of whoever is due first."""
        self.assertEqual(replace(self.RECORD, time=10.0, due=70.0).due_again, 99.0)
        self.assertEqual(replace(self.RECORD, time=11.0, due=70.0).due_again, 70.0)

    def test_its_parts_are_kept_in_its_line(self) -> None:
        """Whole numbers, as other programs may write them, are as good as those with a fraction."""
        line = write_record(self.RECORD)
        self.assertEqual(last_record(line), self.RECORD)
        self.assertEqual(last_record(line.replace(b"10.0", b"10")), self.RECORD)

    def test_goes_on_now_with_all_its_parts(self) -> None:
        """Its deaths are forgotten; what was tried and said is not."""
        record = self.RECORD.released(50.0)
        parts = {"bulk": Part(2, 50.0, 50.0, 5.0), "main": Part(1, 50.0, 50.0, 4.0)}
        expected = replace(self.RECORD, state=State.READY, time=50.0, due=50.0, deaths=0, note="released", parts=parts)
        self.assertEqual(record, expected)

    def test_is_tried_as_if_new(self) -> None:
        """For those who have not got it, whatever its sender asked for."""
        record = self.RECORD.again(50.0, "an operator wants it")
        expected = Record(
            State.READY, 0, 50.0, 50.0, 0.0, 0, 1, "r:25", "an operator wants it", {"a": OK}, {}, early=True
        )
        self.assertEqual(record, expected)


class Lines(unittest.TestCase):
    @QUICK
    @given(st.lists(RECORD, max_size=4))
    def test_what_was_written_is_read(self, records: list[Record]) -> None:
        """Each record on one line, and the last one rules."""
        text = b"".join(map(write_record, records))
        self.assertEqual(text.count(b"\n"), len(records))
        self.assertEqual(list(read_records(text)), records)
        self.assertEqual(last_record(text), records[-1] if records else Record())

    @QUICK
    @given(RECORD, RECORD, st.data())
    def test_a_torn_line_is_left_out(self, first: Record, second: Record, data: st.DataObject) -> None:
        """Wherever the crash cut it, the last whole line rules, also when the next one follows it."""
        whole, last = write_record(first), write_record(second)
        cut = data.draw(st.integers(0, len(last) - 1))
        torn = whole + last[:cut]
        self.assertEqual(list(read_records(torn)), [first])
        self.assertEqual(last_record(torn), first)
        self.assertEqual(last_record(torn + b"\n" + whole + last), second)

    @QUICK
    @given(st.lists(RECORD, min_size=1, max_size=6), st.data())
    def test_a_line_may_tell_of_changes_only(self, records: list[Record], data: st.DataObject) -> None:
        """It is read together with those before it, also beside torn ones; none of them was a base."""
        text, written = b"", []
        for record in records:
            base = record_at_end(text)
            line = write_record(record, base)
            if data.draw(st.booleans()):
                text += line
                written.append(record)
            else:
                text += line[: data.draw(st.integers(0, len(line) - 1))] + b"\n"
        self.assertEqual(list(read_records(text)), written)
        self.assertEqual(last_record(text), written[-1] if written else Record())

    @QUICK
    @given(st.lists(RECORD, min_size=1, max_size=5))
    def test_a_compacted_history_says_the_same(self, records: list[Record]) -> None:
        """All attempts, and every reply that rules."""
        text = b""
        for record in records:
            text += write_record(record, record_at_end(text))
        short = compacted(text)
        self.assertEqual(short.count(b'"replies":{}'), len(records) - bool(records[-1].replies))
        self.assertEqual(last_record(short), records[-1])
        self.assertEqual(
            [replace(each, replies={}) for each in read_records(short)], [replace(each, replies={}) for each in records]
        )

    def test_each_record_is_read_with_the_replies_that_ruled_then(self) -> None:
        """Of a short line those before it, up to the last line that had all; compacted, the last one has its own."""
        later = Reply(Answer.DEFERRED, "later", 451)
        records = [
            Record(State.DEFERRED, 1, replies={"a": later}),
            Record(State.DEFERRED, 2, replies={"b": later}),
            Record(State.DEFERRED, 3, replies={"b": later, "c": OK}),
            Record(State.DEFERRED, 4, replies={"b": OK, "c": OK}),
        ]
        bases = (None, None, records[1], records[2])
        text = b"".join(map(write_record, records, bases))
        self.assertEqual(text.count(b'"changed"'), 2)
        self.assertEqual(list(read_records(text)), records)
        short = b"".join(map(write_record, [*(replace(each, replies={}) for each in records[:-1]), records[-1]]))
        self.assertEqual(compacted(text), short)

    def test_the_end_of_a_file_may_say_too_little(self) -> None:
        """Whoever reads it has to read more then."""
        first = Record(State.DEFERRED, 1, replies={"a": OK, "b": Reply(Answer.DEFERRED, "x")})
        second = replace(first, attempts=2, replies={"a": OK, "b": Reply(Answer.DEFERRED, "y")})
        line = write_record(second, first)
        self.assertNotIn(b'"a"', line)
        self.assertIsNone(record_at_end(line, is_all=False))
        self.assertEqual(record_at_end(line), replace(second, replies={"b": Reply(Answer.DEFERRED, "y")}))
        self.assertIsNone(record_at_end(b"nothing\n"))
        self.assertEqual(record_at_end(write_record(first) + line, is_all=False), second)

    def test_what_is_forgotten_is_not_left_to_the_lines_before(self) -> None:
        """A retry asks those again who were rejected."""
        first = Record(State.REJECTED, 1, replies={"a": OK, "b": Reply(Answer.REJECTED, "x")})
        again = first.again(5.0, "why")
        self.assertEqual(last_record(write_record(first) + write_record(again, first)), again)

    @QUICK
    @given(st.binary(max_size=60))
    def test_garbage_is_left_out(self, garbage: bytes) -> None:
        """Reading never fails."""
        record = Record(State.DEFERRED, attempts=1)
        self.assertEqual(last_record(b"\0\0\0\0\n" + write_record(record) + garbage), record)
        self.assertEqual(list(read_records(garbage)), [])

    def test_what_cannot_be_is_left_out(self) -> None:
        """A time without an end, a part with too few values or too many, a word in the place of a number."""
        line = write_record(Record(State.DEFERRED, 3, 10.0, parts={"bulk": Part(2, 10.0, 99.0, 5.0)}))
        self.assertIsNotNone(record_at_end(line))
        for good, bad in (
            (b'"time":10.0', b'"time":Infinity'),
            (b'"time":10.0', b'"time":1e999'),
            (b'"time":10.0', b'"time":NaN'),
            (b",5.0,false]", b",5.0]"),
            (b",5.0,false]", b",5.0,false,1]"),
        ):
            self.assertIn(good, line)
            self.assertIsNone(record_at_end(line.replace(good, bad)), bad)
        with self.assertRaisesRegex(TypeError, "^there cannot be 'x' in the place of 5$"):
            checked(5, "x")

    def test_deep_nesting_is_left_out(self) -> None:
        """Not even that makes reading fail."""
        self.assertEqual(last_record(b"[" * 100_000 + b"\n"), Record())

    @QUICK
    @given(st.dictionaries(st.sampled_from([each.name for each in fields(Record)]), JSON))
    def test_what_is_read_can_be_worked_with(self, changed: dict[str, Any]) -> None:
        """A line with values of another kind is left out, not handed on to fail later."""
        whole = Record(State.DEFERRED, 1, 5.0, 6.0, replies={"a": Reply(Answer.DEFERRED, "x")})
        values = json.loads(write_record(whole))
        record = last_record(json.dumps(values | changed).encode() + b"\n")
        record.wait(10.0)
        envelope = Envelope("a@example.org", ("b@example.org",))
        later = Outcome("", {"b@example.org": Reply(Answer.DEFERRED, "later")})
        judged = judge(record, envelope, later, Schedule(), now=10.0, chance=0.5)
        self.assertEqual(last_record(write_record(judged)), judged)

    def test_a_line_is_this(self) -> None:
        """Other programs read it: ASCII, no blanks, and nothing of what a mail does not have."""
        record = Record(State.DEFERRED, 3, 10.0, 20.5, 5.0, 2, 1, "r:25", "später", {"a": OK})
        begin = (
            b'{"state":"deferred","attempts":3,"time":10.0,"due":20.5,"spent":5.0,"deaths":2,"unknowns":1,'
            b'"relay":"r:25","note":"sp\\u00e4ter",'
        )
        self.assertEqual(write_record(record), begin + b'"replies":{"a":["accepted",250,null,"ok"]}}\n')
        more = replace(record, parts={"bulk": Part(2, 10.0, 99.0, 5.0, held=True)}, early=True)
        self.assertEqual(
            write_record(more, record),
            begin + b'"parts":{"bulk":[2,10.0,99.0,5.0,true]},"early":true,"changed":{}}\n',
        )

    def test_changes_of_which_the_whole_is_lost_are_all_that_is_known(self) -> None:
        """A history whose first line is torn says what it can."""
        first = Record(State.DEFERRED, 1, replies={"a": OK, "b": Reply(Answer.DEFERRED, "x")})
        second = replace(first, replies={"a": OK, "b": Reply(Answer.DEFERRED, "y")})
        known = replace(first, replies={"b": Reply(Answer.DEFERRED, "y")})
        self.assertEqual(list(read_records(b"torn\n" + write_record(second, first))), [known])

    def test_lines_of_other_versions(self) -> None:
        """A value this version does not know is passed over, one it misses is as if fresh."""
        record = Record(State.DEFERRED, attempts=3, replies={"a": Reply(Answer.ACCEPTED, "ok", 250)})
        values = json.loads(write_record(record))
        self.assertEqual(last_record(json.dumps(values | {"colour": "blue"}).encode() + b"\n"), record)
        del values["unknowns"], values["relay"]
        self.assertEqual(last_record(json.dumps(values).encode() + b"\n"), record)


class Recipients(unittest.TestCase):
    def test_the_envelope_of_the_rest_has_them_only(self) -> None:
        """Malformed addresses as well, which are refused once."""
        record = Record(replies={"a": OK, "x@@y": Reply(Answer.REJECTED, "no")})
        envelope = Envelope("s@example.org", ("a", "b"), ("x@@y", "z@@y"))
        self.assertEqual(record.left_of(envelope), Envelope("s@example.org", ("b",), ("z@@y",)))

    def test_a_part_waits_as_the_whole_does(self) -> None:
        """Never longer than was planned, if the clock was set back."""
        part = Part(1, 100.0, 160.0)
        self.assertEqual([part.wait(now) for now in (100.0, 130.0, 160.0, 200.0)], [60.0, 30.0, 0.0, 0.0])
        self.assertLessEqual(part.wait(0.0), 60.0)

    def test_outstanding_are_those_without_a_final_answer(self) -> None:
        """Deferred, unknown, and never asked."""
        record = Record(replies={answer.value: Reply(answer, "") for answer in Answer})
        self.assertEqual(
            record.outstanding(["accepted", "new", "rejected", "deferred", "unknown"]), ("new", "deferred", "unknown")
        )

    def test_again_forgets_rejections_and_keeps_what_was_accepted(self) -> None:
        """Nobody gets a mail twice because somebody else gets it again."""
        ok = Reply(Answer.ACCEPTED, "ok", 250)
        record = Record(State.REJECTED, 9, 1.0, 2.0, 3.0, 2, replies={"a": ok, "b": Reply(Answer.REJECTED, "no", 550)})
        again = record.again(50.0, "why")
        self.assertEqual(again, Record(State.READY, 0, 50.0, 50.0, 0.0, 0, note="why", replies={"a": ok}, early=True))


class Waiting(unittest.TestCase):
    record = Record(State.DEFERRED, time=1000.0, due=1060.0)

    def test_until_it_is_due(self) -> None:
        """And never less than nothing."""
        self.assertEqual([self.record.wait(now) for now in (1000.0, 1050.0, 1060.0, 5000.0)], [60.0, 10.0, 0.0, 0.0])

    def test_other_states_do_not_wait_for_a_time(self) -> None:
        """Only a deferred message has one."""
        for state in set(State) - {State.DEFERRED}:
            self.assertEqual(Record(state, time=1000.0, due=1060.0).wait(1000.0), 0.0)

    def test_a_clock_that_was_set_back(self) -> None:
        """A little (another host's clock): no longer than planned; a lot: now."""
        self.assertEqual(self.record.wait(900.0), 60.0)
        self.assertEqual(self.record.wait(1000.0 - 86400), 0.0)
        self.assertEqual([self.record.wait(1000.0 - 600.0), self.record.wait(1000.0 - 600.5)], [60.0, 0.0])

    @QUICK
    @given(RECORD, TIME)
    def test_never_longer_than_planned(self, record: Record, now: float) -> None:
        """Whatever the clocks say."""
        self.assertLessEqual(record.wait(now), max(0.0, record.due - record.time))


load_tests = properties_apart
