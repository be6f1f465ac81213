"""A file of the reserve that becomes another one: what is there at each point at which that may end."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import unittest
from collections.abc import Iterator

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import make_maildir
from zope.sendmail.message.pieces import Piece
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.layout import EXTRA, Layout
from zope.sendmail.queue.maildir.ownertext import EMPTY, FIRST_SLOTS
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import NEVER, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk, RecordingDisk
from zope.sendmail.tests.support.wreckage import FileSystem, Tree, materialize

PIECES = (b"one line\n", b"another line " * 50 + b"\n")
TEXT = b"".join(PIECES)

#: What is at the path when an end came before the rest of the file was cut off.
UNCUT = TEXT + (EMPTY * (FIRST_SLOTS + 1))[len(TEXT) :]


class NoNewFiles(RecordingDisk):
    """A disk on which no file can be made any more, once it is full, but what is there can be renamed."""

    is_full = False

    def append(self, path: str, *pieces: Piece) -> None:
        """See `Disk.append`."""
        if self.is_full and not self.exists(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        super().append(path, *pieces)


class ReserveTest(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = self.enterContext(tempfile.TemporaryDirectory())
        self.layout = Layout(os.path.join(self.scratch, "queue"))
        self.target = os.path.join(self.layout.history_, "name")

    def made(self, disk: Disk) -> None:
        """Make a queue with a reserve."""
        make_maildir(disk, self.layout.root, EXTRA)
        reserve.make(self.layout, disk)

    def content(self, layout: Layout) -> bytes | None:
        """Return what is in the file that was to be made."""
        path = os.path.join(layout.history_, "name")
        return Disk().read(path) if os.path.exists(path) else None

    def usable(self, layout: Layout) -> list[str]:
        """Return the files of the reserve that a process gets which takes all of them."""
        found: list[str] = []
        with contextlib.ExitStack() as stack:
            while (taken := reserve.take(layout, Disk())) is not None:
                path, fd = taken
                stack.callback(os.close, fd)
                self.assertEqual(Disk().read(path), EMPTY * (FIRST_SLOTS + 1))
                found.append(os.path.basename(path))
        return found

    def states(self, disk: RecordingDisk, begin: int) -> Iterator[Tree]:
        """Yield what a death, or a loss of power, may leave after each change from the `begin`-th on."""
        wreck, seen = FileSystem(), set()
        for number, op in enumerate(disk.ops):
            wreck.apply(op)
            for tree in (*wreck.after_death(), *wreck.after_power_loss()) if number >= begin else ():
                if (key := frozenset(tree.items())) not in seen:
                    seen.add(key)
                    yield tree

    def found(self, disk: RecordingDisk, begin: int) -> Iterator[Layout]:
        """Make a directory of each of these states."""
        for number, tree in enumerate(self.states(disk, begin)):
            root = os.path.join(self.scratch, str(number))
            materialize(tree, root)
            yield Layout(os.path.join(root, "queue"))


class BecomingAnother(ReserveTest):
    def recorded(self) -> tuple[NoNewFiles, int]:
        """Return a disk on which a file of the reserve became another, and how many changes there were before."""
        disk = NoNewFiles(self.scratch)
        self.made(disk)
        disk.sync_directory(self.scratch)
        disk.sync_directory(self.layout.root)
        disk.sync_directory(self.layout.locks)
        begin = len(disk.ops)
        self.assertTrue(reserve.become(self.layout, disk, self.target, *PIECES))
        return disk, begin

    def test_leaves_all_or_nothing(self) -> None:
        """In each state: at its name is nothing of the file that it was."""
        disk, begin = self.recorded()
        for layout in self.found(disk, begin):
            self.assertIn(self.content(layout), (None, UNCUT, TEXT))
        self.assertEqual(self.content(self.layout), TEXT)

    def test_costs_no_more_than_one(self) -> None:
        """In each state what is left can be taken, empty, without any room; and completed where there is some."""
        disk, begin = self.recorded()
        for layout in self.found(disk, begin):
            usable = self.usable(layout)
            self.assertEqual(len(usable), 3 if self.content(layout) is None else 2)
            reserve.make(layout, Disk())
            self.assertEqual(len(self.usable(layout)), 3)

    def test_goes_although_one_call_fails(self) -> None:
        """There is another file for that; but none for a processor is taken."""
        number, disk = 0, FaultyDisk(1)
        while number == 0 or disk.failed:
            number += 1
            with self.subTest(number):
                self.made(Disk())
                disk = FaultyDisk(number, errno.EIO)
                self.assertTrue(reserve.become(self.layout, disk, self.target, *PIECES))
                self.assertEqual(self.content(self.layout), TEXT)
                self.assertIn(".reserve-0", os.listdir(self.layout.locks))
                os.unlink(self.target)
        self.assertGreater(number, 6)

    def test_leaves_nothing_on_a_disk_that_fails(self) -> None:
        """From any call on; nor does it cost what is in reserve, unless the file had its name and could not go back."""
        number, disk = 0, FaultyDisk(1)
        while number == 0 or disk.failed:
            number += 1
            with self.subTest(number):
                self.made(Disk())
                disk = FaultyDisk(number, errno.EIO, for_ever=True)
                went = reserve.become(self.layout, disk, self.target, *PIECES)
                content = self.content(self.layout)
                self.assertIn(content, (TEXT,) if went else (None, UNCUT))
                self.assertEqual(len(self.usable(self.layout)), 3 if content is None else 2)
                if content is not None:
                    os.unlink(self.target)
        self.assertTrue(went)

    def test_does_not_take_one_that_says_something(self) -> None:
        """An owner has given it back with what it says of its locks."""
        self.made(Disk())
        for number in (1, 2):
            path = os.path.join(self.layout.locks, f".reserve-{number}")
            with Disk().locked(path) as fd:
                assert fd is not None
                Disk().write_at(fd, b"zope.sendmail owner: host a pid 1 boot b", 0)
        self.assertFalse(reserve.become(self.layout, Disk(), self.target, *PIECES))
        self.assertIsNone(self.content(self.layout))

    def test_does_not_give_the_name_to_another_file(self) -> None:
        """An owner that ends gives its file back under that name in the moment of the rename."""

        class GivingBack(Disk):
            def rename(self, old: str, new: str) -> None:
                if old.endswith("2"):
                    os.unlink(old)
                    self.create(old, EMPTY * (FIRST_SLOTS + 1))
                super().rename(old, new)

        self.made(Disk())
        self.assertTrue(reserve.become(self.layout, GivingBack(), self.target, *PIECES))
        self.assertEqual(self.content(self.layout), TEXT)


class ARecordWithoutRoomForItsHistory(ReserveTest):
    RECORD = Record(state=State.REJECTED, attempts=1, time=1000.0, replies={"a@example.org": NEVER})

    def test_stands_there_whole_or_not_at_all(self) -> None:
        """In each state the history says it, or there is none; and what it says counts, cut off or not."""
        disk = NoNewFiles(self.scratch)
        self.made(disk)
        disk.sync_directory(self.layout.root)
        begin = len(disk.ops)
        disk.is_full = True
        Store(self.layout, disk, ManualClock()).append("new/name", self.RECORD)
        seen = set()
        for layout in self.found(disk, begin):
            record = Store(layout, Disk(), ManualClock()).record("new/name")
            self.assertIn(record, (Record(), self.RECORD))
            self.assertEqual(record == self.RECORD, self.content(layout) is not None)
            seen.add(record.state)
            self.assertEqual([name for name in os.listdir(layout.history_) if name != "name"], [])
        self.assertEqual(seen, {State.READY, State.REJECTED})


class AFileOfTheReserve(unittest.TestCase):
    """That cannot become another one, or an owner file."""

    def setUp(self) -> None:
        self.layout = Layout(self.enterContext(tempfile.TemporaryDirectory()))
        os.mkdir(self.layout.locks)
        self.target = os.path.join(self.layout.root, "target")
        reserve.make(self.layout, Disk())

    def test_is_too_short_for_what_is_to_be_written(self) -> None:
        """All stay as they were."""
        self.assertFalse(reserve.become(self.layout, Disk(), self.target, b"x" * 1_000_000))
        self.assertFalse(os.path.exists(self.target))
        self.assertEqual(len(os.listdir(self.layout.locks)), 3)

    def test_was_cut_off(self) -> None:
        """It is passed over, and the next one is taken."""
        os.truncate(os.path.join(self.layout.locks, ".reserve-0"), 10)
        found = reserve.take(self.layout, Disk())
        assert found is not None
        os.close(found[1])
        self.assertTrue(found[0].endswith("1"))


if __name__ == "__main__":
    unittest.main()
