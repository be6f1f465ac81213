"""Mail that leaves later or expires, in a Maildir: names, foreign files, clocks that are set."""

from __future__ import annotations

import os
import tempfile
import unittest

from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key, unique_name, written_at
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import UNMARKED, Marks, Priority, Terms, marks_in
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock


class Names(unittest.TestCase):
    """What the name of a queue file tells of terms."""

    def test_are_read_as_they_were_written(self) -> None:
        """With flags of a Maildir reader behind them; what other programs put there tells nothing."""
        for marks in (
            Marks(Priority.HIGH),
            Marks(Priority.LOW, 1_800_000_000.0, 1_800_000_001.0),
            Marks(expires=2_000_000_000.0),
        ):
            self.assertEqual(marks_in(f"new/1.2.host.3{marks}"), marks)
            self.assertEqual(marks_in(f"cur/1.2.host.3{marks}:2,S"), marks)
        for name in ("1.2.host.3", "1.2.host.3,S=1234:2,S", "1.2.host.3,P=x,T=soon,E=,", "1.2.host.3,P=5,T=h"):
            self.assertEqual(marks_in(name), UNMARKED, name)

    def test_sort_and_tell_the_time_as_before(self) -> None:
        """The marks stand behind all that others read."""
        name = unique_name()
        marked = f"{name}{Marks(Priority.HIGH, 1_800_000_000.0)}"
        self.assertEqual(written_at(marked), written_at(name))
        self.assertEqual(age_key(marked)[:2], age_key(name)[:2])


class MaildirTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.path = self.enterContext(tempfile.TemporaryDirectory()) + "/queue"
        self.queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(self.queue.close)

    def put(self, terms: Terms) -> str:
        staged = self.queue.stage()
        name = staged.add(Envelope("s@example.org", ("one@example.org",), terms=terms), MESSAGE)
        staged.prepare()
        staged.commit()
        return name

    def names(self) -> list[str]:
        return [lease.name for lease in self.queue.claim(9)]


class AClockThatIsSet(MaildirTest):
    """Or a machine that has slept: the wall clock and the monotonic one part."""

    def test_takes_planned_mail_with_it(self) -> None:
        """Forward, and it leaves at once; its moment is one of the wall clock."""
        name = self.put(Terms(self.clock.time() + 7200))
        self.assertEqual(self.names(), [])
        self.clock.wall += 7200
        self.clock.advance(1)
        self.assertEqual(self.names(), [name])

    def test_keeps_planned_mail_when_it_is_set_back(self) -> None:
        """As many seconds later, by the other clock."""
        name = self.put(Terms(self.clock.time() + 60))
        self.assertEqual(self.names(), [])
        self.clock.wall -= 600
        self.clock.advance(60)
        self.assertEqual(self.names(), [])
        self.clock.advance(600)
        self.assertEqual(self.names(), [name])


class AForeignFile(MaildirTest):
    """Another program wrote it, by whatever name."""

    def drop(self, name: str, lines: bytes) -> None:
        self.queue.stage()
        with open(os.path.join(self.path, "new", name), "wb") as file:
            file.write(b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n" + lines + MESSAGE)

    def test_leaves_when_its_lines_say_it(self) -> None:
        """Also if its name does not."""
        self.drop("letter", b"X-Zope-Not-Before: 2027-01-15T08:01:00Z\nX-Zope-Envelope: end\n")
        self.assertEqual(self.names(), [])
        self.assertAlmostEqual(self.queue.next_due() or 0.0, 60.0, 3)
        self.assertEqual(self.queue.admin.show("letter").state, State.SCHEDULED)
        self.clock.advance(60)
        self.assertEqual(self.names(), ["letter"])

    def test_is_what_its_lines_say_whatever_its_name_says(self) -> None:
        """A mark in the name says when to read the file, and no more."""
        self.drop("1.2.host.3,T=1800000060", b"X-Zope-Not-Before: 2027-01-15T08:02:00Z\nX-Zope-Envelope: end\n")
        self.drop("1.2.host.4,E=1", b"")
        self.assertEqual(self.queue.claim_expired(), [])
        self.assertIsNone(self.queue.next_expiry())
        self.assertEqual(self.names(), ["1.2.host.4,E=1"])
        self.clock.advance(60)
        self.assertEqual(self.names(), [])
        self.clock.advance(60)
        self.assertEqual(self.names(), ["1.2.host.3,T=1800000060"])

    def test_expires_when_its_lines_say_it(self) -> None:
        """Once a processor has seen it."""
        self.drop("letter", b"X-Zope-Expires: 2027-01-15T08:01:00Z\nX-Zope-Envelope: end\n")
        [lease] = self.queue.claim(9)
        lease.park("slow")
        self.clock.advance(60)
        self.assertEqual([lease.name for lease in self.queue.claim_expired()], ["letter"])

    def test_is_told_apart_when_its_lines_cannot_be_meant(self) -> None:
        """It is no mail that can be sent, and the reason names the line."""
        for number, line in enumerate(
            (b"X-Zope-Not-Before: tomorrow", b"X-Zope-Priority: urgent", b"X-Zope-Expires: 2027-99-01T00:00:00Z")
        ):
            self.drop(str(number), line + b"\nX-Zope-Envelope: end\n")
            self.clock.advance(300)  # within one tick of the system's clock the directory keeps its time stamp
            [lease] = self.queue.claim(1)
            self.assertIn("asks for what cannot be", lease.problem)
