"""What is known about mails that have left the queue."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import unittest
from dataclasses import replace
from unittest import mock

from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, SentMail
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.testing.contracts import NEVER, OK, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk

DAY = 86400.0
SENT = Record(State.SENT, relay="relay:25", replies={"one@example.org": OK})


class Mails(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.root = self.enterContext(tempfile.TemporaryDirectory())
        self.sent_log = self.open()

    def open(self, fail_at: int = 0) -> SentLog:
        sent_log = SentLog(Layout(self.root), FaultyDisk(fail_at, for_ever=True), self.clock)
        self.addCleanup(sent_log.close)
        return sent_log

    def when(self, message_id: str) -> float | None:
        found = self.open().find(message_id)
        return found.time if found else None

    def files(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.root, "sent")))

    def test_are_found_by_their_whole_message_id(self) -> None:
        """The last one counts; a part of an id finds nothing."""
        started = self.clock.time()
        self.sent_log.note("one", "a@b", SENT)
        self.clock.advance(10)
        self.sent_log.note("two", "xa@b", SENT)
        self.sent_log.note("three", "a@b", SENT)
        self.assertEqual(self.when("a@b"), started + 10)
        for other in "a@", "@b", "b", "", "one", "one a@b":
            self.assertIsNone(self.open().find(other))

    def test_that_move_to_another_queue_go_as_far_as_they_are_kept(self) -> None:
        """Neither a day that is too old leaves, nor does it come; what is there already does not come twice."""
        for days, message_id in ((0, "old@b"), (9, "new@b"), (0, "newer@b")):
            self.clock.advance(days * DAY)
            self.sent_log.note("name", message_id, SENT)
        old = os.path.join(self.root, "sent", self.files()[0] if len(self.files()) > 1 else "2000-01-01")
        with open(old, "a", encoding="ascii") as stream:  # a file that was not removed yet
            stream.write(f'{self.clock.time() - 9 * DAY} ["old@b","name","",[]]\n')
        mails = list(self.sent_log.entries())
        self.assertEqual([message_id for message_id, _ in mails], ["new@b", "newer@b"])
        ancient = ("older@b", replace(mails[0][1], time=self.clock.time() - 99 * DAY))
        other = SentLog(Layout(os.path.join(self.root, "other")), FaultyDisk(), self.clock)
        os.mkdir(os.path.join(self.root, "other"))
        for _ in range(2):
            other.bring([ancient, *mails[:1]])
            other.bring(mails)
        self.assertEqual(sorted(message_id for message_id, _ in other.entries()), ["new@b", "newer@b"])

    def test_are_not_noted_where_what_is_free_is_needed_for_locks(self) -> None:
        """The log of the queue is what knows of them then."""
        sent_log = SentLog(Layout(self.root), FaultyDisk(), self.clock, has_room=lambda: False)
        self.addCleanup(sent_log.close)
        sent_log.note("name", "a@b", SENT)
        self.assertFalse(os.path.exists(os.path.join(self.root, "sent")))

    def test_are_found_behind_a_line_of_megabytes(self) -> None:
        """That is none of ours; it is not kept in memory."""
        self.sent_log.note("one", "first@b", SENT)
        with open(os.path.join(self.root, "sent", self.files()[0]), "ab") as stream:
            stream.write(b"x" * 3 * 2**20 + b"\n")
        self.sent_log.note("two", "last@b", SENT)
        self.assertIsNotNone(self.when("first@b"))
        self.assertIsNotNone(self.when("last@b"))

    def test_with_something_else_in_the_place_of_a_text_are_none(self) -> None:
        """Another program wrote the line; no question for a status fails because of it."""
        self.sent_log.note("one", "a@b", SENT)
        for line in ('["a@b","name",7,[]]', '["a@b","name","relay",[[["x"],7]]]'):
            with open(os.path.join(self.root, "sent", self.files()[0]), "a", encoding="ascii") as stream:
                stream.write(f"{self.clock.time() + 5} {line}\n")
        self.assertEqual(self.when("a@b"), self.clock.time())

    def test_with_one_recipient_have_a_line_as_those_with_several(self) -> None:
        """Of which any reader of JSON makes the same, whatever the texts are."""
        odd = 'a"\\\u00e4\u20ac\U0001f4e7'
        for reply in OK, Reply(Answer.ACCEPTED, odd, None, None), Reply(Answer.ACCEPTED, "", 250, ""):
            both = dict.fromkeys((f"{odd}@example.org", "two@example.org"), reply)
            for replies in both, dict(list(both.items())[:1]):
                self.sent_log.note(f"name{odd}", f"{odd}@b", Record(State.SENT, relay=odd, replies=replies))
                with open(os.path.join(self.root, "sent", self.files()[0]), encoding="ascii") as file:
                    line = file.read().splitlines()[-1]
                values = [reply.answer.value, reply.code, reply.enhanced, reply.text]
                expected = [f"{odd}@b", f"name{odd}", odd, [[values, list(replies)]]]
                self.assertEqual(line.partition(" ")[2], json.dumps(expected, separators=(",", ":")))

    def test_of_several_processes_stand_in_one_file(self) -> None:
        """That is private."""
        other = self.open()
        for number in range(10):
            (self.sent_log, other)[number % 2].note("n", f"{number}@b", SENT)
        self.assertTrue(all(self.sent_log.find(f"{number}@b") for number in range(10)))
        [name] = self.files()
        mode = os.stat(os.path.join(self.root, "sent", name)).st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_are_found_behind_what_a_loss_of_power_left(self) -> None:
        """Zeros, or the beginning of a line that has no end."""
        started = self.clock.time()
        self.sent_log.note("one", "a@b", SENT)
        [name] = self.files()
        for left in (b"\0" * 100, b"180", b"1800000000 na"):
            with open(os.path.join(self.root, "sent", name), "ab") as file:
                file.write(left)
            self.clock.advance(1)
            self.open().note("two", "c@d", SENT)
            self.assertEqual(self.when("c@d"), self.clock.time())
        self.assertEqual(self.when("a@b"), started)

    def test_foreign_lines_are_passed_over(self) -> None:
        """Somebody's editor, or a disk."""
        self.sent_log.note("one", "a@b", SENT)
        [name] = self.files()
        with open(os.path.join(self.root, "sent", name), "ab") as file:
            file.write(b"\0\0 one x@y\n")
        self.assertIsNone(self.sent_log.find("x@y"))

    def test_of_a_time_that_cannot_be_are_foreign(self) -> None:
        """There is no day on which another queue could note them."""
        self.sent_log.note("one", "a@b", SENT)
        [name] = self.files()
        with open(os.path.join(self.root, "sent", name), "ab") as file:
            for time in (b"inf", b"nan", b"1e18", b"-1"):
                file.write(time + b' ["b@b","","",[]]\n')
        self.assertEqual([message_id for message_id, _ in self.open().entries()], ["a@b"])

    def test_are_known_for_a_week(self) -> None:
        """Then their files are removed, by whoever notes something."""
        for day in range(20):
            self.sent_log.note("n", f"{day}@b", SENT)
            self.clock.advance(DAY)
        self.assertEqual(len(self.files()), KEPT_DAYS + 1)
        known = [day for day in range(20) if self.sent_log.find(f"{day}@b")]
        self.assertEqual(known, list(range(20 - KEPT_DAYS - 1, 20)))

    def test_leave_also_when_that_cannot_be_written_down(self) -> None:
        """It is told once, and goes on when the disk does."""
        broken = self.open(fail_at=1)
        with self.assertLogs("QueueProcessorThread", "WARNING") as logs:
            for number in range(5):
                broken.note("n", f"{number}@b", SENT)
        self.assertEqual(len(logs.output), 1)
        self.sent_log.note("n", "a@b", SENT)
        self.assertEqual(self.when("a@b"), self.clock.time())

    def test_of_a_clock_that_was_set_back_are_found(self) -> None:
        """In the file of that day."""
        self.sent_log.note("n", "a@b", SENT)
        self.clock.wall -= 3 * DAY
        self.sent_log.note("n", "c@d", SENT)
        self.assertEqual(len(self.files()), 2)
        self.assertTrue(self.sent_log.find("a@b") and self.sent_log.find("c@d"))

    def test_are_known_with_what_the_relay_said(self) -> None:
        """About each recipient; its words name the mail in the relay's queue."""
        replies = {
            f"{number}@example.org": Reply(Answer.ACCEPTED, "queued as 4Xyz", 250, "2.0.0") for number in range(3)
        }
        replies["zwölf@example.org"] = NEVER
        self.sent_log.note("one", "a@b", Record(State.SENT, relay="relay:25", replies=replies))
        self.assertEqual(self.open().find("a@b"), SentMail(self.clock.time(), "relay:25", replies))

    def test_with_very_many_recipients_cost_little(self) -> None:
        """What was said about a hundred of them says enough."""
        replies = {f"{number}@example.org": OK for number in range(100_000)}
        self.sent_log.note("one", "a@b", Record(State.SENT, relay="relay:25", replies=replies))
        [name] = self.files()
        self.assertLess(os.path.getsize(os.path.join(self.root, "sent", name)), 4096)
        found = self.open().find("a@b")
        assert found is not None
        self.assertEqual(len(found.replies), 100)

    def test_are_found_whatever_their_id_is_made_of(self) -> None:
        """Blanks and ends of lines that only Unicode knows, quotes, halves of characters; names with blanks."""
        for number, strange in enumerate(("a\xa0b@c", "a\u2028b@c", 'a"b\\@c', "a\udcffb@c", "[a,b]@c", "ä@c")):
            self.sent_log.note(f"a name\nwith {number}", strange, SENT)
            self.sent_log.note("after", "z@c", SENT)
            self.assertEqual(self.when(strange), self.clock.time(), strange)

    def test_of_a_release_before_are_found(self) -> None:
        """Whose lines have no replies, and an id of any kind at their end."""
        os.makedirs(os.path.join(self.root, "sent"))
        with open(os.path.join(self.root, "sent", "2027-01-15"), "wb") as file:
            file.write("1800000001 name a@b\n1800000002 name a\xa0b@c\n".encode())
        self.assertEqual((self.when("a@b"), self.when("a\xa0b@c")), (1800000001.0, 1800000002.0))

    def test_are_found_in_a_file_of_many_pieces(self) -> None:
        """At the beginning, at the end, and across the end of a piece."""
        with mock.patch("zope.sendmail.queue.maildir.sentlog._PIECE", 700):
            for number in range(60):
                self.sent_log.note("name", f"{number}@b", SENT)
                self.clock.advance(1)
            first = self.clock.time() - 60
            self.assertEqual(
                [self.when(f"{number}@b") for number in range(60)], [first + number for number in range(60)]
            )

    def test_are_written_down_beside_what_is_no_file(self) -> None:
        """A FIFO would be waited for, a device would swallow them; neither hangs nor hides anything."""
        os.makedirs(os.path.join(self.root, "sent"))
        path = os.path.join(self.root, "sent", "2027-01-15")
        for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)):
            with self.subTest(make):
                make(path)
                self.sent_log.note("name", "a@b", SENT)
                self.assertEqual(self.when("a@b"), self.clock.time())
                self.sent_log.close()
                (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
                os.unlink(path + ".2")

    def test_are_known_for_as_long_as_is_wanted(self) -> None:
        """An operator may want a month."""
        log = SentLog(Layout(self.root), FaultyDisk(), self.clock, kept_days=30)
        self.addCleanup(log.close)
        for day in range(40):
            log.note("n", f"{day}@b", SENT)
            self.clock.advance(DAY)
        self.assertEqual(len(self.files()), 31)
